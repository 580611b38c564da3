"""Large transactions: what goes ahead of the vote."""

import pytest

from neo_common.checksum import checksum
from neo_common.ids import MAX_TID, NO_TID, Oid, Tid
from neo_common.wire.schema import (
    INLINE_BYTES,
    PIECE_BYTES,
    AnswerLoad,
    AnswerPiece,
    AskLoad,
    AskPiece,
    Compression,
    Conflict,
    Data,
    ErrorCode,
    Fwd,
    FwdOk,
    FwdPiece,
    FwdStore,
    Gone,
    Packet,
    Refused,
    SAbort,
    Store,
    StorePiece,
    Sync,
    Unvote,
    Voted,
    Write,
)
from neo_storage.core.log_records import LogPiece, LogStored
from neo_storage.core.settings import StorageSettings
from neo_storage.core.tentative import ENTRY_BYTES
from support.storage_rig import (
    ABSENT,
    ALONE,
    C1,
    C2,
    E1,
    E3,
    M1,
    P0,
    P1,
    PAIR,
    S1,
    S2,
    T1,
    T2,
    T3,
    J,
    O,
    Rig,
    U,
    data,
    of,
    only,
    relay,
    table,
    ttid,
    vote,
    write,
)

BIG = b"a" * PIECE_BYTES + b"b" * PIECE_BYTES + b"end"
OUT = table(((S1, U), (S2, O)), ((S2, U), (S1, U)))
LED = table(((S2, U), (S1, U)), ((S2, U), (S1, U)), ptid=2)
LEADS_AGAIN = table(((S1, U), (S2, U)), ((S2, U), (S1, U)), ptid=3)
OUT2 = table(((S1, U), (S2, O)), ((S2, U), (S1, U)), ptid=2)
JOINS3 = table(((S1, U), (S2, J)), ((S2, U), (S1, U)), ptid=3)
JOINS = table(((S1, U), (S2, J)), ((S2, U), (S1, U)), ptid=2)


def store(*writes: Write, first: int = 0, counter: int = 1) -> Store:
    return Store(ttid(counter=counter), E1, P0, first, writes)


def piece(oid: int, offset: int, value: bytes = BIG, counter: int = 1) -> StorePiece:
    part = value[offset : offset + PIECE_BYTES]
    return StorePiece(ttid(counter=counter), E1, Oid(oid), offset, part)


def big(oid: int, base: int = 0) -> Write:
    """A write whose value goes in pieces."""
    return Write(Oid(oid), Tid(base), NO_TID, Data(Compression.NONE, checksum(BIG), len(BIG), b""))


def send_pieces(rig: Rig, oid: int) -> None:
    for offset in range(0, len(BIG), PIECE_BYTES):
        rig.receive(C1, piece(oid, offset))


def test_vote_has_what_went_ahead() -> None:
    rig = Rig().serve()
    assert rig.receive(C1, store(write(0, 0, b"zero"), write(2, 0, b"two"))) == []
    rig.receive(C1, store(write(4, 0, b"four"), first=2))
    rig.receive(C1, vote(write(6, 0, b"six"), tentative={0: 3}))
    assert only(rig.flush(), Voted).parts == (P0,)
    rig.commit(T1)
    rig.settle()
    cell = rig.backend.state.cells[P0]
    assert {o: revs[0].data.value for o, revs in cell.items()} == {0: b"zero", 2: b"two", 4: b"four", 6: b"six"}


def test_what_went_ahead_is_checked_and_locked_by_the_vote() -> None:
    rig = Rig().serve()
    rig.write_all(T1, write(0), counter=1)
    rig.receive(C1, store(write(0, 50), write(2)))
    assert rig.core.locks.owners(Oid(2)) == {}
    assert [s.oid for s in only(rig.receive(C1, vote(tentative={0: 2})), Conflict).stale] == [0]
    rig.receive(C1, store(write(0, T1), write(2)))
    rig.receive(C1, vote(tentative={0: 2}))
    assert set(rig.core.locks.owners(Oid(2))) == {ttid()}


def test_store_from_the_beginning_replaces_what_was_there() -> None:
    rig = Rig().serve()
    rig.receive(C1, store(write(0, 0, b"first"), write(2)))
    rig.receive(C1, store(write(0, 0, b"second")))
    rig.receive(C1, vote(tentative={0: 1}))
    rig.flush()
    rig.commit(T1)
    rig.settle()
    assert {o: revs[0].data.value for o, revs in rig.backend.state.cells[P0].items()} == {0: b"second"}


