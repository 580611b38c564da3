"""What is settled, held by all masters: commits that nothing can change any more, and how far disks had come. Pure.

docs/masters.md, "What is settled". The primary tells it at leisure, once a second and behind every register; nothing
waits for it, and no commit asks for a disk. It serves a client that was away so long that history does not know its
commit any more, and a recovery that meets a disk which is older than it was.
"""

from collections.abc import Iterable
from typing import Final

from neo_common.ids import MAX_TID, NO_TID, NodeId, Partition, Seconds, Tid, Ttid
from neo_common.model.partition_table import PartitionTable
from neo_common.states import node_text
from neo_common.wire.schema import Decision, DiskMark, Page, Promised, Settle
from neo_master.core.base import MasterBase
from neo_master.core.effects import WARNING, Note
from neo_master.core.holding import PAGE_MAX, Holding, as_held, is_plausible

SETTLE_S: Final = 1.0
"""Between two pages, if there is anything to tell."""


class Settled(MasterBase):
    """Tell, hold, offer, compare."""

    # ------------------------------------------------------------------------------------------ telling

    def begin_holding(self, table: PartitionTable, former: PartitionTable) -> None:
        """A reign begins with *table*, which goes on from *former*; or from nothing, if an operator has chosen it.

        Of what was settled in a line of history that was given up nobody can say whether it is still there.
        """
        cut = MAX_TID if self.cut_to is None else self.cut_to
        held = self.held_for(former) if former.partitions else None
        readable = table.readable_nodes()
        self.positions = {n: reply.position for n, reply in sorted(self.replies.items()) if n in readable}
        holding = Holding()
        holding.begin(table, held, cut, self.positions)
        self.holding = holding
        self.offered.clear()
        self.informed.clear()
        self.fresh.clear()
        self.fresh_unheard.clear()
        for page in holding.pages():
            self.effects.append(Note(page))

    def settle(self) -> None:
        """Once a second: have held what was settled since, if anything was."""
        if self.now.monotonic >= self.settle_at and self.proposed is not None:
            self.settle_at = Seconds(self.now.monotonic + SETTLE_S)
            if self.fresh or self.fresh_unheard or self.positions != self.holding.disks:
                self.spread()

    def spread(self) -> None:
        """Have all of it held, here and by the masters that hold this reign's register."""
        if self.proposed is None or self.epoch != self.holding.version.epoch:
            return
        for page in self.take_pages():
            self.hold_page(page)
            for master in sorted(self.informed):
                self.send(master, Settle(self.epoch, page))
        for master in sorted(self.promises.keys() - self.informed - {self.me}):
            self.informed.add(master)
            for page in self.holding.pages():
                self.send(master, Settle(self.epoch, page))

    def take_pages(self) -> list[Page]:
        """Return what was settled since the last time: a page at least, as the table may have changed."""
        newest, unheard = as_held(self.fresh), as_held(self.fresh_unheard)
        self.fresh.clear()
        self.fresh_unheard.clear()
        disks = tuple(DiskMark(n, self.positions[n]) for n in sorted(self.positions))
        version, choice = self.proposed_table.version, self.holding.choice
        first = Page(version, choice, False, disks, newest, unheard[:PAGE_MAX])
        rest = range(PAGE_MAX, len(unheard), PAGE_MAX)
        return [first, *(Page(version, choice, False, disks, (), unheard[i : i + PAGE_MAX]) for i in rest)]

    def disk_told(self, storage: NodeId, position: int) -> None:
        """So many log records of a storage are durable."""
        if position > self.positions.get(storage, position):
            self.positions[storage] = position

    def disks_changed(self) -> None:
        """A table is stable: only disks with readable cells count."""
        self.positions = {n: self.positions.get(n, 0) for n in sorted(self.pt.readable_nodes())}

    # ------------------------------------------------------------------------------------------ holding

    def hold_page(self, page: Page) -> None:
        """Hold it, and have it written."""
        self.holding.take(page)
        self.effects.append(Note(page))

    def on_settle(self, master: NodeId, packet: Settle) -> None:
        """Hold what the primary tells; or hear what a master holds, before its promise. But not what cannot be."""
        if self.is_primary:
            if packet.epoch == self.epoch and is_plausible(packet.page, MAX_TID):
                self.offered.setdefault(master, Holding()).take(packet.page)
        elif packet.epoch == self.promised == self.register.epoch and self.master_of(packet.epoch) == master:
            if is_plausible(packet.page, self.register.ceilings.tid):
                self.hold_page(packet.page)
            else:
                self.log(WARNING, f"{node_text(master)} tells of commits that cannot be: they are not held")

    def offer(self, master: NodeId) -> None:
        """Tell a claimant what is held here, before the promise."""
        for page in self.holding.pages():
            self.send(master, Settle(self.promised, page))

    def check_offered(self, master: NodeId, packet: Promised) -> None:
        """The promise ends what that master offers: tids above its ceilings nobody has given."""
        offered = self.offered.get(master)
        if offered is not None and offered.last() >= packet.register.ceilings.tid:
            self.log(WARNING, f"{node_text(master)} tells of commits that cannot be: they do not count")
            del self.offered[master]

    # ------------------------------------------------------------------------------------------ using it

    def held_for(self, table: PartitionTable) -> Holding | None:
        """Return the newest of what masters hold that is true of a cluster with *table*."""
        known = [h for h in (self.holding, *(self.offered[m] for m in sorted(self.offered))) if h.counts_under(table)]
        return max(known, key=lambda h: (h.version, h.last()), default=None)

    def settled_decision(self, ttid: Ttid) -> Decision | None:
        """Return what became of a transaction, if it is known to be settled."""
        return self.holding.decision(ttid)

    def older_disks(self, table: PartitionTable) -> frozenset[NodeId]:
        """Return the storages there whose disks are older than they were: restored from a copy, or what was written is
        lost. What they have counts as if they were not there."""
        held = self.held_for(table) if table.partitions else None
        if held is None or not held.knows_disks_of(table):
            return frozenset()
        told = self.all_replies()
        return frozenset(
            n for n, position in held.disks.items() if n in told and self.is_older(told[n].position, position)
        )

    def is_older(self, position: int, known: int) -> bool:
        """Whether a disk with so many records is older than one that had *known*."""
        return position < known

    def last_held(self, table: PartitionTable) -> Tid:
        """Return the highest tid of a settled commit that is held, 0 if there is none."""
        held = self.held_for(table)
        return NO_TID if held is None else held.last()

    def older_text(self, storages: Iterable[NodeId]) -> str:
        """Return what is wrong with those disks, for people."""
        return (
            f"the disk of {self.texts(storages)} is older than masters know that it was: restored from an old copy, or"
            " what was written was lost"
        )

    def missing_commits(self, table: PartitionTable, best: dict[Partition, Tid]) -> list[Decision]:
        """Return the settled commits that are above the last tid of the best cell of a partition that they touch.

        *best*: that tid for each partition of *table*.
        """
        held = self.held_for(table)
        found = held.above(min(best.values())) if held is not None and best else []
        return [d for d in found if any(d.tid > best.get(p, MAX_TID) for p in d.parts or best)]
