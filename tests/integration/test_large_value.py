"""One record of 200 MB beside small loads, which must not wait for it."""

import hashlib
import random
import threading
import time
from pathlib import Path

import pytest
from ZODB.Connection import TransactionMetaData
from ZODB.utils import p64, z64

from support.cluster import Cluster

LARGE_BYTES = 200 * 2**20
SMALL_WAIT_MAX_S = 0.5
SMALL = [p64(n) for n in range(1, 61)]


class SmallLoads(threading.Thread):
    """Loads small objects one after the other, without a cache, and notes the longest wait."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(daemon=True)
        self._storage = cluster.open(cache_size=0)
        self._done = threading.Event()
        self.count, self.longest_s, self.error = 0, 0.0, ""

    def run(self) -> None:
        try:
            while not self._done.is_set():
                for oid in SMALL:
                    began = time.monotonic()
                    assert self._storage.load(oid)[0] == b"small" + oid
                    self.longest_s = max(self.longest_s, time.monotonic() - began)
                    self.count += 1
        except BaseException as error:
            self.error = repr(error)
            raise

    def stop(self) -> None:
        self._done.set()
        self.join(30)
        self._storage.close()
        assert not self.error, self.error


def commit(storage: object, values: dict[bytes, bytes]) -> bytes:
    """Commit new objects; return the tid."""
    txn = TransactionMetaData()
    storage.tpc_begin(txn)  # type: ignore[attr-defined]
    for oid, value in values.items():
        storage.store(oid, z64, value, "", txn)  # type: ignore[attr-defined]
    storage.tpc_vote(txn)  # type: ignore[attr-defined]
    tid: bytes = storage.tpc_finish(txn)  # type: ignore[attr-defined]
    return tid


@pytest.mark.timeout(240)
@pytest.mark.parametrize("replicas", [0, 1])
def test_small_loads_do_not_wait_for_a_large_record(tmp_path: Path, replicas: int) -> None:
    large = random.Random(200).randbytes(LARGE_BYTES)  # nothing compresses it away
    oid = p64(100)
    with Cluster(tmp_path / "cluster", storages=2, replicas=replicas) as cluster:
        storage = cluster.open(cache_size=0)
        commit(storage, {small: b"small" + small for small in SMALL})
        loads = SmallLoads(cluster)
        loads.start()
        try:
            commit(storage, {oid: large})
            assert storage.load(oid)[0] == large
        finally:
            loads.stop()
        assert loads.count > 100
        assert loads.longest_s < SMALL_WAIT_MAX_S, f"a small load waited {loads.longest_s:.2f} s"
        storage.close()

        for name in cluster.storages:  # it comes back from the disk too
            cluster.kill(name)
            cluster.start(name)
        storage = cluster.open(cache_size=0)
        assert hashlib.sha256(storage.load(oid)[0]).digest() == hashlib.sha256(large).digest()
        storage.close()
