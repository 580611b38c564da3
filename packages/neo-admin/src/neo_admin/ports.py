"""TCP ports for the nodes of a local cluster: free now, and nobody's by accident later.

A port that the kernel chooses (port 0) lies in the range that it also takes for outgoing connections: between the
choice and the node's start, or while the node is down, any client of this host may get it, and the node then cannot
listen. So ports are drawn below that range.
"""

import random
import socket
from collections.abc import Iterator
from math import gcd
from pathlib import Path
from typing import Final

HOST: Final = "127.0.0.1"
_FIRST: Final = 10240
_EPHEMERAL_DEFAULT: Final = 32768
"""Where the range of outgoing connections begins: Linux says it in a file; macOS and the BSDs begin higher."""
_EPHEMERAL_FILE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")


def ephemeral_start() -> int:
    """Return the lowest port that the kernel gives to outgoing connections."""
    try:
        return int(_EPHEMERAL_FILE.read_text().split()[0])
    except FileNotFoundError:
        return _EPHEMERAL_DEFAULT


def free_ports(count: int) -> list[int]:
    """Return *count* different TCP ports of the loopback interface that were free a moment ago.

    Raises: OSError when there are not so many.
    """
    below = ephemeral_start()
    candidates = range(_FIRST, below) if below - _FIRST >= 1000 else range(1024, 65536)
    found: list[int] = []
    for port in _in_any_order(candidates):
        if len(found) == count:
            break
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue  # somebody's
            found.append(port)
    if len(found) < count:
        raise OSError(f"{HOST} has no {count} free TCP ports in {candidates.start}-{candidates.stop - 1}")
    return found


def _in_any_order(ports: range) -> Iterator[int]:
    """Yield each of *ports* once. (A random walk: to shuffle all of them takes 30 ms.)"""
    size, at = len(ports), random.randrange(len(ports))
    step = random.choice([s for s in range(7, 1000) if gcd(s, size) == 1])
    for _ in range(size):
        yield ports[at]
        at = (at + step) % size


__all__ = ["HOST", "ephemeral_start", "free_ports"]
