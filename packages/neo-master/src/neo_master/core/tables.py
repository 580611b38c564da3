"""The partition table: one change at a time, effective when it is durable on every node that could outvote it. Pure.

A change is sent to every storage; it is *stable* when every node readable in the new table, or in the one before, has
it durable, and when it is covered (docs/masters.md). Clients hear of a stable table before storages hear that it is
stable. Then the next change may begin. A change either adds readable cells or takes some away, never both.
"""

from collections.abc import Iterable, Sequence

from neo_common.ids import NodeId, Partition, Ptid, Seconds, Version
from neo_common.model.partition_table import Cell, PartitionTable, Row, TableUpdate, difference, whole
from neo_common.states import CellState, Role, check_cell
from neo_common.wire.schema import CaughtUp, Copying, FwdFail, NewPT, PtOk, Ready, SetPT, Stable
from neo_master.core.base import MasterBase
from neo_master.core.changes import (
    Advance,
    Begin,
    Change,
    Corrupt,
    Demote,
    DemoteCell,
    Drop,
    Join,
    MoveLead,
    Promote,
    Rebuild,
    TableChange,
)
from neo_master.core.effects import INFO

_O, _J, _U, _F = CellState.OUT_OF_DATE, CellState.JOINING, CellState.UP_TO_DATE, CellState.FEEDING
_C = CellState.CORRUPTED


