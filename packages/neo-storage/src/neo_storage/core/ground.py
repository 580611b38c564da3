"""What all parts of a storage's core stand on: image, log, peers, and the effects of the event at hand. Pure."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType

from neo_common.checksum import checksum
from neo_common.core import Disconnect, Log, Send
from neo_common.errors import DataCorrupted
from neo_common.ids import MAX_TID, NO_TID, NodeId, Oid, Partition, Seconds, Session, Tid, Ttid
from neo_common.model.partition_table import PartitionTable
from neo_common.states import CellState, Role, role_of
from neo_common.wire.schema import INLINE_BYTES, PIECE_BYTES, CommitOk, Packet, Stale
from neo_storage.backends.base import ApplyClear, ApplyCollect, ApplyCopy, ApplyDrop, ApplyTruncate, Op, Reader, Stored
from neo_storage.core.events import (
    Append,
    Apply,
    CopyIn,
    EraseCells,
    Exit,
    Loads,
    PackCells,
    Piece,
    PointsRead,
    ReadOwn,
    ReadPoints,
    ReadRange,
    Serials,
)
from neo_storage.core.image import Image, apply
from neo_storage.core.log_records import (
    LogAbort,
    LogEpoch,
    LogIdentity,
    LogRecord,
    LogSeal,
    LogTable,
    LogTruncate,
    LogVote,
)
from neo_storage.core.overlay import Overlay
from neo_storage.core.serials import SerialCache
from neo_storage.core.settings import StorageSettings

Effect = (
    Send | Disconnect | Log | Append | Apply | ReadRange | ReadPoints | ReadOwn | CopyIn | PackCells | EraseCells | Exit
)
_UNNOTED = (ApplyClear, ApplyCopy, ApplyCollect, ApplyDrop, ApplyTruncate)
"""What changes the back end's revisions without the overlay seeing each."""
Then = Callable[[], None]
URGENT = (LogVote, LogAbort, LogSeal, LogTable, LogTruncate, LogEpoch, LogIdentity)
"""Records that somebody waits for. Commits and unvotes can wait for company: nobody's answer rests on them."""


