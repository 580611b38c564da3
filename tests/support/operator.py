"""An operator of a real cluster, by `neoadmin`, while writers go on; and what must be true of it in the end."""

import json
import subprocess
import threading
import time
from typing import Any

import transaction
from ZODB.DB import DB
from ZODB.POSException import POSError

from support.cluster import PROGRAMS, Cluster

MOVES_DEADLINE_S = 180.0


class Writer(threading.Thread):
    """Appends numbers to an object of its own, until told to stop; after a failure it looks what is true."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._db = DB(cluster.open())
        self._done = threading.Event()
        self.acknowledged = 0
        self.failures: list[str] = []
        self.wrong = ""
        self.longest_pause_s = 0.0

    def run(self) -> None:
        manager = transaction.TransactionManager()
        last = time.monotonic()
        while not self._done.is_set() and not self.wrong:
            connection = self._db.open(manager)
            try:
                mapping = connection.root()[self.name]
                if mapping["number"] != self.acknowledged:
                    self.wrong = f"{self.name} sees {mapping['number']}, {self.acknowledged} was acknowledged"
                    return
                mapping["number"] = self.acknowledged + 1
                manager.commit()
                self.acknowledged += 1
                self.longest_pause_s = max(self.longest_pause_s, time.monotonic() - last)
                last = time.monotonic()
            except POSError as error:  # nothing is left of it: the next round looks
                self.failures.append(f"{type(error).__name__}: {error}")
                manager.abort()
            finally:
                manager.abort()
                connection.close()

    def stop(self) -> None:
        self._done.set()
        self.join(60.0)
        assert not self.is_alive(), f"{self.name} is stuck"
        assert not self.wrong, self.wrong
        self._db.close()


def neoadmin(cluster: Cluster, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [str(PROGRAMS / "neoadmin"), "--config", str(cluster.config), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=MOVES_DEADLINE_S, check=False)


def ordered(cluster: Cluster, *words: str) -> str:
    done = neoadmin(cluster, *words, "--timeout", "60s")
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}\n{cluster.logs()}"
    return done.stdout


def table(cluster: Cluster) -> list[dict[str, str]]:
    """Return each row, as states by node."""
    told: dict[str, Any] = json.loads(ordered(cluster, "partitions", "--json"))
    return [{cell["node"]: cell["state"] for cell in row} for row in told["rows"]]


def counts(cluster: Cluster) -> dict[str, int]:
    rows = table(cluster)
    assert all(state == "UP_TO_DATE" for row in rows for state in row.values()), rows
    return {node: sum(node in row for row in rows) for row in rows for node in row}


def everything(cluster: Cluster) -> list[tuple[bytes, bytes, bytes]]:
    """Return every record of every transaction, ordered: tid, oid, data."""
    storage = cluster.open()
    try:
        return sorted((record.tid, record.oid, record.data) for t in storage.iterator() for record in t)
    finally:
        storage.close()
