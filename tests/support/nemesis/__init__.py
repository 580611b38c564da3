"""A nemesis: clusters of processes under load and faults, judged by what clients were told. See docs/testing.md."""
