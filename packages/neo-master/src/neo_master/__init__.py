"""The master: orders transactions, owns the partition table."""

__version__ = "0.1.0"
