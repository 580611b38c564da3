"""Addresses: `host:port`, `[v6]:port`, `unix:/path`. Pure: names are resolved by who dials, at each attempt."""

from typing import NamedTuple

from neo_common.errors import ConfigError


class Address(NamedTuple):
    """Where somebody listens. `path` is empty for TCP; else `host` is empty and `port` 0."""

    host: str
    port: int
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


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
