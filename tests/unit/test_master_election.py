"""Which master is in charge, under which epoch, as long as it holds a lease."""

from neo_common.core import Connected, Left
from neo_common.ids import NO_NODE, Epoch, make_epoch
from neo_common.states import ClusterState, Role
from neo_common.wire import schema as s
from neo_master.core.effects import Terminate
from neo_master.core.underway import Place
from support.reign import A1, C1, M1, M2, M3, S1, S2, Reign, chello


def test_single_master_is_primary_at_once() -> None:
    r = Reign()
    r.tick()
    assert r.core.place is Place.PRIMARY
    assert r.core.state is ClusterState.RECOVERING


def test_each_master_dials_those_before_it() -> None:
    assert Reign(masters=3, me=M1).core.wanted_masters() == ()
    assert [m.node for m in Reign(masters=3, me=M3).core.wanted_masters()] == [M1, M2]


def test_first_in_order_is_primary_when_all_have_spoken() -> None:
    r = Reign(masters=2, me=M1)
    r.tick()
    assert r.core.place is Place.ELECTING
    r.master(M2, s.MHello(Epoch(0), NO_NODE, False, "m2:1"))
    assert r.core.place is Place.PRIMARY
    assert r.last_to(M2, s.MHello).is_primary


def test_first_in_order_does_not_wait_for_ever_for_the_others() -> None:
    r = Reign(masters=2, me=M2)
    r.tick(1.0)
    assert r.core.place is Place.ELECTING
    r.tick(1.0)
    assert r.core.place is Place.PRIMARY


def test_who_is_primary_already_stays() -> None:
    r = Reign(masters=2, me=M1)
    r.master(M2, s.MHello(Epoch(5 << 24), M2, True, "m2:1"))
    assert r.core.place is Place.SECONDARY
    assert r.core.primary == M2


def test_secondary_sends_others_to_the_primary() -> None:
    r = Reign(masters=2, me=M2)
    early = r.greet(Role.CLIENT, "early")
    assert early in r.parked
    r.master(M1, s.MHello(Epoch(0), M1, True, "m1:1"))
    late = r.greet(Role.STORAGE, "s1", S1)
    for handle in (early, late):
        refusal = r.refused[handle]
        assert (refusal.code, refusal.primary) == (s.RefusalCode.NOT_PRIMARY, "m1:1")


def test_secondary_elects_again_when_the_primary_is_lost() -> None:
    r = Reign(masters=2, me=M2)
    r.master(M1, s.MHello(Epoch(7 << 24), M1, True, "m1:1"))
    r.lose(M1)
    assert r.core.place is Place.ELECTING
    r.tick(2.0)
    assert r.core.place is Place.PRIMARY
    assert r.core.epoch == make_epoch(8, M2)


def test_primary_without_a_start_yields_to_another() -> None:
    r = Reign(masters=2, me=M1)
    r.tick(2.0)
    assert r.core.place is Place.PRIMARY
    r.master(M2, s.MHello(Epoch(3 << 24 | 2), M2, True, "m2:1"))
    assert r.core.place is Place.SECONDARY


def test_running_primary_does_not_yield() -> None:
    r = Reign(masters=2, me=M1)
    r.tick(2.0)
    r.run()
    r.master(M2, s.MHello(Epoch(1 << 24 | 2), M2, True, "m2:1"))
    assert r.core.is_running


def test_unknown_master_is_refused() -> None:
    r = Reign()
    assert r.refused[r.greet(Role.MASTER, "m9", M2)].code == s.RefusalCode.IDENTITY


def test_other_cluster_is_refused() -> None:
    r = Reign()
    assert r.refused[r.greet(Role.CLIENT, "c", cluster="other")].code == s.RefusalCode.CLUSTER


def test_parked_peer_that_hangs_up_is_forgotten() -> None:
    r = Reign(masters=2, me=M1)
    from_before = r.greet(Role.CLIENT, "c")
    r.feed(Left(from_before, "gone"))
    r.tick(2.0)
    assert C1 not in r.connected


