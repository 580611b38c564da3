"""What the four kinds of NEO node share. Imports nothing, so that it costs nothing."""

__version__ = "0.1.0"
