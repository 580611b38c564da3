"""The simulator itself, with small cores: the rules that every shell keeps, and one seed, one history."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from neo_common.core import Connected, Lost, Received, Send, Tick
from neo_common.ids import Epoch, Instant, NodeId
from neo_common.states import Role, node_id
from neo_common.wire.schema import Ping, Renew
from support.world import Process, Temper, World, draw_temper

S1, S2, S3 = (node_id(Role.STORAGE, n) for n in (1, 2, 3))


class Counter:
    """Sends growing numbers to each peer at each tick, and keeps what it is told."""

    def __init__(self) -> None:
        self.peers: set[NodeId] = set()
        self.sent = 0
        self.told: list[object] = []

    def handle(self, event: object, now: Instant) -> Sequence[object]:
        match event:
            case Connected(peer, _):
                self.peers.add(peer)
            case Lost(peer, _):
                self.peers.discard(peer)
            case Tick():
                effects = []
                for peer in sorted(self.peers):
                    for _ in range(5):
                        self.sent += 1
                        effects.append(Send(peer, Renew(Epoch(1), self.sent)))
                return effects
        if not isinstance(event, Tick):
            self.told.append(event)
        return []


class Toy(Process):
    """A process that dials everybody above it."""

    role = Role.STORAGE

    def make_core(self) -> Counter:
        core = Counter()
        self.cores: list[Counter] = [*getattr(self, "cores", []), core]
        return core

    def after_events(self) -> None:
        for _, other in sorted(self.world.processes.items()):
            if other.node > self.node:
                self.dial(other)

    def dial_failed(self, target: Process, refusal: object) -> None:
        self.after_events()


def toys(seed: int, temper: Temper | None = None, codec_share: float = 0.0) -> World:
    world = World(seed, temper=temper, codec_share=codec_share)
    for name, node in (("S1", S1), ("S2", S2), ("S3", S3)):
        Toy(world, name, node).start()
    return world


def trouble(world: World) -> None:
    """Cut, crash and stall at random moments for ten seconds."""
    names = sorted(world.processes)
    for _ in range(40):
        world.run(0.25)
        rng = world.rng
        process = world.processes[rng.choice(names)]
        what = rng.choice(("cut", "crash", "stall", "block", "count"))
        if what == "cut" and process.all_connections():
            connection = rng.choice(process.all_connections())
            connection.cut("cut", (rng.random(), rng.random()), (rng.random(), rng.random()))
        elif what == "crash" and process.alive:
            process.restart_delay_s = 0.3
            process.crash()
        elif what == "count" and process.alive:
            process.restart_delay_s = 0.3
            process.crash_countdown = rng.randint(1, 7)
        elif what == "stall" and process.alive:
            process.stall(0.6)
        elif what == "block":
            world.block(process.name, rng.choice(names))
        if rng.random() < 0.3:
            world.unblock_all()
    world.unblock_all()
    world.run(5)


@pytest.mark.parametrize("seed", range(30))
def test_what_a_core_is_told_keeps_the_rules_of_shells(seed: int) -> None:
    """Connected and Lost alternate for each peer, packets come in order without gap within a connection."""
    world = toys(seed, draw_temper(World(seed).rng, ("S1", "S2", "S3")))
    trouble(world)
    received = 0
    for process in world.processes.values():
        assert isinstance(process, Toy)
        for core in process.cores:
            last: dict[NodeId, int | None] = {}
            for event in core.told:
                match event:
                    case Connected(peer, _):
                        assert peer not in last, f"seed={seed}: {process} connected twice to {peer:x}"
                        last[peer] = None
                    case Lost(peer, _):
                        assert peer in last, f"seed={seed}: {process} lost {peer:x} that it has not"
                        del last[peer]
                    case Received(peer, Renew(_, number), 0):
                        received += 1
                        assert peer in last, f"seed={seed}: {process} hears {peer:x} after Lost"
                        before = last[peer]
                        assert before is None or number > before, f"seed={seed}: {number} after {before}"
                        last[peer] = number
    assert received > 200


def test_one_seed_has_one_history() -> None:
    def history() -> list[str]:
        world = toys(7, draw_temper(World(7).rng, ("S1", "S2", "S3")))
        trouble(world)
        return [repr(e) for e in world.history]

    first = history()
    assert first == history()
    assert len(first) > 500


def test_everybody_is_connected_again_when_faults_stop() -> None:
    world = toys(3)
    trouble(world)
    for process in world.processes.values():
        if not process.alive:
            process.start()
    world.run(5)
    assert {name: sorted(p.connections) for name, p in world.processes.items()} == {
        "S1": [S2, S3],
        "S2": [S1, S3],
        "S3": [S1, S2],
    }


def test_a_broken_connection_delivers_a_prefix_of_what_was_in_flight() -> None:
    world = toys(1)
    world.run(2)
    first, second = world.processes["S1"], world.processes["S2"]
    assert isinstance(second, Toy)
    connection = next(c for c in first.all_connections() if c.other(first) is second)
    told = second.cores[-1].told
    told.clear()
    for number in range(10):
        first.send(S2, Renew(Epoch(9), number))
    connection.cut("cut", (0.5, 0.0), (0.1, 0.1))
    first.send(S2, Renew(Epoch(9), 99))
    world.run(0.04)
    assert [e.packet.number for e in told if isinstance(e, Received) and e.packet.epoch == 9] == [0, 1, 2, 3, 4]  # type: ignore[attr-defined]
    assert not any(isinstance(e, Lost) and e.peer == S1 for e in told)
    world.run(0.1)
    assert any(isinstance(e, Lost) and e.peer == S1 for e in told)


def test_packets_become_bytes_in_some_runs() -> None:
    world = toys(1, codec_share=1.0)
    assert world.through_the_wire(Ping(), 0) == Ping()
    assert world.through_the_wire(Ping(), 0) is not Ping()
    world.run(1)
    assert isinstance(world.processes["S1"], Toy)
    assert any(isinstance(e, Received) for e in world.processes["S1"].cores[-1].told)
