"""The log's framing on any records and any damage; the image's replay at any cut.

A torn tail ends the log; nothing that was not written is ever read.
"""

from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from neo_common.errors import BackendError
from neo_common.ids import NO_TID, Oid, Partition, Session, Tid, Ttid
from neo_common.wire.schema import Ceilings, Metadata, Mode, Record
from neo_storage.backends.base import Kept
from neo_storage.core.image import Image, apply, replay
from neo_storage.core.log_format import (
    HEADER_BYTES,
    MAGIC,
    Header,
    decode_header,
    encode_header,
    encode_record,
    find_record,
    record_size,
    scan,
)
from neo_storage.core.log_records import (
    LogAbort,
    LogAmnesty,
    LogCeilings,
    LogClear,
    LogCommit,
    LogEpoch,
    LogPiece,
    LogRecord,
    LogSeal,
    LogStored,
    LogUnvote,
    LogVote,
)
from neo_storage.core.tentative import MemorySpool
from support.memory_backend import MemoryBackend, State
from support.storage_rig import write

WORD = st.integers(0, 2**64 - 1)
SALTS = WORD
FIRSTS = st.integers(0, 2**62)


def ttids() -> st.SearchStrategy[Ttid]:
    return st.builds(Ttid, st.just(Session(1)), st.integers(1, 4))


ATTEMPTS = st.integers(1, 3)
PARTITIONS = st.sampled_from([Partition(0), Partition(1)])
TIDS = st.integers(1, 20).map(lambda n: Tid(n))


@st.composite
def votes(draw: st.DrawFn) -> LogVote:
    ttid, attempt, mode = draw(ttids()), draw(ATTEMPTS), draw(st.sampled_from(Mode))
    parts = sorted(draw(st.sets(PARTITIONS, min_size=1)))
    return LogVote(tuple(draw(records(ttid, attempt, mode, p)) for p in parts))


@st.composite
def records(draw: st.DrawFn, ttid: Ttid, attempt: int, mode: Mode, partition: Partition) -> Record:
    oids = draw(st.sets(st.integers(0, 5), max_size=3))
    writes = tuple(write(2 * n + partition, 0, bytes([n]) * n) for n in sorted(oids))
    tentative = draw(st.integers(0, 2))
    parts, metadata = (Partition(0), Partition(1)), Metadata(b"u", b"d", b"")
    return Record(ttid, attempt, partition, parts, metadata, tentative, writes, (), mode, NO_TID, NO_TID)


def stored(ttid: Ttid, partition: Partition, first: int, oids: list[int]) -> LogStored:
    return LogStored(ttid, partition, first, tuple(write(2 * n + partition, 0, b"ahead%d" % n) for n in oids))


RECORDS: st.SearchStrategy[LogRecord] = st.one_of(
    votes(),
    st.builds(stored, ttids(), PARTITIONS, st.integers(0, 2), st.lists(st.integers(10, 15), max_size=3, unique=True)),
    st.builds(LogPiece, ttids(), st.integers(0, 9).map(Oid), st.just(0), st.binary(min_size=1, max_size=9)),
    st.builds(LogUnvote, ttids(), ATTEMPTS, PARTITIONS),
    st.builds(LogCommit, ttids(), ATTEMPTS, TIDS, st.just(()), st.sampled_from([NO_TID, Tid(5)])),
    st.builds(LogAbort, ttids(), ATTEMPTS),
    st.builds(LogSeal, ttids(), ATTEMPTS),
    st.just(LogAmnesty()),
    st.builds(LogClear, PARTITIONS, st.just(NO_TID)),
    st.builds(LogEpoch, st.integers(1, 9)),
    st.builds(LogCeilings, st.builds(Ceilings, TIDS, st.integers(0, 99).map(Oid))),
)


class Segment(NamedTuple):
    """A segment as it stands on disk, and where each record ends."""

    header: Header
    data: bytes
    records: list[LogRecord]
    ends: list[int]


def build(header: Header, records: list[LogRecord]) -> Segment:
    data, ends = encode_header(header), []
    for position, record in enumerate(records, header.first):
        data += encode_record(position, record, header.salt)
        ends.append(len(data))
    return Segment(header, data, records, ends)


@st.composite
def segments(draw: st.DrawFn, min_size: int = 0) -> Segment:
    header = Header(draw(st.integers(0, 2**32)), draw(FIRSTS), draw(SALTS))
    return build(header, draw(st.lists(RECORDS, min_size=min_size, max_size=6)))


def read(header: Header, data: bytes) -> list[LogRecord]:
    return [found.record for found in scan(data, header)]


@given(segments())
def test_what_was_written_is_read(segment: Segment) -> None:
    assert decode_header(segment.data) == segment.header
    found = list(scan(segment.data, segment.header))
    assert [f.record for f in found] == segment.records
    assert [f.position for f in found] == [segment.header.first + n for n in range(len(found))]
    assert [f.offset + f.size for f in found] == segment.ends


@given(segments(), st.data())
def test_any_prefix_gives_the_records_that_are_whole_in_it(segment: Segment, data: st.DataObject) -> None:
    cut = data.draw(st.integers(HEADER_BYTES, len(segment.data)))
    whole = sum(end <= cut for end in segment.ends)
    assert read(segment.header, segment.data[:cut]) == segment.records[:whole]


