"""Stories of the commit protocol, packet by packet. Each text file here is what happens; review it like code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from neo_common.core import Send
from neo_common.wire.schema import (
    CeilingsOk,
    Cluster,
    Commit,
    Finished,
    Fwd,
    Heard,
    MHello,
    Nodes,
    Renew,
    Renewed,
    SetCeilings,
    StorageState,
)
from neo_storage.core.events import Applied
from support.application import Application, Spec, Step
from support.choosing import Operator, kept_by
from support.simulation import Scenario, Simulation
from support.traces import lines
from support.world import Entry, Process

HERE = Path(__file__).parent
NOISE = (Renew, Renewed, Heard, Nodes, Cluster, MHello, SetCeilings, CeilingsOk, StorageState)
Story = Callable[[], Simulation]


def shape(*clients: tuple[Spec, ...], storages: int, replicas: int, partitions: int = 1, masters: int = 1) -> Scenario:
    return Scenario(partitions, storages, replicas, clients, oids=2 * partitions, masters=masters)


def told(
    scenario: Scenario, trouble: Callable[[Simulation], None] | None = None, *, together: bool = False
) -> Simulation:
    """Start a calm cluster, forget how that went, and run the scripts: one client after the other, or all at once."""
    simulation = Simulation(1, scenario, calm=True, codec_share=0.0)
    for client in simulation.clients:
        client.runs_away = False
    simulation.start()
    simulation.world.run(1.0)
    simulation.world.history.clear()
    if trouble is not None:
        trouble(simulation)
    for client, script in zip(simulation.clients, scenario.clients, strict=True):
        client.run_script(script)
        if not together:
            simulation.world.run(60.0, lambda client=client: client.step is Step.DONE)  # type: ignore[misc]
    simulation.world.run(60.0, lambda: all(c.step is Step.DONE for c in simulation.clients))
    simulation.world.run(0.05)
    shown = list(simulation.world.history)
    simulation.rest()
    simulation.world.history[:] = shown
    return simulation


def kill_when(simulation: Simulation, victim: str, sender: str, packet: type, *, before: bool = False) -> None:
    """Kill *victim* when *sender* is about to send, or has just sent, its first *packet*; it is back a second later."""
    done = False

    def watch(process: Process, effect: object) -> None:
        nonlocal done
        if not done and process.name == sender and isinstance(effect, Send) and isinstance(effect.packet, packet):
            done = True
            dying = simulation.world.processes[victim]
            dying.restart_delay_s = 1.0
            if before:
                dying.crash()
            else:
                dying.crash_countdown = 1

    simulation.world.observers.append(watch)


def uncontended_without_replica() -> Simulation:
    """One object, one storage: two round trips, one durable write."""
    return told(shape((Spec(writes=(0,)),), storages=1, replicas=0))


def uncontended_with_one_replica() -> Simulation:
    """One object, two cells: the lead passes the vote on, and answers when both are durable."""
    return told(shape((Spec(writes=(0,)),), storages=2, replicas=1))


def conflict_resolved() -> Simulation:
    """Two clients start from the same revision; the second one resolves, and votes again as the same attempt."""

    def both_read_first(simulation: Simulation) -> None:
        first, second = simulation.clients
        first.vote_not_before = simulation.world.now + 0.05
        second.vote_not_before = simulation.world.now + 0.1

    return told(
        shape((Spec(writes=(0,)),), (Spec(writes=(0,), resolve=True),), storages=1, replicas=0),
        both_read_first,
        together=True,
    )


def contended_pair() -> Simulation:
    """Two clients write the same two objects at once: each is Contended at one lead; in order, both commit."""
    pair = Spec(writes=(0, 1), resolve=True)

    def at_once(simulation: Simulation) -> None:
        for client in simulation.clients:
            client.vote_not_before = simulation.world.now + 0.05

    return told(shape((pair,), (pair,), storages=2, replicas=0, partitions=2), at_once, together=True)


def primary_lost_between_finish_and_answer() -> Simulation:
    """The primary dies before it sends anything of its decision; the next one finds it fully voted: committed."""

    def trouble(simulation: Simulation) -> None:
        kill_when(simulation, "M1", "M1", Commit, before=True)

    return told(shape((Spec(writes=(0,)),), storages=1, replicas=0), trouble)


def primary_lost_after_commit() -> Simulation:
    """The primary dies when the storage has been told and the client has not: recovery keeps the tid."""

    def trouble(simulation: Simulation) -> None:
        kill_when(simulation, "M1", "M1", Finished, before=True)

    return told(shape((Spec(writes=(0,)),), storages=1, replicas=0), trouble)


def storage_lost_in_vote() -> Simulation:
    """The replica dies when the lead passes a vote on: the table changes without it, then the lead answers."""

    def trouble(simulation: Simulation) -> None:
        lead = simulation.primary_table().lead(simulation.primary_table().partition(0))  # type: ignore[arg-type]
        names = {s.node: s.name for s in simulation.storages}
        other = next(name for node, name in names.items() if node != lead)
        assert lead is not None
        kill_when(simulation, other, names[lead], Fwd)

    return told(shape((Spec(writes=(0,)),), storages=2, replicas=1), trouble)


def operator_goes_on_with_a_storage_that_was_behind() -> Simulation:
    """S1 was away, S2 went on and is gone: S1's table is chosen. S2 comes back, and is let in to be made equal."""
    scenario = shape((Spec(writes=(0,)),), storages=2, replicas=1)
    simulation = told(scenario)
    world, (first, second), client = simulation.world, simulation.storages, simulation.clients[0]
    (master,) = simulation.masters
    first.crash()
    world.run(5.0)
    client.run_script(scenario.clients[0])
    world.run(60.0, lambda: client.step is Step.DONE)
    second.crash()
    first.start()
    master.crash()
    world.run(1.0)
    simulation.oracle.give_up(kept_by(simulation, first), first.core.image.voted)
    master.start()
    world.run(6.0)
    world.history.clear()
    operator = Operator(simulation, first)
    assert operator.run(30.0)
    client.run_script(scenario.clients[0])
    world.run(60.0, lambda: client.step is Step.DONE)
    second.start()
    world.run(3.0)
    assert operator.readmit(second.node, 30.0)
    world.run(30.0, lambda: second.node in simulation.primary_table().readable_nodes())
    shown = list(world.history)
    simulation.rest()
    world.history[:] = shown
    return simulation


