"""Ceilings, packing, garbage, state, stopping."""

from neo_common.ids import NO_TID, Oid, Tid
from neo_common.model.partition_table import whole
from neo_common.wire.schema import (
    Adopt,
    Ceilings,
    CeilingsOk,
    Collect,
    CollectOk,
    FwdOk,
    Pack,
    PackProgress,
    SetCeilings,
    Stop,
    StorageState,
)
from neo_storage.core.events import Packed
from neo_storage.core.settings import StorageSettings
from support.storage_rig import (
    ALONE,
    C1,
    CLUSTER,
    E1,
    E3,
    M1,
    NO_CEILINGS,
    P0,
    P1,
    PAIR,
    S1,
    S2,
    T1,
    T2,
    T3,
    O,
    Rig,
    U,
    of,
    only,
    table,
    ttid,
    vote,
    write,
)


def test_ceilings_are_confirmed_when_durable_and_never_sink() -> None:
    rig = Rig().serve()
    higher = Ceilings(Tid(2 * 10**6), Oid(5))
    assert rig.receive(M1, SetCeilings(higher)) == []
    assert only(rig.flush(), CeilingsOk, M1).ceilings == higher
    assert rig.core.image.ceilings == Ceilings(Tid(2 * 10**6), Oid(10**6))


def test_pack_begins_when_the_order_is_durable() -> None:
    rig = Rig(S2).serve(table(((S1, U), (S2, O)), ((S2, U),)))
    assert rig.receive(M1, Pack(7, T2)) == []
    assert rig.packs == []
    assert only(rig.flush(), PackProgress, M1) == PackProgress(7, 0, 1, 0, 0)
    assert [tuple(p) for p in rig.packs] == [(7, T2, (P1,))]


def test_each_cell_that_is_packed_is_told() -> None:
    rig = Rig().serve()
    rig.receive(M1, Pack(7, T2))
    rig.flush()
    assert only(rig.packed(Packed(7, P0, 3, 300)), PackProgress) == PackProgress(7, 1, 2, 3, 300)
    assert only(rig.packed(Packed(7, P1, 1, 100)), PackProgress) == PackProgress(7, 2, 2, 4, 400)


def test_cell_of_an_earlier_order_is_not_counted() -> None:
    rig = Rig().serve()
    rig.receive(M1, Pack(8, T2))
    rig.flush()
    assert rig.packed(Packed(7, P0, 3, 300)) == []


def test_pack_goes_on_after_a_restart() -> None:
    rig = Rig().serve()
    rig.receive(M1, Pack(7, T2))
    rig.settle()
    rig.crash()
    rig.connect(M1)
    rig.adopt(ALONE)
    assert [(p.order, p.tid) for p in rig.packs] == [(7, T2)]


def test_pack_goes_on_when_the_whole_cluster_restarts() -> None:
    rig = Rig().serve()
    rig.receive(M1, Pack(7, T2))
    rig.settle()
    rig.crash()
    rig.fence(E3)
    rig.start(table(((S1, U),), ((S1, U),), epoch=E3), epoch=E3)
    assert [(p.order, p.tid) for p in rig.packs] == [(7, T2)]


def test_next_primary_is_told_how_far_a_pack_is() -> None:
    rig = Rig().serve()
    rig.receive(M1, Pack(7, T2))
    rig.flush()
    rig.packed(Packed(7, P0, 3, 300))
    rig.lose(M1)
    rig.connect(M1)
    assert only(rig.adopt(ALONE), PackProgress).cells_done == 1
    assert len(rig.packs) == 1


def test_pack_order_that_was_missed_is_done() -> None:
    rig = Rig().serve()
    rig.receive(M1, Adopt(E1, CLUSTER, whole(ALONE), True, NO_CEILINGS, (), (), (), T2))
    rig.flush()
    assert [p.tid for p in rig.packs] == [T2]


def test_pack_that_a_later_reign_does_not_know_is_given_up() -> None:
    """A primary that was cut off has ordered it here, and nowhere else. What is copied stays as the others have it."""
    rig = Rig(S2).serve(table(((S1, U), (S2, U)), ((S2, U),)))
    rig.receive(M1, Pack(7, T2))
    rig.settle()
    rig.lose(M1)
    rig.connect(M1)
    rig.adopt(table(((S1, U), (S2, O)), ((S1, U),), epoch=E3), epoch=E3)
    rig.settle()
    rig.set_table(table(((S1, U), (S2, U)), ((S1, U),), epoch=E3, ptid=2))
    assert (rig.packs[-1].tid, rig.core.image.pack_tid) == (NO_TID, NO_TID)


