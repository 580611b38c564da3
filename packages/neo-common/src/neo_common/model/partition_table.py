"""The partition table: rows of cells. Immutable, so that cores may keep old ones and compare. Pure.

A row is an ordered tuple of cells, one per node at most. Order means something: the first UP_TO_DATE cell leads.
A change makes a new table that shares every row that did not change. How tables are packed into bytes is
`keys`' business; what moves where is `balance`'s.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from neo_common.errors import RemoteProtocolError
from neo_common.ids import NO_VERSION, NodeId, Oid, Partition, Version
from neo_common.model.orders import NO_ORDERS, Orders
from neo_common.states import CellState

_U = CellState.UP_TO_DATE
_READABLE = frozenset((CellState.UP_TO_DATE, CellState.FEEDING))
_WRITTEN = frozenset((CellState.UP_TO_DATE, CellState.FEEDING, CellState.JOINING))


class Cell(NamedTuple):
    """One copy of one partition."""

    node: NodeId
    state: CellState


Row = tuple[Cell, ...]


class PartitionTable:
    """Who holds what, at one version.

    `rows[p]` is the row of partition p; `replicas` is how many copies beyond the first are wanted; `orders` is what
    operators have ordered and is not done yet. Equal when version, replicas, rows and orders are.
    """

    __slots__ = ("_leads", "_of", "_readable", "_written", "orders", "replicas", "rows", "version")

    def __init__(self, version: Version, replicas: int, rows: Iterable[Row], orders: Orders = NO_ORDERS) -> None:
        self.version = version
        self.replicas = replicas
        self.orders = orders
        self.rows: tuple[Row, ...] = tuple(rows)
        self._leads: list[NodeId | None] = [next((n for n, s in row if s == _U), None) for row in self.rows]
        self._readable = [tuple(n for n, s in row if s in _READABLE) for row in self.rows]
        self._written = [tuple(n for n, s in row if s in _WRITTEN) for row in self.rows]
        self._of: dict[NodeId, tuple[Partition, ...]] = {}
        """What was asked of `partitions_of`."""

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, PartitionTable)
            and self.version == other.version
            and self.replicas == other.replicas
            and self.rows == other.rows
            and self.orders == other.orders
        )

    def __hash__(self) -> int:
        return hash((self.version, self.rows))

    def __repr__(self) -> str:
        return f"<PartitionTable {self.version} {len(self.rows)} x {self.replicas + 1}>"

    @property
    def partitions(self) -> int:
        """Number of partitions; 0 in the table of a cluster that was never started."""
        return len(self.rows)

    def partition(self, oid: Oid) -> Partition:
        """Return the partition of *oid*."""
        return Partition(oid % len(self.rows))

    def lead(self, partition: Partition) -> NodeId | None:
        """Return the node with the locks of *partition*: its first UP_TO_DATE cell, or None."""
        return self._leads[partition]

    def readable(self, partition: Partition) -> tuple[NodeId, ...]:
        """Return the nodes that may answer loads of *partition*, in the order of the row."""
        return self._readable[partition]

    def written(self, partition: Partition) -> tuple[NodeId, ...]:
        """Return the nodes that must receive votes of *partition*, in the order of the row."""
        return self._written[partition]

    def state(self, partition: Partition, node: NodeId) -> CellState | None:
        """Return the state of *node*'s cell of *partition*, None if it has none."""
        for other, state in self.rows[partition]:
            if other == node:
                return state
        return None

    def readable_nodes(self) -> frozenset[NodeId]:
        """Return every node with a readable cell."""
        return frozenset(n for nodes in self._readable for n in nodes)

    def nodes(self) -> frozenset[NodeId]:
        """Return every node with a cell in any state."""
        return frozenset(n for row in self.rows for n, _ in row)

    def partitions_of(self, node: NodeId) -> tuple[Partition, ...]:
        """Return the partitions of which *node* has a cell in any state, ascending."""
        found = self._of.get(node)
        if found is None:
            found = tuple(Partition(p) for p, row in enumerate(self.rows) if any(n == node for n, _ in row))
            self._of[node] = found
        return found

    def changed(
        self,
        version: Version,
        rows: Mapping[Partition, Row],
        replicas: int | None = None,
        orders: Orders | None = None,
    ) -> "PartitionTable":
        """Return this table at *version* with *rows*, and what else is given, in place of its own."""
        new = list(self.rows)
        for partition, row in rows.items():
            new[partition] = row
        replicas = self.replicas if replicas is None else replicas
        return PartitionTable(version, replicas, new, self.orders if orders is None else orders)


