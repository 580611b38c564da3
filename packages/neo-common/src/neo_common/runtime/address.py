"""Addresses: `host:port`, `[v6]:port`, `unix:/path`. Names are resolved again at each use, never kept.

Only the standard library: the client uses this too, and a daemon has patched it before.
"""

import socket
from typing import NamedTuple

from neo_common.errors import ConfigError

SocketAddress = tuple[str, int] | tuple[str, int, int, int] | str


class Address(NamedTuple):
    """Where somebody listens. `path` is empty for TCP; else `host` is empty and `port` 0."""

    host: str
    port: int
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Target(NamedTuple):
    """One of the sockets that an address stands for."""

    family: socket.AddressFamily
    sockaddr: SocketAddress


def parse(text: str) -> Address:
    """Read an address.

    >>> parse("[::1]:2051"), str(parse("db.example:2051")), str(parse("unix:/run/neo.sock"))
    (Address(host='::1', port=2051, path=''), 'db.example:2051', 'unix:/run/neo.sock')

    Raises: ConfigError, with what would be right.
    """
    if text.startswith("unix:"):
        path = text[5:]
        if not path.startswith("/"):
            raise ConfigError(f"address {text!r}: the path of a Unix socket is absolute (unix:/run/neo.sock)")
        return Address("", 0, path)
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ConfigError(f"address {text!r}: put an IPv6 address in brackets ([::1]:2051)")
    if not colon or not host or not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"address {text!r}: not host:port, [v6]:port or unix:/path")
    return Address(host, int(port))


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
    """Return how people write a socket's address; `unix:` for an unnamed Unix socket."""
    if family == socket.AF_UNIX:
        return f"unix:{sockaddr}"
    return str(Address(str(sockaddr[0]), int(sockaddr[1])))
