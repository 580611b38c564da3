"""What a storage's core is told and orders beside what every core is (`neo_common.core`). Pure."""

from typing import NamedTuple

from neo_common.ids import NodeId, Partition, Tid
from neo_common.wire.schema import Packet
from neo_storage.backends.base import Op
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

    `packet`: AskHistory, AskTransactions, AskRecords, AskUndo, AskSizes; or Pull (request 0), answered with one
    PullData without decisions.
    """

    peer: NodeId
    request: int
    packet: Packet
    position: int


class PackCells(NamedTuple):
    """Pack these cells to *tid*, at leisure; `Packed` for each when done. A newer order replaces this one."""

    order: int
    tid: Tid
    partitions: tuple[Partition, ...]


class Exit(NamedTuple):
    """Stop the process: flush the log, let the applier finish, close."""

    status: int
    reason: str
