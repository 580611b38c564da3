"""Truncation under crashes at any moment: every storage has the whole history, or every one has it up to the cut."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from neo_common.ids import NO_TID, Tid
from neo_common.states import CellState
from neo_common.wire.schema import AnswerTruncate, AskTruncate
from neo_master.core.truncation import Truncation
from neo_storage.core.tables import Tables
from support import faults
from support.scenarios import SCENARIOS
from support.simulation import Simulation
from support.storing import Storing

KINDS = ("crash", "count", "power", "blackout", "cut", "split", "depose")


def held(storage: Storing) -> set[Tid]:
    """Return the tids of all that a storage has in its cells."""
    parts = storage.core.image.table.partitions_of(storage.node)
    state = storage.disk.backend.state
    return {tid for p in parts for tid in state.transactions.get(p, {})}


def quiet(simulation: Simulation) -> bool:
    """Whether one primary runs, and every storage has its table, applied."""
    running = simulation.primaries()
    if len(running) != 1 or running[0].core.pt_need is not None or running[0].core.changes:
        return False
    table = running[0].core.pt
    return all(state is CellState.UP_TO_DATE for row in table.rows for _, state in row) and all(
        s.alive and s.core.image.table.version == table.version and s.core.ground.applied >= s.core.ground.last_op
        for s in simulation.storages
    )


def run(name: str, seed: int, fault_count: int) -> bool:
    """Truncate in the middle of what was committed, under faults; return whether it has come to that."""
    simulation = Simulation(seed, SCENARIOS[name], packs=False, pieces=False, early=False)
    world = simulation.world
    simulation.start()
    simulation.begin_scripts()
    simulation.rest()
    world.observers.remove(simulation._observe)  # what is truncated is lost, as it shall be
    assert world.run(60.0, lambda: quiet(simulation))  # the last commits may be in logs only
    everything = sorted(set().union(*map(held, simulation.storages)))
    cut = everything[(len(everything) - 1) // 2] if len(everything) > 1 else Tid(everything[0] - 1)
    (primary,) = simulation.primaries()
    answer = primary.order(AskTruncate(cut, "test"), 1)
    assert isinstance(answer, AnswerTruncate), answer
    faults.happen(simulation, fault_count, KINDS)
    world.unblock_all()
    for process in (*simulation.masters, *simulation.storages):
        process.crash_countdown = None
        if not process.alive:
            process.start()
        process.resume(process.incarnation)
    assert world.run(240.0, simulation._polled(lambda: quiet(simulation))), f"seed {seed} does not come to rest"
    (primary,) = simulation.primaries()
    is_cut = primary.core.pt.orders.cut == cut
    expected = {tid for tid in everything if tid <= cut} if is_cut else set(everything)
    assert set().union(*map(held, simulation.storages)) == expected, f"seed {seed}"
    for p, row in enumerate(primary.core.pt.rows):
        copies = [s.disk.backend.state.cells.get(p, {}) for s in simulation.storages if s.node in dict(row)]  # type: ignore[call-overload]  # p is a Partition
        assert all(copy == copies[0] for copy in copies), f"seed {seed}: the copies of {p} differ"
    assert primary.core.tid_floor >= everything[-1], "no tid is ever given again"
    settled = {d.tid for d in primary.core.holding.above(NO_TID)}
    assert settled <= expected, f"seed {seed}: masters hold what was cut off"
    return is_cut


@pytest.mark.parametrize("name", ["pair_1rep", "crowd"])
def test_all_or_nothing(name: str) -> None:
    done = [run(name, seed, 1 + seed % 4) for seed in range(12)]
    assert any(done)


def test_without_faults_it_is_done() -> None:
    assert all(run("pair_1rep", seed, 0) for seed in range(4))


def test_without_any_storage_told_it_is_not_done() -> None:
    """Among many runs the order is lost in some, with the primary: then nothing was cut anywhere."""
    assert not all(run("pair_0rep", seed, 4) for seed in range(100, 160))


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("of", "method", "replacement"),
    [
        (Tables, "is_cut", lambda *_: False),
        (Truncation, "orders_of", lambda _, orders, version: orders),
        (Truncation, "trim_replies", lambda *_: None),
    ],
)
def test_a_planted_bug_is_noticed(
    monkeypatch: pytest.MonkeyPatch, of: type, method: str, replacement: Callable[..., object]
) -> None:
    monkeypatch.setattr(of, method, replacement)
    with pytest.raises(AssertionError):
        hunt()


def hunt() -> None:
    """Truncate until something is wrong."""
    assert all(run("pair_1rep", seed, 0) for seed in range(4))
    for seed in range(40):
        run("crowd", seed, 1 + seed % 4)
