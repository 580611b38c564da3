"""The partition table: one change at a time, stable before it counts."""

from itertools import pairwise

from neo_common.ids import NodeId, Ptid, Version
from neo_common.model.partition_table import EMPTY
from neo_common.states import CellState, ClusterState
from neo_common.wire import schema as s
from neo_master.core.changes import MoveLead
from support.reign import A1, C1, C2, S1, S2, S3, Reign, p

U, J, OUT, F = CellState.UP_TO_DATE, CellState.JOINING, CellState.OUT_OF_DATE, CellState.FEEDING


def states(r: Reign, partition: int) -> list[tuple[NodeId, CellState]]:
    """Return a row of the newest table."""
    return [tuple(cell) for cell in r.core.pt.rows[partition]]  # type: ignore[misc]  # a cell is a pair


def test_lost_storage_goes_out_of_date_at_the_end_of_each_row() -> None:
    r = Reign(partitions=2).run()
    assert states(r, 0) == [(S1, U), (S2, U)]
    r.lose(S1)
    assert states(r, 0) == [(S2, U), (S1, OUT)]
    assert states(r, 1) == [(S2, U), (S1, OUT)]


def test_last_up_to_date_cell_is_never_put_out_of_date() -> None:
    r = Reign(partitions=1).run()
    r.lose(S1)
    r.lose(S2)
    assert states(r, 0) == [(S2, U), (S1, OUT)]


def test_table_is_stable_when_durable_on_every_readable_node() -> None:
    r = Reign(storages=3, partitions=3, replicas=2).run(C1)
    r.storages[S2].answers.discard(s.SetPT)
    r.lose(S1)
    version = r.core.pt.version
    assert r.to(S3, s.SetPT)
    assert not r.to(S3, s.Stable)
    assert not r.to(C1, s.NewPT)
    r.say(S2, s.PtOk(version))
    assert r.to(S3, s.Stable) == [s.Stable(version)]
    assert r.core.stable_pt is r.core.pt


def test_clients_hear_of_a_stable_table_before_storages_hear_that_it_is_stable() -> None:
    r = Reign().run(C1)
    r.lose(S1)
    told = [(type(e.packet).__name__, e.peer) for e in r.effects if hasattr(e, "packet")]
    assert told.index(("NewPT", C1)) < told.index(("Stable", S2))


def test_pt_ok_of_an_older_version_does_not_count() -> None:
    r = Reign().run()
    r.storages[S2].answers.discard(s.SetPT)
    r.lose(S1)
    r.say(S2, s.PtOk(Version(r.core.epoch, Ptid(1))))
    assert r.core.pt_need == {S2}


def test_one_change_at_a_time() -> None:
    r = Reign(storages=3, partitions=3, replicas=2).run()
    r.storages[S3].answers.discard(s.SetPT)
    r.lose(S1)
    version = r.core.pt.version
    r.say(S3, s.FwdFail(version, S2))
    r.tick()
    assert r.core.pt.version == version
    r.say(S3, s.PtOk(version))
    assert r.core.pt.version > version


def test_set_pt_carries_the_last_tid() -> None:
    r = Reign().run(C1)
    tid = r.commit(C1)
    r.lose(S1)
    assert r.to(S2, s.SetPT)[0].last == tid


def test_peers_get_differences_from_what_they_were_sent() -> None:
    r = Reign(storages=3, partitions=9, replicas=1).run(C1)
    before = r.core.pt.version
    r.lose(S1)
    update = r.to(S2, s.SetPT)[0].table
    assert update.base == before
    assert len(update.rows) == 6
    assert r.to(C1, s.NewPT)[0].table.base == before


def test_new_client_gets_the_whole_table() -> None:
    r = Reign().run(C1)
    r.lose(S1)
    r.client(C2)
    assert r.to(C2, s.Welcome)[0].table.apply(EMPTY) == r.core.pt


def test_admin_hears_of_new_tables() -> None:
    r = Reign().run()
    r.admin()
    r.lose(S1)
    assert r.to(A1, s.NewPT)[0].table.apply(EMPTY) == r.core.pt


# ---------------------------------------------------------------------------------------------- FwdFail


def test_fwd_fail_of_the_lead_puts_the_cell_out_of_date() -> None:
    r = Reign(partitions=1).run()
    r.say(S1, s.FwdFail(r.core.pt.version, S2))
    assert states(r, 0) == [(S1, U), (S2, OUT)]


def test_fwd_fail_of_another_does_not_count() -> None:
    r = Reign(partitions=1).run()
    r.say(S2, s.FwdFail(r.core.pt.version, S1))
    assert states(r, 0) == [(S1, U), (S2, U)]
    assert r.to(S2, s.Stable) == [s.Stable(r.core.pt.version)]


def test_fwd_fail_concerns_the_rows_that_its_sender_leads() -> None:
    r = Reign(partitions=2).run()
    r.say(S1, s.FwdFail(r.core.pt.version, S2))
    assert states(r, 0) == [(S1, U), (S2, OUT)]
    assert states(r, 1) == [(S2, U), (S1, U)]


# ---------------------------------------------------------------------------------------------- joining


def back(r: Reign) -> None:
    """Lose S2, let it come back and be adopted, and begin to join."""
    r.lose(S2)
    r.dial(S2)
    r.tick(0.5)


def test_storage_that_is_back_joins_by_itself_after_adopt() -> None:
    r = Reign(partitions=2).run()
    back(r)
    assert states(r, 0) == [(S1, U), (S2, J)]
    assert states(r, 1) == [(S1, U), (S2, J)]


def test_storage_does_not_join_before_it_is_adopted() -> None:
    r = Reign(partitions=1).run()
    r.lose(S2)
    r.storages[S2].answers.discard(s.Adopt)
    r.dial(S2)
    r.tick(1.0)
    assert states(r, 0) == [(S1, U), (S2, OUT)]


