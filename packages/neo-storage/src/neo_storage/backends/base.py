"""The contract that every back end passes. Pure.

A back end is written by the applier only, in batches, each with the log position up to which it is then complete, in
one SQL transaction. It knows no voted record, no lock, no two-phase logic. `Reader` is what the core asks for while it
decides: it must answer at once (SQLite from the page cache in the hub, about 10 us).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from neo_common.ids import Epoch, NodeId, Oid, Partition, Tid, Ttid
from neo_common.model.partition_table import PartitionTable
from neo_common.wire.schema import (
    Ceilings,
    CellSize,
    Change,
    Data,
    Decision,
    Metadata,
    Revision,
    Tombstone,
    Transaction,
    UndoInfo,
    Write,
)


class Stored(NamedTuple):
    """One revision as the back end has it. `end`: tid of the next one, 0 if none."""

    tid: Tid
    end: Tid
    data: Data


class Reader(Protocol):
    """What the core reads while it decides."""

    def current(self, partition: Partition, oid: Oid) -> Tid:
        """Return the serial of the last revision (a deletion counts), 0 if there is none."""

    def load(self, partition: Partition, oid: Oid, before: Tid) -> Stored | None:
        """Return the last revision below *before*; its data is in pieces above PIECE_BYTES. None if there is none."""

    def piece(self, partition: Partition, oid: Oid, tid: Tid, offset: int) -> bytes | None:
        """Return the piece that begins at *offset*; None if there is no such revision or piece.

        A value of at most PIECE_BYTES has one, at 0.
        """


class ApplyIdentity(NamedTuple):
    """Keep the identity of the node."""

    node: NodeId
    cluster_id: bytes


class ApplyEpoch(NamedTuple):
    """Keep the epoch."""

    epoch: Epoch


class ApplyTable(NamedTuple):
    """Keep the partition table."""

    table: PartitionTable


class ApplyCeilings(NamedTuple):
    """Keep the ceilings."""

    ceilings: Ceilings


class ApplyCommit(NamedTuple):
    """A transaction: its metadata once per partition of this node that it touches, and the writes there.

    `partitions` are pairs (partition, writes). `pieces` gives the pieces of an oid in order, for values in pieces.
    Writing again what is there already changes nothing.
    """

    ttid: Ttid
    attempt: int
    tid: Tid
    metadata: Metadata
    parts: tuple[Partition, ...]
    partitions: tuple[tuple[Partition, tuple[Write, ...]], ...]
    pieces: "Callable[[Oid], Iterator[bytes]]"
    forget: Tid
    """Decisions up to that tid are dropped."""


class ApplyDecision(NamedTuple):
    """A commit that touches no cell here, known from a tail."""

    decision: Decision


class ApplyAbort(NamedTuple):
    """A tombstone."""

    tombstone: Tombstone


class ApplyAmnesty(NamedTuple):
    """All tombstones go."""


class ApplyClear(NamedTuple):
    """Erase the revisions and transactions of a partition above *keep*."""

    partition: Partition
    keep: Tid


class ApplyCopy(NamedTuple):
    """Committed history from another cell."""

    partition: Partition
    transactions: tuple[Transaction, ...]
    decisions: tuple[Decision, ...]


class ApplyPack(NamedTuple):
    """Note the pack order; packing itself is `pack_step`, in slices."""

    order: int
    tid: Tid


class ApplyCollect(NamedTuple):
    """Remove every revision of these objects if none is above *tid*."""

    tid: Tid
    oids: tuple[Oid, ...]


Op = (
    ApplyIdentity
    | ApplyEpoch
    | ApplyTable
    | ApplyCeilings
    | ApplyCommit
    | ApplyDecision
    | ApplyAbort
    | ApplyAmnesty
    | ApplyClear
    | ApplyCopy
    | ApplyPack
    | ApplyCollect
)


class Kept(NamedTuple):
    """What a back end knows when it is opened: with the log after `position`, the whole durable state."""

    position: int
    """Log records up to this one have been applied. -1: none."""
    node: NodeId
    cluster_id: bytes
    epoch: Epoch
    table: PartitionTable
    ceilings: Ceilings
    decisions: tuple[Decision, ...]
    tombstones: tuple[Tombstone, ...]
    pack_order: int
    pack_tid: Tid
    last_tid: Tid
    last_oid: Oid


class PackStep(NamedTuple):
    """What a slice of packing did. `done`: the cell is finished."""

    done: bool
    revisions_removed: int
    bytes_removed: int


class RangeReader(Protocol):
    """Long reads, each on a connection and thread of its own; they see what was applied when they began."""

    def history(self, partition: Partition, oid: Oid, limit: int) -> tuple[Change, ...]:
        """Return the last *limit* revisions, newest first."""

    def transactions(
        self,
        partitions: Sequence[Partition],
        start: Tid,
        stop: Tid,
        *,
        descending: bool,
        revisions: bool,
        values: bool,
        limit: int,
        limit_bytes: int,
    ) -> tuple[tuple[Transaction, ...], Tid]:
        """Return transactions as AskTransactions says, and where to go on (0 at the end).

        At least one if there is any, however large; of its values, those beyond *limit_bytes* are left out as if they
        were in pieces: `piece` has them.
        """

    def records(
        self, partition: Partition, first: Oid, before: Tid, *, newer: bool, limit: int, limit_bytes: int
    ) -> tuple[tuple[Revision, ...], Oid | None]:
        """Return revisions as AskRecords says, and the first oid not looked at. Deletions are never among them."""

    def undo(self, partition: Partition, oid: Oid, tid: Tid) -> UndoInfo | None:
        """Return what AskUndo wants of one object; None when it has no revision at *tid*."""

    def piece(self, partition: Partition, oid: Oid, tid: Tid, offset: int) -> bytes | None:
        """As `Reader.piece`."""

    def sizes(self, partitions: Sequence[Partition]) -> tuple[CellSize, ...]:
        """Return counts, one per partition."""

    def close(self) -> None:
        """Release the connection."""


class Backend(Reader, Protocol):
    """A database under a storage. Errors: BackendError and below."""

    def open(self) -> Kept:
        """Create or open the database, check its settings, and return what it knows."""

    def apply(self, ops: Sequence[Op], position: int) -> None:
        """Write *ops* and the mark *position* in one SQL transaction. On the applier's thread."""

    def checkpoint(self) -> int:
        """Make what was applied durable; return the log position up to which it is. On the applier's thread."""

    def pack_step(self, partition: Partition, tid: Tid, limit: int) -> PackStep:
        """Pack one slice of a cell: about *limit* revisions looked at. On the applier's thread; resumable."""

    def range_reader(self) -> RangeReader:
        """Return a reader with a connection of its own."""

    def disk(self) -> tuple[int, int]:
        """Return (bytes used by the database, bytes free on its disk)."""

    def close(self) -> None:
        """Release everything."""
