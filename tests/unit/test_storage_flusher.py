"""When and where the vote log is flushed, on a hub of its own."""

from collections.abc import Callable, Iterator
from functools import partial
from time import perf_counter

import gevent
import pytest
from gevent.event import Event

from neo_storage.flusher import Flusher
from neo_storage.native import Worker
from neo_storage.vote_log import VoteLog
from support.log_scripts import open_log, record
from support.lossy_files import LossyFiles

LAZY_S = 0.005


class Rig:
    """A log with a flusher; `durable` is what it was told."""

    def __init__(self, lazy_s: float = LAZY_S) -> None:
        self.files = LossyFiles()
        self.log: VoteLog = open_log(self.files, 1 << 16)[0]
        self.durable: list[int] = []
        self.failures: list[str] = []
        self.full: list[str] = []
        self.changed = Event()
        hub = gevent.get_hub()

        def door(function: Callable[..., object], *args: object) -> None:
            hub.loop.run_callback_threadsafe(gevent.spawn_raw, function, *args)

        self.worker = Worker(door)
        self.flusher = Flusher(
            self.log,
            self.worker,
            lambda callback: gevent.spawn_raw(callback),
            self._note(self.durable),
            self._note(self.failures),
            self._note(self.full),
            lazy_s,
        )

    def _note(self, where: list[object] | list[int] | list[str]) -> Callable[[object], None]:
        def note(what: object) -> None:
            where.append(what)  # type: ignore[arg-type]  # each list gets what belongs there
            self.changed.set()

        return note

    def append(self, count: int, *, urgent: bool) -> None:
        for _ in range(count):
            position = self.log.end + 1
            self.log.append(position, record(position))
            self.flusher.appended(urgent=urgent)

    def is_durable(self, position: int) -> bool:
        return self.durable[-1:] == [position]

    def wait(self, done: Callable[[], bool]) -> None:
        with gevent.Timeout(10):
            while not done():
                self.changed.wait()
                self.changed.clear()


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.flusher.close()
    assert rig.worker.stop(10)
    rig.log.close()


def test_one_flush_for_all_of_an_iteration(rig: Rig) -> None:
    rig.append(5, urgent=True)
    assert rig.durable == [], "not before the others of this iteration had their chance"
    rig.wait(lambda: bool(rig.durable))
    assert rig.durable == [4]
    assert rig.flusher.count == 1


def test_lazy_records_are_flushed_in_time(rig: Rig) -> None:
    rig.append(3, urgent=False)
    rig.wait(lambda: bool(rig.durable))
    assert rig.durable == [2]


def test_lazy_records_wait_for_company_every_time(rig: Rig) -> None:
    for position in (0, 1, 2):
        began = perf_counter()
        rig.append(1, urgent=False)
        rig.wait(partial(rig.is_durable, position))
        assert perf_counter() - began >= 0.9 * LAZY_S, f"the flush of record {position} came at once"


def test_lazy_records_wait_as_long_after_a_flush_that_was_urgent(rig: Rig) -> None:
    rig.append(1, urgent=False)
    gevent.sleep(0.6 * LAZY_S)
    rig.append(1, urgent=True)
    rig.wait(lambda: rig.durable[-1:] == [1])
    began = perf_counter()
    rig.append(1, urgent=False)
    rig.wait(lambda: rig.durable[-1] == 2)
    assert perf_counter() - began >= 0.9 * LAZY_S


def test_urgent_flush_takes_the_lazy_ones_along(rig: Rig) -> None:
    rig.append(3, urgent=False)
    rig.append(1, urgent=True)
    rig.wait(lambda: bool(rig.durable))
    rig.append(1, urgent=True)
    rig.wait(lambda: rig.durable[-1] == 4)
    assert rig.flusher.count == 2


def test_slow_disk_is_flushed_on_the_thread_and_nothing_is_forgotten(rig: Rig) -> None:
    rig.flusher.mean_s = 1.0
    rig.append(1, urgent=True)
    gevent.sleep(0)  # the flush begins, on the thread
    rig.append(2, urgent=False)  # they come while it runs, or after it
    rig.wait(lambda: bool(rig.durable) and rig.durable[-1] == 2)
    assert rig.durable[0] in (0, 2)
    assert rig.flusher.mean_s < 1.0, "what the thread measures counts too"


def test_fast_disk_is_flushed_in_the_hub(rig: Rig) -> None:
    rig.flusher.mean_s = 0.0
    rig.append(1, urgent=True)
    rig.flusher.flush()
    assert rig.durable == [0], "at once, without a thread"


def test_disk_that_is_a_little_slow_is_flushed_in_the_hub_while_nobody_reads(rig: Rig) -> None:
    rig.flusher.mean_s = 0.005
    rig.append(1, urgent=True)
    rig.flusher.flush()
    assert rig.durable == [0], "at once, without a thread"
    rig.flusher.mean_s = 0.005
    rig.flusher.asked()
    rig.append(1, urgent=True)
    rig.flusher.flush()
    assert rig.durable == [0], "a thread does it: whoever reads need not wait"
    rig.wait(lambda: rig.durable[-1] == 1)


def test_failure_on_the_thread_is_told(rig: Rig) -> None:
    rig.flusher.mean_s = 1.0
    rig.files.failing.add("sync")
    rig.append(1, urgent=True)
    rig.wait(lambda: bool(rig.failures))
    assert "injected failure" in rig.failures[0]
    assert rig.durable == []
    rig.files.failing.clear()


def test_failure_in_the_hub_is_told(rig: Rig) -> None:
    rig.files.failing.add("sync")
    rig.log.append(0, record(0))
    rig.flusher.flush()
    assert "injected failure" in rig.failures[0]
    assert rig.durable == []


def test_spares_are_made_one_after_the_other_until_there_are_enough(rig: Rig) -> None:
    rig.append(1, urgent=True)
    rig.wait(lambda: bool(rig.durable))
    with gevent.Timeout(10):
        while rig.log.disk_bytes() < 2 << 16:
            gevent.sleep(0)
    rig.flusher.make_spares()
    with gevent.Timeout(10):
        while rig.log.disk_bytes() < 3 << 16:
            gevent.sleep(0)
    rig.flusher.make_spares()
    assert rig.log.spare_job() is None


def test_full_disk_is_told_when_a_spare_cannot_be_made(rig: Rig) -> None:
    rig.files.room = 0
    rig.flusher.make_spares()
    rig.wait(lambda: bool(rig.full))
    assert "No space left" in rig.full[0]
