"""neoadmin: the command line."""
