"""Operations of the applier as SQL: rows are gathered, and written many at a time.

Knows nothing of transactions of SQL, `remove` apart: its caller begins and ends them.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import assert_never

from neo_common.errors import DataCorrupted
from neo_common.ids import MAX_TID, NO_TID, Oid, Partition, Tid, Ttid
from neo_common.model.keys import encode_update
from neo_common.model.partition_table import whole
from neo_common.wire.schema import PIECE_BYTES, Compression, Data, Decision, Metadata
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
)
from neo_storage.backends.codec import pack_parts
from neo_storage.backends.copying import drop
from neo_storage.backends.database import Database
from neo_storage.backends.kept import doomed_in
from neo_storage.backends.removal import collectable, drop_data, drop_revisions, pieces_of, remove_in_slices

_DATA_BYTES = 8 * 2**20
"""Gathered values are written when they are more than that: a batch of large values need not be in memory twice."""

Pieces = Callable[[Oid], Iterator[bytes]]


class Writer:
    """Writes batches. One SQL transaction at a time, on one thread at a time."""

    def __init__(self, db: Database, *, partitions: int, last_tid: Tid, last_oid: Oid, next_data_id: int) -> None:
        """Begin with what the database has. `partitions`: of its table, 0 when it has none."""
        self.last_tid = last_tid
        """The highest tid written, of those that are still there after ApplyClear."""
        self.last_oid = last_oid
        """The highest oid ever written."""
        self._db = db
        self._sql = db.statements
        self._partitions = partitions
        self._next_data_id = next_data_id
        self._forget_gathered()

    @classmethod
    def of(cls, db: Database, kept: Kept) -> "Writer":
        """Return the writer of a database that knows *kept*."""
        last = db.one(db.statements.last_data)
        return cls(
            db,
            partitions=kept.table.partitions,
            last_tid=kept.last_tid,
            last_oid=kept.last_oid,
            next_data_id=((last[0] if last else None) or 0) + 1,
        )

    def _forget_gathered(self) -> None:
        self._trans: list[tuple[object, ...]] = []
        self._obj: list[tuple[object, ...]] = []
        self._data: list[tuple[int, bytes]] = []
        self._data_bytes = 0
        self._decisions: dict[Ttid, Decision] = {}
        self._forget = 0
        self._config: dict[str, int | bytes] = {}

    def remove(self, ops: Sequence[Op]) -> Sequence[Op]:
        """Do what is large and comes first in *ops*, in transactions of its own; return what is left for `write`."""
        return remove_in_slices(self._db, ops, self._partitions)

    def write(self, ops: Sequence[Op], position: int) -> None:
        """Write *ops* and the mark. After an error the transaction must be rolled back."""
        before = (self.last_tid, self.last_oid, self._next_data_id, self._partitions)
        try:
            for op in ops:
                self._write(op)
            self._config.update(position=position, last_tid=self.last_tid, last_oid=self.last_oid)
            self._flush()
        except BaseException:
            self.last_tid, self.last_oid, self._next_data_id, self._partitions = before
            self._forget_gathered()
            raise

    def _write(self, op: Op) -> None:
        match op:
            case ApplyCommit():
                for partition, writes in op.partitions:
                    self._add_trans(partition, op.tid, op.ttid, op.metadata, op.parts)
                    for write in writes:
                        self._add_obj(partition, write.oid, op.tid, write.data, write.copied_from, op.pieces)
                self._decide(Decision(op.ttid, op.attempt, op.tid, op.parts))
                self._forget_decisions(op.forget)
            case ApplyCopy(partition, transactions, decisions, pieces):
                for copied in transactions:
                    self._add_trans(partition, copied.tid, copied.ttid, copied.metadata, copied.parts)
                    for revision in copied.revisions:
                        assert revision.data is not None, "history is copied with its values"
                        self._add_obj(partition, revision.oid, copied.tid, revision.data, revision.copied_from, pieces)
                for decision in decisions:
                    self._decide(decision)
                if transactions:  # what came may be from before the pack: the cell is not packed any more
                    self._db.run(self._sql.unpack, (partition, min(t.tid for t in transactions)))
            case ApplyDecision(decision):
                self._decide(decision)
            case ApplyAbort(tombstone):
                self._db.run_many(self._sql.add_tombstones, [(*tombstone.ttid, tombstone.attempt)])
            case ApplyAmnesty(is_all):
                self._db.run(self._sql.drop_tombstones)
                if is_all:
                    self._forget_decisions(MAX_TID)
            case ApplyIdentity(node, cluster_id):
                self._config.update(node=node, cluster_id=cluster_id)
            case ApplyEpoch(epoch):
                self._config.update(epoch=epoch)
            case ApplyTable(table):
                self._config.update(table=encode_update(whole(table)))
                self._partitions = table.partitions
            case ApplyCeilings(ceilings):
                self._config.update(ceiling_tid=ceilings.tid, ceiling_oid=ceilings.oid)
            case ApplyPack(order, tid):
                self._config.update(pack_order=order, pack_tid=tid)
            case ApplyClear(partition, keep):
                self._flush()
                self._clear(partition, keep)
            case ApplyDrop(partition, revisions, tids):
                self._flush_revisions()
                drop(self._db, partition, revisions, tids)
            case ApplyCollect(tid, oids):
                self._flush()
                self._collect(tid, oids)
            case ApplyDoom(partitions, back):
                self._flush()
                doomed = (set(doomed_in(self._db.config())) | set(partitions)) - set(back)
                self._config.update(doomed=pack_parts(sorted(doomed)))
            case ApplyTruncate(keep):
                self._flush()
                self._truncate(keep)
            case _:
                assert_never(op)

    # -------------------------------------------------------------------------------------------- rows

    def _add_trans(
        self, partition: Partition, tid: Tid, ttid: Ttid, metadata: Metadata, parts: tuple[Partition, ...]
    ) -> None:
        self._trans.append((partition, tid, *ttid, *metadata, pack_parts(parts)))
        self.last_tid = max(self.last_tid, tid)

    def _add_obj(self, partition: Partition, oid: Oid, tid: Tid, data: Data, copied_from: Tid, pieces: Pieces) -> None:
        first: int | None = None
        if data.compression != Compression.ABSENT:
            first = self._next_data_id
            # Nearly every value is here, and in one piece.
            values = (data.value,) if 0 < len(data.value) == data.size <= PIECE_BYTES else _as_pieces(data, oid, pieces)
            for value in values:
                self._data.append((self._next_data_id, value))
                self._data_bytes += len(value)
                self._next_data_id += 1
        row = (partition, oid, tid, first, int(data.compression), data.checksum, data.size, copied_from)
        self._obj.append(row)
        if oid > self.last_oid:
            self.last_oid = oid
        if self._data_bytes > _DATA_BYTES:
            self._flush_revisions()

    def _decide(self, decision: Decision) -> None:
        self._decisions[decision.ttid] = decision

    def _forget_decisions(self, upto: Tid) -> None:
        if upto > self._forget:
            self._forget = upto
            self._decisions = {t: d for t, d in self._decisions.items() if d.tid > upto}

    def _flush(self) -> None:
        self._flush_revisions()
        if self._forget:
            self._db.run(self._sql.forget_decisions, (self._forget,))
        rows = [(*d.ttid, d.attempt, d.tid, pack_parts(d.parts)) for d in self._decisions.values()]
        self._db.run_many(self._sql.add_decisions, rows)
        self._db.set_config(self._config)
        self._forget_gathered()

    def _flush_revisions(self) -> None:
        self._db.run_many(self._sql.add_trans, self._trans)
        if self._obj:
            added = self._db.run_many(self._sql.add_obj, self._obj)
            data: Sequence[tuple[int, bytes]] = self._data
            if added != len(self._obj):
                data = self._new_data()
            self._db.run_many(self._sql.add_data, data)
        self._trans, self._obj, self._data, self._data_bytes = [], [], [], 0

    def _new_data(self) -> list[tuple[int, bytes]]:
        """Return the gathered values without those of revisions that were there already."""
        ours = set[int]()
        for partition, oid, tid, first, _, _, size, _ in self._obj:
            if first is not None:
                row = self._db.one(self._sql.obj_data_id, (partition, oid, tid))
                if row is not None and row[0] == first:
                    assert isinstance(first, int)
                    assert isinstance(size, int)
                    ours.update(range(first, first + pieces_of(size)))
        return [row for row in self._data if row[0] in ours]

    # -------------------------------------------------------------------------------------------- removals

    def _clear(self, partition: Partition, keep: Tid) -> None:
        drop_data(self._db, self._db.rows(self._sql.clear_list, (partition, keep)))
        self._db.run(self._sql.clear_obj, (partition, keep))
        self._db.run(self._sql.clear_trans, (partition, keep))
        last = self._db.one(self._sql.last_tid)
        self.last_tid = Tid(last[0] or 0) if last else NO_TID

    def _truncate(self, keep: Tid) -> None:
        for partition in range(self._partitions):
            self._clear(Partition(partition), keep)
        self._db.run(self._sql.drop_decisions_above, (keep,))

    def _collect(self, tid: Tid, oids: Iterable[Oid]) -> None:
        assert self._partitions, "objects are collected in a cluster that has a table"
        for oid in oids:
            partition = Partition(oid % self._partitions)
            drop_revisions(self._db, partition, collectable(self._db, partition, oid, tid))


def _as_pieces(data: Data, oid: Oid, pieces: Pieces) -> Iterator[bytes]:
    """Yield the rows of `data` for a value, however it came: pieces of PIECE_BYTES, the last one shorter.

    Raises: DataCorrupted when they are not as many bytes as the revision says.
    """
    parts = pieces(oid) if data.size and not data.value else iter((data.value,))
    first = next(parts, b"")
    if data.size <= PIECE_BYTES or len(first) != PIECE_BYTES:
        # Cut otherwise than we keep it: a small value in pieces, or a large one in one.
        joined = b"".join(chain((first,), parts))
        parts = (joined[at : at + PIECE_BYTES] for at in range(0, max(1, len(joined)), PIECE_BYTES))
    else:
        parts = chain((first,), parts)
    length = count = 0
    for value in parts:
        length += len(value)
        count += 1
        yield value
    if length != data.size or count != pieces_of(data.size):
        raise DataCorrupted(f"{oid:#x} has {length} bytes in {count} pieces, not {data.size}")
