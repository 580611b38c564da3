"""Dialling: one socket to an address; a connection that is kept; a connection to whoever is primary.

The two keepers wait on events with deadlines: what ends the wait is a change of what is wanted, never a poll.
"""

import logging
import socket
from collections.abc import Callable, Sequence
from random import Random
from typing import Final

import gevent
from gevent import socket as gsocket
from gevent.event import Event

from neo_common.errors import HandshakeRefused, NeoError, PeerLost
from neo_common.ids import NodeId
from neo_common.model.address import parse
from neo_common.model.bootstrap import DELAY_MAX_S, DELAY_MIN_S, Bootstrap
from neo_common.runtime.address import resolve, text_of
from neo_common.runtime.clock import Clock
from neo_common.runtime.connection import Connection
from neo_common.runtime.greenlets import Greenlets
from neo_common.states import node_text
from neo_common.wire.schema import RefusalCode

log = logging.getLogger("neo.runtime")
CONNECT_S: Final = 5.0
"""Time for one TCP connection to one of the sockets of a name."""

Adopt = Callable[[gsocket.socket, str, NodeId | None], Connection]
"""What makes a connection of a socket: (socket, address, the node that must be there or None for any master)."""


def connect(address: str, timeout_s: float = CONNECT_S) -> gsocket.socket:
    """Return a socket connected to *address*: its name is resolved now, and every result is tried in turn.

    Raises: PeerLost with the reason of each; ConfigError for an address that is none.
    """
    parsed = parse(address)
    try:
        targets = resolve(parsed)
    except OSError as error:
        raise PeerLost(f"{address}: {error.strerror or error}") from error
    reasons: list[str] = []
    for family, sockaddr in targets:
        sock = gsocket.socket(family, socket.SOCK_STREAM)
        sock.settimeout(timeout_s)
        try:
            sock.connect(sockaddr)
        except OSError as error:
            sock.close()
            reasons.append(f"{text_of(family, sockaddr)}: {error.strerror or error}")
        except BaseException:  # killed while it waits
            sock.close()
            raise
        else:
            return sock
    raise PeerLost("; ".join(reasons) or f"{address}: the name stands for no address")


class Dialer:
    """Connections that are wanted, dialled again with growing delays for as long as they are."""

    def __init__(self, adopt: Adopt, greenlets: Greenlets, clock: Clock, rng: Random) -> None:
        self._adopt = adopt
        self._greenlets = greenlets
        self._clock = clock
        self._rng = rng
        self._kept: dict[NodeId, tuple[str, gevent.Greenlet]] = {}
        self._stopped = False
        self._follower: gevent.Greenlet | None = None
        self.bootstrap: Bootstrap | None = None
        """The search for the primary, once `follow_primary` was called."""
        self.dialled: dict[NodeId, str] = {}
        """Whom we keep a connection to, and why it is not there (empty when it is)."""

    def keep(self, node: NodeId, address: str) -> None:
        """Keep a connection to *node*; a new address replaces the old one."""
        old = self._kept.get(node)
        if self._stopped or (old is not None and old[0] == address):
            return
        self.let_go(node)
        self.dialled[node] = "not tried yet"
        greenlet = self._greenlets.spawn(f"dialer of {node_text(node)}", self._keep, node, address)
        self._kept[node] = (address, greenlet)

    def let_go(self, node: NodeId) -> None:
        """Dial *node* no more. The connection that it has is not touched."""
        _, greenlet = self._kept.pop(node, ("", None))
        self.dialled.pop(node, None)
        if greenlet is not None:
            greenlet.kill(block=False)

    def follow_primary(self, masters: Sequence[str]) -> None:
        """Keep a connection to the primary among *masters*; may be called again when they are others."""
        if self._stopped:
            return
        if self._follower is not None:
            self._follower.kill(block=False)
        self.bootstrap = Bootstrap(masters, self._rng, self._clock.monotonic())
        self._follower = self._greenlets.spawn("search for the primary", self._follow, self.bootstrap)

    def waiting(self, connection: Connection, reason: str) -> None:
        """Note that whom we dialled makes us wait."""
        log.info("address=%s peer=%s makes us wait: %s", connection.address, connection.label, reason)
        if self.bootstrap is not None:
            self.bootstrap.waiting(connection.address, reason)

    def stop(self) -> None:
        """Dial nobody any more."""
        self._stopped = True
        for node in list(self._kept):
            self.let_go(node)
        if self._follower is not None:
            self._follower.kill(block=False)

    def _keep(self, node: NodeId, address: str) -> None:
        delay = DELAY_MIN_S
        never = Event()
        while True:
            said = self.dialled.get(node, "")
            try:
                connection = self._adopt(connect(address), address, node)
                connection.opened.get()
                self._say(node, "")
                began = self._clock.monotonic()
                connection.ended.wait()
                if self._clock.monotonic() - began >= DELAY_MAX_S:
                    delay = DELAY_MIN_S
                assert connection.session.error is not None
                reason = str(connection.session.error)
            except (NeoError, OSError) as error:
                reason = str(error)
            self._say(node, reason)
            if reason != said:
                log.info("peer=%s address=%s not connected: %s", node_text(node), address, reason)
            never.wait(delay * self._rng.uniform(0.5, 1.0))  # ended early by being killed
            delay = min(DELAY_MAX_S, delay * 2)

    def _say(self, node: NodeId, why: str) -> None:
        # Who was let go, or has a newer greenlet, runs on until it is killed: it has no say any more.
        kept = self._kept.get(node)
        if kept is not None and kept[1] is gevent.getcurrent():
            self.dialled[node] = why

    def _follow(self, bootstrap: Bootstrap) -> None:
        clock = self._clock
        never = Event()
        said = ""
        while True:
            address, not_before = bootstrap.next()
            wait_s = not_before - clock.monotonic()
            if wait_s > 0:
                never.wait(wait_s)
            try:
                connection = self._adopt(connect(address), address, None)
                connection.opened.get()
            except HandshakeRefused as error:
                code = RefusalCode(error.code)
                bootstrap.refused(address, code, str(error), error.primary, clock.monotonic())
            except (NeoError, OSError) as error:
                bootstrap.failed(address, str(error), clock.monotonic())
            else:
                bootstrap.connected(address, clock.monotonic())
                log.info("address=%s connected to the primary %s", address, connection.label)
                connection.ended.wait()
                bootstrap.lost(str(connection.session.error), clock.monotonic())
            why = bootstrap.why()
            if why != said:
                said = why
                log.info("%s", why)
