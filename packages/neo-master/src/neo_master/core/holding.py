"""What a master holds of the past, beside the register: commits that are settled, how far each disk had come. Pure.

It is told, and kept in a file, in pages (`neo_common.wire.schema.Page`); docs/masters.md, "What is settled", says what
it is good for. Nothing here is needed for the cluster to go on, and nothing waits for it.
"""

from collections.abc import Iterable
from typing import Final

from neo_common.ids import MAX_TID, NO_TID, NO_VERSION, NodeId, Tid, Ttid, Version
from neo_common.model.partition_table import PartitionTable
from neo_common.states import Role, node_text
from neo_common.wire.schema import Decision, DiskMark, Page

NEWEST_MAX: Final = 1000
"""So many of the newest settled commits are held, to be named if they are missing."""
UNHEARD_MAX: Final = 10_000
"""So many are held whose client was not seen to hear of them: it may come back and ask."""
PAGE_MAX: Final = 1000
"""At most so many commits of each kind in one page."""
PARTS_MAX: Final = 32
"""The partitions of a commit that touches more are not held: a page has its bound in bytes too."""
DISKS_MAX: Final = 10_000
"""More storages than any cluster has."""


class Holding:
    """Settled commits and disks, as of one partition table.

    Invariants:
      * every commit here is settled: durable on every cell that was written, under the table of then or an earlier one
        of the same line, so that its tid never changes;
      * a disk here belongs to a storage with readable cells, and had so many log records, durably;
      * bounded: the oldest commits go first.
    """

    def __init__(self) -> None:
        self.version: Version = NO_VERSION
        self.choice = 0
        self.disks: dict[NodeId, int] = {}
        """Of each storage with readable cells, how many log records it had."""
        self.newest: dict[Ttid, Decision] = {}
        self.unheard: dict[Ttid, Decision] = {}

    def __repr__(self) -> str:
        return f"<Holding {self.version} newest={len(self.newest)} unheard={len(self.unheard)} disks={self.disks}>"

    def debug(self) -> dict[str, object]:
        """Return it for people, as far as that is not too much."""
        return {
            "table": str(self.version),
            "newest": [f"{d.tid:x}" for d in list(self.newest.values())[-10:]],
            "unheard": [f"{d.tid:x}" for d in list(self.unheard.values())[-10:]],
            "count": len(self.newest) + len(self.unheard),
            "disks": {node_text(n): position for n, position in sorted(self.disks.items())},
        }

    def take(self, page: Page) -> None:
        """Hold what that page says, too; or instead, if it is a first one."""
        if page.is_first:
            self.newest.clear()
            self.unheard.clear()
        self.version, self.choice = page.version, page.choice
        self.disks = dict(page.disks)
        _add(self.newest, page.newest, NEWEST_MAX)
        _add(self.unheard, page.unheard, UNHEARD_MAX)

    def pages(self) -> list[Page]:
        """Return all that is held; none if nothing ever was."""
        if self.version == NO_VERSION:
            return []
        disks = tuple(DiskMark(n, self.disks[n]) for n in sorted(self.disks))
        newest, unheard = tuple(self.newest.values()), tuple(self.unheard.values())
        count = max(1, -(-max(len(newest), len(unheard)) // PAGE_MAX))
        cuts = [slice(i * PAGE_MAX, (i + 1) * PAGE_MAX) for i in range(count)]
        return [Page(self.version, self.choice, i == 0, disks, newest[c], unheard[c]) for i, c in enumerate(cuts)]

    def decision(self, ttid: Ttid) -> Decision | None:
        """Return what became of a transaction, if it is held."""
        return self.unheard.get(ttid) or self.newest.get(ttid)

    def last(self) -> Tid:
        """Return the highest tid that is held."""
        return max([NO_TID, *(held[next(reversed(held))].tid for held in (self.newest, self.unheard) if held)])

    def above(self, tid: Tid) -> list[Decision]:
        """Return the commits above *tid*, in the order of their tids."""
        found = {**self.unheard, **self.newest}
        return sorted((d for d in found.values() if d.tid > tid), key=lambda d: d.tid)

    def counts_under(self, table: PartitionTable) -> bool:
        """Whether what is held is true of a cluster with *table*.

        Not of another line of history. And not if it was cut off since, perhaps more than once: only the last cut is
        known.
        """
        orders = table.orders
        choice = orders.choices[-1].id if orders.choices else 0
        return self.version != NO_VERSION and self.choice == choice and self.version >= orders.cut_at

    def knows_disks_of(self, table: PartitionTable) -> bool:
        """Whether the disks are those that belong to *table*: a storage may since have been dropped, and come anew."""
        return self.version >= table.version and self.counts_under(table)

    def begin(self, table: PartitionTable, former: "Holding | None", cut: Tid, disks: dict[NodeId, int]) -> None:
        """Begin a reign with *table*: with the commits of *former* up to *cut*, and with these disks."""
        kept = former or Holding()
        choices = table.orders.choices
        newest = {t: d for t, d in kept.newest.items() if d.tid <= cut}
        unheard = {t: d for t, d in kept.unheard.items() if d.tid <= cut}
        self.version, self.choice = table.version, choices[-1].id if choices else 0
        self.newest, self.unheard, self.disks = newest, unheard, dict(disks)


def is_plausible(page: Page, ceiling: Tid) -> bool:
    """Whether a primary below whose *ceiling* all tids are can have told that page."""
    held = (*page.newest, *page.unheard)
    return (
        len(page.newest) <= PAGE_MAX
        and len(page.unheard) <= PAGE_MAX
        and len(page.disks) <= DISKS_MAX
        and all(NO_TID < d.tid < min(ceiling, MAX_TID) for d in held)
        and all(d.ttid.is_storable and len(d.parts) <= PARTS_MAX for d in held)
        and all(mark.node >> 24 == Role.STORAGE for mark in page.disks)
    )


def as_held(decisions: Iterable[Decision]) -> tuple[Decision, ...]:
    """Return commits as they are held: without partitions if they are many.

    >>> from neo_common.ids import Partition, Session
    >>> wide = Decision(Ttid(Session(1), 1), 1, Tid(5), tuple(map(Partition, range(PARTS_MAX + 1))))
    >>> as_held([wide])[0].parts
    ()
    """
    return tuple(d if len(d.parts) <= PARTS_MAX else d._replace(parts=()) for d in decisions)


def _add(held: dict[Ttid, Decision], decisions: Iterable[Decision], limit: int) -> None:
    for decision in decisions:
        held[decision.ttid] = decision
    for ttid in list(held)[: max(0, len(held) - limit)]:
        del held[ttid]