def test_values_that_went_ahead_are_not_kept_in_memory() -> None:
    rig = Rig().serve()
    rig.receive(C1, store(write(0, 0, bytes(100_000))))
    rig.receive(C1, vote(tentative={0: 1}))
    rig.flush()
    assert next(iter(rig.core.image.voted[ttid()].values())).bytes == ENTRY_BYTES
    assert rig.core.image.undecided_bytes == ENTRY_BYTES + 100_000
    rig.commit(T1)
    assert rig.core.ground.overlay.bytes < 1000


def test_gap_cuts_the_connection() -> None:
    rig = Rig().serve()
    rig.receive(C1, store(write(0), first=1))
    assert rig.cut == [C1]


def test_vote_that_names_more_than_came_cuts_the_connection() -> None:
    rig = Rig().serve()
    rig.receive(C1, store(write(0)))
    rig.receive(C1, vote(tentative={0: 2}))
    assert rig.cut == [C1]
    assert not rig.core.image.voted


def test_wrong_checksum_fails_the_vote() -> None:
    rig = Rig().serve()
    rig.receive(C1, store(write(0)._replace(data=data(b"x")._replace(checksum=bytes(16)))))
    assert only(rig.receive(C1, vote(tentative={0: 1})), Refused).code == ErrorCode.CORRUPTED


def test_too_much_ahead_fails_the_vote() -> None:
    rig = Rig(settings=StorageSettings(undecided_bytes=1500)).serve()
    rig.receive(C1, store(write(0, 0, bytes(900))))
    rig.receive(C1, store(write(2, 0, bytes(200)), first=1))
    assert only(rig.receive(C1, vote(tentative={0: 2})), Refused).code == ErrorCode.NO_SPACE


def test_what_has_no_value_counts_too() -> None:
    """Deletions and tiny pieces take memory here: they do not pass the limit for nothing."""
    gone = write(0)._replace(data=ABSENT)
    for packets in (
        [Store(ttid(C1, n), E1, P0, 0, (gone,)) for n in range(1, 50)],
        [StorePiece(ttid(), E1, Oid(2 * n), 0, b"x") for n in range(1, 50)],
    ):
        rig = Rig(settings=StorageSettings(undecided_bytes=10 * ENTRY_BYTES)).serve()
        for packet in packets:
            rig.receive(C1, packet)
        assert 5 * ENTRY_BYTES < rig.core.image.tentative.size <= 10 * ENTRY_BYTES


def test_client_with_ever_more_transactions_that_cannot_be_voted_is_cut_off() -> None:
    rig = Rig(settings=StorageSettings(undecided_bytes=ENTRY_BYTES, wrong=5)).serve()
    for n in range(1, 6):
        rig.receive(C1, Store(ttid(C1, n), E1, P0, 0, (write(0),)))
    assert not rig.cut
    rig.receive(C1, Store(ttid(C1, 6), E1, P0, 0, (write(0),)))
    assert rig.cut == [C1]
    assert rig.core.image.tentative.size == 0


def test_client_that_gives_up_takes_back_what_went_ahead() -> None:
    """Nobody waits until it is old: the log could not let go of anything meanwhile."""
    one, two = Rig().serve(PAIR, S2), Rig(S2).serve(PAIR, S1)
    rigs = {S1: one, S2: two}
    for packet in (piece(0, 0), piece(0, PIECE_BYTES), store(big(0), write(2, 0, b"two"))):
        relay(rigs, one.receive(C1, packet), S1)
    assert one.core.image.tentative.size == two.core.image.tentative.size > 2 * PIECE_BYTES
    relay(rigs, one.receive(C1, store()), S1)
    for rig in rigs.values():
        rig.settle()
        assert not rig.core.image.tentative.ttids()
        assert rig.core.needed_from(rig.core.image.position) > rig.core.image.position
        assert not rig.cut


