"""Partition tables: losing and getting leads, agreeing with the other cells, joining. Pure."""

from dataclasses import dataclass

from neo_common.ids import NO_TID, NO_VERSION, NodeId, Partition, Tid, Version
from neo_common.model.partition_table import PartitionTable, whole
from neo_common.states import CellState
from neo_common.wire.schema import (
    INLINE_BYTES,
    FwdFail,
    Mode,
    PtOk,
    Pull,
    PullData,
    Ready,
    Record,
    SetPT,
    Stable,
    Sync,
    SyncOk,
    VoteId,
)
from neo_storage.core.ahead import Ahead, inline_bytes
from neo_storage.core.copying import Copies
from neo_storage.core.ground import Ground, cell_state, lead, written
from neo_storage.core.locks import Locks
from neo_storage.core.log_records import (
    LogClear,
    LogCommit,
    LogCopy,
    LogReached,
    LogSeal,
    LogTable,
    LogTruncate,
    LogUnvote,
    LogVote,
)
from neo_storage.core.reading import Reading
from neo_storage.core.scrubbing import Scrubbing
from neo_storage.core.votes import Votes

WARNING = 30


@dataclass(slots=True)
class Join:
    """A cell of this node on its way from JOINING to UP_TO_DATE, under the table of that version.

    `data`: all history up to the cut is in the back end; `sync`: the lead's word on what is undecided is durable.
    """

    version: Version
    stop: Tid
    data: bool = False
    sync: bool = False


