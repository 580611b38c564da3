"""A cluster moves from SQLite to a server and back while clients write, by the commands that operating.md tells."""

import random
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from persistent.mapping import PersistentMapping
from ZODB.DB import DB

from support.cluster import STOP_DEADLINE_S, Cluster
from support.operator import Writer, counts, everything, neoadmin, ordered
from support.ports import hold_ports
from support.server_kinds import KINDS

OPERATING = Path(__file__).parents[2] / "docs" / "operating.md"
OBJECTS = 100
WRITERS = 2
LARGE = random.Random(4).randbytes(2_500_000)
"""Nothing makes it smaller: it is in pieces."""


def commands() -> list[list[str]]:
    """Return what an operator is told to type, from s1 to s2."""
    _, _, section = OPERATING.read_text().partition("## From one database to another")
    section, _, _ = section.partition("\n## ")
    found = [line.split("#")[0].split()[1:] for line in re.findall("^    neoadmin .*", section, re.MULTILINE)]
    assert [words[0] for words in found] == ["add", "add", "drain", "partitions", "drop"]
    return found


def name_storage(cluster: Cluster, name: str, database: Mapping[str, Any]) -> None:
    """Name a new storage in the file."""
    (port,) = hold_ports(1)
    config = yaml.safe_load(cluster.config.read_text())
    storage = {**config["storages"]["s1"], "address": f"127.0.0.1:{port}"}
    storage["database"] = dict(database)
    config["storages"][name] = storage
    cluster.config.write_text(yaml.safe_dump(config))
    cluster.storages.append(name)


def replace(cluster: Cluster, old: str, new: str, database: Mapping[str, Any]) -> None:
    """Do as the operator does."""
    name_storage(cluster, new, database)
    checked = neoadmin(cluster, "config", "check")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    cluster.start(new)
    cluster.wait_listening(new)
    deadline = time.monotonic() + 60
    while not re.search(rf"^.*\b{new}\b.*PENDING", neoadmin(cluster, "nodes").stdout, re.MULTILINE):
        assert time.monotonic() < deadline, cluster.logs()
    for words in commands():
        ordered(cluster, *({"s1": old, "s2": new}.get(word, word) for word in words))
    assert list(counts(cluster)) == [f"S{new[1:]}"]
    cluster.processes[old].terminate()
    assert cluster.processes.pop(old).wait(STOP_DEADLINE_S) == 0, cluster.log(old)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["mariadb", "postgresql"])
def test_from_sqlite_to_a_server_and_back_under_load(kind: str, tmp_path: Path) -> None:
    server = KINDS[kind].shared()
    database = server.new_database()
    with Cluster(tmp_path, storages=1) as cluster:
        db = DB(cluster.open())
        with db.transaction() as connection:
            root = connection.root()
            root["large"] = PersistentMapping(data=LARGE)
            for n in range(OBJECTS):
                root[f"object-{n}"] = PersistentMapping(data=bytes([n]) * (100 + 300 * n))
            for n in range(WRITERS):
                root[f"writer-{n}"] = PersistentMapping(number=0)
        with db.transaction() as connection:
            del connection.root()["object-0"]
        db.close()
        before = everything(cluster)
        writers = [Writer(cluster, f"writer-{n}") for n in range(WRITERS)]
        for writer in writers:
            writer.start()
        try:
            replace(cluster, "s1", "s2", server.settings(database))
            on_server = [w.acknowledged for w in writers]
            assert server.execute("SELECT count(*) FROM obj", database)[0][0] > OBJECTS
            replace(cluster, "s2", "s3", {"type": "sqlite"})
        finally:
            for writer in writers:
                writer.stop()
        after = everything(cluster)
        assert after[: len(before)] == before
        assert all(w.acknowledged > count > 10 for w, count in zip(writers, on_server, strict=True)), on_server
        # What the last storage has is all there is: the others are gone.
        cluster.kill("s3")
        cluster.start("s3")
        assert everything(cluster) == after
        db = DB(cluster.open())
        with db.transaction() as connection:
            root = connection.root()
            assert root["large"]["data"] == LARGE
            assert {w.name: root[w.name]["number"] for w in writers} == {w.name: w.acknowledged for w in writers}
        db.close()
        pauses = {w.name: (w.longest_pause_s, w.failures) for w in writers}
        assert all(pause < 10 for pause, _ in pauses.values()), pauses
    assert (tmp_path / "s3" / "neo.sqlite").stat().st_size > len(LARGE) // 2
    server.give_back(database)
