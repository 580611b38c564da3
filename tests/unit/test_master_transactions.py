"""Commit, seal, abort; the durable mark."""

from neo_common.core import Received
from neo_common.ids import Epoch, Session, Tid, Ttid, make_epoch
from neo_common.states import ClusterState
from neo_common.wire import schema as s
from support.reign import C1, C2, C3, M2, S1, S2, S3, Reign, chello, p, record


def slow(r: Reign, kind: type, *nodes: int) -> None:
    """Let storages no longer answer a kind of packet."""
    for node in nodes or r.storages:
        r.storages[node].answers.discard(kind)  # type: ignore[index]  # they are node ids


def order(r: Reign) -> list[tuple[str, int]]:
    """Return who was sent what, in order, of what a commit sends."""
    kinds = (s.Commit, s.Finished, s.Invalidate)
    return [
        (type(e.packet).__name__, e.peer) for e in r.effects if hasattr(e, "packet") and isinstance(e.packet, kinds)
    ]


def test_commit_goes_to_storages_then_client_then_others() -> None:
    r = Reign().run(C1, C2)
    r.commit(C1)
    assert order(r) == [("Commit", S1), ("Commit", S2), ("Finished", C1), ("Invalidate", C2)]


def test_one_invalidation_object_for_all_clients() -> None:
    """So the shell encodes it once."""
    r = Reign().run(C1, C2, C3)
    r.commit(C1)
    assert r.to(C2, s.Invalidate)[0] is r.to(C3, s.Invalidate)[0]


def test_commit_goes_to_the_touched_cells_only() -> None:
    r = Reign(storages=2, replicas=0).run(C1)
    r.commit(C1, parts=(0,))
    assert r.to(S1, s.Commit)
    assert not r.to(S2, s.Commit)


def test_tids_ascend_even_when_the_clock_steps_back() -> None:
    r = Reign().run(C1)
    first = r.commit(C1, 1)
    r.wall -= 500
    r.tick()
    assert r.commit(C1, 2) == first + 1


def test_tail_brings_what_a_storage_has_not_been_told() -> None:
    r = Reign(storages=2, replicas=0).run(C1)
    slow(r, s.Commit)
    first = r.commit(C1, 1, parts=(0,))
    second = r.commit(C1, 2, parts=(0,))
    third = r.commit(C1, 3, parts=(1,))
    fourth = r.commit(C1, 4, parts=(1,))
    tails = {c.tid: [d.tid for d in c.tail] for c in r.to(S2, s.Commit)}
    assert tails == {third: [first, second], fourth: []}


def test_tail_leaves_out_what_is_durable() -> None:
    r = Reign(storages=2, replicas=0).run(C1)
    first = r.commit(C1, 1, parts=(0,))
    r.say(C1, s.Heard(first))
    r.commit(C1, 2, parts=(1,))
    assert r.to(S2, s.Commit)[0].tail == ()
    assert r.to(S2, s.Commit)[0].durable == first


def test_repeated_finish_is_answered_with_the_same_tid() -> None:
    r = Reign().run(C1)
    tid = r.commit(C1)
    r.say(C1, r.finish(C1))
    assert [f.tid for f in r.to(C1, s.Finished)] == [tid, tid]
    assert len(r.to(S1, s.Commit)) == 1


def test_finish_with_votes_of_an_earlier_epoch_is_refused() -> None:
    r = Reign().run(C1)
    r.say(C1, r.finish(C1, epoch=Epoch(1)))
    assert r.to(C1, s.Aborted)
    assert not r.to(S1, s.Commit)


def test_finish_before_welcome_is_ignored() -> None:
    r = Reign()
    r.dial(S1)
    r.client(C1)
    r.say(C1, s.Finish(Ttid(Session(1), 1), 1, r.core.epoch, (p(0),), (), s.Mode.C, Tid(0)))
    assert not r.to(C1, s.Finished)


