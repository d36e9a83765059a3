"""Takes a client's order file to a platform that knows one order at a time."""
