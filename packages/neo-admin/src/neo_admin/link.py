"""A connection of the command line: one question at a time, and what is told meanwhile.

It may wait, unlike a daemon's shell; heartbeats are answered while it does.
"""

from collections import deque
from collections.abc import Sequence
from random import SystemRandom
from typing import Final, Self, TypeVar

import gevent
from gevent.event import Event

from neo_admin.shell import admin_hello
from neo_common.credentials import NO_CREDENTIALS, Credentials
from neo_common.errors import ConfigError, DeadlinePassed, HandshakeRefused, NeoError, NotReady, PeerLost
from neo_common.ids import Epoch, NodeId
from neo_common.model.bootstrap import Bootstrap
from neo_common.runtime.clock import Clock
from neo_common.runtime.connection import Connection
from neo_common.runtime.dialer import connect
from neo_common.runtime.greenlets import Greenlets
from neo_common.wire.schema import Hello, Packet, RefusalCode
from neo_common.wire.session import Notified, SessionEvent, Waiting

_TICK_S: Final = 0.5
_MENDED_BY_PEOPLE: Final = frozenset(
    (
        RefusalCode.CLUSTER,
        RefusalCode.VERSION,
        RefusalCode.ROLE,
        RefusalCode.SECRET,
        RefusalCode.CERTIFICATE,
    )
)
_P = TypeVar("_P", bound=Packet)


class Deadline:
    """A moment after which nothing is waited for."""

    def __init__(self, timeout_s: float) -> None:
        self._clock = Clock()
        self.timeout_s = timeout_s
        self._at = self._clock.monotonic() + timeout_s

    @property
    def left_s(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self._at - self._clock.monotonic())

    @property
    def is_past(self) -> bool:
        """Whether no time is left."""
        return self.left_s == 0.0


class Link:
    """An open connection to one node, as an admin. A context manager: closed at its end."""

    def __init__(
        self, address: str, hello: Hello, deadline: Deadline, credentials: Credentials = NO_CREDENTIALS
    ) -> None:
        """Dial *address* and wait until it lets us in.

        Raises: PeerLost, HandshakeRefused; DeadlinePassed with the reason that the node gives for letting us wait.
        """
        self.address = address
        self._clock = Clock()
        self._crash = ""
        self._greenlets = Greenlets(self._crashed)
        self._told: deque[Packet] = deque()
        self._news = Event()
        self._waits = ""
        sock = connect(address, max(deadline.left_s, 0.01))
        self._connection = Connection(
            1,
            sock,
            address,
            hello,
            self,
            self._greenlets,
            self._clock,
            guard=credentials.guard(hello.role),
            channel=credentials.channel(dialled=True),
        )
        self._connection.start()
        self._greenlets.spawn("ticks", self._tick)
        try:
            with gevent.Timeout(deadline.left_s, DeadlinePassed(f"{address} has not let us in")):
                hello_ok = self._connection.opened.get()
        except DeadlinePassed:
            self.close()
            why = f": {self._waits}" if self._waits else ""
            raise DeadlinePassed(f"{address} has not let us in within {deadline.timeout_s:g} s{why}") from None
        except BaseException:
            self.close()
            raise
        self.node: NodeId = hello_ok.node
        """Who answers."""
        self.epoch: Epoch = hello_ok.epoch
        self.cluster_id: bytes = hello_ok.cluster_id

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Say goodbye."""
        self._connection.close("neoadmin has finished")
        self._connection.wait_closed(1.0)
        self._greenlets.kill()

    def ask(self, packet: Packet, answer: type[_P], deadline: Deadline) -> _P:
        """Ask, and return the answer, which is an *answer*.

        Raises: RequestFailed, DeadlinePassed, PeerLost.
        """
        got = self._connection.ask(packet, max(deadline.left_s, 0.01))
        assert isinstance(got, answer), got  # the session has checked it
        return got

    def told(self, deadline: Deadline) -> Packet | None:
        """Return the next notification; None when there was none until *deadline*.

        Raises: PeerLost when the connection has ended.
        """
        while not self._told:
            error = self._connection.session.error
            if error is not None:
                raise error
            self._news.clear()
            if not self._news.wait(deadline.left_s):
                return None
        return self._told.popleft()

    def connection_event(self, connection: Connection, event: SessionEvent) -> None:
        """Note what the node says."""
        del connection
        match event:
            case Notified(packet):
                self._told.append(packet)
            case Waiting(reason):
                self._waits = reason
        self._news.set()

    def _tick(self) -> None:
        never = Event()
        while True:
            never.wait(_TICK_S)
            self._connection.tick(self._clock.monotonic())

    def _crashed(self, reason: str) -> None:
        self._crash = reason
        self._connection.close(reason)


def find_primary(
    masters: Sequence[str], cluster: str, deadline: Deadline, credentials: Credentials = NO_CREDENTIALS
) -> Link:
    """Return a connection to the primary among *masters*, searched for until *deadline*.

    Raises: NotReady with what each master said; HandshakeRefused when one says that we have no business there.
    """
    clock = Clock()
    hello = admin_hello(cluster, "neoadmin")
    search = Bootstrap(masters, SystemRandom(), clock.monotonic())
    never = Event()
    while True:
        address, not_before = search.next()
        wait_s = not_before - clock.monotonic()
        if wait_s >= deadline.left_s:
            raise NotReady(f"{search.why()}, within {deadline.timeout_s:g} s")
        if wait_s > 0:
            never.wait(wait_s)
        try:
            return Link(address, hello, deadline, credentials)
        except HandshakeRefused as error:
            code = RefusalCode(error.code)
            if code in _MENDED_BY_PEOPLE:
                raise
            search.refused(address, code, str(error), error.primary, clock.monotonic())
        except (PeerLost, DeadlinePassed) as error:
            search.failed(address, str(error), clock.monotonic())


def first_answering(
    addresses: Sequence[str], cluster: str, deadline: Deadline, credentials: Credentials = NO_CREDENTIALS
) -> Link:
    """Return a connection to the first of *addresses* (admins) that lets us in.

    Raises: NotReady with what each of them said.
    """
    reasons = []
    for address in addresses:
        try:
            return Link(address, admin_hello(cluster, "neoadmin"), deadline, credentials)
        except ConfigError:
            raise
        except NeoError as error:
            reasons.append(f"{address}: {error}")
    raise NotReady("; ".join(reasons))