def test_partition_that_does_not_exist_cuts_the_client_off() -> None:
    r = Reign().run(C1)
    r.say(C1, r.finish(C1, parts=(99,)))
    assert C1 not in r.connected
    assert r.core.is_running


# ---------------------------------------------------------------------------------------------- the durable mark


def test_mark_waits_for_every_written_cell_and_the_client() -> None:
    r = Reign().run(C1)
    slow(r, s.Commit, S2)
    before = r.core.durable
    tid = r.commit(C1)
    r.say(C1, s.Heard(tid))
    assert r.core.durable == before
    r.say(S2, s.CommitOk((r.ttid(C1),), 10))
    assert r.core.durable == tid
    assert r.ttid(C1) not in r.core.decided


def test_mark_waits_for_a_client_that_has_not_heard() -> None:
    r = Reign().run(C1)
    tid = r.commit(C1)
    assert r.core.durable < tid
    r.tick(61.0)
    assert r.core.durable == tid


def test_mark_passes_what_a_client_given_up_has_not_heard_but_its_answer_is_kept() -> None:
    r = Reign().run(C1)
    tid = r.commit(C1)
    session, ttid = r.session(C1), r.ttid(C1)
    r.lose(C1)
    r.tick(4.0)
    assert r.core.durable == tid
    hello = chello(session, r.core.epoch, underway=(s.Underway(ttid, 1, s.Progress.FINISHING, (p(0),)),))
    r.client(C1, hello)
    assert r.last_to(C1, s.Welcome).fates == (s.Fate(ttid, 1, s.FateKind.COMMITTED, tid),)
    assert r.session(C1) != session


def test_kept_answers_are_bounded() -> None:
    r = Reign(remembered_max=3).run(C1)
    for counter in range(1, 9):
        r.commit(C1, counter)
    r.lose(C1)
    r.tick(4.0)
    assert len(r.core.decided) == 3


def test_mark_does_not_wait_for_a_cell_that_is_not_written_any_more() -> None:
    r = Reign().run(C1)
    slow(r, s.Commit, S2)
    tid = r.commit(C1)
    r.say(C1, s.Heard(tid))
    assert r.core.durable < tid
    r.lose(S2)
    assert r.core.durable == tid


def test_confirmed_adopt_confirms_the_decisions_in_it() -> None:
    r = Reign(storages=1, replicas=0).run(C1)
    slow(r, s.Commit)
    tid = r.commit(C1)
    r.say(C1, s.Heard(tid))
    r.lose(S1)
    assert r.core.durable < tid
    r.dial(S1)
    assert r.core.durable == tid


# ---------------------------------------------------------------------------------------------- finish: durable


def test_finish_durable_answers_when_the_commit_is_durable_everywhere() -> None:
    r = Reign(finish_durable=True).run(C1, C2)
    slow(r, s.Commit)
    tid = r.commit(C1)
    assert r.to(C2, s.Invalidate)
    r.say(S1, s.CommitOk((r.ttid(C1),), 10))
    assert not r.to(C1, s.Finished)
    r.say(S2, s.CommitOk((r.ttid(C1),), 10))
    assert [f.tid for f in r.to(C1, s.Finished)] == [tid]


def test_finish_durable_keeps_the_order_of_tids_for_each_client() -> None:
    r = Reign(finish_durable=True).run(C1, C2)
    slow(r, s.Commit)
    r.commit(C1)
    r.commit(C2)
    assert r.ask(C1, s.AskLast()) is None
    for counter, client in ((1, C1), (1, C2)):
        for storage in (S1, S2):
            r.say(storage, s.CommitOk((r.ttid(client, counter),), 10))
    kinds = [type(x).__name__ for x in r.sent[C1]]
    assert kinds == ["Finished", "Invalidate", "AnswerLast"]


# ---------------------------------------------------------------------------------------------- mode A


