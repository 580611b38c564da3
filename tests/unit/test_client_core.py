"""The client's core: one rule of the commit protocol per test, packets and answers by hand."""

import pytest

from neo_client.core.client import ClientCore, ClientSettings
from neo_client.core.events import (
    AbortDone,
    AbortNow,
    CacheCut,
    Closing,
    CommittedByRecovery,
    Failed,
    FinishDone,
    FinishNow,
    GiveUp,
    Invalidated,
    Job,
    Reset,
    Resolve,
    Resolved,
    StoredAhead,
    Upload,
    VoteDone,
    VoteNow,
)
from neo_client.core.tpc import Phase, Tpc
from neo_common.core import Connected, Disconnect, Lost, Received, Send, Tick
from neo_common.errors import NotReady
from neo_common.ids import (
    NO_NODE,
    NO_TID,
    Epoch,
    Instant,
    NodeId,
    Oid,
    Partition,
    Ptid,
    Seconds,
    Session,
    Tid,
    Ttid,
    Version,
)
from neo_common.model.orders import Choice, Orders
from neo_common.model.partition_table import Cell, PartitionTable, whole
from neo_common.states import CellState, Role, node_id
from neo_common.wire.schema import (
    Abort,
    Aborted,
    CHello,
    Compression,
    Conflict,
    Contended,
    Data,
    Decision,
    ErrorCode,
    Fate,
    FateKind,
    Finish,
    Finished,
    Hello,
    Invalidate,
    Leave,
    Lock,
    Locked,
    LockMode,
    Metadata,
    Mode,
    NewPT,
    Packet,
    Progress,
    ReadCheck,
    Refused,
    Stale,
    Store,
    Underway,
    Unvote,
    UnvoteOk,
    Vote,
    Voted,
    Want,
    Welcome,
    Write,
)

M1, S1, S2 = node_id(Role.MASTER, 1), node_id(Role.STORAGE, 1), node_id(Role.STORAGE, 2)
M2 = node_id(Role.MASTER, 2)
E1, E2 = Epoch(1 << 24 | 1), Epoch(2 << 24 | 1)
T5, T6, T7 = Tid(5), Tid(6), Tid(7)
P0, P1 = Partition(0), Partition(1)
O0, O1, O2 = Oid(0), Oid(1), Oid(2)
META = Metadata(b"u", b"d", b"")
VALUE = Data(Compression.NONE, bytes(16), 1, b"x")
OTHER = Data(Compression.NONE, bytes(16), 1, b"y")
UP = CellState.UP_TO_DATE


def table(ptid: int = 1, epoch: Epoch = E1, leads: tuple[NodeId, ...] = (S1, S2)) -> PartitionTable:
    """Two partitions: even oids are led by S1, odd ones by S2."""
    return PartitionTable(Version(epoch, Ptid(ptid)), 0, [(Cell(n, UP),) for n in leads])


def hello(epoch: Epoch) -> Hello:
    return Hello(1, 1, (), Role.MASTER, "", "", bytes(16), NO_NODE, 0, epoch, "")


class Bench:
    """A core, a clock, and what it has ordered."""

    def __init__(self, core: ClientCore | None = None) -> None:
        self.core = core or ClientCore(ClientSettings(wait_timeout_s=10.0))
        self.now = 100.0

    def do(self, event: object) -> list[object]:
        return list(self.core.handle(event, Instant(Seconds(self.now), Seconds(0.0))))  # type: ignore[arg-type]

    def got(self, peer: NodeId, packet: Packet) -> list[object]:
        return self.do(Received(peer, packet))

    def welcome(self, **fields: object) -> list[object]:
        answer = Welcome(E1, Session(9), b"c" * 16, whole(table()), (), T5, T5, (), False)
        return self.got(M1, answer._replace(**fields))  # type: ignore[arg-type]

    def ready(self) -> "Bench":
        self.do(Connected(M1, hello(E1)))
        self.welcome()
        for s in (S1, S2):
            self.do(Connected(s, hello(E1)))
        return self

    def begin(self) -> Tpc:
        return self.core.transactions[self.core.begin()]

    def voting(self, *oids: Oid, reads: tuple[ReadCheck, ...] = ()) -> Tpc:
        tx = self.begin()
        self.do(VoteNow(tx.handle, job(*oids, reads=reads)))
        return tx

    def voted(self, *oids: Oid) -> Tpc:
        tx = self.voting(*oids)
        effects: list[object] = []
        for p in sorted({Partition(o % 2) for o in oids}):
            effects += self.got((S1, S2)[p], Voted(tx.ttid, 1, (p,)))
        assert effects == [VoteDone(tx.handle)]
        return tx


