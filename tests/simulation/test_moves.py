"""An operator changes where cells are, at any moment, under faults. And bugs planted there are noticed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from neo_common.ids import NodeId
from neo_common.model import moving
from neo_common.model.partition_table import Cell, Row
from neo_common.states import CellState
from neo_master.core.moves import Moves
from neo_storage.core import image as images
from neo_storage.core.tables import Tables
from neo_storage.core.upkeep import Upkeep
from support.scenarios import SCENARIOS
from support.simulation import Simulation
from support.soak import attempt

SHAPES = ("grow", "rebuild")
HUNT = range(150)


@pytest.mark.parametrize("name", SHAPES)
def test_orders_are_carried_out_under_faults(name: str) -> None:
    """The scenarios themselves are among those of test_clusters; here there are more orders than faults."""
    ended = 0
    for seed in range(20, 40):
        simulation = Simulation(seed, SCENARIOS[name], packs=False)
        simulation.go(5, ("change", "change", "drop", "crash", "cut"))
        ended += simulation.ordered
    assert ended > 2, "hardly any order was carried out"


def hasty(row: Row, wanted: Sequence[NodeId], allowed: Sequence[NodeId]) -> Row:
    """Drop what shall go before what shall stay is complete."""
    new = moving_stepped(row, wanted, allowed)
    return tuple(c for c in new if c.node in wanted or c.state != CellState.FEEDING)


def unready(row: Row, wanted: Sequence[NodeId], allowed: Sequence[NodeId]) -> Row:
    """Take a cell that has just begun for complete."""
    new = moving_stepped(row, wanted, allowed)
    if any(s == CellState.OUT_OF_DATE and n in wanted for n, s in new):
        return new
    return tuple(Cell(n, s) for n, s in new if n in wanted)


moving_stepped = moving.stepped


def keep_votes(image: images.Image, update: object) -> None:
    """Keep the votes of a cell that is dropped."""


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("of", "name", "replacement"),
    [
        pytest.param(moving, "stepped", hasty, id="dropped before complete"),
        pytest.param(moving, "stepped", unready, id="dropped while joining"),
        pytest.param(images.Image, "_leave", keep_votes, id="votes of a dropped cell kept"),
        pytest.param(Upkeep, "erase", lambda _: None, id="what is dropped is never erased"),
        pytest.param(Moves, "next_step", lambda core: None, id="nothing ever moves"),
        pytest.param(Tables, "begin_join", lambda *_: None, id="new cells never join"),
    ],
)
def test_a_planted_bug_is_noticed(
    monkeypatch: pytest.MonkeyPatch, of: object, name: str, replacement: Callable[..., object]
) -> None:
    monkeypatch.setattr(of, name, replacement)
    for seed in HUNT:
        for shape in SHAPES:
            _, error = attempt(shape, seed, 6)
            if error is not None:
                return
    pytest.fail("no run has noticed it")