def test_mode_a_is_sealed_on_the_lowest_partition_first() -> None:
    r = Reign().run(C1)
    slow(r, s.Seal, S2)
    r.say(C1, r.finish(C1, parts=(1, 2), mode=s.Mode.A))
    assert r.to(S1, s.Seal) == r.to(S2, s.Seal) == [s.Seal(r.ttid(C1), 1)]
    assert not r.to(S1, s.Commit)
    r.say(S2, s.SealOk(r.ttid(C1), 1))
    assert r.to(S1, s.Commit)
    assert r.to(C1, s.Finished)


def test_abort_of_what_is_being_sealed_is_ignored() -> None:
    r = Reign().run(C1)
    slow(r, s.Seal, S2)
    r.say(C1, r.finish(C1, mode=s.Mode.A))
    r.say(C1, s.Abort(r.ttid(C1), 1, (p(0),)))
    assert not r.to(S1, s.SAbort)


def test_sealing_goes_on_when_its_client_is_lost() -> None:
    r = Reign().run(C1)
    slow(r, s.Seal, S2)
    packet = r.finish(C1, mode=s.Mode.A)
    r.say(C1, packet)
    r.lose(C1)
    r.say(S2, s.SealOk(packet.ttid, 1))
    assert r.to(S1, s.Commit)


def test_what_is_sealed_is_committed_when_its_client_is_given_up_while_it_waits_for_the_ceiling() -> None:
    """Its votes were told already, and left alone since it was being sealed: nobody else would end them."""
    r = Reign().run(C1)
    slow(r, s.Seal, S2)
    slow(r, s.SetCeilings, S2)
    packet = r.finish(C1, mode=s.Mode.A)
    r.say(C1, packet)
    r.lose(C1)
    r.tick(20.0)  # the grace is over, and the clock above the ceiling
    r.say(S2, s.VotedBy(packet.ttid.session, (s.VotedId(packet.ttid, 1, packet.parts),)))
    r.say(S2, s.SealOk(packet.ttid, 1))
    assert not r.to(S1, s.Commit)
    r.say(S2, s.CeilingsOk(r.to(S2, s.SetCeilings)[-1].ceilings))
    assert not r.to(S1, s.SAbort)
    assert [c.ttid for c in r.to(S1, s.Commit)] == [packet.ttid]
    assert not r.core.sealing


def test_seal_is_repeated_to_a_storage_that_comes_back() -> None:
    r = Reign(storages=1, replicas=0).run(C1)
    slow(r, s.Seal)
    r.say(C1, r.finish(C1, mode=s.Mode.A))
    r.lose(S1)
    r.storages[S1].answers.add(s.Seal)
    r.dial(S1)
    assert r.to(C1, s.Finished)


# ---------------------------------------------------------------------------------------------- abort


def test_aborted_is_told_when_durable_on_every_readable_cell_of_one_partition() -> None:
    r = Reign(storages=3, partitions=3, replicas=1).run(C1)
    slow(r, s.SAbort)
    r.say(C1, s.Abort(r.ttid(C1), 1, (p(0), p(1))))
    readable = r.core.pt.readable(p(0))
    r.say(readable[0], s.AbortOk(r.ttid(C1), 1))
    assert not r.to(C1, s.Aborted)
    r.say(readable[1], s.AbortOk(r.ttid(C1), 1))
    assert r.to(C1, s.Aborted) == [s.Aborted(r.ttid(C1), 1, "")]


def test_abort_ok_of_another_attempt_does_not_count() -> None:
    r = Reign(storages=1, replicas=0).run(C1)
    slow(r, s.SAbort)
    r.say(C1, s.Abort(r.ttid(C1), 2, (p(0),)))
    r.say(S1, s.AbortOk(r.ttid(C1), 1))
    assert not r.to(C1, s.Aborted)


def test_abort_of_a_committed_transaction_answers_finished() -> None:
    r = Reign().run(C1)
    tid = r.commit(C1)
    r.say(C1, s.Abort(r.ttid(C1), 1, (p(0),)))
    assert [f.tid for f in r.to(C1, s.Finished)] == [tid, tid]
    assert not r.to(C1, s.Aborted)


