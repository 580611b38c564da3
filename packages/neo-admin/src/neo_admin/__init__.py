"""The admin daemon and neoadmin."""

__version__ = "0.1.0"
