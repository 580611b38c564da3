"""Scrub: damage is found and named, nothing that is right is called wrong, and a marked cell is mended."""

import pytest

from neo_common.ids import NO_NODE, NodeId, Oid, Tid
from neo_common.states import CellState
from neo_common.wire.schema import AskLoad, CaughtUp, Damaged, Error, ErrorCode, Mended, Scrub, ScrubState
from neo_storage.core.settings import StorageSettings
from support.histories import HISTORY, fill, is_same, transaction
from support.storage_rig import C1, E1, M1, P0, S1, S2, Rig, Sent, U, converse, of, only, relay, table

PAIR = table(((S1, U), (S2, U)), ((S1, U), (S2, U)))
C = CellState.CORRUPTED
MARKED = table(((S1, U), (S2, C)), ((S1, U), (S2, U)), ptid=2)
SETTINGS = StorageSettings(scrub_rate=2**30, scrub_confirm_s=10.0, copy_range=4)


def pair() -> dict[NodeId, Rig]:
    """Two cells with the same history; S1 leads."""
    rigs: dict[NodeId, Rig] = {}
    for node, other in ((S1, S2), (S2, S1)):
        rigs[node] = Rig(node, SETTINGS)
        fill(rigs[node], HISTORY)
        rigs[node].serve(PAIR, other)
    return rigs


def hurt(rig: Rig, oid: int, tid: int) -> None:
    """Flip a bit of a value."""
    cell = rig.backend.state.cells[P0]
    cell[Oid(oid)] = tuple(
        r._replace(data=r.data._replace(value=bytes([r.data.value[0] ^ 1]) + r.data.value[1:])) if r.tid == tid else r
        for r in cell[Oid(oid)]
    )


def lose(rig: Rig, oid: int, tid: int) -> None:
    """Delete a row."""
    cell = rig.backend.state.cells[P0]
    cell[Oid(oid)] = tuple(r for r in cell[Oid(oid)] if r.tid != tid)


def scrub(rigs: dict[NodeId, Rig], *nodes: NodeId) -> list[Sent]:
    """Let these scrub to the end; return what the primary hears."""
    told: list[Sent] = []
    for node in nodes or tuple(rigs):
        told += relay(rigs, rigs[node].receive(M1, Scrub()), node)
        for _ in range(4):
            told += converse(rigs)
            for rig in rigs.values():
                rig.now += 11
    return told


def test_cells_that_are_the_same_are_found_so() -> None:
    rigs = pair()
    told = scrub(rigs)
    assert of(told, Damaged) == []
    state = of(told, ScrubState)[-1]
    assert (state.cells_done, state.cells_total, state.is_running) == (2, 2, False)
    assert state.revisions == 80


@pytest.mark.parametrize("node", [S1, S2])
def test_flipped_bit_is_found_by_whose_it_is(node: NodeId) -> None:
    rigs = pair()
    hurt(rigs[node], 40, 20)
    found = of(scrub(rigs), Damaged, M1)
    assert [(d.partition, d.node) for d in found] == [(P0, node)]
    assert "oid 0x28 at 0x14" in found[0].text


@pytest.mark.parametrize(("loser", "wrong"), [(S1, S1), (S2, S2)])
def test_cell_that_lacks_a_revision_is_the_wrong_one(loser: NodeId, wrong: NodeId) -> None:
    """Rows get lost; a revision with a checksum that holds never comes from nowhere. Even the lead may be wrong."""
    rigs = pair()
    lose(rigs[loser], 0, 7)
    found = of(scrub(rigs), Damaged, M1)
    assert [(d.partition, d.node) for d in found] == [(P0, wrong)]


def test_lost_end_of_the_lead_is_found() -> None:
    rigs = pair()
    lose(rigs[S2], 0, 40)
    lose(rigs[S2], 80, 40)
    rigs[S2].backend.state.transactions[P0].pop(Tid(40))
    assert [d.node for d in of(scrub(rigs), Damaged, M1)] == [S2]


def test_nobody_is_believed_when_each_lacks_something() -> None:
    """However far apart: the rebuilt cell would lose what only it has."""
    rigs = pair()
    lose(rigs[S1], 0, 7)
    lose(rigs[S2], 0, 38)
    found = of(scrub(rigs), Damaged, M1)
    assert {d.node for d in found} == {NO_NODE}