def test_finish_after_abort_is_aborted() -> None:
    r = Reign().run(C1)
    r.say(C1, s.Abort(r.ttid(C1), 1, (p(0),)))
    r.say(C1, r.finish(C1))
    assert not r.to(S1, s.Commit)
    assert len(r.to(C1, s.Aborted)) == 2


def test_finish_of_what_is_being_aborted_is_answered_when_that_is_durable() -> None:
    r = Reign(storages=1, replicas=0).run(C1)
    slow(r, s.SAbort)
    r.say(S1, s.Overdue((s.VotedId(r.ttid(C1), 1, (p(0),)),)))
    r.say(C1, r.finish(C1))
    assert not r.to(C1, s.Aborted)
    r.say(S1, s.AbortOk(r.ttid(C1), 1))
    assert r.to(C1, s.Aborted)


def test_overdue_vote_is_aborted_and_a_later_attempt_may_commit() -> None:
    r = Reign().run(C1)
    r.say(S1, s.Overdue((s.VotedId(r.ttid(C1), 1, (p(0),)),)))
    assert r.to(S1, s.SAbort) == [s.SAbort(r.ttid(C1), 1)]
    assert r.commit(C1, attempt=2)


def test_overdue_does_not_touch_what_is_committed() -> None:
    r = Reign().run(C1)
    r.commit(C1)
    r.say(S1, s.Overdue((s.VotedId(r.ttid(C1), 1, (p(0),)),)))
    assert not r.to(S1, s.SAbort)


def test_abort_waits_for_a_readable_node_that_is_away() -> None:
    """Durable means: no recovery can find it fully voted. A node that is away may have the votes."""
    r = Reign(storages=2, replicas=0).run(C1)
    r.lose(S1)
    r.say(C1, s.Abort(r.ttid(C1), 1, (p(0),)))
    assert not r.to(C1, s.Aborted)
    r.dial(S1)
    assert r.to(C1, s.Aborted)


def test_aborts_are_remembered_within_bounds() -> None:
    r = Reign(remembered_max=5).run()
    for number in range(20):
        r.lose(S2)
        r.storages[S2].voted = [record(Ttid(Session(50), number), 0)]
        r.dial(S2)
    assert len(r.core.aborted) <= 6


# ---------------------------------------------------------------------------------------------- readers, states


def test_told_says_the_last_tid() -> None:
    r = Reign().run(C1)
    tid = r.commit(C1)
    r.say(S1, s.Ask((Ttid(Session(9), 9),)))
    assert r.to(S1, s.Told) == [s.Told(tid, (Ttid(Session(9), 9),))]


def test_sync_comes_after_all_invalidations() -> None:
    r = Reign().run(C1, C2)
    tid = r.commit(C1)
    assert r.ask(C2, s.AskLast()) == s.AnswerLast(tid)
    assert [type(x).__name__ for x in r.sent[C2]] == ["Invalidate", "AnswerLast"]


def test_import_lets_only_its_client_commit_with_tids_above_the_last() -> None:
    r = Reign().run(C1, C2)
    assert r.ask(C1, s.AskImport(True)) == s.AnswerImport(Tid(0))
    assert r.core.state is ClusterState.IMPORTING
    r.say(C2, r.finish(C2))
    assert "import" in r.to(C2, s.Aborted)[0].text
    assert r.to(S1, s.SAbort)[0].ttid == r.ttid(C2)
    assert r.commit(C1, 1, given_tid=Tid(77)) == 77
    r.say(C1, r.finish(C1, 2, given_tid=Tid(77)))
    assert "not above" in r.to(C1, s.Aborted)[0].text
    assert r.ask(C1, s.AskImport(False)) == s.AnswerImport(Tid(77))
    assert r.core.state is ClusterState.RUNNING
    assert r.commit(C2, 5) > 77


