"""A server that is asked for its greeting is not believed, and not waited for, beyond reason."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import monotonic

import pytest

from neo_storage.backends.mysql import greeting

WAIT_S = 10.0


@contextmanager
def server(says: bytes, pause_s: float) -> Iterator[int]:
    """Yield the port of one that says this to the first who comes, a byte after each pause."""
    listening = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def serve() -> None:
        with suppress(OSError):  # who has waited enough goes
            peer, _ = listening.accept()
            with peer:
                for byte in says:
                    peer.sendall(bytes([byte]))
                    if over.wait(pause_s):
                        return
                over.wait(WAIT_S)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        over.set()
        thread.join(WAIT_S)
        listening.close()


def test_a_server_that_says_a_byte_now_and_then_is_given_up() -> None:
    with server(b"\x40\0\0\0" + bytes(64), 0.1) as port:
        began = monotonic()
        with pytest.raises(TimeoutError):
            greeting.look("127.0.0.1", port, 0.5)
    assert monotonic() - began > 0.4, "it had its time"
    assert monotonic() - began < 6, "with a deadline for each byte it would have been 7 s"


def test_a_greeting_without_end_is_refused() -> None:
    with server(b"\xff\xff\xff\0", 0.0) as port, pytest.raises(ValueError, match="16777215 bytes"):
        greeting.look("127.0.0.1", port, WAIT_S)


def test_what_is_another_server_is_refused() -> None:
    with server(b"\x04\0\0\0SSH-", 0.0) as port, pytest.raises(ValueError, match="is no greeting"):
        greeting.look("127.0.0.1", port, WAIT_S)