STORIES: dict[str, Story] = {
    f.__name__: f
    for f in (
        uncontended_without_replica,
        uncontended_with_one_replica,
        conflict_resolved,
        contended_pair,
        primary_lost_between_finish_and_answer,
        primary_lost_after_commit,
        storage_lost_in_vote,
        operator_goes_on_with_a_storage_that_was_behind,
    )
}


def shown(entry: Entry) -> bool:
    """Whether a line belongs into a transcript."""
    match entry.what, entry.detail:
        case "sends", (_, packet):
            return not isinstance(packet, NOISE)
        case "says" | "appends", _:
            return False
        case "event", Applied():
            return False
    return True


@pytest.mark.parametrize("name", sorted(STORIES))
def test_story(name: str, request: pytest.FixtureRequest) -> None:
    simulation = STORIES[name]()
    entries = [e for e in simulation.world.history if shown(e)]
    text = f"# {STORIES[name].__doc__}\n\n" + "\n".join(lines(simulation.world, entries, times=False)) + "\n"
    path = HERE / f"{name}.txt"
    if request.config.getoption("--regenerate", default=False):
        path.write_text(text, encoding="utf-8")
    assert path.exists(), "pytest tests/transcripts --regenerate"
    assert text == path.read_text(encoding="utf-8"), "pytest tests/transcripts --regenerate, then read the difference"
    assert all(isinstance(c, Application) and c.step is Step.DONE for c in simulation.clients)
