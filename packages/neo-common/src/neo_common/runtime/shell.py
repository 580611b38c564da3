"""The shell of a daemon: sockets, ticks and handles around one core. It decides nothing.

Base of `neo_master.shell` and `neo_storage.shell`. It keeps the rules of `neo_common.core`: events reach the core one
at a time and in order, their effects are performed in order before the next one; Lost comes before the next Connected
of the same peer; what an older connection still held is dropped. Performing an effect must never switch greenlets.
"""

import json
import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Any, Final, NamedTuple, Protocol

from gevent import socket as gsocket
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
from neo_common.credentials import NO_CREDENTIALS, Credentials
from neo_common.errors import NotReady
from neo_common.ids import NO_NODE, Instant, NodeId
from neo_common.model.bootstrap import Bootstrap
from neo_common.runtime.clock import Clock
from neo_common.runtime.connection import DEFAULT_CONNECTION_LIMITS, Connection, ConnectionLimits
from neo_common.runtime.dialer import Dialer
from neo_common.runtime.greenlets import Greenlets
from neo_common.runtime.listener import Listener
from neo_common.runtime.spinning import Spinning
from neo_common.states import Role, node_id, node_text, role_of
from neo_common.wire.codec import frame
from neo_common.wire.schema import (
    AnswerDebug,
    AskDebug,
    Hello,
    HelloNo,
    HelloOk,
    HelloWait,
    Packet,
    RefusalCode,
)
from neo_common.wire.session import Asked, Ended, Greeting, Notified, Opened, SessionEvent, Waiting

EXIT_OK: Final = 0
EXIT_CRASH: Final = 1
"""Something that we do not understand: the traceback is in the log. Starting again may help."""
CRASH_PACKETS: Final = 50
"""How many packets of the trace go into the log of a crash."""
_NO_ID: Final = bytes(16)
_REQUEST_BITS: Final = 32
_ADMINS_FROM: Final = 0x800000
"""Numbers that `local_id` gives: no primary gives them."""

log = logging.getLogger("neo.shell")


class Core(Protocol):
    """What a shell drives; `debug() -> dict` too, if there is something to show.

    Any: each core has its own events and effects, and takes and gives no others.
    """

    def handle(self, event: Any, now: Instant, /) -> Sequence[Any]:
        """Return the effects of *event*, in the order to perform them."""


class ShellLimits(NamedTuple):
    """Bounds of a daemon."""

    tick_s: float = 0.05
    """Between two Ticks of the core."""
    connections_max: int = 20_000
    strangers_max: int = 1024
    """Connections that have not shown who they are; above it the oldest of them is cut."""
    trace_packets: int = 1000
    """How many packets the trace remembers."""
    stop_s: float = 3.0
    """Time for the last words to every peer when the daemon stops."""
    connection: ConnectionLimits = DEFAULT_CONNECTION_LIMITS


DEFAULT_SHELL_LIMITS: Final = ShellLimits()


