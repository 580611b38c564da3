"""Truncation with real daemons, each of them killed at some moment of it: all or nothing, and clients go on."""

import json
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from persistent.mapping import PersistentMapping
from ZODB.DB import DB
from ZODB.POSException import POSError
from ZODB.utils import u64

from support.cluster import PROGRAMS, Cluster

COMMITS = 12
DEADLINE_S = 120.0


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path, masters=2, storages=2, replicas=1, partitions=4) as running:
        yield running


def begun(cluster: Cluster, tid: int) -> "subprocess.Popen[str]":
    command = [
        str(PROGRAMS / "neoadmin"),
        "--config",
        str(cluster.config),
        "truncate",
        f"{tid:016x}",
        "--yes",
        "--json",
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_well(cluster: Cluster) -> None:
    command = [str(PROGRAMS / "neoadmin"), "--config", str(cluster.config), "status"]
    deadline = time.monotonic() + DEADLINE_S
    while subprocess.run(command, check=False, capture_output=True).returncode:
        assert time.monotonic() < deadline, cluster.logs()


def fill(db: Any) -> list[int]:
    """Commit; return the tids."""
    tids = []
    for number in range(COMMITS):
        with db.transaction() as connection:
            root = connection.root()
            root["number"] = number
            root[f"object-{number}"] = PersistentMapping(number=number)
        tids.append(u64(db.storage.lastTransaction()))
    return tids


def history(cluster: Cluster) -> list[int]:
    """Return every tid, from a client of its own."""
    storage = cluster.open()
    try:
        return [u64(t.tid) for t in storage.iterator()]
    finally:
        storage.close()


def number_of(db: Any) -> int:
    """Return the number that a connection of *db* sees, retrying as Zope would."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            with db.transaction() as connection:
                number: int = connection.root()["number"]
                return number
        except POSError:
            assert time.monotonic() < deadline


def test_a_client_that_stays_sees_the_past_and_goes_on(cluster: Cluster) -> None:
    db = DB(cluster.open())
    tids = fill(db)
    assert number_of(db) == COMMITS - 1
    done = begun(cluster, tids[4])
    out, err = done.communicate(timeout=DEADLINE_S)
    assert done.returncode == 0, f"{out}{err}{cluster.logs()}"
    assert json.loads(out) == {"truncated": True, "tid": f"{tids[4]:016x}"}
    assert number_of(db) == 4
    assert [t for t in history(cluster) if t > tids[4]] == []
    with db.transaction() as connection:
        connection.root()["number"] = 100
    assert number_of(db) == 100
    assert history(cluster)[-1] > tids[-1], "no tid is given twice"
    db.close()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("victims", [("s1",), ("s2",), ("m1",), ("s1", "s2"), ("m1", "s1", "s2", "m2")])
def test_killed_at_any_moment_it_is_all_or_nothing(cluster: Cluster, victims: tuple[str, ...]) -> None:
    rng = random.Random(str(victims))
    db = DB(cluster.open())
    tids = fill(db)
    before = history(cluster)
    db.close()
    for cut in (tids[8], tids[5], tids[2]):
        done = begun(cluster, cut)
        time.sleep(0.3 + 0.6 * rng.random())  # the program needs about half a second to begin
        for name in victims:
            cluster.kill(name)
            time.sleep(0.05 * rng.random())
        for name in victims:
            cluster.start(name)
        out, err = done.communicate(timeout=DEADLINE_S)
        cluster.wait_running()
        after = history(cluster)
        kept = [t for t in before if t <= cut]
        assert after in (before, kept), f"{out}{err}"
        if done.returncode == 0:
            assert after == kept, f"{out}{err}"
        before = after
    wait_well(cluster)
    for name in ("s1", "s2"):  # each storage alone has the same
        cluster.kill(name)
        assert history(cluster) == before
        cluster.start(name)
        wait_well(cluster)
