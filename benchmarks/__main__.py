"""`make bench`: the comparison with the peers."""

from benchmarks.compare import main

main()
