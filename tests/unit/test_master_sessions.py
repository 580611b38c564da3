"""Clients: sessions, grace, giving up, fates."""

from neo_common.core import Accept
from neo_common.ids import Epoch, NodeId, Oid, Session, Tid, Ttid, make_epoch
from neo_common.states import NodeState, Role, node_id
from neo_common.wire import schema as s
from support.reign import A1, C1, C2, M2, S1, S2, Reign, chello, p, record


def test_new_sessions_are_made_of_the_epoch_number() -> None:
    r = Reign().run(C1, C2)
    number = r.core.epoch >> 24
    assert [r.session(C1), r.session(C2)] == [number << 32 | 1, number << 32 | 2]


def test_client_is_welcome_when_the_cluster_runs() -> None:
    r = Reign()
    r.client(C1)
    assert not r.to(C1, s.Welcome)
    assert r.to(C1, s.Cluster)
    r.dial(S1, S2)
    welcome = r.to(C1, s.Welcome)[0]
    assert welcome.epoch == r.core.epoch
    assert {i.node for i in welcome.nodes} == {S1, S2}
    assert welcome.table.version == r.core.pt.version


def test_client_keeps_its_session_within_the_grace() -> None:
    r = Reign().run(C1)
    session = r.session(C1)
    r.lose(C1)
    r.tick(2.0)
    r.client(C1, chello(session, r.core.epoch))
    assert r.session(C1) == session
    assert not r.to(S1, s.Gone)


def test_session_is_given_up_after_the_grace() -> None:
    r = Reign().run(C1)
    session = r.session(C1)
    r.lose(C1)
    r.tick(4.0)
    assert r.to(S1, s.Gone) == r.to(S2, s.Gone) == [s.Gone(session)]
    r.client(C1, chello(session, r.core.epoch))
    assert r.session(C1) != session


def test_votes_of_a_session_given_up_are_aborted() -> None:
    r = Reign().run(C1)
    ttid = r.ttid(C1)
    r.storages[S2].voted = [record(ttid, 1, (1,))]
    r.lose(C1)
    r.tick(4.0)
    assert r.to(S2, s.SAbort) == [s.SAbort(ttid, 1)]


def test_client_comes_back_to_aborted_only_when_every_readable_node_has_told() -> None:
    r = Reign().run(C1)
    session, ttid = r.session(C1), r.ttid(C1)
    r.storages[S2].answers.discard(s.Gone)
    r.storages[S2].voted = [record(ttid, 0)]
    r.lose(C1)
    r.tick(4.0)
    r.forget()
    r.client(C1, chello(session, r.core.epoch, underway=(s.Underway(ttid, 1, s.Progress.FINISHING, (p(0),)),)))
    assert not r.to(C1, s.Welcome)
    r.storages[S2].answers.discard(s.SAbort)
    r.say(S2, r.storages[S2].voted_by(session))
    assert not r.to(C1, s.Welcome)
    r.say(S2, s.AbortOk(ttid, 1))
    assert r.to(C1, s.Welcome)[0].fates == (s.Fate(ttid, 1, s.FateKind.ABORTED, Tid(0)),)


def test_readable_node_that_is_away_must_tell_too() -> None:
    r = Reign(storages=1, replicas=0).run(C1)
    session = r.session(C1)
    r.lose(S1)
    r.lose(C1)
    r.core.give_up(session)
    r.client(C1, chello(session, r.core.epoch))
    assert not r.to(C1, s.Welcome)
    r.dial(S1)
    assert r.to(C1, s.Welcome)


def test_finish_of_a_session_given_up_is_refused() -> None:
    r = Reign().run(C1)
    session = r.session(C1)
    r.lose(C1)
    r.tick(4.0)
    r.client(C1)
    r.say(C1, s.Finish(Ttid(session, 1), 1, r.core.epoch, (p(0),), (Oid(0),), s.Mode.C, Tid(0)))
    assert r.to(C1, s.Aborted)
    assert not r.to(S1, s.Commit)


def test_fate_of_what_the_primary_has_not_heard_of_is_unchanged() -> None:
    r = Reign().run(C1)
    session, ttid = r.session(C1), r.ttid(C1)
    r.lose(C1)
    r.client(C1, chello(session, r.core.epoch, underway=(s.Underway(ttid, 1, s.Progress.VOTED, (p(0),)),)))
    assert r.last_to(C1, s.Welcome).fates[0].kind == s.FateKind.UNCHANGED