class Tables:
    """What a new partition table means for this node."""

    def __init__(
        self,
        ground: Ground,
        locks: Locks,
        ahead: Ahead,
        votes: Votes,
        reading: Reading,
        copies: Copies,
        scrub: Scrubbing,
    ) -> None:
        self._ground = ground
        self._locks = locks
        self._ahead = ahead
        self._votes = votes
        self._reading = reading
        self._copies = copies
        self._scrub = scrub
        self.joins: dict[Partition, Join] = {}

    # ---- a new table

    def on_set(self, master: NodeId, m: SetPT) -> None:
        """Take a newer table; its place among the Commits is the cut of the joins that it begins."""
        ground = self._ground
        old = ground.image.table
        if m.table.version <= old.version:
            return
        self.write(m.table.apply(old), master)
        self.changed(old, m.last)

    def write(self, table: PartitionTable, master: NodeId) -> None:
        """Log *table*, and say when it is durable."""
        ground = self._ground
        record: LogTable | LogTruncate = LogTable(whole(table))
        if self.is_cut(table):
            ground.log(WARNING, f"truncated to {table.orders.cut:#x}, as an operator has ordered")
            record = LogTruncate(whole(table), table.orders.cut)
        for p in self.new_and_readable(table):
            ground.write(LogClear(p, NO_TID))
        ground.write(record, lambda: ground.send(master, PtOk(table.version)))

    def new_and_readable(self, table: PartitionTable) -> list[Partition]:
        """Return the partitions that this node serves although it had no cell of them: an operator has given up all
        others, and it begins with nothing. What it may have of an earlier time was not erased yet, perhaps."""
        ground, old = self._ground, self._ground.image.table
        if not old.partitions or table.orders.line == old.orders.line:
            return []
        mine = table.partitions_of(ground.me)
        return [p for p in mine if ground.me in table.readable(p) and old.state(p, ground.me) is None]

    def is_cut(self, table: PartitionTable) -> bool:
        """Return whether the cluster was truncated since the last table that this node has."""
        return NO_VERSION < self._ground.image.table.version < table.orders.cut_at

    def changed(self, old: PartitionTable, last: Tid | None) -> None:
        """Do what the table, which was *old*, asks of this node. *last* None: no join begins."""
        ground = self._ground
        me, table = ground.me, ground.image.table
        self._votes.expect(old)
        self._ahead.changed(old)
        lost = {p for p in ground.partitions() if lead(old, p) == me and lead(table, p) != me}
        self._votes.leave(frozenset(lost))
        self._locks.leave(frozenset(lost))
        led = {p for p in ground.partitions() if lead(table, p) == me}
        new = frozenset(p for p in led if lead(old, p) != me)
        if new:
            self.become_lead(new)
        for p in sorted(led):
            for node in written(table, p):
                if node != me and (p in new or cell_state(old, p, node) not in _WRITTEN) and self.is_synced(p, node):
                    self.sync(p, node)
        for p in ground.partitions():
            if cell_state(table, p, me) == CellState.JOINING:
                if last is not None and (cell_state(old, p, me) != CellState.JOINING or p not in self.joins):
                    self.begin_join(p, last)
            else:
                self.joins.pop(p, None)
        self._copies.changed()
        self._scrub.changed()
        if last is None:
            self._copies.again()
        self._reading.serve(ask=True)
        self._locks.wake()

    def become_lead(self, partitions: frozenset[Partition]) -> None:
        """Make the locks of *partitions* from the records."""
        self._locks.rebuild(partitions)

    def is_synced(self, partition: Partition, node: NodeId) -> bool:
        """Return whether a new lead, or the lead of a new cell, makes *node* agree. Always."""
        return True

    def on_stable(self, master: NodeId, m: Stable) -> None:
        """The table is durable wherever it must be."""
        self.stabilize(m.version)

    def stabilize(self, version: Version) -> None:
        """Rely on the table of *version*, if it is still the newest: no vote waits for cells that it does not write."""
        if version == self._ground.image.table.version:
            self._ground.stable = self._ground.image.table
            self._votes.relax()

    # ---- agreeing

    def sync(self, partition: Partition, node: NodeId) -> None:
        """Tell *node* all that is undecided in *partition*; it takes what it lacks and forgets what is not there."""
        ground, image = self._ground, self._ground.image
        version = image.table.version
        if node not in ground.peers:  # the cut of a join is this very point: there is no later
            if ground.state(partition, node) == CellState.JOINING:
                ground.send(ground.master, FwdFail(version, node))
            return
        decisions = tuple(d for _, d in sorted(image.decisions.items()))
        records = self._records_for(node, partition)
        ground.send(node, Sync(image.epoch, version, partition, records, decisions, ()))

    def _records_for(self, node: NodeId, partition: Partition) -> tuple[Record, ...]:
        """Return the undecided records; what rests in the log, or would be too much at once, is sent ahead."""
        records: list[Record] = []
        room = INLINE_BYTES
        for _, parts in sorted(self._ground.image.voted.items()):
            voted = parts.get(partition)
            if voted is None:
                continue
            record = voted.record
            size = inline_bytes(record)
            if voted.pieces or record.tentative or size > room:
                self._ahead.repeat(node, voted, record.writes)
                records.append(record._replace(tentative=len(record.writes), writes=()))
            else:
                room -= size
                records.append(record)
        return tuple(records)

    def is_old_stream(self, partition: Partition, version: Version) -> bool:
        """Return whether this was sent before the cell began to join: then it is part of what is copied."""
        state = self._ground.mine(partition)
        if state == CellState.JOINING:
            return partition not in self.joins or version < self.joins[partition].version
        return state is None or state in (CellState.OUT_OF_DATE, CellState.CORRUPTED)

    def on_sync(self, peer: NodeId, m: Sync) -> None:
        """Agree with the lead, and say so when it is durable."""
        ground, image, p = self._ground, self._ground.image, m.partition
        state = ground.mine(p)
        if self.is_old_stream(p, m.version) or lead(image.table, p) != peer or state is None:
            return
        missing = [r for r in m.records if self._is_lacking(r, state)]
        for record in missing:
            if not image.tentative.complete(record, 0).whole:
                self._ahead.gap(peer, record.ttid)
                return
        self._forget_unlisted(p, m, state)
        for record in m.records:
            self._take_synced(record, state)
            self._ahead.drop_of(peer, record.ttid, p)  # of one that came too late
        if state == CellState.JOINING and p in self.joins:
            version = self.joins[p].version
            ground.when_durable(lambda: self._joined(p, version, sync=True))
        votes = tuple(sorted(VoteId(r.ttid, r.attempt) for r in m.records))
        ground.when_durable(lambda: ground.send(peer, SyncOk(p, m.version, votes)))

    def _is_lacking(self, record: Record, state: CellState) -> bool:
        """Return whether `_take_synced` would take *record*: then what went ahead of it must be here.

        A cell that joins takes what is committed too; its Commit may have come between what went ahead and this.
        """
        image = self._ground.image
        mine = image.record(record.ttid, record.partition)
        if mine is not None and mine.attempt >= record.attempt:
            return False
        if image.decision(record.ttid) is not None:
            return state == CellState.JOINING
        return not image.is_superseded(record.ttid, record.attempt)

    def _forget_unlisted(self, partition: Partition, m: Sync, state: CellState) -> None:
        """Forget the records that the lead has not. Those it knows as committed: the primary's Commit is on its way."""
        image = self._ground.image
        listed = {(r.ttid, r.attempt) for r in m.records}
        committed = {d.ttid for d in m.decisions}
        for ttid in sorted(image.voted):
            record = image.record(ttid, partition)
            if record is None or (ttid, record.attempt) in listed:
                continue
            if state == CellState.JOINING or ttid not in committed:
                self._ground.write(LogUnvote(ttid, record.attempt, partition))

    def _take_synced(self, record: Record, state: CellState) -> None:
        ground, image = self._ground, self._ground.image
        mine = image.record(record.ttid, record.partition)
        if mine is not None and mine.attempt >= record.attempt:
            if mine.attempt == record.attempt and record.mode != mine.mode and mine.mode == Mode.A:
                ground.write(LogSeal(record.ttid, record.attempt))
            return
        decision = image.decision(record.ttid)
        if decision is not None:
            if state == CellState.JOINING:
                self._take_vote(record)
                ground.write(LogCommit(*decision, NO_TID))
        elif not self._votes.is_superseded(record.ttid, record.attempt):
            self._take_vote(record)

    def _take_vote(self, record: Record) -> None:
        self._ground.write(LogVote((record,)))
        self._ahead.voted(record.ttid, record.partition)

    def on_sync_ok(self, peer: NodeId, m: SyncOk) -> None:
        """It counts as FwdOk for what it lists."""
        for vote in m.votes:
            self._votes.acked(vote.ttid, (m.partition,), vote.attempt, peer)

    # ---- joining

    def begin_join(self, partition: Partition, last: Tid) -> None:
        """Forget what is undecided, and all above the cut; copy what is lacking below it. The lead sends its votes."""
        ground, image = self._ground, self._ground.image
        ground.write(LogClear(partition, last))
        version = image.table.version
        self.joins[partition] = Join(version, last)
        source = lead(image.table, partition)
        if source is not None and source in ground.peers:
            ground.send(source, Pull(image.epoch, version, partition, NO_TID, last))
        else:
            ground.send(ground.master, FwdFail(version, ground.me))

    def on_join_data(self, peer: NodeId, m: PullData) -> None:
        """Take the decisions up to the cut; then history, as far as it is not here already."""
        ground, image, p = self._ground, self._ground.image, m.partition
        join = self.joins.get(p)
        if join is None or join.version != m.version or join.stop != m.stop or lead(image.table, p) != peer:
            return
        ground.write(LogCopy(p, (), m.decisions))
        version, stop = join.version, join.stop
        self._copies.join(p, version, stop, lambda: self._copied(p, version, stop))

    def _copied(self, partition: Partition, version: Version, stop: Tid) -> None:
        """All history up to the cut is in the back end, durably. It must be there before anybody is sent here."""
        ground = self._ground
        ground.write(LogReached(partition, stop, self._copies.last_oid))
        ground.when_durable(lambda: ground.when_applied(lambda: self._joined(partition, version, data=True)))

    def _joined(self, partition: Partition, version: Version, *, data: bool = False, sync: bool = False) -> None:
        ground = self._ground
        join = self.joins.get(partition)
        if join is None or join.version != version or ground.image.table.version < version:
            return
        join.data |= data
        join.sync |= sync
        if self.is_join_complete(join) and ground.mine(partition) == CellState.JOINING:
            ground.send(ground.master, Ready(version, partition))

    def is_join_complete(self, join: Join) -> bool:
        """Return whether a joining cell has all that an UP_TO_DATE one has."""
        return join.data and join.sync

    def leave_all(self) -> None:
        """A new epoch begins: nothing is led, nothing joins."""
        everything = frozenset(self._ground.partitions())
        self._votes.leave(everything)
        self._locks.leave(everything)
        self.joins.clear()
        self._copies.end_reign()
        self._scrub.changed()


_WRITTEN = (CellState.UP_TO_DATE, CellState.FEEDING, CellState.JOINING)
