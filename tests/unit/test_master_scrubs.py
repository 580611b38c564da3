"""What becomes of cells that are found wrong."""

from neo_common.ids import NO_NODE, NodeId
from neo_common.states import CellState
from neo_common.wire import schema as s
from support.reign import A1, S1, S2, Reign, p

U, C, OUT = CellState.UP_TO_DATE, CellState.CORRUPTED, CellState.OUT_OF_DATE


def states(r: Reign, number: int) -> list[tuple[NodeId, CellState]]:
    return [(node, state) for node, state in r.core.pt.rows[number]]


def found(r: Reign, by: NodeId, node: NodeId, partition: int = 0) -> None:
    r.say(by, s.Damaged(r.core.pt.version, p(partition), node, "2 values do not have their checksums"))


def test_wrong_cell_is_put_out_of_service_and_rebuilt() -> None:
    r = Reign(partitions=2).run()
    r.admin()
    found(r, S2, S2)
    assert states(r, 0) == [(S1, U), (S2, C)]
    assert states(r, 1)[1] == (S1, U) or states(r, 1)[0] == (S1, U), "the others are not concerned"
    r.say(S2, s.Mended(r.core.pt.version, p(0)))
    assert states(r, 0)[1][0] == S2
    assert states(r, 0)[1][1] != C
    r.tick(1.0)
    assert states(r, 0) == [(S1, U), (S2, CellState.JOINING)]
    answer = r.ask(A1, s.AskScrub(False))
    assert [(f.partition, f.node, f.by, f.is_rebuilt) for f in answer.findings] == [(0, S2, S2, True)]
    assert any("S2" in log.text and "wrong" in log.text for log in r.logs)


def test_wrong_lead_gives_its_place_up() -> None:
    r = Reign(partitions=1).run()
    found(r, S2, S1)
    assert states(r, 0) == [(S2, U), (S1, C)]


def test_only_copy_stays_until_there_is_another_one() -> None:
    r = Reign(partitions=1).run()
    r.lose(S2)
    found(r, S1, S1)
    assert states(r, 0) == [(S1, U), (S2, OUT)]
    r.dial(S2)
    r.tick(1.0)
    r.say(S2, s.Ready(r.core.pt.version, p(0)))
    r.tick(0.1)
    assert states(r, 0) == [(S2, U), (S1, C)]


def test_two_wrong_cells_are_rebuilt_one_after_the_other() -> None:
    r = Reign(partitions=1).run()
    found(r, S1, S1)
    found(r, S2, S2)
    assert states(r, 0) == [(S2, U), (S1, C)]
    r.say(S1, s.Mended(r.core.pt.version, p(0)))
    r.tick(1.0)
    r.say(S1, s.Ready(r.core.pt.version, p(0)))
    r.tick(0.1)
    assert states(r, 0) == [(S1, U), (S2, C)]


def test_what_nobody_can_decide_is_only_told() -> None:
    r = Reign(partitions=1).run()
    r.admin()
    found(r, S2, NO_NODE)
    assert states(r, 0) == [(S1, U), (S2, U)]
    (finding,) = r.ask(A1, s.AskScrub(False)).findings
    assert not finding.is_rebuilt


def test_scrub_is_begun_everywhere() -> None:
    r = Reign(partitions=1).run()
    r.admin()
    r.ask(A1, s.AskScrub(True))
    assert r.to(S1, s.Scrub)
    assert r.to(S2, s.Scrub)
    r.say(S1, s.ScrubState(1, 1, 5, 6, False))
    (told,) = r.ask(A1, s.AskScrub(False)).storages
    assert told.finished == r.wall
