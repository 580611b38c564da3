"""How fast a storage that was away catches up, and what that costs those who commit meanwhile.

    PYTHONPATH=tests python -m benchmarks.replication [--megabytes 200] [--writers 4] [--value 2000]

One master, two storages, one replica. Writers commit all the time; s2 is killed, data is loaded without it, s2 is
started again; it ends when every cell is up to date. Printed: the longest gap between two commits around the kill and
the return, speed of the copy, and the time of commits before, without s2, while it copies, and after.
"""

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import transaction
from persistent.mapping import PersistentMapping
from ZODB.DB import DB
from ZODB.POSException import POSError

from neo_admin.link import Deadline, find_primary
from neo_common.wire.schema import AnswerReplication, AskReplication
from support.cluster import Cluster

SETTLE_S = 10.0
"""How long the steady states are measured."""


class Writer(threading.Thread):
    """Commits one small change after the other, in a client of its own."""

    def __init__(self, cluster: Cluster, number: int) -> None:
        super().__init__(daemon=True)
        self._db = DB(cluster.open())
        self._key = f"writer-{number}"
        self.commits: list[tuple[float, float]] = []
        """(moment of the end, seconds that it took), of each success."""
        self.failures = 0
        self.is_over = False

    def run(self) -> None:
        """Until told that it is over."""
        manager = transaction.TransactionManager()
        connection = self._db.open(manager)
        count = 0
        while not self.is_over:
            count += 1
            try:
                manager.begin()
                connection.root()[self._key]["count"] = count
                began = time.monotonic()
                manager.commit()
                now = time.monotonic()
                self.commits.append((now, now - began))
            except POSError:
                manager.abort()
                self.failures += 1
        connection.close()
        self._db.close()


def percentile(values: list[float], share: float) -> float:
    """Return the value below which that share of *values* is; 0 for none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


class Bench:
    """A cluster, its writers, and what was measured."""

    def __init__(self, cluster: Cluster, writers: int) -> None:
        self.cluster = cluster
        db = DB(cluster.open())
        with db.transaction() as connection:
            for number in range(writers):
                connection.root()[f"writer-{number}"] = PersistentMapping()
            connection.root()["load"] = PersistentMapping()
        db.close()
        self.writers = [Writer(cluster, number) for number in range(writers)]

    def times(self, start: float, end: float) -> list[float]:
        """Return how long each commit between two moments took."""
        return [took for writer in self.writers for at, took in writer.commits if start <= at < end]

    def gap(self, start: float, end: float) -> float:
        """Return the longest time without any success between two moments."""
        moments = sorted(at for writer in self.writers for at, _ in writer.commits if start <= at < end)
        return max((b - a for a, b in zip([start, *moments], [*moments, end], strict=True)), default=0.0)

    def line(self, what: str, start: float, end: float) -> dict[str, Any]:
        """Return how commits were between two moments."""
        took = self.times(start, end)
        return {
            "when": what,
            "seconds": round(end - start, 1),
            "commits_per_s": round(len(took) / max(end - start, 1e-9)),
            "p50_ms": round(percentile(took, 0.5) * 1e3, 2),
            "p99_ms": round(percentile(took, 0.99) * 1e3, 2),
            "longest_gap_s": round(self.gap(start, end), 2),
        }

    def load(self, megabytes: int, size: int) -> int:
        """Commit so many megabytes of new objects; return how many."""
        db = DB(self.cluster.open())
        connection = db.open()
        count = 0
        while count * size < megabytes * 2**20:
            for _ in range(500):
                item = PersistentMapping()
                item["value"] = os.urandom(size)
                connection.add(item)
                count += 1
            transaction.commit()
            connection.cacheMinimize()
        connection.close()
        db.close()
        return count

    def replication(self) -> AnswerReplication:
        """Ask the primary."""
        masters = [self.cluster.addresses[name] for name in self.cluster.masters]
        with find_primary(masters, "test", Deadline(30.0)) as link:
            answer: AnswerReplication = link.ask(AskReplication(), AnswerReplication, Deadline(30.0))
            return answer

    def wait_up_to_date(self, deadline_s: float) -> tuple[float, int]:
        """Wait until every cell is; return the moment, and the bytes copied as told last."""
        bytes_of: dict[tuple[int, int], int] = {}
        deadline = time.monotonic() + deadline_s
        while time.monotonic() < deadline:
            told = self.replication()
            for node, copy in told.copies:
                bytes_of[node, copy.partition] = max(copy.bytes, bytes_of.get((node, copy.partition), 0))
            if not told.copies and not told.waiting:
                return time.monotonic(), sum(bytes_of.values())
            time.sleep(0.2)
        raise SystemExit(f"not up to date after {deadline_s} s: {told}")


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--value", type=int, default=2000, help="bytes per object")
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--ceiling", default="", help="replication.ceiling")
    parser.add_argument("--directory", default="")
    options = parser.parse_args()
    settings = {"replication": {"ceiling": options.ceiling}} if options.ceiling else {}
    with (
        tempfile.TemporaryDirectory(dir=options.directory or None) as folder,
        Cluster(Path(folder) / "cluster", storages=2, replicas=1, settings=settings) as cluster,
    ):
        bench = Bench(cluster, options.writers)
        bench.wait_up_to_date(60.0)
        for writer in bench.writers:
            writer.start()
        time.sleep(1.0)
        began = time.monotonic()
        time.sleep(SETTLE_S)
        steady = time.monotonic()
        cluster.kill("s2")
        time.sleep(SETTLE_S)
        alone = time.monotonic()
        count = bench.load(options.megabytes, options.value)
        loaded = time.monotonic()
        cluster.start("s2")
        end, copied = bench.wait_up_to_date(1800.0)
        time.sleep(SETTLE_S)
        after = time.monotonic()
        for writer in bench.writers:
            writer.is_over = True
        for writer in bench.writers:
            writer.join(60)
        took = end - loaded
        result = {
            "objects": count,
            "megabytes": options.megabytes,
            "told_copied_mb": round(copied / 2**20, 1),
            "seconds_to_up_to_date": round(took, 1),
            "mb_per_s": round(options.megabytes / took, 1),
            "objects_per_s": round(count / took),
            "failed_commits": sum(w.failures for w in bench.writers),
            "commits": [
                bench.line("both storages", began, steady),
                bench.line("s2 killed", steady, alone),
                bench.line("s2 back, copying", loaded, end),
                bench.line("up to date again", end, after),
            ],
        }
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
