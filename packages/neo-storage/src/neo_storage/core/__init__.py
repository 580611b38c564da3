"""The decisions of a storage. Pure."""
