"""A whole cluster in one process: real cores, virtual time, a network and disks that misbehave.

Everything that happens is decided by one seed: two worlds of one seed have one history. A `Process` is the shell of a
core: it keeps the rules of `neo_common.core` and decides nothing else. What is only chance in reality (delays, the
order of deliveries, where a crash cuts) is drawn here; what goes wrong on purpose is ordered by `faults`.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from neo_common.core import Accept, Connected, Disconnect, Greeted, Left, Log, Lost, Park, Received, Refuse, Send, Tick
from neo_common.ids import NO_EPOCH, NO_NODE, Epoch, Instant, NodeId, Seconds
from neo_common.states import Role, role_of
from neo_common.wire.schema import PROTOCOL_VERSION, Hello, HelloNo, HelloOk, HelloWait, Packet
from support.network import Connection, through_codec

CLUSTER = "simulated"
WALL_AT_START = 1_800_000_000.0
TICK_S = 0.1


class Temper(NamedTuple):
    """How fast things are in one run. Means, in seconds; `*_tail`: chance of a delay 10 to 1000 times as long."""

    net_s: float = 0.0005
    net_tail: float = 0.0
    disk_s: float = 0.001
    disk_tail: float = 0.0
    apply_s: float = 0.002
    think_s: float = 0.002
    think_tail: float = 0.0
    dial_s: float = 0.05
    slow: tuple[tuple[str, float], ...] = ()
    """Processes, or `A>B` links, and how many times slower they are."""


def draw_temper(rng: random.Random, names: Sequence[str]) -> Temper:
    """Return another temper for each run: slow disks, slow links, eager clients, stalls."""
    scale = rng.choice((0.2, 1.0, 1.0, 5.0))
    slow: list[tuple[str, float]] = [(n, rng.choice((5.0, 30.0, 200.0))) for n in names if rng.random() < 0.1]
    share = rng.choice((0.02, 0.1, 0.4))
    links = [f"{a}>{b}" for a in names for b in names if a != b]
    slow += [(link, rng.choice((0.2, 5.0, 20.0, 100.0))) for link in links if rng.random() < share]
    return Temper(
        net_s=0.0005 * scale,
        net_tail=rng.choice((0.0, 0.01, 0.05, 0.2)),
        disk_s=0.001 * rng.choice((0.1, 1.0, 5.0, 20.0)),
        disk_tail=rng.choice((0.0, 0.02, 0.2)),
        apply_s=0.002 * rng.choice((0.2, 1.0, 20.0)),
        think_s=0.002 * rng.choice((0.1, 1.0, 10.0)),
        # A vote that waits long for its Finish meets crashes, recoveries and new tables.
        think_tail=rng.choice((0.0, 0.1, 0.4)),
        dial_s=0.05 * rng.choice((0.1, 1.0, 4.0)),
        slow=tuple(slow),
    )


def draw_keep(rng: random.Random) -> dict[Role, float]:
    """Return what still arrives of what dying processes have sent: all, nothing, only to some role, or by chance."""
    only = rng.choice((None, (), tuple(Role), (Role.CLIENT,), (Role.STORAGE,), (Role.MASTER, Role.STORAGE)))
    return {} if only is None else {role: float(role in only) for role in Role}


class Core(Protocol):
    """What the simulator drives."""

    def handle(self, event: Any, now: Instant) -> Sequence[object]:
        """Take one event, return the effects in the order to perform them."""


class Entry(NamedTuple):
    """A line of history."""

    time: float
    who: str
    what: str
    detail: object


class World:
    """Time, chance, the network, and the processes."""

    def __init__(self, seed: int, *, codec_share: float = 0.0, temper: Temper | None = None) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.now = 0.0
        self.set_temper(temper or Temper())
        self.processes: dict[str, Process] = {}
        self.history: list[Entry] = []
        self.event_count = 0
        self.observers: list[Callable[[Process, object], None]] = []
        """Called with each effect just before it is performed."""
        self.plants: list[Callable[[Process], None]] = []
        """Called with each process whose core was just made: they may break it."""
        self._codec = self.rng.random() < codec_share
        self._queue: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._scheduled = 0
        self._connections = 0
        self.reads_at_once = True
        """Whether storages have databases that answer at once, as SQLite does, or take their time, as servers do."""
        self._blocked: set[tuple[str, str]] = set()
        self._in_order: list[Process] = []

    def set_temper(self, temper: Temper) -> None:
        """From now on things are as fast as *temper* says."""
        self.temper = temper
        self._slow = dict(temper.slow)

    # ---- time

    def schedule(self, delay_s: float, call: Callable[..., None], *args: object) -> None:
        """Call it after *delay_s* of virtual time."""
        self.schedule_at(self.now + delay_s, call, *args)

    def schedule_at(self, time: float, call: Callable[..., None], *args: object) -> None:
        """Call it at that moment; calls of one moment come in the order in which they were scheduled."""
        self._scheduled += 1
        heapq.heappush(self._queue, (time, self._scheduled, call, args))

    def run(self, duration_s: float, until: Callable[[], bool] | None = None) -> bool:
        """Let time pass until *until* says so (then return True) or *duration_s* is over."""
        end = self.now + duration_s
        while self._queue and self._queue[0][0] <= end:
            self.now, _, call, args = heapq.heappop(self._queue)
            self.event_count += 1
            call(*args)
            if until is not None and until():
                return True
        self.now = end
        return until is not None and until()

    def delay(self, mean_s: float, tail: float, *names: str) -> float:
        """Draw a delay; *names* are the processes and links that may be slow."""
        for name in names:
            mean_s *= self._slow.get(name, 1.0)
        if tail and self.rng.random() < tail:
            mean_s *= 10 ** (1 + 2 * self.rng.random())
        return min(3.0, self.rng.expovariate(1 / mean_s))

    def packet_delay(self, sender: str, receiver: str) -> float:
        """Draw how long a packet is on its way."""
        return self.delay(self.temper.net_s, self.temper.net_tail, sender, receiver, f"{sender}>{receiver}")

    # ---- network

    def is_blocked(self, sender: str, receiver: str) -> bool:
        """Whether nothing gets from one process to the other now."""
        return (sender, receiver) in self._blocked

    def block(self, sender: str, receiver: str) -> None:
        """Let nothing through in that direction."""
        self._blocked.add((sender, receiver))

    def unblock(self, sender: str, receiver: str) -> None:
        """Let through again what that direction holds."""
        self._blocked.discard((sender, receiver))

    def unblock_all(self) -> None:
        """Heal the network."""
        self._blocked.clear()

    def connect(self, dialler: Process, listener: Process) -> Connection | None:
        """Return a new connection, or None when nobody answers."""
        if (
            not listener.alive
            or self.is_blocked(dialler.name, listener.name)
            or self.is_blocked(listener.name, dialler.name)
        ):
            return None
        self._connections += 1
        connection = Connection(self, self._connections, dialler, listener)
        dialler.take(connection)
        listener.take(connection)  # accepted by its kernel: if it dies before it reads Hello, the dialler hears of it
        return connection

    def through_the_wire(self, packet: Packet, request: int) -> Packet:
        """Return what the receiver reads of *packet*: in some runs it really becomes bytes."""
        return through_codec(packet, request) if self._codec else packet

    # ---- history

    def note(self, who: str, what: str, detail: object = "") -> None:
        """Add a line to the history."""
        self.history.append(Entry(self.now, who, what, detail))

    def add(self, process: Process) -> None:
        """Take in a process, in place of one of that name."""
        self.processes[process.name] = process
        self._in_order = []

    def by_node(self, node: NodeId) -> Process | None:
        """Return the process with that id."""
        return next((p for p in self.processes.values() if p.node == node), None)

    def of_role(self, role: Role) -> list[Process]:
        """Return the processes of a role, in the order of their names."""
        if not self._in_order:
            self._in_order = [p for _, p in sorted(self.processes.items())]
        return [p for p in self._in_order if p.role == role]


class Process:
    """The shell of one core. Subclasses make the core, and perform what only their role knows."""

    role: Role

    def __init__(self, world: World, name: str, node: NodeId) -> None:
        self.world, self.name, self.node = world, name, node
        self.alive = False
        self.incarnation = 0
        self.clock_offset = 0.0
        self.stalled = False
        self.crash_countdown: int | None = None
        """Dies when so many more effects were performed (a fault sets it)."""
        self.restart_delay_s: float | None = None
        self.core: Core | None = None
        world.add(self)
        self._clear()

    def __repr__(self) -> str:
        return f"<{self.name} {'up' if self.alive else 'down'} peers={sorted(self.connections)}>"

    def _clear(self) -> None:
        self.connections: dict[NodeId, Connection] = {}
        self._peers: dict[int, NodeId] = {}
        self._dialled: dict[int, Process] = {}
        self._greeting: dict[int, tuple[Connection, Hello | None]] = {}
        self._all: dict[int, Connection] = {}
        self._inbox: deque[tuple[int, object]] = deque()
        self._is_draining = False
        self._dialling: set[str] = set()
        self._core_peers: set[NodeId] = set()
        """Peers that the core has been told are connected."""

    # ---- life

    def start(self) -> None:
        """Start it, or start it again."""
        assert not self.alive
        self._clear()
        self.alive = True
        self.incarnation += 1
        self.crash_countdown = None
        self.world.note(self.name, "starts")
        self.core = self.make_core()
        for plant in self.world.plants:
            plant(self)
        self.world.schedule(self.world.rng.random() * TICK_S, self._tick, self.incarnation)
        self.after_events()

    def crash(self, why: str = "crash", keep: Mapping[Role, float] | None = None) -> None:
        """Stop it here and now. `keep`: the share of what it has sent to each role that arrives; else by chance."""
        if not self.alive:
            return
        self.world.note(self.name, "dies", why)
        self.alive = False
        self.stalled = False
        rng = self.world.rng
        if keep is None:
            keep = draw_keep(rng)
        for number in sorted(self._all):
            connection = self._all[number]
            share = keep.get(connection.other(self).role, rng.random())
            notice = self.world.delay(0.001, 0.1)
            connection.process_died(self, share, notice)
        self._inbox.clear()
        self.core_died()
        if self.restart_delay_s is not None:
            self.world.schedule(self.restart_delay_s, self._restart, self.incarnation)
            self.restart_delay_s = None

    def _restart(self, incarnation: int) -> None:
        if not self.alive and self.incarnation == incarnation:
            self.start()

    def make_core(self) -> Core:
        """Return a new core, from what is on disk."""
        raise NotImplementedError

    def core_died(self) -> None:
        """Forget what was volatile."""

    def instant(self) -> Instant:
        """Return what this process's clocks show."""
        return Instant(Seconds(1000.0 + self.world.now), Seconds(WALL_AT_START + self.world.now + self.clock_offset))

    def _tick(self, incarnation: int) -> None:
        if self.alive and self.incarnation == incarnation:
            self.feed(Tick())
            self.world.schedule(TICK_S, self._tick, incarnation)

    def stall(self, duration_s: float) -> None:
        """Stop the process for a while, as SIGSTOP or a long pause of its host does."""
        self.stalled = True
        self.world.note(self.name, "stalls", duration_s)
        self.world.schedule(duration_s, self.resume, self.incarnation)

    def resume(self, incarnation: int) -> None:
        """Go on after a stall."""
        if self.alive and self.stalled and self.incarnation == incarnation:
            self.stalled = False
            self.world.note(self.name, "goes on")
            self._drain()

    # ---- events and effects

    def feed(self, event: object, connection: int = 0) -> None:
        """Bring an event to the core, after those that wait already."""
        if self.alive:
            self._inbox.append((connection, event))
            self._drain()

    def _drain(self) -> None:
        if self._is_draining or self.stalled:
            return
        self._is_draining = True
        try:
            while self._inbox and self.alive and not self.stalled:
                _, event = self._inbox.popleft()
                self._handle(event)
        finally:
            self._is_draining = False
        if self.alive:
            self.after_events()

    def _handle(self, event: object) -> None:
        assert self.core is not None
        if not isinstance(event, Tick):
            self.world.note(self.name, "event", event)
        match event:
            case Connected(peer, _):
                self._core_peers.add(peer)
            case Lost(peer, _):
                if peer not in self._core_peers:
                    return  # the core has closed it itself, or never saw it
                self._core_peers.discard(peer)
        for effect in self.core.handle(event, self.instant()):
            for observe in self.world.observers:
                observe(self, effect)
            if not self.alive:
                return  # an observer has killed it
            self._perform(effect)
            if self.crash_countdown is not None:
                self.crash_countdown -= 1
                if self.crash_countdown <= 0:
                    self.crash("between two effects")
            if not self.alive:
                return

    def _perform(self, effect: object) -> None:
        match effect:
            case Send(peer, packet, request):
                self.send(peer, packet, request)
            case Disconnect(peer, reason):
                self.world.note(self.name, "closes", (peer, reason))
                self.drop(peer, reason)
            case Accept(handle, node):
                self._accept(handle, node)
            case Park(handle, reason):
                if handle in self._greeting:
                    self._greeting[handle][0].send(self, HelloWait(reason))
            case Refuse(handle, code, reason, primary):
                if handle in self._greeting:
                    connection, _ = self._greeting.pop(handle)
                    connection.send(self, HelloNo(code, reason, primary))
                    self._forget(connection)
                    connection.close(self, reason)
            case Log(_, text):
                self.world.note(self.name, "says", text)
            case _:
                self.perform(effect)

    def perform(self, effect: object) -> None:
        """Perform an effect of this role."""
        raise AssertionError(f"{self.name} does not know the effect {effect}")

    def after_events(self) -> None:
        """Do what a shell does once per loop iteration: dial who is wanted."""

    def send(self, peer: NodeId, packet: Packet, request: int = 0) -> None:
        """Send a packet; dropped when *peer* is not connected."""
        connection = self.connections.get(peer)
        if connection is not None and request >> 32 in (0, connection.number):
            self.world.note(self.name, "sends", (peer, packet))
            connection.send(self, packet, request & 0xFFFFFFFF)

    # ---- connections

    def hello(self) -> Hello:
        """Return what this process says first."""
        return Hello(
            version_min=PROTOCOL_VERSION,
            version_max=PROTOCOL_VERSION,
            capabilities=(),
            role=self.role,
            name=self.name,
            cluster=CLUSTER,
            cluster_id=self.cluster_id(),
            node=self.node,
            incarnation=self.incarnation,
            epoch=self.epoch(),
            address=self.address(),
        )

    def cluster_id(self) -> bytes:
        """Return the id of the cluster, zeros when not known."""
        return bytes(16)

    def epoch(self) -> Epoch:
        """Return the highest epoch known."""
        return NO_EPOCH

    def address(self) -> str:
        """Return where it listens; empty if it does not."""
        return f"{self.name}:1" if self.role in (Role.MASTER, Role.STORAGE) else ""

    def dial(self, target: Process) -> None:
        """Begin a connection to *target*, unless one exists or is being made."""
        if target.name in self._dialling or (target.node in self.connections and target.node != NO_NODE):
            return
        self._dialling.add(target.name)
        delay = self.world.delay(self.world.temper.dial_s, 0.0, self.name)
        self.world.schedule(delay, self._dial, target, self.incarnation)

    def is_dialling(self, target: Process) -> bool:
        """Whether a connection to *target* is being made."""
        return target.name in self._dialling

    def _dial(self, target: Process, incarnation: int) -> None:
        if not self.alive or self.incarnation != incarnation:
            return
        connection = self.world.connect(self, target)
        if connection is None:
            self._dialling.discard(target.name)
            self.dial_failed(target, None)
            return
        self._dialled[connection.number] = target
        connection.send(self, self.hello())

    def dial_failed(self, target: Process, refusal: HelloNo | None) -> None:
        """A dial has come to nothing; `refusal` says why if the other side has answered."""

    def dial_waits(self, target: Process, reason: str) -> None:
        """The other side makes us wait."""

    def dial_succeeded(self, target: Process) -> None:
        """A dial has come to a connection; Connected follows."""

    def packet_arrived(self, connection: Connection, packet: Packet, request: int) -> None:
        """Take a packet from the network."""
        number = connection.number
        if number in self._peers:
            self.received(connection, packet, request)
        elif number in self._dialled:
            self._handshake_answered(connection, packet)
        else:
            assert isinstance(packet, Hello), packet
            self._greeting[number] = (connection, packet)
            self.greeted(connection, packet)

    def received(self, connection: Connection, packet: Packet, request: int) -> None:
        """Take a packet of a peer that has passed the handshake."""
        # As in neo_common.runtime: an answer never reaches another connection of the same peer.
        mine = request and connection.number << 32 | request
        self.feed(Received(self._peers[connection.number], packet, mine), connection.number)

    def greeted(self, connection: Connection, hello: Hello) -> None:
        """Somebody has dialled us: a master asks its core, others let in whom they know by id."""
        if self.role == Role.MASTER:
            self.feed(Greeted(connection.number, hello), connection.number)
        else:
            self._accept(connection.number, hello.node)

    def _accept(self, handle: int, node: NodeId) -> None:
        if handle not in self._greeting:
            return  # it has hung up meanwhile
        connection, hello = self._greeting.pop(handle)
        assert hello is not None
        connection.send(
            self,
            HelloOk(
                version=PROTOCOL_VERSION,
                capabilities=(),
                role=self.role,
                name=self.name,
                cluster=CLUSTER,
                cluster_id=self.cluster_id(),
                node=self.node,
                incarnation=self.incarnation,
                epoch=self.epoch(),
                you=node,
            ),
        )
        self._established(connection, node, hello)

    def _handshake_answered(self, connection: Connection, packet: Packet) -> None:
        target = self._dialled[connection.number]
        match packet:
            case HelloWait():
                self.dial_waits(target, packet.reason)
            case HelloNo():
                self._dialling.discard(target.name)
                self._forget(connection)
                connection.close(self, packet.reason)
                self.dial_failed(target, packet)
            case HelloOk():
                self._dialling.discard(target.name)
                del self._dialled[connection.number]
                if packet.you != NO_NODE and target.role == Role.MASTER:  # others only repeat what we have said
                    self.named(packet.you)
                self.dial_succeeded(target)
                self.connected_as_dialler(connection, packet)
            case _:
                raise AssertionError(f"{self.name} got {packet} before the handshake")

    def named(self, node: NodeId) -> None:
        """Take the id that the master gives."""
        self.node = node

    def connected_as_dialler(self, connection: Connection, hello_ok: HelloOk) -> None:
        """The handshake is over on the side that has dialled."""
        hello = Hello(
            version_min=hello_ok.version,
            version_max=hello_ok.version,
            capabilities=hello_ok.capabilities,
            role=hello_ok.role,
            name=hello_ok.name,
            cluster=hello_ok.cluster,
            cluster_id=hello_ok.cluster_id,
            node=hello_ok.node,
            incarnation=hello_ok.incarnation,
            epoch=hello_ok.epoch,
            address=connection.other(self).address(),
        )
        self._established(connection, hello_ok.node, hello)

    def _established(self, connection: Connection, node: NodeId, hello: Hello) -> None:
        older = self.connections.get(node)
        if older is not None:
            self._forget(older)
            older.close(self, "you have connected again")
            self.connection_lost(node, "it has connected again")
        self.connections[node] = connection
        self._peers[connection.number] = node
        # What the older connection still held is dropped; Connected comes at once, before whatever else waits.
        self._purge(node)
        self._inbox.appendleft((connection.number, Connected(node, hello)))
        if node in self._core_peers:
            self._inbox.appendleft((0, Lost(node, "it has connected again")))
        self._drain()

    def _purge(self, node: NodeId) -> None:
        """Drop what waits of a peer."""
        kinds = (Connected, Lost, Received)
        self._inbox = deque(x for x in self._inbox if not (isinstance(x[1], kinds) and x[1].peer == node))

    def drop(self, peer: NodeId, reason: str) -> None:
        """Close the connection to *peer*; its core knows."""
        self._purge(peer)
        self._core_peers.discard(peer)
        connection = self.connections.pop(peer, None)
        if connection is not None:
            self._forget(connection)
            connection.close(self, reason)
            self.connection_lost(peer, reason)

    def connection_lost(self, peer: NodeId, reason: str) -> None:
        """A connection is gone: fail what waited for an answer."""

    def connection_ended(self, connection: Connection, reason: str, *, is_ended: bool) -> None:
        """The network says that *connection* is gone."""
        number = connection.number
        if number in self._peers:
            node = self._peers[number]
            self._forget(connection)
            if self.connections.get(node) is connection:
                del self.connections[node]
                self.connection_lost(node, reason)
            self.feed(Lost(node, reason, is_ended), number)
        elif number in self._dialled:
            target = self._dialled[number]
            self._dialling.discard(target.name)
            self._forget(connection)
            self.dial_failed(target, None)
            self._drain()
        else:
            self._forget(connection)
            if self._greeting.pop(number, None) is not None and self.role is Role.MASTER:
                self.feed(Left(number, reason), number)

    def _forget(self, connection: Connection) -> None:
        self._peers.pop(connection.number, None)
        self._dialled.pop(connection.number, None)
        self._all.pop(connection.number, None)

    def take(self, connection: Connection) -> None:
        """Have an end of a new connection."""
        self._all[connection.number] = connection

    def all_connections(self) -> list[Connection]:
        """Return every connection past the handshake, oldest first."""
        return [self._all[n] for n in sorted(self._all) if n in self._peers]

    def peer_role(self, peer: NodeId) -> Role:
        """Return the role of a peer."""
        return role_of(peer)
