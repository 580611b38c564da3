"""One MasterCore among fakes: its effects are performed at once, its peers answer by rote. For unit tests.

A fake storage keeps what a real one would tell in `Fenced`, and answers what is in `answers`; take a packet class out
of it to make the storage slow. Nothing here checks anything.
"""

from __future__ import annotations

import random
from collections import deque
from typing import Any, TypeVar

from neo_common.core import Accept, Connected, Disconnect, Greeted, Log, Lost, Park, Received, Refuse, Send, Tick
from neo_common.ids import (
    NO_EPOCH,
    NO_NODE,
    NO_TID,
    Epoch,
    Instant,
    NodeId,
    Oid,
    Partition,
    Seconds,
    Session,
    Tid,
    Ttid,
)
from neo_common.model.partition_table import EMPTY, PartitionTable, TableUpdate, whole
from neo_common.states import CellState, Role, node_id, role_of
from neo_common.wire import schema as s
from neo_master.core.effects import Exit, Note, Store, Stored
from neo_master.core.master import MasterCore
from neo_master.core.settings import Configured, MasterSettings

CLUSTER = "test"
M1, M2, M3 = (node_id(Role.MASTER, n) for n in (1, 2, 3))
S1, S2, S3 = (node_id(Role.STORAGE, n) for n in (1, 2, 3))
C1, C2, C3 = (node_id(Role.CLIENT, n) for n in (1, 2, 3))
A1 = node_id(Role.ADMIN, 1)
WALL = 1_800_000_000.0
OUT = CellState.OUT_OF_DATE
ALL_ANSWERS = frozenset(
    (
        s.Fence,
        s.Start,
        s.Adopt,
        s.SetPT,
        s.Commit,
        s.Seal,
        s.SAbort,
        s.Gone,
        s.Renew,
        s.SetCeilings,
        s.Pack,
        s.Collect,
        s.AskFate,
    )
)
_P = TypeVar("_P")


def p(number: int) -> Partition:
    """Return a partition."""
    return Partition(number)


class FakeStorage:
    """What a storage would tell, and how it would answer."""

    def __init__(self, node: NodeId, name: str) -> None:
        self.node, self.name = node, name
        self.epoch: Epoch = NO_EPOCH
        self.cluster_id = bytes(16)
        self.history: dict[Ttid, Tid] = {}
        """What was committed, and forgotten as a decision."""
        self.table: PartitionTable = EMPTY
        self.voted: list[s.RecordHead] = []
        self.decisions: list[s.Decision] = []
        self.tombstones: list[s.Tombstone] = []
        self.ceilings = s.Ceilings(NO_TID, Oid(0))
        self.last = NO_TID
        self.last_oid = Oid(0)
        self.packed = NO_TID
        self.position = 10
        self.answers: set[type] = set(ALL_ANSWERS)

    def hello(self) -> s.SHello:
        """Return its first word."""
        voted = sorted({s.VotedId(r.ttid, r.attempt, r.parts) for r in self.voted})
        choices = self.table.orders.choices
        choice = choices[-1].id if choices else 0
        return s.SHello(self.epoch, self.table.version, tuple(voted), choice, self.last, self.position)

    def fenced(self) -> s.Fenced:
        """Return all it has."""
        return s.Fenced(
            self.epoch,
            self.cluster_id,
            whole(self.table),
            tuple(self.voted),
            tuple(self.decisions),
            tuple(self.tombstones),
            self.ceilings,
            self.last,
            self.last_oid,
            self.packed,
            self.position,
        )

    def take_table(self, update: TableUpdate) -> None:
        """Apply what the primary sends of the table."""
        self.table = update.apply(self.table)

    def answer(self, packet: Any) -> list[Any]:
        """Take a packet, return the answers."""
        told: list[Any]
        match packet:
            case s.Fence(epoch):
                self.epoch = epoch
                told = [self.fenced()]
            case s.Start() | s.Adopt():
                self.epoch, self.cluster_id, self.ceilings = packet.epoch, packet.cluster_id, packet.ceilings
                self.take_table(packet.table)
                told = [s.PtOk(self.table.version), s.StartOk(packet.epoch)]
                if isinstance(packet, s.Adopt):
                    told += [s.AbortOk(t.ttid, t.attempt) for t in packet.aborts]
                    told += [self.voted_by(session) for session in packet.gone]
            case s.SetPT(update, _):
                self.take_table(update)
                told = [s.PtOk(self.table.version)]
            case s.Commit():
                told = [s.CommitOk((packet.ttid,), self.position)]
            case s.Seal(ttid, attempt):
                told = [s.SealOk(ttid, attempt)]
            case s.SAbort(ttid, attempt):
                told = [s.AbortOk(ttid, attempt)]
            case s.Gone(session):
                told = [self.voted_by(session)]
            case s.AskFate(ttid, parts, _):
                told = [s.ToldFate(ttid, parts, self.history.get(ttid, NO_TID))]
            case s.Renew(epoch, number):
                told = [s.Renewed(epoch, number, self.position)]
            case s.SetCeilings(ceilings):
                self.ceilings = ceilings
                told = [s.CeilingsOk(ceilings)]
            case s.Pack(order, _):
                told = [s.PackProgress(order, 0, len(self.table.partitions_of(self.node)), 0, 0)]
            case s.Collect(number, _, oids):
                told = [s.CollectOk(number, len(oids))]
            case _:
                told = []
        if isinstance(packet, s.Start | s.Adopt | s.SetPT):
            out = tuple(p for p in self.table.partitions_of(self.node) if self.table.state(p, self.node) == OUT)
            told += [s.CaughtUp(self.epoch, out)] if out else []
        return told if type(packet) in self.answers else []

    def voted_by(self, session: Session) -> s.VotedBy:
        """Return its votes of a session."""
        voted = sorted({s.VotedId(r.ttid, r.attempt, r.parts) for r in self.voted if r.ttid.session == session})
        return s.VotedBy(session, tuple(voted))


