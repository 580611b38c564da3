"""Small loads in a process of their own, one after the other: how long the longest of them waits."""

import multiprocessing
import time
from multiprocessing.connection import Connection

from ZODB.utils import p64

import neo_client
from support.cluster import Cluster

SMALL = [p64(n) for n in range(1, 61)]
"""What is loaded: it must have been committed, with `b"small"` and the oid as value."""


def load_until_told(uri: str, pipe: Connection) -> None:
    """Load small objects one after the other, without a cache; when told to, say how many, and the longest wait."""
    storage = neo_client.open(uri, cache_size=0)
    count, longest_s = 0, 0.0
    while True:
        if pipe.poll():
            if pipe.recv() == "stop":
                break
            pipe.send((count, longest_s))
            count, longest_s = 0, 0.0
        for oid in SMALL:
            began = time.monotonic()
            assert storage.load(oid)[0] == b"small" + oid
            longest_s = max(longest_s, time.monotonic() - began)
            count += 1
    storage.close()


class SmallLoads:
    """Small loads in a process of their own: what they wait for is the cluster, not another thread of this one."""

    def __init__(self, cluster: Cluster) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=load_until_told, args=(cluster.uri, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def so_far(self) -> tuple[int, float]:
        """Return how many since the last call, and the longest wait in seconds."""
        self._pipe.send("tell")
        told: tuple[int, float] = self._pipe.recv()  # EOFError when it has failed: its traceback is above
        return told

    def stop(self) -> None:
        """End it; it must have met no error."""
        self._pipe.send("stop")
        self._process.join(30)
        assert self._process.exitcode == 0
