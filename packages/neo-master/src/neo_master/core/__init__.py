"""The decisions of a master. Pure."""
