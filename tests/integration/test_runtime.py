"""The runtime of daemons on real sockets: two or three shells around small cores, all in this process and one hub."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import gevent
import pytest
from gevent.event import Event

from neo_common.core import (
    Accept,
    Connected,
    Disconnect,
    Greeted,
    Log,
    Lost,
    Park,
    Received,
    Refuse,
    Send,
    Tick,
)
from neo_common.errors import ConfigError, DeadlinePassed, HandshakeRefused, NeoError, PeerLost, RequestFailed
from neo_common.ids import NO_EPOCH, NO_NODE, Instant, NodeId, Oid, Tid, Ttid
from neo_common.runtime import logs, shell
from neo_common.runtime.clock import Clock
from neo_common.runtime.connection import Connection, ConnectionLimits
from neo_common.runtime.dialer import connect
from neo_common.runtime.greenlets import Greenlets
from neo_common.runtime.shell import EXIT_CRASH, EXIT_OK, Shell, ShellLimits
from neo_common.states import Role, node_id
from neo_common.wire.codec import FrameReader, frame
from neo_common.wire.schema import (
    MAGIC,
    AnswerDebug,
    AnswerLast,
    AnswerLoad,
    AnswerPiece,
    AskDebug,
    AskLast,
    AskLoad,
    AskPiece,
    Compression,
    Data,
    Error,
    ErrorCode,
    Goodbye,
    Hello,
    HelloNo,
    HelloOk,
    Invalidate,
    Packet,
    Ping,
    Pong,
    RefusalCode,
)
from neo_common.wire.session import Ended, Limits, Notified, Opened, SessionEvent

pytestmark = pytest.mark.timeout(60)

ID = bytes(range(16))
M1, S1, S2 = node_id(Role.MASTER, 1), node_id(Role.STORAGE, 1), node_id(Role.STORAGE, 2)
C1, C2, C3 = (node_id(Role.CLIENT, n) for n in (1, 2, 3))
A1 = node_id(Role.ADMIN, 1)
FAST = Limits(idle_s=0.1, dead_s=0.4, handshake_s=0.4)
WAIT_S = 10.0
INVALIDATE = Invalidate(Tid(5), Ttid(1, 1), 0, (Oid(1),), Tid(4))  # type: ignore[arg-type]
SMALL = Data(Compression.NONE, ID, 3, b"abc")


def hello(node: NodeId, cluster: str = "test", incarnation: int = 7) -> Hello:
    return Hello(1, 1, (), Role(node >> 24), "name", cluster, ID, node, incarnation, NO_EPOCH, "")


class Script:
    """A core that remembers its events, lets everybody in, and does what the test says."""

    def __init__(self, react: Callable[[Any], list[object]] | None = None) -> None:
        self.events: list[Any] = []
        self.ticks = 0
        self._react = react
        self._news = Event()

    def handle(self, event: Any, now: Instant) -> list[object]:
        assert now.monotonic > 0
        if isinstance(event, Tick):
            self.ticks += 1
        else:
            self.events.append(event)
        self._news.set()
        if self._react is not None:
            return self._react(event)
        return [Accept(event.connection, event.hello.node)] if isinstance(event, Greeted) else []

    def wait_for(self, there: Callable[[list[Any]], object]) -> None:
        """Wait until *there(events)* holds; events wake it, time only bounds it."""
        with gevent.Timeout(WAIT_S):
            while not there(self.events):
                self._news.clear()
                self._news.wait()

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


class Cluster:
    """The shells of a test, closed at its end."""

    def __init__(self) -> None:
        self._shells: list[Shell] = []

    def add(self, us: Hello, core: Script | None = None, cls: type[Shell] = Shell, **arguments: Any) -> Shell:
        made = cls(core or Script(), us, **arguments)
        self._shells.append(made)
        made.start()
        return made

    def server(self, core: Script | None = None, node: NodeId = M1, **arguments: Any) -> Shell:
        return self.add(hello(node), core, listen=["127.0.0.1:0"], **arguments)

    def close(self) -> None:
        for made in self._shells:
            made.close()


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = Cluster()
    yield made
    while Raw.opened:
        Raw.opened.pop().sock.close()
    made.close()


def script(of: Shell) -> Script:
    core = of.core
    assert isinstance(core, Script)
    return core


def address_of(of: Shell) -> str:
    return of.listener.addresses[0]


def answering(event: Any) -> list[object]:
    """Let in who comes, and answer every load."""
    if isinstance(event, Greeted):
        return [Accept(event.connection, event.hello.node)]
    if isinstance(event, Received) and isinstance(event.packet, AskLoad):
        return [Send(event.peer, AnswerLoad(Tid(event.packet.oid), Tid(0), SMALL), event.request)]
    if isinstance(event, Received) and isinstance(event.packet, AskPiece):
        return [Send(event.peer, AnswerPiece(bytes(2**20)), event.request)]
    return []


def load(oid: int) -> AskLoad:
    return AskLoad(NO_EPOCH, Oid(oid), Tid(9))


def linked(cluster: Cluster, server: Shell, node: NodeId, core: Script | None = None, **arguments: Any) -> Shell:
    """Return a shell that has a connection to *server*."""
    dialling = cluster.add(hello(node), core, **arguments)
    dialling.keep_dialled(server.us.node, address_of(server))
    script(dialling).wait_for(lambda events: any(isinstance(e, Connected) for e in events))
    script(server).wait_for(lambda events: any(isinstance(e, Connected) and e.peer == node for e in events))
    return dialling


class Raw:
    """A peer made by hand: it says and reads what the test wants, when the test wants."""

    opened: ClassVar[list["Raw"]] = []
    """Those of this test; the fixture closes them."""

    def __init__(self, server: Shell, us: Hello | None = None) -> None:
        self.sock = connect(address_of(server))
        self.opened.append(self)
        self.reader = FrameReader()
        self.frames: list[tuple[int, Packet]] = []
        if us is not None:
            self.sock.sendall(MAGIC + frame(us))
            assert self.exactly(len(MAGIC)) == MAGIC
            assert isinstance(self.next()[1], HelloOk)

    def exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            got = self.sock.recv(size - len(data))
            assert got, "closed"
            data += got
        return data

    def next(self) -> tuple[int, Packet]:
        """Return the next frame, answering pings; EOFError at the end."""
        with gevent.Timeout(WAIT_S):
            while True:
                while not self.frames:
                    data = self.sock.recv(2**16)
                    if not data:
                        raise EOFError
                    self.frames += self.reader.feed(data)
                request, packet = self.frames.pop(0)
                if not isinstance(packet, Ping):
                    return request, packet
                self.sock.sendall(frame(Pong()))

    def closed(self) -> bool:
        """Read to the end; return whether there was one."""
        with gevent.Timeout(WAIT_S):
            try:
                while self.sock.recv(2**16):
                    pass
            except ConnectionResetError:
                pass
        return True


# ---------------------------------------------------------------------------------------------- connections


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "[::1]:0", "localhost:0", "unix"])
def test_every_kind_of_address_connects(cluster: Cluster, listen: str, tmp_path: Path) -> None:
    if listen == "unix":
        listen = f"unix:{tmp_path}/socket"
    server = cluster.add(hello(S1), Script(answering), listen=[listen])
    client = linked(cluster, server, C1)
    assert client.ask(S1, load(3), WAIT_S) == AnswerLoad(Tid(3), Tid(0), SMALL)
    assert server.us.address == address_of(server)
    (connected,) = script(client).of(Connected)
    assert connected.peer == S1
    assert connected.hello.address == address_of(server)
    assert connected.hello.role == Role.STORAGE


def test_all_addresses_of_a_name_are_tried(monkeypatch: pytest.MonkeyPatch, cluster: Cluster) -> None:
    server = cluster.server()
    port = int(address_of(server).rpartition(":")[2])
    results = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0)),  # nobody listens there
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: results)
    sock = connect(f"some.name:{port}")
    assert sock.family == socket.AF_INET
    sock.close()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: results[:1])
    with pytest.raises(PeerLost, match=r"\[::1\]"):
        connect(f"some.name:{port}")


def test_stale_unix_socket_is_replaced_a_living_one_is_not(cluster: Cluster, tmp_path: Path) -> None:
    path = f"{tmp_path}/socket"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(path)
    dead.close()
    server = cluster.add(hello(S1), Script(answering), listen=[f"unix:{path}"])
    with pytest.raises(ConfigError, match="in use"):
        Shell(Script(), hello(S2), listen=[f"unix:{path}"]).start()
    assert linked(cluster, server, C1).ask(S1, load(1), WAIT_S)
    server.close()
    assert not os.path.exists(path)


def test_pipelined_questions_are_all_answered_in_order(cluster: Cluster) -> None:
    server = cluster.server(Script(answering), S1)
    client = linked(cluster, server, C1)
    answers: list[Packet | NeoError] = []
    all_there = Event()
    for oid in range(5000):
        client.by_node[S1].ask_then(load(oid), WAIT_S, answers.append)
    client.by_node[S1].ask_then(load(5000), WAIT_S, lambda _: all_there.set())
    assert all_there.wait(WAIT_S)
    assert answers == [AnswerLoad(Tid(oid), Tid(0), SMALL) for oid in range(5000)]


def test_small_requests_do_not_wait_for_a_large_transfer(cluster: Cluster) -> None:
    """200 MB in pieces and 1000 loads on one connection: a load waits for the pieces in flight, not for the value."""
    server = cluster.server(Script(answering), S1)
    client = linked(cluster, server, C1)
    connection = client.by_node[S1]
    arrived = 0
    progress: list[int] = []

    def transfer() -> None:
        nonlocal arrived
        for offset in range(0, 200 * 2**20, 2**20):
            answer = connection.ask(AskPiece(NO_EPOCH, Oid(1), Tid(1), offset), WAIT_S)
            assert isinstance(answer, AnswerPiece)
            arrived += len(answer.value)

    large = [gevent.spawn(transfer)]
    for oid in range(1000):
        assert connection.ask(load(oid), WAIT_S) == AnswerLoad(Tid(oid), Tid(0), SMALL)
        progress.append(arrived)
        # One load per piece or so: had loads to wait for the whole value, few would see it under way.
    gevent.joinall(large, raise_error=True)
    assert arrived == 200 * 2**20
    assert len({seen for seen in progress if 0 < seen < arrived}) > 50


def test_peer_that_does_not_read_is_pushed_back_and_then_served(cluster: Cluster) -> None:
    limits = ShellLimits(connection=ConnectionLimits(high=3 * 2**20, low=2**20))
    server = cluster.server(Script(answering), S1, limits=limits)
    greedy = Raw(server, hello(C1))
    question = frame(AskPiece(NO_EPOCH, Oid(1), Tid(1), 0), 1)

    def ask_all() -> None:
        for request in range(1, 101):
            greedy.sock.sendall(question[:6] + request.to_bytes(4, "big") + question[10:])

    asking = gevent.spawn(ask_all)
    (connection,) = server.by_handle.values()
    full = Event()
    connection.on_full = full.set
    assert full.wait(WAIT_S)
    # Another client is served meanwhile, as often as it likes; the output to the greedy one does not grow.
    client = linked(cluster, server, C2)
    for oid in range(200):
        client.ask(S1, load(oid), WAIT_S)
        # All 100 questions came with one receive: they are handled only as far as their answers have room.
        assert connection.output_bytes <= 5 * 2**20
    for request in range(1, 101):
        assert greedy.next() == (request, AnswerPiece(bytes(2**20)))
    asking.get()
    assert connection.output_bytes == 0
    greedy.sock.sendall(frame(load(4), 500))
    assert greedy.next() == (500, AnswerLoad(Tid(4), Tid(0), SMALL))


def test_reading_stops_while_output_is_full(cluster: Cluster) -> None:
    """Questions that come after the output is full stay in the kernel: memory is bounded by the marks."""
    high = 2**20
    limits = ShellLimits(connection=ConnectionLimits(high=high, low=high // 2))
    server = cluster.server(Script(answering), S1, limits=limits)
    greedy = Raw(server, hello(C1))
    (connection,) = server.by_handle.values()
    full = Event()
    connection.on_full = full.set
    request = 0
    while not full.is_set():  # one at a time: each is a receive of its own
        request += 1
        greedy.sock.sendall(frame(AskPiece(NO_EPOCH, Oid(1), Tid(1), 0), request))
        script(server).wait_for(lambda events: len(events) >= request + 2)  # noqa: B023  it is called at once
    held = connection.output_bytes
    assert high < held <= high + 2**20 + 20
    handled = len(script(server).events)
    for more in range(request + 1, request + 50):
        greedy.sock.sendall(frame(AskPiece(NO_EPOCH, Oid(1), Tid(1), 0), more))
    client = linked(cluster, server, C2)
    for oid in range(50):
        client.ask(S1, load(oid), WAIT_S)
    assert connection.output_bytes == held
    assert len([e for e in script(server).events[handled:] if isinstance(e, Received) and e.peer == C1]) == 0
    for answered in range(1, request + 50):
        assert greedy.next()[0] == answered


def test_a_paused_connection_takes_nothing_and_lives(cluster: Cluster) -> None:
    limits = ShellLimits(connection=ConnectionLimits(session=FAST))
    server = cluster.server(Script(answering), S1, limits=limits)
    client = linked(cluster, server, C1, limits=limits)
    (connection,) = server.by_handle.values()
    connection.pause()
    answers: list[Packet | NeoError] = []
    client.by_node[S1].ask_then(load(1), WAIT_S, answers.append)
    ticks = script(server).ticks
    script(server).wait_for(lambda _: script(server).ticks > ticks + 20)  # 1 s, dead_s is 0.4
    assert answers == []
    connection.resume()
    script(client).wait_for(lambda _: answers)
    assert answers == [AnswerLoad(Tid(1), Tid(0), SMALL)]
    assert script(client).of(Lost) == script(server).of(Lost) == []


def test_peer_that_takes_nothing_is_cut(cluster: Cluster) -> None:
    limits = ShellLimits(connection=ConnectionLimits(high=2**20, low=2**19, stall_s=0.3))
    server = cluster.server(Script(answering), S1, limits=limits)
    greedy = Raw(server, hello(C1))
    for request in range(1, 21):
        greedy.sock.sendall(frame(AskPiece(NO_EPOCH, Oid(1), Tid(1), 0), request))
    script(server).wait_for(lambda events: any(isinstance(e, Lost) for e in events))
    (lost,) = script(server).of(Lost)
    assert "takes nothing" in lost.reason
    assert server.by_handle == {}
    assert greedy.closed()


def test_output_beyond_its_bound_cuts_the_connection(cluster: Cluster) -> None:
    limits = ShellLimits(connection=ConnectionLimits(output_max=5 * 2**20))
    server = cluster.server(limits=limits)
    Raw(server, hello(C1)).sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    many = Invalidate(Tid(5), Ttid(1, 1), 0, tuple(Oid(n) for n in range(100_000)), Tid(4))  # type: ignore[arg-type]
    (connection,) = server.by_handle.values()
    script(server).wait_for(lambda events: any(isinstance(e, Connected) for e in events))
    for _ in range(100):
        connection.notify(many)
        assert connection.output_bytes <= 6 * 2**20
    script(server).wait_for(lambda events: any(isinstance(e, Lost) for e in events))
    assert "the limit is" in script(server).of(Lost)[0].reason


def test_silent_peer_is_lost(cluster: Cluster) -> None:
    server = cluster.server(limits=ShellLimits(connection=ConnectionLimits(session=FAST)))
    Raw(server, hello(C1))
    script(server).wait_for(lambda events: any(isinstance(e, Lost) for e in events))
    (lost,) = script(server).of(Lost)
    assert (lost.peer, "silent" in lost.reason) == (C1, True)


def test_heartbeats_keep_idle_connections(cluster: Cluster) -> None:
    limits = ShellLimits(connection=ConnectionLimits(session=FAST))
    server = cluster.server(Script(answering), S1, limits=limits)
    client = linked(cluster, server, C1, limits=limits)
    ticks = script(client).ticks
    script(client).wait_for(lambda _: script(client).ticks > ticks + 30)  # 1.5 s, dead_s is 0.4
    assert script(client).of(Lost) == script(server).of(Lost) == []


def test_who_says_no_hello_is_dropped(cluster: Cluster) -> None:
    server = cluster.server(limits=ShellLimits(connection=ConnectionLimits(session=FAST)))
    mute = Raw(server)
    assert mute.closed()
    assert script(server).events == []


@pytest.mark.parametrize("data", [b"GET / HTTP/1.0\r\n\r\n", MAGIC + bytes(100), MAGIC + frame(AskLast(), 1)])
def test_garbage_closes_its_own_connection_only(cluster: Cluster, data: bytes) -> None:
    server = cluster.server(Script(answering), S1)
    client = linked(cluster, server, C1)
    bad = Raw(server)
    bad.sock.sendall(data)
    assert bad.closed()
    assert client.ask(S1, load(1), WAIT_S)


def test_vanished_peer_fails_what_was_asked(cluster: Cluster) -> None:
    server = cluster.server()  # never answers
    client = linked(cluster, server, C1)
    asking = gevent.spawn(client.ask, M1, AskLast(), WAIT_S)
    script(server).wait_for(lambda events: any(isinstance(e, Received) for e in events))
    server.close()
    with pytest.raises(PeerLost, match="it stops"):
        asking.get()
    assert [lost.peer for lost in script(client).of(Lost)] == [M1]


def test_requests_end_by_answer_error_or_deadline(cluster: Cluster) -> None:
    def react(event: Any) -> list[object]:
        if isinstance(event, Greeted):
            return [Accept(event.connection, event.hello.node)]
        if isinstance(event, Received) and isinstance(event.packet, AskLoad) and event.packet.oid == 1:
            return [Send(event.peer, Error(ErrorCode.NOT_FOUND, "no such oid"), event.request)]
        return []

    client = linked(cluster, cluster.server(Script(react), S1), C1)
    with pytest.raises(RequestFailed, match="S1: no such oid") as failed:
        client.ask(S1, load(1), WAIT_S)
    assert failed.value.code == ErrorCode.NOT_FOUND
    with pytest.raises(DeadlinePassed, match="S1 has not answered AskLoad"):
        client.ask(S1, load(2), 0.1)


def test_last_words_reach_a_peer_that_has_much_to_read(cluster: Cluster) -> None:
    server = cluster.server(Script(answering), S1)
    raw = Raw(server, hello(C1))
    for request in range(1, 6):
        raw.sock.sendall(frame(AskPiece(NO_EPOCH, Oid(1), Tid(1), 0), request))
    script(server).wait_for(lambda events: len([e for e in events if isinstance(e, Received)]) == 5)
    raw.sock.sendall(frame(load(1), 6))  # unread input at the closing side must not destroy what it said
    (connection,) = server.by_handle.values()
    connection.close("enough")
    assert [raw.next()[0] for _ in range(5)] == [1, 2, 3, 4, 5]
    assert raw.next() == (0, Goodbye("enough"))
    with pytest.raises(EOFError):
        raw.next()


# ---------------------------------------------------------------------------------------------- who may come in


def test_another_cluster_is_refused(cluster: Cluster) -> None:
    server = cluster.server()
    stranger = cluster.add(hello(C1, cluster="other"))
    connection = stranger._adopt(connect(address_of(server)), address_of(server), M1)
    with pytest.raises(HandshakeRefused, match="this is cluster 'test', not 'other'"):
        connection.opened.get(timeout=WAIT_S)
    assert script(server).events == []
    lost = cluster.add(hello(C1)._replace(cluster_id=bytes(15) + b"x"))
    connection = lost._adopt(connect(address_of(server)), address_of(server), M1)
    with pytest.raises(HandshakeRefused) as refused:
        connection.opened.get(timeout=WAIT_S)
    assert refused.value.code == RefusalCode.CLUSTER


def test_wrong_node_behind_an_address_is_not_taken(cluster: Cluster) -> None:
    server = cluster.server(node=S1)
    client = cluster.add(hello(C1))
    connection = client._adopt(connect(address_of(server)), address_of(server), S2)
    with pytest.raises(PeerLost, match="this is S1, we dialled S2"):
        connection.opened.get(timeout=WAIT_S)
    assert script(client).events == []
    script(server).wait_for(lambda events: any(isinstance(e, Lost) for e in events))


def test_the_core_decides_when_the_shell_does_not(cluster: Cluster) -> None:
    greeted: list[Greeted] = []

    def react(event: Any) -> list[object]:
        if isinstance(event, Greeted):
            greeted.append(event)
            return [Park(event.connection, "not yet")]
        return []

    server = cluster.server(Script(react))
    client = cluster.add(hello(C1)._replace(node=NO_NODE))
    client.follow_primary([address_of(server)])
    script(server).wait_for(lambda events: greeted)
    bootstrap = client.bootstrap
    assert bootstrap is not None
    script(client).wait_for(lambda _: "waits: not yet" in bootstrap.why())
    server._perform(Accept(greeted[0].connection, C2))
    script(client).wait_for(lambda events: any(isinstance(e, Connected) for e in events))
    assert client.us.node == C2
    assert script(server).of(Connected)[0].hello.node == C2


def test_refusal_points_at_the_primary(cluster: Cluster) -> None:
    primary = cluster.server(node=node_id(Role.MASTER, 2))

    def react(event: Any) -> list[object]:
        if isinstance(event, Greeted):
            return [Refuse(event.connection, RefusalCode.NOT_PRIMARY, "I follow", address_of(primary))]
        return []

    secondary = cluster.server(Script(react))
    client = cluster.add(hello(C1))
    client.follow_primary([address_of(secondary)])
    script(client).wait_for(lambda events: any(isinstance(e, Connected) for e in events))
    assert script(client).of(Connected)[0].peer == node_id(Role.MASTER, 2)


def test_too_many_are_told_so(cluster: Cluster) -> None:
    server = cluster.server(limits=ShellLimits(connections_max=2))
    kept = [Raw(server, hello(C1)), Raw(server, hello(C2))]
    third = Raw(server)
    third.sock.sendall(MAGIC + frame(hello(C3)))
    assert third.exactly(len(MAGIC)) == MAGIC
    answer = third.next()[1]
    assert isinstance(answer, HelloNo)
    assert answer.code == RefusalCode.LIMIT
    assert len(kept) == len(server.by_node)


class Doorman(Shell):
    """A shell that decides by itself, as storages do."""

    def greet(self, connection: int, hello: Hello) -> Accept | Park | Refuse | None:
        if hello.role == Role.ADMIN:
            return Accept(connection, hello.node or self.local_id(Role.ADMIN))
        return Refuse(connection, RefusalCode.ROLE, "admins only")


def test_a_shell_may_decide_who_comes_in(cluster: Cluster) -> None:
    server = cluster.add(hello(S1), cls=Doorman, listen=["127.0.0.1:0"])
    admin = cluster.add(hello(A1)._replace(node=NO_NODE))
    admin.keep_dialled(S1, address_of(server))
    script(admin).wait_for(lambda events: any(isinstance(e, Connected) for e in events))
    client = cluster.add(hello(C1))
    connection = client._adopt(connect(address_of(server)), address_of(server), S1)
    with pytest.raises(HandshakeRefused, match="admins only"):
        connection.opened.get(timeout=WAIT_S)


# ---------------------------------------------------------------------------------------------- rules of core.py


def test_lost_comes_before_the_next_connected_and_old_packets_are_dropped(cluster: Cluster) -> None:
    server = cluster.server()
    first = Raw(server, hello(C1, incarnation=1))
    first.sock.sendall(frame(AskLast(), 1))
    script(server).wait_for(lambda events: any(isinstance(e, Received) for e in events))
    (asked,) = script(server).of(Received)
    second = Raw(server, hello(C1, incarnation=2))
    script(server).wait_for(lambda events: len([e for e in events if isinstance(e, Connected)]) == 2)
    kinds = [type(e).__name__ for e in script(server).events if not isinstance(e, Received | Greeted)]
    assert kinds == ["Connected", "Lost", "Connected"]
    assert [e.hello.incarnation for e in script(server).of(Connected)] == [1, 2]
    assert first.next() == (0, Goodbye("replaced by a newer connection"))
    # The answer to the old connection's question reaches nobody; the new one's, with the same id, its own.
    second.sock.sendall(frame(AskLast(), 1))
    script(server).wait_for(lambda events: len([e for e in events if isinstance(e, Received)]) == 2)
    newer = script(server).of(Received)[1]
    assert newer.request != asked.request
    server._send(Send(C1, AnswerLast(Tid(1)), asked.request))
    server._send(Send(C1, AnswerLast(Tid(2)), newer.request))
    assert second.next() == (1, AnswerLast(Tid(2)))


def test_disconnect_tells_the_peer_why_and_the_core_nothing(cluster: Cluster) -> None:
    def react(event: Any) -> list[object]:
        if isinstance(event, Greeted):
            return [Accept(event.connection, event.hello.node)]
        if isinstance(event, Received) and event.peer == C1:
            return [Send(C1, INVALIDATE), Disconnect(C1, "no more"), Send(C1, INVALIDATE)]
        return []

    server = cluster.server(Script(react))
    raw = Raw(server, hello(C1))
    raw.sock.sendall(frame(AskLast(), 1) + frame(AskLast(), 2))  # the second one is dropped with its connection
    assert [raw.next() for _ in range(2)] == [(0, INVALIDATE), (0, Goodbye("no more"))]
    Raw(server, hello(C1))
    script(server).wait_for(lambda events: len([e for e in events if isinstance(e, Connected)]) == 2)
    assert script(server).of(Lost) == []
    assert len(script(server).of(Received)) == 1


def test_what_waits_of_a_connection_that_is_disconnected_is_dropped(cluster: Cluster) -> None:
    server: Shell

    def react(event: Any) -> list[object]:
        if isinstance(event, Greeted):
            return [Accept(event.connection, event.hello.node)]
        if event == "go":
            handle = server.by_node[C1].handle
            server._enqueue(handle, Received(C1, INVALIDATE))
            return [Disconnect(C1, "no more")]
        return []

    server = cluster.server(Script(react))
    raw = Raw(server, hello(C1))
    server.post("go")
    assert raw.next() == (0, Goodbye("no more"))
    assert [type(event) for event in script(server).events] == [Greeted, Connected, str]


def test_who_is_accepted_and_disconnected_at_once_was_never_there(cluster: Cluster) -> None:
    def react(event: Any) -> list[object]:
        if isinstance(event, Greeted):
            return [Accept(event.connection, C1), Disconnect(C1, "on second thoughts")]
        return []

    server = cluster.server(Script(react))
    raw = Raw(server, hello(C1))  # it has its HelloOk
    assert raw.next() == (0, Goodbye("on second thoughts"))
    assert [type(event) for event in script(server).events] == [Greeted]
    assert server.by_node == {}


def test_packets_of_different_events_are_never_taken_for_each_other(cluster: Cluster) -> None:
    """Encoded frames are kept by the identity of a packet, which another packet may have later."""

    def react(event: Any) -> list[object]:
        if isinstance(event, Greeted):
            return [Accept(event.connection, event.hello.node)]
        return [Send(C1, INVALIDATE._replace(tid=Tid(event)))] if isinstance(event, int) else []

    server = cluster.server(Script(react))
    raw = Raw(server, hello(C1))
    for tid in range(1, 100):
        server.post(tid)
    assert [raw.next() for _ in range(1, 100)] == [(0, INVALIDATE._replace(tid=Tid(tid))) for tid in range(1, 100)]


def test_after_close_the_owner_hears_the_end_only(cluster: Cluster) -> None:
    """Two notifications come with one receive; the owner closes at the first one."""

    class Closing:
        def __init__(self) -> None:
            self.events: list[SessionEvent] = []

        def connection_event(self, connection: Connection, event: SessionEvent) -> None:
            self.events.append(event)
            if isinstance(event, Notified):
                connection.close("enough")

    server = cluster.server()
    owner = Closing()
    crashes: list[str] = []
    connection = Connection(
        1,
        connect(address_of(server)),
        address_of(server),
        hello(C1),
        owner,
        Greenlets(crashes.append),
        Clock(),
    )
    connection.start()
    connection.opened.get(timeout=WAIT_S)
    server.by_node[C1].notify(INVALIDATE)
    server.by_node[C1].notify(INVALIDATE)
    assert connection.wait_closed(WAIT_S)
    assert [type(event) for event in owner.events] == [Opened, Notified, Ended]
    assert crashes == []


def test_events_are_handled_one_after_the_other_never_nested(cluster: Cluster) -> None:
    order: list[str] = []
    server: Shell

    def react(event: Any) -> list[object]:
        order.append(f"handle {event}")
        if event == "first":
            server.post("second")  # what a subclass does while it performs
            return [Log(logging.INFO, "one"), "effect"]
        return []

    class Recording(Shell):
        def perform(self, effect: object) -> None:
            order.append(f"perform {effect}")
            self.post("third")

    server = Recording(Script(react), hello(M1))
    server.post("first")
    assert order == ["handle first", "perform effect", "handle second", "handle third"]
    server.close()


def test_object_data_never_enters_a_log(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    server = cluster.server(Script(answering), S1)
    assert linked(cluster, server, C1).ask(S1, load(1), WAIT_S)
    assert "Send peer=C1 packet=AnswerLoad" in caplog.text
    assert "abc" not in caplog.text


def test_a_broadcast_is_encoded_once(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    clients = (C1, C2, C3)
    other = INVALIDATE._replace(tid=Tid(6))

    def react(event: Any) -> list[object]:
        if isinstance(event, Greeted):
            return [Accept(event.connection, event.hello.node)]
        return [Send(c, p) for c in clients for p in (INVALIDATE, other)] if event == "go" else []

    server = cluster.server(Script(react))
    peers = [Raw(server, hello(c)) for c in clients]
    encoded: list[Packet] = []

    def counting(packet: Packet, request: int = 0) -> bytes:
        encoded.append(packet)
        return frame(packet, request)

    monkeypatch.setattr(shell, "frame", counting)
    server.post("go")
    for peer in peers:
        assert [peer.next(), peer.next()] == [(0, INVALIDATE), (0, other)]
    assert encoded == [INVALIDATE, other]


def test_accepting_who_has_left_does_nothing(cluster: Cluster) -> None:
    server = cluster.server(Script(lambda _: []))
    raw = Raw(server)
    raw.sock.sendall(MAGIC + frame(hello(C1)))
    script(server).wait_for(lambda events: any(isinstance(e, Greeted) for e in events))
    raw.sock.close()
    script(server).wait_for(lambda _: not server.by_handle)
    server._perform(Accept(script(server).of(Greeted)[0].connection, C1))
    server.post("after")
    assert script(server).of(Connected) == []
    assert server.by_node == {}


def test_events_from_native_threads_arrive(cluster: Cluster) -> None:
    server = cluster.server()

    def work() -> None:
        for n in range(100):
            server.post_from_thread(n)

    thread = threading.Thread(target=work)
    thread.start()
    script(server).wait_for(lambda events: len(events) == 100)
    thread.join()
    assert script(server).events == list(range(100))


def test_soon_runs_after_the_packets_that_are_there(cluster: Cluster) -> None:
    order: list[object] = []
    server: Shell

    def react(event: Any) -> list[object]:
        if isinstance(event, Received):
            order.append(event.packet)
            if len(order) == 1:
                server.soon(lambda: order.append("soon"))
        return [Accept(event.connection, event.hello.node)] if isinstance(event, Greeted) else []

    server = cluster.server(Script(react), S1)
    raw = Raw(server, hello(C1))
    raw.sock.sendall(b"".join(frame(load(oid), oid) for oid in range(1, 11)))
    script(server).wait_for(lambda _: "soon" in order)
    assert order == [*(load(oid) for oid in range(1, 11)), "soon"]


# ---------------------------------------------------------------------------------------------- dialling again


def test_a_kept_connection_comes_back_until_it_is_let_go(cluster: Cluster) -> None:
    server = cluster.server(node=S1)
    where = address_of(server)
    client = linked(cluster, server, C1)
    script(client).wait_for(lambda _: client.dialled == {S1: ""})
    server.close()
    script(client).wait_for(lambda events: isinstance(events[-1], Lost))
    again = cluster.add(hello(S1, incarnation=9), listen=[where])
    script(client).wait_for(lambda events: isinstance(events[-1], Connected))
    assert [type(e).__name__ for e in script(client).events] == ["Connected", "Lost", "Connected"]
    assert script(client).events[-1].hello.incarnation == 9
    client.let_go(S1)
    again.close()
    script(client).wait_for(lambda events: isinstance(events[-1], Lost))
    assert client.dialled == {}
    ticks = script(client).ticks
    third = cluster.add(hello(S1), listen=[where])
    script(client).wait_for(lambda _: script(client).ticks > ticks + 20)
    assert third.by_handle == {}


def test_the_primary_is_found_among_masters_that_are_down(cluster: Cluster) -> None:
    down = [f"127.0.0.1:{n}" for n in (1, 2)]
    server = cluster.server()
    client = cluster.add(hello(C1))
    client.follow_primary([*down, address_of(server)])
    script(client).wait_for(lambda events: any(isinstance(e, Connected) for e in events))
    assert client.bootstrap is not None
    server.close()
    script(client).wait_for(lambda events: isinstance(events[-1], Lost))
    cluster.add(hello(M1), listen=[address_of(server)])
    script(client).wait_for(lambda events: isinstance(events[-1], Connected))


# ---------------------------------------------------------------------------------------------- the daemon


def test_debug_tells_what_a_node_waits_for(cluster: Cluster) -> None:
    class Talking(Script):
        def debug(self) -> dict[str, object]:
            return {"votes": 3}

    server = cluster.server(Talking(), S1)
    client = linked(cluster, server, C1)
    gevent.spawn(client.ask, S1, load(1), WAIT_S)
    script(server).wait_for(lambda events: any(isinstance(e, Received) for e in events))
    admin = linked(cluster, server, A1)
    answer = admin.ask(S1, AskDebug(), WAIT_S)
    assert isinstance(answer, AnswerDebug)
    told = json.loads(answer.json)
    assert told["node"] == "S1"
    assert told["core"] == {"votes": 3}
    assert {c["peer"]: c["owed_answers"] for c in told["connections"]} == {"C1": 1, "A1": 1}
    assert [entry[1:] for entry in told["trace"]] == [["C1", "<", "AskLoad"]]
    pending = client.debug()["connections"][0]["pending"]  # type: ignore[index]
    assert [p["packet"] for p in pending] == ["AskLoad"]


def test_a_crash_of_the_core_is_logged_and_stops_the_daemon(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    def react(event: Any) -> list[object]:
        if isinstance(event, Received):
            raise ZeroDivisionError("planted")
        return [Accept(event.connection, event.hello.node)] if isinstance(event, Greeted) else []

    del cluster  # it closes what is Raw
    core = Script(react)
    server = Shell(core, hello(S1), listen=["127.0.0.1:0"])
    running = gevent.spawn(server.run)
    core.wait_for(lambda _: core.ticks)
    raw = Raw(server, hello(C1))
    raw.sock.sendall(frame(load(1), 1) + frame(load(2), 2))
    assert running.get(timeout=WAIT_S) == EXIT_CRASH
    assert "planted" in caplog.text
    assert "the last packets: 0.000000 C1 < AskLoad" in caplog.text
    assert len(core.of(Received)) == 1  # nothing reaches a core that has failed
    assert raw.closed()


def test_closing_leaves_nothing(cluster: Cluster) -> None:
    server = cluster.server()
    client = linked(cluster, server, C1)
    connections = [*server.by_handle.values(), *client.by_handle.values()]
    client.close()
    server.close()
    for made in (server, client):
        assert len(made.greenlets) == 0
        assert made.by_handle == {}
    assert all(connection.wait_closed(0) for connection in connections)
    with pytest.raises(PeerLost, match="refused"):
        connect(address_of(server))


DAEMON = """
import sys
from gevent import monkey
monkey.patch_all()
from neo_common.errors import ConfigError
from neo_common.runtime import daemon
from neo_common.runtime.shell import Shell
from neo_common.wire.schema import Hello
from neo_common.states import Role, node_id