class Tables(MasterBase):
    """Change the partition table."""

    # ------------------------------------------------------------------------------------------ one at a time

    def request_change(self, change: Change) -> None:
        """Queue a change, and begin it if none is under way.

        What the last order wants has all that those before it want: their changes, if they still wait, would take its
        steps, as there is one goal, while the table does not say yet what it is for.
        """
        if isinstance(change, Begin):
            for earlier in [c for c in self.changes if isinstance(c, Begin)]:
                self.changes.remove(earlier)
        if change not in self.changes:
            self.changes.append(change)
        self.pump()

    def pump(self) -> None:
        """Begin the next change that changes anything, if none is under way."""
        while self.is_running and not self.is_changing:
            step = None if self.changes else self.next_step()
            if step is not None:
                self.changes.append(step)
            if not self.changes:
                return
            group = self.next_changes()
            rows: dict[Partition, Row] = {}
            self.new_orders = None
            promoted: list[tuple[Partition, NodeId]] = []
            joined: list[tuple[Partition, NodeId]] = []
            for change in group:
                self.make_change(change, rows, promoted, joined)
            rows = {p: row for p, row in rows.items() if row != self.pt.rows[p]}
            if rows or self.new_orders is not None:
                self.begin_change(rows, promoted, joined)

    @property
    def is_changing(self) -> bool:
        """Whether a change is under way."""
        return self.pt_need is not None or self.next_change is not None

    def begin_change(
        self,
        rows: dict[Partition, Row],
        promoted: Sequence[tuple[Partition, NodeId]],
        joined: Sequence[tuple[Partition, NodeId]],
    ) -> None:
        """Make the next version; send it to the storages, or to the masters first."""
        for p, row in rows.items():
            states = dict(self.pt.rows[p])
            for node, state in row:
                check_cell(states.get(node, _O), state)  # a new cell is out of date
        orders, replicas = self.new_orders or (self.pt.orders, self.pt.replicas)
        table = self.pt.changed(Version(self.epoch, Ptid(self.pt.version.ptid + 1)), rows, replicas, orders)
        change = TableChange(table, rows, tuple(promoted), tuple(joined))
        if self.must_be_held_first(table, rows):
            self.next_change = change
            self.put_forward(table)
        else:
            self.send_table(change)

    def must_be_held_first(self, new: PartitionTable, rows: Iterable[Partition]) -> bool:
        """Whether a majority of the masters must hold that table before storages hear of it.

        So it is when it takes readable cells away, unless a row that loses none will be a cover: a storage that had
        it alone could later be all that a candidate without majority needs, after others went on without it.
        """
        if not self.is_quorum:
            return False
        losing = {p for p in rows if not self.readable_in(p) <= set(new.readable(p))}
        if not losing:
            return False
        seen: set[frozenset[NodeId]] = set()
        for p in map(Partition, range(new.partitions)):
            if p not in losing:
                seen.add(frozenset(new.readable(p)))
        return not any(row and row <= self.adopted for row in seen)

    def table_held(self, table: PartitionTable) -> None:
        """A majority of the masters holds that table: storages may hear of it, if they have not yet."""
        change = self.next_change
        if change is not None and change.table.version == table.version:
            self.next_change = None
            self.send_table(change)

    def readable_in(self, partition: Partition) -> set[NodeId]:
        """Return the nodes on which a partition is readable in the newest table or in the stable one.

        While a table is not stable, who comes to power may begin with either.
        """
        nodes = set(self.pt.readable(partition))
        if self.stable_pt.version != self.pt.version and partition < self.stable_pt.partitions:
            nodes.update(self.stable_pt.readable(partition))
        return nodes

    def written_in(self, partition: Partition) -> set[NodeId]:
        """Return the nodes on which a partition is written in the newest table or in the stable one."""
        nodes = set(self.pt.written(partition))
        if self.stable_pt.version != self.pt.version and partition < self.stable_pt.partitions:
            nodes.update(self.stable_pt.written(partition))
        return nodes

    def readable_nodes(self) -> frozenset[NodeId]:
        """Return the nodes readable in the newest table or in the stable one."""
        return self.pt.readable_nodes() | self.stable_readable

    def next_changes(self) -> list[Change]:
        """Take the next change, with those after it that are of the same kind: rows do not depend on each other.

        Promotions, or joins, of several rows at once are one table: a storage that returns has a cell in many rows.
        Orders are one after the other: each begins from what the one before has left.
        """
        group = [self.changes.popleft()]
        while self.changes and type(self.changes[0]) is type(group[0]) is not Begin:
            group.append(self.changes.popleft())
        return group

    def make_change(
        self,
        change: Change,
        rows: dict[Partition, Row],
        promoted: list[tuple[Partition, NodeId]],
        joined: list[tuple[Partition, NodeId]],
    ) -> None:
        """Put the rows that *change* changes into *rows*; a change that is no longer possible changes none."""
        match change:
            case Demote(node):
                for p in self.pt.partitions_of(node):
                    rows[p] = self.demoted(p, rows.get(p, self.pt.rows[p]), node)
            case DemoteCell(partition, node):
                rows[partition] = self.demoted(partition, rows.get(partition, self.pt.rows[partition]), node)
            case Join(node, partitions):
                for p in partitions:
                    if self.may_join(p, node):
                        rows[p] = replaced(rows.get(p, self.pt.rows[p]), node, _J)
                        joined.append((p, node))
                        self.caught_up.discard((p, node))
            case Promote(partition, node, version):
                if self.may_promote(partition, node, version):
                    # At the end of the row: a promotion never changes the lead.
                    rows[partition] = moved_to_end(rows.get(partition, self.pt.rows[partition]), node, _U)
                    promoted.append((partition, node))
            case Corrupt(partition, node):
                rows[partition] = self.corrupted(partition, rows.get(partition, self.pt.rows[partition]), node)
            case Rebuild(partition, node):
                if self.pt.state(partition, node) == _C:
                    rows[partition] = replaced(rows.get(partition, self.pt.rows[partition]), node, _O)
            case MoveLead(partition):
                rows[partition] = self.lead_moved(partition, rows.get(partition, self.pt.rows[partition]))
            case Begin(orders, replicas):
                if (orders, replicas) != (self.pt.orders, self.pt.replicas):
                    self.new_orders = (orders, replicas)
                if self.goal is not None:
                    self.advance(self.step_rows(), rows)
                elif not orders.is_balancing:
                    self.stay(rows)
            case Advance(steps):
                self.advance(dict(steps), rows)
            case Drop(node):
                self.drop(node, rows)

    def advance(self, steps: dict[Partition, Row], rows: dict[Partition, Row]) -> None:
        """Put the steps into *rows*. Cells that are new may join at once, whatever has failed before."""
        for p, row in steps.items():
            rows[p] = row
            for node, _ in row:
                if self.pt.state(p, node) is None:
                    self.rejoin.pop(node, None)

    def stay(self, rows: dict[Partition, Row]) -> None:
        """Nothing moves any more: cells that were on their way out stay."""
        for p, row in enumerate(self.pt.rows):
            if any(s == _F for _, s in row):
                new = tuple(Cell(n, _U if s == _F else s) for n, s in row)
                rows[Partition(p)] = new if self.lead_in(new) == self.lead_in(row) else without_joining(new)

    def drop(self, node: NodeId, rows: dict[Partition, Row]) -> None:
        """Take the cells of *node* out of the table, where that is possible; then nothing is ordered of it either."""
        for p in self.pt.partitions_of(node):
            row = rows.get(p, self.pt.rows[p])
            if self.may_drop(row, node):
                kept = tuple(c for c in row if c.node != node)
                rows[p] = without_joining(kept) if self.lead_in(row) == node else kept
        orders, replicas = self.new_orders or (self.pt.orders, self.pt.replicas)
        leaving = tuple(n for n in orders.leaving if n != node)
        if leaving != orders.leaving:
            self.new_orders = (orders._replace(leaving=leaving), replicas)
        self.dropped(node)

    def demoted(self, partition: Partition, row: Row, node: NodeId) -> Row:
        """Return the row with the cell of *node* out of date, at the end; the same row if that is not possible.

        The last UP_TO_DATE cell is never put out of date; a FEEDING one, which has all that it has, stays in its place.
        Whatever was joining has lost its source when the lead is.
        """
        state = dict(row).get(node)
        lead = self.lead_in(row)
        if state == _U and not self.may_demote(row, state):
            row = self.with_heir(row, node)
        if state is not None and self.may_demote(row, state):
            row = moved_to_end(row, node, _O)
        if node == lead:
            row = without_joining(row)
        return row

    def with_heir(self, row: Row, node: NodeId) -> Row:
        """Return the row with a FEEDING cell made UP_TO_DATE: *node*, the last one that is, will be put out of date."""
        heir = next((n for n, s in row if s == _F and n != node and n in self.adopted), None)
        return row if heir is None else replaced(row, heir, _U)

    def corrupted(self, partition: Partition, row: Row, node: NodeId) -> Row:
        """Return the row with the cell of *node* CORRUPTED, at the end; the same row if no other is UP_TO_DATE."""
        state = dict(row).get(node)
        if state not in (_U, _F) or not self.may_demote(row, state):
            return row
        lead = self.lead_in(row)
        row = moved_to_end(row, node, _C)
        return without_joining(row) if node == lead else row

    def may_demote(self, row: Row, state: CellState) -> bool:
        """Whether a cell of that state, in that row, can be put out of date."""
        return state == _J or (state in (_U, _F) and sum(s == _U for _, s in row) - (state == _U) > 0)

    def may_join(self, partition: Partition, node: NodeId) -> bool:
        """Whether that cell can begin to join: out of date, and both it and the lead adopted (never by Adopt).

        It has caught up before, so that the join, during which votes wait for it, has little to copy.
        """
        lead = self.pt.lead(partition)
        is_caught_up = (partition, node) in self.caught_up
        return is_caught_up and self.pt.state(partition, node) == _O and lead in self.adopted and node in self.adopted

    def on_caught_up(self, storage: NodeId, packet: CaughtUp) -> None:
        """Cells have history up to near the present."""
        if packet.epoch == self.epoch and storage in self.obeying:
            self.caught_up.update((p, storage) for p in packet.partitions if p < self.pt.partitions)

    def on_copying(self, storage: NodeId, packet: Copying) -> None:
        """How far copies are: for people."""
        if packet.cells:
            self.copying[storage] = packet.cells
        else:
            self.copying.pop(storage, None)

    def copies_storage_lost(self, storage: NodeId) -> None:
        """It must catch up again."""
        self.copying.pop(storage, None)
        self.caught_up = {key for key in self.caught_up if key[1] != storage}

    def may_promote(self, partition: Partition, node: NodeId, version: Version) -> bool:
        """Whether that cell is complete: Ready counts for the join that began with that version only."""
        return self.pt.state(partition, node) == _J and self.joining.get((partition, node)) == version

    def lead_moved(self, partition: Partition, row: Row) -> Row:
        """Return the row with its lead at the end, if another cell can lead."""
        lead = self.lead_in(row)
        if lead is None or sum(s == _U for _, s in row) < 2:
            return row
        return without_joining(moved_to_end(row, lead, _U))

    def lead_in(self, row: Row) -> NodeId | None:
        """Return the lead of a row: its first UP_TO_DATE cell."""
        return next((n for n, s in row if s == _U), None)

    def send_table(self, change: TableChange) -> None:
        """Send the next version to every storage; note who must make it durable."""
        old, rows = self.pt, change.rows
        self.pt = change.table
        self.pt_have = set()
        self.is_taken_back = False
        self.index_table()
        self.log(INFO, f"table {self.pt.version}: " + "; ".join(self.row_text(p) for p in sorted(rows)[:8]))
        self.pt_need = self.must_have_table(old, self.pt)
        for storage in sorted(self.obeying):
            self.send(storage, SetPT(self.table_for(storage), self.last))
        self.placed()
        self.promoting = change.promoted
        for key in change.joined:
            self.joining[key] = self.pt.version
        self.check_stable()

    def set_stable(self) -> None:
        """The newest table is stable."""
        self.covered_until = Seconds(0.0)
        self.stable_pt = self.pt
        self.stable_readable = self.pt.readable_nodes()
        self.disks_changed()

    def index_table(self) -> None:
        """Note what is asked often of the new table."""
        self.covered_until = Seconds(0.0)
        self.readiness.table_changed(self.pt)
        self.out_of_date = {}
        joining = set()
        for p, row in enumerate(self.pt.rows):
            for node, state in row:
                if state == _O:
                    self.out_of_date.setdefault(node, []).append(Partition(p))
                elif state == _J:
                    joining.add(node)
        self.is_joining = frozenset(joining)

    def must_have_table(self, old: PartitionTable, new: PartitionTable) -> set[NodeId]:
        """Return who must have *new* durable before it is stable: who is readable in it, or in the one before."""
        return {n for n in new.readable_nodes() | old.readable_nodes() if n in self.connected}

    def row_text(self, partition: Partition) -> str:
        """Return a row for people."""
        return f"{partition}: " + " ".join(f"{self.text(n)}={s.letter}" for n, s in self.pt.rows[partition])

    def on_pt_ok(self, storage: NodeId, packet: PtOk) -> None:
        """A table is durable there."""
        if self.pt_need is not None and packet.version == self.pt.version:
            self.pt_need.discard(storage)
            self.pt_have.add(storage)
            self.check_stable()

    def check_stable(self) -> None:
        """When the table is stable: tell clients, then storages; then see what has waited for it."""
        if self.pt_need is None or self.pt_need or not self.is_running:
            return
        if self.is_taken_back and self.must_skip():
            self.pt_need, self.promoting = None, ()
            self.pump()
            return
        if self.proposed_table.version != self.pt.version:
            self.put_forward(self.pt)
        if not self.is_covered():
            return
        self.pt_need, self.promoting = None, ()
        self.set_stable()
        self.tell_table()
        for storage in sorted(self.obeying):
            self.send(storage, Stable(self.pt.version))
        self.written_changed()
        for ttid in sorted(self.aborting):
            if ttid in self.aborting:
                self.check_abort(ttid)
        for session in sorted(self.going):
            self.went(session)
        for ttid in sorted(self.sealing):
            if ttid in self.sealing:
                self.seal(ttid)
        self.answer_orders()
        self.check_pack()
        self.pump()

    def tell_table(self) -> None:
        """Send the stable table to clients and admins. (Those with the same former table get the same object.)"""
        packets: dict[Version | None, NewPT] = {}
        for peer in sorted([*self.clients, *self.peers(Role.ADMIN)]):
            had = self.sent_pt.get(peer)
            base = had.version if had is not None else None
            if base == self.pt.version:
                continue
            if base not in packets:
                packets[base] = NewPT(self.table_for(peer))
            self.sent_pt[peer] = self.pt
            self.send(peer, packets[base])

    def table_for(self, peer: NodeId, *, is_whole: bool = False) -> TableUpdate:
        """Return the table as *peer* needs it, and note that it has it."""
        had = None if is_whole else self.sent_pt.get(peer)
        self.sent_pt[peer] = self.pt
        return whole(self.pt) if had is None else difference(had, self.pt)

    # ------------------------------------------------------------------------------------------ why it changes

    def table_storage_lost(self, storage: NodeId) -> None:
        """Put its cells out of date; take back a promotion that it could outvote."""
        if self.pt_need is not None:
            self.take_back_promotion(storage)
            self.pt_need.discard(storage)
        self.changes.append(Demote(storage))
        self.check_stable()
        self.pump()

    def take_back_promotion(self, storage: NodeId) -> None:
        """A promotion is stable only if every node readable before it has it durable: undo it if one of those is lost.

        That node, alone, would be complete for a recovery that does not know of the promotion.
        """
        if self.pt_need is None or storage not in self.pt_need:
            return
        if any(storage in self.pt.readable(partition) for partition, _ in self.promoting):
            for partition, node in reversed(self.promoting):
                self.changes.appendleft(DemoteCell(partition, node))
            self.is_taken_back = True

    def must_skip(self) -> bool:
        """Whether a table that will be undone is passed over: with a quorum masters must never hold it."""
        return self.is_quorum

    def on_fwd_fail(self, storage: NodeId, packet: FwdFail) -> None:
        """A lead cannot reach a cell; or a cell that joins cannot reach its lead. The word of others does not count."""
        if not self.is_running or storage not in self.obeying:
            return
        for p in self.pt.partitions_of(packet.node):
            state = self.pt.state(p, packet.node)
            change = DemoteCell(p, packet.node)
            is_its_own = storage == packet.node and state == _J
            if (is_its_own or self.is_word_of_lead(storage, p, state)) and change not in self.changes:
                self.changes.append(change)
        self.pump()
        if self.stable_pt.version == self.pt.version and not self.is_changing:  # it may have been done: say so again
            self.send(storage, Stable(self.pt.version))

    def is_word_of_lead(self, storage: NodeId, partition: Partition, state: CellState | None) -> bool:
        """Whether *storage* leads that partition in the current table, and the cell is one that it must reach."""
        return self.pt.lead(partition) == storage and state is not None and state.is_written

    def on_ready(self, storage: NodeId, packet: Ready) -> None:
        """A join is complete."""
        if self.is_running and packet.partition < self.pt.partitions and self.pt.state(packet.partition, storage) == _J:
            self.rejoin.pop(storage, None)  # what waits longer each time are joins that fail
            self.request_change(Promote(packet.partition, storage, packet.version))

    def rejoin_cells(self) -> None:
        """Let the OUT_OF_DATE cells of adopted storages join, when no change is under way and their leads are adopted.

        A cell whose join was broken off waits: from `rejoin_min_s`, doubled each time, to `rejoin_max_s`.
        """
        if not self.is_running or self.is_changing or self.changes:
            return
        for node in sorted(self.rejoin.keys() - self.out_of_date.keys() - self.is_joining):
            del self.rejoin[node]
        for node in sorted(self.adopted & self.out_of_date.keys() - self.is_joining):
            cells = tuple(p for p in self.out_of_date[node] if self.may_join(p, node))
            due, delay = self.rejoin.get(node, (Seconds(0.0), self.settings.rejoin_min_s))
            if cells and self.now.monotonic >= due:
                later = Seconds(self.now.monotonic + delay)
                self.rejoin[node] = (later, min(2 * delay, self.settings.rejoin_max_s))
                self.request_change(Join(node, cells))
                return


def replaced(row: Row, node: NodeId, state: CellState) -> Row:
    """Return *row* with the cell of *node* in another state, at its place."""
    return tuple(Cell(n, state if n == node else s) for n, s in row)


def moved_to_end(row: Row, node: NodeId, state: CellState) -> Row:
    """Return *row* with the cell of *node* in another state, at the end."""
    return (*(c for c in row if c.node != node), Cell(node, state))


def without_joining(row: Row) -> Row:
    """Return *row* with whatever was joining out of date."""
    return tuple(Cell(n, _O if s == _J else s) for n, s in row)
