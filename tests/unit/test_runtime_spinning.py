"""A daemon looks for the next packet before it sleeps, while that helps. Time passes only while it gives way."""

from collections.abc import Iterator

import gevent
import pytest

from neo_common.runtime import spinning
from neo_common.runtime.spinning import SPIN_S, TRY, Spinning


class Time:
    """A clock, and how often the processor was given away; each time it stands for `step`."""

    def __init__(self) -> None:
        self.now = 100.0
        self.step = SPIN_S / 10
        self.looks = 0

    def give_way(self) -> None:
        self.looks += 1
        self.now += self.step


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    clock = Time()
    monkeypatch.setattr(spinning, "monotonic", lambda: clock.now)
    monkeypatch.setattr(spinning, "_give_way", clock.give_way)
    return clock


@pytest.fixture
def spin(clock: Time) -> Iterator[Spinning]:
    spin = Spinning()
    yield spin
    spin.close()


def rest(clock: Time) -> int:
    """Let the loop run until it would sleep; return how often it has looked."""
    before = clock.looks
    while True:
        seen = clock.looks
        for _ in range(3):
            gevent.sleep(0.0001)
        if clock.looks == seen:
            return seen - before


def test_it_looks_for_a_moment_and_then_sleeps(spin: Spinning, clock: Time) -> None:
    spin.touched()
    assert 10 <= rest(clock) <= 11
    assert rest(clock) == 0


def test_time_counts_from_the_end_of_the_work(spin: Spinning, clock: Time) -> None:
    spin.touched()
    clock.now += 10 * SPIN_S
    assert rest(clock) >= 10


def test_where_nothing_ever_comes_it_is_tried_rarely(spin: Spinning, clock: Time) -> None:
    tries = 0
    for _ in range(4 * TRY):
        spin.touched()
        tries += rest(clock) > 0
    assert 4 <= tries < TRY


def test_it_goes_on_while_packets_come_in_time(spin: Spinning, clock: Time) -> None:
    for _ in range(4 * TRY):
        spin.touched()
        gevent.sleep(0)
    rest(clock)
    spin.touched()
    assert rest(clock) >= 10


def test_it_ends_where_others_want_the_processor(spin: Spinning, clock: Time) -> None:
    clock.step = 3 * SPIN_S
    tries = 0
    for _ in range(TRY // 2):
        spin.touched()
        tries += rest(clock) > 0
    assert tries == 1
