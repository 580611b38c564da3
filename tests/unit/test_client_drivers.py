"""Waiting in threads: what is completed when nobody waits for it any more harms nobody."""

import threading
from collections.abc import Iterator
from time import monotonic

import pytest

from neo_client.drivers import Parked, ThreadDriver

WAIT_S = 20.0


class Idle:
    """A shell that has nothing to do."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.has_names = False

    def ready(self, fds: list[int]) -> None:
        """The socket that wakes the leader, at most: it is nobody's."""

    def tick(self) -> float:
        return monotonic() + WAIT_S

    def resolve_names(self) -> None:
        pass


@pytest.fixture
def work() -> Idle:
    return Idle()


@pytest.fixture
def driver(work: Idle) -> Iterator[ThreadDriver]:
    driver = ThreadDriver(work, "test")
    driver.start()
    yield driver
    driver.stop()


@pytest.fixture
def leader(driver: ThreadDriver, work: Idle) -> Iterator[Parked]:
    """What another thread waits for, leading: whoever waits beside it follows."""
    parked, began = Parked(), threading.Event()

    def lead() -> None:
        began.set()
        driver.wait(parked, monotonic() + WAIT_S)

    thread = threading.Thread(target=lead)
    thread.start()
    assert began.wait(WAIT_S)
    while driver._leader is not parked:
        with work.lock:
            driver.hurry()  # on a busy machine the janitor may lead by now: it lets go
        assert not driver.wait(Parked(), monotonic())
    yield parked
    with work.lock:
        driver.complete(parked)
    thread.join(WAIT_S)
    assert not thread.is_alive()


def test_follower_is_told(driver: ThreadDriver, work: Idle, leader: Parked) -> None:
    parked = Parked()

    def complete() -> None:
        with work.lock:
            driver.complete(parked)

    timer = threading.Timer(0.01, complete)
    timer.start()
    assert driver.wait(parked, monotonic() + WAIT_S)
    timer.join()


def test_follower_that_has_given_up_can_be_completed(driver: ThreadDriver, work: Idle, leader: Parked) -> None:
    parked = Parked()
    assert not driver.wait(parked, monotonic() + 0.01)
    with work.lock:
        driver.complete(parked)
    assert driver.wait(parked, monotonic())


def test_follower_that_became_leader_and_has_given_up_can_be_completed(
    driver: ThreadDriver, work: Idle, leader: Parked
) -> None:
    parked = Parked()

    def end_of_the_leader() -> None:
        with work.lock:
            driver.complete(leader)

    timer = threading.Timer(0.01, end_of_the_leader)
    timer.start()
    assert not driver.wait(parked, monotonic() + 0.2)
    timer.join()
    with work.lock:
        driver.complete(parked)
    assert parked.is_done
