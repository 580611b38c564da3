"""A simulated storage: a StorageCore, its shell, and a disk of which a crash takes what was not flushed.

The log is a list of records of which a prefix is durable; a crash keeps that prefix and, by chance, some of what
follows. The back end has applied up to some position; a crash takes it back to any position since its checkpoint, as
losing the last transactions of a database does. Segments are recycled as early as the core allows.
"""

from __future__ import annotations

import dataclasses
import random
from collections import deque
from typing import NamedTuple

from neo_common.core import Durable
from neo_common.ids import NO_NODE, NO_TID, Epoch, NodeId, Partition, Session, Tid, Ttid
from neo_common.states import CellState, Role
from neo_common.wire.schema import AskFate, Compare, Metadata, Pull
from neo_storage.backends.base import Op
from neo_storage.core import image as images
from neo_storage.core.copying import Step
from neo_storage.core.events import (
    Append,
    Applied,
    Apply,
    CopiedIn,
    CopyIn,
    DiskUsage,
    EraseCells,
    Erased,
    Exit,
    Named,
    PackCells,
    Packed,
    PointsRead,
    ReadOwn,
    ReadPoints,
    ReadRange,
)
from neo_storage.core.log_records import LogRecord, LogTable
from neo_storage.core.node import StorageCore
from neo_storage.core.settings import StorageSettings
from neo_storage.core.tentative import MemorySpool
from neo_storage.points import perform
from neo_storage.ranges import compare, look_for, own, pull
from support.checkers import Committed, Spoiled
from support.memory_backend import MemoryBackend, State, Trans
from support.seeking import Seeker
from support.world import World


def cheap_copy(state: State) -> State:
    """Return a copy that does not change when the back end goes on; what it holds is immutable."""
    return dataclasses.replace(
        state,
        decisions=dict(state.decisions),
        tombstones=dict(state.tombstones),
        cells={p: dict(cell) for p, cell in state.cells.items()},
        transactions={p: dict(t) for p, t in state.transactions.items()},
        cursors=dict(state.cursors),
    )


class Slice(NamedTuple):
    """A step of a pack, as the back end has made it: after a crash it is made again, or lost."""

    partition: Partition
    tid: Tid
    limit: int


class Packing:
    """The cells of a pack that are not done."""

    def __init__(self, effect: PackCells) -> None:
        self.order, self.tid = effect.order, effect.tid
        self.cells = deque(effect.partitions)
        self.revisions = self.bytes = 0


class Disk:
    """What survives a crash, and what does not."""

    def __init__(self) -> None:
        self.records: list[tuple[int, LogRecord]] = []
        """The log that was not recycled, in order."""
        self.durable = -1
        """Position up to which the log survives."""
        self.ever: list[tuple[int, LogRecord]] = []
        """The whole log, for the checker."""
        self.backend = MemoryBackend()
        self.saved = cheap_copy(self.backend.state)
        """The back end as of its last checkpoint."""
        self.saved_position = -1
        self.since: list[tuple[int, tuple[Op, ...] | Slice]] = []
        """What it has applied since."""
        self.copies: list[tuple[int, CopyIn | Spoiled]] = []
        """What was copied, each with the position of the last log record before it."""
        self.saved_copies: list[CopyIn] = []
        """Those of them that the checkpoint has."""

    def write(self, position: int, what: tuple[Op, ...] | Slice) -> None:
        """Have the back end do *what*."""
        if isinstance(what, Slice):
            self.backend.pack_step(*what)
        else:
            self.backend.apply(what, position)

    @property
    def position(self) -> int:
        """Return the position of the last record appended."""
        return self.ever[-1][0] if self.ever else -1