def test_nothing_is_taken_back_of_what_went_ahead_for_another_partition() -> None:
    """It comes from another lead, and may be on its way yet."""
    rig = Rig(S2).serve(PAIR, S1)
    rig.receive(S1, FwdPiece(E1, PAIR.version, piece(0, 0)))
    rig.receive(C1, Store(ttid(), E1, P1, 0, (write(1),)))
    rig.receive(C1, Store(ttid(), E1, P1, 0, ()))
    assert rig.core.image.tentative.value(ttid(), Oid(0))[0] == PIECE_BYTES
    rig.receive(S1, FwdStore(E1, PAIR.version, store()))
    assert not rig.core.image.tentative.ttids()


def test_abort_that_overtakes_pieces_cuts_nobody() -> None:
    """It comes from the primary, they from a client or the lead: who has forgotten their beginning lets them pass."""
    lead, other = Rig().serve(PAIR, S2), Rig(S2).serve(PAIR, S1)
    lead.receive(C1, piece(0, 0))
    other.receive(S1, FwdPiece(E1, PAIR.version, piece(0, 0)))
    for rig in (lead, other):
        rig.receive(M1, SAbort(ttid(), 1))
        rig.settle()
    lead.receive(C1, piece(0, PIECE_BYTES))
    lead.receive(C1, store(write(2), first=1))
    other.receive(S1, FwdPiece(E1, PAIR.version, piece(0, PIECE_BYTES)))
    other.receive(S1, FwdStore(E1, PAIR.version, store(write(2), first=1)))
    for rig in (lead, other):
        assert not rig.cut
        assert not rig.core.image.tentative.ttids()


@pytest.mark.parametrize("end", ["abort", "gone"])
@pytest.mark.parametrize("packets", [[store(write(2))], [piece(0, 0)], [store(write(2)), vote(tentative={0: 1})]])
def test_nothing_stays_of_what_the_primary_has_overtaken(end: str, packets: list[Packet]) -> None:
    """The other cell hears its word before what the lead passes on: the lead has to say, once it hears it too."""
    one, two = Rig().serve(PAIR, S2), Rig(S2).serve(PAIR, S1)
    rigs = {S1: one, S2: two}
    word = SAbort(ttid(), 1) if end == "abort" else Gone(ttid().session)
    relay(rigs, two.receive(M1, word), S2)
    for packet in packets:
        relay(rigs, one.receive(C1, packet), S1)
    relay(rigs, one.receive(M1, word), S1)
    if end == "gone" and packets[-1] == vote(tentative={0: 1}):
        for rig in rigs.values():  # it was voted, as the lead tells the primary
            rig.receive(M1, SAbort(ttid(), 1))
    for rig in rigs.values():
        assert rig.core.image.undecided_bytes == 0
        assert not rig.core.image.tentative.ttids()
        assert not rig.cut


def test_lost_client_takes_along_what_went_ahead() -> None:
    one, two = Rig().serve(PAIR, S2), Rig(S2).serve(PAIR, S1)
    rigs = {S1: one, S2: two}
    relay(rigs, one.receive(C1, store(write(0))), S1)
    relay(rigs, one.receive(C1, piece(2, 0, counter=2)), S1)
    assert two.core.image.tentative.ttids() == (ttid(counter=1), ttid(counter=2))
    relay(rigs, one.lose(C1), S1)
    for rig in rigs.values():
        assert rig.core.image.tentative.ttids() == ()


def test_lost_lead_takes_along_what_it_has_passed_on() -> None:
    """And nothing else: of the same transaction the client has sent something here."""
    two = Rig(S2).serve(PAIR, S1)
    two.receive(S1, FwdStore(E1, PAIR.version, store(write(0))))
    two.receive(C1, Store(ttid(), E1, P1, 0, (write(1),)))
    two.lose(S1)
    assert [two.core.image.tentative.count(ttid(), p) for p in (P0, P1)] == [0, 1]


def test_what_came_from_another_since_is_not_taken_back() -> None:
    """A former lead's last word is late: the client has sent all of it again, to this one."""
    two = Rig(S2).serve(PAIR, S1)
    two.receive(S1, FwdStore(E1, PAIR.version, store(write(0))))
    two.set_table(LED)
    assert not two.core.image.tentative.ttids(), "the client sends it again, to the new lead"
    two.receive(C1, store(write(0)))
    two.receive(S1, FwdStore(E1, PAIR.version, store()))
    assert two.core.image.tentative.count(ttid(), P0) == 1


