"""What to show. Pure."""