class Reign:
    """A master and its peers; time passes only when told."""

    def __init__(
        self,
        storages: int = 2,
        *,
        masters: int = 1,
        me: NodeId = M1,
        core: type[MasterCore] = MasterCore,
        **settings: Any,
    ) -> None:
        self.configured = tuple(Configured(f"m{n}", node_id(Role.MASTER, n), f"m{n}:1") for n in range(1, masters + 1))
        self.settings = MasterSettings(
            **{
                "cluster": CLUSTER,
                "partitions": 4,
                "replicas": 1,
                "storages": tuple(
                    Configured(f"s{n}", node_id(Role.STORAGE, n), f"s{n}:1") for n in range(1, storages + 1)
                ),
                **settings,
            }
        )
        self.core = core(me, self.settings, self.configured, random.Random(1))
        self.monotonic, self.wall = 1000.0, WALL
        self.storages = {
            node: FakeStorage(node, f"s{node & 0xFFFFFF}")
            for node in (node_id(Role.STORAGE, n) for n in range(1, storages + 1))
        }
        self.sent: dict[NodeId, list[Any]] = {}
        """Every packet sent to a peer, over all its connections."""
        self.answered: dict[tuple[NodeId, int], Any] = {}
        self.connected: set[NodeId] = set()
        self.greeted: dict[int, s.Hello] = {}
        self.parked: dict[int, str] = {}
        self.refused: dict[int, Refuse] = {}
        self.disconnected: list[Disconnect] = []
        self.logs: list[Log] = []
        self.exit: Exit | None = None
        self.noted: list[s.Page] = []
        self.effects: list[Any] = []
        """Everything, in order."""
        self._events: deque[Any] = deque()
        self._handles = 0

    # ---- time and events

    def feed(self, event: object) -> None:
        """Bring an event; perform what follows, and what follows from the answers."""
        self._events.append(event)
        while self._events:
            now = Instant(Seconds(self.monotonic), Seconds(self.wall))
            for effect in self.core.handle(self._events.popleft(), now):
                self.effects.append(effect)
                self._perform(effect)

    def tick(self, seconds: float = 0.0) -> None:
        """Let time pass, in steps of a tenth of a second."""
        steps = max(1, round(seconds * 10))
        for _ in range(steps):
            self.monotonic += seconds / steps
            self.wall += seconds / steps
            self.feed(Tick())

    def _perform(self, effect: Any) -> None:
        match effect:
            case Send(peer, packet, request):
                if peer not in self.connected:
                    return
                self.sent.setdefault(peer, []).append(packet)
                if request:
                    self.answered[peer, request] = packet
                elif peer in self.storages:
                    for told in self.storages[peer].answer(packet):
                        self._events.append(Received(peer, told))
            case Accept(handle, node):
                hello = self.greeted.pop(handle)
                if node in self.connected:
                    self._events.appendleft(Lost(node, "again"))
                self.connected.add(node)
                if role_of(node) == Role.STORAGE:
                    self.storages.setdefault(node, FakeStorage(node, hello.name))
                self._events.append(Connected(node, hello))
                if role_of(node) == Role.STORAGE:
                    self._events.append(Received(node, self.storages[node].hello()))
            case Park(handle, reason):
                self.parked[handle] = reason
            case Refuse():
                self.refused[effect.connection] = effect
            case Disconnect(peer, _):
                self.disconnected.append(effect)
                self.connected.discard(peer)
                # What was still to come from that connection is dropped.
                kept = [e for e in self._events if not (isinstance(e, Received) and e.peer == peer)]
                self._events = deque(kept)
            case Log():
                self.logs.append(effect)
            case Store(number):
                self._events.append(Stored(number))
            case Note(page):
                self.noted.append(page)
            case Exit():
                self.exit = effect
            case _:
                raise AssertionError(effect)

    # ---- peers

    def greet(self, role: Role, name: str, node: NodeId = NO_NODE, **fields: Any) -> int:
        """Dial the master; return the handle."""
        self._handles += 1
        hello = s.Hello(1, 1, (), role, name, CLUSTER, bytes(16), node, 7, NO_EPOCH, f"{name}:1")._replace(**fields)
        self.greeted[self._handles] = hello
        self.feed(Greeted(self._handles, hello))
        return self._handles

    def dial(self, *nodes: NodeId) -> None:
        """Connect storages that know their ids."""
        for node in nodes:
            storage = self.storages[node]
            self.greet(Role.STORAGE, storage.name, node, cluster_id=storage.cluster_id, epoch=storage.epoch)

    def client(self, node: NodeId, hello: s.CHello | None = None, name: str = "") -> None:
        """Connect a client, and let it say its CHello."""
        self.greet(Role.CLIENT, name or f"c{node & 0xFFFFFF}", node, incarnation=node)
        self.feed(Received(node, hello or chello()))

    def admin(self) -> None:
        """Connect an admin."""
        self.greet(Role.ADMIN, "a1", A1)

    def master(self, node: NodeId, hello: s.MHello | None = None) -> None:
        """Connect another master, and let it speak if it has something to say."""
        self.greet(Role.MASTER, f"m{node & 0xFFFFFF}", node)
        if hello is not None:
            self.say(node, hello)

    def say(self, peer: NodeId, packet: Any) -> None:
        """A peer sends a notification."""
        self.feed(Received(peer, packet))

    def ask(self, peer: NodeId, packet: Any, request: int = 9) -> Any:
        """A peer asks; return the answer, None if there is none yet."""
        self.answered.pop((peer, request), None)
        self.feed(Received(peer, packet, request))
        return self.answered.get((peer, request))

    def lose(self, *peers: NodeId) -> None:
        """Connections are lost."""
        for peer in peers:
            self.connected.discard(peer)
            self.feed(Lost(peer, "cut"))

    # ---- what was said

    def to(self, peer: NodeId, kind: type[_P]) -> list[_P]:
        """Return the packets of a kind that were sent to *peer*."""
        return [packet for packet in self.sent.get(peer, []) if isinstance(packet, kind)]

    def last_to(self, peer: NodeId, kind: type[_P]) -> _P:
        """Return the last one of them."""
        return self.to(peer, kind)[-1]

    def forget(self) -> None:
        """Forget what was sent so far."""
        self.sent.clear()
        self.effects.clear()
        self.answered.clear()
        self.logs.clear()

    def run(self, *clients: NodeId) -> Reign:
        """Bring the cluster to RUNNING, with these clients."""
        self.dial(*self.storages)
        assert self.core.is_running, self.core.reason
        for client in clients:
            self.client(client)
        self.tick()
        self.forget()
        return self

    def session(self, client: NodeId) -> Session:
        """Return the session of a client."""
        return self.core.clients[client]

    def ttid(self, client: NodeId, counter: int = 1) -> Ttid:
        """Return a transaction of a client."""
        return Ttid(self.session(client), counter)

    def finish(self, client: NodeId, counter: int = 1, parts: tuple[int, ...] = (0,), **fields: Any) -> s.Finish:
        """Return a Finish of a client."""
        values: dict[str, Any] = {
            "ttid": self.ttid(client, counter),
            "attempt": 1,
            "epoch": self.core.epoch,
            "parts": tuple(Partition(n) for n in parts),
            "oids": (Oid(parts[0]),),
            "mode": s.Mode.C,
            "given_tid": NO_TID,
        }
        return s.Finish(**{**values, **fields})

    def commit(self, client: NodeId, counter: int = 1, parts: tuple[int, ...] = (0,), **fields: Any) -> Tid:
        """Let a client finish; return the tid."""
        packet = self.finish(client, counter, parts, **fields)
        self.say(client, packet)
        return self.core.decided[packet.ttid].tid


def chello(
    session: Session = Session(0),  # noqa: B008  an int
    epoch: Epoch = NO_EPOCH,
    *,
    promised: Epoch = NO_EPOCH,
    underway: tuple[s.Underway, ...] = (),
    known: tuple[s.Decision, ...] = (),
    read_only: bool = False,
) -> s.CHello:
    """Return a CHello."""
    return s.CHello(session, epoch, promised, underway, known, NO_TID, read_only)


def record(
    ttid: Ttid,
    partition: int,
    parts: tuple[int, ...] = (0,),
    attempt: int = 1,
    mode: s.Mode = s.Mode.C,
    floor: int = 0,
    given_tid: int = 0,
) -> s.RecordHead:
    """Return a voted record."""
    return s.RecordHead(
        ttid, attempt, Partition(partition), tuple(Partition(n) for n in parts), mode, Tid(floor), Tid(given_tid)
    )
