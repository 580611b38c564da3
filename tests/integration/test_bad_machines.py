"""Failed flushes, clocks that step, slow disks, 5 % of a processor, in real daemons: what docs/operating.md promises.

Full disks are in test_full_disk.py, peers that take nothing in test_runtime.py.
"""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ZODB.Connection import TransactionMetaData
from ZODB.POSException import ConflictError, POSError
from ZODB.utils import p64, u64, z64

from neo_common.ids import Tid, tid_from_time, time_from_tid
from support.cluster import Cluster
from support.machine import Machine, starved

pytestmark = pytest.mark.timeout(300)
DEADLINE_S = 90.0
HOUR_S = 3600.0


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "machine")


@pytest.fixture
def pair(tmp_path: Path, machine: Machine) -> Iterator[Cluster]:
    """Two storages that have the same, under orders."""
    with Cluster(tmp_path / "cluster", storages=2, replicas=1, environ=machine.environ) as cluster:
        yield cluster


class Writer:
    """Commits to one object after another; knows what was acknowledged, and what may have become of the rest."""

    def __init__(self, cluster: Cluster) -> None:
        self.storage = cluster.open(cache_size=0, wait_timeout=30)
        self.serials: dict[int, bytes] = {}
        self.counts: dict[int, int] = {}
        self.doubtful: set[int] = set()

    def commit(self, oid: int) -> bytes:
        """Commit the next revision of *oid*; return its tid. Raises: what the storage raises."""
        txn = TransactionMetaData()
        self.storage.tpc_begin(txn)
        try:
            value = b"%d" % (self.counts.get(oid, 0) + 1)
            self.storage.store(p64(oid), self.serials.get(oid, z64), value, "", txn)
            self.storage.tpc_vote(txn)
            tid: bytes = self.storage.tpc_finish(txn)
        except BaseException:
            self.storage.tpc_abort(txn)
            raise
        self.serials[oid] = tid
        self.counts[oid] = self.counts.get(oid, 0) + 1
        return tid

    def commit_again(self, oid: int) -> bytes:
        """Commit as an application would: again, after what a retry may cure."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            try:
                return self.commit(oid)
            except (POSError, ConflictError):
                assert time.monotonic() < deadline, "it was never cured"

    def check(self) -> None:
        """Everything acknowledged is there, and nothing that was not."""
        for oid, count in self.counts.items():
            assert self.storage.load(p64(oid)) == (b"%d" % count, self.serials[oid])


def wait_ended(cluster: Cluster, name: str) -> int:
    """Wait until a daemon has ended by itself; return its status."""
    status: int = cluster.processes[name].wait(DEADLINE_S)
    del cluster.processes[name]
    return status


def test_failed_flush_stops_the_storage_and_loses_nothing(pair: Cluster, machine: Machine) -> None:
    """It is never tried again: what the kernel has dropped it would then call durable. The other copy goes on; started
    again on a disk that works, the storage comes back with everything.
    """
    writer = Writer(pair)
    for oid in range(30):
        writer.commit(oid)
    machine.order("s1", "sync", "fail")
    for oid in range(30):
        writer.commit_again(oid)
    assert wait_ended(pair, "s1") == 1
    assert "Input/output error" in pair.log("s1")
    writer.check()
    machine.heal("s1", "sync")
    pair.start("s1")
    deadline = time.monotonic() + DEADLINE_S
    while True:  # until the other one may go
        table = writer.storage._shell.core.table
        if all(len(table.readable(p)) == 2 for p in range(table.partitions)):
            break
        assert time.monotonic() < deadline, "s1 does not become up to date"
        writer.commit_again(31)
    writer.storage.close()
    pair.kill("s2")
    alone = pair.open(cache_size=0)
    for oid, count in writer.counts.items():
        assert alone.load(p64(oid)) == (b"%d" % count, writer.serials[oid])
    alone.close()
    pair.start("s2")


def test_failed_flush_of_the_only_copy_acknowledges_nothing(tmp_path: Path, machine: Machine) -> None:
    with Cluster(tmp_path / "cluster", storages=1, environ=machine.environ) as cluster:
        writer = Writer(cluster)
        for oid in range(10):
            writer.commit(oid)
        machine.order("s1", "sync", "fail")
        done = threading.Event()

        def attempt() -> None:
            writer.commit_again(3)
            done.set()

        thread = threading.Thread(target=attempt, daemon=True)
        thread.start()
        assert wait_ended(cluster, "s1") == 1
        assert not done.is_set(), "acknowledged without being durable"
        machine.heal("s1", "sync")
        cluster.start("s1")
        thread.join(DEADLINE_S)
        assert done.is_set(), "the disk works again, and commits do not"
        writer.check()
        writer.storage.close()


@pytest.mark.parametrize("step_s", [-HOUR_S, HOUR_S / 2, 2 * HOUR_S])
def test_clock_of_the_primary_steps(tmp_path: Path, machine: Machine, step_s: float) -> None:
    """Tids only grow. A step back, and one ahead by more than an hour, are not followed; the log says so."""
    with Cluster(tmp_path / "cluster", storages=1, environ=machine.environ) as cluster:
        writer = Writer(cluster)
        tids = [writer.commit(oid) for oid in range(5)]
        machine.order("m1", "clock", str(step_s))
        tids += [writer.commit(oid) for oid in range(5)]
        deadline = time.monotonic() + DEADLINE_S
        said = {-HOUR_S: "has stepped back", HOUR_S / 2: "has stepped ahead", 2 * HOUR_S: "not believed"}[step_s]
        while said not in cluster.log("m1"):
            assert time.monotonic() < deadline, f"m1 does not say: {said}"
            tids.append(writer.commit(7))
        tids.append(writer.commit(8))
        assert tids == sorted(set(tids))
        ahead_s = time_from_tid(Tid(u64(tids[-1]))) - time.time()
        assert abs(ahead_s - (step_s if step_s == HOUR_S / 2 else 0)) < HOUR_S / 4
        machine.heal("m1", "clock")
        tids.append(writer.commit(9))
        assert tids == sorted(set(tids))
        assert u64(tids[0]) > tid_from_time(time.time() - HOUR_S)
        writer.check()
        writer.storage.close()


def test_slow_disk_slows_commits_and_nothing_else(pair: Cluster, machine: Machine) -> None:
    """Each flush takes half a second: commits wait for it, reads do not, and nobody is put out of date."""
    writer = Writer(pair)
    for oid in range(20):
        writer.commit(oid)
    slow_s = 0.5
    machine.order("s1", "sync", str(slow_s))
    ended = threading.Event()
    reads = 0

    def read() -> None:
        nonlocal reads
        reader = pair.open(cache_size=0)
        while not ended.is_set():
            reader.load(p64(5))
            reads += 1
        reader.close()

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    began, commits = time.monotonic(), 8
    for oid in range(commits):
        writer.commit(oid)
    took_s = time.monotonic() - began
    ended.set()
    thread.join(DEADLINE_S)
    assert took_s > slow_s * commits / 2
    assert reads > 3 * commits, "reads wait for the disk"
    said = (pair.directory / "m1.log").read_text()
    assert not [line for line in said.splitlines() if "peer=S" in line and " lost: " in line], said
    table = writer.storage._shell.core.table
    assert all(len(table.readable(p)) == 2 for p in range(table.partitions))
    machine.heal("s1", "sync")
    writer.check()
    writer.storage.close()


@pytest.mark.parametrize("name", ["s1", "m1"])
def test_daemon_with_a_twentieth_of_a_processor_is_slow_and_not_dead(pair: Cluster, name: str) -> None:
    """Heartbeats are answered, leases kept: nobody is lost, and commits go on."""
    writer = Writer(pair)
    for oid in range(20):
        writer.commit(oid)
    before = pair.log_lines("m1")
    until, commits = time.monotonic() + 10.0, 0  # longer than silence and lease together
    with starved(pair.processes[name]):
        while time.monotonic() < until:
            writer.commit(commits % 20)
            commits += 1
    assert commits > 0
    writer.check()
    said = (pair.directory / "m1.log").read_text().splitlines()[before:]
    assert not [line for line in said if " lost: " in line], said
    table = writer.storage._shell.core.table
    assert all(len(table.readable(p)) == 2 for p in range(table.partitions))
    writer.storage.close()
