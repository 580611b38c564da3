"""The image and its replay."""

import pytest

from neo_common.errors import DataCorrupted
from neo_common.ids import NO_TID, Epoch, NodeId, Oid, Ptid, Tid, Version
from neo_common.model.orders import NO_ORDERS, Orders
from neo_common.model.partition_table import Cell, PartitionTable, whole
from neo_common.states import CellState
from neo_common.wire.schema import Decision, Mode, ReadCheck, Record, Tombstone
from neo_storage.backends.base import ApplyCommit, ApplyDoom, ApplyTable, ApplyTruncate, Kept
from neo_storage.core import image as images
from neo_storage.core.image import Image, apply, replay
from neo_storage.core.log_records import (
    LogAbort,
    LogAmnesty,
    LogClear,
    LogCommit,
    LogCopy,
    LogEpoch,
    LogIdentity,
    LogRecord,
    LogStored,
    LogTable,
    LogTruncate,
    LogUnvote,
    LogVote,
)
from neo_storage.core.tentative import MemorySpool
from support.memory_backend import MemoryBackend
from support.storage_rig import META, P0, P1, S1, S2, T1, T2, T3, ttid, write


def record(
    partition: int = 0, attempt: int = 1, counter: int = 1, tentative: int = 0, writes: tuple[int, ...] = (0,)
) -> Record:
    return Record(
        ttid(counter=counter),
        attempt,
        (P0, P1)[partition],
        (P0, P1),
        META,
        tentative,
        tuple(write(2 * o + partition) for o in writes),
        (),
        Mode.C,
        NO_TID,
        NO_TID,
    )


def made(*records: LogRecord) -> Image:
    """Return the image that they make."""
    image = Image(MemoryBackend().open(), MemorySpool())
    for position, one in enumerate(records):
        apply(image, position, one)
    return image


def commit(attempt: int = 1, tid: int = T1, counter: int = 1, durable: int = 0) -> LogCommit:
    return LogCommit(ttid(counter=counter), attempt, Tid(tid), (P0, P1), Tid(durable))


def test_commit_takes_all_partitions_of_its_attempt() -> None:
    image = Image(MemoryBackend().open(), MemorySpool())
    apply(image, 0, LogVote((record(0),)))
    apply(image, 1, LogVote((record(1),)))
    (op,) = apply(image, 2, commit())
    assert isinstance(op, ApplyCommit)
    assert [p for p, _ in op.partitions] == [P0, P1]
    assert not image.voted
    assert not image.writers


@pytest.mark.parametrize("read", [0, 1])
def test_what_was_only_read_leaves_the_same_history_on_every_copy(read: int) -> None:
    """One node holds both partitions, the other only the one that was read."""
    reads = (ReadCheck(Oid(read), T1),)
    votes = [LogVote((record(p)._replace(writes=(), reads=reads) if p == read else record(p),)) for p in (0, 1)]
    histories = []
    for held in (votes, [votes[read]]):
        image = Image(MemoryBackend().open(), MemorySpool())
        for position, vote in enumerate(held):
            apply(image, position, vote)
        (op,) = apply(image, len(held), commit(tid=T2))
        assert isinstance(op, ApplyCommit)
        histories.append([part for part in op.partitions if part[0] == (P0, P1)[read]])
    assert histories[0] == histories[1]
    assert bool(histories[0]) == (read == 0), "the first partition of a transaction always has it"


def test_commit_forgets_votes_of_other_attempts_without_their_data() -> None:
    image = Image(MemoryBackend().open(), MemorySpool())
    apply(image, 0, LogVote((record(0, attempt=1),)))
    apply(image, 1, LogVote((record(1, attempt=2),)))
    (op,) = apply(image, 2, commit(attempt=2))
    assert isinstance(op, ApplyCommit)
    assert [p for p, _ in op.partitions] == [P1]
    assert not image.voted


def test_abort_takes_attempts_up_to_its_own() -> None:
    image = made(LogVote((record(0, attempt=1),)), LogVote((record(1, attempt=2),)), LogAbort(ttid(), 1))
    assert [r.partition for r in image.records()] == [P1]
    assert image.tombstones == {ttid(): 1}


def test_abort_does_not_undo_a_commit() -> None:
    image = made(commit(), LogAbort(ttid(), 1))
    assert image.tombstones == {}
    assert image.decisions[ttid()].tid == T1


def test_commit_removes_a_tombstone() -> None:
    """Recovery may decide otherwise than an abort that did not become durable everywhere."""
    assert made(LogAbort(ttid(), 1), commit()).tombstones == {}


