"""The codecs: any packet comes back, and the fast one does what the reference does, on packets and on garbage."""

from collections.abc import Callable
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neo_common.errors import NeoError
from neo_common.wire import _codec_c as fast
from neo_common.wire import _codec_py as reference
from neo_common.wire.layout import layout_of
from neo_common.wire.schema import CODES, PACKETS, Kind, Packet
from support.packets import CLASSES, filled, instances, outcome, packets, spoilt

WRONG: list[object] = [
    None, True, -1, 256, 2**16, 2**32, 2**64, -(2**70), 1.5, float("nan"), float("inf"), 10**400, "", "x" * 20,
    "\ud800", b"", b"x" * 15, b"x" * 17, bytearray(16), (), (1, 2), [], object,
]  # fmt: skip
"""What fits some annotations and no others."""


def request_of(packet: Packet) -> int:
    return 0 if PACKETS[CODES[type(packet)]].kind is Kind.NOTIFICATION else 7


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


def fed(make: Callable[[], fast.FrameReader | reference.FrameReader], parts: list[bytes]) -> list[tuple[str, str]]:
    """What a new reader says to each part, and what it keeps."""
    reader = make()
    return [(*outcome(reader.feed, part), str(reader.buffered)) for part in parts]  # type: ignore[misc]


@given(st.data(), st.sampled_from(CLASSES))
@settings(max_examples=400, deadline=None)
def test_any_packet_and_log_record_comes_back(data: st.DataObject, cls: type) -> None:
    value = data.draw(instances(cls))
    encoded = reference.encode(value)
    assert fast.encode(value) == encoded
    assert reference.decode(cls, encoded) == value
    assert outcome(fast.decode, cls, encoded) == outcome(reference.decode, cls, encoded) == (cls.__name__, repr(value))


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_each_class_is_coded_alike_whole_truncated_and_mutated(cls: type) -> None:
    """With every part present: each prefix, each byte replaced, a byte too many."""
    rng = Random(cls.__name__)
    value = filled(layout_of(cls), rng)
    encoded = reference.encode(value)  # type: ignore[arg-type]
    assert fast.encode(value) == encoded  # type: ignore[arg-type]
    assert fast.decode(cls, encoded) == reference.decode(cls, encoded) == value
    spots = sorted(rng.sample(range(len(encoded)), min(len(encoded), 120)))
    spoils = [encoded[:spot] for spot in spots] + [encoded + b"\0"]
    for spot in spots:
        for byte in (0, 1, 0xFF, encoded[spot] ^ 1 << rng.randrange(8)):
            spoils.append(encoded[:spot] + bytes([byte]) + encoded[spot + 1 :])
    for spoil in spoils:
        assert outcome(fast.decode, cls, spoil) == outcome(reference.decode, cls, spoil), spoil.hex()
    for prefix in spoils[: len(spots)]:
        with pytest.raises(NeoError, match=cls.__name__):
            fast.decode(cls, prefix)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_values_that_do_not_fit_are_refused_alike(cls: type) -> None:
    """Every thing in a packet of that class, replaced by each of WRONG."""
    value = filled(layout_of(cls), Random(cls.__name__))
    for bad in WRONG:
        for spoil in spoilt(value, bad):
            assert outcome(fast.encode, spoil) == outcome(reference.encode, spoil)


@given(st.sampled_from(CLASSES), st.binary(max_size=80))
@settings(max_examples=400, deadline=None)
def test_garbage_is_decoded_alike(cls: type, garbage: bytes) -> None:
    assert outcome(fast.decode, cls, garbage) == outcome(reference.decode, cls, garbage)


@given(st.lists(packets(), max_size=4), st.lists(st.integers(0, 2000), max_size=5))
@settings(max_examples=150, deadline=None)
def test_frames_come_back_however_they_are_cut(sent: list[Packet], cuts: list[int]) -> None:
    stream = b"".join(fast.frame(packet, request_of(packet)) for packet in sent)
    assert stream == b"".join(reference.frame(packet, request_of(packet)) for packet in sent)
    wanted = [(request_of(packet), packet) for packet in sent]
    for parts in ([stream], pieces(stream, cuts), pieces(stream, [len(stream) // 2]), [bytes([b]) for b in stream]):
        for make in (fast.FrameReader, reference.FrameReader):
            reader = make()
            assert [found for part in parts for found in reader.feed(part)] == wanted
            assert reader.buffered == 0


@given(
    st.lists(packets(), min_size=1, max_size=3),
    st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=3),
    st.binary(max_size=20),
    st.lists(st.integers(0, 4000), max_size=4),
)
@settings(max_examples=250, deadline=None)
def test_spoilt_streams_are_judged_alike(
    sent: list[Packet], changes: list[tuple[int, int]], tail: bytes, cuts: list[int]
) -> None:
    """Bytes changed anywhere, headers included, and garbage behind: whole, in pieces and byte by byte."""
    stream = bytearray(b"".join(reference.frame(packet, request_of(packet)) for packet in sent) + tail)
    for place, byte in changes:
        stream[place % len(stream)] = byte
    whole = bytes(stream)
    for parts in ([whole], pieces(whole, cuts), [bytes([byte]) for byte in whole[:400]]):
        assert fed(fast.FrameReader, parts) == fed(reference.FrameReader, parts)


@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=3))
@settings(max_examples=150, deadline=None)
def test_garbage_streams_are_judged_alike(garbage: bytes, cuts: list[int]) -> None:
    for parts in ([garbage], pieces(garbage, cuts), [bytes([byte]) for byte in garbage]):
        assert fed(fast.FrameReader, parts) == fed(reference.FrameReader, parts)


@given(packets(), st.integers(-(2**65), 2**65))
@settings(max_examples=60, deadline=None)
def test_request_ids_are_checked_alike(packet: Packet, request: int) -> None:
    assert outcome(fast.frame, packet, request) == outcome(reference.frame, packet, request)