def test_nobody_is_believed_when_a_revision_is_not_the_same() -> None:
    rigs = pair()
    cell = rigs[S2].backend.state.cells[P0]
    other = transaction(20, 40, value=b"other").revisions[0].data
    assert other is not None
    cell[Oid(40)] = tuple(r._replace(data=other) for r in cell[Oid(40)])
    assert {d.node for d in of(scrub(rigs), Damaged, M1)} == {NO_NODE}


def test_difference_that_passes_is_none() -> None:
    """A collection of garbage reaches one cell before the other."""
    rigs = pair()
    lose(rigs[S1], 40, 20)
    told = relay(rigs, rigs[S2].receive(M1, Scrub()), S2) + converse(rigs)
    assert rigs[S2].core.scrub.look is not None
    lose(rigs[S2], 40, 20)
    for rig in rigs.values():
        rig.now += 11
    told += converse(rigs)
    assert of(told, Damaged) == []


def test_cells_packed_to_different_tids_are_compared_above() -> None:
    rigs = pair()
    one = rigs[S1]
    while not one.backend.pack_step(P0, Tid(20), 100).done:
        pass
    assert of(scrub(rigs), Damaged) == []
    lose(rigs[S2], 0, 30)
    assert [d.node for d in of(scrub(rigs), Damaged, M1)] == [S2]


def test_reader_who_finds_damage_has_it_told() -> None:
    rigs = pair()
    hurt(rigs[S1], 0, 40)
    sent = rigs[S1].receive(C1, AskLoad(E1, Oid(0), Tid(99)), 7)
    assert only(sent, Error, C1).code == ErrorCode.CORRUPTED
    assert only(sent, Damaged, M1).node == S1
    again = rigs[S1].receive(C1, AskLoad(E1, Oid(0), Tid(99)), 8)
    assert of(again, Damaged) == [], "not for every reader"


def test_marked_cell_drops_what_is_damaged_and_copies_what_it_lacks() -> None:
    rigs = pair()
    two = rigs[S2]
    hurt(two, 40, 20)
    hurt(two, 0, 31)
    lose(two, 0, 7)
    told = relay(rigs, two.set_table(MARKED), S2) + converse(rigs)
    assert only(told, Mended, M1).partition == P0
    assert two.backend.state.cells[P0].get(Oid(40), ()) == ()
    out = table(((S1, U), (S2, CellState.OUT_OF_DATE)), ((S1, U), (S2, U)), ptid=3)
    rigs[S1].set_table(out)
    told = relay(rigs, two.set_table(out), S2) + converse(rigs)
    assert any(P0 in packet.partitions for packet in of(told, CaughtUp, M1))
    assert is_same(rigs)
    assert two.backend.load(P0, Oid(40), Tid(99)) == rigs[S1].backend.load(P0, Oid(40), Tid(99))


def test_cell_that_is_rebuilt_is_compared_from_its_beginning() -> None:
    """It may have caught up under the same primary before."""
    out = table(((S1, U), (S2, CellState.OUT_OF_DATE)), ((S1, U), (S2, U)))
    rigs: dict[NodeId, Rig] = {}
    for node in (S1, S2):
        rigs[node] = Rig(node, SETTINGS)
        fill(rigs[node], HISTORY)
    rigs[S1].serve(out, S2)
    rigs[S2].serve(out)
    told = converse(rigs, rigs[S2].connect(S1), S2)
    assert of(told, CaughtUp, M1)
    lose(rigs[S2], 40, 20)
    for ptid, state in ((2, U), (3, C), (4, CellState.OUT_OF_DATE)):
        new = table(((S1, U), (S2, state)), ((S1, U), (S2, U)), ptid=ptid)
        rigs[S1].set_table(new)
        converse(rigs, rigs[S2].set_table(new), S2)
    assert is_same(rigs)


def test_scrub_begins_by_itself() -> None:
    rig = Rig(S1, StorageSettings(scrub_every_s=100.0)).serve(PAIR, S2)
    rig.tick(99)
    assert not rig.reads
    rig.tick(2)
    assert rig.core.scrub.look is not None


def test_scrub_keeps_to_its_rate() -> None:
    rig = Rig(S1, StorageSettings(scrub_rate=1000))
    fill(rig, [transaction(n, 0, value=b"v" * 100_000) for n in range(1, 11)])
    rig.serve(PAIR, S2)
    began = rig.now
    rig.receive(M1, Scrub())
    for _ in range(10_000):
        if rig.core.scrub.look is None and rig.now > began:
            break
        rig.tick(1.0)
        rig.apply()
    assert rig.now - began > 700