def test_cell_that_is_not_written_any_more_keeps_nothing_of_what_went_ahead() -> None:
    two = Rig(S2).serve(PAIR, S1)
    two.receive(S1, FwdStore(E1, PAIR.version, store(write(0))))
    two.receive(S1, FwdPiece(E1, PAIR.version, piece(2, 0)))
    two.set_table(OUT2)
    assert not two.core.image.tentative.ttids()


def test_former_lead_keeps_what_went_ahead_until_its_client_says() -> None:
    """What the client sends to the new lead comes from there, and goes with its vote."""
    one, two = Rig().serve(PAIR, S2), Rig(S2).serve(PAIR, S1)
    rigs = {S1: one, S2: two}
    for n in (1, 2):
        relay(rigs, one.receive(C1, store(write(0), counter=n)), S1)
    for me, rig in rigs.items():
        relay(rigs, rig.set_table(LED), me)
        relay(rigs, rig.stable(LED), me)
    assert one.core.image.tentative.ttids() == (ttid(counter=1), ttid(counter=2))
    assert not two.core.image.tentative.ttids()
    relay(rigs, one.receive(C1, store(counter=1)), S1)
    assert one.core.image.tentative.ttids() == (ttid(counter=2),)
    relay(rigs, two.receive(C1, store(write(0), counter=2)), S2)
    voted = relay(rigs, two.receive(C1, vote(tentative={0: 1}, counter=2, version=LED.version)), S2)
    assert only(voted, Voted)
    for rig in rigs.values():
        assert not rig.core.image.tentative.ttids()
        assert not rig.cut


@pytest.mark.parametrize("missed", [store(write(2, 0, b"new"), first=1), piece(2, 0)])
def test_lead_that_has_not_led_meanwhile_votes_nothing_that_was_replaced(missed: Packet) -> None:
    """What comes while it does not lead is left; with what came before, the vote would have an old value."""
    rig = Rig().serve(PAIR, S2)
    rig.receive(C1, store(write(0), write(2, 0, b"old")))
    rig.set_table(LED)
    rig.stable(LED)
    assert rig.receive(C1, missed) == []
    assert not rig.core.image.tentative.ttids()
    rig.set_table(LEADS_AGAIN)
    rig.stable(LEADS_AGAIN)
    assert of(rig.receive(C1, vote(tentative={0: 2}, version=LEADS_AGAIN.version)), Fwd) == []
    assert rig.cut == [C1]
    assert not rig.core.image.voted


def test_lead_votes_no_value_whose_pieces_came_while_it_did_not_lead() -> None:
    rig = Rig().serve(PAIR, S2)
    rig.set_table(LED)
    rig.stable(LED)
    send_pieces(rig, 2)
    rig.set_table(LEADS_AGAIN)
    rig.stable(LEADS_AGAIN)
    rig.receive(C1, store(write(0), big(2)))
    assert of(rig.receive(C1, vote(tentative={0: 2}, version=LEADS_AGAIN.version)), Fwd) == []
    assert rig.cut == [C1]
    assert not rig.core.image.voted


def test_cell_that_joins_again_is_sent_all_that_went_ahead() -> None:
    """It has ignored what came while it was out of date, such as what an object was stored as since."""
    one, two = Rig().serve(PAIR, S2), Rig(S2).serve(PAIR, S1)
    rigs = {S1: one, S2: two}
    relay(rigs, one.receive(C1, store(write(0, 0, b"old"))), S1)
    for table_ in (OUT2, JOINS3):
        for me in (S2, S1):
            relay(rigs, rigs[me].set_table(table_, last=T2), me)
            relay(rigs, rigs[me].stable(table_), me)
        if table_ is OUT2:
            relay(rigs, one.receive(C1, store(write(0, 0, b"new"))), S1)
    relay(rigs, one.receive(C1, store(write(2), first=1)), S1)
    voted = relay(rigs, one.receive(C1, vote(tentative={0: 2}, version=JOINS3.version)), S1)
    assert only(voted, Voted)
    for rig in rigs.values():
        assert not rig.cut
        rig.commit(T3)
        rig.settle()
        assert rig.backend.state.cells[P0][Oid(0)][0].data.value == b"new"
        assert not rig.core.image.tentative.ttids()


def test_new_epoch_keeps_nothing_of_what_went_ahead() -> None:
    """Whoever takes it back may say so under the old epoch, or to a storage that does not listen yet."""
    rig = Rig().serve()
    rig.receive(C1, store(write(0)))
    rig.fence(E3)
    assert not rig.core.image.tentative.ttids()
    rig.start(ALONE, epoch=E3)
    rig.receive(C1, Store(ttid(), E3, P0, 1, (write(2),)))
    assert rig.cut == [C1]


