"""One storage core with a log, a back end and peers that a test plays: for unit tests.

rig = Rig()                     a storage that has never served
rig.serve(table)                it obeys M1 and serves
rig.receive(C1, Vote(...))      -> what it sends now, to everybody
rig.flush()                     the log becomes durable -> what it sends then
rig.apply()                     the back end catches up -> what it sends then
rig.crash()                     the process dies and starts again with what is durable
"""

from collections.abc import Iterator
from typing import NamedTuple, TypeVar

from neo_common.checksum import checksum
from neo_common.core import Connected, Disconnect, Durable, Log, Lost, Received, Send, Tick
from neo_common.ids import (
    NO_EPOCH,
    NO_NODE,
    NO_TID,
    Epoch,
    Instant,
    NodeId,
    Oid,
    Partition,
    Ptid,
    Seconds,
    Session,
    Tid,
    Ttid,
    Version,
    make_epoch,
)
from neo_common.model.partition_table import Cell, PartitionTable, whole
from neo_common.states import CellState, Role, node_id
from neo_common.wire.codec import decode, encode
from neo_common.wire.schema import (
    Adopt,
    Bytes16,
    Ceilings,
    Commit,
    Compare,
    Compression,
    Data,
    Decision,
    Fence,
    Hello,
    Metadata,
    Mode,
    Packet,
    Pull,
    ReadCheck,
    SetPT,
    Stable,
    Start,
    Tombstone,
    Vote,
    Work,
    Write,
)
from neo_storage.backends.base import Op
from neo_storage.core import scrubbing
from neo_storage.core.copying import Step
from neo_storage.core.events import (
    Append,
    Applied,
    Apply,
    CopiedIn,
    CopyIn,
    DiskUsage,
    Exit,
    PackCells,
    Packed,
    PointsRead,
    ReadOwn,
    ReadPoints,
    ReadRange,
)
from neo_storage.core.image import replay
from neo_storage.core.log_records import LogRecord
from neo_storage.core.node import StorageCore
from neo_storage.core.settings import StorageSettings
from neo_storage.core.tentative import MemorySpool
from neo_storage.points import perform
from neo_storage.ranges import compare, pull
from neo_storage.ranges import own as own_answer
from support.memory_backend import MemoryBackend

S1, S2, S3 = (node_id(Role.STORAGE, n) for n in (1, 2, 3))
M1, M2 = (node_id(Role.MASTER, n) for n in (1, 2))
C1, C2, C3 = (node_id(Role.CLIENT, n) for n in (1, 2, 3))
E1, E2, E3 = make_epoch(1, M1), make_epoch(2, M2), make_epoch(3, M1)
P0, P1 = Partition(0), Partition(1)
T1, T2, T3, T4, T5 = (Tid(100 * n) for n in range(1, 6))
CLUSTER: Bytes16 = b"cluster-16-bytes"
META = Metadata(b"user", b"description", b"")
NO_CEILINGS = Ceilings(Tid(10**6), Oid(10**6))
U, J, O, F = CellState.UP_TO_DATE, CellState.JOINING, CellState.OUT_OF_DATE, CellState.FEEDING  # noqa: E741  # letters of tables
_P = TypeVar("_P")


class Sent(NamedTuple):
    """What went out."""

    peer: NodeId
    packet: Packet
    request: int = 0


def table(*rows: tuple[tuple[NodeId, CellState], ...], ptid: int = 1, epoch: Epoch = E1) -> PartitionTable:
    """Return a table of these rows."""
    return PartitionTable(Version(epoch, Ptid(ptid)), 1, [tuple(Cell(*c) for c in row) for row in rows])


ALONE = table(((S1, U),), ((S1, U),))
PAIR = table(((S1, U), (S2, U)), ((S2, U), (S1, U)))


def ttid(client: NodeId = C1, counter: int = 1) -> Ttid:
    """Return the name of a client's transaction; its session is the number of the client."""
    return Ttid(Session(client & 0xFFFFFF), counter)


def data(value: bytes) -> Data:
    """Return a value, uncompressed."""
    return Data(Compression.NONE, checksum(value), len(value), value)


ABSENT = Data(Compression.ABSENT, bytes(16), 0, b"")


def write(oid: int, base: int = 0, value: bytes = b"value", copied_from: int = 0) -> Write:
    """Return a new revision."""
    return Write(Oid(oid), Tid(base), Tid(copied_from), data(value))


