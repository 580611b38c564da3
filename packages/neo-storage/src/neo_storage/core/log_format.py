"""How log records stand in the segments of a vote log, and how they are found again. Pure.

    segment   HEADER_BYTES of header, then records without gap, then anything: zeros, or what an earlier use left
    header    magic with the format, number of the segment, position of its first record, salt; XXH3-128 of all that
    record    U32 length of the payload, U64 checksum, U8 code, payload (the record, encoded as packets are)

The checksum, XXH3-64 of code and payload, is seeded with the salt and the position. The salt is new each time a segment
is used, so that nothing left of an earlier use, nor behind a torn tail, can ever be taken for a record that follows.
"""

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from xxhash import xxh3_64_intdigest, xxh3_128_digest

from neo_common.errors import BackendError, DataCorrupted, ProtocolError
from neo_common.wire.codec import decode, encode
from neo_storage.core.log_records import CODES, LogRecord

FORMAT: Final = 1
"""Version of the framing and of the records. Who does not know it exactly reads nothing: there is no minimum reader."""
_NAME: Final = b"NEOLOG\x00"
MAGIC: Final = _NAME + bytes((FORMAT,))
HEADER_BYTES: Final = 64
_HEADER: Final = struct.Struct(">8sQQQ16x16s")
_SIGNED: Final = HEADER_BYTES - 16
_RECORD: Final = struct.Struct(">IQB")
RECORD_OVERHEAD: Final = _RECORD.size
_CODE_OF: Final = {cls: code for code, cls in CODES.items()}
_WORD: Final = 2**64 - 1

assert _HEADER.size == HEADER_BYTES


class Header(NamedTuple):
    """What a segment says of itself."""

    number: int
    """Ascends by one from segment to segment, also when a file is used again."""
    first: int
    """The position of its first record."""
    salt: int
    """64 bits, chosen at random for each use."""


class Found(NamedTuple):
    """A record in a segment, and where: `offset` from the segment's beginning, `size` with its overhead."""

    position: int
    offset: int
    size: int
    record: LogRecord


def encode_header(header: Header) -> bytes:
    """Return the first HEADER_BYTES of a segment."""
    signed = _HEADER.pack(MAGIC, *header, b"")[:_SIGNED]
    return signed + xxh3_128_digest(signed)


def decode_header(data: bytes) -> Header | None:
    """Return the header that *data* begins with; None if that is none: never written, torn, erased.

    Raises: BackendError for a header of another version, whatever checksum that may have: it is not for us to say that
    its records are not needed.
    """
    if len(data) < HEADER_BYTES:
        return None
    magic, number, first, salt, checksum = _HEADER.unpack_from(data)
    if magic != MAGIC and magic.startswith(_NAME) and magic[-1]:
        raise BackendError(
            f"a segment of the vote log has format {magic[-1]}, this program reads {FORMAT}: install the NEO that wrote"
            " it, or a newer one"
        )
    if magic != MAGIC or xxh3_128_digest(data[:_SIGNED]) != checksum:
        return None
    return Header(number, first, salt)


def encode_record(position: int, record: LogRecord, salt: int) -> bytes:
    """Return *record* as it stands at *position* in a segment with that salt."""
    body = bytes((_CODE_OF[type(record)],)) + encode(record)
    checksum = xxh3_64_intdigest(body, seed=(salt + position) & _WORD)
    return _RECORD.pack(len(body) - 1, checksum, body[0]) + body[1:]


def record_size(data: bytes) -> int:
    """Return the size, with its overhead, of the record that *data* begins with, as that says, true or not."""
    return RECORD_OVERHEAD + int.from_bytes(data[:4], "big")


def find_record(data: bytes | memoryview, offset: int, position: int, salt: int) -> Found | None:
    """Return the record of *position* if it stands, whole, at *offset* of *data*; else None.

    Raises: DataCorrupted when its checksum holds, but it is not what this version writes.
    """
    if len(data) - offset < RECORD_OVERHEAD:
        return None
    length, checksum, code = _RECORD.unpack_from(data, offset)
    end = offset + RECORD_OVERHEAD + length
    if end > len(data):
        return None
    body = bytes(data[offset + RECORD_OVERHEAD - 1 : end])
    if xxh3_64_intdigest(body, seed=(salt + position) & _WORD) != checksum:
        return None
    cls = CODES.get(code)
    if cls is None:
        raise DataCorrupted(f"log record {position} has the code {code}, which this version does not know")
    try:
        record: LogRecord = decode(cls, body[1:])
    except ProtocolError as error:
        raise DataCorrupted(f"log record {position} is not a {cls.__name__}: {error}") from error
    return Found(position, offset, end - offset, record)


def scan(data: bytes | memoryview, header: Header) -> Iterator[Found]:
    """Yield the records of a segment in order, up to its torn or unwritten tail."""
    offset, position = HEADER_BYTES, header.first
    while (found := find_record(data, offset, position, header.salt)) is not None:
        yield found
        offset += found.size
        position += 1
