"""From one partition table to another by steps that are each safe. Pure.

A step is one change of the table, and the next comes when it is stable. Per row, in this order:

    1. cells that the row shall have and has not: OUT_OF_DATE, so that they copy; so many per node at a time
    2. cells that shall go are FEEDING as soon as one that stays is UP_TO_DATE: they serve, and lead no more
    3. when every cell that the row shall have can be read, those that shall go are dropped, and its lead leads

So a row never has fewer readable cells than it had, or is wanted to have. What joins when a lead changes begins again.
A cell that shall go and was away joins again as long as its row is not complete: meanwhile it is a copy more.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from neo_common.ids import NodeId, Partition
from neo_common.model.partition_table import Cell, PartitionTable, Row
from neo_common.states import CellState

_U, _F, _J, _O = CellState.UP_TO_DATE, CellState.FEEDING, CellState.JOINING, CellState.OUT_OF_DATE
Goal = Sequence[tuple[NodeId, ...]]
"""The nodes that each row shall have, the lead first."""


class Left(NamedTuple):
    """What is between a table and its goal."""

    cells: int
    """Wanted and not readable."""
    copying: int
    """Those of them that are there."""
    drops: int
    """There and not wanted."""
    leads: int

    @property
    def is_nothing(self) -> bool:
        """Whether the goal is reached."""
        return not (self.cells or self.drops or self.leads)


def left(table: PartitionTable, goal: Goal) -> Left:
    """Return how far *table* is from *goal*."""
    cells = copying = drops = leads = 0
    for p, wanted in enumerate(goal):
        states = dict(table.rows[p])
        for node in wanted:
            state = states.pop(node, None)
            if state is None or not state.is_readable:
                cells += 1
                copying += state is not None
        drops += len(states)
        leads += table.lead(Partition(p)) != wanted[0]
    return Left(cells, copying, drops, leads)


def next_rows(
    table: PartitionTable, goal: Goal, copies_max: int, may_copy: Callable[[NodeId], bool]
) -> dict[Partition, Row]:
    """Return the rows that the next step changes; empty when the goal is reached, or something must happen first.

    No node is given more than *copies_max* cells to copy at the same time, and none that *may_copy* does not allow.
    """
    copying: dict[NodeId, int] = {}
    for row in table.rows:
        for node, state in row:
            if not state.is_readable:
                copying[node] = copying.get(node, 0) + 1
    rows = {}
    for p, wanted in enumerate(goal):
        row = table.rows[p]
        if is_there(row, wanted):
            continue
        missing = [n for n in wanted if n not in dict(row)]
        allowed = [n for n in missing if copying.get(n, 0) < copies_max and may_copy(n)]
        new = stepped(row, wanted, allowed)
        if new != row:
            rows[Partition(p)] = new
            for node in allowed:
                copying[node] = copying.get(node, 0) + 1
    return rows


def is_there(row: Row, wanted: Sequence[NodeId]) -> bool:
    """Whether *row* has the cells that it shall have, all UP_TO_DATE, and its lead leads."""
    return len(row) == len(wanted) and row[0].node == wanted[0] and all(s == _U and n in wanted for n, s in row)


def stepped(row: Row, wanted: Sequence[NodeId], allowed: Sequence[NodeId]) -> Row:
    """Return *row* after its next step; *allowed* are the missing cells that may begin to copy now."""
    old_lead = lead_of(row)
    states = dict(row)
    # A cell that stays after all is UP_TO_DATE again.
    row = tuple(Cell(n, _U if s == _F and n in wanted else s) for n, s in row)
    staying = [n for n, s in row if s == _U and n in wanted]
    complete = len(staying) == len(wanted)
    if complete:
        # JOINING cells are left to end what they do: they are dropped once they are something else.
        row = tuple(c for c in row if c.node in wanted or states[c.node] in (_U, _J))
        row = with_lead(row, wanted[0])
    if staying:
        row = tuple(Cell(n, _F if s == _U and n not in wanted else s) for n, s in row)
        if wanted[0] in staying and lead_of(row) != old_lead:
            row = with_lead(row, wanted[0])
    row = (*row, *(Cell(n, _O) for n in allowed if n not in dict(row)))
    if lead_of(row) != old_lead:
        row = tuple(Cell(n, _O if s == _J else s) for n, s in row)
    return row


def lead_of(row: Row) -> NodeId | None:
    """Return the lead of a row: its first UP_TO_DATE cell."""
    return next((n for n, s in row if s == _U), None)


def with_lead(row: Row, node: NodeId) -> Row:
    """Return *row* with the cell of *node* first."""
    return (*(c for c in row if c.node == node), *(c for c in row if c.node != node))