def vote(
    *writes: Write,
    reads: tuple[tuple[int, int], ...] = (),
    client: NodeId = C1,
    counter: int = 1,
    attempt: int = 1,
    mode: Mode = Mode.C,
    known: int = 0,
    epoch: Epoch = E1,
    version: Version | None = None,
    np: int = 2,
    parts: tuple[int, ...] = (),
    tentative: dict[int, int] | None = None,
    given_tid: int = 0,
) -> Vote:
    """Return the Vote of *writes* and *reads* (oid, serial), one Work per partition."""
    ahead = tentative or {}
    here = sorted({w.oid % np for w in writes} | {o % np for o, _ in reads} | set(ahead))
    work = tuple(
        Work(
            Partition(p),
            ahead.get(p, 0),
            tuple(w for w in writes if w.oid % np == p),
            tuple(ReadCheck(Oid(o), Tid(t)) for o, t in reads if o % np == p),
        )
        for p in here
    )
    return Vote(
        ttid(client, counter),
        attempt,
        epoch,
        version or Version(epoch, Ptid(1)),
        tuple(Partition(p) for p in parts or here),
        META,
        work,
        mode,
        Tid(known),
        Tid(given_tid),
    )


class Rig:
    """A storage under test. `log` is (position, record); `durable` says up to where it survives."""

    def __init__(self, me: NodeId = S1, settings: StorageSettings | None = None, *, at_once: bool = True) -> None:
        """*at_once*: the back end is read while deciding, as SQLite; else `points` waits for `read`."""
        self.settings = settings or StorageSettings()
        self.backend = MemoryBackend()
        self.backend.at_once = at_once
        self.log: list[tuple[int, LogRecord]] = []
        self.durable = -1
        self.now = 1000.0
        self._begin(me)

    def _begin(self, me: NodeId) -> None:
        spool = MemorySpool()
        for position, record in self.log:
            spool.note(position, record)
        self.spool = spool
        image, lacking = replay(self.backend.open(), self.log, spool)
        for position, ops in lacking:
            self.backend.apply(ops, position)
        self.to_apply: list[tuple[int, tuple[Op, ...]]] = []
        self.reads: list[ReadRange | ReadOwn] = []
        self.points: list[ReadPoints] = []
        self.copies: list[CopyIn] = []
        self.packs: list[PackCells] = []
        self.logged: list[Log] = []
        self.cut: list[NodeId] = []
        self.exit: Exit | None = None
        self.core = StorageCore(image.node or me, image, self.backend, self.settings, self.instant())

    def instant(self) -> Instant:
        return Instant(Seconds(self.now), Seconds(1.7e9 + self.now))

    # ---- events

    def handle(self, event: object) -> list[Sent]:
        """Give *event* to the core, perform its effects, return what it sends."""
        return [s for effect in self.core.handle(event, self.instant()) for s in self.perform(effect)]  # type: ignore[arg-type]  # any event

    def perform(self, effect: object) -> list[Sent]:
        """Perform *effect*; return what it sends."""
        sent: list[Sent] = []
        match effect:
            case Send(peer, packet, request):
                cls = type(packet)
                assert decode(cls, encode(packet)) == packet  # it can travel
                sent.append(Sent(peer, packet, request))
            case Append(position, record, _):
                last = self.log[-1][0] if self.log else self.backend.open().position
                assert position == last + 1
                assert decode(type(record), encode(record)) == record
                self.log.append((position, record))
                self.spool.note(position, record)
            case Apply(position, ops):
                assert position <= self.durable, "nothing is applied that is not durable"
                self.to_apply.append((position, ops))
            case ReadRange() | ReadOwn():
                self.reads.append(effect)
            case ReadPoints():
                self.points.append(effect)
            case CopyIn():
                self.copies.append(effect)
            case PackCells():
                self.packs.append(effect)
            case Disconnect(peer, _):
                self.cut.append(peer)
            case Log():
                self.logged.append(effect)
            case Exit():
                self.exit = effect
        return sent

    def receive(self, peer: NodeId, packet: Packet, request: int = 0) -> list[Sent]:
        """*peer* has sent *packet*."""
        return self.handle(Received(peer, packet, request))

    def connect(self, *peers: NodeId) -> list[Sent]:
        """These peers are connected."""
        return [s for peer in peers for s in self.handle(Connected(peer, hello(peer)))]

    def lose(self, peer: NodeId) -> list[Sent]:
        """The connection to *peer* is lost."""
        return self.handle(Lost(peer, "lost"))

    def flush(self) -> list[Sent]:
        """All that was appended becomes durable."""
        self.durable = self.log[-1][0] if self.log else self.durable
        return self.handle(Durable(self.durable))

    def read(self) -> list[Sent]:
        """The back end answers what single revisions it was asked for."""
        points, self.points = self.points, []
        reader = self.backend.range_reader()
        return [s for p in points for s in self.handle(PointsRead(p.number, perform(reader, p.wanted)))]

    def apply(self) -> list[Sent]:
        """The back end catches up with what was ordered, and answers what this node has asked for itself."""
        sent: list[Sent] = []
        while True:
            sent += self._apply()
            own = [r for r in self.reads if isinstance(r, ReadOwn)]
            if not self.copies and not own:
                return sent
            copies, self.copies = self.copies, []
            for copy in copies:
                self.backend.apply(copy.ops, self.backend.open().position)
                sent += self.handle(CopiedIn(copy.number))
            for read in own:
                self.reads.remove(read)
                sent += self.handle(own_answer(self.backend.range_reader(), read.number, read.question))
            sent += self.flush()

    def _apply(self) -> list[Sent]:
        sent: list[Sent] = []
        while self.to_apply:
            batch, self.to_apply = self.to_apply, []
            for position, ops in batch:
                self.backend.apply(ops, position)
            sent += self.handle(Applied(batch[-1][0]))
        return sent

    def settle(self) -> list[Sent]:
        """Flush and apply."""
        return self.flush() + self.apply()

    def tick(self, seconds: float = 0.0) -> list[Sent]:
        """Time passes."""
        self.now += seconds
        return self.handle(Tick())

    def packed(self, event: Packed) -> list[Sent]:
        """The applier has packed a cell."""
        return self.handle(event)

    def disk(self, free: int) -> list[Sent]:
        """The shell has looked at the disk."""
        return self.handle(DiskUsage(1000, free))

    def crash(self) -> None:
        """Kill the process, take what was not flushed, start again."""
        self.log = [entry for entry in self.log if entry[0] <= self.durable]
        self._begin(self.core.me)

    def give(self) -> list[Sent]:
        """Answer what other storages have asked, as the shell does."""
        sent: list[Sent] = []
        asked = [r for r in self.reads if isinstance(r, ReadRange) and not r.request]
        for read in asked:
            self.reads.remove(read)
            reader = self.backend.range_reader()
            match read.packet:
                case Compare() as question:
                    sent.append(Sent(read.peer, compare(reader, question, len(asked))))
                case Pull() as question:
                    pieces: list[Sent] = []
                    answer = pull(reader, question, lambda piece, to=read.peer, out=pieces: out.append(Sent(to, piece)))
                    sent += [*pieces, Sent(read.peer, answer)]
        return sent

    # ---- stories

    def fence(self, epoch: Epoch = E1, master: NodeId = M1) -> list[Sent]:
        """*master* fences and hears what is here."""
        if master not in self.core.ground.peers:
            self.connect(master)
        return self.receive(master, Fence(epoch)) + self.flush()

    def start(
        self,
        new: PartitionTable,
        *,
        epoch: Epoch = E1,
        master: NodeId = M1,
        decisions: tuple[Decision, ...] = (),
        aborts: tuple[Tombstone, ...] = (),
    ) -> list[Sent]:
        """The reign begins with that table."""
        return self.receive(master, Start(epoch, CLUSTER, whole(new), NO_CEILINGS, decisions, aborts))

    def adopt(
        self,
        new: PartitionTable,
        *,
        epoch: Epoch = E1,
        master: NodeId = M1,
        stable: bool = True,
        decisions: tuple[Decision, ...] = (),
        aborts: tuple[Tombstone, ...] = (),
        gone: tuple[int, ...] = (),
    ) -> list[Sent]:
        """It comes back into a reign."""
        sessions = tuple(Session(s) for s in gone)
        packet = Adopt(epoch, CLUSTER, whole(new), stable, NO_CEILINGS, decisions, aborts, sessions, NO_TID)
        return self.receive(master, packet)

    def serve(self, new: PartitionTable = ALONE, *peers: NodeId) -> "Rig":
        """Serve under M1 with that table, connected to *peers* and to C1 and C2."""
        self.fence()
        self.start(new)
        self.settle()
        self.connect(*peers, C1, C2)
        self.settle()
        return self

    def set_table(self, new: PartitionTable, last: int = 0) -> list[Sent]:
        """M1 sends a new table."""
        return self.receive(M1, SetPT(whole(new), Tid(last)))

    def stable(self, new: PartitionTable) -> list[Sent]:
        """M1 says that this table is stable."""
        return self.receive(M1, Stable(new.version))

    def commit(
        self,
        tid: int,
        *,
        client: NodeId = C1,
        counter: int = 1,
        attempt: int = 1,
        parts: tuple[int, ...] = (0,),
        tail: tuple[Decision, ...] = (),
        durable: int = 0,
    ) -> list[Sent]:
        """M1 commits a client's transaction."""
        touched = tuple(Partition(p) for p in parts)
        return self.receive(M1, Commit(ttid(client, counter), attempt, Tid(tid), touched, tail, Tid(durable)))

    def write_all(self, tid: int, *writes: Write, counter: int, parts: tuple[int, ...] = (0,)) -> None:
        """One whole transaction of C3, durable and applied."""
        self.connect(C3)
        self.receive(C3, vote(*writes, client=C3, counter=counter, parts=parts))
        self.flush()
        self.commit(tid, client=C3, counter=counter, parts=parts)
        self.settle()