def test_fate_of_an_unknown_transaction_of_another_reign_is_aborted() -> None:
    r = Reign().run()
    ttid = Ttid(Session(5), 1)
    hello = chello(ttid.session, make_epoch(0, M2), underway=(s.Underway(ttid, 1, s.Progress.FINISHING, (p(0),)),))
    r.client(C1, hello)
    assert r.last_to(C1, s.Welcome).fates[0].kind == s.FateKind.ABORTED


def test_fate_of_what_was_committed_meanwhile() -> None:
    r = Reign().run(C1)
    tid, session, ttid = r.commit(C1), r.session(C1), r.ttid(C1)
    r.lose(C1)
    r.client(C1, chello(session, r.core.epoch, underway=(s.Underway(ttid, 1, s.Progress.FINISHING, (p(0),)),)))
    assert r.last_to(C1, s.Welcome).fates == (s.Fate(ttid, 1, s.FateKind.COMMITTED, tid),)


def test_new_connection_of_a_session_replaces_the_old_one() -> None:
    r = Reign().run(C1)
    session = r.session(C1)
    r.client(C2, chello(session, r.core.epoch))
    assert C1 not in r.connected
    assert r.session(C2) == session
    r.tick(5.0)
    assert not r.to(S1, s.Gone)


def test_client_without_id_gets_a_fresh_one() -> None:
    r = Reign().run(C1)
    handle = r.greet(Role.CLIENT, "new")
    assert Accept(handle, node_id(Role.CLIENT, 2)) in r.effects


def test_id_of_a_client_that_is_there_is_not_given_to_another() -> None:
    r = Reign().run(C1)
    handle = r.greet(Role.CLIENT, "other", C1, incarnation=999)
    accepted = [e for e in r.effects if isinstance(e, Accept) and e.connection == handle]
    assert accepted[0].node != C1
    assert C1 in r.core.connected


def test_id_is_never_given_twice_in_a_reign() -> None:
    r = Reign().run()
    seen: set[NodeId] = set()
    for _ in range(5):
        handle = r.greet(Role.CLIENT, "c")
        node = next(e.node for e in r.effects if isinstance(e, Accept) and e.connection == handle)
        assert node not in seen
        seen.add(node)
        r.lose(node)


def test_too_many_clients_are_refused() -> None:
    r = Reign(clients_max=1).run(C1)
    assert r.refused[r.greet(Role.CLIENT, "c2")].code == s.RefusalCode.LIMIT


def test_given_up_sessions_are_remembered_within_bounds() -> None:
    r = Reign(remembered_max=3).run()
    for _ in range(6):
        r.client(C1)
        r.lose(C1)
        r.tick(4.0)
    assert len(r.core.gone) == 3


def test_client_goes_from_the_node_table_when_lost() -> None:
    r = Reign().run(C1)
    assert r.core.nodes[C1].state is NodeState.RUNNING
    r.lose(C1)
    assert r.core.nodes.get(C1) is None


def test_admins_hear_of_clients_once_per_tick() -> None:
    r = Reign().run()
    r.admin()
    r.forget()
    r.client(C1)
    r.client(C2)
    assert not r.to(A1, s.Nodes)
    r.tick()
    assert len(r.to(A1, s.Nodes)) == 1
    assert {C1, C2} <= {i.node for i in r.to(A1, s.Nodes)[0].nodes}


def test_read_only_client_gets_no_oids() -> None:
    r = Reign().run()
    r.client(C1, chello(read_only=True))
    answer = r.ask(C1, s.AskOids(1))
    assert isinstance(answer, s.Error)
    assert answer.code == s.ErrorCode.READ_ONLY


def test_packets_of_a_peer_that_is_not_connected_are_dropped() -> None:
    r = Reign().run(C1)
    packet = r.finish(C1)
    r.lose(C1)
    r.say(C1, packet)
    assert not r.to(S1, s.Commit)


def test_epoch_that_a_client_has_promised_is_not_reigned_below() -> None:
    r = Reign()
    r.client(C1, chello(promised=make_epoch(4, M2)))
    r.dial(S1, S2)
    assert r.core.epoch > make_epoch(4, M2)
    assert r.last_to(C1, s.Welcome).epoch == r.core.epoch
    assert r.core.epoch != Epoch(0)


def away(r: Reign) -> s.Underway:
    """C1 has asked to finish, and heard no answer; its session is given up; all storages forget the decision."""
    packet = r.finish(C1)
    session = r.session(C1)
    r.say(C1, packet)
    tid = r.core.last
    for storage in r.storages.values():
        storage.history[packet.ttid] = tid
    assert packet.ttid.session == session
    return s.Underway(packet.ttid, packet.attempt, s.Progress.FINISHING, packet.parts)