def job(*oids: Oid, reads: tuple[ReadCheck, ...] = ()) -> Job:
    return Job(META, tuple(Write(o, T5, NO_TID, VALUE) for o in oids), reads, Mode.C)


def test_vote_of_an_import_says_on_which_tid_it_rests(bench: Bench) -> None:
    first = job(O0)._replace(given_tid=Tid(T5 + 10))
    bench.do(VoteNow(bench.core.begin(), first))
    second = job(O2)._replace(given_tid=Tid(T5 + 20), after=Tid(T5 + 10))
    votes = sent(bench.do(VoteNow(bench.core.begin(), second)), Vote)
    assert [v.known for _, v in votes] == [T5 + 10]


def test_import_does_not_go_on_in_another_reign(bench: Bench) -> None:
    """Others commit there: the transaction before may be refused, and recovery would not miss it."""
    bench.do(VoteNow(bench.core.begin(), job(O0)._replace(given_tid=Tid(T5 + 10))))
    bench.do(Lost(M1, "cut"))
    bench.do(Connected(M1, hello(E2)))
    bench.welcome(epoch=E2)
    handle = bench.core.begin()
    effects = bench.do(VoteNow(handle, job(O2)._replace(given_tid=Tid(T5 + 20), after=Tid(T5 + 10))))
    assert not sent(effects, Vote)
    assert [type(e) for e in effects] == [Failed]
    bench.do(VoteNow(bench.core.begin(), job(O2)._replace(given_tid=Tid(T5 + 30))))
    again = bench.do(VoteNow(bench.core.begin(), job(Oid(4))._replace(given_tid=Tid(T5 + 40), after=Tid(T5 + 30))))
    assert sent(again, Vote), "a new import"


def sent(effects: list[object], kind: type) -> list[tuple[NodeId, Packet]]:
    return [(e.peer, e.packet) for e in effects if isinstance(e, Send) and isinstance(e.packet, kind)]


@pytest.fixture
def bench() -> Bench:
    return Bench().ready()


def test_nothing_begins_before_welcome() -> None:
    b = Bench()
    with pytest.raises(NotReady):
        b.core.begin()
    effects = b.do(Connected(M1, hello(E1)))
    assert effects == [Send(M1, CHello(Session(0), Epoch(0), E1, (), (), NO_TID, False))]
    with pytest.raises(NotReady):
        b.core.begin()
    assert CacheCut(NO_TID, T5) in b.welcome()
    assert b.begin().ttid == Ttid(Session(9), 1)


def test_fast_path_asks_every_lead_at_once_then_the_primary(bench: Bench) -> None:
    tx = bench.begin()
    votes = sent(bench.do(VoteNow(tx.handle, job(O0, O1, O2))), Vote)
    assert [n for n, _ in votes] == [S1, S2]
    first = votes[0][1]
    assert isinstance(first, Vote)
    assert first.parts == (P0, P1)
    assert [(w.partition, [x.oid for x in w.writes]) for w in first.work] == [(P0, [O0, O2])]
    assert bench.got(S1, Voted(tx.ttid, 1, (P0,))) == []
    assert bench.got(S2, Voted(tx.ttid, 1, (P1,))) == [VoteDone(tx.handle)]
    assert bench.do(FinishNow(tx.handle)) == [Send(M1, Finish(tx.ttid, 1, E1, (P0, P1), (O0, O1, O2), Mode.C, NO_TID))]
    assert bench.got(M1, Finished(tx.ttid, 1, T6)) == [FinishDone(tx.handle, T6, True)]
    assert bench.core.last == T6
    assert not bench.core.transactions
    assert bench.core.known[tx.ttid] == Decision(tx.ttid, 1, T6, (P0, P1))


