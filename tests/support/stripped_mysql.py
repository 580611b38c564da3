"""A server that says it is MySQL and has no TLS, and wants the password in full; what it hears."""

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

_SALT: Final = bytes(range(33, 54))
_CAPABILITIES: Final = 0xDFFFF7FF
"""All that MySQL 9.7 has, but TLS (0x800)."""
_MORE_IS_WANTED: Final = b"\x01\x04"
"""The password is not known by its hash: say it, over TLS, or encrypted with the key that you get."""
_WAIT_S: Final = 10.0


class StrippedMysql:
    """Listens at `port` of this machine; `heard` is all that anybody has said."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.heard = b""
        self.visitors = 0
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._thread.join(_WAIT_S)
        self._listening.close()

    def _serve(self) -> None:
        with suppress(OSError):  # it has stopped listening
            while True:
                peer, _ = self._listening.accept()
                self.visitors += 1
                with peer, suppress(OSError):  # who has heard enough goes
                    peer.settimeout(_WAIT_S)
                    self._talk(peer)

    def _talk(self, peer: socket.socket) -> None:
        low, high = _CAPABILITIES & 0xFFFF, _CAPABILITIES >> 16
        greeting = b"\x0a9.7.4\0" + (7).to_bytes(4, "little") + _SALT[:8] + b"\0" + low.to_bytes(2, "little")
        greeting += b"\xff\x02\0" + high.to_bytes(2, "little") + bytes([len(_SALT)]) + bytes(10) + _SALT[8:20] + b"\0"
        number = 0
        for answer in (greeting + b"caching_sha2_password\0", _MORE_IS_WANTED):
            peer.sendall(len(answer).to_bytes(3, "little") + bytes([number]) + answer)
            said = peer.recv(65536)
            if not said:
                return
            self.heard += said
            number += 2