def test_sync_of_what_is_committed_leaves_nothing() -> None:
    """The lead repeats what went ahead, while the primary's Commit overtakes it."""
    one, two = Rig().serve(PAIR, S2), Rig(S2).serve(PAIR, S1)
    rigs = {S1: one, S2: two}
    relay(rigs, one.receive(C1, store(write(0))), S1)
    relay(rigs, one.receive(C1, vote(tentative={0: 1})), S1)
    one.lose(S2)
    two.lose(S1)
    two.connect(S1)
    two.commit(T1)
    relay(rigs, one.connect(S2), S1)
    one.commit(T1)
    for rig in rigs.values():
        assert not rig.core.image.tentative.ttids()
        assert not rig.cut


def test_what_went_ahead_goes_with_the_vote_that_has_taken_it() -> None:
    """The next attempt sends it again: if there is none, nobody need say that it is not wanted any more."""
    one, two = Rig().serve(PAIR, S2), Rig(S2).serve(PAIR, S1)
    rigs = {S1: one, S2: two}
    for attempt in (1, 2):
        relay(rigs, one.receive(C1, piece(0, 0)), S1)
        relay(rigs, one.receive(C1, store(write(2))), S1)
        voted = relay(rigs, one.receive(C1, vote(tentative={0: 1}, attempt=attempt)), S1)
        assert only(voted, Voted).attempt == attempt
        assert not one.core.image.tentative.ttids()
        assert not two.core.image.tentative.ttids()
        assert one.core.image.undecided_bytes > 0
        relay(rigs, one.receive(C1, Unvote(ttid(), attempt, E1, (P0,))), S1)
    for rig in rigs.values():
        assert rig.core.image.undecided_bytes == 0
        assert not rig.cut


@pytest.mark.parametrize("end", ["abort", "gone", "commit", "age"])
def test_what_went_ahead_is_forgotten(end: str) -> None:
    rig = Rig().serve()
    rig.receive(C1, store(write(0)))
    match end:
        case "abort":
            rig.receive(M1, SAbort(ttid(), 1))
        case "gone":
            rig.receive(M1, Gone(ttid().session))
        case "commit":
            rig.receive(C1, vote(tentative={0: 1}))
            rig.flush()
            rig.commit(T1)
        case _:
            rig.tick(3500.0)
            assert rig.core.image.tentative.ttids() != ()
            rig.tick(200.0)
    assert rig.core.image.tentative.ttids() == ()


# ---------------------------------------------------------------------------------------------- pieces


def test_value_in_pieces_is_read_from_the_log_then_from_the_back_end() -> None:
    rig = Rig().serve()
    send_pieces(rig, 0)
    rig.receive(C1, vote(big(0)))
    assert only(rig.flush(), Voted)
    rig.commit(T1)
    for _ in range(2):
        loaded = only(rig.receive(C2, AskLoad(E1, Oid(0), MAX_TID), 1), AnswerLoad)
        assert loaded.data == big(0).data
        parts = [
            only(rig.receive(C2, AskPiece(E1, Oid(0), T1, offset), 1), AnswerPiece).value
            for offset in range(0, len(BIG), PIECE_BYTES)
        ]
        assert b"".join(parts) == BIG
        rig.settle()
    assert len(rig.core.ground.overlay) == 0


def test_value_in_pieces_of_a_store() -> None:
    rig = Rig().serve()
    send_pieces(rig, 0)
    rig.receive(C1, store(big(0), write(2)))
    rig.receive(C1, vote(tentative={0: 2}))
    rig.flush()
    rig.commit(T1)
    rig.settle()
    assert rig.backend.state.cells[P0][Oid(0)][0].data.value == BIG


def test_value_that_went_ahead_is_loaded_whole() -> None:
    rig = Rig().serve()
    rig.receive(C1, store(write(0, 0, b"small")))
    rig.receive(C1, vote(tentative={0: 1}))
    rig.flush()
    rig.commit(T1)
    assert only(rig.receive(C2, AskLoad(E1, Oid(0), MAX_TID), 1), AnswerLoad).data == data(b"small")