def test_conflict_is_resolved_and_voted_again_there_only(bench: Bench) -> None:
    tx = bench.voting(O0, O1)
    bench.got(S1, Voted(tx.ttid, 1, (P0,)))
    stale = Stale(O1, T6, OTHER)
    assert bench.got(S2, Conflict(tx.ttid, 1, (P1,), (stale,))) == [Resolve(tx.handle, (stale,))]
    merged = Write(O1, T6, NO_TID, OTHER)
    votes = sent(bench.do(Resolved(tx.handle, (merged,), ())), Vote)
    assert [n for n, _ in votes] == [S2]
    vote = votes[0][1]
    assert isinstance(vote, Vote)
    assert vote.attempt == 1
    assert vote.work[0].writes == (merged,)
    assert bench.got(S2, Voted(tx.ttid, 1, (P1,))) == [VoteDone(tx.handle)]


def test_second_conflict_takes_the_ordered_path(bench: Bench) -> None:
    tx = bench.voting(O0, O1)
    bench.got(S1, Voted(tx.ttid, 1, (P0,)))
    for serial in (T6, T7):
        bench.got(S2, Conflict(tx.ttid, 1, (P1,), (Stale(O1, serial, OTHER),)))
        effects = bench.do(Resolved(tx.handle, (Write(O1, serial, NO_TID, OTHER),), ()))
    assert sent(effects, Unvote) == [(S1, Unvote(tx.ttid, 1, E1, (P0,))), (S2, Unvote(tx.ttid, 1, E1, (P1,)))]
    assert sent(effects, Lock) == [(S1, Lock(tx.ttid, 2, E1, bench.core.table.version, (Want(O0, LockMode.X, T5),)))]
    effects = bench.got(S1, Locked(tx.ttid, 2, ()))
    assert sent(effects, Lock) == [(S2, Lock(tx.ttid, 2, E1, bench.core.table.version, (Want(O1, LockMode.X, T7),)))]
    effects = bench.got(S2, Locked(tx.ttid, 2, ()))
    assert [n for n, _ in sent(effects, Vote)] == [S1, S2]


def test_contended_waits_for_all_answers_then_locks_in_order(bench: Bench) -> None:
    tx = bench.voting(O0, O1)
    assert bench.got(S1, Contended(tx.ttid, 1, (P0,))) == []
    effects = bench.got(S2, Voted(tx.ttid, 1, (P1,)))
    assert len(sent(effects, Unvote)) == 2
    assert [n for n, _ in sent(effects, Lock)] == [S1]
    stale = Stale(O0, T6, OTHER)
    assert bench.got(S1, Locked(tx.ttid, 2, (stale,))) == [Resolve(tx.handle, (stale,))]
    effects = bench.do(Resolved(tx.handle, (Write(O0, T6, NO_TID, OTHER),), ()))
    assert [n for n, _ in sent(effects, Lock)] == [S2]


def test_unresolved_conflict_fails_at_once_when_no_earlier_attempt_may_count(bench: Bench) -> None:
    tx = bench.voting(O0, O1)
    bench.got(S1, Voted(tx.ttid, 1, (P0,)))
    bench.got(S2, Conflict(tx.ttid, 1, (P1,), (Stale(O1, T6, OTHER),)))
    effects = bench.do(GiveUp(tx.handle))
    assert effects[-1] == Failed(tx.handle, ErrorCode.ILLEGAL, "conflict")
    assert len(sent(effects, Unvote)) == 2
    assert not sent(effects, Abort)


def test_unresolved_conflict_needs_an_abort_after_a_lost_answer(bench: Bench) -> None:
    tx = bench.voting(O0)
    bench.do(Lost(S1, "cut"))
    assert tx.phase is Phase.RETRY
    effects = bench.do(Connected(S1, hello(E1)))
    assert sent(effects, Vote)[0][1].attempt == 2  # type: ignore[attr-defined]
    bench.got(S1, Conflict(tx.ttid, 2, (P0,), (Stale(O0, T6, OTHER),)))
    effects = bench.do(GiveUp(tx.handle))
    assert sent(effects, Abort) == [(M1, Abort(tx.ttid, 2, (P0,)))]
    assert not [e for e in effects if isinstance(e, Failed)]
    assert bench.got(M1, Aborted(tx.ttid, 2, "")) == [Failed(tx.handle, ErrorCode.ILLEGAL, "conflict")]