def test_ready_makes_it_up_to_date_at_the_end_of_the_row() -> None:
    r = Reign(partitions=1).run()
    r.lose(S1)
    r.dial(S1)
    r.tick(0.5)
    r.say(S1, s.Ready(r.core.pt.version, p(0)))
    assert states(r, 0) == [(S2, U), (S1, U)]


def test_ready_of_an_earlier_join_does_not_count() -> None:
    r = Reign(partitions=1).run()
    back(r)
    earlier = r.core.pt.version
    r.lose(S2)
    r.dial(S2)
    r.tick(2.0)
    assert states(r, 0)[1] == (S2, J)
    r.say(S2, s.Ready(earlier, p(0)))
    assert states(r, 0)[1] == (S2, J)
    r.say(S2, s.Ready(r.core.pt.version, p(0)))
    assert states(r, 0)[1] == (S2, U)


def test_join_is_broken_off_when_the_lead_is_lost() -> None:
    r = Reign(storages=3, partitions=1, replicas=2).run()
    r.lose(S3)
    r.dial(S3)
    r.tick(0.5)
    assert states(r, 0) == [(S1, U), (S2, U), (S3, J)]
    r.lose(S1)
    assert states(r, 0) == [(S2, U), (S3, OUT), (S1, OUT)]


def test_join_is_broken_off_by_the_word_of_who_joins() -> None:
    r = Reign(partitions=1).run()
    back(r)
    r.say(S2, s.FwdFail(r.core.pt.version, S2))
    assert states(r, 0) == [(S1, U), (S2, OUT)]


def test_join_that_breaks_off_waits_longer_each_time() -> None:
    r = Reign(partitions=1).run()
    r.lose(S2)
    r.dial(S2)
    begun = []
    for _ in range(200):
        r.tick(0.1)
        if states(r, 0)[1] == (S2, J):
            begun.append(r.monotonic)
            r.say(S2, s.FwdFail(r.core.pt.version, S2))
    pauses = [b - a for a, b in pairwise(begun)]
    assert len(pauses) >= 3
    assert all(later > 1.5 * earlier for earlier, later in pairwise(pauses))


def test_all_cells_of_a_storage_join_with_one_table() -> None:
    r = Reign(partitions=8).run()
    r.lose(S2)
    r.dial(S2)
    before = r.core.pt.version.ptid
    r.tick(0.1)
    assert all((S2, J) in states(r, n) for n in range(8))
    assert r.core.pt.version.ptid == before + 1


def test_promotion_is_taken_back_when_a_readable_node_is_lost_before_it_has_it() -> None:
    """That node alone would be complete for a recovery that knows nothing of the promotion."""
    r = Reign(storages=3, partitions=1, replicas=2).run()
    r.lose(S3)
    r.dial(S3)
    r.tick(0.5)
    r.storages[S2].answers.discard(s.SetPT)
    r.storages[S1].answers.discard(s.SetPT)
    r.say(S3, s.Ready(r.core.pt.version, p(0)))
    assert states(r, 0) == [(S1, U), (S2, U), (S3, U)]
    version = r.core.pt.version
    r.lose(S2)
    r.storages[S1].answers.add(s.SetPT)
    r.say(S1, s.PtOk(version))
    r.tick()
    assert (S3, U) not in states(r, 0)


def test_join_needs_the_lead_adopted() -> None:
    r = Reign(partitions=1).run()
    r.lose(S2)
    r.lose(S1)
    r.dial(S2)
    r.tick(1.0)
    assert states(r, 0) == [(S1, U), (S2, OUT)]


def test_lead_moves_to_the_next_cell() -> None:
    r = Reign(partitions=1).run()
    r.core.request_change(MoveLead(p(0)))
    r.tick()
    assert states(r, 0) == [(S2, U), (S1, U)]


def test_lead_without_another_cell_stays() -> None:
    r = Reign(partitions=1, replicas=0).run()
    version = r.core.pt.version
    r.core.request_change(MoveLead(p(0)))
    assert r.core.pt.version == version


def test_abort_becomes_durable_by_a_table_without_the_node_that_is_away() -> None:
    r = Reign(partitions=1).run(C1)
    r.storages[S2].answers.discard(s.SAbort)
    r.say(C1, s.Abort(r.ttid(C1), 1, (p(0),)))
    assert not r.to(C1, s.Aborted)
    r.lose(S2)
    assert r.to(C1, s.Aborted)


def test_seal_becomes_complete_by_a_table_without_the_node_that_is_away() -> None:
    r = Reign(partitions=1).run(C1)
    r.storages[S2].answers.discard(s.Seal)
    r.say(C1, r.finish(C1, mode=s.Mode.A))
    assert not r.to(C1, s.Finished)
    r.lose(S2)
    assert r.to(C1, s.Finished)


def test_rows_without_a_readable_node_are_said() -> None:
    r = Reign(storages=2, partitions=2, replicas=0).run()
    r.lose(S1)
    r.tick()
    assert r.core.state is ClusterState.RUNNING
    assert r.core.reason == "1 partitions have no readable cell: waits for s1 (S1)"
    r.dial(S1)
    r.tick()
    assert r.core.reason == ""


def test_feeding_cell_of_a_lost_node_goes_out_of_date() -> None:
    r = Reign(partitions=1).run()
    assert r.core.may_demote(((S1, U), (S2, F)), F)  # type: ignore[arg-type]  # cells are pairs
    assert not r.core.may_demote(((S1, U), (S2, F)), U)  # type: ignore[arg-type]  # the same
    assert not r.core.may_demote(((S1, U), (S2, OUT)), OUT)  # type: ignore[arg-type]  # the same
