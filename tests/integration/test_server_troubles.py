"""Servers in trouble: silent, locked, deadlocked, lost at COMMIT, exchanged. `docs/operating.md` says what happens."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from BTrees.Length import Length
from ZODB.DB import DB

from neo_common.errors import BackendError, BackendLost
from neo_common.ids import Oid, Session, Tid, Ttid
from neo_common.wire.schema import Tombstone
from neo_storage.backends import server as server_module
from neo_storage.backends.base import ApplyAbort
from neo_storage.backends.server import ServerBackend
from support.backend_contract import P0, T1, T2, commit, write
from support.cluster import Cluster
from support.counting import RECOVERY_DEADLINE_S, WRITERS, Writer, check_all
from support.server_kinds import EVERY
from support.servers import MariaDB, PostgreSQL, Server, backend_on

KINDS = pytest.mark.parametrize("kind", EVERY)
DEADLINE_S = 60.0
pytestmark = pytest.mark.timeout(300)


_servers: dict[type[Server], Server] = {}


@pytest.fixture(scope="module", autouse=True)
def end_of_servers() -> Iterator[None]:
    """End those of this module when it is done."""
    yield
    for server in _servers.values():
        server.end()
    _servers.clear()


@pytest.fixture
def own(kind: type[Server]) -> Iterator[Server]:
    """A server that may be maltreated, and runs with its first options again when the test is over."""
    if kind not in _servers:
        _servers[kind] = kind({"deadlock_timeout": "3s"} if kind is PostgreSQL else {})
    server = _servers[kind]
    options = dict(server.options)
    yield server
    if server.process is not None and server.options == options and server.process.poll() is None:
        return
    server.kill()
    server.options = options
    server.start()


def opened(server: Server, database: str, **options: Any) -> ServerBackend:
    backend = backend_on(server, database, **options)
    assert isinstance(backend, ServerBackend)
    backend.open()
    backend.claim()
    return backend


def _open_once(server: Server, database: str) -> int:
    """Return the position of a database that is opened and closed."""
    backend = backend_on(server, database)
    try:
        return backend.open().position
    finally:
        backend.close()


def reach(condition: Callable[[], object], what: Callable[[], str] = lambda: "", every_s: float = 0.05) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(every_s)


def processes(server: Server) -> list[int]:
    """Return the server and its children: PostgreSQL has one per connection."""
    assert server.process is not None
    pid = server.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


@contextmanager
def silence(server: Server) -> Iterator[None]:
    """A server that takes connections and statements, and answers nothing, until the end of the block."""
    stopped = processes(server)
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in reversed(stopped):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def lost(backend: ServerBackend, number: int) -> BackendLost:
    """Apply a batch that fails so."""
    with pytest.raises(BackendLost) as raised:
        backend.apply([commit(T2, write(0, b"b", T1))], number)
    return raised.value


def check_applied(backend: ServerBackend, number: int) -> None:
    """After a loss: nothing is written before it is known what is there; then the batch, whole, is there once."""
    with pytest.raises(BackendLost, match="is not connected"):
        backend.apply([commit(T2, write(0, b"b", T1))], number)
    reconnect(backend)
    backend.apply([commit(T2, write(0, b"b", T1))], number)
    stored = backend.load(P0, Oid(0), Tid(T2 + 1))
    assert stored is not None
    assert stored.data.value == b"b"
    sizes = backend.range_reader().sizes([P0])[0]
    assert (sizes.objects, sizes.revisions, sizes.transactions, sizes.bytes) == (1, 2, 2, 2)


def reconnect(backend: ServerBackend) -> None:
    """As the applier does it: again, while the server is away."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            return backend.reconnect()
        except BackendLost:
            assert time.monotonic() < deadline
            time.sleep(0.1)


@KINDS
def test_silent_server_is_given_up_after_the_timeout(kind: type[Server], own: Server) -> None:
    backend = opened(own, own.new_database(), timeout_s=1)
    backend.apply([commit(T1, write(0, b"a"))], 0)
    with silence(own):
        began = time.monotonic()
        lost(backend, 1)
        assert time.monotonic() - began < 20
    check_applied(backend, 1)
    backend.close()


@KINDS
def test_lock_of_somebody_else_is_waited_for_until_the_timeout(kind: type[Server], own: Server) -> None:
    """A dump, or an administrator, holds rows. Our session, which still waits in the server, is ended by the next."""
    database = own.new_database()
    backend = opened(own, database, timeout_s=1)
    backend.apply([commit(T1, write(0, b"a"))], 0)
    other = own.connect(database)
    cursor = other.cursor()
    cursor.execute("BEGIN")
    cursor.execute("SELECT * FROM config FOR UPDATE")
    lost(backend, 1)
    reconnect(backend)  # reading is no trouble, and the lock of the old session is free
    lost(backend, 1)
    cursor.execute("ROLLBACK")
    other.close()
    check_applied(backend, 1)
    backend.close()


