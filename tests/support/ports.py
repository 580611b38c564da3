"""TCP ports for the daemons of a test: nobody else's until long after the test.

Tests run in several processes at once, and a daemon is down between its kill and its restart: a port that is only
found to be free may then be found by another test too. So here it is kept by a socket that is bound and does not
listen. On Linux such a socket lets another one listen (both have SO_REUSEADDR), but nobody finds the port free.
Elsewhere ports are only found.
"""

import socket
import sys
from collections import deque
from typing import Final

from neo_admin.ports import HOST, free_ports

_HELD_MAX: Final = 256
_held: deque[socket.socket] = deque()


def hold_ports(count: int) -> list[int]:
    """Return *count* different TCP ports of the loopback interface that this process keeps for itself."""
    if sys.platform != "linux":
        return free_ports(count)
    ports: list[int] = []
    while len(ports) < count:
        for port in free_ports(count - len(ports)):
            keeper = socket.socket()
            try:
                keeper.bind((HOST, port))
            except OSError:
                keeper.close()
                continue  # another process was faster
            # Only now: two that are bound with it from the beginning would not notice each other.
            keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            _held.append(keeper)
            ports.append(port)
    while len(_held) > max(_HELD_MAX, count):
        _held.popleft().close()
    return ports
