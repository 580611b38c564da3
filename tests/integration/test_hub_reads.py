"""Reads of single revisions from servers: by greenlets of the hub where the driver can, by threads elsewhere.

Whatever a server does, the hub is never blocked. That is shown with a server that is stopped, and goes on only if the
hub lets a greenlet say so: if anything blocks the hub, these tests hang.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import gevent
import gevent.event
import pytest
from gevent.hub import get_hub

from neo_common.errors import BackendLost
from neo_common.ids import NO_TID, Oid, Tid
from neo_common.wire.schema import PIECE_BYTES
from neo_storage.backends import server as server_module
from neo_storage.backends.base import Stored
from neo_storage.backends.mysql import hub_reader
from neo_storage.backends.mysql.backend import MysqlBackend
from neo_storage.backends.postgresql.backend import PostgresqlBackend
from neo_storage.core.events import Loads, Piece, PointsRead, ReadPoints, Serials
from neo_storage.hub_waits import HubWaits
from neo_storage.native import Door
from neo_storage.points import HubReads, PointReads, ThreadReads, point_reads
from support.backend_contract import ABSENT, END, P0, T1, T2, T3, Write, commit, write
from support.server_kinds import EVERY
from support.servers import MariaDB, Server, backend_on

KINDS = pytest.mark.parametrize("kind", EVERY)
VALUES = {1: b"a", 2: b"b" * 9000, 3: b"c" * PIECE_BYTES, 4: b"d" * (PIECE_BYTES + 1)}
READERS = 3


def make_door() -> Door:
    """Return what has a function called in a greenlet of this thread, as a shell does."""
    schedule = get_hub().loop.run_callback_threadsafe
    return lambda function, *arguments: schedule(gevent.spawn_raw, function, *arguments)


class Rig:
    """Point reads on a server, as in a shell."""

    def __init__(self, server: Server, options: dict[str, Any] | None = None) -> None:
        self.server = server
        self.database = server.new_database()
        backend = backend_on(server, self.database, **(options or {}))
        assert isinstance(backend, server_module.ServerBackend)
        self.backend = backend
        self.backend.open()
        self.backend.apply([commit(T1, *(write(oid, value) for oid, value in VALUES.items()), np=1)], 0)
        self.backend.apply([commit(T2, write(1, b"new", T1), np=1)], 1)
        self.backend.apply([commit(T3, Write(Oid(2), T1, NO_TID, ABSENT), np=1)], 2)
        self._numbers = count(1)
        self._results: dict[int, gevent.event.AsyncResult] = {}
        # The loop ends when nothing of it is left to wait for; native threads do not count.
        self._greenlets = [gevent.spawn(gevent.sleep, 10**6)]
        self.reads: PointReads = point_reads(self.backend, make_door(), self._spawn, self._done, READERS)

    def _spawn(self, function: Callable[[], None]) -> None:
        self._greenlets.append(gevent.spawn(function))

    def _done(self, event: PointsRead) -> None:
        self._results[event.number].set(event.result)

    def ask(self, wanted: Serials | Loads | Piece) -> gevent.event.AsyncResult:
        """Begin a read."""
        number = next(self._numbers)
        self._results[number] = gevent.event.AsyncResult()
        self.reads.ask(ReadPoints(number, wanted))
        return self._results[number]

    def load(self, oid: int, before: Tid = END) -> Any:
        """Return what comes of one load."""
        return self.ask(Loads(((P0, Oid(oid)),), before)).get()[0]

    def stop(self) -> None:
        """Stop it."""
        gevent.killall(self._greenlets)
        self.reads.close(10)
        self.backend.close()
        self.server.give_back(self.database)


@pytest.fixture
def rig(kind: type[Server]) -> Iterator[Rig]:
    made = Rig(kind.shared())
    yield made
    made.stop()


def family(pid: int) -> list[int]:
    """Return *pid* and all its descendants (Linux)."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += family(int(child))
    return found


