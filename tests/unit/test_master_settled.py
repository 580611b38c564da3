"""What masters hold of the past: what is told, what is believed, what it is good for (docs/masters.md)."""

from __future__ import annotations

from typing import Any

import pytest

from neo_common.ids import (
    MAX_TID,
    NO_EPOCH,
    NO_TID,
    NodeId,
    Oid,
    Partition,
    Ptid,
    Session,
    Tid,
    Ttid,
    Version,
    make_epoch,
)
from neo_common.model.partition_table import Cell
from neo_common.states import CellState, ClusterState
from neo_common.wire import schema as s
from neo_master.core.effects import ERROR, Kept
from neo_master.core.holding import NEWEST_MAX, PAGE_MAX, UNHEARD_MAX, Holding, as_held, is_plausible
from neo_master.core.master import MasterCore
from support.reign import A1, C1, M1, M2, M3, S1, S2, Reign, chello
from unit.test_master_choices import choose, look
from unit.test_master_register import running

U, OUT = CellState.UP_TO_DATE, CellState.OUT_OF_DATE
OLD = make_epoch(3, M2)


def told(r: Reign, to: NodeId = M2) -> list[s.Decision]:
    """Return the settled commits that a master was told."""
    return [d for packet in r.to(to, s.Settle) for d in packet.page.newest]


def next_life(r: Reign, holding: Holding | None = None, **settings: Any) -> Reign:
    """Return the same cluster with the same disks, after all have died: its master has its journal and its notes."""
    core = r.core
    later = Reign(len(r.storages), **{"partitions": 4, **settings})
    kept = Kept(core.memory, core.promised, core.register)
    later.core = MasterCore(M1, later.settings, later.configured, core.rng, kept, holding or core.holding)
    later.storages = r.storages
    later.monotonic, later.wall = r.monotonic + 100.0, r.wall + 100.0
    later.tick(3.0)
    later.admin()
    return later


def settled(r: Reign, parts: tuple[int, ...] = (0,), counter: int = 1) -> s.Decision:
    """Let C1 commit, and masters hold it; return it."""
    packet = r.finish(C1, counter, parts)
    tid = r.commit(C1, counter, parts)
    for storage in r.storages.values():
        storage.last = tid
        storage.position += 10
    r.say(C1, s.Heard(tid))
    r.tick(3.0)
    assert r.core.durable == tid
    assert r.core.settled_decision(packet.ttid) is not None
    return s.Decision(packet.ttid, 1, tid, packet.parts)


# ---------------------------------------------------------------------------------------------- telling


def test_a_commit_that_is_settled_is_told_at_leisure() -> None:
    r = running()
    tid = r.commit(C1)
    assert r.core.durable < tid
    assert not told(r)
    r.say(C1, s.Heard(tid))
    assert r.core.durable == tid
    assert not told(r), "not at once: a commit asks for no disk of a master"
    r.tick(1.1)
    assert told(r) == told(r, M3) == [s.Decision(r.ttid(C1), 1, tid, (Partition(0),))]
    assert r.noted[-1].newest == tuple(told(r))


def test_a_commit_that_a_storage_does_not_have_durably_is_not_told() -> None:
    r = running()
    r.storages[S2].answers.discard(s.Commit)
    tid = r.commit(C1)
    r.say(C1, s.Heard(tid))
    r.tick(5.0)
    assert not told(r)
    r.say(S2, s.CommitOk((r.ttid(C1),), 10))
    r.tick(1.1)
    assert [d.tid for d in told(r)] == [tid]


def test_a_commit_whose_client_was_not_seen_to_hear_of_it_is_held_for_longer() -> None:
    r = running()
    tid = r.commit(C1)
    r.lose(C1)
    r.tick(5.0)
    unheard = [d for packet in r.to(M2, s.Settle) for d in packet.page.unheard]
    assert [d.tid for d in unheard] == [tid]


def test_nothing_is_told_when_nothing_happens() -> None:
    r = running()
    r.tick(3.0)
    r.forget()
    noted = len(r.noted)
    r.lose(C1)  # else ceilings rise
    r.tick(5.0)
    assert not r.to(M2, s.Settle)
    assert len(r.noted) == noted


def test_a_page_follows_every_register_with_the_version_of_its_table() -> None:
    r = running()
    r.lose(S2)
    r.tick(1.0)
    assert r.core.pt.rows[0] == (Cell(S1, U), Cell(S2, OUT))
    packets = [type(p).__name__ for p in r.sent[M2] if isinstance(p, s.Hold | s.Settle)]
    assert packets.count("Settle") >= packets.count("Hold") > 0
    assert packets[packets.index("Hold") + 1] == "Settle"
    last = r.last_to(M2, s.Settle).page
    assert last.version == r.core.pt.version
    assert [mark.node for mark in last.disks] == [S1], "only disks with readable cells count"


