"""What a load and a commit cost a back end, from 10,000 objects to a million: `python -m benchmarks.flatness`.

In this process, without a network: `load` is one blocking load of a random object of 128 bytes, `serial` asks for its
last serial, `commit` is a transaction that changes one random object, in batches of 64 as the applier writes them. us,
medians; the databases are filled by SQL of their own. Caches of MariaDB and PostgreSQL have 1 GB, so that what is shown
is how they walk, not what of it fits into memory.
"""

import argparse
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from neo_common.ids import MAX_TID, Oid, Partition, Tid
from neo_storage.backends.base import Backend
from neo_storage.backends.sqlite.backend import SqliteBackend
from support.backend_contract import commit, write
from support.large_tables import PARTITIONS, TID, fill, fill_sqlite
from support.servers import MariaDB, PostgreSQL, Server, backend_on

READS = 2000
BATCH = 64
BATCHES = 25
OPTIONS = {MariaDB: {"innodb-buffer-pool-size": "1G"}, PostgreSQL: {"shared_buffers": "1GB"}}
Fill = Callable[[int, int], None]


def measure(backend: Backend, count: int, rng: random.Random) -> dict[str, float]:
    """Return medians, in us, of a database of *count* objects."""
    backend.open()
    reader = backend.range_reader()

    def timed(read: Callable[[Partition, Oid], object]) -> float:
        times = []
        for _ in range(READS):
            oid = rng.randrange(count)
            began = time.perf_counter()
            found = read(Partition(oid % PARTITIONS), Oid(oid))
            times.append(time.perf_counter() - began)
            assert found
        return statistics.median(times[READS // 10 :]) * 1e6

    figures = {
        "load": timed(lambda partition, oid: reader.load(partition, oid, MAX_TID)),
        "serial": timed(reader.current),
    }
    times = []
    tid = (count + 1) << TID
    for number in range(BATCHES):
        ops = []
        for oid in rng.sample(range(count), BATCH):
            tid += 1 << TID
            ops.append(commit(Tid(tid), write(oid, rng.randbytes(128)), np=PARTITIONS))
        began = time.perf_counter()
        backend.apply(ops, number)
        times.append((time.perf_counter() - began) / BATCH)
    figures["commit"] = statistics.median(times) * 1e6
    reader.close()
    backend.close()
    return figures


def of_sqlite(directory: Path) -> tuple[Callable[[], Backend], Fill]:
    """Return what opens a new SQLite database, and what fills it."""
    path = directory / "neo.sqlite"
    return lambda: SqliteBackend(path), lambda first, last: fill_sqlite(path, first, last)


def of_server(server: Server) -> tuple[Callable[[], Backend], Fill]:
    """Return the same for a new database of *server*."""
    database = server.new_database()
    return lambda: backend_on(server, database), lambda first, last: fill(server, database, first, last)


def run(make: Callable[[], Backend], write_rows: Fill, size: int) -> dict[str, float]:
    """Return the figures of a new database of that size."""
    backend = make()
    backend.open()
    backend.close()
    write_rows(0, size)
    return measure(make(), size, random.Random(size))


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--largest", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    sizes = [size for size in (10_000, 100_000, 1_000_000) if size <= arguments.largest]
    servers = {"MariaDB": MariaDB(OPTIONS[MariaDB]), "PostgreSQL": PostgreSQL(OPTIONS[PostgreSQL])}
    found: dict[tuple[str, str, int], list[float]] = {}
    for _ in range(arguments.runs):
        for size in sizes:
            for name in ("SQLite", *servers):
                directory = Path(tempfile.mkdtemp(prefix="bench-"))
                make, write_rows = of_server(servers[name]) if name in servers else of_sqlite(directory)
                figures = run(make, write_rows, size)
                shutil.rmtree(directory)
                for what, value in figures.items():
                    found.setdefault((name, what, size), []).append(value)
                sys.stderr.write(f"{name}, {size:,} objects: {figures}\n")
    print("| us | " + " | ".join(f"{size:,} objects" for size in sizes) + " | largest : smallest |")
    print("|---|" + "---|" * (len(sizes) + 1))
    for name in ("SQLite", *servers):
        for what in ("load", "serial", "commit"):
            medians = [statistics.median(found[name, what, size]) for size in sizes]
            cells = " | ".join(f"{value:.1f}" for value in medians)
            print(f"| {name}, {what} | {cells} | {medians[-1] / medians[0]:.2f} |")
    for server in servers.values():
        server.end()


if __name__ == "__main__":
    main()
