"""The contract that every back end passes. Pure.

A back end is written by the applier only, in batches, each with the log position up to which it is then complete, in
one SQL transaction. It knows no voted record, no lock, no two-phase logic. `Reader` is what the core asks for while it
decides: it must answer at once (SQLite from the page cache in the hub, about 10 us).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol, TypeVar

from xxhash import xxh3_128_digest

from neo_common.errors import DataCorrupted
from neo_common.ids import Epoch, NodeId, Oid, Partition, Tid, Ttid
from neo_common.model.partition_table import PartitionTable
from neo_common.wire.schema import (
    Ceilings,
    CellSize,
    Change,
    Data,
    Decision,
    Metadata,
    RangeDigest,
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


class Place(NamedTuple):
    """A place in the history of a partition, which is ordered by tid, then oid."""

    tid: Tid
    oid: Oid


class Reader(Protocol):
    """What the core reads while it decides."""

    at_once: bool
    """Whether the core may call it while it decides: it answers in microseconds, without waiting for anybody."""

    def current(self, partition: Partition, oid: Oid) -> Tid:
        """Return the serial of the last revision (a deletion counts), 0 if there is none."""

    def load(self, partition: Partition, oid: Oid, before: Tid) -> Stored | None:
        """Return the last revision below *before*; its data is in pieces above PIECE_BYTES. None if there is none."""

    def piece(self, partition: Partition, oid: Oid, tid: Tid, offset: int) -> bytes | None:
        """Return the piece that begins at *offset*; None if there is no such revision or piece.

        A value of at most PIECE_BYTES has one, at 0.
        """


def digest_of(transactions: bytes, revisions: bytes) -> bytes:
    """Return the digest of a range of tids, the same for every back end: 16 bytes.

    *transactions*: for each, in the order of tids, `tid,session,counter,USER,DESCRIPTION,EXTENSION;`. *revisions*: for
    each, in the order of tids, then oids, `tid,oid,copied_from,compression,size,CHECKSUM;`. Numbers in decimal, bytes
    in capital hexadecimal digits, so that each database can write it by itself.
    """
    return xxh3_128_digest(transactions + b"|" + revisions)


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
    """All tombstones go; with `is_all` all decisions too."""

    is_all: bool = False


class ApplyClear(NamedTuple):
    """Erase the revisions and transactions of a partition above *keep*."""

    partition: Partition
    keep: Tid


def no_pieces(oid: Oid) -> Iterator[bytes]:
    """Yield the pieces of a value that has none. Raises DataCorrupted."""
    raise DataCorrupted(f"the value of {oid:#x} was copied without its pieces")


class ApplyDoom(NamedTuple):
    """These partitions are to be erased: their cells were dropped. `erase_step` does it, in slices.

    Those in `back` are not to be erased any more: their cells have come back.
    """

    partitions: tuple[Partition, ...]
    back: tuple[Partition, ...] = ()


class ApplyTruncate(NamedTuple):
    """Erase every revision, transaction and decision above *keep*, in all partitions."""

    keep: Tid


class ApplyCopy(NamedTuple):
    """Committed history from another cell. A transaction may come in several parts; what is there already stays.

    With anything at or below the tid to which the cell is packed, or being packed, it is so no more: `pack_step` begins
    anew.

    `pieces` gives the pieces of an oid in order, of the one transaction for values in pieces.
    """

    partition: Partition
    transactions: tuple[Transaction, ...]
    decisions: tuple[Decision, ...]
    pieces: "Callable[[Oid], Iterator[bytes]]" = no_pieces


class ApplyDrop(NamedTuple):
    """Erase single revisions, and single transactions with all their revisions here: another cell knows better."""

    partition: Partition
    revisions: tuple[Place, ...]
    transactions: tuple[Tid, ...]


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
    | ApplyDrop
    | ApplyPack
    | ApplyCollect
    | ApplyDoom
    | ApplyTruncate
)


REMOVALS: Final = (ApplyClear, ApplyTruncate, ApplyCollect)
"""What may remove any number of rows: at the beginning of a batch a back end does it in slices."""


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
    doomed: tuple[Partition, ...] = ()
    """Partitions to be erased, ascending."""


class PackStep(NamedTuple):
    """What a slice of packing did. `done`: the cell is finished."""

    done: bool
    revisions_removed: int
    bytes_removed: int


class RangeReader(Protocol):
    """Reads on a connection and thread of their own; each sees what was applied when it began.

    Raises: BackendLost when the connection is gone: the next call makes another.
    """

    def current(self, partition: Partition, oid: Oid) -> Tid:
        """As `Reader.current`."""

    def load(self, partition: Partition, oid: Oid, before: Tid) -> Stored | None:
        """As `Reader.load`."""

    def currents(self, pairs: Sequence[tuple[Partition, Oid]]) -> dict[Oid, Tid]:
        """Return the serial of each object, as `current` does, in as few statements as may be."""

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

    def copy(
        self, partition: Partition, start: Place, stop: Tid, *, values: bool, limit: int, limit_bytes: int
    ) -> tuple[tuple[Transaction, ...], Place | None]:
        """Return history from *start* on to all of tid *stop*, and where to go on (None at the end).

        About *limit* revisions, or *limit_bytes* of values, but at least one if there is any: a transaction may be
        cut. Values in pieces are left out, and all without *values*: then there are their sizes and checksums only.
        """

    def count(self, partition: Partition, start: Tid, stop: Tid) -> int:
        """Return how many revisions have tids from *start* to *stop*."""

    def digest(self, partition: Partition, start: Tid, stop: Tid) -> RangeDigest:
        """Return the digest of these tids: `digest_of` says of what."""

    def digests(self, partition: Partition, start: Tid, stop: Tid, *, size: int, limit: int) -> tuple[RangeDigest, ...]:
        """Return digests of ranges that follow each other from *start* on, at most *limit*.

        Each has about *size* revisions (or transactions), one transaction at least; the last one ends with the last
        tid that is there. None when there is nothing.
        """

    def packed(self, partition: Partition) -> tuple[Tid, bool]:
        """Return to which tid the cell is, or is being, packed by `pack_step` (0: never), and whether that is done."""

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


class PointReader(Protocol):
    """What a RangeReader has for single revisions."""

    def currents(self, pairs: Sequence[tuple[Partition, Oid]]) -> dict[Oid, Tid]:
        """As `RangeReader.currents`."""

    def load(self, partition: Partition, oid: Oid, before: Tid) -> Stored | None:
        """As `Reader.load`."""

    def piece(self, partition: Partition, oid: Oid, tid: Tid, offset: int) -> bytes | None:
        """As `Reader.piece`."""

    def close(self) -> None:
        """Release the connection."""


_T = TypeVar("_T")


class Waits(Protocol):
    """How a reader waits that is used in the hub: the greenlet that calls rests, others go on. One greenlet's own."""

    def ready(self, fd: int, *, is_writing: bool, timeout_s: float) -> bool:
        """Return whether *fd* can be read, or written, within that time."""

    def forget(self, fd: int) -> None:
        """It is about to be closed."""

    def apart(self, function: Callable[[], _T]) -> _T:
        """Return what *function* returns, or raises, on a native thread."""


