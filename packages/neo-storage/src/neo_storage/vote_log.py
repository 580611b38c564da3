"""The vote log: what a storage has promised, in the one order in which it was promised.

Segments of a fixed size, written with zeros beforehand, used again when nobody needs them: an append overwrites blocks
that exist, so that one fdatasync costs half of what it would on a growing file. Appending writes at once, which
survives the death of the process; `FlushJob.run` makes it survive a power cut. When, and on which thread, is the
business of `flusher`.

What recovery rests on:
  * a segment is begun only when the one before it is durable: so only the last one has a torn tail, and a gap anywhere
    else is damage, never an accident;
  * each start begins a new segment, so that nothing is ever written behind a torn tail;
  * an error of the disk is never retried: after a failed flush nobody knows what the kernel has dropped.
"""

import errno
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple, ParamSpec, TypeVar

from neo_common.errors import BackendError, DataCorrupted, DiskFull
from neo_storage.core.log_format import (
    HEADER_BYTES,
    Header,
    decode_header,
    encode_header,
    encode_record,
    find_record,
    record_size,
    scan,
)
from neo_storage.core.log_records import LogRecord, LogStored
from neo_storage.log_files import LogFiles

_SUFFIX: Final = ".votes"
_NO_HEADER: Final = bytes(HEADER_BYTES)
_READ_BYTES: Final = 16 * 2**10
"""Read at once; most records are smaller."""
_ROUND: Final = 2**20
_SMALLEST: Final = 64 * 2**10
"""The smallest segment that is made when the disk is nearly full, but for larger records."""
_P = ParamSpec("_P")
_T = TypeVar("_T")


class LogFailed(BackendError):
    """The disk of the vote log has failed, or is full to the last byte: the node must stop, restart and replay."""


class _File(NamedTuple):
    """A file that may hold a segment."""

    name: str
    descriptor: int
    size: int


class _Segment:
    """A segment in use: where each of its records begins, and where the last one ends."""

    __slots__ = ("end", "file", "header", "offsets")

    def __init__(self, file: _File, header: Header) -> None:
        self.file = file
        self.header = header
        self.offsets = array("Q")
        self.end = HEADER_BYTES

    @property
    def next(self) -> int:
        """The position after its last record."""
        return self.header.first + len(self.offsets)


class FlushJob:
    """One flush: what was appended before it was made is durable when `run` has returned. For any thread, once."""

    __slots__ = ("_descriptor", "_log", "position")

    def __init__(self, log: "VoteLog", descriptor: int, position: int) -> None:
        self._log = log
        self._descriptor = descriptor
        self.position = position
        """Up to which record, included."""

    def run(self) -> None:
        """Flush. Raises: LogFailed, then and at everything that follows."""
        self._log._sync(self._descriptor)


class SpareJob:
    """Makes one file for use later: tens of ms of writing, so on another thread than the one that appends."""

    __slots__ = ("_files", "_name", "_size", "made")

    def __init__(self, files: LogFiles, name: str, size: int) -> None:
        self._files = files
        self._name = name
        self._size = size
        self.made: _File | None = None

    def run(self) -> None:
        """Make it. Raises: DiskFull, or BackendError; nothing is left behind then, and it may be tried again."""
        self.made = _create(self._files, self._name, self._size)


