"""Servers never unpickle: a pickle that runs code when it is loaded, walked through every path of the servers.

Each daemon runs under an audit hook that writes down every class that any unpickler looks up, whoever calls it. The
test itself shows that the hook sees such a thing and that the pickle is as hostile as it says.
"""

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ZODB.Connection import TransactionMetaData
from ZODB.utils import p64, z64

from support.cluster import PROGRAMS, Cluster

HOOK = """\
import os, sys

def watch(event, args):
    if event == "pickle.find_class":
        with open(os.environ["NEO_TEST_UNPICKLED"], "a") as file:
            file.write(f"{sys.argv}: {args}\\n")

sys.addaudithook(watch)
"""
DEADLINE_S = 60.0


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def __reduce__(self) -> object:
        return os.mkdir, (self._path,)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(HOOK)
    environ = {"PYTHONPATH": str(tmp_path / "site"), "NEO_TEST_UNPICKLED": str(tmp_path / "unpickled")}
    with Cluster(tmp_path / "cluster", storages=2, replicas=1, admins=1, environ=environ) as running:
        yield running


def neoadmin(cluster: Cluster, *words: str) -> str:
    command = [str(PROGRAMS / "neoadmin"), "--config", str(cluster.config), *words]
    return subprocess.run(command, env=cluster.environ, capture_output=True, text=True, timeout=60, check=True).stdout


def commit(storage: object, oid: int, serial: bytes, value: bytes, extension: bytes) -> bytes:
    txn = TransactionMetaData(b"user \xff\xfe", b"description " + value[:40], extension)
    storage.tpc_begin(txn)  # type: ignore[attr-defined]
    storage.store(p64(oid), serial, value, "", txn)  # type: ignore[attr-defined]
    storage.tpc_vote(txn)  # type: ignore[attr-defined]
    tid = storage.tpc_finish(txn)  # type: ignore[attr-defined]
    assert isinstance(tid, bytes)
    return tid


@pytest.mark.timeout(300)
def test_no_server_unpickles_what_it_stores(cluster: Cluster, tmp_path: Path) -> None:
    """Store, load, history, undo, iteration, lists, pack with garbage collection, replication, restart, neoadmin."""
    evil = [pickle.dumps(Evil(tmp_path / "pwned"), protocol) for protocol in (0, 2, 4)]
    storage = cluster.open(cache_size=0, pack_gc=True)
    serials: dict[int, bytes] = {}
    for n, value in enumerate(evil * 8):  # objects in every partition, two revisions of most
        serials[n % 20] = commit(storage, n % 20, serials.get(n % 20, z64), value, b"")
    commit(storage, 50, z64, os.urandom(100) + evil[2] * 20_000, b"")  # in pieces
    for oid, serial in serials.items():
        assert storage.load(p64(oid))[1] == serial
        assert storage.loadSerial(p64(oid), serial) in evil
        assert storage.loadBefore(p64(oid), serial) is None or oid < 4
        assert storage.history(p64(oid), size=5)[0]["tid"] == serial
    txn = TransactionMetaData(description=evil[0].decode())
    storage.tpc_begin(txn)
    storage.undo(storage.undoLog(0, 20)[-1]["id"], txn)
    storage.tpc_vote(txn)
    storage.tpc_finish(txn)
    seen = [record.data for transaction in storage.iterator() for record in transaction]
    assert set(evil) <= set(seen)
    assert len(storage) > 0
    assert storage.getSize() > 0
    # From here on extensions too are hostile: clients load those when they list them, as ZODB does; servers do not.
    # A replica is away, misses something, and is brought up to date.
    cluster.kill("s2")
    commit(storage, 60, z64, evil[1], evil[1])
    cluster.start("s2")
    neoadmin(cluster, "status", "--wait", f"{DEADLINE_S:g}s")
    storage.pack(time.time(), lambda data: [p64(n) for n in range(10)])
    assert "24 cells" in neoadmin(cluster, "pack", "--status")
    for words in (["transactions", "-n", "100"], ["nodes"], ["partitions"], ["ids"], ["debug", "s1", "--trace"]):
        assert neoadmin(cluster, *words)
    storage.close()
    for name in ("s1", "s2"):
        cluster.kill(name)
        cluster.start(name)
    again = cluster.open(cache_size=0)
    assert again.load(p64(0))[0] in evil
    again.close()
    assert not (tmp_path / "pwned").exists(), "somebody has loaded it"
    assert not (tmp_path / "unpickled").exists(), (tmp_path / "unpickled").read_text()


def test_the_hook_and_the_pickle_are_what_they_say(tmp_path: Path) -> None:
    """In a process that does load it, the file is made and the hook notes it."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(HOOK)
    environ = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "NEO_TEST_UNPICKLED": str(tmp_path / "unpickled")}
    for protocol in (0, 2, 4):
        path = tmp_path / f"pwned-{protocol}"
        code = f"import pickle; pickle.loads({pickle.dumps(Evil(path), protocol)!r})"
        subprocess.run([sys.executable, "-c", code], env=environ, check=True, timeout=60)
        assert path.exists()
    assert (tmp_path / "unpickled").read_text().count("mkdir") == 3
