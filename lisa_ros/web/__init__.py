"""The web page: a client of the perception node that people open in a browser (docs/web.md)."""