EMPTY = PartitionTable(NO_VERSION, 0, ())


class TableUpdate(NamedTuple):
    """What is sent of a table: the whole of it, or the rows that differ from one that the receiver has.

    `base` is None for a whole table; then `rows` has every partition from 0 on. `partitions` is the row count.
    `orders` are always all of them.
    """

    base: Version | None
    version: Version
    replicas: int
    partitions: int
    rows: tuple[tuple[Partition, Row], ...]
    orders: Orders = NO_ORDERS

    def apply(self, table: PartitionTable) -> PartitionTable:
        """Return the table that the sender has.

        Raises: RemoteProtocolError when this is a difference from another version than *table*'s.
        """
        if self.base is None:
            return PartitionTable(self.version, self.replicas, (row for _, row in self.rows), self.orders)
        if self.base != table.version or self.partitions != table.partitions:
            text = f"partition table {self.version} as a difference from {self.base}, not from {table.version}"
            raise RemoteProtocolError(text)
        return table.changed(self.version, dict(self.rows), self.replicas, self.orders)


def whole(table: PartitionTable) -> TableUpdate:
    """Return the update that carries all of *table*."""
    rows = tuple((Partition(p), row) for p, row in enumerate(table.rows))
    return TableUpdate(None, table.version, table.replicas, table.partitions, rows, table.orders)


def difference(old: PartitionTable, new: PartitionTable) -> TableUpdate:
    """Return the update from *old* to *new*; a whole table when the number of partitions differs."""
    if old.partitions != new.partitions:
        return whole(new)
    rows = tuple((Partition(p), row) for p, row in enumerate(new.rows) if row is not old.rows[p] and row != old.rows[p])
    return TableUpdate(old.version, new.version, new.replicas, new.partitions, rows, new.orders)


class Readiness:
    """Whether every row has a readable cell on a node that is up: a counter per row, never a scan.

    Feed it every change of table and of node; `operational` is then a comparison with zero.
    """

    def __init__(self) -> None:
        self._table = EMPTY
        self._up: set[NodeId] = set()
        self._counts: list[int] = []
        self._missing = 0

    @property
    def operational(self) -> bool:
        """Whether every row of a table that exists has a readable cell on a node that is up."""
        return bool(self._counts) and not self._missing

    @property
    def rows_not_ready(self) -> int:
        """How many rows have no readable cell on a node that is up."""
        return self._missing

    def table_changed(self, table: PartitionTable) -> None:
        """Take *table*: rows that it shares with the former one cost a comparison each."""
        old, self._table = self._table, table
        if old.partitions != table.partitions:
            self._counts = [self._count(p) for p in range(table.partitions)]
            self._missing = self._counts.count(0)
            return
        for p, (before, after) in enumerate(zip(old.rows, table.rows, strict=True)):
            if before is not after and before != after:
                self._set(p, self._count(p))

    def node_changed(self, node: NodeId, is_up: bool) -> None:
        """Note that *node* serves, or no longer serves."""
        if is_up == (node in self._up):
            return
        (self._up.add if is_up else self._up.discard)(node)
        for p in self._table.partitions_of(node):
            self._set(p, self._count(p))

    def _count(self, p: int) -> int:
        return sum(n in self._up for n in self._table.readable(Partition(p)))

    def _set(self, p: int, count: int) -> None:
        self._missing += (count == 0) - (self._counts[p] == 0)
        self._counts[p] = count
