"""One socket around one session.

A reader greenlet takes bytes and hands each event to the owner, inline: no queue, no other greenlet. Output is written
once per iteration of the loop, or when all that one receive has brought is handled, without blocking; what the kernel
does not take waits for a writable socket. Memory is bounded: above a high mark the side that was dialled stops reading
(who asks cannot ask more), above the hard bound, or when the peer takes nothing for long, the connection is cut. The
side that dialled never stops reading, so that two full sides cannot wait for each other.
"""

import socket
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Final, NamedTuple, Protocol

import gevent
from gevent import socket as gsocket
from gevent.event import AsyncResult, Event
from gevent.hub import get_hub

from neo_common.errors import NeoError, RemoteProtocolError, RequestFailed
from neo_common.ids import NodeId, Seconds
from neo_common.runtime.clock import Clock
from neo_common.runtime.greenlets import Greenlets
from neo_common.tls import Channel
from neo_common.wire.guard import Guard
from neo_common.wire.schema import Error, Hello, HelloNo, HelloOk, HelloWait, Packet
from neo_common.wire.session import (
    DEFAULT_LIMITS,
    Answered,
    Asked,
    Ended,
    Expired,
    Limits,
    Notified,
    Opened,
    Session,
    SessionEvent,
)

_RECV_SMALL: Final = 64 * 2**10
_RECV_LARGE: Final = 256 * 2**10
_VECTORS: Final = 64
"""Buffers per sendmsg."""
_READ: Final = 1
_WRITE: Final = 2


class ConnectionLimits(NamedTuple):
    """Bounds of a connection, in bytes and seconds."""

    high: int = 4 * 2**20
    """Output above this: push back."""
    low: int = 2**20
    """Output below this again: go on."""
    output_max: int = 128 * 2**20
    """Output above this: cut."""
    stall_s: float = 30.0
    """The peer takes nothing of our output for so long: cut."""
    linger_s: float = 2.0
    """Time for the last output, and for the peer to close, when we close."""
    session: Limits = DEFAULT_LIMITS


DEFAULT_CONNECTION_LIMITS: Final = ConnectionLimits()


class Owner(Protocol):
    """Who is told what happens on a connection."""

    def connection_event(self, connection: "Connection", event: SessionEvent) -> None:
        """Handle an event, in order, without switching greenlets. Answers and expiries go to who asked instead."""