def test_piece_after_a_gap_cuts_the_connection() -> None:
    rig = Rig().serve()
    rig.receive(C1, piece(0, 0))
    rig.receive(C1, piece(0, 2 * PIECE_BYTES))
    assert rig.cut == [C1]


def test_missing_pieces_cut_the_connection() -> None:
    rig = Rig().serve()
    rig.receive(C1, vote(big(0)))
    assert rig.cut == [C1]


def test_too_few_pieces_fail_the_vote() -> None:
    rig = Rig().serve()
    rig.receive(C1, piece(0, 0))
    assert only(rig.receive(C1, vote(big(0))), Refused).code == ErrorCode.CORRUPTED


@pytest.mark.parametrize("value", [b"small", b""])
def test_small_value_replaces_one_in_pieces(value: bytes) -> None:
    rig = Rig().serve()
    send_pieces(rig, 0)
    rig.receive(C1, store(big(0)))
    rig.receive(C1, store(write(0, 0, value)))
    rig.receive(C1, vote(tentative={0: 1}))
    assert only(rig.flush(), Voted)
    rig.commit(T1)
    rig.settle()
    assert rig.backend.state.cells[P0][Oid(0)][0].data == data(value)


def test_pieces_with_a_wrong_checksum_fail_the_vote() -> None:
    rig = Rig().serve()
    send_pieces(rig, 0)
    wrong = big(0)._replace(data=big(0).data._replace(checksum=bytes(16)))
    assert only(rig.receive(C1, vote(wrong)), Refused).code == ErrorCode.CORRUPTED


def test_value_above_the_limit_is_refused_while_it_comes() -> None:
    rig = Rig(settings=StorageSettings(object_bytes=PIECE_BYTES)).serve()
    rig.receive(C1, piece(0, 0))
    rig.receive(C1, piece(0, PIECE_BYTES))
    assert only(rig.receive(C1, vote(big(0))), Refused).code == ErrorCode.TOO_LARGE
    assert not any(isinstance(r, LogPiece) and r.offset for _, r in rig.log)


# ---------------------------------------------------------------------------------------------- other cells


def test_what_goes_ahead_is_passed_on_and_the_vote_names_it() -> None:
    rig = Rig().serve(PAIR, S2)
    assert only(rig.receive(C1, store(write(0))), FwdStore, S2).store == store(write(0))
    assert only(rig.receive(C1, piece(2, 0)), FwdPiece, S2).piece == piece(2, 0)
    fwd = only(rig.receive(C1, vote(tentative={0: 1})), Fwd, S2)
    assert (fwd.records[0].tentative, fwd.records[0].writes) == (1, ())


def test_cell_puts_vote_and_what_went_ahead_together() -> None:
    one, two = Rig().serve(PAIR, S2), Rig(S2).serve(PAIR, S1)
    rigs = {S1: one, S2: two}
    for packet in (piece(0, 0), piece(0, PIECE_BYTES), piece(0, 2 * PIECE_BYTES), store(big(0), write(2, 0, b"two"))):
        relay(rigs, one.receive(C1, packet), S1)
    outside = relay(rigs, one.receive(C1, vote(write(4, 0, b"four"), tentative={0: 2})), S1)
    assert only(outside, Voted, C1)
    for rig in rigs.values():
        rig.commit(T1)
        rig.settle()
        cell = rig.backend.state.cells[P0]
        assert {o: revs[0].data.value for o, revs in cell.items()} == {0: BIG, 2: b"two", 4: b"four"}


def test_cell_that_lacks_what_went_ahead_cuts_the_connection() -> None:
    one, two = Rig().serve(PAIR, S2), Rig(S2).serve(PAIR, S1)
    one.receive(C1, store(write(0)))
    fwd = only(one.receive(C1, vote(tentative={0: 1})), Fwd)
    two.receive(S1, fwd)
    assert two.cut == [S1]
    assert not two.core.image.voted


def test_cell_that_was_away_gets_it_again() -> None:
    one, two = Rig().serve(PAIR, S2), Rig(S2).serve(PAIR, S1)
    rigs = {S1: one, S2: two}
    relay(rigs, one.receive(C1, store(write(0, 0, b"zero"))), S1)
    one.lose(S2)
    two.lose(S1)
    relay(rigs, one.connect(S2), S1)
    two.connect(S1)
    one.receive(C1, store(write(2, 0, b"two"), first=1))  # not to S2: it has not the beginning any more
    outside = relay(rigs, one.receive(C1, vote(tentative={0: 2})), S1)
    assert only(outside, Voted)
    assert {w.oid for w in next(two.core.image.records()).writes} == {0, 2}