def test_abort_after_vote_returns_only_when_durable(bench: Bench) -> None:
    tx = bench.voted(O0)
    assert bench.do(AbortNow(tx.handle)) == [Send(M1, Abort(tx.ttid, 1, (P0,)))]
    assert bench.got(M1, Aborted(tx.ttid, 1, "")) == [AbortDone(tx.handle)]


def test_abort_of_what_was_not_voted_needs_nobody(bench: Bench) -> None:
    tx = bench.begin()
    assert bench.do(AbortNow(tx.handle)) == [AbortDone(tx.handle)]
    assert bench.do(AbortNow(tx.handle)) == [AbortDone(tx.handle)]


def test_abort_of_what_recovery_has_committed_says_so(bench: Bench) -> None:
    tx = bench.voted(O0)
    bench.do(AbortNow(tx.handle))
    bench.do(Lost(M1, "cut"))
    hellos = sent(bench.do(Connected(M1, hello(E2))), CHello)
    assert hellos[0][1].underway == (Underway(tx.ttid, 1, Progress.ABORTING, (P0,)),)  # type: ignore[attr-defined]
    effects = bench.welcome(epoch=E2, last=T7, fates=(Fate(tx.ttid, 1, FateKind.COMMITTED, T7),))
    assert effects[-1] == CommittedByRecovery(tx.handle, T7)
    assert CacheCut(T5, T7) in effects


def test_finish_is_sent_again_to_the_next_primary_with_the_old_votes(bench: Bench) -> None:
    tx = bench.voted(O0)
    bench.do(FinishNow(tx.handle))
    bench.do(Lost(M1, "cut"))
    bench.do(Connected(M1, hello(E2)))
    effects = bench.welcome(epoch=E2, fates=(Fate(tx.ttid, 1, FateKind.VOTED, NO_TID),))
    assert sent(effects, Finish) == [(M1, Finish(tx.ttid, 1, E1, (P0,), (O0,), Mode.C, NO_TID))]


@pytest.mark.parametrize("last", [T6, T7])
def test_commit_that_was_heard_of_late_is_not_taken_for_current(bench: Bench, last: Tid) -> None:
    """Found by nemesis: others had changed it since, and that was never told: an old value was read for ever."""
    tx = bench.voted(O0)
    bench.do(FinishNow(tx.handle))
    bench.do(Lost(M1, "cut"))
    bench.do(Connected(M1, hello(E2)))
    effects = bench.welcome(epoch=E2, last=last, fates=(Fate(tx.ttid, 1, FateKind.COMMITTED, T6),))
    assert CacheCut(T5, last) in effects
    assert effects[-1] == FinishDone(tx.handle, T6, False)


def test_vote_that_recovery_has_committed_returns_and_finishes_with_that_tid(bench: Bench) -> None:
    tx = bench.voting(O0, O1)
    bench.got(S1, Voted(tx.ttid, 1, (P0,)))
    bench.do(Lost(M1, "cut"))
    bench.do(Connected(M1, hello(E2)))
    effects = bench.welcome(epoch=E2, last=T7, fates=(Fate(tx.ttid, 1, FateKind.COMMITTED, T6),))
    assert effects[-1] == VoteDone(tx.handle)
    assert bench.do(FinishNow(tx.handle)) == [FinishDone(tx.handle, T6, False)], "others may have come after it"


def test_new_epoch_votes_from_scratch_and_notes_that_the_old_votes_may_count(bench: Bench) -> None:
    tx = bench.voting(O0)
    bench.do(Lost(M1, "cut"))
    bench.do(Connected(M1, hello(E2)))
    effects = bench.welcome(epoch=E2, table=whole(table(2, E2)), fates=(Fate(tx.ttid, 1, FateKind.ABORTED, NO_TID),))
    vote = sent(effects, Vote)[0][1]
    assert isinstance(vote, Vote)
    assert (vote.attempt, vote.epoch) == (2, E2)
    assert tx.maybe


