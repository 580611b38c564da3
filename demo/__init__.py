"""A real job on a real cluster: `make demo`, or `python -m demo --help`."""
