"""Values that rest in the log until somebody needs them: tentative writes and pieces of large ones. Pure.

What a large transaction sends ahead of its vote is written to the log and then known by its place there (`Chunk`), not
kept in memory. Whoever needs such a value again (the applier, a lead that repeats it to a cell, a reader of what is
committed but not applied) reads it back through the `Spool`.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple, Protocol

from xxhash import xxh3_128

from neo_common.errors import DataCorrupted
from neo_common.ids import Oid, Partition, Ttid
from neo_common.wire.schema import PIECE_BYTES, Bytes16, Record, Write
from neo_storage.core.log_records import LogCopyPiece, LogPiece, LogRecord, LogStored

ENTRY_BYTES: Final = 128
"""What a write, a read or a piece takes in memory beside its value: a vote of deletions is not for nothing."""


class Chunk(NamedTuple):
    """Where a value, or a piece of one, rests: position of a log record, and which of the writes of a LogStored."""

    position: int
    item: int
    """-1: the record is a LogPiece."""


class Spool(Protocol):
    """The log, read back. Used by the core and, at the same time, by the applier's thread."""

    def read(self, position: int) -> LogRecord:
        """Return the record appended at *position*, durable or not yet.

        Only for positions from the core's `needed_from(...)` on. Raises DataCorrupted.
        """


class MemorySpool:
    """A spool for tests: `note` each record that is appended."""

    def __init__(self) -> None:
        self.records: dict[int, LogRecord] = {}

    def note(self, position: int, record: LogRecord) -> None:
        """Remember what was appended."""
        self.records[position] = record

    def read(self, position: int) -> LogRecord:
        """Return the record of *position*."""
        if position not in self.records:
            raise DataCorrupted(f"log record {position} was asked for, but is not there")
        return self.records[position]


class Pieces:
    """Reads the spooled values of one transaction: `pieces(oid)` yields the pieces of that value in order."""

    __slots__ = ("_chunks", "_spool")

    def __init__(self, spool: Spool, chunks: Mapping[Oid, tuple[Chunk, ...]]) -> None:
        self._spool = spool
        self._chunks = chunks

    def __call__(self, oid: Oid) -> Iterator[bytes]:
        """Yield the pieces of *oid* in order. Raises DataCorrupted when the log has not what it must have."""
        for chunk in self._chunks[oid]:
            yield read_chunk(self._spool, chunk)

    def __contains__(self, oid: Oid) -> bool:
        return oid in self._chunks

    def __bool__(self) -> bool:
        return bool(self._chunks)

    def at(self, oid: Oid, offset: int) -> bytes | None:
        """Return the piece that begins at *offset*, None if there is none."""
        index, rest = divmod(offset, PIECE_BYTES)
        chunks = self._chunks.get(oid, ())
        return None if rest or index >= len(chunks) else read_chunk(self._spool, chunks[index])


class PiecesOf:
    """The pieces of all values of one transaction here, whichever vote they came with."""

    __slots__ = ("_votes",)

    def __init__(self, votes: Mapping[Oid, Pieces]) -> None:
        self._votes = votes

    def __call__(self, oid: Oid) -> Iterator[bytes]:
        """Yield the pieces of *oid* in order."""
        return self._votes[oid](oid)

    def at(self, oid: Oid, offset: int) -> bytes | None:
        """Return the piece that begins at *offset*, reading only that; None if there is none."""
        return self._votes[oid].at(oid, offset)


def read_chunk(spool: Spool, chunk: Chunk) -> bytes:
    """Return the bytes at *chunk*."""
    match spool.read(chunk.position):
        case LogPiece(_, _, _, value) | LogCopyPiece(_, _, _, _, value) if chunk.item == -1:
            return value
        case LogStored(_, _, _, writes) if 0 <= chunk.item < len(writes):
            return writes[chunk.item].data.value
        case other:
            raise DataCorrupted(f"log record {chunk.position} is a {type(other).__name__} without value {chunk.item}")


