"""What a storage does beside transactions: ceilings, packing, garbage, its state, stopping. Pure."""

from dataclasses import dataclass, field

from neo_common.ids import NO_TID, NO_VERSION, NodeId, Partition, Seconds, Tid, Version
from neo_common.wire.schema import (
    CeilingsOk,
    Collect,
    CollectOk,
    Pack,
    PackProgress,
    SetCeilings,
    Stop,
    StorageState,
)
from neo_storage.core.events import DiskUsage, EraseCells, Erased, Exit, PackCells, Packed
from neo_storage.core.ground import Ground
from neo_storage.core.log_records import LogCeilings, LogCollect, LogPack
from neo_storage.core.votes import Votes


@dataclass(slots=True)
class PackRun:
    """A pack under way."""

    order: int
    cells: set[Partition] = field(default_factory=set)
    """Those that are readable."""
    done: set[Partition] = field(default_factory=set)
    revisions: int = 0
    bytes: int = 0


class Upkeep:
    """Slow work, and what is told of it."""

    def __init__(self, ground: Ground, votes: Votes) -> None:
        self._ground = ground
        self._votes = votes
        self.run: PackRun | None = None
        self._packed_at: Version = NO_VERSION
        """The table whose readable cells are being packed."""
        self._disk = DiskUsage(0, 0)
        self._told: tuple[bool, Seconds] | None = None
        self._stopping: str | None = None
        self._erasing: tuple[Partition, ...] = ()
        """The doomed cells that were ordered to be erased."""
        self._erase_orders: dict[Partition, int] = {}
        """Orders without an answer, by partition: it may have come back and been dropped again."""

    # ---- ceilings

    def on_set_ceilings(self, master: NodeId, m: SetCeilings) -> None:
        """Make higher ceilings durable."""
        self._ground.write(LogCeilings(m.ceilings), lambda: self._ground.send(master, CeilingsOk(m.ceilings)))

    # ---- packing

    def on_pack(self, master: NodeId, m: Pack) -> None:
        """Accept a pack order; begin when it is durable."""
        self._ground.write(LogPack(m.order, m.tid), self._begin_pack)

    def resume_pack(self, packed: Tid, *, was_left_out: bool = False) -> None:
        """After a restart or an absence: go on with the last order, or with one that was missed.

        If the reign began without this storage, what it was ordered last may have been ordered to nobody else, by a
        primary that was cut off: then the cluster has not packed that far, and neither shall the cells that are copied.
        """
        image = self._ground.image
        if packed > image.pack_tid or (was_left_out and packed < image.pack_tid):
            self._ground.write(LogPack(image.pack_order + 1, packed), self._begin_pack)
        elif self.run is not None:
            self._tell_pack()
        elif image.pack_tid != NO_TID:
            self._begin_pack()

    def _begin_pack(self) -> None:
        """Pack the cells that are readable; others when they have become so."""
        if self.run is not None and self.run.order == self._ground.image.pack_order:
            return
        self.run = PackRun(self._ground.image.pack_order)
        self._pack_cells(self.run)
        self._tell_pack()

    def follow_table(self) -> None:
        """A cell that has become readable is packed too: what it has copied may be from before the pack.

        One that is readable no more is let alone: while it copies nobody can tell what is current in it.
        """
        version = self._ground.image.table.version
        if version != self._packed_at:
            self._packed_at = version
            if self.run is not None and self._pack_cells(self.run):
                self._tell_pack()

    def _pack_cells(self, run: PackRun) -> bool:
        """Order the cells that are readable now to be packed, if they are not the same as before; return whether."""
        ground, image = self._ground, self._ground.image
        cells = {p for p in ground.partitions() if ground.is_readable(p)}
        if cells == run.cells:
            return False
        run.cells = cells
        run.done &= cells
        ground.order(PackCells(run.order, image.pack_tid, tuple(sorted(cells - run.done))))
        return True

    def on_packed(self, event: Packed) -> None:
        """A cell is done."""
        run = self.run
        if run is not None and run.order == event.order:
            if event.partition in run.cells:
                run.done.add(event.partition)
            run.revisions += event.revisions_removed
            run.bytes += event.bytes_removed
            self._tell_pack()

    def _tell_pack(self) -> None:
        run = self.run
        if run is not None:
            told = PackProgress(run.order, len(run.done), len(run.cells), run.revisions, run.bytes)
            self._ground.send(self._ground.master, told)

    # ---- dropped cells

    def erase(self) -> None:
        """Have dropped cells erased. Not before the back end knows that they are doomed."""
        doomed = self._ground.image.doomed
        if doomed != self._erasing:
            new = tuple(p for p in doomed if p not in self._erasing)
            self._erasing = doomed
            if new:
                for p in new:
                    self._erase_orders[p] = self._erase_orders.get(p, 0) + 1
                self._ground.when_applied(lambda: self._ground.order(EraseCells(new)))

    def on_erased(self, event: Erased) -> None:
        """A cell is erased, or had come back. If it was doomed again since, another event follows."""
        p = event.partition
        self._erase_orders[p] -= 1
        if not self._erase_orders[p]:
            del self._erase_orders[p]
            self._ground.image.erased(p)
            self._erasing = tuple(q for q in self._erasing if q != p)

    # ---- garbage

    def on_collect(self, master: NodeId, m: Collect) -> None:
        """Remove garbage of this node's cells; what an undecided vote writes is no garbage."""
        ground = self._ground
        oids = tuple(
            oid
            for oid in m.oids
            if ground.mine(ground.partition(oid)) is not None
            and oid not in ground.image.writers
            and NO_TID < ground.current(oid) <= m.tid
        )

        def confirm() -> None:
            ground.send(master, CollectOk(m.number, len(oids)))

        if oids:
            ground.write(LogCollect(m.tid, oids), lambda: ground.when_applied(confirm))
        else:
            ground.when_durable(confirm)

    # ---- its state

    def on_disk(self, event: DiskUsage) -> None:
        """Refuse votes while the disk is nearly full."""
        self._disk = event
        self._votes.accepts = event.free > 0 and event.free >= self._ground.settings.disk_reserve_bytes
        self.tell_state()

    def new_master(self) -> None:
        """Somebody else must be told how this storage is."""
        self._told = None

    def tell_state(self) -> None:
        """Tell the primary how this storage is, when that has changed or for long has not been told."""
        ground, accepts = self._ground, self._votes.accepts
        if ground.master is None or self._disk == DiskUsage(0, 0):
            return
        if self._told is not None:
            told, when = self._told
            if told == accepts and ground.now < when + ground.settings.state_s:
                return
        self._told = (accepts, ground.now)
        reason = "" if accepts else f"{self._disk.free} bytes are free, {ground.settings.disk_reserve_bytes} are kept"
        settings, disk = ground.settings, self._disk
        state = StorageState(accepts, reason, disk.used, disk.free, settings.domain, settings.weight)
        ground.send(ground.master, state)

    # ---- stopping

    def on_stop(self, master: NodeId, m: Stop) -> None:
        """Exit when what was begun is durable."""
        self._stopping = m.reason
        self.stop_when_done()

    def stop_when_done(self) -> None:
        """Exit if it is asked for and no vote is in progress."""
        if self._stopping is not None and not self._votes.ballots:
            reason, self._stopping = self._stopping, None
            self._ground.when_durable(lambda: self._ground.order(Exit(0, reason)))
