"""From addresses to sockets. Names are resolved again at each use, never kept."""

import socket
from typing import NamedTuple

from neo_common.model.address import Address

SocketAddress = tuple[str, int] | tuple[str, int, int, int] | str


class Target(NamedTuple):
    """One of the sockets that an address stands for."""

    family: socket.AddressFamily
    sockaddr: SocketAddress


def resolve(address: Address) -> list[Target]:
    """Return every socket address that *address* stands for, in the resolver's order, each once.

    Raises: OSError when the name is not known.
    """
    if address.path:
        return [Target(socket.AF_UNIX, address.path)]
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    targets = dict.fromkeys(
        Target(family, sockaddr)  # type: ignore[arg-type]  # typeshed knows of a shape without IPv6, which has no port
        for family, _, _, _, sockaddr in found
        if family in (socket.AF_INET, socket.AF_INET6)
    )
    return list(targets)


def text_of(family: int, sockaddr: SocketAddress) -> str:
    """Return how people write a socket's address."""
    if family == socket.AF_UNIX:
        return f"unix:{sockaddr}"
    return str(Address(str(sockaddr[0]), int(sockaddr[1])))
