"""The oracle notices what it is there for: one small wrong history for each invariant that it decides."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from neo_common.ids import Epoch, Oid, Partition, Session, Tid, Ttid
from neo_common.wire.schema import Metadata, Mode, Record, Write
from neo_storage.core import log_records as log
from support.application import value_of
from support.checkers import Committed, Oracle, Violation

E1, E2 = Epoch(1), Epoch(2)
A, B = Ttid(Session(1), 1), Ttid(Session(2), 1)
X, Y = Oid(0), Oid(1)
T1, T2, T3 = Tid(10), Tid(20), Tid(30)
P0 = Partition(0)


def oracle() -> Oracle:
    """Return one that knows a reign, and votes of A and B."""
    result = Oracle()
    result.reign(E1, {}, {})
    result.began("C1", A)
    result.began("C2", B)
    result.voting("C1", A, 1, (P0,), [(X, Tid(0))], [], Mode.C)
    result.voting("C2", B, 1, (P0,), [(Y, Tid(0))], [], Mode.C)
    return result


def lost(o: Oracle) -> None:
    o.publish(E1, A, 1, T1)
    o.reign(E2, {}, {})


def acknowledged_only(o: Oracle) -> None:
    o.finished("C1", A, T1)


def failed_and_committed(o: Oracle) -> None:
    o.gave_up("C1", A, "failed")
    o.publish(E1, A, 1, T1)


def committed_and_failed(o: Oracle) -> None:
    o.publish(E1, A, 1, T1)
    o.gave_up("C1", A, "aborted")


def failed_and_recovered(o: Oracle) -> None:
    o.gave_up("C1", A, "failed")
    o.reign(E2, {A: (1, T1)}, {})


def heuristic_in_mode_a(o: Oracle) -> None:
    o.publish(E1, A, 1, T1)
    o.committed_by_recovery("C1", A, Mode.A)


def lost_update(o: Oracle) -> None:
    o.voting("C2", B, 2, (P0,), [(X, Tid(0))], [], Mode.C)
    o.publish(E1, A, 1, T1)
    o.publish(E1, B, 2, T2)


def broken_read_current(o: Oracle) -> None:
    o.voting("C2", B, 1, (P0,), [], [(X, Tid(0))], Mode.C)
    o.publish(E1, A, 1, T1)
    o.publish(E1, B, 1, T2)


def half_a_snapshot(o: Oracle) -> None:
    o.publish(E1, A, 1, T1)
    o.read("C2", E1, T1, X, Tid(0), B, cached=False)


def stale_cache(o: Oracle) -> None:
    o.publish(E1, A, 1, T1)
    o.read("C2", E1, T1, X, Tid(0), B, cached=True)


def tid_goes_back(o: Oracle) -> None:
    o.publish(E1, A, 1, T2)
    o.publish(E1, B, 1, T1)


def tid_twice_by_recovery(o: Oracle) -> None:
    o.reign(E2, {A: (1, T1), B: (1, T1)}, {})


def two_primaries(o: Oracle) -> None:
    o.reign(E2, {}, {})
    o.publish(E1, A, 1, T1)


def below_what_it_saw(o: Oracle) -> None:
    o.publish(E1, A, 1, T2)
    o.invalidated("C2", T2)
    o.voting("C2", B, 1, (P0,), [(Y, Tid(0))], [], Mode.C)
    o.reign(E2, {A: (1, T3), B: (1, Tid(25))}, {})


def two_tids(o: Oracle) -> None:
    o.publish(E1, A, 1, T1)
    o.publish(E1, A, 1, T2)


def oid_twice(o: Oracle) -> None:
    o.oids(Oid(100), 10)
    o.oids(Oid(109), 1)


def heard_out_of_order(o: Oracle) -> None:
    o.invalidated("C2", T2)
    o.invalidated("C2", T1)


def twice(o: Oracle) -> None:
    """A writes X, then B does, knowing that."""
    o.publish(E1, A, 1, T1)
    o.voting("C2", B, 2, (P0,), [(X, T1)], [], Mode.C)
    o.publish(E1, B, 2, T2)


def packed_too_far(o: Oracle) -> None:
    twice(o)
    o.pack_wanted(T1)
    o.packs(T2)


def packed_the_present(o: Oracle) -> None:
    twice(o)
    o.pack_wanted(T3)
    o.packs(T3)


def current_is_packed_away(o: Oracle) -> None:
    twice(o)
    o.pack_wanted(T1)
    o.packs(T1)
    o.serves("S1", X, [(T2, B)])


def promised_for_nothing(o: Oracle) -> None:
    twice(o)
    o.pack_promises(T1)


def pack_forgotten(o: Oracle) -> None:
    twice(o)
    o.pack_wanted(T2)
    o.packs(T2)
    o.pack_promises(T2)
    o.serves("S1", X, [(T1, A), (T2, B)])


def missing_without_a_pack(o: Oracle) -> None:
    twice(o)
    o.missed("C2", E1, T1, X)


def missing_above_a_pack(o: Oracle) -> None:
    twice(o)
    o.pack_wanted(T1)
    o.packs(T1)
    o.missed("C2", E1, T1, X)


def older_upload(o: Oracle) -> None:
    """A has stored a large value twice, and voted the second edition."""
    o.editions[A, 1, X] = 1
    o.publish(E1, A, 1, T1)
    o.read("C2", E1, T1, X, T1, A, cached=False, edition=0)


@pytest.mark.parametrize(
    ("invariant", "story"),
    [
        (1, lost),
        (1, acknowledged_only),
        (2, failed_and_committed),
        (2, committed_and_failed),
        (2, failed_and_recovered),
        (2, heuristic_in_mode_a),
        (3, lost_update),
        (3, broken_read_current),
        (4, half_a_snapshot),
        (5, stale_cache),
        (6, tid_goes_back),
        (6, tid_twice_by_recovery),
        (8, two_primaries),
        (11, below_what_it_saw),
        (12, two_tids),
        (13, oid_twice),
        (14, heard_out_of_order),
        (17, packed_too_far),
        (17, packed_the_present),
        (17, current_is_packed_away),
        (18, promised_for_nothing),
        (18, pack_forgotten),
        (19, older_upload),
        (4, missing_without_a_pack),
        (4, missing_above_a_pack),
    ],
)
def test_a_wrong_history_is_noticed(invariant: int, story: Callable[[Oracle], None]) -> None:
    with pytest.raises(Violation) as caught:
        story(oracle())
    assert caught.value.invariant == invariant


def test_a_right_history_is_not() -> None:
    o = oracle()
    o.publish(E1, A, 1, T1)
    o.finished("C1", A, T1)
    o.invalidated("C2", T1)
    o.read("C2", E1, T1, X, T1, A, cached=False)
    o.reign(E2, {}, {A: T1})
    o.voting("C2", B, 1, (P0,), [(X, T1)], [], Mode.C)
    o.publish(E2, B, 1, T2)
    o.finished("C2", B, T2)
    assert o.history(X) == [(T1, A), (T2, B)]


def test_a_pack_may_take_what_is_old_and_nothing_else() -> None:
    o = oracle()
    twice(o)
    o.pack_wanted(T3)
    o.packs(T2)
    o.missed("C2", E1, T1, X)
    o.serves("S1", X, [(T1, A), (T2, B)])
    o.pack_promises(T2)
    o.serves("S1", X, [(T2, B)])


def vote(attempt: int, *oids: Oid) -> log.LogVote:
    writes = tuple(Write(oid, Tid(0), Tid(0), value_of(A, oid)) for oid in oids)
    record = Record(A, attempt, P0, (P0,), Metadata(b"", b"", b""), 0, writes, (), Mode.C, Tid(0), Tid(0))
    return log.LogVote((record,))


def test_a_log_says_what_is_committed() -> None:
    said = Committed()
    said.add(vote(1, X))
    said.add(log.LogUnvote(A, 1, P0))
    said.add(vote(2, X, Y))
    assert said.history == {}
    said.add(log.LogCommit(A, 2, T1, (P0,), Tid(0)))
    assert said.history == {(P0, X): {T1: A}, (P0, Y): {T1: A}}
    assert not said.voted


def test_a_log_forgets_other_attempts_and_what_is_cleared() -> None:
    said = Committed()
    said.add(vote(1, X))
    said.add(log.LogCommit(A, 2, T1, (P0,), Tid(0)))
    assert said.history == {}
    said.add(vote(3, X))
    said.add(log.LogCommit(A, 3, T1, (P0,), Tid(0)))
    said.add(log.LogClear(P0, Tid(5)))
    assert said.history == {(P0, X): {}}