def test_lease_is_renewed_three_times_per_lease() -> None:
    r = Reign().run()
    r.tick(3.0)
    assert len(r.to(S1, s.Renew)) == 3


def test_lease_counts_from_when_the_renew_was_sent() -> None:
    """The answer comes 2 s late: the lease ends 3 s (less a margin) after the question."""
    r = Reign(storages=1, replicas=0).run()
    r.storages[S1].answers.discard(s.Renew)
    r.tick(1.2)
    sent, number = r.monotonic, r.core.renew_number
    first = r.core.renews[number]
    r.tick(1.5)
    r.say(S1, s.Renewed(r.core.epoch, number, 10))
    assert r.core.lease_until[S1] <= first + 3.0
    assert first <= sent


def test_without_lease_nothing_is_decided() -> None:
    r = Reign(storages=1, replicas=0).run(C1)
    r.storages[S1].answers.discard(s.Renew)
    r.tick(3.0)
    packet = r.finish(C1)
    r.say(C1, packet)
    assert not r.to(S1, s.Commit)
    assert not r.core.is_running


def test_primary_steps_down_when_no_lease_comes_back() -> None:
    r = Reign(storages=1, replicas=0).run(C1)
    epoch = r.core.epoch
    r.storages[S1].answers.discard(s.Renew)
    r.tick(7.0)
    assert r.core.epoch > epoch
    assert r.core.state is ClusterState.RECOVERING
    assert {d.peer for d in r.disconnected} >= {S1, C1}
    assert r.to(S1, s.Resign)


def test_storage_back_within_the_lease_keeps_the_reign() -> None:
    r = Reign(storages=1, replicas=0).run(C1)
    epoch = r.core.epoch
    r.lose(S1)
    r.tick(2.0)
    r.dial(S1)
    r.tick(5.0)
    assert (r.core.epoch, r.core.state) == (epoch, ClusterState.RUNNING)
    assert r.commit(C1)


def test_lease_of_a_lost_storage_does_not_count() -> None:
    """It may have seen us close the connection, and obey another primary."""
    r = Reign(storages=1, replicas=0).run(C1)
    r.lose(S1)
    assert not r.core.valid_lease()


def test_primary_steps_down_when_a_storage_obeys_a_higher_epoch() -> None:
    r = Reign().run()
    r.lose(S2)
    r.storages[S2].epoch = make_epoch(9, M2)
    r.dial(S2)
    assert not r.core.is_running
    r.dial(S1, S2)
    assert r.core.epoch == make_epoch(10, M1)


def test_primary_steps_down_when_a_client_has_promised_a_higher_epoch() -> None:
    r = Reign().run()
    r.client(C1, chello(promised=make_epoch(4, M2)))
    assert not r.core.is_running
    assert r.core.epoch == make_epoch(5, M1)


def test_epoch_is_above_that_of_every_storage_by_number() -> None:
    """An epoch of the same number and another master is not enough: sessions are made of the number."""
    r = Reign()
    r.storages[S2].epoch = make_epoch(6, M1)
    r.dial(S1, S2)
    assert r.core.epoch >> 24 == 7
    assert r.storages[S1].epoch == r.core.epoch


def test_epoch_of_a_former_life_of_this_master_is_not_used_again() -> None:
    r = Reign()
    r.storages[S1].epoch = make_epoch(1, M1)
    r.dial(S1)
    assert r.core.epoch == make_epoch(2, M1)


def test_resign_before_leaving() -> None:
    r = Reign().run()
    r.feed(Terminate("SIGTERM"))
    assert r.to(S1, s.Resign)
    assert r.exit is not None
    assert r.exit.status == 0


def test_admin_that_only_looks_inside_may_stay_at_a_secondary() -> None:
    r = Reign(masters=2, me=M2)
    r.master(M1, s.MHello(Epoch(0), M1, True, "m1:1"))
    from_shell = s.Hello(1, 1, ("debug",), Role.ADMIN, "a", "test", bytes(16), A1, 1, Epoch(0), "")
    r.connected.add(A1)
    r.feed(Connected(A1, from_shell))
    assert not r.disconnected
    assert isinstance(r.ask(A1, s.AskCluster()), s.Error)
