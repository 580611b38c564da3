"""What is under way at a master, and waits for others. Pure."""

from enum import Enum
from typing import NamedTuple

from neo_common.ids import NodeId, Partition, Seconds, Tid
from neo_common.model.orders import Choice
from neo_common.model.partition_table import PartitionTable
from neo_common.wire.schema import Finish, Packet


class Place(Enum):
    """What this master is among the masters."""

    ELECTING = "electing"
    SECONDARY = "secondary"
    PRIMARY = "primary"


class Aborting(NamedTuple):
    """An abort that is not durable yet: AbortOk has come from `done`."""

    attempt: int
    parts: tuple[Partition, ...]
    done: set[NodeId]
    client: NodeId
    """Who is told when it is durable; NO_NODE for nobody."""
    text: str


class Sealing(NamedTuple):
    """A Finish in mode A: SealOk has come from `done`."""

    client: NodeId
    finish: Finish
    done: set[NodeId]


class Seeking(NamedTuple):
    """A transaction that is looked for in the history above a tid.

    `asked`: the partitions whose cells have not answered, with the storage that was asked, NO_NODE if none could be.
    """

    attempt: int
    above: Tid
    parts: tuple[Partition, ...]
    asked: dict[Partition, NodeId]


class Waiting(NamedTuple):
    """A request of a client that waits for a ceiling."""

    client: NodeId
    packet: Packet
    request: int


class PackOrder:
    """A pack under way, or the last one."""

    __slots__ = ("asked_by", "done", "number", "progress", "started", "tid", "was_over")

    def __init__(self, number: int, tid: Tid, started: Seconds) -> None:
        self.number = number
        self.tid = tid
        self.started = started
        self.progress: dict[NodeId, tuple[int, int, int, int] | None] = {}
        """Cells done, cells in all, revisions and bytes removed; None until the order is durable there."""
        self.done = (0, 0, 0, 0)
        """The sum over storages that are gone."""
        self.asked_by: list[tuple[NodeId, int]] = []
        """Who waits for AnswerPack."""
        self.was_over = False
        """Whether all was done once: later a storage may come back, and have cells to pack again."""


class Chosen(NamedTuple):
    """The table that an operator has chosen, as long as recovery has not begun with it."""

    choice: Choice
    table: PartitionTable
    storages: frozenset[NodeId]
    """Those that were there: with others it is another choice."""
    use_stale: bool
    make_empty: bool


class Collecting(NamedTuple):
    """A Collect under way."""

    client: NodeId
    request: int
    missing: set[NodeId]
    removed: list[int]
