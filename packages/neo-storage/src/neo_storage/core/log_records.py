"""What a storage writes in its vote log, in the one order in which it was applied. Pure.

Each is encoded by the packet codec, under the code that stands in CODES; `log_format` frames them. The log is the
order of everything: whoever replays it has the state that the core had. Records that change the back end reach it by
the applier, in the same order, from the same objects.
"""

from typing import Final, NamedTuple

from neo_common.ids import Epoch, NodeId, Oid, Partition, Tid, Ttid
from neo_common.model.partition_table import TableUpdate
from neo_common.wire.schema import U32, U64, Bytes16, Ceilings, Decision, Record, Transaction, Write


class LogIdentity(NamedTuple):
    """This node's id and cluster: written once, when it is first started."""

    node: NodeId
    cluster_id: Bytes16


class LogEpoch(NamedTuple):
    """The highest epoch obeyed."""

    epoch: Epoch


class LogTable(NamedTuple):
    """The partition table, whole."""

    table: TableUpdate


class LogCeilings(NamedTuple):
    """The ceilings."""

    ceilings: Ceilings


class LogStored(NamedTuple):
    """Tentative writes of a large transaction."""

    ttid: Ttid
    partition: Partition
    first: U32
    writes: tuple[Write, ...]


class LogPiece(NamedTuple):
    """A piece of a value in pieces."""

    ttid: Ttid
    oid: Oid
    offset: U64
    value: bytes


class LogVote(NamedTuple):
    """Voted records, as one Vote has brought them: all of them are there, or none.

    Each replaces one of a lower attempt. Its first `tentative` writes are in LogStored records.
    """

    records: tuple[Record, ...]


class LogUnvote(NamedTuple):
    """The voted record of that partition is forgotten, at any attempt up to this one."""

    ttid: Ttid
    attempt: U32
    partition: Partition


class LogCommit(NamedTuple):
    """Voted records of that attempt became revisions; those of other attempts are forgotten.

    `durable`: decisions up to that tid are forgotten too.
    """

    ttid: Ttid
    attempt: U32
    tid: Tid
    parts: tuple[Partition, ...]
    durable: Tid


class LogAbort(NamedTuple):
    """Voted records up to that attempt are forgotten; a tombstone stays."""

    ttid: Ttid
    attempt: U32


class LogSeal(NamedTuple):
    """Voted records of that attempt turn from mode A to mode C."""

    ttid: Ttid
    attempt: U32


class LogAmnesty(NamedTuple):
    """Tombstones end with the reign."""


class LogLeftOut(NamedTuple):
    """A reign began without this node: its decisions and tombstones count no more."""


class LogClear(NamedTuple):
    """A cell begins to join: its voted records are forgotten, its revisions above *keep* erased."""

    partition: Partition
    keep: Tid


class LogCopy(NamedTuple):
    """Committed history that a joining cell has pulled."""

    partition: Partition
    transactions: tuple[Transaction, ...]
    decisions: tuple[Decision, ...]


class LogCopyPiece(NamedTuple):
    """A piece of a large value that a cell copies: it rests here until the value is whole. A replay ignores it."""

    partition: Partition
    oid: Oid
    tid: Tid
    offset: U64
    value: bytes


class LogReached(NamedTuple):
    """A cell has all history up to *tid*, with oids up to *oid*, from another one, in the back end, durably."""

    partition: Partition
    tid: Tid
    oid: Oid


class LogPack(NamedTuple):
    """A pack order was accepted: cells are packed to that tid from now on."""

    order: U64
    tid: Tid


class LogCollect(NamedTuple):
    """Garbage objects are removed, if none of their revisions is above *tid*."""

    tid: Tid
    oids: tuple[Oid, ...]


class LogTruncate(NamedTuple):
    """A table with which the cluster is cut: all votes are forgotten, and everything above *keep* is erased.

    One record, so that a crash leaves both or none.
    """

    table: TableUpdate
    keep: Tid


LogRecord = (
    LogIdentity
    | LogEpoch
    | LogTable
    | LogCeilings
    | LogStored
    | LogPiece
    | LogVote
    | LogUnvote
    | LogCommit
    | LogAbort
    | LogSeal
    | LogAmnesty
    | LogLeftOut
    | LogClear
    | LogCopy
    | LogPack
    | LogCollect
    | LogCopyPiece
    | LogReached
    | LogTruncate
)

CODES: Final[dict[int, type]] = {
    1: LogIdentity,
    2: LogEpoch,
    3: LogTable,
    4: LogCeilings,
    5: LogStored,
    6: LogPiece,
    8: LogUnvote,
    9: LogCommit,
    10: LogAbort,
    11: LogSeal,
    12: LogAmnesty,
    13: LogClear,
    14: LogCopy,
    15: LogPack,
    16: LogCollect,
    17: LogVote,
    20: LogLeftOut,
    40: LogCopyPiece,
    41: LogReached,
    50: LogTruncate,
}
