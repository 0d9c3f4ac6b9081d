"""Eyes for others: a Model Context Protocol server and leaves of behaviour trees."""
