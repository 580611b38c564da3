"""A storage that hangs is lost, although the kernel accepts connections for it; clients go on, and it comes back."""

import signal
import subprocess
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import transaction
from persistent.mapping import PersistentMapping
from transaction.interfaces import TransientError
from ZODB.DB import DB
from ZODB.POSException import POSError

from support.cluster import PROGRAMS, Cluster

DEADLINE_S = 60.0
"""Generous: the pause that is wanted, 6 s, is measured on a quiet machine (docs/reliability.md)."""


class Client(threading.Thread):
    """Commits and reads again, nothing cached, until told to stop; notes when each round has ended."""

    def __init__(self, cluster: Cluster, key: str) -> None:
        super().__init__(daemon=True)
        self.db = DB(cluster.open(cache_size=0), cache_size=0)
        self.key = key
        self.rounds: list[float] = []
        self.is_over = False
        self.wrong = ""

    def run(self) -> None:
        manager = transaction.TransactionManager()
        count = 0
        while not self.is_over:
            connection = None
            try:
                manager.begin()
                connection = self.db.open(manager)
                item: Any = connection.root()[self.key]
                if item["count"] < count:
                    self.wrong = f"{self.key} has {item['count']}, {count} was acknowledged"
                    return
                item["count"] = item["count"] + 1
                manager.commit()
                count = item["count"]
                self.rounds.append(time.monotonic())
            except (POSError, TransientError):
                manager.abort()
            finally:
                if connection is not None:
                    manager.abort()
                    connection.close()

    def wait_for(self, rounds: int) -> None:
        target, deadline = len(self.rounds) + rounds, time.monotonic() + DEADLINE_S
        while len(self.rounds) < target:
            assert not self.wrong, self.wrong
            assert time.monotonic() < deadline, f"{self.key} does not get on"
            time.sleep(0.02)


def up_to_date(cluster: Cluster) -> bool:
    command = [str(PROGRAMS / "neoadmin"), "replication", "--config", str(cluster.config)]
    return subprocess.run(command, capture_output=True, env=cluster.environ, check=False).returncode == 0


@pytest.mark.timeout(240)
def test_stopped_storage_is_lost_and_comes_back(tmp_path: Path) -> None:
    with Cluster(tmp_path / "cluster", storages=2, replicas=1) as cluster:
        db = DB(cluster.open())
        with db.transaction() as connection:
            for number in range(3):
                connection.root()[f"item-{number}"] = PersistentMapping(count=0)
        db.close()
        clients = [Client(cluster, f"item-{number}") for number in range(3)]
        for client in clients:
            client.start()
        for name in cluster.storages:
            deadline = time.monotonic() + DEADLINE_S
            while not up_to_date(cluster):
                assert time.monotonic() < deadline, f"not up to date before {name} is stopped"
            for client in clients:
                client.wait_for(3)
            cluster.signal(name, signal.SIGSTOP)
            began = time.monotonic()
            for client in clients:
                client.wait_for(3)
            pauses = []
            for client in clients:
                moments = [began, *(at for at in client.rounds if at > began)]
                pauses.append(max(b - a for a, b in pairwise(moments)))
            assert max(pauses) < 20, f"as long as the heartbeats of clients: {pauses}"
            cluster.signal(name, signal.SIGCONT)
            for client in clients:
                client.wait_for(3)
        for client in clients:
            client.is_over = True
        for client in clients:
            client.join(DEADLINE_S)
            assert not client.wrong, client.wrong
            client.db.close()
