"""The decisions of a client. Pure."""
