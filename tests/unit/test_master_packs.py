"""Packs and garbage collection."""

from neo_common.ids import MAX_TID, Oid, Tid
from neo_common.wire import schema as s
from support.reign import A1, C1, S1, S2, Reign


def durable(r: Reign) -> Tid:
    """Commit something that is durable everywhere; return its tid."""
    tid = r.commit(C1)
    r.say(C1, s.Heard(tid))
    assert r.core.durable == tid
    return tid


def test_pack_goes_to_every_storage_and_is_answered_when_they_have_the_order() -> None:
    r = Reign().run(C1)
    tid = durable(r)
    r.storages[S2].answers.discard(s.Pack)
    assert r.ask(C1, s.AskPack(tid, "weekly")) is None
    order = r.to(S2, s.Pack)[0]
    assert order == r.to(S1, s.Pack)[0]
    r.say(S2, s.PackProgress(order.order, 0, 4, 0, 0))
    assert r.answered[C1, 9] == s.AnswerPack(order.order, tid)


def test_pack_never_goes_above_the_durable_mark() -> None:
    r = Reign().run(C1)
    tid = durable(r)
    r.storages[S2].answers.discard(s.Commit)
    r.commit(C1, 2)
    assert r.ask(C1, s.AskPack(MAX_TID, "")).tid == tid


def test_pack_never_goes_back() -> None:
    """A storage that came back between two packs would take the older tid for one that it had missed, and the number
    of the next pack for that."""
    r = Reign().run(C1)
    first = durable(r)
    second = r.commit(C1, 2)
    r.say(C1, s.Heard(second))
    for wanted in (second, first):
        answer = r.ask(C1, s.AskPack(wanted, ""))
        assert answer.tid == second, "all below is packed already"
        for storage in (S1, S2):
            r.say(storage, s.PackProgress(answer.order, 4, 4, 0, 0))


def test_one_pack_at_a_time() -> None:
    r = Reign().run(C1)
    tid = durable(r)
    order = r.ask(C1, s.AskPack(tid, "")).order
    refused = r.ask(C1, s.AskPack(tid, ""))
    assert isinstance(refused, s.Error)
    assert "under way: 0 of 8 cells done" in refused.text
    for storage in (S1, S2):
        r.say(storage, s.PackProgress(order, 4, 4, 10, 1000))
    assert r.ask(C1, s.AskPack(tid, "")).order > order


def test_cells_that_are_packed_again_do_not_hold_up_the_next_pack() -> None:
    """The pack was over, as whoever ordered it has seen. Then a storage came back, with cells that it has to pack."""
    r = Reign().run(C1)
    tid = durable(r)
    order = r.ask(C1, s.AskPack(tid, "")).order
    for storage in (S1, S2):
        r.say(storage, s.PackProgress(order, 4, 4, 10, 1000))
    r.lose(S2)
    r.dial(S2)
    r.say(S2, s.PackProgress(order, 2, 4, 10, 1000))
    assert r.ask(C1, s.AskPackState()).cells_done == 10
    assert r.ask(C1, s.AskPack(tid, "")).order > order


def test_progress_is_added_up() -> None:
    r = Reign().run(C1)
    r.admin()
    tid = durable(r)
    order = r.ask(A1, s.AskPack(tid, "")).order
    r.say(S1, s.PackProgress(order, 4, 4, 10, 1000))
    r.say(S2, s.PackProgress(order, 1, 4, 5, 500))
    state = r.ask(A1, s.AskPackState())
    assert (state.cells_done, state.cells_total, state.revisions_removed, state.bytes_removed) == (5, 8, 15, 1500)


def test_no_pack_yet() -> None:
    r = Reign().run(C1)
    assert r.ask(C1, s.AskPackState()).order == 0


def test_storage_that_comes_back_hears_of_the_pack_again() -> None:
    r = Reign().run(C1)
    tid = durable(r)
    order = r.ask(C1, s.AskPack(tid, "")).order
    r.lose(S2)
    r.forget()
    r.dial(S2)
    assert r.to(S2, s.Pack) == [s.Pack(order, tid)]
    assert r.to(S2, s.Adopt)[0].packed == tid


