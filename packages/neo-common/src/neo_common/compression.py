"""Values as they travel and rest: compressed where that helps, with their checksum. Pure.

The client compresses and the client decompresses; a storage only verifies checksums. Each value says how it is coded,
so a cluster may change its mind at any time.
"""

import zlib
from typing import Final

import zstandard

from neo_common.checksum import CHECKSUM_BYTES, checksum
from neo_common.errors import DataCorrupted
from neo_common.wire.schema import Compression, Data

SMALL: Final = 128
"""Values below this many bytes are never compressed: little to win, and most ZODB objects are that small."""
ZLIB_LEVEL: Final = 6
ZSTD_LEVEL: Final = 1
"""On ZODB pickles higher levels take several times longer for a few percent."""
VALUE_MAX: Final = 2**31 - 1
"""Default limit of `decompress`, in bytes."""

ABSENT: Final = Data(Compression.ABSENT, bytes(CHECKSUM_BYTES), 0, b"")
"""No value: the object was deleted, or its creation undone."""

# To look a member up in its enumeration takes as long as to take a checksum, and these are looked at for each value.
_NONE: Final = Compression.NONE
_ZLIB: Final = Compression.ZLIB
_ZSTD: Final = Compression.ZSTD
_ABSENT: Final = Compression.ABSENT

# Contexts at rest: making one takes 10 us, using one 2 us, and a context serves one thread at a time. `pop` and
# `append` of a list are atomic, so each thread holds its own, and there are never more of them than threads.
_compressors: Final[list[zstandard.ZstdCompressor]] = []
_decompressors: Final[list[zstandard.ZstdDecompressor]] = []


def compress(data: bytes, preferred: Compression) -> tuple[Compression, bytes]:
    """Return how *data* is coded and the bytes to store: the *preferred* way, or NONE where that is not smaller."""
    assert preferred is not Compression.ABSENT, "the absence of a value has no bytes"
    if preferred is Compression.NONE or len(data) < SMALL:
        return Compression.NONE, data
    if preferred is Compression.ZLIB:
        stored = zlib.compress(data, ZLIB_LEVEL)
    else:
        try:
            compressor = _compressors.pop()
        except IndexError:
            compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL)
        stored = compressor.compress(data)
        _compressors.append(compressor)
    return (preferred, stored) if len(stored) < len(data) else (Compression.NONE, data)


def decompress(compression: Compression, stored: bytes, size_max: int = VALUE_MAX) -> bytes:
    """Return the value that *stored* codes.

    Raises: DataCorrupted when it codes none, or one of more than *size_max* bytes: nothing larger is allocated.
    """
    if compression is _NONE:
        value = stored
    elif compression is _ZLIB:
        value = _unzlib(stored, size_max)
    elif compression is _ZSTD:
        value = _unzstd(stored, size_max)
    else:
        raise DataCorrupted("a value that is absent was to be decompressed")
    if len(value) > size_max:
        raise DataCorrupted(f"a value of {len(value)} bytes, more than {size_max}")
    return value


def _unzlib(stored: bytes, size_max: int) -> bytes:
    worker = zlib.decompressobj()
    try:
        value = worker.decompress(stored, size_max + 1)
    except zlib.error as error:
        raise DataCorrupted(f"{len(stored)} bytes are no zlib stream: {error}") from error
    if len(value) > size_max:
        raise DataCorrupted(f"a zlib stream of {len(stored)} bytes codes more than {size_max}")
    if not worker.eof or worker.unused_data:
        raise DataCorrupted(f"{len(stored)} bytes are not one whole zlib stream")
    return value


def _unzstd(stored: bytes, size_max: int) -> bytes:
    try:
        size = zstandard.frame_content_size(stored)
    except zstandard.ZstdError as error:
        raise DataCorrupted(f"{len(stored)} bytes are no zstd frame: {error}") from error
    if not 0 <= size <= size_max:  # -1: a frame that does not say; `compress` makes none
        raise DataCorrupted(f"a zstd frame of {len(stored)} bytes announces {size}, not 0 to {size_max}")
    try:
        decompressor = _decompressors.pop()
    except IndexError:
        decompressor = zstandard.ZstdDecompressor()
    try:
        return decompressor.decompress(stored, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise DataCorrupted(f"{len(stored)} bytes are no zstd frame: {error}") from error
    finally:
        _decompressors.append(decompressor)


def make_data(value: bytes, preferred: Compression) -> Data:
    """Return *value* as it travels: compressed the *preferred* way if that helps, whole, with its checksum.

    Cutting large values into pieces is the sender's business.
    """
    compression, stored = compress(value, preferred)
    return Data(compression, checksum(stored), len(stored), stored)


def verify(data: Data) -> None:
    """Check a whole value: size and checksum. One in pieces is not checked here: its bytes come apart.

    Raises: DataCorrupted with what differs.
    """
    compression, expected, size, value = data
    if compression is _ABSENT:
        if value or size:
            raise DataCorrupted(f"an absent value with {len(value)} bytes, {size} announced")
        return
    if size and not value:
        return
    if len(value) != size:
        raise DataCorrupted(f"{len(value)} bytes where {size} were announced")
    found = checksum(value)
    if found != expected:
        raise DataCorrupted(f"checksum {found.hex()} where {expected.hex()} was announced, {size} bytes")
