"""Which cells go where. Pure.

Today: the first table of a cluster. It is even in four ways at once: cells per node, leads per node, neighbouring
partitions on different nodes, and the partners of a node, so that the load of a lost node spreads over all others.
"""

from collections.abc import Sequence
from math import gcd
from typing import Final

from neo_common.ids import NodeId, Version
from neo_common.model.partition_table import Cell, PartitionTable
from neo_common.states import CellState

_UP: Final = CellState.UP_TO_DATE


def first_table(nodes: Sequence[NodeId], partitions: int, replicas: int, version: Version) -> PartitionTable:
    """Return the table of a new cluster: every cell UP_TO_DATE, the first of each row leads.

    *nodes* are distinct and keep their order. Each row has `replicas + 1` cells, or as many as there are nodes.
    Cells per node differ by 1 at most, leads per node too.

    >>> table = first_table([NodeId(1), NodeId(2), NodeId(3)], 4, 1, Version(0, 1))
    >>> [tuple(node for node, _ in row) for row in table.rows]
    [(1, 2), (2, 3), (3, 1), (1, 2)]
    """
    assert partitions > 0, partitions
    assert replicas >= 0, replicas
    assert nodes, "a table needs a node"
    assert len(set(nodes)) == len(nodes), "a node has one cell of a row at most"
    count = len(nodes)
    width = min(replicas + 1, count)
    rounds, rest = divmod(partitions, count)
    rows = []
    for turn in range(rounds + (rest > 0)):
        # Within a turn each row is the one before moved on by one node (`keys` codes a turn as one run), so a whole
        # turn gives every node one cell of each offset, whatever the offsets are.
        offsets = _offsets(turn, width, count) if turn < rounds else _last_offsets(rest, width, count)
        for first in range(count if turn < rounds else rest):
            rows.append(tuple(Cell(nodes[(first + offset) % count], _UP) for offset in offsets))
    return PartitionTable(version, replicas, rows)


def _offsets(turn: int, width: int, count: int) -> list[int]:
    """Return how far after the lead the cells of a row stand: others in each turn, so that partners change."""
    return [0] + [1 + (turn * (width - 1) + copy) % (count - 1) for copy in range(width - 1)]


def _last_offsets(rest: int, width: int, count: int) -> list[int]:
    """Return the offsets for a last turn of *rest* rows, fewer than nodes.

    Copy j covers *rest* neighbouring nodes; the next copy begins where it ended, so no node is ahead of another by
    more than one. Where that would come back to a node that the row has, all nodes are level: one step further.
    """
    period = count // gcd(rest, count)
    return [(copy * rest + copy // period) % count for copy in range(width)]
