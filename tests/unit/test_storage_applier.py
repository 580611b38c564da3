"""The applier's rules, on a back end of dictionaries that fails when told to."""

import threading
from collections.abc import Callable, Iterator, Sequence

import pytest

from neo_common.errors import BackendError, DataCorrupted, DiskFull
from neo_common.ids import Oid, Partition, Tid
from neo_storage.applier import Applier, ApplierSettings
from neo_storage.backends.base import ApplyClear, ApplyCollect, ApplyDoom, ApplyTable, Op, PackStep
from neo_storage.core.events import EraseCells, PackCells
from support.backend_contract import P0, P1, T1, T2, TABLE, commit, write
from support.memory_backend import MemoryBackend


class Backend(MemoryBackend):
    """Notes what it is asked for, and fails with `error` while there is one."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[tuple[int, int]] = []
        self.checkpoints = 0
        self.slices: list[tuple[Partition, int]] = []
        self.error: BackendError | None = None
        self.gate = threading.Event()
        self.gate.set()

    def apply(self, ops: Sequence[Op], position: int) -> None:
        assert self.gate.wait(10)
        if self.error is not None:
            raise self.error
        super().apply(ops, position)
        self.batches.append((position, len(ops)))

    def checkpoint(self) -> int:
        self.checkpoints += 1
        return super().checkpoint()

    def erase_step(self, partition: Partition, limit: int) -> bool:
        self.slices.append((partition, limit))
        return super().erase_step(partition, 1)

    def pack_step(self, partition: Partition, tid: Tid, limit: int) -> PackStep:
        self.slices.append((partition, limit))
        return super().pack_step(partition, tid, 1)


class Heard:
    """Who is told; `wait` for what was said."""

    def __init__(self) -> None:
        self.said: list[tuple[object, ...]] = []
        self._changed = threading.Condition()

    def _note(self, *what: object) -> None:
        with self._changed:
            self.said.append(what)
            self._changed.notify_all()

    def applied(self, position: int) -> None:
        self._note("applied", position)

    def checkpointed(self, position: int) -> None:
        self._note("checkpointed", position)

    def packed(self, order: int, partition: Partition, revisions: int, size: int) -> None:
        self._note("packed", order, partition, revisions, size)

    def erased(self, partition: Partition) -> None:
        self._note("erased", partition)

    def no_room(self, text: str) -> None:
        self._note("no room", text)

    def room(self) -> None:
        self._note("room")

    def lost(self, text: str) -> None:
        self._note("lost", text)

    def found(self) -> None:
        self._note("found")

    def failed(self, text: str) -> None:
        self._note("failed", text)

    def wait(self, *what: object) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: what in [s[: len(what)] for s in self.said], 10), self.said


Make = Callable[[ApplierSettings], Applier]
LONG = ApplierSettings(linger_s=60.0, checkpoint_s=60.0)


@pytest.fixture
def backend() -> Backend:
    backend = Backend()
    backend.open()
    return backend


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def make(backend: Backend, heard: Heard) -> Iterator[Make]:
    made: list[Applier] = []

    def make(settings: ApplierSettings) -> Applier:
        made.append(Applier(backend, heard, settings))
        made[-1].start()
        return made[-1]

    yield make
    backend.error = None
    backend.gate.set()
    for applier in made:
        applier.stop()
        assert applier.wait(10)


def test_what_comes_together_is_one_batch(make: Make, backend: Backend, heard: Heard) -> None:
    applier = make(LONG)
    for position in range(10):
        applier.put(position, [commit(Tid(T1 + position), write(0, b"x"))])
    applier.hurry()
    heard.wait("applied", 9)
    assert backend.batches == [(9, 10)]
    assert backend.current(P0, Oid(0)) == T1 + 9


def test_batch_is_written_when_nobody_hurries_too(make: Make, heard: Heard) -> None:
    applier = make(ApplierSettings(linger_s=0.001, checkpoint_s=60.0))
    applier.put(3, [commit(T1, write(0, b"x"))])
    heard.wait("applied", 3)


def test_batch_is_bounded_in_bytes(make: Make, backend: Backend, heard: Heard) -> None:
    applier = make(LONG._replace(batch_bytes=10_000))
    backend.gate.clear()
    for position in range(10):
        applier.put(position, [commit(Tid(T1 + position), write(0, bytes(4000)))])
    backend.gate.set()
    applier.hurry()
    heard.wait("applied", 8)
    assert max(count for _, count in backend.batches) == 3


def test_checkpoint_comes_by_bytes(make: Make, backend: Backend, heard: Heard) -> None:
    applier = make(LONG._replace(checkpoint_bytes=5000))
    applier.put(0, [commit(T1, write(0, b"small"))])
    applier.hurry()
    heard.wait("applied", 0)
    assert backend.checkpoints == 0
    applier.put(1, [commit(T2, write(0, bytes(6000)))])
    applier.hurry()
    heard.wait("checkpointed", 1)


def test_checkpoint_comes_by_time(make: Make, heard: Heard) -> None:
    applier = make(ApplierSettings(linger_s=0.001, checkpoint_s=0.05))
    applier.put(0, [commit(T1, write(0, b"small"))])
    heard.wait("checkpointed", 0)


def test_stop_writes_and_makes_durable_what_there_is(make: Make, backend: Backend, heard: Heard) -> None:
    applier = make(LONG)
    applier.put(0, [commit(T1, write(0, b"x"))])
    applier.stop()
    assert applier.wait(10)
    assert heard.said == [("applied", 0), ("checkpointed", 0)]
    assert backend.batches == [(0, 1)]


def test_full_disk_is_tried_again_and_loses_nothing(make: Make, backend: Backend, heard: Heard) -> None:
    applier = make(LONG)
    backend.error = DiskFull("no room")
    applier.put(0, [commit(T1, write(0, b"x"))])
    applier.hurry()
    heard.wait("no room")
    applier.put(1, [commit(T2, write(0, b"y"))])
    backend.error = None
    heard.wait("applied", 1)
    heard.wait("room")
    assert backend.batches == [(1, 2)]
    assert [s[0] for s in heard.said].count("no room") == 1


def test_stop_with_a_full_disk_leaves_it_to_the_log(make: Make, backend: Backend, heard: Heard) -> None:
    applier = make(LONG)
    backend.error = DiskFull("no room")
    applier.put(0, [commit(T1, write(0, b"x"))])
    applier.hurry()
    heard.wait("no room")
    applier.stop()
    assert applier.wait(10)
    assert ("applied", 0) not in heard.said


@pytest.mark.parametrize("error", [BackendError("broken"), DataCorrupted("rotten")])
def test_other_errors_are_fatal_and_not_tried_again(
    make: Make, backend: Backend, heard: Heard, error: BackendError
) -> None:
    applier = make(LONG)
    backend.error = error
    applier.put(0, [commit(T1, write(0, b"x"))])
    applier.hurry()
    heard.wait("failed", f"the database has failed: {error}")
    backend.error = None
    assert applier.wait(10)
    assert backend.batches == []


def test_pack_goes_on_between_batches(make: Make, backend: Backend, heard: Heard) -> None:
    applier = make(LONG)
    ops: list[Op] = [ApplyTable(TABLE)]
    ops += [commit(t, *(write(n, b"v") for n in range(10))) for t in (T1, T2)]
    applier.put(0, ops)
    applier.pack(PackCells(7, T2, (P0, P1)))
    applier.hurry()
    applier.put(1, [commit(Tid(T2 + 1), write(100, b"new"))])
    heard.wait("packed", 7, P1)
    heard.wait("applied", 1)
    packed = [s for s in heard.said if s[0] == "packed"]
    assert packed == [("packed", 7, P0, 5, 5), ("packed", 7, P1, 5, 5)]
    assert len(backend.slices) >= 4


def test_removal_begins_a_batch(make: Make, backend: Backend, heard: Heard) -> None:
    """So that a back end can do it in slices before it marks where it is: what came before is marked already."""
    applier = make(LONG)
    backend.gate.clear()
    applier.put(0, [ApplyTable(TABLE)])
    applier.put(1, [commit(T1, write(0, b"a"), write(2, b"b"))])
    applier.put(2, [ApplyCollect(T1, (Oid(0),))])
    applier.put(3, [commit(T2, write(1, b"c"))])
    applier.put(4, [ApplyClear(P0, T1), ApplyDoom((P1,))])
    applier.put(5, ())
    applier.hurry()
    backend.gate.set()
    heard.wait("applied", 5)
    assert [position for position, _ in backend.batches][-3:] == [1, 3, 5]
    assert [count for _, count in backend.batches][-2:] == [2, 2]


def test_batches_before_a_removal_wait_with_it_for_room(make: Make, backend: Backend, heard: Heard) -> None:
    applier = make(LONG)
    backend.error = DiskFull("no room")
    applier.put(0, [commit(T1, write(0, b"a"))])
    applier.put(1, [ApplyClear(P0, T1)])
    applier.hurry()
    heard.wait("no room")
    applier.put(2, [commit(T2, write(0, b"b", T1))])
    backend.error = None
    heard.wait("applied", 2)
    assert backend.batches == [(0, 1), (2, 2)]


def test_newer_pack_order_replaces_the_older(make: Make, backend: Backend, heard: Heard) -> None:
    applier = make(LONG)
    backend.gate.clear()
    applier.put(0, [ApplyTable(TABLE), commit(T1, write(0, b"v")), commit(T2, write(0, b"v"))])
    applier.pack(PackCells(7, T1, (P0, P1)))
    applier.pack(PackCells(8, T2, (P0,)))
    applier.hurry()
    backend.gate.set()
    heard.wait("packed", 8, P0)
    assert [s[1] for s in heard.said if s[0] == "packed"] == [8]


def test_dropped_cells_are_erased_in_slices_between_batches(make: Make, backend: Backend, heard: Heard) -> None:
    applier = make(ApplierSettings(linger_s=0.0))
    applier.put(1, [ApplyTable(TABLE), *(commit(Tid(T1 + n), write(2 * n, b"x")) for n in range(5)), ApplyDoom((P0,))])
    applier.erase(EraseCells((P0, P1)))
    heard.wait("erased", P0)
    heard.wait("erased", P1)
    assert [p for p, _ in backend.slices] == [P0] * 6 + [P1]
    assert backend.current(P0, Oid(0)) == 0
