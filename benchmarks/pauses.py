"""What clients notice of failures: `python -m benchmarks.pauses --help`.

Four writers, each a client of its own, commit small objects of their own, one after the other. A pause is the longest
time between two commits of one writer around an event:
    nothing         no event: what the machine itself does
    storage killed  kill -9 of one of three storages (replicas 1)
    storage back    it is started again, until it has everything
    primary killed  kill -9 of the primary, with three masters
    primary back    that master is started again
    primary reset   kill -9 of a primary that has not read all: its kernel resets connections, which ends no lease
    storage hangs   SIGSTOP of a storage, for longer than anybody waits for it
    primary hangs   the same of the primary
    power on        all is killed; from the start of all daemons to the first commit, with so many objects
Each figure is median and worst of the runs.
"""

import argparse
import contextlib
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import transaction
from BTrees.LOBTree import LOBTree
from persistent.mapping import PersistentMapping
from ZODB.DB import DB
from ZODB.POSException import POSError

from neo_common.model.partition_table import EMPTY
from neo_common.states import CellState, Role, node_text
from neo_common.wire.schema import AskCluster, AskTable
from support.cluster import Cluster
from support.raw_client import Gone, RawConnection

WRITERS = 4
SETTLE_S = 3.0
AFTER_S = 6.0
HANG_S = 20.0
BUSY_S = 0.1
OBJECT_BYTES = 100
DEADLINE_S = 120.0


class Writer(threading.Thread):
    """Commits as fast as it may, and notes when."""

    def __init__(self, cluster: Cluster, number: int) -> None:
        super().__init__(name=f"writer-{number}", daemon=True)
        self.db = DB(cluster.open(wait_timeout=60))
        self._key = f"writer-{number}"
        self._done = threading.Event()
        self.commits: list[float] = []
        self.failures = 0

    def run(self) -> None:
        manager = transaction.TransactionManager(explicit=True)
        while not self._done.is_set():
            connection = None
            try:
                manager.begin()
                connection = self.db.open(manager)
                connection.root()[self._key]["number"] = len(self.commits)
                manager.commit()
                self.commits.append(time.monotonic())
            except POSError:
                self.failures += 1
                manager.abort()
            finally:
                if connection is not None:
                    connection.close()

    def pause(self, begin: float, end: float) -> float:
        """Return the longest time between two commits that touches this span."""
        pairs = zip(self.commits, self.commits[1:], strict=False)
        return max((b - a for a, b in pairs if b > begin and a < end), default=end - begin)

    def stop(self) -> None:
        self._done.set()
        self.join(DEADLINE_S)
        self.db.close()


def ask(cluster: Cluster, packet: Any) -> Any:
    """Ask the primary."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        for name in cluster.masters:
            with (
                contextlib.suppress(Gone, OSError, AssertionError),
                contextlib.closing(RawConnection(cluster.addresses[name], role=Role.ADMIN, deadline_s=1)) as master,
            ):
                return master.ask(packet)
        if time.monotonic() > deadline:
            raise SystemExit(f"no primary:\n{cluster.logs()}")
        time.sleep(0.02)


def wait_well(cluster: Cluster, copies: int) -> None:
    """Wait until every cell is up to date."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        rows = ask(cluster, AskTable()).table.apply(EMPTY).rows
        if rows and all(len(r) == copies and all(s == CellState.UP_TO_DATE for _, s in r) for r in rows):
            return
        if time.monotonic() > deadline:
            raise SystemExit(f"cells stay out of date:\n{cluster.logs()}")
        time.sleep(0.05)


class Figures:
    """What was measured, by name."""

    def __init__(self) -> None:
        self.all: dict[str, list[float]] = {}

    def note(self, name: str, seconds: float) -> None:
        self.all.setdefault(name, []).append(seconds)
        print(f"  {name}: {seconds:.3f} s", flush=True)

    def table(self) -> str:
        """Return a table in Markdown."""
        lines = ["| event | median s | worst s | runs |", "|---|---|---|---|"]
        for name, values in self.all.items():
            lines.append(f"| {name} | {statistics.median(values):.2f} | {max(values):.2f} | {len(values)} |")
        return "\n".join(lines)


@contextlib.contextmanager
def under_load(directory: Path) -> Iterator[tuple[Cluster, list[Writer]]]:
    """Three masters, three storages, one copy more of everything; writers that write."""
    with Cluster(directory, masters=3, storages=3, replicas=1) as cluster:
        db = DB(cluster.open())
        with db.transaction() as connection:
            for number in range(WRITERS):
                connection.root()[f"writer-{number}"] = PersistentMapping()
        db.close()
        wait_well(cluster, 2)
        writers = [Writer(cluster, number) for number in range(WRITERS)]
        for writer in writers:
            writer.start()
        yield cluster, writers
        for writer in writers:
            writer.stop()
        commits = sum(len(writer.commits) for writer in writers)
        print(f"  {commits} commits, {sum(writer.failures for writer in writers)} transactions that had to be repeated")


