"""Orders of people; stopping; what is shown."""

import json

from neo_common.ids import Tid
from neo_common.model.partition_table import EMPTY
from neo_common.states import ClusterState, Role, role_of
from neo_common.wire import schema as s
from support.reign import A1, C1, M2, S1, S2, Reign, p


def test_cluster_is_shown_in_figures() -> None:
    r = Reign().run(C1)
    r.admin()
    tid = r.commit(C1)
    answer = r.ask(A1, s.AskCluster())
    assert (answer.name, answer.state, answer.reason) == ("test", ClusterState.RUNNING, "")
    assert (answer.partitions, answer.replicas, answer.rows_not_ready) == (4, 1, 0)
    assert (answer.last_tid, answer.clients, answer.transactions) == (tid, 1, 1)
    assert answer.cluster_id == r.storages[S1].cluster_id


def test_nodes_are_shown_masters_first() -> None:
    r = Reign().run(C1)
    r.admin()
    roles = [role_of(i.node) for i in r.ask(A1, s.AskNodes()).nodes]
    assert roles == [Role.MASTER, Role.STORAGE, Role.STORAGE, Role.CLIENT, Role.ADMIN]


def test_table_is_shown_whole_before_running_too() -> None:
    r = Reign().run()
    r.admin()
    assert r.ask(A1, s.AskTable()).table.apply(EMPTY) == r.core.pt
    fresh = Reign()
    fresh.admin()
    assert fresh.ask(A1, s.AskTable()).table.partitions == 0


def test_admin_is_told_the_state_when_it_connects() -> None:
    r = Reign()
    r.admin()
    assert r.to(A1, s.Cluster)[0].state is ClusterState.RECOVERING
    assert "waits for storages s1, s2" in r.to(A1, s.Cluster)[0].reason


def test_start_of_a_running_cluster_is_illegal() -> None:
    r = Reign().run()
    r.admin()
    answer = r.ask(A1, s.AskStart(""))
    assert answer == s.Error(s.ErrorCode.ILLEGAL, "the cluster is RUNNING: it has been started")


def test_start_of_a_cluster_with_a_table_says_what_it_waits_for() -> None:
    r = Reign()
    former = Reign().run()
    for node in r.storages:
        r.storages[node] = former.storages[node]
    r.admin()
    r.dial(S1)
    answer = r.ask(A1, s.AskStart(""))
    assert answer.code == s.ErrorCode.NOT_READY
    assert "waits for storages s2 (S2)" in answer.text


def test_stop_tells_the_storages_and_exits_when_they_are_gone() -> None:
    r = Reign().run()
    r.admin()
    assert isinstance(r.ask(A1, s.AskStop("maintenance")), s.AnswerStop)
    assert r.core.state is ClusterState.STOPPING
    assert r.to(S1, s.Stop) == [s.Stop("maintenance")]
    assert r.exit is None
    r.lose(S1)
    r.lose(S2)
    assert r.exit is not None
    assert (r.exit.status, r.exit.reason) == (0, "maintenance")


def test_stop_waits_for_what_is_in_flight() -> None:
    r = Reign().run(C1)
    r.admin()
    r.storages[S2].answers.discard(s.Commit)
    r.commit(C1)
    r.ask(A1, s.AskStop("x"))
    assert not r.to(S1, s.Stop)
    r.say(S2, s.CommitOk((r.ttid(C1),), 10))
    r.tick()
    assert r.to(S1, s.Stop)


def test_stop_does_not_wait_for_ever() -> None:
    r = Reign(stop_s=2.0).run(C1)
    r.admin()
    r.storages[S2].answers.discard(s.Commit)
    r.commit(C1)
    r.ask(A1, s.AskStop("x"))
    r.tick(2.5)
    assert r.to(S1, s.Stop)
    r.tick(2.5)
    assert r.exit is not None


def test_finish_while_stopping_is_aborted_durably() -> None:
    r = Reign().run(C1)
    r.admin()
    r.storages[S2].answers.discard(s.Commit)
    r.commit(C1)
    r.ask(A1, s.AskStop("x"))
    r.say(C1, r.finish(C1, 2))
    assert r.to(S1, s.SAbort) == [s.SAbort(r.ttid(C1, 2), 1)]
    assert r.to(C1, s.Aborted)[0].text == "the cluster stops"


def test_nobody_is_let_in_while_stopping_but_admins() -> None:
    r = Reign().run()
    r.admin()
    r.ask(A1, s.AskStop("x"))
    assert r.refused[r.greet(Role.CLIENT, "late")].code == s.RefusalCode.STOPPING
    assert r.greet(Role.ADMIN, "a2") not in r.refused


def test_nothing_is_decided_after_the_leases_are_given_up() -> None:
    r = Reign(stop_s=1.0).run(C1)
    r.admin()
    r.storages[S2].answers.discard(s.Seal)
    packet = r.finish(C1, mode=s.Mode.A)
    r.say(C1, packet)
    r.ask(A1, s.AskStop("x"))
    r.tick(1.5)
    assert r.to(S1, s.Resign)
    r.say(S2, s.SealOk(packet.ttid, 1))
    assert not r.to(S1, s.Commit)


def test_stop_while_recovering() -> None:
    r = Reign()
    r.admin()
    r.dial(S1)
    r.ask(A1, s.AskStop("x"))
    assert r.to(S1, s.Stop)
    r.lose(S1)
    assert r.exit is not None


def test_secondary_stops_with_the_primary() -> None:
    r = Reign(masters=2, me=M2)
    primary = r.configured[0].node
    r.master(primary, s.MHello(r.core.epoch, primary, True, "m1:1"))
    r.say(primary, s.Stop("maintenance"))
    assert r.exit is not None


def test_storages_that_refuse_votes_are_said() -> None:
    r = Reign().run()
    r.say(S1, s.StorageState(False, "the disk is full", 10, 0, "", 1))
    assert r.core.nodes[S1].reason == "the disk is full"
    r.say(S1, s.StorageState(True, "", 10, 10, "", 1))
    assert r.core.nodes[S1].reason == ""


def test_debug_is_fit_for_json() -> None:
    r = Reign().run(C1)
    r.commit(C1)
    r.say(C1, s.Abort(r.ttid(C1, 2), 1, (p(0),)))
    told = json.loads(json.dumps(r.core.debug()))
    assert told["master"]["state"] == "RUNNING"
    assert told["tids"]["last"] == f"{r.core.last:#x}"
    assert Tid(r.core.last) > 0


def test_question_that_no_master_answers_is_refused() -> None:
    r = Reign().run()
    r.admin()
    assert isinstance(r.ask(A1, s.AskDebug()), s.Error)