class VotedRecord(NamedTuple):
    """A voted record as it is kept: with all its writes; the values that were sent ahead rest in the log."""

    record: Record
    """Complete; `record.tentative` says how many of its writes went ahead."""
    pieces: Pieces
    position: int
    """The oldest log record that it consists of."""
    bytes: int
    """Memory that it takes."""
    spooled: int
    """Bytes of its values that rest in the log."""
    whole: bool
    """False: part of it stood in a segment that is gone. Legal only for what the log decides further on."""


class PieceChain:
    """Pieces of one value, as they come."""

    __slots__ = ("chunks", "digest", "last", "size")

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self.size = 0
        self.last = PIECE_BYTES
        self.digest = xxh3_128()

    def add(self, chunk: Chunk, value: bytes) -> None:
        self.chunks.append(chunk)
        self.size += len(value)
        self.last = len(value)
        self.digest.update(value)


class _Ahead:
    """What one transaction has sent ahead."""

    __slots__ = ("chains", "first", "piece_bytes", "store_bytes", "stores")

    def __init__(self, position: int) -> None:
        self.stores: dict[Partition, list[tuple[Write, Chunk | None]]] = {}
        self.chains: dict[Oid, PieceChain] = {}
        self.first = position
        self.store_bytes: dict[Partition, int] = {}
        self.piece_bytes: dict[Oid, int] = {}
        """With what was sent once more, as the log has both."""

    @property
    def size(self) -> int:
        return sum(self.store_bytes.values()) + sum(self.piece_bytes.values())


_NO_CHUNKS: Final[Mapping[Oid, tuple[Chunk, ...]]] = {}