def resets(directory: Path, figures: Figures, runs: int) -> None:
    """Only the loss of a busy primary."""
    with under_load(directory) as (cluster, writers):
        for _ in range(runs):
            time.sleep(SETTLE_S)
            number = node_text(ask(cluster, AskCluster()).primary).lower()
            _measure(figures, "primary reset", writers, lambda name=number: _kill_busy(cluster, name))
            _back(cluster, number)


def failures(directory: Path, figures: Figures, runs: int) -> None:
    """Everything but the loss of power."""
    with under_load(directory) as (cluster, writers):
        for run in range(runs):
            time.sleep(SETTLE_S)
            _measure(figures, "nothing", writers, lambda: time.sleep(AFTER_S))
            victim = cluster.storages[run % len(cluster.storages)]
            _measure(figures, "storage killed", writers, lambda name=victim: _kill(cluster, name))
            _measure(figures, "storage back", writers, lambda name=victim: _back(cluster, name))
            number = node_text(ask(cluster, AskCluster()).primary).lower()
            _measure(figures, "primary killed", writers, lambda name=number: _kill(cluster, name))
            _measure(figures, "primary back", writers, lambda name=number: _back(cluster, name))
            number = node_text(ask(cluster, AskCluster()).primary).lower()
            _measure(figures, "primary reset", writers, lambda name=number: _kill_busy(cluster, name))
            _back(cluster, number)
            _measure(figures, "storage hangs", writers, lambda name=victim: _hang(cluster, name))
            number = node_text(ask(cluster, AskCluster()).primary).lower()
            _measure(figures, "primary hangs", writers, lambda name=number: _hang(cluster, name))


def _measure(figures: Figures, name: str, writers: list[Writer], event: Any) -> None:
    begin = time.monotonic()
    event()
    end = time.monotonic()
    figures.note(name, max(writer.pause(begin, end) for writer in writers))


def _kill(cluster: Cluster, name: str) -> None:
    cluster.kill(name)
    time.sleep(AFTER_S)


def _kill_busy(cluster: Cluster, name: str) -> None:
    """Kill it while packets wait to be read by it."""
    cluster.signal(name, signal.SIGSTOP)
    time.sleep(BUSY_S)
    _kill(cluster, name)


def _back(cluster: Cluster, name: str) -> None:
    cluster.start(name)
    cluster.wait_listening(name)
    wait_well(cluster, 2)
    time.sleep(SETTLE_S)


def _hang(cluster: Cluster, name: str) -> None:
    cluster.signal(name, signal.SIGSTOP)
    time.sleep(HANG_S)
    cluster.signal(name, signal.SIGCONT)
    wait_well(cluster, 2)
    time.sleep(SETTLE_S)


def power_on(directory: Path, figures: Figures, runs: int, objects: int) -> None:
    """One master, two storages with everything."""
    with Cluster(directory, storages=2, replicas=1) as cluster:
        db = DB(cluster.open(), large_record_size=2**26)
        with db.transaction() as connection:
            tree = connection.root()["objects"] = LOBTree()
        began = time.monotonic()
        for first in range(0, objects, 5000):
            with db.transaction() as connection:
                tree = connection.root()["objects"]
                for n in range(first, min(objects, first + 5000)):
                    tree[n] = PersistentMapping(value=n.to_bytes(OBJECT_BYTES, "big"))
        print(f"  {objects} objects written in {time.monotonic() - began:.0f} s", flush=True)
        db.close()
        for _ in range(runs):
            cluster.kill_all()
            began = time.monotonic()
            for name in cluster.names:
                cluster.start(name)
            db = DB(cluster.open(wait_timeout=DEADLINE_S))
            with db.transaction() as connection:
                connection.root()["again"] = began
            figures.note(f"power on, {objects:,} objects", time.monotonic() - began)
            db.close()


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--objects", type=int, default=1_000_000, help="for `power on`")
    parser.add_argument("--only", choices=("failures", "resets", "power"))
    options = parser.parse_args()
    figures = Figures()
    with tempfile.TemporaryDirectory(prefix="neo-pauses-") as path:
        if options.only == "resets":
            resets(Path(path) / "resets", figures, options.runs)
        elif options.only != "power":
            failures(Path(path) / "failures", figures, options.runs)
        if options.only in (None, "power"):
            power_on(Path(path) / "power", figures, options.runs, options.objects)
    print(figures.table())


if __name__ == "__main__":
    main()
