"""Records in a file of a master: length, its complement, checksum, payload. Pure, but for the checksum's library."""

from collections.abc import Iterator
from struct import Struct
from typing import Final

from neo_common.checksum import CHECKSUM_BYTES, checksum

_LENGTH: Final = Struct(">II")
"""The length of a record, and its complement: damage of it is not taken for a record that was being written."""
_HEAD_BYTES: Final = _LENGTH.size + CHECKSUM_BYTES


class Damage(Exception):
    """What no crash explains, at *offset* of a file that is flushed behind every record."""

    def __init__(self, offset: int) -> None:
        super().__init__(f"damaged at byte {offset}")
        self.offset = offset


def framed(payload: bytes) -> bytes:
    """Return *payload* as a record."""
    return _LENGTH.pack(len(payload), len(payload) ^ 0xFFFFFFFF) + checksum(payload) + payload


def payloads(data: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
    """Yield the offset and the payload of each record from *offset* on, up to one that was being written, or the end.

    Raises: Damage.
    """
    while offset < len(data):
        if offset + _HEAD_BYTES > len(data) or not any(data[offset:]):
            return  # torn; or the file was longer already, its data not there yet
        length, complement = _LENGTH.unpack_from(data, offset)
        if length ^ complement != 0xFFFFFFFF:
            raise Damage(offset)
        payload = data[offset + _HEAD_BYTES : offset + _HEAD_BYTES + length]
        is_whole = checksum(payload) == data[offset + _LENGTH.size : offset + _HEAD_BYTES] and len(payload) == length
        if not is_whole:
            if offset + _HEAD_BYTES + length < len(data):
                raise Damage(offset)
            return  # torn
        yield offset, payload
        offset += _HEAD_BYTES + length
