"""A cluster that changes while it works: it grows from one storage to three, gets a copy, loses storages by order.

Two writers go on all the time, with clients of their own; their own record of what was acknowledged is the truth. In
the end every record of every transaction is compared with what a client read before and after.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from persistent.mapping import PersistentMapping
from ZODB.DB import DB

from support.cluster import Cluster
from support.operator import Writer, counts, everything, neoadmin, ordered

OBJECTS = 150
WRITERS = 2


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Three storages are configured; only the first is in the cluster."""
    cluster = Cluster(tmp_path, storages=3, partitions=12, settings={"cluster": {"auto_start": False}})
    try:
        cluster.start("m1")
        cluster.start("s1")
        cluster.wait_listening("s1")
        deadline = time.monotonic() + 60
        while neoadmin(cluster, "start").returncode:
            assert time.monotonic() < deadline, cluster.logs()
        cluster.wait_running()
        yield cluster
        cluster.stop()
    finally:
        cluster.kill_all()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_grow_copy_drain_drop_and_lose(cluster: Cluster) -> None:
    db = DB(cluster.open())
    with db.transaction() as connection:
        root = connection.root()
        for n in range(OBJECTS):
            root[f"object-{n}"] = PersistentMapping(data=bytes([n]) * (100 + 300 * n))
        for n in range(WRITERS):
            root[f"writer-{n}"] = PersistentMapping(number=0)
    db.close()
    before = everything(cluster)
    writers = [Writer(cluster, f"writer-{n}") for n in range(WRITERS)]
    for writer in writers:
        writer.start()
    try:
        change_all(cluster)
    finally:
        for writer in writers:
            writer.stop()
    assert all(w.acknowledged > 20 for w in writers), [(w.acknowledged, w.failures[-3:]) for w in writers]
    after = everything(cluster)
    assert after[: len(before)] == before
    check_contents(cluster, {w.name: w.acknowledged for w in writers})
    # Only one copy may be needed: each of the two storages alone has all of it.
    for name in ("s1", "s3"):
        cluster.kill(name)
        assert everything(cluster) == after, f"without {name}"
        cluster.start(name)
        cluster.wait_listening(name)
        deadline = time.monotonic() + 120
        while neoadmin(cluster, "status").returncode:
            assert time.monotonic() < deadline, cluster.logs()


def change_all(cluster: Cluster) -> None:
    """Grow 1 -> 3, add a copy, drain one, drop it."""
    cluster.start("s2")
    cluster.start("s3")
    for name in ("s2", "s3"):
        cluster.wait_listening(name)
        deadline = time.monotonic() + 60
        while (done := neoadmin(cluster, "add", name, "--dry-run", "--json")).returncode:
            assert time.monotonic() < deadline, f"{done.stderr}\n{cluster.logs()}"
    told = json.loads(ordered(cluster, "add", "s2", "s3", "--dry-run", "--json"))
    assert len(told["moves"]) == 8
    assert sum(move["bytes"] for move in told["moves"]) > 0
    assert counts(cluster) == {"S1": 12}
    ordered(cluster, "add", "s2", "s3")
    assert counts(cluster) == {"S1": 4, "S2": 4, "S3": 4}
    ordered(cluster, "replicas", "1")
    assert counts(cluster) == {"S1": 8, "S2": 8, "S3": 8}
    refused = neoadmin(cluster, "drop", "s2")
    assert refused.returncode == 1
    assert "drain it first" in refused.stderr
    ordered(cluster, "drain", "s2")
    assert counts(cluster) == {"S1": 12, "S3": 12}
    cluster.processes["s2"].terminate()
    cluster.processes.pop("s2").wait(60)
    ordered(cluster, "drop", "s2")
    assert "s2" not in ordered(cluster, "nodes")


def check_contents(cluster: Cluster, numbers: dict[str, int]) -> None:
    db = DB(cluster.open())
    try:
        with db.transaction() as connection:
            root = connection.root()
            for n in range(OBJECTS):
                assert root[f"object-{n}"]["data"] == bytes([n]) * (100 + 300 * n)
            assert {name: root[name]["number"] for name in numbers} == numbers
    finally:
        db.close()
