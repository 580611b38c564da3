"""The durable state of a storage as it will be when the log is flushed, and how log records change it. Pure.

`apply` is the only thing that changes an image. The running core appends a record and applies it; a start replays the
records through the same function: what was logged is exactly what comes back. What the records mean for the back end
is returned as operations; revisions themselves are in the back end and, until they are there, in the overlay.

A record that the back end has already applied is only half replayed: what it did to voted records, which no back end
knows. The other half is what the back end keeps.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from neo_common.errors import DataCorrupted
from neo_common.ids import MAX_TID, Oid, Partition, Tid, Ttid
from neo_common.model.partition_table import EMPTY, PartitionTable, TableUpdate
from neo_common.wire.schema import Ceilings, Decision, Mode, Record, Tombstone, VotedId, Write
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
    ApplyEpoch,
    ApplyIdentity,
    ApplyPack,
    ApplyTable,
    ApplyTruncate,
    Kept,
    Op,
)
from neo_storage.core.log_records import (
    LogAbort,
    LogAmnesty,
    LogCeilings,
    LogClear,
    LogCollect,
    LogCommit,
    LogCopy,
    LogEpoch,
    LogIdentity,
    LogLeftOut,
    LogPack,
    LogPiece,
    LogReached,
    LogRecord,
    LogSeal,
    LogStored,
    LogTable,
    LogTruncate,
    LogUnvote,
    LogVote,
)
from neo_storage.core.tentative import Needed, Pieces, PiecesOf, Spool, Tentative, VotedRecord

MAX_ATTEMPT: Final = 2**32 - 1
EPOCHS_MAX: Final = 1000
"""Records of epochs, the newest ones, whose places in the log are known."""
PAST_MAX: Final = 20_000
"""Commits that are remembered after they have become durable everywhere; the oldest go first."""
TOMBSTONES_MAX: Final = 20_000
"""Tombstones kept in one reign: the oldest go first. One is needed while a Fwd or Sync may be on its way."""


class Image:
    """The state that the log makes. Read by all of the core, changed by `apply` alone.

    `voted[ttid][partition]`; `writers[oid][ttid]` is the same by object; `decisions` are those above the durable mark
    that it was told; `last_tid`, `last_oid` are the highest of revisions here; `position` is that of the last record.
    """

    def __init__(self, kept: Kept, spool: Spool) -> None:
        self.position = kept.position
        self.node = kept.node
        self.cluster_id = kept.cluster_id
        self.epoch = kept.epoch
        self.table = kept.table
        self.ceilings = kept.ceilings
        self.decisions: dict[Ttid, Decision] = {d.ttid: d for d in kept.decisions}
        self._lowest = min((d.tid for d in kept.decisions), default=MAX_TID)
        self.past: dict[Ttid, Decision] = {}
        """Decisions that were forgotten, the newest ones: a Sync, or a Fwd, may be on its way that knows only the vote.
        In memory alone: what is on its way does not outlive the connections of this process.
        """
        self.tombstones: dict[Ttid, int] = {t.ttid: t.attempt for t in kept.tombstones}
        self.pack_order = kept.pack_order
        self.pack_tid = kept.pack_tid
        self.last_tid = kept.last_tid
        self.last_oid = kept.last_oid
        self.doomed: tuple[Partition, ...] = kept.doomed
        """Partitions whose cell was dropped, and that are to be erased; ascending."""
        self.back_at: dict[Partition, int] = {}
        """At which log position a doomed cell was given back."""
        self.voted: dict[Ttid, dict[Partition, VotedRecord]] = {}
        self.writers: dict[Oid, dict[Ttid, VotedRecord]] = {}
        self._voted_bytes = 0
        self.epochs: dict[int, None] = {}
        """Where the log has epochs only, as far as that is known: oldest first."""
        self.tentative = Tentative(spool)
        self._needed = Needed()
        self.spool = spool

    def __repr__(self) -> str:
        return f"<Image at {self.position} table={self.table.version} voted={len(self.voted)} last={self.last_tid:#x}>"

    # ---- questions

    @property
    def undecided_bytes(self) -> int:
        """Return what is voted, or went ahead of a vote, and has no decision: in memory and in the log."""
        return self._voted_bytes + self.tentative.size

    def records(self) -> Iterator[Record]:
        """Yield every voted record, ordered by ttid and partition."""
        for ttid in sorted(self.voted):
            for partition in sorted(self.voted[ttid]):
                yield self.voted[ttid][partition].record

    def record(self, ttid: Ttid, partition: Partition) -> Record | None:
        """Return the voted record of that transaction in that partition."""
        voted = self.voted.get(ttid, {}).get(partition)
        return None if voted is None else voted.record

    def voted_ids(self) -> tuple[VotedId, ...]:
        """Return which transactions have votes here, ordered."""
        return tuple(sorted({VotedId(r.ttid, r.attempt, r.parts) for r in self.records()}))

    def length(self, upto: int) -> int:
        """Return how many records the log has had up to position *upto*, without the epochs at its end.

        A disk that waits in recovery is given one epoch after the other: it has not gone on with that.
        """
        while upto in self.epochs:
            upto -= 1
        return upto + 1

    def is_superseded(self, ttid: Ttid, attempt: int) -> bool:
        """Return whether that attempt is decided already: committed, or aborted up to it."""
        return self.decision(ttid) is not None or self.tombstones.get(ttid, 0) >= attempt

    def decision(self, ttid: Ttid) -> Decision | None:
        """Return the decision to commit it, also some time after it was forgotten."""
        return self.decisions.get(ttid) or self.past.get(ttid)

    def needed_from(self, durable: int) -> int:
        """Return the oldest log position that a restart, or the spool, needs.

        *durable*: the back end is durable up to there, as `Backend.checkpoint()` returned; it only grows.
        """
        needs = [durable + 1, *(v.position for parts in self.voted.values() for v in parts.values())]
        needs += [p for p in (self.tentative.first_position(), self._needed.first(durable)) if p is not None]
        return min(needs)

    def is_back(self, partition: Partition, applied: int) -> bool:
        """Return whether a cell that has come back is erased no more, the back end being at *applied*: then it copies.

        A slice that is erased after a comparison would be missing for ever.
        """
        return self.back_at.get(partition, applied) <= applied

    def erased(self, partition: Partition) -> None:
        """Note that the back end has erased a doomed cell."""
        self.doomed = tuple(p for p in self.doomed if p != partition)

    # ---- `apply` only

    def _decide(self, decision: Decision) -> None:
        self.decisions[decision.ttid] = decision
        self._lowest = min(self._lowest, decision.tid)

    def _forget(self, durable: Tid) -> None:
        """Forget the decisions up to *durable*. A mark that does not move costs nothing, however many there are."""
        if durable >= self._lowest:
            for ttid in [t for t, d in self.decisions.items() if d.tid <= durable]:
                self.past[ttid] = self.decisions.pop(ttid)
            while len(self.past) > PAST_MAX:
                del self.past[next(iter(self.past))]
            self._lowest = min((d.tid for d in self.decisions.values()), default=MAX_TID)

    def _vote(self, position: int, record: Record) -> None:
        voted = self.tentative.complete(record, position)
        if self.table.partitions:
            self.tentative.take(record.ttid, record.partition, self.table.partition)
        self._drop(record.ttid, record.partition)
        self.voted.setdefault(record.ttid, {})[record.partition] = voted
        self._voted_bytes += voted.bytes + voted.spooled
        for write in voted.record.writes:
            self.writers.setdefault(write.oid, {})[record.ttid] = voted

    def _drop(self, ttid: Ttid, partition: Partition) -> VotedRecord | None:
        parts = self.voted.get(ttid, {})
        voted = parts.pop(partition, None)
        if voted is None:
            return None
        if not parts:
            del self.voted[ttid]
        self._voted_bytes -= voted.bytes + voted.spooled
        for write in voted.record.writes:
            self.writers[write.oid].pop(ttid, None)
            if not self.writers[write.oid]:
                del self.writers[write.oid]
        return voted

    def _leave(self, update: TableUpdate) -> None:
        """Forget the votes of partitions of which this node has no cell in that whole table: others have them."""
        if self.voted:
            mine = {p for p, row in update.rows if any(node == self.node for node, _ in row)}
            for ttid in sorted(self.voted):
                for partition in sorted(self.voted[ttid].keys() - mine):
                    self._drop(ttid, partition)

    def _seal(self, ttid: Ttid, attempt: int) -> None:
        parts = self.voted.get(ttid, {})
        for partition, voted in parts.items():
            if voted.record.attempt == attempt:
                sealed = voted._replace(record=voted.record._replace(mode=Mode.C))
                parts[partition] = sealed
                for write in sealed.record.writes:
                    self.writers[write.oid][ttid] = sealed

    def _settle(self, ttid: Ttid, attempt: int, *, committed: bool) -> tuple[VotedRecord, ...]:
        """Drop the votes that a decision ends; return those of *attempt*.

        What went ahead stays if a commit comes before the vote: the vote of a cell that joins is still to come.
        """
        parts = self.voted.get(ttid, {})
        ended = [p for p in sorted(parts) if committed or parts[p].record.attempt <= attempt]
        dropped = [v for v in (self._drop(ttid, p) for p in ended) if v is not None]
        if dropped or not committed:
            self.tentative.forget(ttid)
        return tuple(v for v in dropped if v.record.attempt == attempt)


def undecided(image: Image, position: int, record: LogRecord) -> tuple[VotedRecord, ...]:
    """Do to the votes of *image* what *record* says; return those that it commits.

    The half of `apply` that is replayed even if the back end is past *position*.
    """
    match record:
        case LogEpoch():
            image.epochs[position] = None
            if len(image.epochs) > EPOCHS_MAX:
                del image.epochs[next(iter(image.epochs))]
        case LogStored():
            image.tentative.stored(position, record)
        case LogPiece():
            image.tentative.piece(position, record)
        case LogVote(records):
            for voted_record in records:
                image._vote(position, voted_record)
        case LogUnvote(ttid, attempt, partition):
            voted = image.record(ttid, partition)
            if voted is not None and voted.attempt <= attempt:
                image._drop(ttid, partition)
        case LogSeal(ttid, attempt):
            image._seal(ttid, attempt)
        case LogCommit(ttid, attempt):
            return image._settle(ttid, attempt, committed=True)
        case LogAbort(ttid, attempt):
            image._settle(ttid, attempt, committed=False)
        case LogClear(partition):
            for ttid in sorted(image.voted):
                image._drop(ttid, partition)
        case LogTable(update):
            image._leave(update)
        case LogTruncate():
            for ttid in sorted(image.voted):
                image._settle(ttid, MAX_ATTEMPT, committed=False)
            for ttid in image.tentative.ttids():
                image.tentative.forget(ttid)
        case _:
            pass
    return ()


def apply(image: Image, position: int, record: LogRecord) -> tuple[Op, ...]:
    """Do to *image* what *record*, at *position*, says; return what it means for the back end.

    Raises: DataCorrupted when it commits a vote that is not whole.
    """
    assert position > image.position, f"record {position} after {image.position}"
    image.position = position
    committed = undecided(image, position, record)
    match record:
        case LogIdentity(node, cluster_id):
            image.node, image.cluster_id = node, cluster_id
            return (ApplyIdentity(node, cluster_id),)
        case LogEpoch(epoch):
            image.epoch = epoch
            image.past.clear()
            return (ApplyEpoch(epoch),)
        case LogTable(update):
            return _take_table(image, update.apply(EMPTY))
        case LogTruncate(update, keep):
            image.decisions = {t: d for t, d in image.decisions.items() if d.tid <= keep}
            image._lowest = min((d.tid for d in image.decisions.values()), default=MAX_TID)
            image.last_tid = min(image.last_tid, keep)
            # Before the table: what it dooms is still known by the number of its partitions.
            return (ApplyTruncate(keep), *_take_table(image, update.apply(EMPTY)))
        case LogCeilings(ceilings):
            image.ceilings = Ceilings(max(image.ceilings.tid, ceilings.tid), max(image.ceilings.oid, ceilings.oid))
            return (ApplyCeilings(image.ceilings),)
        case LogCommit():
            return _commit(image, record, committed)
        case LogAbort(ttid, attempt):
            return _abort(image, ttid, attempt)
        case LogAmnesty():
            image.tombstones.clear()
            return (ApplyAmnesty(),)
        case LogLeftOut():
            image.tombstones.clear()
            image.decisions.clear()
            return (ApplyAmnesty(is_all=True),)
        case LogClear(partition, keep):
            return (ApplyClear(partition, keep),)
        case LogCopy(partition, transactions, decisions):
            for decision in decisions:
                image._decide(decision)
            for transaction in transactions:
                image.last_tid = max(image.last_tid, transaction.tid)
                for revision in transaction.revisions:
                    image.last_oid = max(image.last_oid, revision.oid)
            return (ApplyCopy(partition, transactions, decisions),)
        case LogReached(_, tid, oid):
            image.last_tid = max(image.last_tid, tid)
            image.last_oid = max(image.last_oid, oid)
            return ()
        case LogPack(order, tid):
            image.pack_order, image.pack_tid = order, tid
            return (ApplyPack(order, tid),)
        case LogCollect(tid, oids):
            return (ApplyCollect(tid, oids),)
        case _:
            return ()


def _take_table(image: Image, table: PartitionTable) -> tuple[Op, ...]:
    """Take a table: of cells that it has not any more the data is doomed, of those that it has again it is not."""
    before, after = image.table.partitions_of(image.node), table.partitions_of(image.node)
    image.table = table
    dropped, back = sorted(set(before) - set(after)), sorted(set(image.doomed) & set(after))
    if not dropped and not back:
        return (ApplyTable(table),)
    image.doomed = tuple(sorted((set(image.doomed) | set(dropped)) - set(back)))
    image.back_at.update(dict.fromkeys(back, image.position))
    return (ApplyTable(table), ApplyDoom(tuple(dropped), tuple(back)))


def _commit(image: Image, record: LogCommit, committed: tuple[VotedRecord, ...]) -> tuple[Op, ...]:
    parts = record.parts or (committed[0].record.parts if committed else ())
    decision = Decision(record.ttid, record.attempt, record.tid, parts)
    if committed:  # a decision alone does not make the back end forget others
        image._forget(record.durable)
    image._decide(decision)
    image.tombstones.pop(record.ttid, None)
    if not committed:
        return (ApplyDecision(decision),)
    image.last_tid = max(image.last_tid, record.tid)
    chunks: dict[Oid, Pieces] = {}
    partitions: list[tuple[Partition, tuple[Write, ...]]] = []
    for voted in committed:
        r = voted.record
        if not voted.whole:
            raise DataCorrupted(
                f"{r.ttid} is committed, but its vote in partition {r.partition} is not whole in the log"
            )
        for write in r.writes:
            image.last_oid = max(image.last_oid, write.oid)
            if write.oid in voted.pieces:
                chunks[write.oid] = voted.pieces
        # A partition that was only read has no part in the history, but for the first one: a transaction of reads alone
        # is in the history too. Each copy of a partition must come to the same, whatever else its node holds.
        if r.writes or not r.reads or r.partition == min(parts):
            partitions.append((r.partition, r.writes))
    image._needed.note(image.position, min(v.position for v in committed))
    return (
        ApplyCommit(
            record.ttid,
            record.attempt,
            record.tid,
            committed[0].record.metadata,
            parts,
            tuple(partitions),
            PiecesOf(chunks),
            record.durable,
        ),
    )


def _abort(image: Image, ttid: Ttid, attempt: int) -> tuple[Op, ...]:
    if ttid in image.decisions or image.tombstones.get(ttid, 0) >= attempt:
        return ()
    image.tombstones.pop(ttid, None)  # to the end: the newest go last
    image.tombstones[ttid] = attempt
    if len(image.tombstones) > TOMBSTONES_MAX:
        del image.tombstones[next(iter(image.tombstones))]
    return (ApplyAbort(Tombstone(ttid, attempt)),)


def replay(
    kept: Kept, records: Iterable[tuple[int, LogRecord]], spool: Spool
) -> tuple[Image, list[tuple[int, tuple[Op, ...]]]]:
    """Return the image after *records*, and what the back end that returned *kept* still lacks, in order.

    *records* are those of the log from the oldest segment on, with their positions; the shell applies what is lacking
    before it makes the core. Doing it again changes nothing.
    Raises: DataCorrupted when the log ends before the back end does, has a gap, or lacks part of an undecided vote.
    """
    image = Image(kept, spool)
    lacking: list[tuple[int, tuple[Op, ...]]] = []
    last: int | None = None
    for position, record in records:
        if last is not None and position != last + 1:
            raise DataCorrupted(f"the log goes on with record {position} after {last}")
        last = position
        if position <= kept.position:
            undecided(image, position, record)
        else:
            if position != image.position + 1:
                raise DataCorrupted(f"the log begins with record {position}, the back end ends with {image.position}")
            ops = apply(image, position, record)
            if ops:
                lacking.append((position, ops))
    if last is not None and last < kept.position:
        raise DataCorrupted(f"the log ends with record {last}, the back end has {kept.position}: records are lost")
    for ttid, parts in sorted(image.voted.items()):
        for partition, voted in sorted(parts.items()):
            if not voted.whole:
                raise DataCorrupted(f"part of the vote of {ttid} in partition {partition} is not in the log")
    for ttid in image.tentative.ttids():  # its client comes with a new connection, and sends it again
        image.tentative.forget(ttid)
    return image, lacking
