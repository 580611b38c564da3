"""The real cores and the executable model, given the same scripts, come to the same outcomes."""

from __future__ import annotations

from functools import cache

import pytest

from model import explore
from model.oracle import Oracle as ModelOracle
from model.scenarios import SCENARIOS as MODEL
from model.world import World as ModelWorld
from support.scenarios import SCENARIOS
from support.simulation import Simulation

Outcomes = tuple[tuple[str, ...], ...]

MODEL_RUNS = 60
OUR_RUNS = 6
SMALL = ["tiny", "pair_0rep", "pair_1rep", "one_1rep", "read_1rep", "current", "abort_C", "abort_A", "causal", "mixed"]


@cache
def of_model(name: str) -> frozenset[Outcomes]:
    """Return how the transactions that write have ended, by client, in runs of the model without faults."""
    start = ModelWorld(MODEL[name])  # type: ignore[no-untyped-call]  # the model has no types
    found = set()
    for seed in range(MODEL_RUNS):
        world = start.copy()  # type: ignore[no-untyped-call]
        ended: dict[str, list[str]] = {c: [] for c in world.nodes if c.startswith("C")}
        world.g.__class__ = _recording(ended)
        trace: list[object] = []
        _walk(world, seed, trace)
        found.add(tuple(tuple(ended[c]) for c in sorted(ended)))
    return frozenset(found)


def _recording(ended: dict[str, list[str]]) -> type:
    class Recording(ModelOracle):
        def outcome(self, c, what):  # type: ignore[no-untyped-def]
            super().outcome(c, what)  # type: ignore[no-untyped-call]
            if what != "read":
                ended[c.name].append(what)

    return Recording


def _walk(world: ModelWorld, seed: int, trace: list[object]) -> None:
    class Start:
        def copy(self) -> ModelWorld:
            return world

    explore.walk(Start(), seed, 400, 0, trace)  # type: ignore[no-untyped-call]


def of_ours(name: str, seed: int) -> Outcomes:
    """Return the same of a run of the real cores."""
    simulation = Simulation(seed, SCENARIOS[name])
    for client in simulation.clients:
        client.runs_away = False
    simulation.go()
    meaning = {"committed": "committed", "aborted": "failed"}
    ended = []
    for client, script in zip(simulation.clients, SCENARIOS[name].clients, strict=True):
        own = client.outcomes[-len(script) :]
        ended.append(tuple(meaning[o] for o in own if o != "read"))
    return tuple(ended)


@pytest.mark.parametrize("name", SMALL)
def test_outcomes_are_among_those_of_the_model(name: str) -> None:
    possible = of_model(name)
    for seed in range(OUR_RUNS):
        assert of_ours(name, seed) in possible, f"seed={seed}"


def test_both_resolved_conflicts_and_lost_ones_occur() -> None:
    """The comparison above would hold of a cluster that refuses everything: it must not be so."""
    found = {of_ours("abort_C", seed) for seed in range(12)}
    assert len(found) > 1
    assert any("committed" in o for outcomes in found for o in outcomes)