class Ground:
    """State that every part reads; changed by their named methods only.

    `master` is the primary that it obeys and is connected to; `serving`: between Start or Adopt and the next Fence;
    `seen` is the highest tid heard of; `stable` the last table known to be durable wherever it must be.
    """

    def __init__(self, me: NodeId, image: Image, reader: Reader, settings: StorageSettings, now: Seconds) -> None:
        self.me = me
        self.image = image
        self.overlay = Overlay()
        self.reader = reader
        self.serials = None if reader.at_once else SerialCache(settings.serials, settings.values_bytes)
        """Where the back end cannot be asked while deciding."""
        self.reads: dict[int, Callable[[PointsRead], None]] = {}
        """What is being read, and what then."""
        self._read_count = 0
        self._purges: deque[int] = deque()
        self.relied_on: Callable[[], Iterable[Oid]] = tuple
        """Gives the objects whose serials somebody has seen to be known, and relies on."""
        self.settings = settings
        self.now = now
        self.peers: set[NodeId] = set()
        self.expected: dict[NodeId, Seconds] = {}
        """Storages that are dialled for the first time, and until when votes just wait for them."""
        self.master: NodeId | None = None
        self.serving = False
        self.seen = max([image.last_tid, *(d.tid for d in image.decisions.values())])
        self.stable: PartitionTable | None = None
        self.gone: set[Session] = set()
        self.durable = image.position
        self.applied = image.position
        self.last_op = image.position
        self.cut_off: list[NodeId] = []
        self.durable_mark = NO_TID
        """Every commit up to that tid is durable on all written cells that it touches, as far as was told."""
        self.damaged: list[tuple[Partition, NodeId, str]] = []
        """Cells that this event has found damaged, with what is wrong."""
        self.voted_at = Seconds(float("-inf"))
        """When a client, or a lead, wanted something written last."""
        self._joining: tuple[PartitionTable | None, bool] = (None, False)
        self._effects: list[Effect] = []
        self._then_durable: deque[tuple[int, Then]] = deque()
        self._then_applied: deque[tuple[int, Then]] = deque()
        self._to_apply: deque[tuple[int, tuple[Op, ...]]] = deque()
        self._commits: dict[NodeId, list[Ttid]] = {}

    # ---- effects

    def take_effects(self) -> list[Effect]:
        """Return what was ordered since the last call."""
        effects, self._effects = self._effects, []
        return effects

    def order(self, effect: Effect) -> None:
        """Add an effect."""
        self._effects.append(effect)

    def send(self, peer: NodeId | None, packet: Packet, request: int = 0) -> None:
        """Send to *peer* if it is connected."""
        if peer is not None and peer in self.peers:
            self._effects.append(Send(peer, packet, request))

    def cut(self, peer: NodeId, reason: str) -> None:
        """Close the connection to *peer*. What `Lost` would do is done at the end of this event."""
        if peer in self.peers:
            self._effects.append(Disconnect(peer, reason))
            self.peers.discard(peer)
            self.cut_off.append(peer)

    def log(self, level: int, text: str) -> None:
        """Tell the operator."""
        self._effects.append(Log(level, text))

    # ---- the one order

    def write(self, record: LogRecord, then: Then | None = None) -> None:
        """Append *record* and do at once what it says; *then* runs when it is durable."""
        position = self.image.position + 1
        ops = apply(self.image, position, record)
        self._effects.append(Append(position, record, isinstance(record, URGENT)))
        if ops:
            self.last_op = position
            self._to_apply.append((position, ops))
            for op in ops:
                self.overlay.take(position, op)
                if self.serials is not None and isinstance(op, _UNNOTED):
                    self._purges.append(position)
        if then is not None:
            self._then_durable.append((position, then))

    def when_durable(self, then: Then) -> None:
        """Run *then* when all that was written so far is durable: perhaps at once."""
        if self.image.position <= self.durable:
            then()
        else:
            self._then_durable.append((self.image.position, then))

    def when_applied(self, then: Then) -> None:
        """Run *then* when the back end has all that was written so far: perhaps at once."""
        if self.last_op <= self.applied:
            then()
        else:
            self._then_applied.append((self.last_op, then))

    def confirm_commit(self, master: NodeId, ttid: Ttid) -> Then:
        """Return what tells *master* that the commit is durable, together with the others of the same flush."""
        return lambda: self._commits.setdefault(master, []).append(ttid)

    def flushed(self, position: int) -> None:
        """Everything up to *position* is durable."""
        self.durable = max(self.durable, position)
        while self._to_apply and self._to_apply[0][0] <= self.durable:
            self._effects.append(Apply(*self._to_apply.popleft()))
        while self._then_durable and self._then_durable[0][0] <= self.durable:
            self._then_durable.popleft()[1]()
        self.confirm_commits()

    def durable_records(self) -> int:
        """Return how many records the log has had that no crash takes: masters will know if there are ever fewer."""
        return self.image.length(self.durable)

    def confirm_commits(self) -> None:
        """Tell the primary what became durable."""
        commits, self._commits = self._commits, {}
        for master, ttids in sorted(commits.items()):
            self.send(master, CommitOk(tuple(ttids), self.durable_records()))

    def caught_up(self, position: int) -> None:
        """The back end has everything up to *position*."""
        self.applied = max(self.applied, position)
        self.overlay.applied(position, self.serials)
        while self._purges and self._purges[0] <= self.applied:
            self._purges.popleft()
            self.forget_serials()
        while self._then_applied and self._then_applied[0][0] <= self.applied:
            self._then_applied.popleft()[1]()

    # ---- the table

    def state(self, partition: Partition, node: NodeId) -> CellState | None:
        """Return the state of *node*'s cell; None without table or cell."""
        return cell_state(self.image.table, partition, node)

    def mine(self, partition: Partition) -> CellState | None:
        """Return the state of this node's cell."""
        return self.state(partition, self.me)

    def is_readable(self, partition: Partition) -> bool:
        """Return whether this node answers loads of *partition*."""
        return self.mine(partition) in (CellState.UP_TO_DATE, CellState.FEEDING)

    def leads(self, partition: Partition) -> bool:
        """Return whether this node has the locks of *partition*."""
        return lead(self.image.table, partition) == self.me

    def partitions(self) -> Iterator[Partition]:
        """Yield every partition of the table."""
        return (Partition(p) for p in range(self.image.table.partitions))

    def partition(self, oid: Oid) -> Partition:
        """Return the partition of *oid*; there must be a table."""
        return self.image.table.partition(oid)

    def is_joining(self) -> bool:
        """Return whether any cell of this node is JOINING. Asked at every commit: looked up once per table."""
        table = self.image.table
        if self._joining[0] is not table:
            rows = (table.rows[p] for p in table.partitions_of(self.me))
            mine = (c.state for row in rows for c in row if c.node == self.me)
            self._joining = (table, CellState.JOINING in mine)
        return self._joining[1]

    def partners(self, table: PartitionTable) -> set[NodeId]:
        """Return the other storages that share a partition with this one under *table*."""
        shared = {cell.node for p in table.partitions_of(self.me) for cell in table.rows[p]}
        return shared - {self.me}

    def storages(self) -> list[NodeId]:
        """Return the storages that are connected, ascending."""
        return sorted(n for n in self.peers if role_of(n) == Role.STORAGE)

    # ---- reads of a back end that cannot be asked at once

    def read(self, wanted: Serials | Loads | Piece, then: Callable[[PointsRead], None]) -> int:
        """Order a read; *then* gets what came of it. Return its number."""
        self._read_count += 1
        self.reads[self._read_count] = then
        self.order(ReadPoints(self._read_count, wanted))
        return self._read_count

    def points_read(self, event: PointsRead) -> None:
        """A read has ended."""
        self.reads.pop(event.number)(event)

    def ask_serials(self, oids: Iterable[Oid]) -> int:
        """Have the serials of *oids* looked up; return the number of the read, 0 if all are known."""
        serials = self.serials
        if serials is None:
            return 0
        unknown = self._unknown(serials, oids)
        if not unknown:
            return 0
        generation = serials.generation
        for oid in unknown:
            serials.ask(oid)

        def then(event: PointsRead) -> None:
            found = event.result if isinstance(event.result, dict) else {}
            for oid in unknown:
                serials.answered(oid, found.get(oid), generation)

        return self.read(Serials(tuple((self.partition(oid), oid) for oid in unknown)), then)

    def _unknown(self, serials: SerialCache, oids: Iterable[Oid]) -> tuple[Oid, ...]:
        """Return those that only the back end knows; what is new to it has no revision, and that is noted."""
        found = set[Oid]()
        for oid in oids:
            if serials.get(oid) is None and self.overlay.current(oid) is None:
                if oid > self.image.last_oid:
                    serials.note(oid, NO_TID)
                else:
                    found.add(oid)
        return tuple(sorted(found))

    def forget_serials(self) -> None:
        """Something else than commits has changed the back end."""
        if self.serials is not None:
            self.serials.clear(self.relied_on())

    # ---- revisions

    def current(self, oid: Oid) -> Tid:
        """Return the serial of *oid* as committed; 0 if it has no revision."""
        tid = self.overlay.current(oid)
        if tid is not None:
            return tid
        if oid > self.image.last_oid:  # a new object, as most are: nothing to look up
            return NO_TID
        if self.serials is not None:
            known = self.serials.get(oid)
            assert known is not None, f"the serial of {oid:#x} was seen to before"
            return known
        return self.reader.current(self.partition(oid), oid)

    def at_hand(self, oid: Oid, before: Tid) -> Stored | None:
        """Return the last committed revision below *before* if it is in memory."""
        stored, end = self.overlay.load(oid, before)
        if stored is None and self.serials is not None:
            stored = self.serials.load(oid, before)
            if stored is not None and end != NO_TID:
                stored = stored._replace(end=end)
        return stored

    def load(self, oid: Oid, before: Tid) -> Stored | None:
        """Return the last committed revision below *before*. Raises DataCorrupted."""
        stored, end = self.overlay.load(oid, before)
        if stored is not None:
            return stored
        return checked(oid, self.reader.load(self.partition(oid), oid, before), end)

    def stale(
        self, pairs: Iterable[tuple[Oid, Tid]], coming: Mapping[Oid, Tid] = MappingProxyType({})
    ) -> tuple[Stale, ...]:
        """Return those of (oid, base) that are not at their base, with what is current; large values left out.

        *coming*: serials that take the place of the current ones.
        """
        found: list[Stale] = []
        room = INLINE_BYTES
        for oid, base in pairs:
            serial = coming.get(oid) or self.current(oid)
            if serial != base:
                data = None
                if serial != NO_TID and room > 0 and oid not in coming:
                    # Who needs a value that is not at hand here loads it.
                    stored = self.load(oid, MAX_TID) if self.serials is None else self.at_hand(oid, MAX_TID)
                    if stored is not None and stored.data.size <= min(self.settings.stale_bytes, room, PIECE_BYTES):
                        data = stored.data
                        room -= stored.data.size
                found.append(Stale(oid, serial, data))
        return tuple(found)


def checked(oid: Oid, stored: Stored | None, end: Tid) -> Stored | None:
    """Return what the back end has of *oid*, its end from the overlay if it knows none. Raises DataCorrupted."""
    if stored is None:
        return None
    if stored.data.value and checksum(stored.data.value) != stored.data.checksum:
        raise DataCorrupted(f"the checksum of oid {oid:#x} at {stored.tid:#x} does not hold")
    return stored._replace(end=end) if stored.end == NO_TID and end != NO_TID else stored


def cell_state(table: PartitionTable, partition: Partition, node: NodeId) -> CellState | None:
    """Return the state of *node*'s cell; None when there is no such cell or partition."""
    return table.state(partition, node) if partition < table.partitions else None


def lead(table: PartitionTable, partition: Partition) -> NodeId | None:
    """Return the lead of *partition*; None when there is none, or no such partition."""
    return table.lead(partition) if partition < table.partitions else None


def written(table: PartitionTable, partition: Partition) -> tuple[NodeId, ...]:
    """Return the nodes written in *partition*; none when there is no such partition."""
    return table.written(partition) if partition < table.partitions else ()
