"""Our storage beside its peers, in one run: `make bench`, or `python -m benchmarks.compare --help`.

Every figure is the median over the runs (at least 3), in which the peers take turns. What is measured:
    tiny commit   one client changes one object with 128 bytes of state and commits through ZODB; ms, median of a run
    cold load     a new client with an empty cache loads objects of 128 bytes in random order; us, median of a run
    import        `copyTransactionsFrom` of a FileStorage (transactions of 20 objects of 1 kB); MB/s of values
    iterate       every record of every transaction by `iterator()`; records/s
A ratio is ours against ZEO's, above 1 when we are faster.
"""

import argparse
import json
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import transaction
from persistent import Persistent
from persistent.mapping import PersistentMapping
from ZODB.DB import DB
from ZODB.FileStorage import FileStorage

from benchmarks.peers import Peer, peers

HIGHER_IS_BETTER = {"import MB/s", "iterate records/s"}
FIGURES = ("tiny commit ms", "cold load us", "import MB/s", "iterate records/s")


class Item(Persistent):
    """An object with a state of a given size."""

    def __init__(self, size: int) -> None:
        self.state = random.Random(size).randbytes(size)


def tiny_commit(peer: Peer, commits: int) -> float:
    """Return the median time of a commit of one object, in ms."""
    db = DB(peer.open())
    manager = transaction.TransactionManager()
    manager.begin()
    connection = db.open(manager)
    item = connection.root()["tiny"] = Item(128)
    manager.commit()
    times = []
    for number in range(commits + 20):
        manager.begin()
        item.state = number.to_bytes(128, "big")
        began = time.perf_counter()
        manager.commit()
        times.append(time.perf_counter() - began)
    db.close()
    return statistics.median(times[20:]) * 1e3


def fill(peer: Peer, objects: int) -> list[bytes]:
    """Store objects of 128 bytes; return their oids."""
    db = DB(peer.open())
    with db.transaction() as connection:
        container = connection.root()["cold"] = PersistentMapping()
        for number in range(objects):
            container[number] = Item(128)
    with db.transaction() as connection:
        oids = [item._p_oid for item in connection.root()["cold"].values()]
    db.close()
    return oids


def cold_load(peer: Peer, oids: list[bytes]) -> float:
    """Return the median time of a load by a client with an empty cache, in us."""
    storage = peer.open()
    if hasattr(storage, "new_instance"):
        storage = storage.new_instance()
    if hasattr(storage, "poll_invalidations"):
        storage.poll_invalidations()
    order = random.Random(7).sample(oids, len(oids))
    before = b"\x7f" + b"\xff" * 7
    times = []
    for oid in order:
        began = time.perf_counter()
        found = storage.load(oid) if hasattr(storage, "poll_invalidations") else storage.loadBefore(oid, before)
        times.append(time.perf_counter() - began)
        assert found, f"{peer.name} has lost {oid.hex()}"
    storage.close()
    return statistics.median(times) * 1e6


def make_source(path: Path, transactions: int) -> int:
    """Make a FileStorage; return the bytes of its values."""
    db = DB(FileStorage(str(path)))
    for number in range(transactions):
        with db.transaction(f"number {number}") as connection:
            container = connection.root()[number] = PersistentMapping()
            for item in range(20):
                container[item] = Item(1000)
    size = sum(len(record.data) for txn in db.storage.iterator() for record in txn)
    db.close()
    return size


def import_(peer: Peer, source: Path, size: int) -> float:
    """Return the speed of copying *source*, in MB/s."""
    storage, origin = peer.open(), FileStorage(str(source), read_only=True)
    began = time.perf_counter()
    storage.copyTransactionsFrom(origin)
    seconds = time.perf_counter() - began
    storage.close()
    origin.close()
    return size / seconds / 2**20


def iterate(peer: Peer, wanted: int) -> float:
    """Return how many records per second an iteration gives."""
    storage = peer.open()
    began = time.perf_counter()
    count = sum(1 for txn in storage.iterator() for record in txn if record.data)
    seconds = time.perf_counter() - began
    storage.close()
    assert count >= wanted, f"{peer.name} gives {count} records, not {wanted}"
    return count / seconds


def measure(peer: Peer, scale: float, source: Path, size: int, records: int) -> dict[str, float]:
    """Return one run's figures; the servers are fresh for each kind of work."""

    def fresh(work: Callable[[], dict[str, float]]) -> dict[str, float]:
        directory = Path(tempfile.mkdtemp(prefix="bench-"))
        peer.start(directory)
        try:
            return work()
        finally:
            peer.stop()
            shutil.rmtree(directory)

    def small() -> dict[str, float]:
        commit = tiny_commit(peer, int(600 * scale))
        return {"tiny commit ms": commit, "cold load us": cold_load(peer, fill(peer, int(3000 * scale)))}

    def large() -> dict[str, float]:
        return {"import MB/s": import_(peer, source, size), "iterate records/s": iterate(peer, records)}

    return fresh(small) | fresh(large)


def table(results: dict[str, dict[str, list[float]]]) -> str:
    """Return the medians as a Markdown table, with the ratio to ZEO."""
    zeo = results.get("ZEO")
    lines = ["| storage | " + " | ".join(FIGURES) + " |", "|---|" + "---|" * len(FIGURES)]
    for name, figures in results.items():
        cells = []
        for figure in FIGURES:
            value = statistics.median(figures[figure])
            text = f"{value:,.2f}" if value < 100 else f"{value:,.0f}"
            text += f" [{min(figures[figure]):,.4g}-{max(figures[figure]):,.4g}]"
            if zeo and name != "ZEO":
                reference = statistics.median(zeo[figure])
                ratio = value / reference if figure in HIGHER_IS_BETTER else reference / value
                text += f" ({ratio:.2f}x ZEO)"
            cells.append(text)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="of the amounts of work (default 1)")
    parser.add_argument("--only", action="append", help="part of the name of a storage; may be repeated")
    parser.add_argument("--json", type=Path, help="write every figure of every run there")
    arguments = parser.parse_args()
    chosen: list[Peer] = [p for p in peers() if not arguments.only or any(word in p.name for word in arguments.only)]
    results: dict[str, dict[str, list[float]]] = {p.name: {f: [] for f in FIGURES} for p in chosen}
    directory = Path(tempfile.mkdtemp(prefix="bench-source-"))
    try:
        transactions = int(400 * arguments.scale)
        size = make_source(directory / "Data.fs", transactions)
        for run in range(arguments.runs):
            for peer in chosen:
                figures: dict[str, Any] = measure(peer, arguments.scale, directory / "Data.fs", size, transactions * 21)
                sys.stderr.write(f"run {run + 1}: {peer.name}: {figures}\n")
                for figure, value in figures.items():
                    results[peer.name][figure].append(value)
    finally:
        shutil.rmtree(directory)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))
    sys.stdout.write(table(results) + "\n")


if __name__ == "__main__":
    main()