def test_nothing_is_finished_between_hello_and_welcome(bench: Bench) -> None:
    tx = bench.voted(O0)
    bench.do(Connected(M2, hello(E2)))
    assert bench.do(FinishNow(tx.handle)) == []
    fates = (Fate(tx.ttid, 1, FateKind.VOTED, T5),)
    answer = Welcome(E2, Session(9), b"c" * 16, whole(table(2, E2)), (), T5, T5, fates, False)
    effects = bench.got(M2, answer)
    assert [n for n, _ in sent(effects, Finish)] == [M2]


def test_hello_to_a_new_master_ends_the_old_one(bench: Bench) -> None:
    assert Disconnect(M1, "another master is in charge") in bench.do(Connected(M2, hello(E2)))
    assert bench.got(M1, Invalidate(T6, Ttid(Session(1), 1), 1, (O0,), T5)) == []
    assert bench.core.last == T5


def test_lower_epoch_than_promised_is_never_heard(bench: Bench) -> None:
    bench.do(Connected(M2, hello(E2)))
    bench.do(Lost(M2, "cut"))
    bench.do(Connected(M1, hello(E1)))
    effects = bench.welcome()
    assert [type(e) for e in effects] == [Disconnect]
    assert not bench.core.is_ready


def test_unvote_is_repeated_until_confirmed(bench: Bench) -> None:
    tx = bench.voting(O0)
    bench.got(S1, Contended(tx.ttid, 1, (P0,)))
    bench.do(Lost(S1, "cut"))
    effects = bench.do(Connected(S1, hello(E1)))
    assert sent(effects, Unvote) == [(S1, Unvote(tx.ttid, 1, E1, (P0,))), (S1, Unvote(tx.ttid, 2, E1, (P0,)))]
    effects = bench.got(M1, NewPT(whole(table(2))))
    assert len(sent(effects, Unvote)) == 2
    for attempt in (1, 2):
        bench.got(S1, UnvoteOk(tx.ttid, attempt, (P0,)))
    assert not bench.core.dead


def test_unvote_is_repeated_by_timer(bench: Bench) -> None:
    tx = bench.voting(O0, O1)
    bench.got(S1, Voted(tx.ttid, 1, (P0,)))
    bench.got(S2, Conflict(tx.ttid, 1, (P1,), (Stale(O1, T6, OTHER),)))
    bench.do(GiveUp(tx.handle))
    assert bench.do(Tick()) == []
    bench.now += 3
    assert len(sent(bench.do(Tick()), Unvote)) == 2


def test_refusal_is_tried_again_after_a_pause_or_at_the_new_lead(bench: Bench) -> None:
    tx = bench.voting(O0)
    effects = bench.got(S1, Refused(tx.ttid, 1, (P0,), ErrorCode.NOT_READY, "not the lead"))
    assert not sent(effects, Vote)
    effects = bench.got(M1, NewPT(whole(table(2, leads=(S2, S2)))))
    assert [n for n, _ in sent(effects, Vote)] == [S2]
    bench.got(S2, Refused(tx.ttid, 2, (P0,), ErrorCode.NOT_READY, "not yet"))
    bench.now += 0.1
    assert [n for n, _ in sent(bench.do(Tick()), Vote)] == [S2]


def test_final_refusal_fails_with_its_reason(bench: Bench) -> None:
    tx = bench.voting(O0, O1)
    bench.got(S1, Refused(tx.ttid, 1, (P0,), ErrorCode.NO_SPACE, "S1 is full"))
    effects = bench.got(S2, Voted(tx.ttid, 1, (P1,)))
    assert effects[-1] == Failed(tx.handle, ErrorCode.NO_SPACE, "S1 is full")


def test_vote_gives_up_at_its_deadline_with_a_durable_abort(bench: Bench) -> None:
    tx = bench.voting(O0)
    bench.now += 11
    effects = bench.do(Tick())
    assert sent(effects, Abort) == [(M1, Abort(tx.ttid, 1, (P0,)))]
    (failed,) = bench.got(M1, Aborted(tx.ttid, 1, ""))
    assert isinstance(failed, Failed)
    assert failed.code == ErrorCode.NOT_READY
    assert "S1" in failed.text