class Core:
    def handle(self, event, now):
        return []

def make():
    if sys.argv[1] == "config":
        raise ConfigError("neo.yaml: line 3: no")
    us = Hello(1, 1, (), Role.MASTER, "m", "t", bytes(16), node_id(Role.MASTER, 1), 1, 0, "")
    return Shell(Core(), us, sys.argv[2:])

sys.exit(daemon.run(make, name="m1"))
"""


def test_sigterm_stops_a_daemon_cleanly() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", DAEMON, "run", "127.0.0.1:0"], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert "node=m1 listens at 127.0.0.1:" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
        assert process.wait(WAIT_S) == EXIT_OK
    assert "SIGTERM" in rest
    assert "Traceback" not in rest


@pytest.mark.parametrize(("arguments", "text"), [(["config"], "line 3"), (["run", "127.0.0.1:x"], "127.0.0.1:x")])
def test_configuration_errors_have_their_own_status(arguments: list[str], text: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DAEMON, *arguments], stderr=subprocess.PIPE, text=True, timeout=WAIT_S, check=False
    )
    assert done.returncode == 2
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_log_lines(tmp_path: Path) -> None:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        with open(tmp_path / "log", "w+", encoding="utf-8") as stream:
            logs.set_up("S1", "INFO", stream=stream)
            logging.getLogger("neo.x").info("cell %d\nof", 3)
            logging.getLogger("neo.x").debug("unseen")
            logs.set_up("S1", "INFO", as_json=True, stream=stream)
            logging.getLogger("neo.x").warning("cell %d", 4)
            stream.seek(0)
            line, record = stream.read().splitlines()
    finally:
        for handler in list(root.handlers):
            root.removeHandler(handler)
        for handler in handlers:
            root.addHandler(handler)
        root.setLevel(level)
    assert line.endswith("Z INFO neo.x node=S1 cell 3\\nof")
    assert {**json.loads(record), "time": ""} == {
        "time": "",
        "level": "WARNING",
        "logger": "neo.x",
        "node": "S1",
        "text": "cell 4",
    }