def test_a_master_that_comes_later_is_told_all() -> None:
    r = running(M2)
    decision = settled(r)
    r.master(M3, s.MHello(NO_EPOCH, NodeId(0), False, ""))
    first = r.to(M3, s.Settle)[0]
    assert first.page.is_first
    assert decision in told(r, M3)


# ---------------------------------------------------------------------------------------------- holding


def page(*tids: int, version: Version = Version(OLD, Ptid(5)), **fields: Any) -> s.Page:  # noqa: B008
    decisions = tuple(s.Decision(Ttid(Session(7), tid), 1, Tid(tid), ()) for tid in tids)
    return s.Page(version, 0, False, (), decisions, ())._replace(**fields)


def test_what_is_held_is_bounded_and_the_oldest_goes_first() -> None:
    holding = Holding()
    for start in range(0, NEWEST_MAX + UNHEARD_MAX + 2000, 500):
        tids = range(start + 1, start + 501)
        holding.take(page(*tids, unheard=page(*tids).newest))
    assert (len(holding.newest), len(holding.unheard)) == (NEWEST_MAX, UNHEARD_MAX)
    again = Holding()
    for told_page in holding.pages():
        assert max(len(told_page.newest), len(told_page.unheard)) <= PAGE_MAX
        again.take(told_page)
    assert list(again.unheard.items()) == list(holding.unheard.items())
    assert list(again.newest.items()) == list(holding.newest.items())
    assert again.last() == holding.last() == NEWEST_MAX + UNHEARD_MAX + 2000


def test_many_partitions_of_a_commit_are_not_held() -> None:
    (held,) = as_held([s.Decision(Ttid(Session(1), 1), 1, Tid(5), tuple(map(Partition, range(10_000))))])
    assert held.parts == ()


def secondary() -> Reign:
    """Return M2, which has promised epoch 5 to M1 and holds its register, with a ceiling of 1000."""
    r = Reign(masters=3, me=M2)
    epoch = make_epoch(5, M1)
    r.master(M1, s.MHello(epoch, M1, True, "m1:1"))
    r.say(M1, s.Claim(epoch))
    register = r.core.register._replace(epoch=epoch, number=1, ceilings=s.Ceilings(Tid(1000), Oid(5)))
    r.say(M1, s.Hold(epoch, register))
    assert r.core.register.epoch == epoch
    return r


def test_a_secondary_holds_what_the_primary_tells_and_notes_it() -> None:
    r = secondary()
    r.say(M1, s.Settle(make_epoch(5, M1), page(5, 999)))
    assert r.noted == [page(5, 999)]
    assert r.core.holding.last() == 999


@pytest.mark.parametrize(
    "nonsense",
    [
        page(1000),  # not below the ceiling: nobody has given it
        page(MAX_TID),
        page(0),
        page(*range(1, 990), unheard=page(*range(1, 990)).newest * 2),
        page(unheard=(s.Decision(Ttid(Session(2**64 - 1), 1), 1, Tid(5), ()),)),
        page(newest=(s.Decision(Ttid(Session(1), 1), 1, Tid(5), tuple(map(Partition, range(1000)))),)),
        page(disks=(s.DiskMark(C1, 5),)),
    ],
)
def test_a_secondary_does_not_believe_nonsense(nonsense: s.Page) -> None:
    r = secondary()
    r.say(M1, s.Settle(make_epoch(5, M1), nonsense))
    assert not r.noted
    assert not r.core.holding.pages()
    assert M1 in r.connected
    assert not is_plausible(nonsense, Tid(1000))


def test_only_the_primary_that_is_heard_is_believed() -> None:
    r = secondary()
    r.master(M3)
    r.say(M3, s.Settle(make_epoch(5, M1), page(5)))
    r.say(M1, s.Settle(make_epoch(4, M1), page(5)))
    assert not r.noted


def test_a_claimant_is_told_what_is_held_before_the_promise() -> None:
    r = secondary()
    r.say(M1, s.Settle(make_epoch(5, M1), page(5)))
    r.forget()
    r.say(M1, s.Claim(make_epoch(9, M1)))
    kinds = [type(p) for p in r.sent[M1] if isinstance(p, s.Settle | s.Promised)]
    assert kinds == [s.Settle, s.Promised]
    assert r.last_to(M1, s.Settle).page == page(5, is_first=True)


# ---------------------------------------------------------------------------------------------- the true answer


