"""Keep a thing from image to image: `Follower(engine, LisaTracker(engine))`."""
