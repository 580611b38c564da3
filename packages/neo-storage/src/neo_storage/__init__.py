"""The storage: keeps whole history for its cells."""

__version__ = "0.1.0"