def test_amnesty_keeps_decisions() -> None:
    image = made(LogAbort(ttid(), 1), commit(counter=2), LogAmnesty())
    assert (image.tombstones, len(image.decisions)) == ({}, 1)


def test_unvote_takes_one_partition() -> None:
    image = made(LogVote((record(0),)), LogVote((record(1),)), LogUnvote(ttid(), 1, P0))
    assert [r.partition for r in image.records()] == [P1]
    assert set(image.writers) == {1}


def test_clear_forgets_the_votes_of_a_cell() -> None:
    image = made(LogVote((record(0),)), LogVote((record(1),)), LogClear(P0, NO_TID))
    assert [r.partition for r in image.records()] == [P1]


def test_copy_brings_decisions_and_marks() -> None:
    decision = Decision(ttid(counter=9), 1, T2, (P0,))
    image = made(LogCopy(P0, (), (decision,)))
    assert image.decisions == {decision.ttid: decision}


def test_decisions_up_to_the_mark_go() -> None:
    vote = LogVote((record(counter=3),))
    image = made(commit(tid=T1, counter=1), commit(tid=T2, counter=2), vote, commit(tid=T3, counter=3, durable=T2))
    assert [d.tid for d in image.decisions.values()] == [T3]


def test_tombstones_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "TOMBSTONES_MAX", 2)
    image = made(*(LogAbort(ttid(counter=n), 1) for n in (1, 2, 3)))
    assert sorted(t.counter for t in image.tombstones) == [2, 3]


def test_last_tid_and_oid_are_those_of_commits() -> None:
    image = made(LogVote((record(0, writes=(7,)),)))
    assert (image.last_tid, image.last_oid) == (0, 0)
    apply(image, 1, commit())
    assert (image.last_tid, image.last_oid) == (T1, 14)


# ---------------------------------------------------------------------------------------------- replay


def entries(*records: LogRecord, first: int = 0) -> list[tuple[int, LogRecord]]:
    return list(enumerate(records, first))


def spool_of(log: list[tuple[int, LogRecord]]) -> MemorySpool:
    spool = MemorySpool()
    for position, one in log:
        spool.note(position, one)
    return spool


def kept(position: int) -> Kept:
    return MemoryBackend().open()._replace(position=position)


def test_replay_gives_what_the_back_end_lacks() -> None:
    log = entries(LogVote((record(0),)), commit(), LogAbort(ttid(counter=2), 1))
    image, lacking = replay(kept(-1), log, spool_of(log))
    assert [p for p, _ in lacking] == [1, 2]
    assert image.position == 2
    assert [p for p, _ in replay(kept(1), log, spool_of(log))[1]] == [2]


def test_replay_takes_votes_that_the_back_end_is_past() -> None:
    log = entries(LogVote((record(0),)), LogAbort(ttid(counter=2), 1))
    image, lacking = replay(kept(1)._replace(tombstones=(Tombstone(ttid(counter=2), 1),)), log, spool_of(log))
    assert lacking == []
    assert image.record(ttid(), P0) is not None
    assert image.tombstones == {ttid(counter=2): 1}


def test_epochs_at_the_end_of_a_log_are_not_counted_after_a_restart_either() -> None:
    """Whether the back end has them already or not."""
    records = list(enumerate((commit(), LogEpoch(Epoch(5)), commit(tid=T2), LogEpoch(Epoch(6)), LogEpoch(Epoch(7)))))
    for applied in (-1, 2, 3, 4):
        backend = MemoryBackend()
        kept = backend.open()._replace(position=applied)
        image, _ = replay(kept, records, MemorySpool())
        assert [image.length(position) for position in range(-1, 5)] == [0, 1, 1, 3, 3, 3]


def test_replay_does_not_take_the_back_end_back() -> None:
    """What it kept at position 1 includes an amnesty; the abort before it must not come back."""
    log = entries(LogAbort(ttid(), 1), LogAmnesty())
    assert replay(kept(1), log, spool_of(log))[0].tombstones == {}


def test_log_that_ends_before_the_back_end_is_damage() -> None:
    log = entries(LogVote((record(0),)))
    with pytest.raises(DataCorrupted, match="ends with record 0, the back end has 5"):
        replay(kept(5), log, spool_of(log))


def test_log_with_a_gap_is_damage() -> None:
    log = [(0, LogAmnesty()), (2, LogAmnesty())]
    with pytest.raises(DataCorrupted, match="goes on with record 2 after 0"):
        replay(kept(-1), log, spool_of(log))  # type: ignore[arg-type]  # a list of one kind


