"""The client's shell: performs what the core orders, on connections, for threads and greenlets alike.

One lock guards the core, the cache and the connections; whoever reads a socket holds it while handling what came, never
while waiting. What ZODB is told (invalidations, the callback of tpc_finish) is told under it, in the order of tids:
that is the contract of `lastTransaction()`.
"""

import logging
import os
import random
import socket
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from time import monotonic, time
from typing import Final, Protocol

from neo_client.connections import Connection, resolve
from neo_client.core.cache import Cache
from neo_client.core.client import ClientCore, ClientSettings, Effect, Event
from neo_client.core.events import (
    AbortDone,
    CacheCut,
    Closing,
    CommittedByRecovery,
    Failed,
    FinishDone,
    Handle,
    Invalidated,
    NodesChanged,
    Reset,
    Resolve,
    TableChanged,
    Upload,
    VoteDone,
)
from neo_client.core.routing import Router
from neo_client.drivers import Driver, Parked, ThreadDriver
from neo_client.errors import ClusterUnavailable, StorageClosedError, translated
from neo_client.options import Options, split_address
from neo_common.core import Connected, Disconnect, Lost, Received, Send, Tick
from neo_common.errors import HandshakeRefused, NeoError, NotReady, PeerLost, RequestFailed
from neo_common.ids import NO_NODE, NO_TID, Epoch, Instant, NodeId, Oid, Partition, Seconds, Tid, Ttid
from neo_common.model.bootstrap import Bootstrap
from neo_common.states import Role, node_text, role_of
from neo_common.wire.schema import PROTOCOL_VERSION, Error, ErrorCode, Hello, HelloOk, Packet, RefusalCode
from neo_common.wire.session import (
    Answered,
    Ended,
    Expired,
    Limits,
    Notified,
    Opened,
    SessionEvent,
    Waiting,
)

log = logging.getLogger("neo_client")

TICK_BUSY_S: Final = 0.1
TICK_IDLE_S: Final = 0.5
CONNECT_S: Final = 5.0
REDIAL_MIN_S: Final = 0.05
REDIAL_MAX_S: Final = 2.0
SESSION_LIMITS: Final = Limits(idle_s=2.0, dead_s=7.0)
_FOREVER: Final = float("inf")
Pieces = Callable[[Ttid, Partition, int], Iterator[Packet]]
"""Given the transaction's name, a partition and an index: what goes ahead of the vote, from that write on."""
_Answer = VoteDone | Resolve | Failed | FinishDone | AbortDone | CommittedByRecovery


class Listener(Protocol):
    """What the shell tells about, under its lock."""

    def invalidated(self, tid: Tid, oids: tuple[Oid, ...]) -> None:
        """Another client has committed."""

    def gap(self) -> None:
        """Something was committed of which nothing is known: nothing cached counts any more."""


class Call(Parked):
    """A question, until it is answered."""

    __slots__ = ("asked_at", "error", "node", "packet")

    def __init__(self, node: NodeId, asked_at: float) -> None:
        super().__init__()
        self.node = node
        self.asked_at = asked_at
        self.packet: Packet | None = None
        self.error: Exception | None = None


class Underway:
    """A transaction, as the shell sees it. `pieces` gives what goes ahead of its vote."""

    def __init__(self, handle: Handle, pieces: Pieces) -> None:
        self.handle = handle
        self.pieces = pieces
        self.inbox: deque[_Answer] = deque()
        self.parked: Parked | None = None
        self.on_finish: Callable[[Tid, bool], None] | None = None
        """Called with the tid, under the lock, before `lastTransaction()` says it."""
        self.finish_error: BaseException | None = None


