"""An end to waiting for a server that says nothing: libpq itself would wait for ever on a local socket.

One native thread per back end looks at what is under way, and shuts the socket of what has taken too long: whoever
waits in libpq then has a lost connection. (MariaDB's driver has time-outs of its own.)
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from socket import SHUT_RDWR
from time import monotonic
from typing import Any, Final

from gevent.monkey import get_original

from neo_storage.native import Bell, new_lock, start

_socket: Final[Any] = get_original("socket", "socket")  # Any: gevent hands out originals without types
_LOOK_S: Final = 1.0


class Deadlines:
    """Breaks connections that have waited for *timeout_s*. Its thread ends with `close`."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._guard = new_lock()
        self._under_way: dict[int, float] = {}
        """Sockets, and since when their server owes an answer."""
        self._bell = Bell()
        self._is_closed = True

    @contextmanager
    def of(self, descriptor: int) -> Iterator[None]:
        """Within it, *descriptor* waits for an answer."""
        with self._guard:
            if self._is_closed:
                self._is_closed = False
                start(self._watch)
            self._under_way[descriptor] = monotonic()
        try:
            yield
        finally:
            with self._guard:
                self._under_way.pop(descriptor, None)

    def close(self) -> None:
        """End the thread; the next statement begins another."""
        self._is_closed = True
        self._bell.ring()

    def _watch(self) -> None:
        while not self._is_closed:
            self._bell.wait(min(_LOOK_S, self._timeout_s / 2))
            with self._guard:  # with it nobody can close the descriptor, and give its number to another socket
                for descriptor, since in self._under_way.items():
                    if monotonic() - since > self._timeout_s:
                        _shut(descriptor)


def _shut(descriptor: int) -> None:
    sock = _socket(fileno=os.dup(descriptor))
    try:
        sock.shutdown(SHUT_RDWR)
    except OSError:
        return  # it was shut a moment ago
    finally:
        sock.close()