class Shell:
    """Everything of a daemon that is not its core.

    Invariants:
      * `by_node` holds the connection that a Send to that node uses: at most one, open;
      * the core is told Connected and Lost in turns for each peer, whatever the connections do meanwhile.
    """

    def __init__(
        self,
        core: Core,
        us: Hello,
        listen: Sequence[str] = (),
        limits: ShellLimits = DEFAULT_SHELL_LIMITS,
        rng: Random | None = None,
        clock: Clock | None = None,
        credentials: Credentials = NO_CREDENTIALS,
    ) -> None:
        """Prepare; nothing runs, and no socket exists, before `start` or `run`.

        *us* is what we say of ourselves when we dial; an empty `address` is filled in with the first one of *listen*.
        """
        self.core = core
        self.us = us
        self.limits = limits
        self.credentials = credentials
        self.clock = Clock() if clock is None else clock
        self.rng = Random() if rng is None else rng
        self.greenlets = Greenlets(self._crashed)
        self.spinning = Spinning()
        self.listener = Listener(listen, self._accepted, self.greenlets)
        self.dialer = Dialer(self._adopt, self.greenlets, self.clock, self.rng)
        self.by_handle: dict[int, Connection] = {}
        """Every connection that has not ended."""
        self.by_node: dict[NodeId, Connection] = {}
        self.trace: deque[tuple[float, NodeId, str, type]] = deque(maxlen=limits.trace_packets)
        """The last packets from and to the core: monotonic time, peer, `<` in or `>` out, class."""
        self.packets_in = self.packets_out = 0
        self._expected: dict[int, NodeId | None] = {}
        self._strangers: dict[int, Connection] = {}
        """Who dialled us and has not shown yet who it is, or never has and is being told so; oldest first."""
        self._queue: deque[tuple[int, object]] = deque()
        self._handling = False
        self._known: dict[NodeId, int] = {}
        self._muted: set[int] = set()
        self._frames: dict[int, bytes] = {}
        self._next_handle = 1
        self._next_local = _ADMINS_FROM
        self._stop = Event()
        self._stopping = False
        self._now = 0.0
        self._status = EXIT_OK
        self._stop_reason = "it stops"
        self._threadsafe = self.greenlets.thread_door()

    # -------------------------------------------------------------------------------------- for subclasses to say

    def perform(self, effect: object) -> None:
        """Perform an effect that is not of `neo_common.core`. Must not switch greenlets."""
        raise TypeError(f"no shell performs {effect!r}")

    def performed(self) -> None:
        """Note that all effects of an event were performed: what can be done for several at once is done now."""

    def greet(self, connection: int, hello: Hello) -> Accept | Park | Refuse | None:
        """Decide on who dialled us. None: the core is told Greeted, and answers with an effect, now or later."""
        del hello
        return None

    def hello(self) -> Hello:
        """Return what we say when we dial."""
        return self.us

    def hello_ok(self, you: NodeId) -> HelloOk:
        """Return what we say to who dialled us and is accepted as *you*."""
        us = self.hello()
        return HelloOk(
            us.version_max,
            us.capabilities,
            us.role,
            us.name,
            us.cluster,
            us.cluster_id,
            us.node,
            us.incarnation,
            us.epoch,
            you,
        )

    def opened(self, hello_ok: HelloOk) -> None:
        """Note that a dialled peer has agreed, before the core is told Connected."""
        if self.us.node == NO_NODE:
            self.us = self.us._replace(node=hello_ok.you)
        if self.us.cluster_id == _NO_ID:
            self.us = self.us._replace(cluster_id=hello_ok.cluster_id)

    def started(self) -> None:
        """Begin what is the daemon's own: the listener listens, nothing was handled yet."""

    def terminate(self, reason: str) -> None:
        """Answer SIGTERM."""
        self.stop(EXIT_OK, reason)

    # -------------------------------------------------------------------------------------- for subclasses to use

    @property
    def bootstrap(self) -> Bootstrap | None:
        """The search for the primary, if it is followed; `why()` says why there is no connection."""
        return self.dialer.bootstrap

    @property
    def dialled(self) -> dict[NodeId, str]:
        """The peers of `keep_dialled`, and why each is not connected (empty if it is)."""
        return self.dialer.dialled

    def post(self, event: object) -> None:
        """Give *event* to the core, after those that wait."""
        self._queue.append((0, event))
        if not self._handling:
            self._handle_all()

    def post_from_thread(self, event: object) -> None:
        """Give *event* to the core, from a native thread."""
        self._threadsafe(self.post, event)

    def call_from_thread(self, function: Callable[..., object], *args: object) -> None:
        """Call *function* in a greenlet of the hub, from a native thread."""
        self._threadsafe(function, *args)

    def soon(self, function: Callable[[], object]) -> None:
        """Call *function* once, later in this iteration of the loop: after the packets that are there were handled.

        In the hub: it must not switch. (A greenlet for each flush would cost a twentieth of a commit.)
        """
        self.greenlets.work(function.__name__, function)

    def spawn(self, function: Callable[..., object], *args: object) -> None:
        """Run *function* in a greenlet; if it crashes, the daemon stops."""
        self.greenlets.spawn(function.__name__, function, *args)

    def keep_dialled(self, node: NodeId, address: str) -> None:
        """Keep a connection to *node*: dial again, with growing delays, until `let_go`."""
        self.dialer.keep(node, address)

    def let_go(self, node: NodeId) -> None:
        """Dial *node* no more; its connection stays until somebody closes it."""
        self.dialer.let_go(node)

    def follow_primary(self, masters: Sequence[str]) -> None:
        """Keep a connection to whoever of *masters* is primary."""
        self.dialer.follow_primary(masters)

    def ask(self, node: NodeId, packet: Packet, timeout_s: float) -> Packet:
        """Ask *node* and wait. Only from greenlets of their own, never while the core is handled.

        Raises: NotReady if it is not connected, RequestFailed, DeadlinePassed, PeerLost.
        """
        connection = self.by_node.get(node)
        if connection is None:
            raise NotReady(f"{node_text(node)} is not connected")
        return connection.ask(packet, timeout_s)

    def local_id(self, role: Role) -> NodeId:
        """Return an id for a peer that dialled us and that no primary has named (an admin that asks for AskDebug)."""
        self._next_local += 1
        return node_id(role, self._next_local)

    def stop(self, status: int, reason: str) -> None:
        """End `run` with *status*. The first call counts."""
        if not self._stopping:
            self._stopping = True
            self._status = status
            self._stop_reason = reason
            log.info("stops: %s", reason)
            self._stop.set()

    # -------------------------------------------------------------------------------------- life

    def start(self) -> None:
        """Listen, tick. Raises: ConfigError if an address cannot be listened at."""
        self.listener.start()
        if not self.us.address and self.listener.addresses:
            self.us = self.us._replace(address=self.listener.addresses[0])
        log.info("listens at %s", ", ".join(self.listener.addresses) or "no address")
        self.started()
        self.greenlets.spawn("ticks", self._tick)

    def run(self) -> int:
        """Start, wait for `stop`, close; return the exit status."""
        try:
            self.start()
            self._stop.wait()
        finally:
            self.close()
        return self._status

    def close(self) -> None:
        """Say goodbye to everybody and end every greenlet. The core is told nothing any more."""
        self._handling = True
        self.dialer.stop()
        self.listener.close()
        closing = list(self.by_handle.values())
        for connection in closing:
            connection.close(self._stop_reason)
        until = self.clock.monotonic() + self.limits.stop_s
        for connection in closing:
            connection.wait_closed(max(0.0, until - self.clock.monotonic()))
        self.greenlets.kill()
        self.spinning.close()

    def _tick(self) -> None:
        never = Event()
        turn = 0
        while True:
            never.wait(self.limits.tick_s)
            now = self.clock.monotonic()
            # Thousands of connections are looked at in turns: each about twice a second is enough for its deadlines.
            turn += 1
            connections = list(self.by_handle.values())
            turns = 1 if len(connections) < 100 else max(1, int(0.5 / self.limits.tick_s))
            for connection in connections[turn % turns :: turns]:
                connection.tick(now)
            self.post(Tick())

    def _crashed(self, reason: str) -> None:
        self._handling = True  # on state that we do not understand, nothing goes on
        last = [f"{at - self._now:.6f} {node_text(peer)} {way} {cls.__name__}" for at, peer, way, cls in self.trace]
        log.error("the last packets: %s", "; ".join(last[-CRASH_PACKETS:]) or "none")
        self.stop(EXIT_CRASH, reason)

    # -------------------------------------------------------------------------------------- the core

    def _handle_all(self) -> None:
        self._handling = True
        queue, core, clock = self._queue, self.core, self.clock
        debugging = log.isEnabledFor(logging.DEBUG)
        try:
            while queue:
                handle, event = queue.popleft()
                if handle and not self._is_due(handle, event):
                    continue
                now = clock.now()
                self._now = now.monotonic
                if type(event) is Received:
                    self.packets_in += 1
                    self.trace.append((now.monotonic, event.peer, "<", type(event.packet)))
                if debugging and type(event) is not Tick:
                    log.debug("event %s", _brief(event))
                effects = core.handle(event, now)
                for effect in effects:
                    if debugging:
                        log.debug("effect %s", _brief(effect))
                    if type(effect) is Send:
                        self._send(effect)
                    else:
                        self._perform(effect)
                if effects:
                    self.performed()
                    self._frames.clear()
        except BaseException:
            queue.clear()
            raise  # `_handling` stays: nothing more reaches a core that has failed
        self._muted.clear()
        self._handling = False

    def _is_due(self, handle: int, event: object) -> bool:
        """Say whether the core may be told *event* of a connection, and note what it then knows."""
        if type(event) is Received:
            return self._known.get(event.peer) == handle
        if isinstance(event, Connected):
            if handle in self._muted:
                return False
            self._known[event.peer] = handle
            return True
        if isinstance(event, Lost):
            if self._known.get(event.peer) != handle:
                return False
            del self._known[event.peer]
            return True
        return handle in self.by_handle  # Greeted

    def _send(self, effect: Send) -> None:
        peer, packet, request = effect
        if request:
            # The answer goes to the connection that asked, or nowhere.
            connection = self.by_handle.get(request >> _REQUEST_BITS)
            if connection is None or connection.peer != peer or not connection.is_open:
                return
            self.packets_out += 1
            self.trace.append((self._now, peer, ">", type(packet)))
            connection.answer(request & 0xFFFFFFFF, packet)
            return
        connection = self.by_node.get(peer)
        if connection is None:
            return
        self.packets_out += 1
        self.trace.append((self._now, peer, ">", type(packet)))
        # One packet to many peers is encoded once. The effects keep it alive, so that its identity is its own.
        data = self._frames.get(id(packet))
        if data is None:
            data = self._frames[id(packet)] = frame(packet)
        connection.send_encoded(type(packet), data)

    def _perform(self, effect: object) -> None:
        match effect:
            case Accept(handle, node):
                self._let_in(handle, node)
            case Park(handle, reason):
                connection = self.by_handle.get(handle)
                if connection is not None:
                    log.info("peer=%s address=%s waits: %s", connection.label, connection.address, reason)
                    connection.wait(HelloWait(reason))
            case Refuse(handle, code, reason, primary):
                connection = self.by_handle.get(handle)
                if connection is not None:
                    connection.refuse(HelloNo(code, reason, primary))
            case Disconnect(peer, reason):
                self._disconnect(peer, reason)
            case Log(level, text):
                log.log(level, "%s", text)
            case _:
                self.perform(effect)

    def _let_in(self, handle: int, node: NodeId) -> None:
        connection = self.by_handle.get(handle)
        if connection is None:
            return  # it left meanwhile: there will be no Connected
        hello = connection.session.hello
        assert hello is not None
        connection.accept(self.hello_ok(node))
        self._register(connection, node, hello._replace(node=node))

    def _register(self, connection: Connection, node: NodeId, hello: Hello) -> None:
        old = self.by_node.get(node)
        if old is not None:
            old.close("replaced by a newer connection")
        connection.peer = node
        self.by_node[node] = connection
        log.info("peer=%s name=%s address=%s connected", node_text(node), hello.name, connection.address)
        self._enqueue(connection.handle, Connected(node, hello))

    def _disconnect(self, peer: NodeId, reason: str) -> None:
        handle = self._known.pop(peer, None)
        current = self.by_node.get(peer)
        if handle is None and current is not None:
            handle = current.handle
        if handle is None:
            return
        self._muted.add(handle)
        connection = self.by_handle.get(handle)
        if connection is not None:
            connection.close(reason)

    def _enqueue(self, handle: int, event: object) -> None:
        self._queue.append((handle, event))
        if not self._handling:
            self._handle_all()

    # -------------------------------------------------------------------------------------- connections

    def connection_event(self, connection: Connection, event: SessionEvent) -> None:
        """Take an event of a connection."""
        if isinstance(event, Notified):
            peer = connection.peer
            assert peer is not None
            self._enqueue(connection.handle, Received(peer, event.packet))
            self.spinning.touched()
        elif isinstance(event, Asked):
            peer = connection.peer
            assert peer is not None
            if type(event.packet) is AskDebug:
                connection.answer(event.request, AnswerDebug(json.dumps(self.debug(), default=str)))
                return
            request = connection.handle << _REQUEST_BITS | event.request
            self._enqueue(connection.handle, Received(peer, event.packet, request))
            self.spinning.touched()
        elif isinstance(event, Ended):
            self._ended(connection, event)
        elif isinstance(event, Greeting):
            self._greeted(connection, event.hello)
        elif isinstance(event, Opened):
            self._dialled(connection, event.hello_ok)
        elif isinstance(event, Waiting):
            self.dialer.waiting(connection, event.reason)

    def _greeted(self, connection: Connection, hello: Hello) -> None:
        us = self.us
        handle = connection.handle
        self._strangers.pop(handle, None)
        if self._stopping:
            self._perform(Refuse(handle, RefusalCode.STOPPING, "this node stops"))
        elif len(self.by_handle) > self.limits.connections_max:
            log.warning("refused %s: %d connections", connection.label, len(self.by_handle))
            self._perform(Refuse(handle, RefusalCode.LIMIT, f"{self.limits.connections_max} connections are the limit"))
        elif hello.cluster != us.cluster:
            log.warning("refused %s at %s: it is of cluster %r", connection.label, connection.address, hello.cluster)
            self._perform(Refuse(handle, RefusalCode.CLUSTER, f"this is cluster {us.cluster!r}, not {hello.cluster!r}"))
        elif _NO_ID not in (hello.cluster_id, us.cluster_id) and hello.cluster_id != us.cluster_id:
            log.warning("refused %s at %s: another cluster's id", connection.label, connection.address)
            text = f"the id of this cluster is {us.cluster_id.hex()}, not {hello.cluster_id.hex()}"
            self._perform(Refuse(handle, RefusalCode.CLUSTER, text))
        else:
            decided = self.greet(handle, hello)
            if decided is None:
                self._enqueue(handle, Greeted(handle, hello))
            else:
                self._perform(decided)

    def _dialled(self, connection: Connection, ok: HelloOk) -> None:
        us = self.us
        expected = self._expected.get(connection.handle)
        wrong = ""
        if expected is not None and ok.node != expected:
            wrong = f"this is {node_text(ok.node)}, we dialled {node_text(expected)}"
        elif expected is None and ok.role != Role.MASTER:
            wrong = f"this is a {ok.role.name}, we dialled a master"
        elif ok.cluster != us.cluster:
            wrong = f"this is cluster {ok.cluster!r}, we are of {us.cluster!r}"
        elif _NO_ID not in (ok.cluster_id, us.cluster_id) and ok.cluster_id != us.cluster_id:
            wrong = f"the id of its cluster is {ok.cluster_id.hex()}, ours is {us.cluster_id.hex()}"
        if wrong:
            connection.close(wrong)
            return
        self.opened(ok)
        hello = Hello(
            ok.version,
            ok.version,
            ok.capabilities,
            ok.role,
            ok.name,
            ok.cluster,
            ok.cluster_id,
            ok.node,
            ok.incarnation,
            ok.epoch,
            connection.address,
        )
        self._register(connection, ok.node, hello)

    def _ended(self, connection: Connection, event: Ended) -> None:
        self.by_handle.pop(connection.handle, None)
        self._expected.pop(connection.handle, None)
        reason = str(event.error)
        node = connection.peer
        if node is None:
            log.log(logging.DEBUG if connection.dialled else logging.INFO, "address=%s %s", connection.address, reason)
            return
        log.info("peer=%s address=%s lost: %s", node_text(node), connection.address, reason)
        if self.by_node.get(node) is connection:
            del self.by_node[node]
        self._enqueue(connection.handle, Lost(node, reason, getattr(event.error, "is_ended", False)))

    def _accepted(self, sock: gsocket.socket, address: str) -> None:
        # A few above the limit are heard, to be told why; a flood is not.
        if self._stopping or len(self.by_handle) > self.limits.connections_max + 64:
            sock.close()
            return
        if len(self._strangers) >= self.limits.strangers_max:
            # Who means well needs milliseconds: the oldest one is the least likely to.
            oldest = self._strangers.pop(next(iter(self._strangers)))
            oldest.cut(f"too slow to show who it is: {self.limits.strangers_max} others try")
        connection = self._connection(sock, address, None)
        self._strangers[connection.handle] = connection
        connection.on_closed = partial(self._no_stranger, connection.handle)
        connection.start()

    def _no_stranger(self, handle: int) -> None:
        self._strangers.pop(handle, None)

    def _adopt(self, sock: gsocket.socket, address: str, node: NodeId | None) -> Connection:
        connection = self._connection(sock, address, self.hello())
        self._expected[connection.handle] = node
        connection.start()
        return connection

    def _connection(self, sock: gsocket.socket, address: str, us: Hello | None) -> Connection:
        handle, self._next_handle = self._next_handle, self._next_handle + 1
        credentials = self.credentials
        connection = Connection(
            handle,
            sock,
            address,
            us,
            self,
            self.greenlets,
            self.clock,
            self.limits.connection,
            credentials.guard(self.us.role),
            credentials.channel(dialled=us is not None),
        )
        self.by_handle[handle] = connection
        return connection

    # -------------------------------------------------------------------------------------- for people

    def debug(self) -> dict[str, object]:
        """Return what this node waits for, holds and queues: plain values for JSON."""
        now = self.clock.monotonic()
        connections = [
            {
                "peer": c.label,
                "address": c.address,
                "dialled": c.dialled,
                "open": c.is_open,
                "age_s": round(now - c.began, 3),
                "output_bytes": c.output_bytes,
                "received_bytes": c.received_bytes,
                "sent_bytes": c.sent_bytes,
                "owed_answers": c.session.owed_count,
                "pending": [
                    {"packet": p.packet, "waits_s": round(now - p.since, 3), "left_s": round(p.deadline - now, 3)}
                    for p in c.session.pending()[:100]
                ],
            }
            for c in self.by_handle.values()
        ]
        told = getattr(self.core, "debug", None)
        return {
            "node": node_text(self.us.node),
            "name": self.us.name,
            "role": (role_of(self.us.node) if self.us.node else self.us.role).name,
            "greenlets": len(self.greenlets),
            "packets_in": self.packets_in,
            "packets_out": self.packets_out,
            "primary": self.bootstrap.why() if self.bootstrap is not None else "",
            "dialled": {node_text(node): why for node, why in sorted(self.dialled.items())},
            "connections": connections,
            "core": told() if told is not None else {},
            "trace": [[round(at - now, 6), node_text(peer), way, cls.__name__] for at, peer, way, cls in self.trace],
        }


def _brief(what: object) -> str:
    """Say in a word what an event or effect is. Packets by name only: object data never enters a log."""
    match what:
        case Received(peer, packet, request) | Send(peer, packet, request):
            return f"{type(what).__name__} peer={node_text(peer)} packet={type(packet).__name__} request={request:#x}"
        case Connected() | Lost() | Disconnect() | Accept() | Park() | Refuse() | Greeted():
            return str(what)
        case _:
            return type(what).__name__