class Backend(Reader, Protocol):
    """A database under a storage. Errors: BackendError and below."""

    def open(self) -> Kept:
        """Create or open the database, check its settings, and return what it knows.

        Of somebody else's database that was given to us by mistake nothing is changed.
        """

    def claim(self) -> None:
        """The vote log fits: from now on it is ours alone. Before the first `apply`, once. Raises: BackendError."""

    def apply(self, ops: Sequence[Op], position: int) -> None:
        """Write *ops* and the mark *position* in one SQL transaction. On the applier's thread.

        REMOVALS at the beginning of *ops* may be done beforehand, in transactions of their own: as the mark is not
        there yet, whoever is interrupted does them again. So who calls it begins a batch with each.
        Raises: DiskFull, and nothing of it is there but such removals; BackendLost, and that is unknown.
        """

    def reconnect(self) -> None:
        """Connect anew after BackendLost, and read back up to where the database is complete.

        Then the batch that was under way is given again, whole. On the applier's thread. Raises: BackendLost, it may
        be tried again; BackendError when the database is not what it was.
        """

    def checkpoint(self) -> int:
        """Make what was applied durable; return the log position up to which it is. On the applier's thread."""

    def pack_step(self, partition: Partition, tid: Tid, limit: int) -> PackStep:
        """Pack one slice of a cell: about *limit* revisions looked at. On the applier's thread; resumable."""

    def erase_step(self, partition: Partition, limit: int) -> bool:
        """Erase one slice of a doomed cell, about *limit* revisions; return whether nothing is left to do.

        Then it is doomed no more. Of a cell that is not doomed (it has come back) nothing is erased. On the applier's
        thread; resumable.
        """

    def range_reader(self) -> RangeReader:
        """Return a reader with a connection of its own."""

    def hub_reader(self, waits: Waits) -> PointReader | None:
        """Return a reader with a connection of its own, for a greenlet of the hub, which it never blocks.

        None where its driver can only block.
        """

    def disk(self) -> tuple[int, int | None]:
        """Return (bytes used by the database, bytes free on its disk; None where nobody can tell). Asks no server."""

    def news(self) -> Sequence[str]:
        """Return what has happened to the database, since it was last asked, that an operator wants to know."""

    def close(self) -> None:
        """Release everything."""
