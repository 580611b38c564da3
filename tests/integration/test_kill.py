"""kill -9 under load: of any one process, and of all at once. Nothing acknowledged is lost, nothing half-done is seen.

Writers count in pairs of objects (`support.counting`). With SQLite, and with a database on MariaDB beside one on
PostgreSQL.
"""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from BTrees.Length import Length
from persistent.mapping import PersistentMapping
from ZODB.DB import DB

from support.cluster import Cluster
from support.counting import RECOVERY_DEADLINE_S, WRITERS, Writer, check_all
from support.server_kinds import KINDS

LOAD_BEFORE_KILL_S = (0.3, 1.2)
LOG_LINES_PER_KILL = 150
"""What a daemon may say from a kill until all is well: a client that dials it without rest would say more."""


@pytest.fixture
def cluster(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    storages, replicas, *kinds = request.param
    servers = [(server, server.new_database()) for server in (KINDS[kind].shared() for kind in kinds)]
    databases = [server.settings(name) for server, name in servers]
    with Cluster(tmp_path / "cluster", storages=storages, replicas=replicas, databases=databases) as running:
        db = DB(running.open())
        with db.transaction() as connection:
            root = connection.root()
            for number in range(WRITERS):
                root[f"left-{number}"], root[f"right-{number}"] = Length(), Length()
            root["padding"] = PersistentMapping()
        db.close()
        yield running
        for name in running.names:
            assert running.log_lines(name) < 4 * LOG_LINES_PER_KILL, f"{name} talks too much:\n{running.log(name)}"
    for server, name in servers:
        server.give_back(name)


SHAPES = [
    pytest.param((1, 0), id="1 storage"),
    pytest.param((2, 0), id="2 storages"),
    pytest.param((2, 1), id="2 storages 1 replica"),
    pytest.param((2, 0, "mariadb", "postgresql"), id="MariaDB PostgreSQL"),
    pytest.param((2, 1, "mariadb", "postgresql"), id="MariaDB PostgreSQL 1 replica"),
]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("cluster", SHAPES, indirect=True)
def test_any_one_process_killed(cluster: Cluster) -> None:
    """Each server in turn is killed at a random moment under load and started again."""
    chance = random.Random(20)
    writers = [Writer(cluster, number) for number in range(WRITERS)]
    for writer in writers:
        writer.start()
    for victim in cluster.names:
        writers[0].wait_for(3, RECOVERY_DEADLINE_S)
        time.sleep(chance.uniform(*LOAD_BEFORE_KILL_S))  # the random moment is the test
        cluster.kill(victim)
        cluster.start(victim)
        for writer in writers:
            writer.wait_for(3, RECOVERY_DEADLINE_S)
    for writer in writers:
        writer.stop()
    check_all(cluster, writers)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("cluster", SHAPES, indirect=True)
def test_all_processes_killed_at_once(cluster: Cluster) -> None:
    """All servers are killed at a random moment under load; the clients go on when they are back."""
    chance = random.Random(21)
    writers = [Writer(cluster, number) for number in range(WRITERS)]
    for writer in writers:
        writer.start()
    for _ in range(3):
        for writer in writers:
            writer.wait_for(3, RECOVERY_DEADLINE_S)
        time.sleep(chance.uniform(*LOAD_BEFORE_KILL_S))  # the random moment is the test
        for name in cluster.names:
            cluster.kill(name)
        for name in chance.sample(cluster.names, len(cluster.names)):
            cluster.start(name)
    for writer in writers:
        writer.wait_for(3, RECOVERY_DEADLINE_S)
        writer.stop()
    check_all(cluster, writers)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("cluster", SHAPES, indirect=True)
def test_all_killed_with_their_clients(cluster: Cluster) -> None:
    """Servers and writers die together; what was acknowledged is there for new clients after any order of starts."""
    writers = [Writer(cluster, number) for number in range(WRITERS)]
    for writer in writers:
        writer.start()
    writers[0].wait_for(20, RECOVERY_DEADLINE_S)
    for name in cluster.names:
        cluster.kill(name)
    acknowledged = [writer.acknowledged for writer in writers]
    for name in reversed(cluster.names):
        cluster.start(name)
    db = DB(cluster.open())
    with db.transaction() as connection:
        root = connection.root()
        for number, told in enumerate(acknowledged):
            left, right = root[f"left-{number}"](), root[f"right-{number}"]()
            assert left == right, "half of a transaction"
            assert left >= told, f"{told} was acknowledged, {left} is there"
    db.close()
    for writer in writers:
        writer.stop()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("cluster", [SHAPES[2]], indirect=True)
def test_replicas_outlive_the_primary(cluster: Cluster) -> None:
    """The storages keep their connections when the primary is killed: no cell is put out of date by its return."""
    writer = Writer(cluster, 0)
    writer.start()
    writer.wait_for(3, RECOVERY_DEADLINE_S)
    said = cluster.log_lines("m1")
    cluster.kill("m1")
    cluster.start("m1")
    writer.wait_for(20, RECOVERY_DEADLINE_S)
    writer.stop()
    lines = (cluster.directory / "m1.log").read_text().splitlines()[said:]
    assert any("-> RUNNING" in line for line in lines)
    demoted = [line for line in lines if "=O" in line]
    assert not demoted, demoted