@KINDS
def test_deadlock_inside_the_server_is_a_lost_transaction(kind: type[Server], own: Server) -> None:
    database = own.new_database()
    backend = opened(own, database)
    backend.apply([commit(T1, write(0, b"a"))], 0)
    other = own.connect(database)
    cursor = other.cursor()
    if kind is PostgreSQL:
        cursor.execute("SET deadlock_timeout = '60s'")  # so that the other side notices it, and is the victim
    cursor.execute("BEGIN")
    names = ", ".join(f"(9, {n}, 0)" for n in range(500))  # MariaDB chooses who has done least
    cursor.execute(f"INSERT INTO tombstones (session, counter, attempt) VALUES {names}")
    found: list[BackendLost] = []
    writer = threading.Thread(
        target=lambda: found.append(_deadlocked(backend)),
    )
    writer.start()
    reach(lambda: _waits(own, kind), every_s=0.25)  # who asks MariaDB within 0.1 s of the last time is told the same
    cursor.execute("SELECT * FROM config WHERE name = 'owner' FOR UPDATE")
    cursor.execute("ROLLBACK")
    other.close()
    writer.join(DEADLINE_S)
    assert "deadlock" in str(found[0]).lower()
    check_applied(backend, 1)
    backend.close()


def _deadlocked(backend: ServerBackend) -> BackendLost:
    """Apply what needs a row that the other one has inserted, and not committed."""
    tombstone = Tombstone(Ttid(Session(9), 7), 1)
    with pytest.raises(BackendLost) as raised:
        backend.apply([ApplyAbort(tombstone)], 1)
    return raised.value


def _waits(server: Server, kind: type[Server]) -> bool:
    """Whether a session waits for a row."""
    text = (
        "SELECT count(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"
        if issubclass(kind, MariaDB)
        else "SELECT count(*) FROM pg_locks WHERE NOT granted"
    )
    return bool(server.execute(text)[0][0])


@KINDS
@pytest.mark.parametrize("is_there", [False, True], ids=["nothing was committed", "all was committed"])
def test_error_at_commit_is_never_taken_for_nothing_having_happened(
    kind: type[Server], own: Server, is_there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server dies at COMMIT, before it or after it: what is there is read back, not guessed."""
    database = own.new_database()
    backend = opened(own, database)
    backend.apply([commit(T1, write(0, b"a"))], 0)
    db = backend._writing
    assert db is not None
    really = db.execute

    def execute(text: str, arguments: Sequence[object] | None = None) -> object:
        if text != "COMMIT":
            return really(text, arguments)
        if is_there:
            really(text)
        own.kill()
        while True:  # the answer to COMMIT never comes; a child of PostgreSQL lives a moment longer than it
            really("SELECT 1")

    monkeypatch.setattr(db, "execute", execute)
    assert "COMMIT of apply" in str(lost(backend, 1))
    monkeypatch.undo()
    own.start()
    (position,) = own.execute("SELECT number FROM config WHERE name = 'position'", database)[0]
    assert position == (1 if is_there else 0)
    check_applied(backend, 1)
    backend.close()


@KINDS
def test_server_that_comes_late_is_waited_for_and_one_that_does_not_is_told(
    kind: type[Server], own: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = own.new_database()
    own.kill()
    monkeypatch.setattr(server_module, "OPEN_S", 0.2)
    with pytest.raises(BackendLost, match=f"database {database}"):
        opened(own, database)
    monkeypatch.undo()
    found: list[int] = []
    waits = threading.Thread(target=lambda: found.append(_open_once(own, database)))
    waits.start()
    own.start()
    waits.join(DEADLINE_S)
    assert found == [-1]


@KINDS
def test_other_settings_after_a_restart_are_noticed(kind: type[Server], own: Server) -> None:
    backend = opened(own, own.new_database())
    own.kill()
    own.options["innodb-flush-log-at-trx-commit" if issubclass(kind, MariaDB) else "fsync"] = "0"
    own.start()
    lost(backend, 1)
    with pytest.raises(BackendError, match="would lose what it has called durable"):
        backend.reconnect()
    backend.close()


@pytest.mark.parametrize("kind", [MariaDB])
def test_other_version_after_a_restart_is_told(own: Server) -> None:
    """(PostgreSQL cannot say that it is another one.)"""
    backend = opened(own, own.new_database())
    assert backend.news() == []
    own.kill()
    own.options["version"] = "10.99.1-MariaDB"
    own.start()
    lost(backend, 1)
    backend.reconnect()
    (text,) = backend.news()
    assert "is kept by 10.99.1-MariaDB" in text
    assert "now, was by" in text
    assert backend.news() == []
    backend.close()


@KINDS
def test_silent_server_under_load_loses_nothing(kind: type[Server], own: Server, tmp_path: Path) -> None:
    """Commits go on while the server is silent; it is given up, found again, and has them all."""
    database = {**own.settings(own.new_database()), "timeout": "1s"}
    with Cluster(tmp_path / "c", databases=[database]) as cluster:
        db = DB(cluster.open())
        with db.transaction() as connection:
            for number in range(WRITERS):
                for side in ("left", "right"):
                    connection.root()[f"{side}-{number}"] = Length()
        db.close()
        writers = [Writer(cluster, number) for number in range(WRITERS)]
        for writer in writers:
            writer.start()
        writers[0].wait_for(5, RECOVERY_DEADLINE_S)
        log = tmp_path / "c" / "s1.log"
        with silence(own):
            for writer in writers:
                writer.wait_for(20, RECOVERY_DEADLINE_S)
            reach(lambda: "the database is away" in log.read_text(), lambda: cluster.log("s1"))
            for writer in writers:
                writer.wait_for(20, RECOVERY_DEADLINE_S)
        reach(lambda: "the database is back" in log.read_text(), lambda: cluster.log("s1"))
        for writer in writers:
            writer.wait_for(20, RECOVERY_DEADLINE_S)
            writer.stop()
        check_all(cluster, writers)
        cluster.kill("s1")
        cluster.start("s1")
        check_all(cluster, writers)