def next_primary(r: Reign) -> Reign:
    """Another primary, that has never heard of it."""
    later = Reign(replicas=1).run()
    for node, storage in later.storages.items():
        storage.history = r.storages[node].history
    return later


def come_back(r: Reign, underway: s.Underway) -> None:
    r.client(C1, chello(underway.ttid.session, make_epoch(0, M2), underway=(underway,)))


def test_client_that_was_given_up_is_told_of_a_commit_that_only_history_knows() -> None:
    r = Reign().run(C1)
    underway = away(r)
    tid = r.core.last
    later = next_primary(r)
    come_back(later, underway)
    assert later.last_to(C1, s.Welcome).fates == (s.Fate(underway.ttid, 1, s.FateKind.COMMITTED, tid),)
    assert not later.core.seeking


def test_client_that_was_given_up_is_told_of_a_sealed_commit_when_it_is_decided() -> None:
    """Found by simulation: history did not know of it yet, the client was told ABORTED, and it was committed."""
    r = Reign().run(C1)
    r.storages[S2].answers.discard(s.Seal)
    packet = r.finish(C1, mode=s.Mode.A)
    underway = s.Underway(packet.ttid, packet.attempt, s.Progress.FINISHING, packet.parts)
    r.say(C1, packet)
    r.lose(C1)
    r.tick(10.0)
    welcomed = len(r.to(C1, s.Welcome))
    r.client(C1, chello(packet.ttid.session, r.core.epoch, underway=(underway,)))
    assert len(r.to(C1, s.Welcome)) == welcomed
    r.say(S2, s.SealOk(packet.ttid, 1))
    assert r.last_to(C1, s.Welcome).fates == (s.Fate(packet.ttid, 1, s.FateKind.COMMITTED, r.core.last),)


def test_client_is_told_aborted_only_when_no_partition_knows_of_it() -> None:
    r = Reign().run(C1)
    underway = away(r)
    later = next_primary(r)
    for storage in later.storages.values():
        storage.history = {}
        storage.answers.discard(s.AskFate)
    come_back(later, underway)
    asked = later.to(S1, s.AskFate)
    assert asked
    assert not later.to(C1, s.Welcome)
    later.say(S1, s.ToldFate(underway.ttid, asked[-1].parts, Tid(0)))
    assert later.last_to(C1, s.Welcome).fates == (s.Fate(underway.ttid, 1, s.FateKind.ABORTED, Tid(0)),)
    assert not later.core.seeking
    assert not later.core.absent


def test_question_for_history_goes_to_another_cell_when_the_first_is_lost() -> None:
    r = Reign().run(C1)
    underway = away(r)
    later = next_primary(r)
    for storage in later.storages.values():
        storage.answers.discard(s.AskFate)
    come_back(later, underway)
    asked = [n for n in (S1, S2) if later.to(n, s.AskFate)]
    assert len(asked) == 1
    later.storages[S1 if asked == [S2] else S2].answers.add(s.AskFate)
    later.lose(asked[0])
    assert later.last_to(C1, s.Welcome).fates[0].kind == s.FateKind.COMMITTED


def test_question_for_history_goes_to_another_cell_when_the_first_has_left_the_table() -> None:
    """It may have been half erased when it looked: that it has found nothing says nothing."""
    r = Reign().run(C1)
    underway = away(r)
    later = next_primary(r)
    for storage in later.storages.values():
        storage.answers.discard(s.AskFate)
    come_back(later, underway)
    (asked,) = [n for n in (S1, S2) if later.to(n, s.AskFate)]
    other = S1 if asked == S2 else S2
    parts = later.to(asked, s.AskFate)[-1].parts
    for part in parts:
        later.say(asked, s.Damaged(later.core.pt.version, part, asked, "a value has not its checksum"))
    assert all(asked not in later.core.pt.readable(part) for part in parts)
    later.say(asked, s.ToldFate(underway.ttid, parts, Tid(0)))
    assert later.to(other, s.AskFate)[-1].parts == parts
    later.say(other, s.ToldFate(underway.ttid, parts, later.storages[other].history[underway.ttid]))
    assert later.last_to(C1, s.Welcome).fates[0].kind == s.FateKind.COMMITTED


def test_client_that_leaves_is_given_up_at_once() -> None:
    r = Reign().run(C1)
    session = r.session(C1)
    r.say(C1, s.Leave())
    assert [g.session for g in r.to(S1, s.Gone)] == [session]
    r.lose(C1)
    assert not r.core.lost
    assert not r.core.going
