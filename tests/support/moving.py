"""What must hold while an operator changes where cells are, judged by the tables that leave the primary alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from neo_common.core import Send
from neo_common.ids import NodeId
from neo_common.model.partition_table import EMPTY, PartitionTable
from neo_common.states import CellState
from neo_common.wire.schema import Adopt, SetPT, Start
from support.checkers import check
from support.world import Process


class MoveWatch:
    """No readable cell is given up before as many others are complete as are wanted.

    What a failure takes goes OUT_OF_DATE; what vanishes from a table was taken by choice. A drop by force may.
    """

    def __init__(self) -> None:
        self._tables: dict[NodeId, PartitionTable] = {}
        """The last table that was sent to each storage."""
        self.forced: set[NodeId] = set()
        """Storages that an operator has dropped by force: he has chosen to lose copies."""

    def __call__(self, process: Process, effect: object) -> None:
        """Look at an effect."""
        if not isinstance(effect, Send):
            return
        match effect.packet:
            case Start(table=update) | Adopt(table=update):
                self._tables[effect.peer] = update.apply(EMPTY)
            case SetPT(table=update):
                old = self._tables[effect.peer]
                new = self._tables[effect.peer] = update.apply(old)
                self._compare(old, new)

    def _compare(self, old: PartitionTable, new: PartitionTable) -> None:
        for p, (before, after) in enumerate(zip(old.rows, new.rows, strict=True)):
            there = {n for n, _ in after}
            gone = [n for n, s in before if s.is_readable and n not in there]
            complete = [n for n, s in after if s is CellState.UP_TO_DATE]
            check(bool(complete), 7, f"partition {p} has no lead: {after}")
            if gone and not self.forced & set(gone):
                wanted = min(new.replicas + 1, len(before) - len(gone))
                text = f"partition {p} loses a readable cell, {len(complete)} are complete, not {wanted}"
                check(len(complete) >= wanted, 7, f"{text}: {before} {after}")


def check_goal(table: PartitionTable, domains: Sequence[str], nodes: Sequence[NodeId]) -> None:
    """Raise Violation unless *table* is even, with copies apart: what an order about cells must come to."""
    holders = sorted(table.nodes())
    width = min(table.replicas + 1, len(holders))
    domain_of = {n: d or str(n) for n, d in zip(nodes, domains or [""] * len(nodes), strict=True)}
    here = {domain_of[n] for n in holders}
    cells, leads = Counter[NodeId](), Counter[NodeId]()
    for p, row in enumerate(table.rows):
        check(len(row) == width, 9, f"partition {p} has {len(row)} cells, not {width}")
        apart = len({domain_of[n] for n, _ in row})
        check(apart == min(width, len(here)), 9, f"copies of partition {p} are on {apart} of {len(here)} domains")
        cells.update(n for n, _ in row)
        leads[row[0].node] += 1
    if len(here) == len(holders):  # copies apart may ask for uneven shares
        check(max(cells.values()) - min(cells[n] for n in holders) <= 1, 9, f"it is not even at rest: {cells}")
