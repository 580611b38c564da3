"""What a server says before anybody has said who he is: whether it has TLS.

MariaDB's driver, told to use TLS without verifying, takes a connection for encrypted although the server has none, and
says the password in clear where the server knows its users by `caching_sha2_password`. So the server is asked before.
"""

from socket import SOCK_STREAM
from time import monotonic
from typing import Any, Final

from gevent.monkey import get_original

_HEADER_BYTES: Final = 4
_BYTES_MAX: Final = 4096
"""Of a greeting: those of servers have some hundred."""
_ERROR: Final = 0xFF
_HAS_TLS: Final = 0x800
_AFTER_VERSION: Final = 4 + 8 + 1
"""Number of the connection, half of the salt, a zero; then what the server can."""
_socket: Final[Any] = get_original("socket", "socket")  # Any: gevent hands out originals without types
_getaddrinfo: Final[Any] = get_original("socket", "getaddrinfo")


def has_tls(greeting: bytes) -> bool:
    """Return whether the server can do TLS by its *greeting*, the payload of its first packet.

    Also True for an error in its place: the driver will be told the same. Raises: ValueError for anything else.

    >>> has_tls(b"\\x0a9.7.4\\0" + bytes(13) + b"\\xff\\xff"), has_tls(b"\\x0a9.7.4\\0" + bytes(13) + b"\\xff\\xf7")
    (True, False)
    """
    if greeting[:1] == bytes([_ERROR]):
        return True
    version, found, rest = greeting[1:].partition(b"\0")
    flags = rest[_AFTER_VERSION : _AFTER_VERSION + 2]
    if not found or not version or len(flags) != 2:
        raise ValueError(f"{greeting[:40]!r} is no greeting of MariaDB or MySQL")
    return bool(int.from_bytes(flags, "little") & _HAS_TLS)


def look(host: str, port: int, timeout_s: float) -> tuple[str, bool]:
    """Return the address at which *host* answers, and whether the server there has TLS. Blocks.

    Raises: OSError (TimeoutError after *timeout_s*, for each address), ValueError if it is another kind of server.
    """
    error: OSError = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in _getaddrinfo(host, port, type=SOCK_STREAM):
        try:
            with _socket(family, kind, protocol) as sock:
                deadline = monotonic() + timeout_s
                sock.settimeout(timeout_s)
                sock.connect(address)
                length = int.from_bytes(_read(sock, _HEADER_BYTES, deadline)[:3], "little")
                if length > _BYTES_MAX:
                    raise ValueError(f"a greeting of {length} bytes is none of MariaDB's or MySQL's")
                return str(address[0]), has_tls(_read(sock, length, deadline))
        except OSError as found:
            error = found
    raise error


def _read(sock: Any, count: int, deadline: float) -> bytes:
    read = b""
    while len(read) < count:
        sock.settimeout(max(deadline - monotonic(), 1e-3))
        part = sock.recv(count - len(read))
        if not part:
            raise ConnectionResetError("the server has closed the connection instead of greeting")
        read += part
    return read
