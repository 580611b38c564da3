"""Whoever waits for a silent server is woken by the end of its connection."""

import socket
from time import monotonic

from neo_storage.backends.postgresql.deadlines import Deadlines


def test_connection_that_waits_too_long_is_broken() -> None:
    ours, theirs = socket.socketpair()
    deadlines = Deadlines(0.1)
    with deadlines.of(ours.fileno()):
        assert ours.recv(1) == b"", "the server said nothing, and yet we do not wait for ever"
    assert theirs.recv(1) == b""
    deadlines.close()
    ours.close()
    theirs.close()


def test_connection_that_waits_for_nothing_is_left_alone() -> None:
    ours, theirs = socket.socketpair()
    other, its_peer = socket.socketpair()
    deadlines = Deadlines(0.1)
    with deadlines.of(ours.fileno()):
        pass
    with deadlines.of(other.fileno()):
        assert other.recv(1) == b""
    theirs.sendall(b"x")
    assert ours.recv(1) == b"x"
    deadlines.close()
    for sock in (ours, theirs, other, its_peer):
        sock.close()


def test_it_can_be_used_again_after_it_was_closed() -> None:
    deadlines = Deadlines(0.1)
    for _ in range(2):
        ours, theirs = socket.socketpair()
        began = monotonic()
        with deadlines.of(ours.fileno()):
            assert ours.recv(1) == b""
        assert monotonic() - began >= 0.1
        deadlines.close()
        ours.close()
        theirs.close()
