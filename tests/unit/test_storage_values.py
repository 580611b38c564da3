"""Current values that a storage keeps in memory, where its database cannot be asked at once."""

from collections.abc import Sequence
from typing import Any

from neo_common.ids import MAX_TID, NO_TID, Oid, Tid
from neo_common.wire.schema import AnswerLoad, AnswerLoads, AskLoad, AskLoads, Error, ErrorCode
from neo_storage.core.events import PointsRead
from neo_storage.core.log_records import LogClear
from neo_storage.core.serials import SerialCache
from neo_storage.core.settings import StorageSettings
from neo_storage.core.values import ENTRY_BYTES, ValueCache
from neo_storage.points import perform
from support.storage_rig import C1, C3, E1, P0, T1, T2, T3, T4, Rig, Sent, data, only, vote, write

A, B, D = Oid(2), Oid(4), Oid(6)


def slow(values_bytes: int = 2**20) -> Rig:
    """Return a storage on a server that has a revision of A at T1 and one at T3."""
    rig = Rig(settings=StorageSettings(values_bytes=values_bytes), at_once=False).serve()
    rig.write_all(T1, write(A, 0, b"one"), counter=1)
    rig.write_all(T3, write(A, T1, b"three"), counter=2)
    assert len(rig.core.ground.overlay) == 0
    return rig


def fresh() -> Rig:
    """Return the same after a crash: it knows nothing but what the database has."""
    rig = slow()
    rig.crash()
    return rig.serve()


def load(rig: Rig, before: int = MAX_TID) -> list[Sent]:
    return rig.receive(C1, AskLoad(E1, A, Tid(before)), 7)


def loaded(sent: Sequence[Sent]) -> tuple[bytes, int, int]:
    answer = only(list(sent), AnswerLoad)
    return answer.data.value, answer.tid, answer.end


def test_what_was_committed_is_still_in_memory_when_the_database_has_it() -> None:
    rig = slow()
    assert loaded(load(rig)) == (b"three", T3, NO_TID)
    assert not rig.points


def test_older_revisions_come_from_the_database() -> None:
    rig = slow()
    for before in (T2, T3):
        assert load(rig, before) == []
        assert loaded(rig.read()) == (b"one", T1, T3)


def test_what_was_read_is_kept() -> None:
    rig = fresh()
    assert load(rig) == []
    assert loaded(rig.read()) == (b"three", T3, NO_TID)
    assert loaded(load(rig)) == (b"three", T3, NO_TID)
    assert not rig.points


def test_older_revision_that_was_read_is_not_taken_for_the_current_one() -> None:
    rig = fresh()
    load(rig, T2)
    rig.read()
    assert load(rig) == []
    assert loaded(rig.read()) == (b"three", T3, NO_TID)


def test_revision_that_the_database_has_not_yet_ends_the_kept_one() -> None:
    rig = slow()
    rig.connect(C3)
    rig.receive(C3, vote(write(A, T3, b"four"), client=C3, counter=3))
    rig.flush()
    rig.commit(T4, client=C3, counter=3)
    assert loaded(load(rig)) == (b"four", T4, NO_TID)
    assert loaded(load(rig, T4)) == (b"three", T3, T4)
    assert not rig.points


def test_answer_that_a_commit_has_overtaken_is_not_kept() -> None:
    rig = fresh()
    load(rig)
    (point,) = rig.points
    rig.points.clear()
    seen = perform(rig.backend.range_reader(), point.wanted)
    rig.connect(C3)
    rig.receive(C3, vote(write(A, T3, b"four"), client=C3, counter=3))
    rig.read()
    rig.flush()
    rig.commit(T4, client=C3, counter=3)
    rig.settle()
    rig.handle(PointsRead(point.number, seen))
    assert loaded(load(rig)) == (b"four", T4, NO_TID)


def emptied(rig: Rig) -> list[Sent]:
    """Return what a load says after the cell was emptied."""
    for effect in write_record(rig, LogClear(P0, NO_TID)):
        rig.perform(effect)
    rig.flush()
    rig.apply()
    return load(rig) + rig.read()


def write_record(rig: Rig, record: LogClear) -> list[Any]:
    rig.core.ground.write(record)
    return rig.core.ground.take_effects()


def test_what_is_emptied_is_forgotten() -> None:
    assert only(emptied(slow()), Error).code == ErrorCode.NOT_FOUND


def test_what_is_emptied_is_forgotten_although_a_vote_relies_on_its_serial() -> None:
    rig = slow()
    rig.core.ground.relied_on = lambda: (A,)
    assert only(emptied(rig), Error).code == ErrorCode.NOT_FOUND


def test_damaged_value_is_neither_served_nor_kept() -> None:
    rig = fresh()
    cell = rig.backend.state.cells[P0]
    cell[A] = tuple(r._replace(data=r.data._replace(value=b"wrong")) for r in cell[A])
    for _ in range(2):
        load(rig)
        assert only(rig.read(), Error).code == ErrorCode.CORRUPTED


def test_prefetch_takes_what_is_kept() -> None:
    rig = slow()
    answer = only(rig.receive(C1, AskLoads(E1, (A,), MAX_TID), 7), AnswerLoads)
    assert [one.data.value for one in answer.loaded] == [b"three"]
    assert not rig.points


def test_nothing_is_kept_without_room() -> None:
    rig = slow(values_bytes=0)
    assert load(rig) == []
    assert loaded(rig.read()) == (b"three", T3, NO_TID)


def test_room_is_bounded_and_what_was_used_last_stays() -> None:
    value = data(bytes(600))
    size = ENTRY_BYTES + 600
    cache = ValueCache(64 * size)
    for number in range(64):
        cache.keep(Oid(number), T1, value)
    assert len(cache) == 64
    assert cache.get(Oid(0), T1) is not None
    cache.keep(Oid(64), T1, value)
    assert cache.bytes == 64 * size
    assert cache.get(Oid(1), T1) is None
    assert cache.get(Oid(0), T1) is not None
    cache.keep(Oid(0), T2, value)
    assert cache.bytes == 64 * size
    assert cache.get(Oid(0), T1) is None


def test_values_that_are_large_or_not_whole_are_not_kept() -> None:
    cache = ValueCache(64_000)
    cache.keep(A, T1, data(bytes(1000)))
    cache.keep(B, T1, data(b"four")._replace(value=b""))
    assert (len(cache), cache.bytes) == (0, 0)
    cache.keep(D, T1, data(b""))
    assert cache.get(D, T1) is not None


def test_value_goes_with_its_serial() -> None:
    serials = SerialCache(4, 2**20)
    for number in range(6):
        serials.note(Oid(number), T1, data(b"value"))
    serials.trim(())
    assert [o for o in range(6) if serials.load(Oid(o), MAX_TID)] == [2, 3, 4, 5]
    assert len(serials.values) == 4
    serials.clear((Oid(5),))
    assert serials.get(Oid(5)) == T1
    assert serials.load(Oid(5), MAX_TID) is None