def come_back(r: Reign, decision: s.Decision) -> s.Fate:
    """Let a client of an earlier reign ask for its transaction; return what it is told."""
    underway = s.Underway(decision.ttid, 1, s.Progress.FINISHING, decision.parts)
    r.client(C1, chello(decision.ttid.session, make_epoch(0, M2), underway=(underway,)))
    (fate,) = r.last_to(C1, s.Welcome).fates
    return fate


def test_a_client_is_told_the_truth_of_a_commit_whose_trace_was_packed_away() -> None:
    r = Reign().run(C1)
    decision = settled(r)
    assert not any(storage.history for storage in r.storages.values())
    later = next_life(r)
    later.dial(S1, S2)
    assert come_back(later, decision) == s.Fate(decision.ttid, 1, s.FateKind.COMMITTED, decision.tid)
    assert not later.to(S1, s.AskFate), "nobody need look into history"


def test_a_commit_that_is_held_is_never_answered_as_aborted() -> None:
    r = Reign().run(C1)
    decision = settled(r)
    r.forget()
    assert decision.ttid not in r.core.decided
    r.say(C1, s.Abort(decision.ttid, 1, decision.parts))
    r.core.aborted[decision.ttid] = 1
    r.say(C1, r.finish(C1))
    assert [p.tid for p in r.to(C1, s.Finished)] == [decision.tid] * 2
    assert not r.to(C1, s.Aborted)


def test_a_commit_that_was_cut_off_is_forgotten() -> None:
    r = Reign().run(C1)
    kept, cut = settled(r, counter=1), settled(r, counter=2)
    r.admin()
    r.ask(A1, s.AskTruncate(kept.tid, "test"))
    r.tick(0.1)
    assert r.core.is_running
    assert r.core.settled_decision(kept.ttid) == kept
    assert r.core.settled_decision(cut.ttid) is None


def test_a_master_that_missed_a_truncation_is_not_believed() -> None:
    """Perhaps there were two, of which the last one is known."""
    r = Reign().run(C1)
    kept, _ = settled(r, counter=1), settled(r, counter=2)
    missed = Holding()
    for told_page in r.core.holding.pages():
        missed.take(told_page)
    r.admin()
    r.ask(A1, s.AskTruncate(kept.tid, "test"))
    r.tick(0.1)
    later = next_life(r, missed)
    later.dial(S1, S2)
    assert later.core.is_running
    assert later.core.settled_decision(kept.ttid) is None


def test_what_was_settled_in_another_line_of_history_is_forgotten() -> None:
    r = Reign().run(C1)
    decision = settled(r)
    later = next_life(r)
    later.dial(S1)
    choose(later, r.core.pt.version)
    assert later.core.is_running, later.core.reason
    assert later.core.settled_decision(decision.ttid) is None


# ---------------------------------------------------------------------------------------------- older disks


def test_a_disk_that_is_older_than_it_was_stops_recovery() -> None:
    r = Reign().run(C1)
    settled(r)
    r.storages[S1].position -= 5
    later = next_life(r)
    later.dial(S1, S2)
    later.tick(60.0)
    assert later.core.state is ClusterState.RECOVERING
    assert "waits for storages s1" in later.core.reason
    assert "older than masters know" in later.core.reason
    errors = [log for log in later.logs if log.level == ERROR]
    assert len(errors) == 1
    assert "the disk of s1" in errors[0].text
    (one,) = look(later).tables
    assert (one.older, one.missing, one.there, one.stale) == ((S1,), (S1,), (S2,), ())
    assert one.decisions == (), "s2 has it"


def test_the_right_disk_ends_the_wait() -> None:
    r = Reign().run(C1)
    settled(r)
    r.storages[S1].position -= 5
    later = next_life(r)
    later.dial(S1, S2)
    assert not later.core.is_running
    later.lose(S1)
    later.storages[S1].position += 5
    later.dial(S1)
    assert later.core.is_running


def test_an_operator_goes_on_with_the_other_copy_and_loses_nothing() -> None:
    r = Reign().run(C1)
    decision = settled(r)
    r.storages[S1].position -= 5
    r.storages[S1].last = Tid(decision.tid - 1)
    later = next_life(r)
    later.dial(S1, S2)
    choose(later, r.core.pt.version)
    assert later.core.is_running, later.core.reason
    assert all(row[0] == (S2, U) for row in later.core.pt.rows)
    assert later.core.pt.readable_nodes() == {S2}
    later.tick(2.0)
    assert later.core.holding.disks == {S2: later.storages[S2].position}
    assert S1 not in later.connected, "nothing is erased before somebody has had a look at it"
    assert isinstance(later.ask(A1, s.AskReadmit((S1,), "seen")), s.AnswerReadmit)
    later.tick(0.5)
    later.dial(S1)
    assert later.to(S1, s.Adopt), "it copies what it has lost"