class Connection:
    """A socket around a session.

    Invariants:
      * Ended is the last event, exactly once;
      * after `close` nothing is delivered any more but Ended and the failures of what was asked.
    """

    def __init__(
        self,
        handle: int,
        sock: gsocket.socket,
        address: str,
        us: Hello | None,
        owner: Owner,
        greenlets: Greenlets,
        clock: Clock,
        limits: ConnectionLimits = DEFAULT_CONNECTION_LIMITS,
        guard: Guard | None = None,
        channel: Channel | None = None,
    ) -> None:
        """Take *sock*, connected. *us* is what we say if we have dialled, None if we were dialled.

        *guard*: a secret that both must know. *channel*: TLS; without it what the session says is what is sent.
        """
        self.handle = handle
        self.address = address
        self.dialled = us is not None
        self.peer: NodeId | None = None
        """Whose connection it is; the owner sets it."""
        self.began = clock.monotonic()
        self.received_bytes = 0
        self.sent_bytes = 0
        self.opened: AsyncResult = AsyncResult()
        """For who has dialled: the HelloOk, or the error that ended the handshake."""
        self.ended = Event()
        """Set with the session's end; `session.error` says why."""
        self.on_full: Callable[[], None] | None = None
        """Called when output passes the high mark."""
        self.on_drained: Callable[[], None] | None = None
        """Called when it falls below the low mark again."""
        self.on_closed: Callable[[], None] | None = None
        """Called when the socket is closed."""
        self.session = Session(us, self.dialled, limits.session, self.began, guard)
        self.session.label = address or "peer"
        self._channel = channel
        self._name = f"output to {address}"
        self._owner = owner
        self._greenlets = greenlets
        self._clock = clock
        self._limits = limits
        self._high = limits.high
        self._sock = sock
        self._is_tcp = sock.family != socket.AF_UNIX
        self._batch: deque[SessionEvent] = deque()
        self._unsent: deque[bytes | memoryview] = deque()
        self._unsent_bytes = 0
        self._scheduled = False
        self._is_handling = False
        self._writing = False
        self._full = False
        self._closed_here = False
        self._is_cut = False
        self._last: gevent.Greenlet | None = None
        self._paused = False
        self._may_read = Event()
        self._may_read.set()
        self._empty = Event()
        self._closed = Event()
        self._progress = (0, self.began)
        self._waiters: dict[int, Callable[[Packet | NeoError], None]] = {}
        sock.settimeout(0.0)
        if self._is_tcp:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        loop = get_hub().loop
        self._read_watcher = loop.io(sock.fileno(), _READ)
        self._write_watcher = loop.io(sock.fileno(), _WRITE)
        self._reader: gevent.Greenlet | None = None

    def __repr__(self) -> str:
        return f"<Connection {self.handle} {self.address} {self.session!r}>"

    @property
    def label(self) -> str:
        """How people call the peer."""
        return self.session.label

    @property
    def is_open(self) -> bool:
        """Whether packets may be sent."""
        return self.session.is_open

    @property
    def output_bytes(self) -> int:
        """How much output waits, in bytes."""
        return self.session.output_bytes + self._unsent_bytes

    def start(self) -> None:
        """Begin to read, and say Hello if we have dialled."""
        self._reader = self._greenlets.spawn(f"reader of {self.address}", self._read)
        self._flush_soon()

    def tick(self, now: Seconds) -> None:
        """Look at deadlines."""
        if self.session.error is not None:
            return
        sent, since = self._progress
        if sent != self.sent_bytes or not self.output_bytes:
            self._progress = (self.sent_bytes, now)
        elif now - since >= self._limits.stall_s:
            self.cut(f"takes nothing of {self.output_bytes} bytes for {now - since:.0f} s")
            return
        self._dispatch(self.session.tick(now, self._may_read.is_set()))
        self._output()

    # -------------------------------------------------------------------------------------- speaking

    def notify(self, packet: Packet) -> None:
        """Send a notification; dropped if the connection has ended."""
        self.session.notify(packet)
        self._output()

    def send_encoded(self, cls: type, data: bytes) -> None:
        """Send a notification of class *cls* that was encoded once for many."""
        self.session.send_encoded(cls, data)
        self._output()

    def answer(self, request: int, packet: Packet) -> None:
        """Answer a question of the peer; dropped if the connection has ended."""
        self.session.answer(request, packet)
        self._output()

    def ask_then(self, packet: Packet, timeout_s: float, done: Callable[[Packet | NeoError], None]) -> None:
        """Ask; *done* is called once, inline, with the answer (perhaps an `Error`) or with what came instead.

        Raises: PeerLost if the connection has ended already.
        """
        now = self._clock.monotonic()
        request = self.session.ask(packet, Seconds(now + timeout_s), now)
        self._waiters[request] = done
        self._output()

    def ask(self, packet: Packet, timeout_s: float) -> Packet:
        """Ask, and wait for the answer. Only for greenlets that may wait: never from `connection_event`.

        Raises: RequestFailed, DeadlinePassed, PeerLost.
        """
        result: AsyncResult = AsyncResult()
        self.ask_then(packet, timeout_s, result.set)
        answer: Packet | NeoError = result.get()
        if isinstance(answer, NeoError):
            raise answer
        if isinstance(answer, Error):
            raise RequestFailed(answer.code, f"{self.label}: {answer.text}")
        return answer

    def accept(self, packet: HelloOk) -> None:
        """Let in who dialled us."""
        self.session.accept(packet)
        self._output()

    def wait(self, packet: HelloWait) -> None:
        """Make who dialled us wait."""
        self.session.wait(packet)
        self._output()

    def refuse(self, packet: HelloNo) -> None:
        """Send away who dialled us."""
        self._closed_here = True
        self._dispatch(self.session.refuse(packet))

    def close(self, reason: str) -> None:
        """End in order: what is queued is still sent, Goodbye last."""
        self._closed_here = True
        self._dispatch(self.session.close(reason))

    def pause(self) -> None:
        """Take nothing from the peer until `resume`: it feels it when the buffers between us are full."""
        self._paused = True
        self._may_read.clear()

    def resume(self) -> None:
        """Read on."""
        self._paused = False
        if not (self._full and not self.dialled):
            self._may_read.set()

    def wait_closed(self, timeout_s: float | None = None) -> bool:
        """Wait until the socket is closed too; return whether it is."""
        return bool(self._closed.wait(timeout_s))

    # -------------------------------------------------------------------------------------- input

    def _read(self) -> None:
        hub = get_hub()
        sock, watcher, session, clock = self._sock, self._read_watcher, self.session, self._clock
        size = _RECV_SMALL
        while session.error is None:
            # Wait before every recv, even if there may be more: a peer that floods us must not starve the others.
            hub.wait(watcher)
            if not self._may_read.is_set():
                self._may_read.wait()
                continue
            try:
                data = sock.recv(size)
            except BlockingIOError:
                continue
            except OSError as error:
                self._dispatch(session.lost(error.strerror or str(error)))
                return
            if not data:
                self._dispatch(session.lost("the connection was closed", is_ended=True))
                return
            self.received_bytes += len(data)
            size = _RECV_LARGE if len(data) == size else _RECV_SMALL
            if self._channel is not None:
                data = self._unwrap(self._channel, data)
            self._batch.extend(session.receive(data, clock.monotonic()))
            self._take_batch()

    def _take_batch(self) -> None:
        """Handle what one receive has brought, then write.

        Answers to the peer itself leave at once, without a turn of the loop. If something was said to others they leave
        after it, as a client that sees the answer to its commit may ask another node at once.
        """
        batch, session, greenlets = self._batch, self.session, self._greenlets
        scheduled = greenlets.callback_count
        self._is_handling = True
        while batch:
            self._handle(batch.popleft())
            # One receive may bring thousands of small questions with large answers. (After the end nothing is
            # answered any more: there is nothing to wait for.)
            if not self._may_read.is_set() and session.error is None:
                self._is_handling = False
                self._output()
                self._may_read.wait()
                self._is_handling = True
        self._is_handling = False
        if session.output_bytes and not self._scheduled:
            if greenlets.callback_count == scheduled:
                self._flush()
            else:
                self._flush_soon()

    def _unwrap(self, channel: Channel, data: bytes) -> bytes:
        """Return what the session is given of *data*; nothing during the handshake of TLS, and after its failure."""
        try:
            data = channel.unwrap(data)
        except RemoteProtocolError as error:
            self._flush()  # TLS tells the peer why
            self._dispatch(self.session.broken(error))
            return b""
        if channel.identity is not self.session.identity:
            self.session.identity = channel.identity
        if channel.has_output and not self._scheduled:
            self._flush_soon()
        return data

    def _dispatch(self, events: list[SessionEvent]) -> None:
        for event in events:
            self._handle(event)

    def _handle(self, event: SessionEvent) -> None:
        kind = type(event)
        if kind is Notified or kind is Asked:
            # Events of one receive: the owner may have closed at an earlier one.
            if not self._closed_here:
                self._owner.connection_event(self, event)
        elif isinstance(event, Answered):
            self._waiters.pop(event.request)(event.packet)
        elif isinstance(event, Expired):
            self._waiters.pop(event.request)(event.error)
        else:
            if isinstance(event, Ended):
                self._finish(event.error)
            self._owner.connection_event(self, event)
            if isinstance(event, Opened) and not self.opened.ready():  # the owner may have closed it
                self.opened.set(event.hello_ok)

    # -------------------------------------------------------------------------------------- output

    def _output(self) -> None:
        """Note that the session may have output. Called for each packet."""
        queued = self.session.output_bytes
        if not queued:
            return
        if not (self._scheduled or self._is_handling):
            self._flush_soon()
        if queued + self._unsent_bytes > self._high:
            self._push_back()

    def _push_back(self) -> None:
        if self._full or self.session.error is not None:
            if self.output_bytes > self._limits.output_max:
                self.cut(f"{self.output_bytes} bytes of output wait, the limit is {self._limits.output_max}")
            return
        # Most of it may only be waiting for the end of the iteration: let the kernel have it first.
        self._flush()
        if self.output_bytes > self._limits.high and not self._full:
            self._full = True
            if not self.dialled:
                self._may_read.clear()
            if self.on_full is not None:
                self.on_full()

    def _flush_soon(self) -> None:
        self._scheduled = True
        self._greenlets.callback(self._name, self._flush_scheduled)

    def _flush_scheduled(self) -> None:
        self._scheduled = False
        self._flush()

    def _flush(self) -> None:
        if self._closed.is_set():
            return
        size = self.session.output_bytes
        if self._channel is not None:
            chunks = self._channel.wrap(self.session.take_output() if size else ())
            self._unsent_bytes += sum(map(len, chunks))
            self._unsent.extend(chunks)
        elif size:
            self._unsent_bytes += size
            self._unsent.extend(self.session.take_output())
        if not self._writing:
            self._write()

    def _write(self) -> None:
        unsent, sock = self._unsent, self._sock
        while unsent:
            try:
                size = sock.send(unsent[0]) if len(unsent) == 1 else sock.sendmsg(list(islice(unsent, _VECTORS)))
            except BlockingIOError:
                if not self._writing:
                    self._writing = True
                    self._write_watcher.start(self._greenlets.guarded, self._name, self._write)
                break
            except OSError as error:
                unsent.clear()
                self._unsent_bytes = 0
                # In the hub, perhaps: nothing that could wait may run here.
                self._greenlets.soon(f"end of {self.address}", self._lost, error.strerror or str(error))
                break
            self.sent_bytes += size
            self._unsent_bytes -= size
            if not self._unsent_bytes:
                unsent.clear()
                break
            while unsent and size >= len(unsent[0]):
                size -= len(unsent.popleft())
            if size:
                unsent[0] = memoryview(unsent[0])[size:]
        if not unsent:
            if self._writing:
                self._writing = False
                self._write_watcher.stop()
            if not self.session.output_bytes:
                self._empty.set()
        if self._full and self.output_bytes < self._limits.low:
            self._full = False
            if not self._paused:
                self._may_read.set()
            if self.on_drained is not None:
                self._greenlets.soon(f"drained {self.address}", self.on_drained)

    # -------------------------------------------------------------------------------------- the end

    def _lost(self, reason: str) -> None:
        self._dispatch(self.session.lost(reason))

    def cut(self, reason: str) -> None:
        """End at once and without a word: the peer does not take what we say, or deserves none."""
        self._closed_here = True
        self._is_cut = True
        if self._last is not None:
            self._last.kill(block=False)
        self.session.take_output()
        self._unsent.clear()
        self._unsent_bytes = 0
        self._dispatch(self.session.lost(reason))

    def _finish(self, error: NeoError) -> None:
        for event in self._batch:  # ended by somebody else while the reader waits: answers that came are answers
            if isinstance(event, Answered):
                self._waiters.pop(event.request)(event.packet)
        self._batch.clear()
        if not self.opened.ready():
            self.opened.set_exception(error)
        self.ended.set()
        self._may_read.set()
        self._last = self._greenlets.spawn(f"end of {self.address}", self._linger)

    def _linger(self) -> None:
        """Send what is left, let the peer close first, close: unread input would destroy our last words."""
        reader = self._reader
        if reader is not None and reader is not gevent.getcurrent():
            reader.kill()
        self._empty.clear()
        self._flush()
        talking = bool(self._unsent)
        try:
            with gevent.Timeout(0 if self._is_cut else self._limits.linger_s, False):
                if talking:
                    self._empty.wait()
                self._sock.shutdown(socket.SHUT_WR)
                self._sock.settimeout(None)
                while self._sock.recv(_RECV_SMALL):
                    pass
        except OSError:
            pass  # the peer is gone already: there is nobody to be polite to
        finally:  # a daemon that stops kills who is still polite
            self._unsent.clear()
            self._unsent_bytes = 0
            self._read_watcher.stop()
            self._write_watcher.stop()
            self._read_watcher.close()
            self._write_watcher.close()
            self._sock.close()
            self._closed.set()
            if self.on_closed is not None:
                self.on_closed()
