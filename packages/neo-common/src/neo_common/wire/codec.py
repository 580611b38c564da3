"""The codec in use: Cython's, or the reference if NEO_PURE_PYTHON=1.

A missing or stale extension is an error that names the command which mends it, never a silent slow path.
"""

from typing import TYPE_CHECKING, Final

from neo_common.extension import PURE, Extension

if TYPE_CHECKING or PURE:
    from neo_common.wire._codec_py import FrameReader, decode, encode, frame
else:
    with Extension("neo_common.wire._codec_c"):
        from neo_common.wire._codec_c import FrameReader, decode, encode, frame

HEADER_BYTES: Final = 10
"""U32 length of the payload, U16 packet code, U32 request id."""

__all__ = ["HEADER_BYTES", "FrameReader", "decode", "encode", "frame"]
