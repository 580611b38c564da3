"""A back end of dictionaries, for unit tests and the simulator: the slow, obvious twin of the real ones.

It keeps whole values and nothing on disk; `snapshot` and `restore` are its disk. It passes the suite of every back end.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from neo_common.ids import NO_EPOCH, NO_NODE, NO_TID, Epoch, NodeId, Oid, Partition, Tid, Ttid
from neo_common.model.partition_table import EMPTY, PartitionTable
from neo_common.wire.schema import (
    PIECE_BYTES,
    Ceilings,
    CellSize,
    Change,
    Compression,
    Data,
    Decision,
    Metadata,
    RangeDigest,
    Revision,
    Tombstone,
    Transaction,
    UndoInfo,
)
from neo_storage.backends.base import (
    ApplyAbort,
    ApplyAmnesty,
    ApplyCeilings,
    ApplyClear,
    ApplyCollect,
    ApplyCommit,
    ApplyCopy,
    ApplyDecision,
    ApplyDoom,
    ApplyDrop,
    ApplyEpoch,
    ApplyIdentity,
    ApplyPack,
    ApplyTable,
    ApplyTruncate,
    Kept,
    Op,
    PackStep,
    Place,
    Stored,
    Waits,
    digest_of,
)

NO_CEILINGS = Ceilings(NO_TID, Oid(0))


class Rev(NamedTuple):
    """A revision with its whole value."""

    tid: Tid
    copied_from: Tid
    data: Data

    @property
    def is_deletion(self) -> bool:
        return self.data.compression == Compression.ABSENT

    def travelling(self) -> Data:
        """The data as it is handed out: large values in pieces."""
        return self.data if self.data.size <= PIECE_BYTES else self.data._replace(value=b"")


class Trans(NamedTuple):
    """A transaction in one partition."""

    ttid: Ttid
    metadata: Metadata
    parts: tuple[Partition, ...]


@dataclass
class State:
    """All that it knows."""

    position: int = -1
    node: NodeId = NO_NODE
    cluster_id: bytes = bytes(16)
    epoch: Epoch = NO_EPOCH
    table: PartitionTable = EMPTY
    ceilings: Ceilings = NO_CEILINGS
    decisions: dict[Ttid, Decision] = field(default_factory=dict)
    tombstones: dict[Ttid, int] = field(default_factory=dict)
    pack_order: int = 0
    pack_tid: Tid = NO_TID
    last_tid: Tid = NO_TID
    last_oid: Oid = NO_CEILINGS.oid
    doomed: tuple[Partition, ...] = ()
    cells: dict[Partition, dict[Oid, tuple[Rev, ...]]] = field(default_factory=dict)
    transactions: dict[Partition, dict[Tid, Trans]] = field(default_factory=dict)
    cursors: dict[Partition, tuple[Tid, Oid | None]] = field(default_factory=dict)


class MemoryBackend:
    """Backend, Reader and, through `range_reader`, RangeReader."""

    def __init__(self) -> None:
        self._state = State()
        self.at_once = True

    def snapshot(self) -> State:
        """Return what survives until `restore`."""
        return copy.deepcopy(self._state)

    def restore(self, state: State) -> None:
        """Go back to a snapshot, which stays as it is."""
        self._state = copy.deepcopy(state)

    # ---- Reader

    def current(self, partition: Partition, oid: Oid) -> Tid:
        revisions = self._revisions(partition, oid)
        return revisions[-1].tid if revisions else NO_TID

    def load(self, partition: Partition, oid: Oid, before: Tid) -> Stored | None:
        revisions = self._revisions(partition, oid)
        below = [r for r in revisions if r.tid < before]
        if not below:
            return None
        end = revisions[len(below)].tid if len(below) < len(revisions) else NO_TID
        return Stored(below[-1].tid, end, below[-1].travelling())

    def piece(self, partition: Partition, oid: Oid, tid: Tid, offset: int) -> bytes | None:
        for rev in self._revisions(partition, oid):
            if rev.tid == tid and offset % PIECE_BYTES == 0 and offset < rev.data.size:
                return rev.data.value[offset : offset + PIECE_BYTES]
        return None

    # ---- Backend

    def open(self) -> Kept:
        s = self._state
        return Kept(
            position=s.position,
            node=s.node,
            cluster_id=s.cluster_id,
            epoch=s.epoch,
            table=s.table,
            ceilings=s.ceilings,
            decisions=tuple(sorted(s.decisions.values(), key=lambda d: d.tid)),
            tombstones=tuple(Tombstone(t, a) for t, a in s.tombstones.items()),
            pack_order=s.pack_order,
            pack_tid=s.pack_tid,
            last_tid=s.last_tid,
            last_oid=s.last_oid,
            doomed=s.doomed,
        )

    def claim(self) -> None:
        """There is nobody else."""

    def apply(self, ops: Sequence[Op], position: int) -> None:
        assert position >= self._state.position, f"{position} after {self._state.position}"
        for op in ops:
            self._apply(op)
        self._state.position = position

    def checkpoint(self) -> int:
        return self._state.position

    def pack_step(self, partition: Partition, tid: Tid, limit: int) -> PackStep:
        packed_to, first = self._state.cursors.get(partition, (NO_TID, Oid(0)))
        if packed_to != tid:
            first = Oid(0)
        if first is None:
            return PackStep(True, 0, 0)
        cell = self._state.cells.get(partition, {})
        looked_at = removed = size = 0
        rest: Oid | None = None
        for oid in sorted(o for o in cell if o >= first):
            if looked_at >= limit:
                rest = oid
                break
            looked_at += len(cell[oid])
            gone = _packed_away(cell[oid], tid)
            removed += len(gone)
            size += sum(r.data.size for r in gone)
            self._remove(partition, oid, gone)
        self._state.cursors[partition] = (tid, rest)
        return PackStep(rest is None, removed, size)

    def erase_step(self, partition: Partition, limit: int) -> bool:
        s = self._state
        if partition not in s.doomed:
            return True
        cell = s.cells.get(partition, {})
        left = limit
        for oid in sorted(cell):
            gone = cell[oid][:left]
            left -= len(gone)
            self._remove(partition, oid, gone)
            if not left:
                return False
        transactions = s.transactions.get(partition, {})
        for tid in sorted(transactions)[:limit]:
            del transactions[tid]
            left -= 1
        if left <= 0:
            return False
        s.doomed = tuple(p for p in s.doomed if p != partition)
        return True

    def reconnect(self) -> None:
        raise AssertionError("memory is not lost")

    def hub_reader(self, waits: Waits) -> None:
        del waits

    def range_reader(self) -> "MemoryRangeReader":
        return MemoryRangeReader(self)

    def disk(self) -> tuple[int, int]:
        cells = self._state.cells.values()
        used = sum(rev.data.size for cell in cells for revisions in cell.values() for rev in revisions)
        return used, 2**40

    def news(self) -> tuple[str, ...]:
        """Return nothing."""
        return ()

    def close(self) -> None:
        """Nothing is held."""

    # ---- details

    @property
    def state(self) -> State:
        """All that it knows, for those who look on."""
        return self._state

    def _revisions(self, partition: Partition, oid: Oid) -> tuple[Rev, ...]:
        return self._state.cells.get(partition, {}).get(oid, ())

    def _apply(self, op: Op) -> None:
        s = self._state
        match op:
            case ApplyIdentity(node, cluster_id):
                s.node, s.cluster_id = node, cluster_id
            case ApplyEpoch(epoch):
                s.epoch = epoch
            case ApplyTable(table):
                s.table = table
            case ApplyCeilings(ceilings):
                s.ceilings = ceilings
            case ApplyCommit():
                self._commit(op)
            case ApplyDecision(decision):
                s.decisions[decision.ttid] = decision
                s.tombstones.pop(decision.ttid, None)
            case ApplyAbort(Tombstone(ttid, attempt)):
                s.tombstones[ttid] = max(attempt, s.tombstones.get(ttid, 0))
            case ApplyAmnesty(is_all):
                s.tombstones.clear()
                if is_all:
                    s.decisions.clear()
            case ApplyClear(partition, keep):
                for oid, revisions in sorted(s.cells.get(partition, {}).items()):
                    self._remove(partition, oid, [r for r in revisions if r.tid > keep])
                transactions = s.transactions.get(partition, {})
                s.transactions[partition] = {t: x for t, x in transactions.items() if t <= keep}
                s.last_tid = max([NO_TID, *(t for found in s.transactions.values() for t in found)])
            case ApplyDoom(partitions, back):
                s.doomed = tuple(sorted((set(s.doomed) | set(partitions)) - set(back)))
            case ApplyTruncate(keep):
                for partition in sorted(s.cells.keys() | s.transactions.keys()):
                    self._apply(ApplyClear(partition, keep))
                s.decisions = {t: d for t, d in s.decisions.items() if d.tid <= keep}
                s.last_tid = max([NO_TID, *(t for found in s.transactions.values() for t in found)])
            case ApplyCopy(partition, transactions, decisions, pieces):
                for transaction in transactions:
                    self._copy(partition, transaction, pieces)
                for decision in decisions:
                    s.decisions[decision.ttid] = decision
                packed_to, _ = s.cursors.get(partition, (NO_TID, None))
                if any(t.tid <= packed_to for t in transactions):
                    del s.cursors[partition]
            case ApplyDrop(partition, places, tids):
                for oid, revisions in sorted(s.cells.get(partition, {}).items()):
                    gone = [r for r in revisions if r.tid in tids or Place(r.tid, oid) in places]
                    self._remove(partition, oid, gone)
                for tid in tids:
                    s.transactions.get(partition, {}).pop(tid, None)
            case ApplyPack(order, tid):
                s.pack_order, s.pack_tid = order, tid
            case ApplyCollect(tid, oids):
                for oid in oids:
                    partition = s.table.partition(oid)
                    revisions = self._revisions(partition, oid)
                    if revisions and revisions[-1].tid <= tid:
                        self._remove(partition, oid, revisions)

    def _commit(self, op: ApplyCommit) -> None:
        s = self._state
        for ttid in [t for t, d in s.decisions.items() if d.tid <= op.forget]:
            del s.decisions[ttid]
        s.decisions[op.ttid] = Decision(op.ttid, op.attempt, op.tid, op.parts)
        s.tombstones.pop(op.ttid, None)
        s.last_tid = max(s.last_tid, op.tid)
        for partition, writes in op.partitions:
            self._note(partition, op.tid, Trans(op.ttid, op.metadata, op.parts))
            for write in writes:
                data = write.data
                if data.size and not data.value:
                    data = data._replace(value=b"".join(op.pieces(write.oid)))
                self._add(partition, write.oid, Rev(op.tid, write.copied_from, data))

    def _copy(self, partition: Partition, transaction: Transaction, pieces: Callable[[Oid], Iterator[bytes]]) -> None:
        s = self._state
        s.last_tid = max(s.last_tid, transaction.tid)
        self._note(partition, transaction.tid, Trans(transaction.ttid, transaction.metadata, transaction.parts))
        for revision in transaction.revisions:
            data = revision.data
            assert data is not None
            if data.size and not data.value:
                data = data._replace(value=b"".join(pieces(revision.oid)))
            if not any(r.tid == revision.tid for r in self._revisions(partition, revision.oid)):
                self._add(partition, revision.oid, Rev(revision.tid, revision.copied_from, data))

    def _note(self, partition: Partition, tid: Tid, transaction: Trans) -> None:
        self._state.transactions.setdefault(partition, {}).setdefault(tid, transaction)

    def _add(self, partition: Partition, oid: Oid, rev: Rev) -> None:
        assert len(rev.data.value) == rev.data.size, f"{oid:#x}: {len(rev.data.value)} bytes, not {rev.data.size}"
        cell = self._state.cells.setdefault(partition, {})
        others = [r for r in cell.get(oid, ()) if r.tid != rev.tid]
        cell[oid] = tuple(sorted([*others, rev]))
        self._state.last_oid = max(self._state.last_oid, oid)

    def _remove(self, partition: Partition, oid: Oid, gone: Sequence[Rev]) -> None:
        if not gone:
            return
        cell = self._state.cells[partition]
        cell[oid] = tuple(r for r in cell[oid] if r not in gone)
        if not cell[oid]:
            del cell[oid]
        left = {r.tid for revisions in cell.values() for r in revisions}
        for tid in {r.tid for r in gone} - left:
            self._state.transactions[partition].pop(tid, None)


def _packed_away(revisions: tuple[Rev, ...], tid: Tid) -> list[Rev]:
    old = [r for r in revisions if r.tid <= tid]
    if old and (not old[-1].is_deletion or len(old) < len(revisions)):
        old.pop()
    return old


class MemoryRangeReader:
    """Long reads."""

    def __init__(self, backend: MemoryBackend) -> None:
        self._backend = backend

    @property
    def _state(self) -> State:
        return self._backend.state

    def current(self, partition: Partition, oid: Oid) -> Tid:
        return self._backend.current(partition, oid)

    def currents(self, pairs: Sequence[tuple[Partition, Oid]]) -> dict[Oid, Tid]:
        return {oid: self._backend.current(partition, oid) for partition, oid in pairs}

    def load(self, partition: Partition, oid: Oid, before: Tid) -> Stored | None:
        return self._backend.load(partition, oid, before)

    def history(self, partition: Partition, oid: Oid, limit: int) -> tuple[Change, ...]:
        revisions = self._state.cells.get(partition, {}).get(oid, ())
        transactions = self._state.transactions.get(partition, {})
        return tuple(Change(r.tid, r.data.size, transactions[r.tid].metadata) for r in reversed(revisions))[:limit]

    def transactions(
        self,
        partitions: Sequence[Partition],
        start: Tid,
        stop: Tid,
        *,
        descending: bool,
        revisions: bool,
        values: bool,
        limit: int,
        limit_bytes: int,
    ) -> tuple[tuple[Transaction, ...], Tid]:
        found: dict[Tid, Trans] = {}
        for p in partitions:
            found.update((t, x) for t, x in self._state.transactions.get(p, {}).items() if start <= t <= stop)
        out: list[Transaction] = []
        size = 0
        for tid in sorted(found, reverse=descending):
            if len(out) >= limit or size >= limit_bytes:
                return tuple(out), tid
            revs: list[Revision] = []
            for p in partitions if revisions else ():
                for oid, rev in self._of_transaction(p, tid):
                    data = rev.travelling() if values else None
                    if data is not None and size + len(data.value) > limit_bytes and revs:
                        data = data._replace(value=b"")
                    size += 0 if data is None else len(data.value)
                    revs.append(Revision(oid, tid, rev.copied_from, data))
            ttid, metadata, parts = found[tid]
            out.append(Transaction(tid, ttid, metadata, parts, tuple(revs)))
        return tuple(out), NO_TID

    def _of_transaction(self, partition: Partition, tid: Tid) -> Iterator[tuple[Oid, Rev]]:
        for oid, revisions in sorted(self._state.cells.get(partition, {}).items()):
            for rev in revisions:
                if rev.tid == tid:
                    yield oid, rev

    def records(
        self, partition: Partition, first: Oid, before: Tid, *, newer: bool, limit: int, limit_bytes: int
    ) -> tuple[tuple[Revision, ...], Oid | None]:
        cell = self._state.cells.get(partition, {})
        out: list[Revision] = []
        size = 0
        for oid in sorted(o for o in cell if o >= first):
            if len(out) >= limit or size >= limit_bytes:
                return tuple(out), oid
            below = [r for r in cell[oid] if r.tid < before][-1:]
            above = [r for r in cell[oid] if r.tid >= before] if newer else []
            for rev in (*below, *above):
                if not rev.is_deletion:
                    data = rev.travelling()
                    size += len(data.value)
                    out.append(Revision(oid, rev.tid, rev.copied_from, data))
        return tuple(out), None

    def copy(
        self, partition: Partition, start: Place, stop: Tid, *, values: bool, limit: int, limit_bytes: int
    ) -> tuple[tuple[Transaction, ...], Place | None]:
        found: dict[Tid, list[Revision]] = {}
        rest: Place | None = None
        count = size = 0
        for tid, oid, rev in self._in_order(partition, start.tid, stop):
            if (tid, oid) < start:
                continue
            if count >= limit or (count and values and size + rev.data.size > limit_bytes):
                rest = Place(tid, oid)
                break
            count += 1
            size += rev.data.size
            found.setdefault(tid, []).append(
                Revision(oid, tid, rev.copied_from, rev.travelling() if values else rev.data._replace(value=b""))
            )
        out: list[Transaction] = []
        for tid, (ttid, metadata, parts) in sorted(self._state.transactions.get(partition, {}).items()):
            if not start.tid <= tid <= stop or (rest is not None and tid >= rest.tid and tid not in found):
                continue
            if len(out) >= limit:
                return tuple(out), Place(tid, Oid(0))
            out.append(Transaction(tid, ttid, metadata, parts, tuple(found.get(tid, ()))))
        return tuple(out), rest

    def _in_order(self, partition: Partition, start: Tid, stop: Tid) -> list[tuple[Tid, Oid, Rev]]:
        cell = self._state.cells.get(partition, {})
        return sorted((r.tid, oid, r) for oid, revs in cell.items() for r in revs if start <= r.tid <= stop)

    def count(self, partition: Partition, start: Tid, stop: Tid) -> int:
        return len(self._in_order(partition, start, stop))

    def digest(self, partition: Partition, start: Tid, stop: Tid) -> RangeDigest:
        revisions = self._in_order(partition, start, stop)
        lines = [
            f"{tid},{oid},{r.copied_from},{int(r.data.compression)},{r.data.size},{r.data.checksum.hex().upper()};"
            for tid, oid, r in revisions
        ]
        heads = [
            f"{tid},{t.ttid.session},{t.ttid.counter}," + ",".join(x.hex().upper() for x in t.metadata) + ";"
            for tid, t in sorted(self._state.transactions.get(partition, {}).items())
            if start <= tid <= stop
        ]
        digest = digest_of("".join(heads).encode(), "".join(lines).encode())
        return RangeDigest(start, stop, len(revisions), digest)

    def digests(self, partition: Partition, start: Tid, stop: Tid, *, size: int, limit: int) -> tuple[RangeDigest, ...]:
        found: list[RangeDigest] = []
        weights = {t: 1 for t in self._state.transactions.get(partition, {}) if start <= t <= stop}
        for tid, _, _ in self._in_order(partition, start, stop):
            weights[tid] = weights.get(tid, 0) + 1
        weight, tids = 0, sorted(weights)
        for i, tid in enumerate(tids):
            weight += weights[tid]
            if i + 1 == len(tids) or weight + weights[tids[i + 1]] > size:
                found.append(self.digest(partition, start, tid))
                start, weight = Tid(tid + 1), 0
                if len(found) == limit:
                    break
        return tuple(found)

    def packed(self, partition: Partition) -> tuple[Tid, bool]:
        tid, rest = self._state.cursors.get(partition, (NO_TID, None))
        return tid, rest is None

    def undo(self, partition: Partition, oid: Oid, tid: Tid) -> UndoInfo | None:
        revisions = self._state.cells.get(partition, {}).get(oid, ())
        index = next((i for i, r in enumerate(revisions) if r.tid == tid), None)
        if index is None:
            return None
        origins: dict[Tid, Tid] = {}
        for rev in revisions:
            origins[rev.tid] = origins.get(rev.copied_from, rev.copied_from) or rev.tid
        previous = revisions[index - 1].tid if index else NO_TID
        current = revisions[-1].tid
        return UndoInfo(oid, current, origins[current], origins[tid], previous, origins.get(previous, NO_TID))

    def piece(self, partition: Partition, oid: Oid, tid: Tid, offset: int) -> bytes | None:
        return self._backend.piece(partition, oid, tid, offset)

    def sizes(self, partitions: Sequence[Partition]) -> tuple[CellSize, ...]:
        out: list[CellSize] = []
        for p in partitions:
            cell = self._state.cells.get(p, {})
            revisions = [r for revs in cell.values() for r in revs]
            objects = sum(not revs[-1].is_deletion for revs in cell.values())
            transactions = len(self._state.transactions.get(p, {}))
            out.append(CellSize(p, objects, len(revisions), transactions, sum(r.data.size for r in revisions)))
        return tuple(out)

    def close(self) -> None:
        """Nothing is held."""
