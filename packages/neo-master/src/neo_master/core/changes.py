"""Changes of the partition table, as they are queued. Pure."""

from typing import NamedTuple

from neo_common.ids import NodeId, Partition, Version
from neo_common.model.orders import Orders
from neo_common.model.partition_table import PartitionTable, Row


class Demote(NamedTuple):
    """Table change: put every cell of *node* out of date, where another one is UP_TO_DATE."""

    node: NodeId


class DemoteCell(NamedTuple):
    """Table change: put that cell out of date, if it is JOINING or another one is UP_TO_DATE."""

    partition: Partition
    node: NodeId


class Join(NamedTuple):
    """Table change: OUT_OF_DATE cells of *node* become JOINING."""

    node: NodeId
    partitions: tuple[Partition, ...]


class Promote(NamedTuple):
    """Table change: the cell of *node* that began to join with *version* becomes UP_TO_DATE."""

    partition: Partition
    node: NodeId
    version: Version


class MoveLead(NamedTuple):
    """Table change: the lead of *partition* goes to the end of the row, if another cell is UP_TO_DATE."""

    partition: Partition


class Begin(NamedTuple):
    """Table change: orders and number of copies, with the first step towards the goal if there is one."""

    orders: Orders
    replicas: int


class Advance(NamedTuple):
    """Table change: a step towards the goal, as `moving.next_rows` made it for the table of this moment."""

    rows: tuple[tuple[Partition, Row], ...]


class Drop(NamedTuple):
    """Table change: *node* has no cells any more, where another one is UP_TO_DATE."""

    node: NodeId


class Corrupt(NamedTuple):
    """Table change: the cell of *node* is CORRUPTED, if another one is UP_TO_DATE."""

    partition: Partition
    node: NodeId


class Rebuild(NamedTuple):
    """Table change: the CORRUPTED cell of *node*, mended as far as it can be by itself, is OUT_OF_DATE."""

    partition: Partition
    node: NodeId


Change = Corrupt | Rebuild | Demote | DemoteCell | Join | Promote | MoveLead | Begin | Advance | Drop


class TableChange(NamedTuple):
    """A table and what else its beginning notes."""

    table: PartitionTable
    rows: dict[Partition, Row]
    promoted: tuple[tuple[Partition, NodeId], ...]
    joined: tuple[tuple[Partition, NodeId], ...]