def test_vote_that_nobody_has_got_gives_up_by_itself(bench: Bench) -> None:
    bench.do(Lost(S1, "cut"))
    tx = bench.voting(O0)
    bench.now += 11
    (failed,) = bench.do(Tick())
    assert isinstance(failed, Failed)
    assert failed.handle == tx.handle
    assert "no connection to S1" in failed.text


def test_lead_lost_while_its_locks_are_held_starts_again(bench: Bench) -> None:
    tx = bench.voting(O0, O1)
    bench.got(S1, Contended(tx.ttid, 1, (P0,)))
    bench.got(S2, Contended(tx.ttid, 1, (P1,)))
    bench.got(S1, Locked(tx.ttid, 2, ()))
    bench.do(Lost(S1, "cut"))
    assert tx.phase is Phase.RETRY
    effects = bench.do(Connected(S1, hello(E1)))
    assert sent(effects, Lock)[0][1].attempt == 3  # type: ignore[attr-defined]


def test_known_decisions_are_pruned_at_the_durable_mark(bench: Bench) -> None:
    for n, (tid, durable) in enumerate(((T6, T5), (T7, T6))):
        ttid = Ttid(Session(1), n)
        assert bench.got(M1, Invalidate(tid, ttid, 1, (O0,), durable)) == [Invalidated(tid, (O0,))]
    assert [d.tid for d in bench.core.known.values()] == [T7]
    bench.do(Lost(M1, "cut"))
    hellos = sent(bench.do(Connected(M1, hello(E2))), CHello)
    assert [d.tid for d in hellos[0][1].known] == [T7]  # type: ignore[attr-defined]


def test_reset_forgets_what_is_not_the_clusters(bench: Bench) -> None:
    begun = bench.begin()
    bench.got(M1, Invalidate(T6, Ttid(Session(1), 1), 1, (O0,), T5))
    bench.do(Lost(M1, "cut"))
    bench.do(Connected(M1, hello(E2)))
    effects = bench.welcome(epoch=E2, last=T7, reset=True)
    assert Reset(T5, T6) in effects
    assert not bench.core.known
    (failed,) = bench.do(VoteNow(begun.handle, job(O0)))
    assert isinstance(failed, Failed)


def come_back_too_late(bench: Bench, *fates: Fate, epoch: Epoch = E1) -> list[object]:
    """The primary has given up the session meanwhile."""
    bench.do(Lost(M1, "cut"))
    bench.do(Connected(M1, hello(epoch)))
    return bench.welcome(session=Session(10), epoch=epoch, table=whole(table(2, epoch)), fates=fates)


def test_session_given_up_fails_only_what_tpc_vote_had_promised(bench: Bench) -> None:
    begun, voted = bench.begin(), bench.voted(O0)
    come_back_too_late(bench, Fate(voted.ttid, 1, FateKind.ABORTED, NO_TID))
    assert [type(e) for e in bench.do(FinishNow(voted.handle))] == [Failed]
    votes = sent(bench.do(VoteNow(begun.handle, job(O0))), Vote)
    assert [(n, v.ttid.session, v.attempt) for n, v in votes] == [(S1, 10, 1)]  # type: ignore[attr-defined]


@pytest.mark.parametrize("epoch", [E1, E2])
def test_vote_goes_on_by_itself_under_the_new_session(bench: Bench, epoch: Epoch) -> None:
    tx = bench.voting(O0, O1)
    old = tx.ttid
    bench.got(S1, Voted(old, 1, (P0,)))
    votes = sent(come_back_too_late(bench, Fate(old, 1, FateKind.ABORTED, NO_TID), epoch=epoch), Vote)
    assert [(n, v.ttid, v.attempt) for n, v in votes] == [(s, tx.ttid, 1) for s in (S1, S2)]  # type: ignore[attr-defined]
    assert tx.ttid == Ttid(Session(10), 2)
    for late in (Voted(old, 1, (P1,)), Refused(old, 1, (P1,), ErrorCode.ILLEGAL, "gone")):
        assert bench.got(S2, late) == []
    bench.got(S1, Voted(tx.ttid, 1, (P0,)))
    assert bench.got(S2, Voted(tx.ttid, 1, (P1,))) == [VoteDone(tx.handle)]
    effects = bench.do(FinishNow(tx.handle))
    assert [p.ttid for _, p in sent(effects, Finish)] == [tx.ttid]  # type: ignore[attr-defined]
    assert bench.got(M1, Finished(tx.ttid, 1, T6)) == [FinishDone(tx.handle, T6, True)]
    assert not bench.core.transactions
    assert not bench.core.named