def test_sync_sends_again_what_went_ahead() -> None:
    one, two = Rig().serve(OUT, S2), Rig(S2).serve(OUT, S1)
    rigs = {S1: one, S2: two}
    send_pieces(one, 0)
    one.receive(C1, store(big(0), write(2, 0, b"two")))
    one.receive(C1, vote(write(4, 0, b"four"), tentative={0: 2}))
    one.flush()
    relay(rigs, two.set_table(JOINS, last=T2), S2)
    relay(rigs, one.set_table(JOINS, last=T2), S1)
    assert {w.oid for w in next(two.core.image.records()).writes} == {0, 2, 4}
    two.commit(T1)
    two.settle()
    cell = two.backend.state.cells[P0]
    assert {o: revs[0].data.value for o, revs in cell.items()} == {0: BIG, 2: b"two", 4: b"four"}


def test_sync_that_would_be_too_large_sends_records_ahead() -> None:
    rig = Rig().serve(OUT, S2)
    for n in range(3):
        rig.receive(C1, vote(write(2 * n, 0, bytes(INLINE_BYTES // 2)), counter=n + 1))
    rig.flush()
    sent = rig.set_table(JOINS, last=T2)
    sync = only(sent, Sync, S2)
    assert sum(len(w.data.value) for r in sync.records for w in r.writes) <= INLINE_BYTES
    assert [(r.tentative, len(r.writes)) for r in sync.records] == [(0, 1), (0, 1), (1, 0)]
    assert [len(s.store.writes) for s in of(sent, FwdStore)] == [1]


def test_commit_between_what_goes_ahead_and_its_vote_keeps_it() -> None:
    """At a cell that joins: the decision comes from the primary, the vote from the lead."""
    two = Rig(S2).serve(OUT, S1)
    two.set_table(JOINS, last=T2)
    two.receive(S1, FwdStore(E1, JOINS.version, store(write(0, 0, b"zero"))))
    two.commit(400)
    lead = Rig().serve(JOINS, S2)
    lead.receive(C1, store(write(0, 0, b"zero")))
    two.receive(S1, only(lead.receive(C1, vote(tentative={0: 1})), Fwd))
    assert only(two.settle(), FwdOk)
    assert two.backend.current(P0, Oid(0)) == 400
    assert two.core.image.tentative.ttids() == ()


# ---------------------------------------------------------------------------------------------- restart


def test_vote_with_what_went_ahead_survives_a_crash() -> None:
    rig = Rig().serve()
    send_pieces(rig, 0)
    rig.receive(C1, store(big(0), write(2, 0, b"two")))
    rig.receive(C1, vote(tentative={0: 2}))
    rig.flush()
    rig.crash()
    rig.connect(M1)
    rig.adopt(rig.core.image.table)
    rig.commit(T1)
    rig.settle()
    assert rig.backend.state.cells[P0][Oid(0)][0].data.value == BIG


def test_log_is_needed_from_the_first_record_of_a_vote() -> None:
    rig = Rig().serve()
    first = rig.log[-1][0] + 1
    rig.receive(C1, store(write(0)))
    assert isinstance(rig.log[-1][1], LogStored)
    rig.receive(C1, vote(tentative={0: 1}))
    rig.settle()
    assert rig.core.needed_from(rig.durable) == first
    rig.commit(T1)
    rig.flush()
    assert rig.core.needed_from(rig.durable - 1) == first  # a restart replays the commit, and needs the vote
    rig.apply()
    assert rig.core.needed_from(rig.durable) == rig.durable + 1


def test_recycled_log_is_enough_for_a_restart() -> None:
    rig = Rig().serve()
    for n in range(1, 5):
        rig.receive(C1, store(write(2 * n), counter=n))
        rig.receive(C1, vote(tentative={0: 1}, counter=n))
        rig.flush()
        if n % 2:
            rig.commit(100 * n, counter=n)
        rig.settle()
        needed = rig.core.needed_from(rig.backend.checkpoint())
        rig.log = [entry for entry in rig.log if entry[0] >= needed]
    rig.crash()
    assert sorted(rig.core.image.voted) == [ttid(counter=2), ttid(counter=4)]
