"""What fuzzing has found: legal packets with values that nobody who means well would send.

Each harms only its sender.
"""

import pytest

from neo_common.core import Disconnect
from neo_common.ids import NO_TID, NodeId, Oid, Session, Tid, Ttid, make_epoch
from neo_common.states import Role, node_id
from neo_common.wire import schema as s
from neo_storage.core.settings import StorageSettings
from support import storage_rig as rig_of
from support.reign import C1, M1, S1, S2, Reign
from support.storage_rig import P0, Rig, data, only, vote, write

HIGH = 2**64 - 1
NAMELESS = Ttid(Session(HIGH), 1)
"""No database can keep it: they have 63 bits."""
S3 = node_id(Role.STORAGE, 3)


def was_cut(r: Reign, peer: NodeId) -> bool:
    """Whether the primary has closed that connection, and reigns on."""
    assert r.core.is_running
    assert r.exit is None
    return any(isinstance(e, Disconnect) and e.peer == peer for e in r.effects)


# ---------------------------------------------------------------------------------------------- the primary


@pytest.mark.parametrize("number", [2**40 - 1, 2**33, 2000])
def test_client_cannot_depose_the_primary_with_an_epoch_that_cannot_be(number: int) -> None:
    """What a master believes of epochs it never unlearns: one such word would end every reign, for ever."""
    r = Reign().run(C1)
    epoch = make_epoch(number, M1)
    r.say(C1, s.CHello(Session(0), r.core.epoch, epoch, (), (), NO_TID, False))
    assert was_cut(r, C1)
    assert r.core.seen_epoch < epoch


def test_storage_cannot_either() -> None:
    r = Reign().run()
    r.say(S1, s.SHello(make_epoch(2**39, M1), r.core.pt.version, (), 0, NO_TID, 0))
    assert was_cut(r, S1)


def test_epoch_a_few_reigns_ahead_is_believed() -> None:
    """A client that has met a later primary must end this reign: that is how the deposed one learns of it."""
    r = Reign().run(C1)
    r.say(C1, s.CHello(Session(0), r.core.epoch, make_epoch((r.core.epoch >> 24) + 3, M1), (), (), NO_TID, False))
    assert not r.core.is_running


@pytest.mark.parametrize(
    "packet",
    [
        s.Abort(NAMELESS, 1, (P0,)),
        s.Abort(Ttid(Session(1), HIGH), 1, (P0,)),
        s.Finish(NAMELESS, 1, make_epoch(1, M1), (P0,), (), s.Mode.C, NO_TID),
        s.CHello(Session(HIGH), make_epoch(1, M1), make_epoch(1, M1), (), (), NO_TID, False),
        s.CHello(Session(0), make_epoch(1, M1), make_epoch(1, M1), (), (), Tid(HIGH), False),
        s.CHello(
            Session(0),
            make_epoch(1, M1),
            make_epoch(1, M1),
            (s.Underway(NAMELESS, 1, s.Progress.ABORTING, (P0,)),),
            (),
            NO_TID,
            False,
        ),
    ],
)
def test_names_that_no_database_can_keep_end_the_connection_of_the_client(packet: s.Packet) -> None:
    """A tombstone of such a name would stop every storage, at each start again."""
    r = Reign().run(C1)
    r.say(C1, packet)
    assert was_cut(r, C1)
    assert not r.to(S1, s.SAbort)


def test_storage_that_makes_up_a_vote_has_nothing_aborted() -> None:
    r = Reign().run()
    r.say(S1, s.Overdue((s.VotedId(NAMELESS, 1, (P0,)),)))
    r.say(S1, s.VotedBy(Session(HIGH), (s.VotedId(NAMELESS, 1, (P0,)),)))
    assert not r.to(S2, s.SAbort)
    assert r.core.is_running


def test_progress_of_a_pack_is_told_by_those_that_have_cells_and_can_be_told_on() -> None:
    """Its sums travel in AnswerPackState."""
    r = Reign(storages=3, replicas=1).run(C1)
    outsider = node_id(Role.STORAGE, 77)
    r.core.obeying.add(outsider)
    r.core.connected[outsider] = r.core.connected[S1]
    r.say(outsider, s.PackProgress(HIGH, 2**32 - 1, 2**32 - 1, HIGH, HIGH))
    assert r.core.pack is None
    for storage in (S1, S2):
        r.say(storage, s.PackProgress(1, 2**32 - 1, 2**32 - 1, HIGH, HIGH))
    state = r.ask(C1, s.AskPackState())
    assert isinstance(state, s.AnswerPackState)
    assert state.cells_done <= 2 * 4


# ---------------------------------------------------------------------------------------------- a storage


@pytest.mark.parametrize(
    "bad",
    [
        write(HIGH - 1),
        write(0, base=HIGH),
        write(0, copied_from=HIGH),
        write(0)._replace(data=data(b"")._replace(size=HIGH)),
    ],
)
def test_write_with_an_id_that_no_database_can_keep_is_refused(bad: s.Write) -> None:
    """Committed, it would stop every storage that has the cell, at each start again."""
    rig = Rig(settings=StorageSettings(object_bytes=2**64)).serve()
    refused = only(rig.receive(rig_of.C1, vote(bad)), s.Refused)
    assert refused.code == s.ErrorCode.ILLEGAL
    rig.receive(rig_of.C1, s.Store(rig_of.ttid(counter=2), rig_of.E1, P0, 0, (bad,)))
    assert not rig.core.image.tentative.has(rig_of.ttid(counter=2))


def test_piece_of_such_an_object_is_not_taken() -> None:
    rig = Rig().serve()
    rig.receive(rig_of.C1, s.StorePiece(rig_of.ttid(), rig_of.E1, Oid(HIGH - 1), 0, b"x"))
    assert not rig.core.image.tentative.has(rig_of.ttid())


def test_tids_above_all_are_refused() -> None:
    rig = Rig().serve()
    for bad in (vote(write(0), known=HIGH), vote(write(0))._replace(given_tid=Tid(HIGH))):
        assert only(rig.receive(rig_of.C1, bad), s.Refused).code == s.ErrorCode.ILLEGAL


def test_client_that_names_a_transaction_so_is_cut_off() -> None:
    for packet in (
        vote(write(0))._replace(ttid=NAMELESS),
        s.Unvote(NAMELESS, 1, rig_of.E1, (P0,)),
        s.Store(NAMELESS, rig_of.E1, P0, 0, ()),
    ):
        rig = Rig().serve()
        rig.receive(rig_of.C1, packet)
        assert rig.cut == [rig_of.C1]
        assert not rig.core.image.voted