def test_what_went_ahead_goes_again_under_the_new_session(bench: Bench) -> None:
    tx = bench.begin()
    bench.do(StoredAhead(tx.handle, P0, 0, 1))
    come_back_too_late(bench)
    effects = bench.do(VoteNow(tx.handle, job(O0)))
    assert effects[0] == Upload(tx.handle, Ttid(Session(10), 2), S1, P0, 0)
    assert sent(effects, Vote)[0][1].work[0].tentative == 1  # type: ignore[attr-defined]


def test_locks_are_asked_for_again_under_the_new_session(bench: Bench) -> None:
    tx = bench.voting(O0)
    bench.got(S1, Contended(tx.ttid, 1, (P0,)))
    locks = sent(come_back_too_late(bench, Fate(tx.ttid, 2, FateKind.ABORTED, NO_TID)), Lock)
    assert [(n, p.ttid) for n, p in locks] == [(S1, Ttid(Session(10), 2))]  # type: ignore[attr-defined]


def test_conflict_resolved_across_the_loss_of_the_session_is_voted_under_the_new_one(bench: Bench) -> None:
    tx = bench.voting(O0)
    bench.got(S1, Conflict(tx.ttid, 1, (P0,), (Stale(O0, T6, OTHER),)))
    come_back_too_late(bench, Fate(tx.ttid, 1, FateKind.ABORTED, NO_TID))
    votes = sent(bench.do(Resolved(tx.handle, (Write(O0, T6, NO_TID, OTHER),), ())), Vote)
    assert [(n, v.ttid) for n, v in votes] == [(S1, Ttid(Session(10), 2))]  # type: ignore[attr-defined]


def test_vote_committed_before_its_session_was_given_up_is_not_voted_again(bench: Bench) -> None:
    tx = bench.voting(O0)
    effects = come_back_too_late(bench, Fate(tx.ttid, 1, FateKind.COMMITTED, T7), epoch=E2)
    assert not sent(effects, Vote)
    assert effects[-1] == VoteDone(tx.handle)


def test_time_in_which_the_process_did_not_run_is_no_waiting(bench: Bench) -> None:
    tx = bench.voting(O0)
    bench.do(Tick())
    bench.now += 60
    assert bench.do(Tick()) == []
    assert tx.phase is Phase.VOTING
    for _ in range(21):
        bench.now += 0.5
        effects = bench.do(Tick())
    assert sent(effects, Abort) or tx.phase is Phase.ABORTING


def test_client_that_closes_gives_its_session_up(bench: Bench) -> None:
    assert bench.do(Closing()) == [Send(M1, Leave())]
    assert Bench().do(Closing()) == []


def test_empty_transaction_needs_nobody(bench: Bench) -> None:
    tx = bench.begin()
    assert bench.do(VoteNow(tx.handle, job())) == [VoteDone(tx.handle)]
    assert bench.do(FinishNow(tx.handle)) == [FinishDone(tx.handle, T5, False)]


def test_answer_for_the_newest_snapshot_is_current(bench: Bench) -> None:
    loading = bench.core.load_began(O0, T6)
    assert bench.core.load_ended(loading, Tid(3)) == NO_TID


def test_answer_overtaken_by_an_invalidation_is_not_current(bench: Bench) -> None:
    loading = bench.core.load_began(O0, T6)
    bench.got(M1, Invalidate(T7, Ttid(Session(1), 1), 1, (O0,), T5))
    assert bench.core.load_ended(loading, Tid(3)) == T7


def test_answer_for_an_old_snapshot_is_never_current(bench: Bench) -> None:
    loading = bench.core.load_began(O0, Tid(4))
    assert bench.core.load_ended(loading, Tid(3)) == Tid(4)


