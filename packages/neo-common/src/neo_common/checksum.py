"""The checksum of stored bytes: XXH3-128, big-endian. Pure.

It guards against broken disks, memory and programs, not against people. It is taken of the bytes as they are stored,
so that a storage verifies them without decompressing.
"""

from typing import Final

from xxhash import xxh3_128_digest

CHECKSUM_BYTES: Final = 16


def checksum(stored: bytes) -> bytes:
    """Return the 16 bytes that must stand beside *stored*.

    >>> checksum(b"").hex()
    '99aa06d3014798d86001c324468d497f'
    """
    return xxh3_128_digest(stored)
