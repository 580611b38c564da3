"""One record of 200 MB beside small loads, which must not wait for it."""

import hashlib
import random
import time
from pathlib import Path

import pytest
from ZODB.Connection import TransactionMetaData
from ZODB.utils import p64, z64

from support.cluster import Cluster
from support.small_loads import SMALL, SmallLoads

LARGE_BYTES = 200 * 2**20
SMALL_WAIT_MAX_S = 0.5
IDLE_S = 3.0


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
        loads.so_far()  # it has started
        time.sleep(IDLE_S)
        _, idle_wait_s = loads.so_far()  # what they wait for the machine, whatever is stored
        commit(storage, {oid: large})
        stored, store_wait_s = loads.so_far()
        assert storage.load(oid)[0] == large
        loaded, load_wait_s = loads.so_far()
        loads.stop()
        assert min(stored, loaded) > 100
        wait_max_s = SMALL_WAIT_MAX_S + idle_wait_s
        assert store_wait_s < wait_max_s, f"a small load waited {store_wait_s:.2f} s while it was stored"
        assert load_wait_s < wait_max_s, f"a small load waited {load_wait_s:.2f} s while it was loaded"
        storage.close()

        for name in cluster.storages:  # it comes back from the disk too
            cluster.kill(name)
            cluster.start(name)
        storage = cluster.open(cache_size=0)
        assert hashlib.sha256(storage.load(oid)[0]).digest() == hashlib.sha256(large).digest()
        storage.close()
