"""The nemesis's schedule: the same seed, the same faults; never two at once for one node; all of them over in time."""

import pytest

from support.nemesis.schedule import KINDS, Shape, schedule

SHAPES = [Shape(1, 1, 0), Shape(1, 3, 1), Shape(3, 4, 2), Shape(1, 3, 1, ("mariadb", "postgresql"))]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_seed_gives_its_faults_again(shape: Shape) -> None:
    runs = [schedule(shape, seed, 30, ("c1", "c2")) for seed in (1, 1, 2)]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_no_node_suffers_two_faults_at_once(shape: Shape) -> None:
    for seed in range(200):
        until: dict[str, float] = {}
        for fault in schedule(shape, seed, 30, ("c1", "c2")):
            everything = fault.kind in ("kill-all", "power", "isolate")
            for name in shape.names if everything else fault.targets:
                assert until.get(name, 0.0) <= fault.at, f"seed {seed}: {fault}"
                until[name] = fault.at + fault.seconds


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_kind_of_fault_happens_and_ends(shape: Shape) -> None:
    faults = [fault for seed in range(200) for fault in schedule(shape, seed, 30, ("c1", "c2"))]
    never = {"drain"} if shape.storages == shape.replicas + 1 else set()
    never |= set() if shape.servers else {"server"}
    assert {fault.kind for fault in faults} == set(KINDS) - never
    assert all(0 < fault.at < 30 and fault.at + fault.seconds <= 30.2 + 0.001 for fault in faults)
    some = schedule(shape, 7, 30, ("c1",), ("kill", "pause"))
    assert {fault.kind for fault in some} == {"kill", "pause"}
