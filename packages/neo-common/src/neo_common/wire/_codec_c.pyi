"""Types of the compiled codec; `_codec_py` says what it does."""

from collections.abc import Callable
from typing import TypeVar

from neo_common.wire.schema import Packet

_T = TypeVar("_T")
_Buffer = bytes | bytearray | memoryview

SOURCE: str
"""SHA-256 of the .pyx that it was built from."""
WIRE: dict[str, int]
"""Its idea of `layout.Wire`, for the test that compares."""

def encode(value: Packet, /) -> bytes: ...
def frame(packet: Packet, request: int = 0, /) -> bytes: ...
def decode(cls: Callable[..., _T], data: _Buffer, /) -> _T: ...

class FrameReader:
    @property
    def buffered(self) -> int: ...
    def feed(self, data: _Buffer, /) -> list[tuple[int, Packet]]: ...