class Tentative:
    """Tentative data by transaction. A Store from 0, or a piece from offset 0, begins anew."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._ahead: dict[Ttid, _Ahead] = {}

    @property
    def size(self) -> int:
        """Bytes that went ahead and rest in the log, and what is known of them here."""
        return sum(a.size for a in self._ahead.values())

    def ttids(self) -> tuple[Ttid, ...]:
        """Return whose data is here, in order."""
        return tuple(sorted(self._ahead))

    def has(self, ttid: Ttid) -> bool:
        """Return whether anything of that transaction is here."""
        return ttid in self._ahead

    def first_position(self) -> int | None:
        """Return the oldest log position that is needed for what is here; None if nothing is."""
        return min((a.first for a in self._ahead.values()), default=None)

    def takes_store(self, ttid: Ttid, partition: Partition, first: int) -> bool:
        """Return whether a Store from *first* on follows what is here without a gap."""
        return first == 0 or first <= self.count(ttid, partition)

    def takes_piece(self, ttid: Ttid, oid: Oid, offset: int, length: int) -> bool:
        """Return whether a piece at *offset* follows what is here, all but the last being of PIECE_BYTES."""
        if not 0 < length <= PIECE_BYTES:
            return False
        chain = self._chain(ttid, oid)
        return offset == 0 or (chain is not None and offset == chain.size and chain.last == PIECE_BYTES)

    def count(self, ttid: Ttid, partition: Partition) -> int:
        """Return how many writes went ahead for that partition."""
        ahead = self._ahead.get(ttid)
        return len(ahead.stores.get(partition, ())) if ahead else 0

    def value(self, ttid: Ttid, oid: Oid) -> tuple[int, Bytes16]:
        """Return size and checksum of the pieces of *oid* that came."""
        chain = self._chain(ttid, oid)
        return (0, b"") if chain is None else (chain.size, chain.digest.digest())

    def stored(self, position: int, record: LogStored) -> None:
        """Take the writes of *record*, which stands at *position*."""
        ahead = self._ahead.setdefault(record.ttid, _Ahead(position))
        writes = ahead.stores.setdefault(record.partition, [])
        del writes[record.first :]
        size = ENTRY_BYTES * (1 + len(record.writes))
        for i, write in enumerate(record.writes):
            chunk = None
            if write.data.value:
                chunk = Chunk(position, i)
                size += len(write.data.value)
                write = write._replace(data=write.data._replace(value=b""))
            if chunk is not None or not write.data.size:  # no pieces: those that came are of a value stored before
                ahead.chains.pop(write.oid, None)
            writes.append((write, chunk))
        ahead.store_bytes[record.partition] = ahead.store_bytes.get(record.partition, 0) + size

    def take(self, ttid: Ttid, partition: Partition, partition_of: Callable[[Oid], Partition]) -> None:
        """Take away what that transaction has sent ahead for *partition*: a vote has it, or nothing will come of it."""
        ahead = self._ahead.get(ttid)
        if ahead is not None:
            ahead.stores.pop(partition, None)
            ahead.store_bytes.pop(partition, None)
            for oid in [oid for oid in ahead.piece_bytes if partition_of(oid) == partition]:
                ahead.chains.pop(oid, None)
                del ahead.piece_bytes[oid]
            if not ahead.store_bytes and not ahead.piece_bytes:
                self.forget(ttid)

    def piece(self, position: int, record: LogPiece) -> None:
        """Take the piece of *record*, which stands at *position*."""
        ahead = self._ahead.setdefault(record.ttid, _Ahead(position))
        if record.offset == 0:
            ahead.chains[record.oid] = PieceChain()
        chain = ahead.chains.get(record.oid)
        size = ENTRY_BYTES + len(record.value)
        ahead.piece_bytes[record.oid] = ahead.piece_bytes.get(record.oid, 0) + size
        if chain is None or chain.size != record.offset:  # its beginning stood in a segment that is gone
            ahead.chains.pop(record.oid, None)
            return
        chain.add(Chunk(position, -1), record.value)

    def writes(self, ttid: Ttid, partition: Partition, count: int) -> tuple[Write, ...]:
        """Return the first *count* writes that went ahead, without values. Fewer if fewer came."""
        ahead = self._ahead.get(ttid)
        return tuple(w for w, _ in ahead.stores.get(partition, ())[:count]) if ahead else ()

    def complete(self, record: Record, position: int) -> VotedRecord:
        """Return *record*, as it is in the log at *position*, with what went ahead of it."""
        ahead = self._ahead.get(record.ttid)
        if ahead is None and not record.tentative:  # as nearly all
            size, whole = ENTRY_BYTES * (len(record.writes) + len(record.reads)), True
            for write in record.writes:
                data = write.data
                size += len(data.value)
                if data.size and not data.value:
                    whole = False
            return VotedRecord(record, Pieces(self._spool, _NO_CHUNKS), position, size, 0, whole)
        before = ahead.stores.get(record.partition, [])[: record.tentative] if ahead else []
        chunks: dict[Oid, tuple[Chunk, ...]] = {w.oid: (chunk,) for w, chunk in before if chunk is not None}
        whole = len(before) == record.tentative
        writes = (*(w for w, _ in before), *record.writes)
        for write in writes:
            if write.data.size and not write.data.value and write.oid not in chunks:
                chain = self._chain(record.ttid, write.oid)
                if chain is None or chain.size != write.data.size:
                    whole = False
                else:
                    chunks[write.oid] = tuple(chain.chunks)
        first = min((c.position for cs in chunks.values() for c in cs), default=position)
        # Writes without a value (deletions) that went ahead stand in log records too, which no chunk names.
        if before and ahead is not None:
            first = min(first, ahead.first)
        size = sum(len(w.data.value) for w in writes) + ENTRY_BYTES * (len(writes) + len(record.reads))
        spooled = sum(w.data.size for w in writes if w.oid in chunks)
        return VotedRecord(record._replace(writes=writes), Pieces(self._spool, chunks), first, size, spooled, whole)

    def forget(self, ttid: Ttid) -> None:
        """Drop what that transaction has sent ahead. Voted records keep what they consist of."""
        self._ahead.pop(ttid, None)

    def _chain(self, ttid: Ttid, oid: Oid) -> PieceChain | None:
        ahead = self._ahead.get(ttid)
        return ahead.chains.get(oid) if ahead else None


class Needed:
    """Where the undecided part of decided transactions begins, until the back end has them durably."""

    def __init__(self) -> None:
        self._decided: deque[tuple[int, int]] = deque()

    def note(self, decided: int, first: int) -> None:
        """Remember that what was decided at position *decided* needs the log from *first* on."""
        self._decided.append((decided, first))

    def first(self, durable: int) -> int | None:
        """Return the oldest position needed by what was decided after *durable*, which only grows."""
        while self._decided and self._decided[0][0] <= durable:
            self._decided.popleft()
        return min((first for _, first in self._decided), default=None)
