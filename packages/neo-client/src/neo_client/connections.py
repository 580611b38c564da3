"""A socket around one session: what a client has towards one node. Never blocks.

All of it is used under the lock of the client's shell. Who reads, and who waits, is the driver's business.
"""

import os
import socket
from collections import deque
from collections.abc import Iterator
from typing import Final, Protocol

from neo_client.options import split_address
from neo_common.credentials import NO_CREDENTIALS, Credentials
from neo_common.errors import RemoteProtocolError
from neo_common.ids import NodeId, Seconds
from neo_common.tls import Channel
from neo_common.wire.schema import Hello, Packet
from neo_common.wire.session import Limits, Session, SessionEvent

RECEIVE_BYTES: Final = 256 * 2**10
OUTPUT_HIGH_BYTES: Final = 2 * 2**20
"""Above this, what goes ahead of a vote waits in the backlog, and stores wait for it."""
_JOIN_MAX: Final = 64
"""Buffers given to one sendmsg."""


class Waiter(Protocol):
    """What waits for an answer."""

    def complete(self, packet: Packet | None, error: Exception | None) -> None:
        """Take the answer, or why there is none."""


def resolve(address: str) -> list[tuple[int, object]]:
    """Return (family, socket address) of everything that *address* means now. May block on DNS.

    Raises: OSError.
    """
    host, port = split_address(address)
    if port < 0:
        return [(socket.AF_UNIX, host)]
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, sockaddr) for family, _, _, _, sockaddr in found]


class Connection:
    """One connection, from its first dial on. `node` is known from the handshake on (or before, for a storage)."""

    def __init__(
        self,
        address: str,
        node: NodeId,
        targets: list[tuple[int, object]],
        credentials: Credentials = NO_CREDENTIALS,
    ) -> None:
        self.address = address
        self.node = node
        self.is_open = False
        self.is_connecting = True
        self.is_dead = False
        self.wants_write = True
        self.opened_at = 0.0
        self.session: Session | None = None
        self.calls: dict[int, Waiter] = {}
        self.backlog: deque[Packet | Iterator[Packet]] = deque()
        """Notifications that wait for the output to drain, in order; an iterator stands for what it yields."""
        self.out: deque[memoryview] = deque()
        self.out_bytes = 0
        self._credentials = credentials
        self.channel: Channel | None = None
        """TLS, if it is used: it may have something to send whenever it was given something."""
        self._targets = targets
        self._error: OSError | None = None
        self.sock = self._dial()
        self.fd = self.sock.fileno()

    def __repr__(self) -> str:
        return f"<Connection {self.address} {self.session!r}>"

    def _dial(self) -> socket.socket:
        """Begin to connect to the next target."""
        while self._targets:
            family, sockaddr = self._targets.pop(0)
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                sock.setblocking(False)
                if family != socket.AF_UNIX:
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.connect(sockaddr)  # type: ignore[arg-type]
            except BlockingIOError:
                return sock
            except OSError as error:
                self._error = error
                sock.close()
                continue
            return sock
        raise self._error or OSError(f"{self.address} has no address")

    def dial_next(self) -> None:
        """Try the next target, on another socket: the driver must forget the former one first, and learn of this.

        Raises: OSError when there is none left.
        """
        self.sock.close()
        self.sock = self._dial()
        self.fd = self.sock.fileno()

    def finish_connect(self, hello: Hello, limits: Limits, now: Seconds) -> bool:
        """Go on when the socket is writable. Return False when it is not connected: `dial_next`."""
        code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._error = OSError(code, os.strerror(code))
            return False
        self.is_connecting = False
        self.channel = self._credentials.channel(dialled=True)
        self.session = Session(hello, True, limits, now, self._credentials.guard(hello.role))
        self.session.label = self.address
        return True

    def receive(self, now: Seconds) -> list[SessionEvent]:
        """Read once, without blocking."""
        assert self.session is not None
        try:
            data = self.sock.recv(RECEIVE_BYTES)
        except (BlockingIOError, InterruptedError):
            return []
        except OSError as error:
            return self.session.lost(error.strerror or str(error))
        if not data:
            return self.session.lost("closed without a word")
        if self.channel is not None:
            try:
                data = self.channel.unwrap(data)
            except RemoteProtocolError as error:
                return self.session.broken(error)
            self.session.identity = self.channel.identity
        return self.session.receive(data, now)

    def notify(self, packet: Packet) -> None:
        """Queue a notification behind all that were queued before."""
        if self.backlog:
            self.backlog.append(packet)
        else:
            assert self.session is not None
            self.session.notify(packet)

    @property
    def is_full(self) -> bool:
        """Whether producers should wait."""
        return bool(self.backlog)

    def flush(self) -> str | None:
        """Write what can be written now. Return why the connection is broken, None if it is not."""
        session = self.session
        if session is None or self.is_dead:
            return None
        while True:
            self._feed(session)
            chunks = session.take_output()
            if self.channel is not None:
                chunks = self.channel.wrap(chunks)
            for chunk in chunks:
                self.out.append(memoryview(chunk))
                self.out_bytes += len(chunk)
            if not self.out:
                self.wants_write = False
                return None
            try:
                if len(self.out) == 1:
                    sent = self.sock.send(self.out[0])
                else:
                    sent = self.sock.sendmsg([self.out[i] for i in range(min(len(self.out), _JOIN_MAX))])
            except (BlockingIOError, InterruptedError):
                self.wants_write = True
                return None
            except OSError as error:
                return error.strerror or str(error)
            self.out_bytes -= sent
            while sent:
                head = self.out[0]
                if len(head) > sent:
                    self.out[0] = head[sent:]
                    break
                sent -= len(head)
                self.out.popleft()

    def _feed(self, session: Session) -> None:
        while self.backlog and session.output_bytes + self.out_bytes < OUTPUT_HIGH_BYTES:
            head = self.backlog[0]
            if isinstance(head, tuple):
                self.backlog.popleft()
                session.notify(head)
                continue
            packet = next(head, None)
            if packet is None:
                self.backlog.popleft()
            else:
                session.notify(packet)

    def abandon(self) -> None:
        """The session has ended, or will never begin.

        The driver closes the socket, when nobody waits for it any more.
        """
        self.is_dead = True
        self.is_open = False
        self.backlog.clear()
