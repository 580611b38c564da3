"""Tids, oids, ceilings, clocks."""

from neo_common.core import Log
from neo_common.ids import MAX_OID, Oid, Tid, tid_from_time
from neo_common.wire import schema as s
from support.reign import C1, C2, S1, S2, Reign


def test_tid_is_the_time_of_the_commit() -> None:
    r = Reign().run(C1)
    assert r.commit(C1) == tid_from_time(r.wall)


def test_two_commits_of_one_moment_have_two_tids() -> None:
    r = Reign().run(C1)
    assert r.commit(C1, 2) == r.commit(C1, 1) + 1 or r.core.last > tid_from_time(r.wall)
    assert len({f.tid for f in r.to(C1, s.Finished)}) == 2


def test_clock_that_steps_back_is_told_and_tids_go_on() -> None:
    r = Reign().run(C1)
    first = r.commit(C1, 1)
    r.wall -= 100
    r.tick()
    assert any("stepped back by 100 s" in log.text for log in r.logs)
    assert r.commit(C1, 2) == first + 1


def test_clock_that_jumps_ahead_by_hours_is_not_believed() -> None:
    r = Reign().run(C1)
    first = r.commit(C1, 1)
    r.wall += 7200
    assert r.commit(C1, 2) == first + 1
    r.tick()
    assert [log.level for log in r.logs] == [40]
    assert r.commit(C1, 3) == first + 2
    r.wall -= 7200
    r.tick(1.0)
    assert r.commit(C1, 4) == tid_from_time(r.wall)


def test_clock_that_jumps_ahead_by_minutes_is_believed() -> None:
    r = Reign().run(C1)
    r.wall += 600
    r.tick(0.2)
    assert r.commit(C1) == tid_from_time(r.wall)
    assert isinstance(r.logs[0], Log)


# ---------------------------------------------------------------------------------------------- ceilings


def test_ceilings_are_raised_in_the_background() -> None:
    r = Reign().run(C1)
    for counter in range(1, 100):
        r.tick(0.5)
        assert r.commit(C1, counter) < r.core.ceilings.tid
    assert all(f.tid < r.storages[S1].ceilings.tid for f in r.to(C1, s.Finished))
    assert len(r.to(S1, s.SetCeilings)) > 10


def test_ceilings_rest_when_nobody_writes() -> None:
    r = Reign().run()
    r.tick(20.0)
    assert not r.to(S1, s.SetCeilings)


def test_commit_waits_for_the_ceiling_of_every_readable_node() -> None:
    r = Reign().run(C1, C2)
    r.storages[S2].answers.discard(s.SetCeilings)
    r.tick(20.0)
    r.say(C1, r.finish(C1))
    r.say(C2, r.finish(C2))
    assert not r.to(C1, s.Finished)
    r.say(S2, s.CeilingsOk(r.to(S2, s.SetCeilings)[-1].ceilings))
    assert r.to(C1, s.Finished)[0].tid < r.to(C2, s.Finished)[0].tid < r.core.ceilings.tid


def test_commit_does_not_wait_for_a_ceiling_for_ever() -> None:
    """Storages that take longer to confirm than ceilings are ahead: the tid is then a little old."""
    r = Reign(storages=1, replicas=0).run(C1)
    r.storages[S1].answers.discard(s.SetCeilings)
    r.tick(4.0)
    asked = r.to(S1, s.SetCeilings)[-1].ceilings
    r.tick(8.0)
    r.say(C1, r.finish(C1))
    assert not r.to(C1, s.Finished)
    r.say(S1, s.CeilingsOk(asked))
    assert r.to(C1, s.Finished)[0].tid < asked.tid < tid_from_time(r.wall)


def test_confirmation_of_lower_ceilings_does_not_count() -> None:
    r = Reign(storages=1, replicas=0).run(C1)
    r.storages[S1].answers.discard(s.SetCeilings)
    r.tick(4.0)
    before = r.core.ceilings
    r.say(S1, s.CeilingsOk(before))
    assert r.core.ceilings == before


def test_ceilings_do_not_wait_for_a_lost_storage() -> None:
    r = Reign().run(C1)
    r.storages[S2].answers.discard(s.SetCeilings)
    r.tick(20.0)
    r.say(C1, r.finish(C1))
    r.lose(S2)
    assert r.to(C1, s.Finished)


def test_storage_that_comes_back_gets_the_ceilings_that_are_being_raised() -> None:
    r = Reign().run(C1)
    r.storages[S1].answers.discard(s.SetCeilings)
    r.lose(S2)
    r.tick(4.0)
    r.dial(S2)
    assert r.to(S2, s.Adopt)[0].ceilings == r.core.ceilings_asked