class VoteLog:
    """Appends, flushes, reads back, recovers.

    `recover`, then `flush_recovered`, then `begin`, then the rest. Everything belongs to one thread, but `read` and
    the jobs' `run`.
    """

    def __init__(
        self, files: LogFiles, *, segment_bytes: int, spare_segments: int, new_salt: Callable[[], int]
    ) -> None:
        """`spare_segments`: how many files are kept ready beside those in use. `new_salt`: 64 random bits."""
        self._files = files
        self._segment_bytes = segment_bytes
        self._spare_segments = spare_segments
        self._new_salt = new_salt
        self._live: tuple[_Segment, ...] = ()
        """In the order of numbers. Replaced, never changed: readers on other threads take it as it is."""
        self._spares: list[_File] = []
        self._number = 0
        self._file_count = 0
        self._spare_job: SpareJob | None = None
        self._failed: str | None = None
        self._last_read: tuple[int, LogRecord] | None = None
        """The last LogStored read back: the applier asks for it once per write that it holds."""

    def __repr__(self) -> str:
        return f"<VoteLog {self.first}..{self.end} segments={len(self._live)} spares={len(self._spares)}>"

    @property
    def first(self) -> int:
        """The oldest position that can be read."""
        return self._live[0].header.first if self._live else 0

    @property
    def end(self) -> int:
        """The position of the last record; one below the position of the first to come; -1 in a new log."""
        return self._live[-1].next - 1 if self._live else -1

    # ------------------------------------------------------------------------------------------ start

    def recover(self) -> Iterator[tuple[int, LogRecord]]:
        """Yield every record that there is, with its position, in order.

        Some may be older than what the back end has. The last ones are durable after `flush_recovered` only.
        Raises: DataCorrupted when records are missing between others.
        """
        live = [_Segment(file, header) for file, header in self._chain()]
        self._live = tuple(live)
        for before, segment in zip([None, *live], live, strict=False):
            if before is not None and segment.header.first != before.next:
                raise DataCorrupted(
                    f"the vote log is damaged: {before.file.name} ends before record {before.next}, but"
                    f" {segment.file.name} begins with record {segment.header.first}"
                )
            data = self._checked(self._files.read, segment.file.descriptor, segment.file.size, 0)
            for found in scan(memoryview(data), segment.header):
                segment.offsets.append(found.offset)
                segment.end = found.offset + found.size
                yield found.position, found.record

    def _chain(self) -> list[tuple[_File, Header]]:
        """Open all files; return the segments of the log in order. What is before a gap in the numbers was released."""
        found: list[tuple[_File, Header]] = []
        for name in self._checked(self._files.names):
            if not name.endswith(_SUFFIX):
                continue
            descriptor = self._checked(self._files.open, name)
            file = _File(name, descriptor, self._checked(self._files.size, descriptor))
            self._file_count = max(self._file_count, int(name.removesuffix(_SUFFIX), 16))
            header = decode_header(self._checked(self._files.read, descriptor, HEADER_BYTES, 0))
            if header is None:
                self._keep_spare(file)
            else:
                found.append((file, header))
        found.sort(key=lambda pair: pair[1].number)
        self._number = found[-1][1].number if found else 0
        for i in range(len(found) - 1, 0, -1):
            if found[i - 1][1].number != found[i][1].number - 1:
                for file, _ in found[:i]:
                    self._keep_spare(file)
                return found[i:]
        return found

    def flush_recovered(self) -> None:
        """Make durable what was recovered.

        What had been written, but not flushed, when the last process died was only in the kernel's memory: from now on
        it counts. Only the last segment can have such records.
        """
        if self._live:
            self._sync(self._live[-1].file.descriptor)

    def begin(self, position: int) -> None:
        """Begin a new segment for records from *position* on, which follows what was recovered, if anything was."""
        assert not self._live or position == self.end + 1
        self._begin_segment(position, HEADER_BYTES)

    # ------------------------------------------------------------------------------------------ running

    def append(self, position: int, record: LogRecord) -> None:
        """Write *record*; positions follow each other. It survives the process at once.

        Raises: LogFailed when it cannot be written.
        """
        self.extend(position, (record,))

    def extend(self, position: int, records: Sequence[LogRecord]) -> None:
        """Write *records*, the first of which is that of *position*, in one write if they fit into the segment.

        Raises: LogFailed when they cannot be written.
        """
        segment = self._live[-1]
        assert position == segment.next, f"record {position} after {segment.next - 1}"
        chunks: list[bytes] = []
        end = segment.end
        for number, record in enumerate(records, position):
            data = encode_record(number, record, segment.header.salt)
            if end + len(data) > segment.file.size:
                self._write(segment, chunks)
                segment, chunks = self._begin_segment(number, HEADER_BYTES + len(data)), []
                end = segment.end
                data = encode_record(number, record, segment.header.salt)
            chunks.append(data)
            end += len(data)
        self._write(segment, chunks)

    def _write(self, segment: _Segment, chunks: list[bytes]) -> None:
        """Write these records behind what stands in *segment*."""
        if not chunks:
            return
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._checked(self._files.write, segment.file.descriptor, data, segment.end)
        for chunk in chunks:
            segment.offsets.append(segment.end)
            segment.end += len(chunk)

    def flush_job(self) -> FlushJob:
        """Return a flush of all that was appended until now."""
        segment = self._live[-1]
        return FlushJob(self, segment.file.descriptor, segment.next - 1)

    def read(self, position: int) -> LogRecord:
        """Return the record of *position*, durable or not. On any thread.

        Raises: DataCorrupted when it is not there, or damaged.
        """
        last = self._last_read
        if last is not None and last[0] == position:
            return last[1]
        live = self._live
        index = bisect_right(live, position, key=lambda segment: segment.header.first) - 1
        segment = live[index] if index >= 0 else None
        if segment is None or position >= segment.next:
            raise DataCorrupted(f"log record {position} was asked for; there are {self.first} to {self.end}")
        offset = segment.offsets[position - segment.header.first]
        data = self._checked(self._files.read, segment.file.descriptor, _READ_BYTES, offset)
        size = record_size(data)
        if size > len(data):
            data = self._checked(self._files.read, segment.file.descriptor, size, offset)
        found = find_record(data, 0, position, segment.header.salt)
        if found is None:
            raise DataCorrupted(f"log record {position} is damaged, at {offset} of {segment.file.name}")
        if isinstance(found.record, LogStored):
            self._last_read = position, found.record
        return found.record

    def release(self, needed_from: int) -> None:
        """Let go the segments of which no record is at or above *needed_from*."""
        live = self._live
        while len(live) > 1 and live[0].next <= needed_from:
            file = live[0].file
            live = live[1:]
            self._live = live
            # Not flushed: a segment that comes back after a power cut is only replayed for nothing.
            self._checked(self._files.write, file.descriptor, _NO_HEADER, 0)
            self._keep_spare(file)

    @property
    def segment_count(self) -> int:
        """How many segments are in use."""
        return len(self._live)

    @property
    def room_bytes(self) -> int:
        """What can be appended without a new file."""
        current = self._live[-1]
        return current.file.size - current.end + sum(file.size - HEADER_BYTES for file in self._spares)

    @property
    def has_spare(self) -> bool:
        """Whether the next segment has its file already."""
        return bool(self._spares)

    def disk_bytes(self) -> int:
        """Return the size of all files."""
        return sum(s.file.size for s in self._live) + sum(f.size for f in self._spares)

    def spare_job(self) -> SpareJob | None:
        """Return a job that makes a file, if one is missing; then `add_spare` it, whether it succeeded or not."""
        if self._spare_job is not None or len(self._spares) >= self._spare_segments or self._failed is not None:
            return None
        self._spare_job = SpareJob(self._files, self._new_name(), self._segment_bytes)
        return self._spare_job

    def add_spare(self, job: SpareJob) -> None:
        """Take what *job* has made."""
        assert job is self._spare_job
        self._spare_job = None
        if job.made is not None:
            self._spares.append(job.made)

    def close(self) -> None:
        """Release every descriptor. No job may be running."""
        for file in (*(s.file for s in self._live), *self._spares):
            self._files.close(file.descriptor)
        self._live, self._spares = (), []

    # ------------------------------------------------------------------------------------------ details

    def _begin_segment(self, position: int, least_bytes: int) -> _Segment:
        """Begin a segment of at least that size, when everything before it is durable."""
        if self._live:
            self._sync(self._live[-1].file.descriptor)
        file = next((f for f in self._spares if f.size >= least_bytes), None)
        if file is not None:
            self._spares.remove(file)
        else:
            file = self._file_for(least_bytes)
        self._number += 1
        header = Header(self._number, position, self._new_salt())
        self._checked(self._files.write, file.descriptor, encode_header(header), 0)
        # Before any record: else a power cut may leave the header of the last use over records of this one.
        self._sync(file.descriptor)
        segment = _Segment(file, header)
        self._live = (*self._live, segment)
        return segment

    def _file_for(self, least_bytes: int) -> _File:
        """Return a new file; a smaller one than usual when the disk is nearly full: better than to stop."""
        size = self._segment_bytes if least_bytes <= self._segment_bytes else -(-least_bytes // _ROUND) * _ROUND
        while True:
            try:
                return _create(self._files, self._new_name(), size)
            except BackendError as error:
                if isinstance(error, DiskFull) and size > max(least_bytes, _SMALLEST):
                    size = max(least_bytes, size // 4)
                    continue
                self._failed = f"{error}; the vote log has no room left"
                raise LogFailed(self._failed) from error

    def _keep_spare(self, file: _File) -> None:
        if file.size == self._segment_bytes and len(self._spares) < self._spare_segments:
            self._spares.append(file)
        else:
            self._files.close(file.descriptor)
            self._checked(self._files.remove, file.name)

    def _new_name(self) -> str:
        self._file_count += 1
        return f"{self._file_count:08x}{_SUFFIX}"

    def _sync(self, descriptor: int) -> None:
        self._checked(self._files.sync, descriptor)

    def _checked(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Call *function*; a failure of the disk is the last thing that this log does."""
        if self._failed is not None:
            raise LogFailed(self._failed)
        try:
            return function(*args, **kwargs)
        except OSError as error:
            self._failed = f"the vote log has failed: {error}"
            raise LogFailed(self._failed) from error


def _create(files: LogFiles, name: str, size: int) -> _File:
    try:
        return _File(name, files.create(name, size), size)
    except OSError as error:
        text = f"no file of {size} bytes for the vote log: {error}"
        no_room = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        raise (DiskFull(text) if no_room else BackendError(text)) from error
