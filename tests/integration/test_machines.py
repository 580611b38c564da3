"""Three machines, each with a master and a storage, one copy beyond the first: any one is lost under load, for good.

Nobody does anything about it: the writers go on, and nothing that was acknowledged is lost. The longest pause of a
writer is printed (`-s`); the goals are in docs/masters.md, and a loaded machine may miss them: only much more fails.
"""

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from BTrees.Length import Length
from ZODB.DB import DB

from neo_common.model.partition_table import EMPTY, PartitionTable
from neo_common.states import CellState, Role
from neo_common.wire.schema import AskTable
from support.cluster import Cluster
from support.counting import WRITERS, Writer, check_all
from support.raw_client import Gone, RawConnection

GONE_S = 30.0
"""How long writers may wait after a loss: the goals are 3 s of a crash and 10 s of silence, on an idle machine."""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path / "cluster", masters=3, storages=3, replicas=1) as running:
        db = DB(running.open())
        with db.transaction() as connection:
            for number in range(WRITERS):
                connection.root()[f"left-{number}"], connection.root()[f"right-{number}"] = Length(), Length()
        db.close()
        wait_whole(running)
        yield running


def ask_primary(cluster: Cluster) -> tuple[str, PartitionTable] | None:
    """Return which master is primary, and the partition table; None when nobody says so."""
    for name in cluster.masters:
        try:
            with contextlib.closing(RawConnection(cluster.addresses[name], role=Role.ADMIN, deadline_s=5)) as master:
                return name, master.ask(AskTable()).table.apply(EMPTY)
        except (Gone, OSError, AssertionError):
            continue  # it is not primary
    return None


def is_whole(cluster: Cluster) -> bool:
    """Whether a majority of the masters counts, and every cell is up to date."""
    said = "".join((cluster.directory / f"{m}.log").read_text(errors="replace") for m in cluster.masters)
    answer = ask_primary(cluster)
    if answer is None or "masters hold the partition table" not in said:
        return False
    return all(state == CellState.UP_TO_DATE for row in answer[1].rows for _, state in row)


def primary_of(cluster: Cluster) -> str:
    """Return the name of the primary."""
    answer = ask_primary(cluster)
    assert answer is not None, f"no primary:\n{cluster.logs()}"
    return answer[0]


def wait_whole(cluster: Cluster) -> None:
    """Wait until the loss of a machine can be survived."""
    deadline = time.monotonic() + GONE_S
    while not is_whole(cluster):
        assert time.monotonic() < deadline, f"the cluster does not become whole:\n{cluster.logs()}"
        time.sleep(0.1)


def pause_of(writers: list[Writer], what: str) -> float:
    """Wait until every writer has committed again; return how long that took."""
    began = time.monotonic()
    for writer in writers:
        writer.wait_for(3, GONE_S)
    pause = time.monotonic() - began
    print(f"{what}: every writer has committed thrice again after {pause:.2f} s")  # noqa: T201
    return pause


@pytest.mark.timeout(240)
@pytest.mark.parametrize("is_primary", [True, False], ids=["of the primary", "another"])
def test_a_machine_is_lost_and_nobody_is_needed(cluster: Cluster, is_primary: bool) -> None:
    """The machine of the primary, or another one: killed with kill -9, and back later with what it had."""
    primary = int(primary_of(cluster)[1:])
    number = primary if is_primary else primary % 3 + 1
    writers = [Writer(cluster, n) for n in range(WRITERS)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.wait_for(10, GONE_S)
    for name in (f"m{number}", f"s{number}"):
        cluster.kill(name)
    pause_of(writers, f"kill -9 of machine {number}, primary on {primary}")
    for name in (f"s{number}", f"m{number}"):
        cluster.start(name)
    pause_of(writers, f"machine {number} back")
    for writer in writers:
        writer.wait_for(20, GONE_S)
        writer.stop()
    check_all(cluster, writers)


@pytest.mark.timeout(240)
def test_a_primary_that_hangs_is_replaced(cluster: Cluster) -> None:
    """SIGSTOP: no connection ends, only its leases do. When it wakes up it finds itself deposed."""
    writers = [Writer(cluster, n) for n in range(WRITERS)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.wait_for(10, GONE_S)
    primary = primary_of(cluster)
    cluster.signal(primary, signal.SIGSTOP)
    try:
        pause_of(writers, "SIGSTOP of the primary")
    finally:
        cluster.signal(primary, signal.SIGCONT)
    for writer in writers:
        writer.wait_for(20, GONE_S)
        writer.stop()
    assert "steps down" in (cluster.directory / f"{primary}.log").read_text()
    check_all(cluster, writers)


@pytest.mark.timeout(240)
def test_everything_starts_again_in_any_order(cluster: Cluster) -> None:
    """All die at once; storages first, masters last, and once the other way round: all acknowledged is there."""
    writers = [Writer(cluster, n) for n in range(WRITERS)]
    for writer in writers:
        writer.start()
    for order in (cluster.names[::-1], cluster.names):
        for writer in writers:
            writer.wait_for(5, GONE_S)
        for name in cluster.names:
            cluster.kill(name)
        for name in order:
            cluster.start(name)
    for writer in writers:
        writer.wait_for(5, GONE_S)
        writer.stop()
    check_all(cluster, writers)
