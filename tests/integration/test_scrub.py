"""Damage done by hand to the database of one storage of two is found, told, and mended while clients work."""

import json
import random
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from persistent.mapping import PersistentMapping
from ZODB.DB import DB

from support.cluster import PROGRAMS, Cluster

OBJECTS = 60
DEADLINE_S = 90.0
SETTINGS = {"scrub": {"rate": "64MB"}}


def noise(number: int) -> bytes:
    """Return a value that nothing compresses."""
    return random.Random(number).randbytes(2000)


def neoadmin(cluster: Cluster, *words: str) -> Any:  # what JSON can hold
    """Return what it prints; its status says only whether all is well."""
    command = [str(PROGRAMS / "neoadmin"), *words, "--json", "--config", str(cluster.config)]
    found = subprocess.run(command, capture_output=True, text=True, env=cluster.environ, check=False)
    assert found.returncode in (0, 1), found.stderr
    return json.loads(found.stdout)


def damage(cluster: Cluster, name: str) -> tuple[int, int]:
    """Flip a bit of one value in the file, and delete the row of another revision; return their oids."""
    path = cluster.directory / name / "neo.sqlite"
    db = sqlite3.connect(path)
    rows = db.execute(
        'SELECT oid, "partition", tid, data_id, size FROM obj WHERE data_id IS NOT NULL AND size > 1000 ORDER BY oid'
    ).fetchall()
    flipped, deleted = rows[0], rows[-1]
    assert flipped[1] != deleted[1], "of two partitions"
    value = db.execute("SELECT value FROM data WHERE id = ?", (flipped[3],)).fetchone()[0]
    db.execute('DELETE FROM obj WHERE "partition" = ? AND oid = ? AND tid = ?', (deleted[1], deleted[0], deleted[2]))
    db.commit()
    assert db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    db.close()
    content = bytearray(path.read_bytes())
    place = content.find(value[:500])
    assert place > 0, "the beginning of a value lies in one piece in its page"
    content[place + 100] ^= 0x10
    path.write_bytes(content)
    return flipped[0], deleted[0]


def wait_for(what: str, is_so: Any) -> Any:
    """Wait until *is_so* returns something true, and return that."""
    deadline = time.monotonic() + DEADLINE_S
    while not (found := is_so()):
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(0.2)
    return found


@pytest.mark.timeout(240)
def test_flipped_bit_and_deleted_row_are_found_and_mended(tmp_path: Path) -> None:
    with Cluster(tmp_path / "cluster", storages=2, replicas=1, settings=SETTINGS) as cluster:
        wait_for("all up to date", lambda: not any(neoadmin(cluster, "replication").values()))
        db = DB(cluster.open())
        with db.transaction() as connection:
            for number in range(OBJECTS):
                item = PersistentMapping()
                connection.root()[f"item-{number}"] = item
                item["value"] = noise(number)
        expected = {f"item-{n}": noise(n) for n in range(OBJECTS)}
        with db.transaction() as connection:
            connection.root()["last"] = True  # so that the one before it is below the durable mark
        db.close()

        cluster.processes["s2"].terminate()
        cluster.processes.pop("s2").wait(30)
        damage(cluster, "s2")
        cluster.start("s2")
        db = DB(cluster.open())
        wait_for("s2 is back", lambda: not any(neoadmin(cluster, "replication").values()))
        with db.transaction() as connection:
            connection.root()["again"] = True

        def findings() -> list[Any]:
            found: list[Any] = neoadmin(cluster, "scrub", "status")["findings"]
            return found

        # The deleted row was found when s2 came back: it compares what it has. The flipped bit only shows in its value.
        neoadmin(cluster, "scrub", "start")
        found = wait_for("the flipped bit is found", findings)
        assert {f["node"] for f in found} == {"S2"}
        assert all(f["rebuilt"] for f in found)
        wait_for("all is rebuilt", lambda: not any(neoadmin(cluster, "replication").values()))
        assert "ERROR" in cluster.log("m1")

        cluster.kill("s1")  # now s2 alone must have everything, and sound
        with db.transaction() as connection:
            root = connection.root()
            assert {name: root[name]["value"] for name in expected} == expected
        db.close()
        cluster.start("s1")


@pytest.mark.timeout(240)
def test_row_deleted_under_a_running_storage_is_found_by_scrub(tmp_path: Path) -> None:
    """Nobody compares but scrub: the storage never was away."""
    with Cluster(tmp_path / "cluster", storages=2, replicas=1, settings=SETTINGS) as cluster:
        wait_for("all up to date", lambda: not any(neoadmin(cluster, "replication").values()))
        db = DB(cluster.open())
        with db.transaction() as connection:
            for number in range(OBJECTS):
                connection.root()[f"item-{number}"] = PersistentMapping(value=noise(number))
        with db.transaction() as connection:
            connection.root()["last"] = True
        path = cluster.directory / "s2" / "neo.sqlite"

        def rows() -> int:
            with sqlite3.connect(path, timeout=30) as sql:
                return int(sql.execute("SELECT count(*) FROM obj WHERE size > 1000").fetchone()[0])

        count = wait_for("all is in the database", lambda: rows() if rows() >= OBJECTS else 0)
        with sqlite3.connect(path, timeout=30) as sql:
            sql.execute("DELETE FROM obj WHERE size > 1000 AND oid = (SELECT max(oid) FROM obj WHERE size > 1000)")
        assert rows() == count - 1

        def found_by_a_pass() -> list[Any]:
            """What is compared lies below the durable mark, which storages hear of with later commits."""
            with db.transaction() as connection:
                connection.root()["last"] = time.monotonic()
            neoadmin(cluster, "scrub", "start")
            end = time.monotonic() + 25  # a difference must last for ten seconds
            while time.monotonic() < end:
                if found := neoadmin(cluster, "scrub", "status")["findings"]:
                    return list(found)
                time.sleep(0.5)
            return []

        found = wait_for("it is found", found_by_a_pass)
        assert [(f["node"], f["rebuilt"]) for f in found] == [("S2", True)]
        wait_for("it is rebuilt", lambda: rows() == count and not any(neoadmin(cluster, "replication").values()))
        db.close()