def hello(peer: NodeId) -> Hello:
    """Return a Hello as *peer* says it."""
    role = Role(peer >> 24)
    return Hello(1, 1, (), role, "peer", "test", CLUSTER, peer, 1, NO_EPOCH, "")


def of(sent: list[Sent], cls: type[_P], peer: NodeId = NO_NODE) -> list[_P]:
    """Return the packets of that class among *sent*, to *peer* or to anybody."""
    return [s.packet for s in sent if isinstance(s.packet, cls) and peer in (NO_NODE, s.peer)]


def only(sent: list[Sent], cls: type[_P], peer: NodeId = NO_NODE) -> _P:
    """Return the one packet of that class."""
    found = of(sent, cls, peer)
    assert len(found) == 1, f"{len(found)} {cls.__name__} in {sent}"
    return found[0]


def relay(rigs: dict[NodeId, Rig], sent: list[Sent], source: NodeId) -> list[Sent]:
    """Pass *sent* on between storages until nothing moves; return what went elsewhere. Logs are flushed on the way."""
    elsewhere: list[Sent] = []
    todo: list[tuple[NodeId, Sent]] = [(source, s) for s in sent]
    while todo:
        origin, item = todo.pop(0)
        if item.peer not in rigs:
            elsewhere.append(item)
            continue
        todo += [(item.peer, s) for s in rigs[item.peer].receive(origin, item.packet)]
        for node, rig in sorted(rigs.items()):
            todo += [(node, s) for s in rig.flush()]
    return elsewhere