def test_cell_that_becomes_readable_after_a_pack_is_packed_too() -> None:
    """It may have copied from a cell that was not packed yet."""
    rig = Rig(S2).serve(table(((S1, U), (S2, O)), ((S2, U),)))
    rig.receive(M1, Pack(7, T2))
    rig.flush()
    rig.packed(Packed(7, P1, 1, 100))
    rig.set_table(table(((S1, U), (S2, U)), ((S2, U),), ptid=2))
    assert tuple(rig.packs[-1]) == (7, T2, (P0,))
    assert only(rig.packed(Packed(7, P0, 3, 300)), PackProgress) == PackProgress(7, 2, 2, 4, 400)


def test_cell_that_is_not_readable_any_more_is_not_packed() -> None:
    """While it copies it may lack what is current, and have what never was: nobody can tell what a pack must leave."""
    rig = Rig(S2).serve(table(((S1, U), (S2, U)), ((S2, U),)))
    rig.receive(M1, Pack(7, T2))
    rig.flush()
    assert [tuple(p) for p in rig.packs] == [(7, T2, (P0, P1))]
    told = rig.set_table(table(((S1, U), (S2, O)), ((S2, U),), ptid=2))
    assert [tuple(p) for p in rig.packs[1:]] == [(7, T2, (P1,))]
    assert only(told, PackProgress) == PackProgress(7, 0, 1, 0, 0)
    assert of(rig.packed(Packed(7, P0, 0, 0)), PackProgress)[0].cells_done == 0, "it was done just before"


def test_garbage_is_removed_but_not_what_is_newer_or_being_written() -> None:
    rig = Rig().serve()
    rig.write_all(T1, write(0), write(2), write(4), counter=1)
    rig.write_all(T3, write(2, T1), counter=2)
    rig.receive(C1, vote(write(4, T1)))
    rig.receive(M1, Collect(5, T2, tuple(Oid(o) for o in (0, 2, 4, 6))))
    assert of(rig.flush(), CollectOk) == []
    assert only(rig.apply(), CollectOk, M1) == CollectOk(5, 1)
    assert sorted(rig.backend.state.cells[P0]) == [2, 4]


def test_garbage_of_others_is_confirmed_too() -> None:
    rig = Rig().serve(PAIR, S2)
    assert only(rig.receive(M1, Collect(5, T2, (Oid(77),))) + rig.settle(), CollectOk).removed == 0


def test_state_is_told_when_it_changes_and_now_and_then() -> None:
    rig = Rig(settings=StorageSettings(state_s=5.0, disk_reserve_bytes=100)).serve()
    assert only(rig.disk(free=1000), StorageState, M1) == StorageState(True, "", 1000, 1000, "", 1)
    assert rig.disk(free=900) == []
    low = only(rig.disk(free=50), StorageState)
    assert not low.accepts_votes
    assert "50 bytes are free" in low.reason
    assert of(rig.tick(5.1), StorageState) != []


def test_nothing_free_is_too_little_even_without_a_reserve() -> None:
    rig = Rig(settings=StorageSettings(disk_reserve_bytes=0)).serve()
    assert only(rig.disk(free=1), StorageState).accepts_votes
    assert not only(rig.disk(free=0), StorageState).accepts_votes


def test_state_is_told_to_the_next_primary_at_once() -> None:
    rig = Rig().serve()
    rig.disk(free=10**12)
    rig.lose(M1)
    rig.connect(M1)
    rig.adopt(ALONE)
    assert only(rig.tick(), StorageState, M1).accepts_votes


def test_node_stops_when_what_was_begun_is_durable() -> None:
    rig = Rig().serve(PAIR, S2)
    rig.receive(C1, vote(write(0)))
    rig.receive(M1, Stop("the operator wants it"))
    rig.flush()
    assert rig.exit is None
    rig.receive(S2, FwdOk(ttid(), 1, (P0,)))
    assert rig.exit is not None
    assert (rig.exit.status, rig.exit.reason) == (0, "the operator wants it")


def test_node_without_votes_stops_when_its_log_is_durable() -> None:
    rig = Rig().serve()
    rig.receive(C1, vote(write(0)))
    rig.flush()
    rig.commit(T1)
    rig.receive(M1, Stop("bye"))
    assert rig.exit is None
    rig.flush()
    assert rig.exit is not None
