"""What a storage's core is told and orders beside what every core is (`neo_common.core`). Pure."""

from typing import NamedTuple

from neo_common.ids import NO_TID, NodeId, Oid, Partition, Tid
from neo_common.wire.schema import Packet, RangeDigest, Transaction
from neo_storage.backends.base import Op, Place
from neo_storage.core.log_records import LogRecord

# ---------------------------------------------------------------------------------------------- events


class Named(NamedTuple):
    """A master has given this node its id (HelloOk.you). Only while the core's own is 0; before `Connected`."""

    node: NodeId


class Applied(NamedTuple):
    """The back end has everything up to the `Apply` of *position*, readable for everybody from now on."""

    position: int


class Packed(NamedTuple):
    """A cell was packed as `PackCells` of *order* asked."""

    order: int
    partition: Partition
    revisions_removed: int
    bytes_removed: int


class CopiedIn(NamedTuple):
    """The back end has what every `CopyIn` up to *number* said; durably, if that one asked for it."""

    number: int


class Own(NamedTuple):
    """What `ReadOwn` asked for."""

    number: int
    digests: tuple[RangeDigest, ...] = ()
    transactions: tuple[Transaction, ...] = ()
    packed: tuple[Tid, bool] = (NO_TID, True)
    """With digests: as `RangeReader.packed`."""
    damaged: tuple[Place, ...] = ()
    next: Place | None = None
    revisions: int = 0
    bytes: int = 0


class Erased(NamedTuple):
    """A dropped cell is erased, as `EraseCells` asked."""

    partition: Partition


class PointsRead(NamedTuple):
    """What `ReadPoints` of *number* asked for: a dictionary of serials, a tuple of Stored or None (or
    DataCorrupted), or a piece; or the BackendError that came instead.
    """

    number: int
    result: object


class DiskUsage(NamedTuple):
    """Bytes used by database and log, bytes free on the tighter of their disks. Every few seconds."""

    used: int
    free: int


# ---------------------------------------------------------------------------------------------- effects


class Append(NamedTuple):
    """Write *record* to the vote log. Positions follow each other without a gap.

    Flush at the end of this loop iteration if urgent, within `commit_flush_s` if not; then `Durable`.
    """

    position: int
    record: LogRecord
    urgent: bool


class Apply(NamedTuple):
    """Hand *ops* to the applier. In the order of positions, never before the log is durable up to there.

    (A back end ahead of the log would keep a commit whose neighbours in the log are lost: the one order broken.)
    """

    position: int
    ops: tuple[Op, ...]


class ReadRange(NamedTuple):
    """Answer *packet* from the back end, once it has applied *position*; on a worker thread.

    `packet`: AskHistory, AskTransactions, AskRecords, AskUndo, AskSizes. With request 0: Pull, answered with PullPiece
    packets and one PullData without decisions; or Compare, answered with Compared; either with PullNo if it cannot be;
    or AskFate, answered with ToldFate.
    """

    peer: NodeId
    request: int
    packet: Packet
    position: int


class CopyIn(NamedTuple):
    """Hand *ops* to the applier without a place in the log, after all that it was given before; then `CopiedIn`.

    `durable`: flush the back end then.
    """

    number: int
    ops: tuple[Op, ...]
    durable: bool


class OwnDigests(NamedTuple):
    """`RangeReader.digests` of a cell of this node."""

    partition: Partition
    start: Tid
    stop: Tid
    size: int
    limit: int


class OwnKeys(NamedTuple):
    """All of a cell of this node from *start* to tid *stop*, without values."""

    partition: Partition
    start: Place
    stop: Tid


class OwnValues(NamedTuple):
    """Read values again from *start* on, about so many bytes of them, and verify their checksums."""

    partition: Partition
    start: Place
    stop: Tid
    limit_bytes: int


class ReadOwn(NamedTuple):
    """Answer *question* from the back end, once it has applied *position*, on a worker thread: `Own`."""

    number: int
    question: OwnDigests | OwnKeys | OwnValues
    position: int


class Serials(NamedTuple):
    """The last serial of each object, 0 if it has no revision."""

    pairs: tuple[tuple[Partition, Oid], ...]


class Loads(NamedTuple):
    """The last revision of each object below *before*."""

    pairs: tuple[tuple[Partition, Oid], ...]
    before: Tid


class Piece(NamedTuple):
    """A piece of a value."""

    partition: Partition
    oid: Oid
    tid: Tid
    offset: int


class ReadPoints(NamedTuple):
    """Read that from the back end, on a thread of its own, as it is; then `PointsRead`.

    Ordered only where the back end cannot be asked at once (`Reader.at_once`).
    """

    number: int
    wanted: Serials | Loads | Piece


class PackCells(NamedTuple):
    """Pack these cells to *tid*, at leisure; `Packed` for each when done. A newer order replaces this one."""

    order: int
    tid: Tid
    partitions: tuple[Partition, ...]


class EraseCells(NamedTuple):
    """Erase these cells, that were dropped, at leisure; `Erased` for each when done."""

    partitions: tuple[Partition, ...]


class Exit(NamedTuple):
    """Stop the process: flush the log, let the applier finish, close."""

    status: int
    reason: str