def test_given_tid_outside_of_an_import_is_refused() -> None:
    r = Reign().run(C1)
    r.say(C1, r.finish(C1, given_tid=Tid(77)))
    assert "during an import" in r.to(C1, s.Aborted)[0].text


def test_import_ends_when_its_client_does_not_come_back() -> None:
    r = Reign().run(C1, C2)
    r.ask(C1, s.AskImport(True))
    assert isinstance(r.ask(C2, s.AskImport(True)), s.Error)
    r.lose(C1)
    assert r.core.state is ClusterState.IMPORTING
    r.tick(4.0)
    assert r.core.state is ClusterState.RUNNING


def test_import_begins_and_ends_when_what_was_committed_is_durable() -> None:
    """Else recovery could meet commits of others and of the import, all of them in doubt."""
    r = Reign().run(C1, C2)
    slow(r, s.Commit, S2)
    r.commit(C2)
    r.feed(Received(C1, s.AskImport(True), 9))
    assert (C1, 9) not in r.answered
    r.say(C2, r.finish(C2, 2))
    assert r.to(C2, s.Aborted), "others read only from now on"
    r.say(S2, s.CommitOk((r.ttid(C2),), 10))
    assert isinstance(r.answered[C1, 9], s.AnswerImport)
    given = Tid(r.core.last + 10)
    r.commit(C1, given_tid=given)
    r.feed(Received(C1, s.AskImport(False), 10))
    assert (C1, 10) not in r.answered
    assert r.core.state is ClusterState.IMPORTING
    r.say(S2, s.CommitOk((r.ttid(C1),), 10))
    assert r.answered[C1, 10] == s.AnswerImport(given)
    assert r.core.state is ClusterState.RUNNING


def test_import_goes_on_when_its_client_comes_back() -> None:
    r = Reign().run(C1)
    session = r.session(C1)
    r.ask(C1, s.AskImport(True))
    r.lose(C1)
    r.client(C1, chello(session, r.core.epoch))
    assert r.commit(C1, given_tid=Tid(77)) == 77


def test_given_tid_of_the_future_is_refused() -> None:
    r = Reign().run(C1)
    r.ask(C1, s.AskImport(True))
    r.say(C1, r.finish(C1, given_tid=Tid(2**62)))
    assert "future" in r.to(C1, s.Aborted)[0].text


def test_abort_of_a_higher_attempt_confirms_the_lower_one() -> None:
    r = Reign(storages=1, replicas=0).run(C1)
    slow(r, s.SAbort)
    r.say(C1, s.Abort(r.ttid(C1), 1, (p(0),)))
    r.say(S1, s.AbortOk(r.ttid(C1), 2))
    assert r.to(C1, s.Aborted)


def test_storage_that_names_unknown_partitions_does_no_harm() -> None:
    r = Reign().run(C1)
    r.say(S1, s.Overdue((s.VotedId(r.ttid(C1), 1, (p(999),)),)))
    assert r.core.is_running


def test_client_that_never_says_heard_costs_no_memory() -> None:
    r = Reign(told_s=1.0, remembered_max=5).run(C1)
    for counter in range(1, 50):
        r.commit(C1, counter)
        r.tick(0.5)
    r.tick(2.0)
    assert sum(map(len, r.core.untold_of.values())) == 0
    assert len(r.core.decided) <= 5


def test_session_of_a_former_reign_keeps_its_name_when_nothing_is_known_against_it() -> None:
    r = Reign().run()
    r.client(C1, chello(Session(5), make_epoch(0, M2)))
    assert r.session(C1) == Session(5)


def test_third_storage_does_not_hear_of_what_it_has_no_cell_of() -> None:
    r = Reign(storages=3, partitions=3, replicas=1).run(C1)
    r.commit(C1, parts=(0,))
    assert {n for n in (S1, S2, S3) if r.to(n, s.Commit)} == set(r.core.pt.written(p(0)))