def test_commits_that_are_missing_are_named_when_there_is_no_other_copy() -> None:
    r = Reign(replicas=0).run(C1)
    older, newer = settled(r, (0,), 1), settled(r, (0, 1, 2, 3), 2)
    r.storages[S1].position -= 5
    r.storages[S1].last = older.tid
    later = next_life(r)
    later.dial(S1, S2)
    (one,) = look(later).tables
    mine = {p for p, row in enumerate(r.core.pt.rows) if row[0].node == S1}
    assert set(one.stale) == mine
    assert one.older == (S1,)
    assert one.decisions == (newer,)
    assert one.known == newer.tid
    refused = choose(later, r.core.pt.version)
    assert isinstance(refused, s.Error)
    assert "--stale" in refused.text
    assert not isinstance(choose(later, r.core.pt.version, stale=True), s.Error)
    assert later.core.is_running
    assert later.core.holding.disks[S1] == later.storages[S1].position


def test_votes_of_an_old_disk_do_not_count_where_there_is_another_copy() -> None:
    """What was fully voted is committed, although the old disk lacks it; what it has voted long ago is not."""
    r = Reign().run(C1)
    settled(r)
    acknowledged, long_ago = Ttid(Session(1 << 32 | 9), 1), Ttid(Session(1 << 32 | 9), 2)
    head = s.RecordHead(acknowledged, 1, Partition(0), (Partition(0),), s.Mode.C, NO_TID, NO_TID)
    r.storages[S2].voted = [head]
    r.storages[S1].voted = [head._replace(ttid=long_ago)]
    r.storages[S1].position -= 5
    later = next_life(r)
    later.dial(S1, S2)
    choose(later, r.core.pt.version)
    start = later.last_to(S2, s.Start)
    assert [d.ttid for d in start.decisions] == [acknowledged]
    assert [t.ttid for t in start.aborts] == [long_ago]


def test_two_masters_of_three_go_on_without_an_old_disk() -> None:
    r = running()
    settled(r, (0, 1))
    r.storages[S1].position -= 5
    r.lose(S1, S2, C1)
    r.core.restart_recovery("test")
    for effect in r.core.effects:
        r._perform(effect)
    r.dial(S1, S2)
    r.tick(8.0)
    assert r.core.is_running, r.core.reason
    assert r.core.pt.readable_nodes() == {S2}
    assert S1 in r.core.adopted


def test_the_only_copy_is_not_taken_back_into_a_running_cluster_if_its_disk_is_old() -> None:
    r = Reign(replicas=0).run(C1)
    settled(r, (0, 1, 2, 3))
    r.lose(S1)
    r.storages[S1].position -= 5
    r.dial(S1)
    assert S1 not in r.connected
    assert not r.to(S1, s.Adopt)
    assert any(log.level == ERROR and "`neoadmin recovery begin`" in log.text for log in r.logs)
    r.admin()
    r.tick(0.2)
    assert isinstance(r.ask(A1, s.AskRecovery(True)), s.AnswerRecovery)
    r.dial(S1)
    (one,) = look(r).tables
    assert one.older == (S1,)


def test_an_old_disk_whose_cells_have_other_copies_just_copies() -> None:
    r = Reign().run(C1)
    settled(r)
    r.lose(S1)
    r.tick(0.5)
    r.storages[S1].position -= 5
    r.dial(S1)
    assert r.to(S1, s.Adopt)


@pytest.mark.parametrize("lost_at", ["another table", "never told"])
def test_what_is_not_known_of_this_table_raises_no_alarm(lost_at: str) -> None:
    """The storage may have been dropped and come again with an empty disk, while this master was away."""
    r = Reign().run(C1)
    settled(r)
    known = Holding()
    if lost_at == "another table":
        for told_page in r.core.holding.pages():
            known.take(told_page._replace(version=Version(r.core.epoch, Ptid(r.core.pt.version.ptid - 1))))
    r.storages[S1].position = 1
    later = next_life(r, known)
    later.dial(S1, S2)
    assert later.core.is_running, later.core.reason


def test_of_a_storage_without_readable_cells_no_disk_is_known() -> None:
    """It may be dropped, and come again with an empty one."""
    r = Reign().run(C1)
    settled(r)
    assert r.core.positions == {S1: 20, S2: 20}
    r.lose(S1)
    r.tick(0.5)
    assert r.core.pt.readable_nodes() == {S2}
    assert r.core.positions == {S2: 20}
    r.storages[S1].position = 3
    r.dial(S1)
    r.tick(2.0)
    assert r.core.holding.disks == {S2: 20}