def test_log_that_begins_too_late_is_damage() -> None:
    log = entries(LogAmnesty(), first=7)
    with pytest.raises(DataCorrupted, match="begins with record 7"):
        replay(kept(5), log, spool_of(log))


def test_empty_log_goes_on_where_the_back_end_ends() -> None:
    image, lacking = replay(kept(5), [], MemorySpool())
    assert (image.position, lacking) == (5, [])


def test_undecided_vote_without_its_beginning_is_damage() -> None:
    log = entries(LogVote((record(0, tentative=1),)), first=6)
    with pytest.raises(DataCorrupted, match="is not in the log"):
        replay(kept(5), log, spool_of(log))


def test_decided_vote_without_its_beginning_is_no_damage() -> None:
    """Its segment was recycled: the back end has the commit."""
    log = entries(LogVote((record(0, tentative=1),)), commit(), first=6)
    image, lacking = replay(kept(7), log, spool_of(log))
    assert (image.voted, lacking) == ({}, [])


def test_commit_of_a_vote_that_is_not_whole_is_damage() -> None:
    log = entries(LogVote((record(0, tentative=1),)), commit(), first=6)
    with pytest.raises(DataCorrupted, match="not whole"):
        replay(kept(5), log, spool_of(log))


def test_what_went_ahead_without_a_vote_is_forgotten_at_the_end() -> None:
    log = entries(LogStored(ttid(), P0, 0, (write(0),)))
    image, _ = replay(kept(-1), log, spool_of(log))
    assert image.tentative.ttids() == ()
    assert image.needed_from(0) == 1


# ---------------------------------------------------------------------------------------------- dropped cells, cuts


def table(version: int, *rows: tuple[NodeId, ...], orders: Orders = NO_ORDERS) -> PartitionTable:
    cells = [tuple(Cell(node, CellState.UP_TO_DATE) for node in row) for row in rows]
    return PartitionTable(Version(Epoch(1 << 24), Ptid(version)), 0, cells, orders)


def log_table(version: int, *rows: tuple[NodeId, ...]) -> LogTable:
    return LogTable(whole(table(version, *rows)))


def identified(*records: LogRecord) -> Image:
    return made(LogIdentity(S1, bytes(16)), *records)


def test_votes_and_data_of_a_dropped_cell_go_those_of_others_stay() -> None:
    image = identified(log_table(1, (S1,), (S1,)), LogVote((record(0),)), LogVote((record(1),)))
    ops = apply(image, 4, log_table(2, (S2,), (S1,)))
    assert ops[1:] == (ApplyDoom((P0,)),)
    assert image.doomed == (P0,)
    assert [r.partition for r in image.records()] == [P1]


def test_a_cell_that_is_back_is_doomed_no_more() -> None:
    image = identified(log_table(1, (S1,), (S1,)), log_table(2, (S2,), (S2,)))
    assert image.doomed == (P0, P1)
    assert apply(image, 3, log_table(3, (S2, S1), (S2,)))[1:] == (ApplyDoom((), (P0,)),)


def test_a_replay_past_the_back_end_forgets_the_votes_of_a_dropped_cell_too() -> None:
    records: list[tuple[int, LogRecord]] = list(
        enumerate(
            [LogIdentity(S1, bytes(16)), log_table(1, (S1,), (S1,)), LogVote((record(0),)), log_table(2, (S2,), (S1,))]
        )
    )
    backend = MemoryBackend()
    image = Image(backend.open(), MemorySpool())
    for position, one in records:
        backend.apply(apply(image, position, one), position)
    again, lacking = replay(backend.open(), records, MemorySpool())
    assert not lacking
    assert not again.voted
    assert again.doomed == (P0,)


def test_truncation_is_one_record_that_takes_votes_decisions_and_the_table() -> None:
    orders = Orders(cut_at=Version(Epoch(1 << 24), Ptid(2)), cut=T1)
    image = identified(log_table(1, (S1,), (S1,)), LogVote((record(0),)), commit(tid=T1))
    apply(image, 4, LogVote((record(0, counter=2),)))
    apply(image, 5, commit(tid=T2, counter=2))
    apply(image, 6, LogVote((record(0, counter=3),)))
    ops = apply(image, 7, LogTruncate(whole(table(2, (S1,), (S1,), orders=orders)), T1))
    assert ops[0] == ApplyTruncate(T1)
    assert isinstance(ops[1], ApplyTable)
    assert not image.voted
    assert {d.tid for d in image.decisions.values()} == {T1}
    assert image.last_tid == T1
    assert image.table.orders == orders