def test_answer_across_a_welcome_is_not_current_and_void_in_a_new_reign(bench: Bench) -> None:
    loading = bench.core.load_began(O0, T6)
    bench.do(Lost(M1, "cut"))
    bench.do(Connected(M1, hello(E2)))
    bench.welcome(epoch=E2)
    assert loading.void
    assert bench.core.load_ended(loading, Tid(3)) == T6


def test_transaction_without_effect_takes_back_what_went_ahead(bench: Bench) -> None:
    """Storages would keep it, and their logs, until it is old."""
    tx = bench.begin()
    bench.do(StoredAhead(tx.handle, P0, 0, 1))
    effects = bench.do(AbortNow(tx.handle))
    assert effects[-1] == AbortDone(tx.handle)
    assert sent(effects, Store) == [(S1, Store(tx.ttid, E1, P0, 0, ()))]
    lost = bench.begin()
    bench.do(StoredAhead(lost.handle, P0, 0, 1))
    bench.do(Lost(S1, "cut"))
    bench.do(Connected(S1, hello(E1)))
    assert not sent(bench.do(AbortNow(lost.handle)), Store), "it went with the connection"


def test_lead_that_leads_again_is_sent_anew_what_another_has_got_meanwhile(bench: Bench) -> None:
    """It has that from the other lead, if at all, and forgets it with its lead."""
    tx = bench.begin()
    bench.do(StoredAhead(tx.handle, P0, 0, 1))
    bench.got(M1, NewPT(whole(table(2, leads=(S2, S2)))))
    assert bench.do(StoredAhead(tx.handle, P0, 1, 2)) == [Upload(tx.handle, tx.ttid, S2, P0, 0)]
    bench.got(M1, NewPT(whole(table(3))))
    assert bench.do(StoredAhead(tx.handle, P0, 2, 3)) == [Upload(tx.handle, tx.ttid, S1, P0, 0)]


def test_what_went_ahead_is_named_in_the_vote_and_sent_again_after_a_loss(bench: Bench) -> None:
    tx = bench.begin()
    assert bench.do(StoredAhead(tx.handle, P0, 0, 1)) == [Upload(tx.handle, tx.ttid, S1, P0, 0)]
    assert bench.do(StoredAhead(tx.handle, P0, 1, 2)) == [Upload(tx.handle, tx.ttid, S1, P0, 1)]
    bench.do(Lost(S1, "cut"))
    bench.do(VoteNow(tx.handle, job(O0, O2, Oid(4))))
    effects = bench.do(Connected(S1, hello(E1)))
    assert effects[0] == Upload(tx.handle, tx.ttid, S1, P0, 0)
    vote = sent(effects, Vote)[0][1]
    assert isinstance(vote, Vote)
    assert vote.work[0].tentative == 2
    assert [w.oid for w in vote.work[0].writes] == [Oid(4)]


def test_application_that_runs_away_from_vote_is_withdrawn(bench: Bench) -> None:
    tx = bench.voting(O0)
    effects = bench.do(AbortNow(tx.handle))
    assert sent(effects, Unvote)
    assert sent(effects, Abort)
    assert bench.got(M1, Aborted(tx.ttid, 1, "")) == [AbortDone(tx.handle)]


def test_a_choice_of_the_operator_ends_all_that_was_cached(bench: Bench) -> None:
    """What this client has seen may be of a line of history that was given up."""
    bench.ready()
    choice = Choice(77, 0, table().version, T5, T5, "test")
    new = table(2, E2)
    new = new.changed(new.version, {}, orders=Orders(choices=(choice,)))
    bench.do(Connected(M2, hello(E2)))
    effects = bench.got(M2, Welcome(E2, Session(9), b"c" * 16, whole(new), (), T5, T5, (), False))
    assert Reset(NO_TID, T5) in effects
    bench.do(Connected(M1, hello(E2)))
    effects = bench.got(M1, Welcome(E2, Session(9), b"c" * 16, whole(new), (), T5, T5, (), False))
    assert not [e for e in effects if isinstance(e, Reset)], "once is enough"
