"""Values as rows of `obj` speak of them. Pure."""

from collections.abc import Iterable
from typing import Final

from neo_common.errors import DataCorrupted
from neo_common.wire.schema import PIECE_BYTES

OVERHEAD: Final = 64
"""About what a revision, or a transaction, takes in an answer beside its values, in bytes."""


def is_inline(data_id: int | None, size: int) -> bool:
    """Return whether the value is one row of `data`, given with its revision."""
    return data_id is not None and size <= PIECE_BYTES


def runs(ids: Iterable[int]) -> list[tuple[int, int]]:
    """Return *ids* as ranges, both ends included: what was written together is read together, by one walk.

    >>> runs([4, 9, 3, 5])
    [(3, 5), (9, 9)]
    """
    found = list[tuple[int, int]]()
    first = last = -1
    for number in sorted(ids):
        if number > last + 1 or first < 0:
            if first >= 0:
                found.append((first, last))
            first = number
        last = number
    if first >= 0:
        found.append((first, last))
    return found


def value_of(values: dict[int, bytes], oid: int, tid: int, data_id: int | None, size: int) -> bytes:
    """Return the stored bytes of a revision; none when absent or in pieces. Raises: DataCorrupted."""
    if data_id is None or size > PIECE_BYTES:
        return b""
    value = values.get(data_id)
    if value is None:
        raise DataCorrupted(f"there is no data for {oid:#x} at {tid:#x}")
    return value