def converse(rigs: dict[NodeId, Rig], sent: list[Sent] | None = None, source: NodeId = NO_NODE) -> list[Sent]:
    """Pass on *sent* and all that follows, long reads, copies and ticks included, until nothing moves."""
    elsewhere = relay(rigs, sent or [], source)
    for _ in range(1000):
        is_moving = False
        for node, rig in sorted(rigs.items()):
            new = rig.settle() + rig.give()
            is_moving |= bool(new)
            elsewhere += relay(rigs, new, node)
        if not is_moving:
            ticked = [(node, rig.tick(0.1)) for node, rig in sorted(rigs.items())]
            moved = [relay(rigs, new, node) for node, new in ticked]
            elsewhere += [item for new in moved for item in new]
            looks = [x for rig in rigs.values() for x in (rig.core.scrub.look, *rig.core.scrub.mends.values()) if x]
            looks = [x for x in looks if x.step != scrubbing.Step.CONFIRM]
            copies = [c for rig in rigs.values() for c in rig.core.copies.copies.values() if c.step != Step.WAIT]
            if not copies and not looks and not any(rig.reads or rig.copies for rig in rigs.values()):
                return elsewhere
    raise AssertionError("they talk for ever")


def packets(sent: list[Sent]) -> Iterator[str]:
    """Yield the names of what was sent."""
    return (type(s.packet).__name__ for s in sent)
