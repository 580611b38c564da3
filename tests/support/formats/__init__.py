"""What is on disk, pinned: golden files of each format, made by `python -m support.formats` in `tests/`."""