def test_pack_does_not_wait_for_a_lost_storage() -> None:
    r = Reign().run(C1)
    tid = durable(r)
    r.storages[S2].answers.discard(s.Pack)
    r.ask(C1, s.AskPack(tid, ""))
    r.lose(S2)
    assert isinstance(r.answered[C1, 9], s.AnswerPack)


def test_pack_that_no_storage_knows_is_not_promised() -> None:
    """All are lost: if the primary dies too nobody has ever heard of it."""
    r = Reign().run(C1)
    tid = durable(r)
    for storage in (S1, S2):
        r.storages[storage].answers.discard(s.Pack)
    assert r.ask(C1, s.AskPack(tid, "")) is None
    r.lose(S1, S2)
    assert (C1, 9) not in r.answered
    r.admin()
    assert isinstance(r.ask(A1, s.AskPack(tid, "")), s.Error), "who asked first still waits for an answer"
    r.storages[S1].answers.add(s.Pack)
    r.dial(S1)
    assert isinstance(r.answered[C1, 9], s.AnswerPack)


def test_pack_of_a_former_reign_goes_on() -> None:
    r = Reign().run(C1)
    number = r.core.epoch << 40
    r.say(S1, s.PackProgress(number, 2, 4, 1, 1))
    assert r.ask(C1, s.AskPackState()).cells_done == 2


def test_pack_that_a_storage_has_missed_is_repeated_in_the_next_reign() -> None:
    """It was away when the pack was promised, and comes back with all others: no Adopt tells it."""
    former = Reign(replicas=0).run()
    r = Reign(replicas=0)
    for storage, packed in ((S1, 5), (S2, 4)):
        r.storages[storage] = former.storages[storage]
        r.storages[storage].packed = Tid(packed)
    r.dial(S1, S2)
    assert r.core.is_running
    (order,) = r.to(S2, s.Pack)
    assert order.tid == 5
    assert r.to(S1, s.Pack) == [order]


def test_no_pack_is_repeated_that_all_have_done() -> None:
    former = Reign().run()
    r = Reign()
    for storage in (S1, S2):
        r.storages[storage] = former.storages[storage]
        r.storages[storage].packed = Tid(5)
    r.dial(S1, S2)
    assert r.core.is_running
    assert r.to(S1, s.Pack) == r.to(S2, s.Pack) == []


def test_pack_needs_a_running_cluster() -> None:
    r = Reign()
    r.admin()
    refused = r.ask(A1, s.AskPack(Tid(5), ""))
    assert isinstance(refused, s.Error)
    assert "RUNNING" in refused.text


def test_garbage_is_removed_on_every_written_cell() -> None:
    r = Reign(storages=2, replicas=0, partitions=2).run(C1)
    tid = durable(r)
    answer = r.ask(C1, s.AskCollect(tid, (Oid(2), Oid(4), Oid(5))))
    assert [c.oids for c in r.to(S1, s.Collect)] == [(2, 4)]
    assert [c.oids for c in r.to(S2, s.Collect)] == [(5,)]
    assert answer == s.AnswerCollect(3)


def test_garbage_waits_for_every_storage() -> None:
    r = Reign().run(C1)
    r.storages[S2].answers.discard(s.Collect)
    assert r.ask(C1, s.AskCollect(durable(r), (Oid(2),))) is None
    number = r.to(S2, s.Collect)[0].number
    r.say(S2, s.CollectOk(number, 1))
    assert r.answered[C1, 9] == s.AnswerCollect(2)


def test_garbage_collection_fails_when_a_storage_is_lost() -> None:
    r = Reign().run(C1)
    r.storages[S2].answers.discard(s.Collect)
    assert r.ask(C1, s.AskCollect(durable(r), (Oid(2),))) is None
    r.lose(S2)
    assert r.answered[C1, 9].code == s.ErrorCode.NOT_READY


def test_no_garbage_is_answered_at_once() -> None:
    r = Reign().run(C1)
    assert r.ask(C1, s.AskCollect(Tid(1), ())) == s.AnswerCollect(0)