class Storing(Seeker):
    """One storage process."""

    role = Role.STORAGE
    core: StorageCore

    def __init__(self, world: World, name: str, node: NodeId, settings: StorageSettings) -> None:
        self.settings = settings
        self.disk = Disk()
        self.disk.backend.at_once = world.reads_at_once
        self.given_node = node
        self._pack_luck = random.Random(f"{world.seed} {name} pack")
        self.exit: Exit | None = None
        super().__init__(world, name, node)

    # ---- life

    def make_core(self) -> StorageCore:
        disk = self.disk
        self._spool = MemorySpool()
        for position, record in disk.records:
            self._spool.note(position, record)
        kept = disk.backend.open()
        image, lacking = images.replay(kept, disk.records, self._spool)
        for position, ops in lacking:
            disk.backend.apply(ops, position)
            disk.since.append((position, ops))
        self.node = image.node if image.node != NO_NODE else self.given_node
        self._to_apply: deque[tuple[int, tuple[Op, ...] | CopyIn | PackCells]] = deque()
        self._packing: Packing | None = None
        self._is_packing = False
        self._is_flushing = False
        self._is_applying = False
        self._flush_due = False
        self._reads: list[ReadRange | ReadOwn] = []
        self.make_bootstrap()
        core = StorageCore(self.node, image, disk.backend, self.settings, self.instant())
        if self.settings.domain:  # the primary is told with the first StorageState
            core.upkeep.on_disk(DiskUsage(1, 2**40))
        return core

    def core_died(self) -> None:
        disk, rng = self.disk, self.world.rng
        # The log: what was flushed, and perhaps some of what was written since.
        extra = [p for p, _ in disk.records if p > disk.durable]
        if extra and rng.random() < 0.5:
            disk.durable = extra[rng.randrange(len(extra))]
        disk.records = [r for r in disk.records if r[0] <= disk.durable]
        disk.ever = [r for r in disk.ever if r[0] <= disk.durable]
        # The back end: anything from its checkpoint on.
        keep = len(disk.since) if rng.random() < 0.7 else rng.randint(0, len(disk.since))
        disk.backend.restore(disk.saved)
        disk.since = disk.since[:keep]
        for position, ops in disk.since:
            disk.write(position, ops)
        there = [*map(id, disk.saved_copies), *(id(ops) for _, ops in disk.since)]
        disk.copies = [
            (at, c) for at, c in disk.copies if isinstance(c, Spoiled) or id(c) in there or id(c.ops) in there
        ]

    def named(self, node: NodeId) -> None:
        if self.node == NO_NODE:
            self.node = node
            self.feed(Named(node))

    def epoch(self) -> Epoch:
        return self.core.image.epoch

    def cluster_id(self) -> bytes:
        return self.core.image.cluster_id

    def committed(self) -> Committed:
        """Return what the log says, flushed or not."""
        result = Committed()
        copies = deque(self.disk.copies)
        for position, record in self.disk.ever:
            while copies and copies[0][0] < position:
                result.add(copies.popleft()[1])
            result.add(record)
        for _, copy in copies:
            result.add(copy)
        return result

    # ---- the shell

    def after_events(self) -> None:
        self.seek()
        wanted = self.core.wanted_peers()
        if not wanted <= self.connections.keys():
            for storage in self.world.of_role(Role.STORAGE):
                if storage.node in wanted:
                    self.dial(storage)

    def perform(self, effect: object) -> None:
        disk = self.disk
        match effect:
            case Append(position, record, urgent):
                assert position == disk.position + 1, f"{self.name} appends {position} after {disk.position}"
                disk.records.append((position, record))
                disk.ever.append((position, record))
                self._spool.note(position, record)
                self.world.note(self.name, "appends", (position, record))
                if urgent:
                    self._flush(self.incarnation)
                elif not self._flush_due:
                    self._flush_due = True
                    self.world.schedule(0.01 * self.world.rng.random(), self._flush, self.incarnation)
            case Apply(position, ops):
                self._to_apply.append((position, ops))
                self._apply_some()
            case ReadRange() | ReadOwn():
                self._reads.append(effect)
                self._read_some()
            case ReadPoints():
                # Two moments of chance: when it looks, and when what it has seen arrives.
                delay = self.world.delay(self.world.temper.apply_s, 0.01, self.name)
                self.world.schedule(delay, self._read_points, effect, self.incarnation)
            case CopyIn():
                disk.copies.append((disk.position, effect))
                self._to_apply.append((-1, effect))
                self._apply_some()
            case PackCells():
                self.world.note(self.name, "packs", effect)
                self._to_apply.append((-1, effect))
                self._apply_some()
            case EraseCells(partitions):
                for partition in partitions:
                    self.world.schedule(self.world.rng.random(), self._erase_some, partition, self.incarnation)
            case Exit(_, reason):
                self.exit = effect
                self.crash(reason)
            case _:
                super().perform(effect)

    def _spoil(self, position: int, record: LogTable) -> None:
        """Leave any part of an OUT_OF_DATE cell, and something that never was committed: so copies may find it.

        When the table is durable here: without it the cell would be readable after a power cut.
        """
        # None of the world's numbers, so that seeds keep their meaning.
        rng = random.Random(self.world.seed * 1_000_003 + position)
        for p, row in record.table.rows:
            copy = self.core.copies.copies.get(p)
            is_untouched = copy is None or (copy.reached == NO_TID and copy.step in (Step.WAIT, Step.COUNT))
            states = {dict(row).get(self.node), self.core.image.table.state(p, self.node)}
            if states != {CellState.OUT_OF_DATE} or not is_untouched or rng.random() < 0.5:
                continue
            for state in (self.disk.backend.state, self.disk.saved):
                if p in state.cells:
                    taken = self._spoil_cell(state, p, random.Random(rng.random()))
                    self.disk.copies.append((position, Spoiled(p, taken)))

    def _spoil_cell(self, state: State, p: Partition, rng: random.Random) -> frozenset[Tid]:
        """Return the tids of what is gone."""
        cell, transactions = state.cells[p], state.transactions.get(p, {})
        tids = sorted(transactions)
        taken = frozenset(t for t in tids if rng.random() < 0.3)
        for tid in sorted(taken):
            del transactions[tid]
            for oid in list(cell):
                cell[oid] = tuple(r for r in cell[oid] if r.tid != tid)
        for oid in sorted(cell):
            if cell[oid] and rng.random() < 0.2:
                stray = cell[oid][-1]._replace(tid=Tid(cell[oid][-1].tid - 1))
                cell[oid] = tuple(sorted((*cell[oid], stray)))
                transactions[stray.tid] = Trans(Ttid(Session(99), int(stray.tid)), Metadata(b"", b"", b""), (p,))
            if not cell[oid]:
                del cell[oid]
        return taken

    def _flush(self, incarnation: int) -> None:
        if not self.alive or self.incarnation != incarnation:
            return
        self._flush_due = False
        if self._is_flushing or self.disk.position == self.disk.durable:
            return
        self._is_flushing = True
        delay = self.world.delay(self.world.temper.disk_s, self.world.temper.disk_tail, self.name)
        self.world.schedule(delay, self._flushed, self.disk.position, self.incarnation)

    def _flushed(self, position: int, incarnation: int) -> None:
        if not self.alive or self.incarnation != incarnation:
            return
        self._is_flushing = False
        new = [(at, r) for at, r in self.disk.records if self.disk.durable < at <= position]
        self.disk.durable = position
        for at, record in new:
            if isinstance(record, LogTable):
                self._spoil(at, record)
        self.feed(Durable(position))
        if self.alive and self.disk.position > self.disk.durable:
            self._flush(incarnation)

    def _apply_some(self) -> None:
        if self._to_apply and not self._is_applying:
            self._is_applying = True
            delay = self.world.delay(self.world.temper.apply_s, 0.01, self.name)
            self.world.schedule(delay, self._applied, self.incarnation)

    def _applied(self, incarnation: int) -> None:
        if not self.alive or self.incarnation != incarnation:
            return
        self._is_applying = False
        rng, disk = self.world.rng, self.disk
        batch = [self._to_apply.popleft() for _ in range(rng.randint(1, len(self._to_apply)))]
        copied: CopyIn | None = None
        for position, ops in batch:
            if isinstance(ops, PackCells):
                self._packing = Packing(ops)
                continue
            if isinstance(ops, CopyIn):
                copied, position, ops = ops, disk.backend.state.position, ops.ops
            assert position <= disk.durable, f"{self.name} applies {position} before it is durable"
            disk.backend.apply(ops, position)
            disk.since.append((position, ops))
        is_save = any(isinstance(ops, CopyIn) and ops.durable for _, ops in batch)
        if is_save or rng.random() < 0.2:
            self._save()
        last = max(position for position, _ in batch)
        if last >= 0:
            self.feed(Applied(last))
        if self.alive and copied is not None:
            self.feed(CopiedIn(copied.number))
        if self.alive:
            self._apply_some()
            self._read_some()
            self._pack_some()

    def _save(self) -> None:
        """A checkpoint: what the back end has is durable, and the log is recycled as early as the core allows."""
        disk = self.disk
        disk.saved = cheap_copy(disk.backend.state)
        disk.saved_position = disk.backend.state.position
        waiting = [w for _, w in self._to_apply]
        disk.saved_copies = [c for _, c in disk.copies if isinstance(c, CopyIn) and c not in waiting]
        disk.since = []
        needed = self.core.needed_from(disk.saved_position)
        disk.records = [r for r in disk.records if r[0] >= min(needed, disk.position)]
        for position in [p for p in self._spool.records if p < needed]:
            del self._spool.records[position]

    def _pack_some(self) -> None:
        """Make the next slice of the pack after a while: sometimes a long one, so that much happens in between."""
        if self._packing is not None and self._packing.cells and not self._is_packing:
            self._is_packing = True
            pause = self._pack_luck.expovariate(1 / self.world.temper.apply_s)
            if self._pack_luck.random() < 0.1:
                pause = min(1.0, 100 * pause)
            self.world.schedule(pause, self._pack_slice, self.incarnation)

    def _pack_slice(self, incarnation: int) -> None:
        if not self.alive or self.incarnation != incarnation:
            return
        self._is_packing = False
        packing, disk = self._packing, self.disk
        if packing is None or not packing.cells:
            return
        what = Slice(packing.cells[0], packing.tid, self._pack_luck.choice((1, 3, 1000)))
        step = disk.backend.pack_step(*what)
        disk.since.append((disk.backend.state.position, what))
        packing.revisions += step.revisions_removed
        packing.bytes += step.bytes_removed
        if self._pack_luck.random() < 0.2:
            self._save()
        if step.done:
            done = Packed(packing.order, packing.cells.popleft(), packing.revisions, packing.bytes)
            packing.revisions = packing.bytes = 0
            self.feed(done)
        if self.alive:
            self._pack_some()

    @property
    def is_packing(self) -> bool:
        """Whether a pack is not done here, or the back end has not all that it must have."""
        run = self.core.upkeep.run
        return bool(self._to_apply) or (run is not None and run.done < run.cells)

    def _erase_some(self, partition: Partition, incarnation: int) -> None:
        """Erase a slice of a dropped cell, and the next one later."""
        if not self.alive or self.incarnation != incarnation:
            return
        if self.disk.backend.erase_step(partition, 2):
            self.feed(Erased(partition))
        else:
            self.world.schedule(0.2 * self.world.rng.random(), self._erase_some, partition, incarnation)

    def _read_points(self, read: ReadPoints, incarnation: int) -> None:
        if not self.alive or self.incarnation != incarnation:
            return
        result = perform(self.disk.backend.range_reader(), read.wanted)
        delay = self.world.delay(self.world.temper.apply_s, 0.01, self.name)
        self.world.schedule(delay, self._points_read, PointsRead(read.number, result), incarnation)

    def _points_read(self, event: PointsRead, incarnation: int) -> None:
        if self.alive and self.incarnation == incarnation:
            self.feed(event)

    def _read_some(self) -> None:
        """Begin the long reads that need no more than what is applied."""
        applied = self.disk.since[-1][0] if self.disk.since else self.disk.saved_position
        for read in [r for r in self._reads if r.position <= applied]:
            self._reads.remove(read)
            delay = self.world.delay(self.world.temper.apply_s, 0.01, self.name)
            if isinstance(read, ReadOwn):
                self.world.schedule(delay, self._read_own, read, self.incarnation)
            else:
                self.world.schedule(delay, self._read, read, self.incarnation)

    def _read(self, read: ReadRange, incarnation: int) -> None:
        if not self.alive or self.incarnation != incarnation:
            return
        if not self.core.giving.may_say(read):
            return
        reader, question = self.disk.backend.range_reader(), read.packet
        if isinstance(question, Compare):
            self.send(read.peer, compare(reader, question, len(self._reads)))
            return
        if isinstance(question, AskFate):
            self.send(read.peer, look_for(reader, question, limit=2))
            return
        assert isinstance(question, Pull), question
        self.send(read.peer, pull(reader, question, lambda piece: self.send(read.peer, piece), limit=2))

    def _read_own(self, read: ReadOwn, incarnation: int) -> None:
        if self.alive and self.incarnation == incarnation:
            self.feed(own(self.disk.backend.range_reader(), read.number, read.question))
