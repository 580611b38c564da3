"""Spinning goes on while it helps, and ends by itself where it does not."""

import socket
import time

import pytest

from neo_client import drivers
from neo_client.drivers import _SPIN_TRY, SPIN_S, Spin, _Poller


def test_spinning_finds_what_is_there() -> None:
    here, there = socket.socketpair()
    poller, spin = _Poller(), Spin()
    poller.register(here.fileno(), False)
    there.send(b"answer")
    assert spin.poll(poller) == [here.fileno()]
    assert spin.is_worth_it()
    poller.close()
    here.close()
    there.close()


def test_spinning_that_never_helps_is_tried_rarely() -> None:
    here, there = socket.socketpair()
    poller, spin = _Poller(), Spin()
    poller.register(here.fileno(), False)
    tries = 0
    for _ in range(10 * _SPIN_TRY):
        if spin.is_worth_it():
            assert spin.poll(poller) == []
            tries += 1
    assert 10 <= tries < _SPIN_TRY, "it must have given up after some, and look again now and then"
    poller.close()
    here.close()
    there.close()


def test_spinning_ends_where_others_want_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is there, but who gave way for it came back late."""
    here, there = socket.socketpair()
    poller, spin = _Poller(), Spin()
    poller.register(here.fileno(), False)

    def give_way() -> None:
        time.sleep(2 * SPIN_S)
        there.send(b"answer")

    monkeypatch.setattr(drivers, "_give_way", give_way)
    tries = 0
    while spin.is_worth_it() and tries < 100:
        assert spin.poll(poller) == [here.fileno()]
        here.recv(100)
        tries += 1
    assert tries < 50
    poller.close()
    here.close()
    there.close()