@given(segments(min_size=1), st.binary(max_size=200), st.data())
def test_torn_tail_ends_the_log(segment: Segment, garbage: bytes, data: st.DataObject) -> None:
    cut = data.draw(st.integers(HEADER_BYTES, len(segment.data) - 1))
    whole = sum(end <= cut for end in segment.ends)
    torn = segment.data[:cut] + garbage
    if torn[: len(segment.data)] != segment.data:
        got = read(segment.header, torn)
        assert got[:whole] == segment.records[:whole]
        assert len(got) < len(segment.records)


@given(segments(min_size=1), st.data())
def test_any_flipped_bit_ends_the_log_before_it(segment: Segment, data: st.DataObject) -> None:
    bit = data.draw(st.integers(8 * HEADER_BYTES, 8 * len(segment.data) - 1))
    damaged = bytearray(segment.data)
    damaged[bit // 8] ^= 1 << bit % 8
    before = sum(end <= bit // 8 for end in segment.ends)
    assert read(segment.header, bytes(damaged)) == segment.records[:before]


@given(segments(), st.integers(0, 8 * HEADER_BYTES - 1))
def test_any_flipped_bit_of_a_header_is_noticed(segment: Segment, bit: int) -> None:
    damaged = bytearray(segment.data)
    damaged[bit // 8] ^= 1 << bit % 8
    try:
        assert decode_header(bytes(damaged)) is None
    except BackendError:
        assert bit // 8 == len(MAGIC) - 1, "it is taken for one of another version"


@given(st.binary(max_size=2 * HEADER_BYTES))
def test_garbage_is_no_header(garbage: bytes) -> None:
    assert decode_header(garbage) is None


@given(segments(), segments(min_size=1))
def test_nothing_of_an_earlier_use_is_taken_for_what_follows(new: Segment, old: Segment) -> None:
    """A recycled segment: the new records overwrite the beginning of the old ones."""
    if new.header.salt != old.header.salt:
        recycled = new.data + old.data[len(new.data) :]
        assert read(new.header, recycled) == new.records


@given(segments(min_size=2))
def test_record_is_found_at_its_own_position_only(segment: Segment) -> None:
    header, data = segment.header, segment.data
    assert record_size(data[HEADER_BYTES:]) == segment.ends[0] - HEADER_BYTES
    assert find_record(data, HEADER_BYTES, header.first, header.salt) is not None
    assert find_record(data, HEADER_BYTES, header.first + 1, header.salt) is None


# ---------------------------------------------------------------------------------------------- replay


def image_state(image: Image) -> object:
    return (
        image.position,
        {t: {p: (v.record, v.position) for p, v in parts.items()} for t, parts in image.voted.items()},
        {oid: sorted(writers) for oid, writers in image.writers.items()},
        image.decisions,
        image.tombstones,
        image.epoch,
        image.ceilings,
        image.undecided_bytes,
    )


def last(image: Image) -> tuple[int, int]:
    return image.last_tid, image.last_oid


def is_no_less(image: Image, kept: Kept) -> bool:
    """Whether its last tid and oid are at least those of the revisions that there are.

    When a cell is emptied they go down with the next start only: what goes by them needs no more than that.
    """
    return image.last_tid >= kept.last_tid and image.last_oid >= kept.last_oid


class Run(NamedTuple):
    """Records applied as the core does, and the back end after each of them."""

    log: list[tuple[int, LogRecord]]
    spool: MemorySpool
    image: Image
    states: list[State]
    needed: list[int]
    """For each position, what may be dropped when the back end is durable up to there, at the end."""
    end: Kept
    """What the back end has at the end."""


def run(records: list[LogRecord]) -> Run:
    """Apply *records*, but for those that no core would write: a vote of which a part never came."""
    backend, spool = MemoryBackend(), MemorySpool()
    image = Image(backend.open(), spool)
    run = Run([], spool, image, [], [], backend.open())
    for record in records:
        position = len(run.log)
        if isinstance(record, LogVote) and not all(image.tentative.complete(r, position).whole for r in record.records):
            continue
        run.log.append((position, record))
        spool.note(position, record)
        backend.apply(apply(image, position, record), position)
        run.states.append(backend.snapshot())
    for ttid in image.tentative.ttids():
        image.tentative.forget(ttid)
    run.needed.extend(image.needed_from(n) for n in range(len(run.log)))
    return run._replace(end=backend.open())


@settings(max_examples=100, deadline=None)
@given(st.lists(RECORDS, max_size=25))
def test_replay_makes_the_same_image_whatever_the_back_end_has(records: list[LogRecord]) -> None:
    made = run(records)
    for count in range(len(made.log) + 1):
        backend = MemoryBackend()
        if count:
            backend.restore(made.states[count - 1])
        image, lacking = replay(backend.open(), made.log, made.spool)
        assert image_state(image) == image_state(made.image)
        assert last(image) <= last(made.image)
        for position, ops in lacking:
            backend.apply(ops, position)
        if made.log:
            backend.apply([], len(made.log) - 1)
            assert backend.state == made.states[-1]


@settings(max_examples=100, deadline=None)
@given(st.lists(RECORDS, max_size=25))
def test_what_is_needed_is_enough(records: list[LogRecord]) -> None:
    made = run(records)
    for durable, needed in enumerate(made.needed):
        backend = MemoryBackend()
        backend.restore(made.states[durable])
        kept = [entry for entry in made.log if entry[0] >= needed]
        image, _ = replay(backend.open(), kept, made.spool)
        assert image_state(image) == image_state(made.image)
        assert last(image) <= last(made.image)
        assert is_no_less(image, made.end)