class Shell:
    """See the module. Methods named with an underscore, and those that say so, want the lock held."""

    def __init__(self, options: Options, listener: Listener) -> None:
        self.options = options
        self._credentials = options.credentials()
        self.listener = listener
        self.lock = threading.RLock()
        self.cache = Cache(options.cache_size_bytes)
        self.last: Tid = NO_TID
        """What `lastTransaction()` says: everything up to it has been told to ZODB."""
        self.void: tuple[Tid, Tid] = (NO_TID, NO_TID)
        """Snapshots above the first and up to the second saw tids that are not the cluster's."""
        self.is_closed = False
        self.underway: dict[Handle, Underway] = {}
        self._rng = random.Random()
        self._settings = ClientSettings(wait_timeout_s=options.wait_timeout_s, read_only=options.read_only)
        self._begin_afresh()
        _shells.add(self)

    def _begin_afresh(self) -> None:
        """As a process that knows nobody: when opened, and in a forked child."""
        self.core = ClientCore(self._settings)
        self.core.last = self.last
        self.router = Router(
            frozenset((socket.gethostname(), "localhost", "127.0.0.1", "::1")), self._rng.getrandbits(16)
        )
        self.bootstrap = Bootstrap(self.options.masters, self._rng, Seconds(monotonic()))
        self.by_node: dict[NodeId, Connection] = {}
        self._by_fd: dict[int, Connection] = {}
        self._dialing: dict[NodeId, Connection | None] = {}
        """Storages being dialled; None while the name is looked up."""
        self._master: Connection | None = None
        self._master_dialing = False
        self._redial: dict[NodeId, tuple[float, float, str]] = {}
        """Not before, the next delay, why it failed."""
        self._names: deque[tuple[str, NodeId]] = deque()
        self._node = NO_NODE
        self._cluster_id = bytes(16)
        self._incarnation = self._rng.getrandbits(63)
        self._effects: deque[Effect] = deque()
        self._is_performing = False
        self._dirty: dict[Connection, None] = {}
        self._watchers: list[Parked] = []
        self._connect_deadlines: dict[Connection, float] = {}
        self._pid = os.getpid()
        self.driver: Driver = _choose_driver(self, self.options.name)

    # ------------------------------------------------------------------------------------------ life

    def start(self) -> None:
        """Begin to look for the primary."""
        self.driver.start()

    def close(self) -> None:
        """Leave nothing behind: no thread, no greenlet, no socket."""
        with self.lock:
            if self.is_closed:
                return
            self.handle(Closing())
            self.flush()
            self.is_closed = True
            for conn in list(self._by_fd.values()):
                if conn.session is not None and conn.session.is_open:
                    self._session_events(conn, conn.session.close("the client closes"))
                else:
                    self._drop(conn, StorageClosedError("the storage is closed"))
            for tx in self.underway.values():
                tx.inbox.append(Failed(tx.handle, ErrorCode.NOT_READY, "the storage is closed"))
                self._wake(tx)
            self._changed()
        self.driver.stop()
        _shells.discard(self)

    def forked(self) -> None:
        """In the child, before anything else: the parent's connections and session are not ours."""
        self.lock = threading.RLock()
        for conn in self._by_fd.values():
            conn.sock.close()
        self.driver.forget()
        self.cache.clear()
        self.underway = {}
        if not self.is_closed:
            self._begin_afresh()
            self._needs_start = True

    _needs_start = False

    def check_open(self) -> None:
        """Go on in a forked child; raise StorageClosedError when closed. Under the lock."""
        if self.is_closed:
            raise StorageClosedError(f"the storage of cluster {self.options.name} is closed")
        if self._needs_start:
            self._needs_start = False
            self.driver.start()

    # ------------------------------------------------------------------------------------------ for threads

    def wait(self, parked: Parked, deadline: float = _FOREVER) -> bool:
        """Wait until *parked* is done. Without the lock."""
        return self.driver.wait(parked, deadline)

    def wait_ready(self, deadline: float) -> None:
        """Wait until a primary has welcomed us. Without the lock.

        Raises: ClusterUnavailable with what stands in the way.
        """
        while True:
            with self.lock:
                self.check_open()
                if self.core.is_ready:
                    return
                parked = self._watch()
            if not self.wait(parked, deadline) and monotonic() >= deadline:
                raise self.unavailable("no primary master serves this client")

    def unavailable(self, what: str) -> ClusterUnavailable:
        """Return the error that says what was missing, and why."""
        why = self.bootstrap.why()
        if self.core.cluster_reason:
            why += f"; the cluster says: {self.core.cluster_reason}"
        name, timeout = self.options.name, self.options.wait_timeout_s
        return ClusterUnavailable(f"cluster {name}: {what} within wait-timeout, {timeout:g} s ({why})")

    def call(self, node: NodeId, packet: Packet, deadline: float) -> Call | None:
        """Ask *node*; None when there is no connection to it, then one is being made. Under the lock; flushes later."""
        conn = self.by_node.get(node)
        if conn is None:
            self.need(node)
            return None
        assert conn.session is not None
        now = monotonic()
        call = Call(node, now)
        request = conn.session.ask(packet, Seconds(deadline), Seconds(now))
        conn.calls[request] = call  # type: ignore[assignment]
        self._dirty[conn] = None
        return call

    def result(self, call: Call, deadline: float) -> Packet:
        """Wait for the answer. Without the lock.

        Raises: RequestFailed, PeerLost, DeadlinePassed.
        """
        if not call.is_done:
            # The session's own deadline ends the question; a little later we stop waiting in any case.
            self.wait(call, deadline + 1.0)
        if call.packet is not None:
            return call.packet
        if call.error is not None:
            raise call.error
        if self.is_closed:
            raise StorageClosedError(f"the storage of cluster {self.options.name} is closed")
        raise PeerLost(f"{self.core.names([call.node])} has not answered")

    def ask_primary(self, packet: Packet, patience_s: float | None = None) -> Packet:
        """Ask the primary, the next one if it is lost. Without the lock.

        Raises: ZODB's errors.
        """
        deadline = monotonic() + (patience_s if patience_s is not None else self.options.wait_timeout_s)
        while True:
            self.wait_ready(deadline)
            with self.lock:
                primary = self.core.primary
                call = self.call(primary, packet, deadline) if primary is not None else None
                self.flush()
            if call is None:
                continue
            try:
                return self.result(call, deadline)
            except PeerLost:
                if monotonic() >= deadline:
                    raise self.unavailable(f"{type(packet).__name__} was not answered") from None
            except RequestFailed as error:
                raise translated(error) from error
            except NeoError as error:
                raise self.unavailable(str(error)) from error

    def sleep(self, seconds: float) -> None:
        """Let time pass; the connections are served meanwhile. Without the lock."""
        until = monotonic() + seconds
        self.wait(Parked(), until)

    def say_heard(self) -> None:
        """Tell the primary at once what else the next tick would tell it. Without the lock."""
        with self.lock:
            self.handle(Tick())
            self.flush()

    def _watch(self) -> Parked:
        parked = Parked()
        self._watchers.append(parked)
        return parked

    def _changed(self) -> None:
        watchers, self._watchers = self._watchers, []
        for parked in watchers:
            self.driver.complete(parked)

    def drain(self) -> None:
        """Handle what the primary has sent so far, without waiting: invalidations are not late at transaction
        boundaries.
        """
        with self.lock:
            conn = self._master
            if conn is not None and conn.is_open:
                self._receive(conn)
                self.flush()

    # ------------------------------------------------------------------------------------------ transactions

    def begin(self, pieces: Pieces) -> Underway:
        """Begin a transaction. Without the lock.

        Raises: ClusterUnavailable.
        """
        deadline = monotonic() + self.options.wait_timeout_s
        while True:
            self.wait_ready(deadline)
            with self.lock:
                try:
                    handle = self.core.begin()
                except NotReady:
                    continue
                tx = self.underway[handle] = Underway(handle, pieces)
                return tx

    def step(self, tx: Underway, event: Event) -> None:
        """Tell the core. Without the lock."""
        with self.lock:
            if self.is_closed:
                tx.inbox.append(Failed(tx.handle, ErrorCode.NOT_READY, "the storage is closed"))
                return
            self.handle(event)
            self.flush()  # before anything else: others wait for it
            for node in self.core.wanted_peers():
                if node not in self.by_node:
                    self.need(node)

    def answer(self, tx: Underway) -> _Answer:
        """Wait for what the core says of *tx*. Without the lock. No deadline: the core has those that are safe."""
        while True:
            with self.lock:
                if tx.inbox:
                    return tx.inbox.popleft()
                parked = tx.parked = Parked()
            self.wait(parked)  # not `tx.parked`: who wakes us clears it

    def end(self, tx: Underway) -> None:
        """Forget it."""
        with self.lock:
            self.underway.pop(tx.handle, None)

    def wait_for_room(self, tx: Underway) -> None:
        """Wait while what *tx* has sent ahead is stuck in front of a socket: producers go at the speed of the
        storages.
        """
        while True:
            with self.lock:
                self.flush()
                if self.is_closed or not any(c.is_full for c in self.by_node.values()):
                    return
                parked = self._watch()
            self.wait(parked, monotonic() + 1.0)

    def _wake(self, tx: Underway) -> None:
        if tx.parked is not None:
            self.driver.complete(tx.parked)
            tx.parked = None

    # ------------------------------------------------------------------------------------------ the core

    def handle(self, event: Event) -> None:
        """Tell the core, perform what it orders. Under the lock."""
        self._effects.extend(self.core.handle(event, Instant(Seconds(monotonic()), Seconds(time()))))
        if self._is_performing:
            return
        self._is_performing = True
        try:
            while self._effects:
                self._perform(self._effects.popleft())
        finally:
            self._is_performing = False

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Send(peer, packet):
                conn = self.by_node.get(peer)
                if conn is not None:
                    conn.notify(packet)
                    self._dirty[conn] = None
            case VoteDone(handle) | Resolve(handle) | Failed(handle) | AbortDone(handle) | CommittedByRecovery(handle):
                tx = self.underway.get(handle)
                if tx is not None:
                    tx.inbox.append(effect)
                    self._wake(tx)
            case FinishDone():
                self._finished(effect)
            case Invalidated(tid, oids):
                for oid in oids:
                    self.cache.invalidate(tid, oid)
                self._tell_invalidated(tid, oids)
                self.last = max(self.last, tid)
            case CacheCut(last, now):
                self.cache.cut(last)
                if now > last:
                    self._tell_gap()
                self.last = max(self.last, now)
            case Reset(durable, last):
                log.warning("cluster %s: recovery has changed the last tids; the cache is dropped", self.options.name)
                self.cache.clear()
                self.void = durable, last
                self._tell_gap()
            case Upload(handle, ttid, node, partition, first):
                tx, conn = self.underway.get(handle), self.by_node.get(node)
                if tx is not None and conn is not None:
                    conn.backlog.append(tx.pieces(ttid, partition, first))
                    self._dirty[conn] = None
            case Disconnect(peer, reason):
                conn = self.by_node.pop(peer, None)
                if conn is not None and conn.session is not None:
                    log.info("node=%s closing: %s", node_text(peer), reason)
                    self._session_events(conn, conn.session.close(reason), core_knows=True)
            case TableChanged():
                self._leave_unreadable()
                self._changed()
            case NodesChanged():
                self._redial.clear()  # the primary names storages when they are ready: what was in vain is so no more
                self._changed()

    def _leave_unreadable(self) -> None:
        """Hang up on storages without any readable cell: whoever waits for one that hangs asks another at once.

        The primary has lost it, perhaps long before our own heartbeats say so; one that lives has nothing for us.
        """
        readable = self.core.table.readable_nodes()
        for node, conn in list(self.by_node.items()):
            if role_of(node) is Role.STORAGE and node not in readable and conn.session is not None:
                reason = f"{node_text(node)} has no readable cell any more"
                log.info("node=%s closing: %s", node_text(node), reason)
                self._session_events(conn, conn.session.close(reason))

    def _tell_invalidated(self, tid: Tid, oids: tuple[Oid, ...]) -> None:
        """Tell ZODB. What runs on top of this storage may fail: then it must at least forget all it has."""
        try:
            self.listener.invalidated(tid, oids)
        except Exception:
            log.exception("cluster %s: what is registered for invalidations has failed", self.options.name)
            self._tell_gap()

    def _tell_gap(self) -> None:
        try:
            self.listener.gap()
        except Exception:
            log.exception("cluster %s: what is registered for invalidations has failed", self.options.name)

    def _finished(self, effect: FinishDone) -> None:
        """Our own commit: the cache, ZODB's callback, then `last`; as with the commits of others, in the order
        of tids.
        """
        tx = self.underway.get(effect.handle)
        if tx is not None:
            if tx.on_finish is not None:
                try:
                    tx.on_finish(effect.tid, effect.is_last)
                except BaseException as error:  # noqa: BLE001 - it is the application's, raised again in its thread
                    tx.finish_error = error
            tx.inbox.append(effect)
            self._wake(tx)
        self.last = max(self.last, effect.tid)

    # ------------------------------------------------------------------------------------------ for the driver

    def ready(self, fds: list[int]) -> None:
        """These sockets can be read or written. Under the lock."""
        for fd in fds:
            conn = self._by_fd.get(fd)
            if conn is None or conn.is_dead:
                continue
            if conn.is_connecting:
                self._connecting(conn)
            else:
                self._receive(conn)
            if not conn.is_dead and conn.wants_write:
                self._dirty[conn] = None
        self.flush()

    def tick(self) -> float:
        """Look at what is due. Under the lock."""
        now = monotonic()
        if self.is_closed:
            return now + _FOREVER
        for conn in list(self._by_fd.values()):
            if conn.session is not None:
                self._session_events(conn, conn.session.tick(Seconds(now)))
                if not conn.is_dead and conn.session.output_bytes:
                    self._dirty[conn] = None
        for conn, deadline in list(self._connect_deadlines.items()):
            if now >= deadline:
                self._drop(conn, PeerLost(f"{conn.address} has not taken the connection within {CONNECT_S:g} s"))
        self.handle(Tick())
        due = now + (TICK_BUSY_S if self.core.transactions or self.core.dead else TICK_IDLE_S)
        if self._master is None and not self._master_dialing:
            address, not_before = self.bootstrap.next()
            if now >= not_before:
                self._master_dialing = True
                self._look_up(address, NO_NODE)
            else:
                due = min(due, not_before)
        for node in self.core.wanted_peers():
            if node not in self.by_node:
                due = min(due, self.need(node))
        self.flush()
        return due

    @property
    def has_names(self) -> bool:
        """Whether names wait to be looked up."""
        return bool(self._names)

    def resolve_names(self) -> None:
        """Look up names, which may block, and dial. Without the lock."""
        while self._names:
            with self.lock:
                if not self._names:
                    return
                address, node = self._names.popleft()
            try:
                targets: list[tuple[int, object]] = resolve(address)
                error = None
            except OSError as failure:
                targets, error = [], failure
            with self.lock:
                if self.is_closed:
                    return
                if error is not None:
                    self._dial_failed(address, node, f"{address}: {error.strerror or error}")
                else:
                    self._dial(address, node, targets)
                self.flush()

    # ------------------------------------------------------------------------------------------ dialling

    def need(self, node: NodeId) -> float:
        """Dial a storage unless that is under way, or too early. Return when to try again. Under the lock."""
        now = monotonic()
        if node in self.by_node or node in self._dialing or self._node == NO_NODE or self.is_closed:
            return now + TICK_IDLE_S
        info = self.core.nodes.get(node)
        if info is None or not info.address:
            return now + TICK_IDLE_S
        not_before, _, _ = self._redial.get(node, (0.0, 0.0, ""))
        if now < not_before:
            return not_before
        self._dialing[node] = None
        self._look_up(info.address, node)
        return now + TICK_IDLE_S

    def trouble(self, node: NodeId) -> str:
        """Say why there is no connection to *node*, empty if that is not known."""
        return self._redial.get(node, (0.0, 0.0, ""))[2]

    def _look_up(self, address: str, node: NodeId) -> None:
        if _is_quick(address):
            try:
                self._dial(address, node, resolve(address))
            except OSError as error:
                self._dial_failed(address, node, f"{address}: {error.strerror or error}")
        else:
            self._names.append((address, node))
            self.driver.hurry()

    def _dial(self, address: str, node: NodeId, targets: list[tuple[int, object]]) -> None:
        try:
            conn = Connection(address, node, targets, self._credentials)
        except OSError as error:
            self._dial_failed(address, node, f"{address}: {error.strerror or error}")
            return
        if node == NO_NODE:
            self._master = conn
        else:
            self._dialing[node] = conn
        self._by_fd[conn.fd] = conn
        self._connect_deadlines[conn] = monotonic() + CONNECT_S
        self.driver.register(conn)

    def _dial_failed(self, address: str, node: NodeId, reason: str) -> None:
        now = monotonic()
        log.debug("address=%s not connected: %s", address, reason)
        if node == NO_NODE:
            self._master_dialing, self._master = False, None
            self.bootstrap.failed(address, reason, Seconds(now))
            self.driver.hurry()
        else:
            self._dialing.pop(node, None)
            self._postpone(node, reason)
        self._changed()

    def _postpone(self, node: NodeId, reason: str) -> None:
        """The next dial of *node* must wait; longer each time, until it has worked."""
        _, delay, _ = self._redial.get(node, (0.0, REDIAL_MIN_S, ""))
        at = monotonic() + delay * self._rng.uniform(0.5, 1.0)
        self._redial[node] = (at, min(delay * 2, REDIAL_MAX_S), reason)

    def _hello(self) -> Hello:
        options, epoch = self.options, max(self.core.epoch, self.core.promised)
        version = PROTOCOL_VERSION
        return Hello(
            version, version, (), Role.CLIENT, options.label, options.name, self._cluster_id, self._node,
            self._incarnation, Epoch(epoch), "",
        )  # fmt: skip

    def _connecting(self, conn: Connection) -> None:
        try:
            if not conn.finish_connect(self._hello(), SESSION_LIMITS, Seconds(monotonic())):
                del self._by_fd[conn.fd]
                self.driver.release(conn)
                conn.dial_next()
                self._by_fd[conn.fd] = conn
                self.driver.register(conn)
                return
        except OSError as error:
            conn.is_dead = True
            self._connect_deadlines.pop(conn, None)
            self._dial_failed(conn.address, conn.node, f"{conn.address}: {error.strerror or error}")
            return
        self._connect_deadlines.pop(conn, None)
        self._dirty[conn] = None

    # ------------------------------------------------------------------------------------------ connections

    def flush(self) -> None:
        """Write what waits to be written. Under the lock."""
        while self._dirty:
            dirty, self._dirty = self._dirty, {}
            for conn in dirty:
                if conn.is_dead:
                    continue
                was_full = conn.is_full
                broken = conn.flush()
                if broken is not None:
                    assert conn.session is not None
                    self._session_events(conn, conn.session.lost(broken))
                    continue
                self.driver.output_changed(conn)
                if was_full and not conn.is_full:
                    self._changed()

    def _receive(self, conn: Connection) -> None:
        events = conn.receive(Seconds(monotonic()))
        if events:
            self._session_events(conn, events)
        session = conn.session
        if not conn.is_dead and session is not None and (session.output_bytes or conn.channel is not None):
            self._dirty[conn] = None

    def _session_events(self, conn: Connection, events: list[SessionEvent], core_knows: bool = False) -> None:
        for event in events:
            match event:
                case Answered(request, packet):
                    call = conn.calls.pop(request, None)
                    if isinstance(call, Call):
                        if isinstance(packet, Error):
                            call.error = RequestFailed(packet.code, f"{self.core.names([conn.node])}: {packet.text}")
                        else:
                            call.packet = packet
                        self.driver.complete(call)
                case Notified(packet):
                    if conn.is_open:
                        self.handle(Received(conn.node, packet))
                case Expired(request, error):
                    call = conn.calls.pop(request, None)
                    if isinstance(call, Call):
                        call.error = error
                        self.driver.complete(call)
                case Opened(hello_ok):
                    self._opened(conn, hello_ok)
                case Waiting(reason):
                    if conn is self._master:
                        self.bootstrap.waiting(conn.address, reason)
                case Ended(error):
                    self._drop(conn, error, core_knows)
                case _:
                    raise AssertionError(event)

    def _opened(self, conn: Connection, hello: HelloOk) -> None:
        assert conn.session is not None
        if hello.role is not (Role.MASTER if conn.node == NO_NODE else Role.STORAGE) or (
            conn.node != NO_NODE and hello.node != conn.node
        ):
            self._session_events(
                conn, conn.session.close(f"{node_text(hello.node)} was not expected at {conn.address}")
            )
            return
        conn.node = hello.node
        conn.is_open = True
        if conn is self._master:
            self._node = hello.you
            self._cluster_id = hello.cluster_id
            self.bootstrap.connected(conn.address, Seconds(monotonic()))
        else:
            self._dialing.pop(conn.node, None)
            conn.opened_at = monotonic()
        self.by_node[conn.node] = conn
        log.debug("node=%s address=%s connected", node_text(conn.node), conn.address)
        said = Hello(
            hello.version, hello.version, hello.capabilities, hello.role, hello.name, hello.cluster, hello.cluster_id,
            hello.node, hello.incarnation, hello.epoch, "",
        )  # fmt: skip
        self.handle(Connected(conn.node, said))
        self._changed()

    def _drop(self, conn: Connection, error: Exception, core_knows: bool = False) -> None:
        """The connection is over: its session has ended, or it was never made."""
        if conn.is_dead:
            return
        if conn.session is not None:
            conn.flush()  # Goodbye, if that can still be said
        was_open, now = conn.is_open, Seconds(monotonic())
        conn.abandon()
        self._by_fd.pop(conn.fd, None)
        self._connect_deadlines.pop(conn, None)
        self.driver.close(conn)
        if conn is self._master:
            self._master, self._master_dialing = None, False
            if was_open:
                self.bootstrap.lost(str(error), now)
            elif isinstance(error, HandshakeRefused):
                self.bootstrap.refused(conn.address, RefusalCode(error.code), str(error), error.primary, now)
            else:
                self.bootstrap.failed(conn.address, str(error), now)
            if not self.is_closed:
                self.driver.hurry()
        elif conn.node != NO_NODE:
            self._dialing.pop(conn.node, None)
            if was_open and now - conn.opened_at >= REDIAL_MAX_S:  # one that did not last is no success
                self._redial.pop(conn.node, None)
            self._postpone(conn.node, str(error))
        if was_open:
            if self.by_node.get(conn.node) is conn:
                del self.by_node[conn.node]
            if not self.is_closed:
                level = logging.WARNING if role_of(conn.node) is Role.MASTER else logging.INFO
                log.log(level, "node=%s address=%s lost: %s", node_text(conn.node), conn.address, error)
            if role_of(conn.node) is Role.STORAGE:
                self.router.failed(conn.node, now)
            if not core_knows:
                self.handle(Lost(conn.node, str(error)))
        self._changed()


def _is_quick(address: str) -> bool:
    """Whether looking up *address* asks nobody."""
    host, port = split_address(address)
    if port < 0 or host == "localhost":
        return True
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _choose_driver(shell: Shell, name: str) -> Driver:
    """Greenlets where gevent has patched threads; gevent is never loaded for this question."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("threading"):
        from neo_client.green import GreenDriver  # noqa: PLC0415 - gevent is imported only where it is in use

        return GreenDriver(shell, name)
    return ThreadDriver(shell, name)


_shells: "weakref.WeakSet[Shell]" = weakref.WeakSet()


def _after_fork() -> None:
    for shell in list(_shells):
        shell.forked()


os.register_at_fork(after_in_child=_after_fork)