def test_wait_goes_on_when_the_only_storage_is_lost() -> None:
    r = Reign(storages=1, replicas=0).run(C1)
    r.storages[S1].answers.discard(s.SetCeilings)
    r.tick(20.0)
    r.say(C1, r.finish(C1))
    r.lose(S1)
    r.storages[S1].answers.add(s.SetCeilings)
    r.dial(S1)
    r.tick()
    assert r.to(C1, s.Finished)


def test_queue_behind_a_ceiling_is_bounded() -> None:
    r = Reign(waiting_max=3).run(C1)
    r.storages[S2].answers.discard(s.SetCeilings)
    r.tick(20.0)
    for counter in range(1, 6):
        if C1 in r.core.clients:
            r.say(C1, r.finish(C1, counter))
    assert C1 not in r.connected


def test_abort_takes_back_a_finish_that_waits() -> None:
    r = Reign().run(C1)
    r.storages[S2].answers.discard(s.SetCeilings)
    r.tick(20.0)
    r.say(C1, r.finish(C1))
    r.say(C1, s.Abort(r.ttid(C1), 1, r.finish(C1).parts))
    r.say(S2, s.CeilingsOk(r.to(S2, s.SetCeilings)[-1].ceilings))
    assert r.to(C1, s.Aborted)
    assert not r.to(C1, s.Finished)


# ---------------------------------------------------------------------------------------------- oids


def test_oid_ranges_do_not_overlap() -> None:
    r = Reign().run(C1, C2)
    first = r.ask(C1, s.AskOids(1000))
    second = r.ask(C2, s.AskOids(1000))
    assert (first, second) == (s.AnswerOids(Oid(1), 1000), s.AnswerOids(Oid(1001), 1000))


def test_oids_are_below_the_ceiling_that_is_durable() -> None:
    r = Reign().run(C1)
    for _ in range(50):
        answer = r.ask(C1, s.AskOids(1000))
        assert answer.number > 0
        assert answer.first + answer.number <= r.storages[S2].ceilings.oid


def test_oids_wait_for_the_ceiling() -> None:
    r = Reign().run(C1)
    r.storages[S2].answers.discard(s.SetCeilings)
    while (answer := r.ask(C1, s.AskOids(10_000))) is not None:
        assert answer.first + answer.number <= r.core.ceilings.oid
    r.say(S2, s.CeilingsOk(r.to(S2, s.SetCeilings)[-1].ceilings))
    assert r.answered[C1, 9].number > 0


def test_raise_oid_is_durable_before_its_answer() -> None:
    r = Reign().run(C1)
    r.storages[S2].answers.discard(s.SetCeilings)
    assert r.ask(C1, s.AskRaiseOid(Oid(1_000_000))) is None
    r.say(S2, s.CeilingsOk(r.to(S2, s.SetCeilings)[-1].ceilings))
    assert r.answered[C1, 9] == s.AnswerRaiseOid()
    assert r.storages[S1].ceilings.oid > 1_000_000
    assert r.ask(C1, s.AskOids(1)) == s.AnswerOids(Oid(1_000_001), 1)


def test_raise_oid_below_what_was_given_changes_nothing() -> None:
    r = Reign().run(C1)
    r.ask(C1, s.AskOids(100))
    assert r.ask(C1, s.AskRaiseOid(Oid(5))) == s.AnswerRaiseOid()
    assert r.ask(C1, s.AskOids(1)) == s.AnswerOids(Oid(101), 1)


def test_raise_oid_to_the_end_is_refused() -> None:
    r = Reign().run(C1)
    assert isinstance(r.ask(C1, s.AskRaiseOid(MAX_OID)), s.Error)
    assert isinstance(r.ask(C1, s.AskOids(1)), s.AnswerOids)


def test_oids_before_welcome_are_refused() -> None:
    r = Reign()
    r.client(C1)
    answer = r.ask(C1, s.AskOids(1))
    assert isinstance(answer, s.Error)
    assert answer.code == s.ErrorCode.NOT_READY


def test_tids_are_above_those_of_a_storage_that_comes_later_unless_it_makes_them_up() -> None:
    """One may come back from a line of history that was given up; a tid of the future is not believed."""
    r = Reign().run(C1)
    now = tid_from_time(r.wall)
    for last, is_believed in ((Tid(now + 1_000_000_000), True), (Tid(2**63 - 1), False)):
        r.lose(S2)
        r.storages[S2].last = last
        r.dial(S2)
        assert (r.core.tid_floor >= last) is is_believed
    assert now + 1_000_000_000 < r.core.next_tid() < 2**62
