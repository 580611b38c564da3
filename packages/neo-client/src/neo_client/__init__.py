"""The client: a ZODB storage on a NEO cluster."""

__version__ = "0.1.0"
