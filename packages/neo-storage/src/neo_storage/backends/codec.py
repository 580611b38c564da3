"""Small values in columns: partitions of a transaction as 4-byte numbers. Pure."""

import struct
from collections.abc import Sequence

from neo_common.ids import Partition


def pack_parts(parts: Sequence[Partition]) -> bytes:
    """Return *parts* as big-endian numbers of 4 bytes.

    >>> unpack_parts(pack_parts((1, 300))) == (1, 300)
    True
    """
    return struct.pack(f">{len(parts)}I", *parts)


def unpack_parts(packed: bytes) -> tuple[Partition, ...]:
    """Return what `pack_parts` was given."""
    return tuple(map(Partition, struct.unpack(f">{len(packed) // 4}I", packed)))