def is_at_rest(pid: int) -> bool:
    """Whether no thread of *pid* runs or will run (Linux)."""
    try:
        stats = [(task / "stat").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    except FileNotFoundError:  # a thread has just ended
        return False
    return {stat.rpartition(")")[2].split()[0] for stat in stats} <= {"T", "t", "Z"}


class Stopped:
    """A server all of whose processes rest, until a greenlet has come round so often."""

    def __init__(self, server: Server, turns: int = 200) -> None:
        assert server.process is not None
        self._pids = family(server.process.pid)
        for pid in self._pids:
            os.kill(pid, signal.SIGSTOP)
        deadline = time.monotonic() + 10
        while not all(is_at_rest(pid) for pid in self._pids):  # what runs on another processor stops a little later
            assert time.monotonic() < deadline, "the server does not stop"
        self._greenlet = gevent.spawn(self._wake, turns)

    def __enter__(self) -> "Stopped":
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on()

    def _wake(self, turns: int) -> None:
        for _ in range(turns):
            gevent.sleep(0.001)
        self.go_on()

    def go_on(self) -> None:
        """Let it go on."""
        for pid in self._pids:
            os.kill(pid, signal.SIGCONT)

    @property
    def is_over(self) -> bool:
        """Whether the greenlet has done its work."""
        return bool(self._greenlet.dead)

    def wait(self) -> None:
        """Wait for it."""
        self._greenlet.join()


@KINDS
def test_every_value_and_serial_is_read_as_by_a_thread(rig: Rig) -> None:
    assert isinstance(rig.reads, HubReads)
    blocking = rig.backend.range_reader()
    for before in (END, T3, T2, T1):
        for oid in (*VALUES, 77):
            assert rig.load(oid, before) == blocking.load(P0, Oid(oid), before)
    pairs = tuple((P0, Oid(oid)) for oid in (*VALUES, 77))
    assert rig.ask(Serials(pairs)).get() == blocking.currents(pairs) == {1: T2, 2: T3, 3: T1, 4: T1, 77: NO_TID}
    for offset in (0, PIECE_BYTES, 2 * PIECE_BYTES):
        piece = rig.ask(Piece(P0, Oid(4), T1, offset)).get()
        assert piece == blocking.piece(P0, Oid(4), T1, offset)
        assert (piece or b"") == VALUES[4][offset : offset + PIECE_BYTES]
    blocking.close()


@KINDS
def test_more_reads_than_connections_are_all_answered(rig: Rig) -> None:
    asked = [rig.ask(Loads(((P0, Oid(1 + n % 4)),), END)) for n in range(50)]
    assert len(rig.reads) == 50
    found = [result.get()[0] for result in asked]
    assert [stored.tid for stored in found] == [(T2, T3, T1, T1)[n % 4] for n in range(50)]
    assert len(rig.reads) == 0


@KINDS
def test_stopped_server_does_not_block_the_hub(rig: Rig) -> None:
    for is_connected in (False, True):
        with Stopped(rig.server) as stopped:
            asked = [rig.ask(Loads(((P0, Oid(oid)),), END)) for oid in (1, 3, 4, 1, 2)]
            asked += [rig.ask(Serials(((P0, Oid(1)),))), rig.ask(Piece(P0, Oid(4), T1, 0))]
            while not stopped.is_over:
                assert not any(result.ready() for result in asked), f"answered by a stopped server, {is_connected=}"
                gevent.sleep(0.001)
            stopped.wait()
        assert [result.get()[0].tid for result in asked[:5]] == [T2, T1, T1, T2, T3]
        assert asked[5].get() == {1: T2}
        assert asked[6].get() == VALUES[4][:PIECE_BYTES]


@KINDS
def test_threads_read_where_the_hub_cannot(kind: type[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    backend = MysqlBackend if issubclass(kind, MariaDB) else PostgresqlBackend
    monkeypatch.setattr(backend, "hub_reader", server_module.ServerBackend.hub_reader)
    rig = Rig(kind.shared())
    assert isinstance(rig.reads, ThreadReads)
    stopped = Stopped(rig.server)
    asked = [rig.ask(Loads(((P0, Oid(oid)),), END)) for oid in VALUES]
    stopped.wait()
    assert [result.get()[0].tid for result in asked] == [T2, T3, T1, T1]
    rig.stop()


def test_mariadb_is_not_read_in_the_hub_when_its_answers_come_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neo_storage.backends.mysql.backend.ANSWER_BYTES", hub_reader.ANSWER_BYTES + 1)
    rig = Rig(MariaDB.shared())
    assert isinstance(rig.reads, ThreadReads)
    rig.stop()


@KINDS
def test_silent_server_is_lost_after_its_time_and_read_again_when_it_speaks(kind: type[Server]) -> None:
    rig = Rig(kind.shared(), {"timeout_s": 1.0})
    waits = HubWaits(make_door())
    reader = rig.backend.hub_reader(waits)
    assert reader is not None
    assert isinstance(reader.load(P0, Oid(1), END), Stored)
    stopped = Stopped(rig.server, 10**9)
    try:
        with pytest.raises(BackendLost, match="has not answered for 1 s"):
            reader.load(P0, Oid(1), END)
    finally:
        stopped.go_on()
    again = reader.load(P0, Oid(1), END)
    assert again is not None
    assert again.tid == T2
    reader.close()
    assert waits.close(10)
    rig.stop()


@KINDS
def test_killed_server_is_read_again_when_it_is_back(kind: type[Server]) -> None:
    server = kind()
    rig = Rig(server)
    assert rig.load(1).tid == T2
    server.kill()
    asked = [rig.ask(Loads(((P0, Oid(1)),), END)) for _ in range(2 * READERS)]
    back = gevent.get_hub().threadpool.spawn(server.start)
    assert all(isinstance(r := result.get(), BackendLost) or r[0].tid == T2 for result in asked)
    back.get()
    while isinstance(rig.ask(Loads(((P0, Oid(1)),), END)).get(), BackendLost):
        gevent.sleep(0.01)
    assert rig.load(1).tid == T2
    rig.stop()
    server.end()
