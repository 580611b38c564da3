"""The codecs in cases that people can read: bytes on the wire, error texts, frames. Both, side by side.

That they agree on everything else is shown by property/test_codec.
"""

import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import NamedTuple

import pytest

from neo_common import extension
from neo_common.errors import LocalProtocolError, RemoteProtocolError
from neo_common.ids import Epoch, Oid, Partition, Ptid, Seconds, Session, Tid, Ttid, Version
from neo_common.model import _keys_c
from neo_common.model.partition_table import EMPTY, TableUpdate, whole
from neo_common.states import NodeState
from neo_common.wire import _codec_c, _codec_py, codec, document
from neo_common.wire.layout import Layout, Wire, layout_of
from neo_common.wire.schema import (
    CODES,
    FRAME_MAX,
    PACKETS,
    U32,
    AnswerLoad,
    AnswerPiece,
    AskLoad,
    Bytes16,
    Compression,
    Data,
    Error,
    ErrorCode,
    FwdStore,
    HelloNo,
    Kind,
    NewPT,
    NodeInfo,
    Nodes,
    Ping,
    RefusalCode,
    Store,
    Write,
)
from neo_storage.core import log_records

LOAD = AskLoad(Epoch(1), Oid(2), Tid(3))
DATA = Data(Compression.ZSTD, b"0123456789abcdef", 5, b"hello")
T = Ttid(Session(1), 1)
WRITE = Write(Oid(1), Tid(0), Tid(0), DATA)


@pytest.fixture(params=[_codec_py, _codec_c], ids=["reference", "fast"])
def either(request: pytest.FixtureRequest) -> ModuleType:
    """One codec, then the other."""
    assert isinstance(request.param, ModuleType)
    return request.param


# ---------------------------------------------------------------------------------------------- bytes


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (LOAD, "0000000000000001 0000000000000002 0000000000000003"),
        (Ping(), ""),
        (HelloNo(RefusalCode.CLUSTER, "no", "ü"), "01 00000002 6e6f 00000002 c3bc"),
        (DATA, "02 30313233343536373839616263646566 0000000000000005 00000005 68656c6c6f"),
        (Nodes(True, ()), "01 00000000"),
        (NewPT(whole(EMPTY)), "00000006 00 00 00 00 00 00"),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, tuple) else "",
)
def test_bytes_on_the_wire_are_these(either: ModuleType, value: tuple[object, ...], encoded: str) -> None:
    """They must not change within a protocol version; log records are on disk."""
    assert either.encode(value) == bytes.fromhex(encoded)
    assert either.decode(type(value), bytes.fromhex(encoded)) == value


def test_a_frame_is_header_and_payload(either: ModuleType) -> None:
    assert either.frame(LOAD, 7) == bytes.fromhex("00000018 0120 00000007") + either.encode(LOAD)
    assert len(either.frame(Ping())) == codec.HEADER_BYTES


def test_decoded_values_have_their_types(either: ModuleType) -> None:
    info = NodeInfo(3, "s1", "host:1", NodeState.RUNNING, 9, Seconds(2.5), "up")  # type: ignore[arg-type]
    (back,) = either.decode(Nodes, either.encode(Nodes(False, (info,)))).nodes
    assert type(back) is NodeInfo
    assert back.state is NodeState.RUNNING
    assert back.since == 2.5


def test_any_bytes_like_input_is_decoded_and_not_kept(either: ModuleType) -> None:
    for make in (bytes, bytearray, lambda data: memoryview(bytearray(data))):
        data = make(either.encode(AnswerPiece(b"value")))
        back = either.decode(AnswerPiece, data)
        if not isinstance(data, bytes):
            data[-1] = 0
        assert back == AnswerPiece(b"value")
        assert type(back.value) is bytes


def test_a_value_of_many_megabytes_is_coded(either: ModuleType) -> None:
    packet = AnswerPiece(bytes(range(256)) * 40_000)
    assert either.decode(AnswerPiece, either.encode(packet)) == packet


# ---------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (LOAD._replace(oid=Oid(-1)), r"AskLoad.oid: -0x1 is outside 0..0xffffffffffffffff"),
        (LOAD._replace(oid=Oid(2**64)), r"AskLoad.oid: 0x10000000000000000 is outside"),
        (AskLoad(Epoch(1), b"\0" * 8, Tid(3)), r"AskLoad.oid: a bytes where Oid is wanted"),  # type: ignore[arg-type]
        (AskLoad(Epoch(1), True, Tid(3)), r"AskLoad.oid: a bool where Oid is wanted"),  # type: ignore[arg-type]
        (Error(ErrorCode.ILLEGAL, "\ud800"), r"Error.text: the text has characters that UTF-8 has not"),
        (Error(3, "x"), r"Error.code: a int where ErrorCode is wanted"),  # type: ignore[arg-type]
        (AnswerLoad(Tid(1), Tid(0), DATA._replace(checksum=b"")), r"AnswerLoad.data.checksum: 0 bytes, not 16"),
        (AnswerLoad(Tid(1), Tid(0), None), r"AnswerLoad.data: a NoneType where Data is wanted"),  # type: ignore[arg-type]
        (Nodes(1, ()), r"Nodes.whole: a int where bool is wanted"),  # type: ignore[arg-type]
        (Nodes(True, []), r"Nodes.nodes: a list where tuple\[NodeInfo, ...\] is wanted"),  # type: ignore[arg-type]
        (
            Store(T, Epoch(1), Partition(0), 0, (WRITE, WRITE._replace(base=Tid(-2)))),
            r"Store.writes\[1\].base: -0x2 is outside",
        ),
        (
            NewPT(TableUpdate(None, Version(Epoch(1), Ptid(1)), 1, 2, ())),
            r"NewPT.table: 0 rows of 2 in a whole table",
        ),
        (("no", "packet"), r"tuple is not a NamedTuple: it cannot be encoded"),
    ],
)
def test_what_does_not_fit_is_our_error(either: ModuleType, value: tuple[object, ...], text: str) -> None:
    with pytest.raises(LocalProtocolError, match=f"^{text}"):
        either.encode(value)


@pytest.mark.parametrize(
    ("cls", "data", "text"),
    [
        (AskLoad, "00", "AskLoad.epoch: 8 bytes wanted, 1 left"),
        (Ping, "00", "Ping: 1 bytes after the end"),
        (HelloNo, "63 00000000 00000000", "HelloNo.code: 99 is no RefusalCode"),
        (HelloNo, "01 ffffffff 00", "HelloNo.reason: 4294967295 bytes wanted, 1 left"),
        (HelloNo, "01 00000001 ff 00000000", "HelloNo.reason: the text is not UTF-8"),
        (Nodes, "02 00000000", "Nodes.whole: 2 where 0 or 1 is wanted"),
        (Nodes, "01 ffffffff", r"Nodes.nodes: 4294967295 items announced, 0 bytes left"),
        (NewPT, "00000001 04", "NewPT.table: kind: 0x4 is outside 0..0x3"),
    ],
)
def test_what_no_frame_makes_is_the_peers_error(either: ModuleType, cls: type, data: str, text: str) -> None:
    with pytest.raises(RemoteProtocolError, match=f"^{text}$"):
        either.decode(cls, bytes.fromhex(data))


def test_a_place_deep_inside_is_named(either: ModuleType) -> None:
    store = Store(T, Epoch(1), Partition(0), 0, (WRITE, WRITE))
    data = bytearray(either.encode(FwdStore(Epoch(1), Version(Epoch(1), Ptid(1)), store)))
    data[-len(either.encode(DATA))] = 9
    text = r"^FwdStore.store.writes\[1\].data.compression: 9 is no Compression$"
    with pytest.raises(RemoteProtocolError, match=text):
        either.decode(FwdStore, data)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), 10**400, True, "1"])
def test_a_moment_is_a_finite_number(either: ModuleType, number: object) -> None:
    info = NodeInfo(3, "", "", NodeState.RUNNING, 9, number, "")  # type: ignore[arg-type]
    with pytest.raises(LocalProtocolError, match="since"):
        either.encode(info)


def test_whole_numbers_pass_for_seconds(either: ModuleType) -> None:
    info = NodeInfo(3, "", "", NodeState.RUNNING, 9, 4, "")  # type: ignore[arg-type]
    assert either.decode(NodeInfo, either.encode(info)).since == 4.0


@pytest.mark.parametrize("count", [0, 2, 4])
def test_fields_that_are_missing_or_too_many_are_our_error(either: ModuleType, count: int) -> None:
    """NamedTuples check their arguments; `tuple.__new__` and pickles do not."""
    with pytest.raises(LocalProtocolError, match=f"AskLoad: {count} fields, not 3"):
        either.encode(tuple.__new__(AskLoad, range(count)))


def test_classes_that_are_no_namedtuples_cannot_be_decoded(either: ModuleType) -> None:
    with pytest.raises(LocalProtocolError):
        either.decode(int, b"")


# ---------------------------------------------------------------------------------------------- frames


def test_only_packets_go_into_frames(either: ModuleType) -> None:
    with pytest.raises(LocalProtocolError, match="Data is not a packet"):
        either.frame(DATA)


def test_request_ids_are_for_questions_and_answers_only(either: ModuleType) -> None:
    with pytest.raises(LocalProtocolError, match="Ping: a notification with request id 1"):
        either.frame(Ping(), 1)
    with pytest.raises(LocalProtocolError, match="AskLoad: a question or answer without request id"):
        either.frame(LOAD)
    with pytest.raises(LocalProtocolError, match="0x100000000 is outside"):
        either.frame(LOAD, 2**32)


def test_a_payload_beyond_the_limit_is_not_sent(either: ModuleType) -> None:
    assert len(either.frame(AnswerPiece(bytes(FRAME_MAX - 4)), 1)) == codec.HEADER_BYTES + FRAME_MAX
    with pytest.raises(LocalProtocolError, match="AnswerPiece: 16777217 bytes"):
        either.frame(AnswerPiece(bytes(FRAME_MAX - 3)), 1)


@pytest.mark.parametrize(
    ("header", "text"),
    [
        ("01000001 8121 00000001", "AnswerPiece: a frame of 16777217 bytes, more than 16777216"),
        ("00000000 7777 00000000", "unknown packet code 0x7777"),
        ("00000000 0005 00000001", "Ping: a notification with request id 1"),
        ("00000018 0120 00000000", "AskLoad: a question or answer without request id"),
    ],
)
def test_a_header_is_judged_before_its_payload_comes(either: ModuleType, header: str, text: str) -> None:
    reader = either.FrameReader()
    data = bytes.fromhex(header)
    assert reader.feed(data[:-1]) == []
    with pytest.raises(RemoteProtocolError, match=f"^{text}$"):
        reader.feed(data[-1:])
    with pytest.raises(RemoteProtocolError, match=f"^{text}$"):  # and there is no way back
        reader.feed(either.frame(Ping()))
    assert reader.buffered == 0


def test_frames_before_and_after_a_cut_arrive(either: ModuleType) -> None:
    stream = either.frame(Ping()) + either.frame(LOAD, 1) + either.frame(Error(ErrorCode.NOT_FOUND, "no"), 2)
    reader = either.FrameReader()
    assert reader.feed(stream[:30]) == [(0, Ping())]
    assert reader.buffered == 20
    assert reader.feed(memoryview(bytearray(stream[30:]))) == [(1, LOAD), (2, Error(ErrorCode.NOT_FOUND, "no"))]
    assert reader.buffered == 0
    assert reader.feed(b"") == []


def test_a_large_frame_is_assembled_from_small_pieces(either: ModuleType) -> None:
    packet = AnswerPiece(bytes(FRAME_MAX - 4))
    stream = either.frame(packet, 1) + either.frame(Ping())
    reader = either.FrameReader()
    found = [pair for start in range(0, len(stream), 9_999) for pair in reader.feed(stream[start : start + 9_999])]
    assert found == [(1, packet), (0, Ping())]
    assert reader.feed(either.frame(LOAD, 3)) == [(3, LOAD)]


def test_an_announced_frame_takes_no_memory_before_it_comes() -> None:
    """The reference's buffer is as large as what it was fed; this is about the fast one's."""
    readers = [_codec_c.FrameReader() for _ in range(2000)]
    before = _resident_kb()
    for reader in readers:
        reader.feed(bytes.fromhex("01000000 8121 00000001") + b"some")
    assert _resident_kb() - before < 20_000  # not 32 GB
    assert readers[0].buffered == 14


def _resident_kb() -> int:
    return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if "VmRSS" in line)


# ---------------------------------------------------------------------------------------------- schema and layout


def test_every_packet_and_log_record_has_a_layout() -> None:
    for cls in [*CODES, *log_records.CODES.values()]:
        layout = layout_of(cls)
        assert [field.name for field in layout.fields] == list(cls._fields)  # type: ignore[attr-defined]


def test_every_question_has_its_answer_going_back() -> None:
    for code, info in PACKETS.items():
        if info.kind is Kind.QUESTION:
            answer = PACKETS[code | 0x8000]
            assert answer.kind is Kind.ANSWER
            assert answer.cls.__name__ == info.cls.__name__.replace("Ask", "Answer", 1)
            assert (answer.senders, answer.receivers) == (info.receivers, info.senders)


def test_layouts_say_what_annotations_say() -> None:
    class Part(NamedTuple):
        oid: Oid
        sum: Bytes16 | None

    class Whole(NamedTuple):
        number: U32
        parts: tuple[Part, ...]

    layout = layout_of(Whole)
    assert layout.fields[0].layout == Layout(Wire.U32, "U32", 4)
    assert layout.fields[1].layout.name == "tuple[Part, ...]"
    part = layout.fields[1].layout.item
    assert part is not None
    assert part.min_size == 9
    assert [field.layout.name for field in part.fields] == ["Oid", "Bytes16 | None"]


class Huge(IntEnum):
    MUCH = 256


class Empty(NamedTuple):
    pass


UNABLE: list[object] = [float, list[int], dict, tuple[int, str], int | str, Huge, tuple[Empty, ...], object]


@pytest.mark.parametrize("annotation", UNABLE)
def test_annotations_that_do_not_travel_are_errors_at_once(annotation: object) -> None:
    Odd = namedtuple("Odd", ["field"])
    Odd.__annotations__ = {"field": annotation}
    with pytest.raises(TypeError, match=r"Odd\.field"):
        layout_of(Odd)


def test_the_fast_codec_has_the_constants_of_the_reference() -> None:
    assert {wire.name: int(wire) for wire in Wire} == _codec_c.WIRE


def test_the_protocol_page_is_current() -> None:
    page = Path(__file__).parents[2] / "docs" / "protocol.md"
    assert page.read_text() == document.page(), "python -m neo_common.wire.document > docs/protocol.md"


def test_the_protocol_page_has_every_packet_and_its_text() -> None:
    page = document.page()
    for code, info in PACKETS.items():
        assert f"#### {info.cls.__name__} `{code:#06x}`" in page
    assert "| before | Tid |" in page
    assert "| you | NodeId | The id of the node that dialled: given now if it had none. |" in page


# ---------------------------------------------------------------------------------------------- the choice of codec


def test_the_compiled_codec_is_used_unless_the_reference_is_chosen() -> None:
    program = "from neo_common.wire import codec as c; from neo_common.model import keys as k; " + (
        "print(c.frame.__module__, k.encode_update.__module__)"
    )
    for pure, suffix in (("", "_c"), ("1", "_py")):
        run = [sys.executable, "-c", program]
        out = subprocess.run(run, env={"NEO_PURE_PYTHON": pure}, capture_output=True, text=True, check=True, timeout=60)
        assert out.stdout.split() == [f"neo_common.wire._codec{suffix}", f"neo_common.model._keys{suffix}"]


def test_a_missing_extension_names_the_command() -> None:
    text = r"neo_common\.wire\._gone .*pip install.*NEO_PURE_PYTHON=1"
    with pytest.raises(ImportError, match=text), extension.Extension("neo_common.wire._gone"):
        raise ImportError("no such file")


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes, bytes | None], None]:
    """A function that puts an extension `built_c`, made from some source, beside another source or none."""

    def build(made_from: bytes, beside: bytes | None) -> None:
        if beside is not None:
            (tmp_path / "built_c.pyx").write_bytes(beside)
        module = SimpleNamespace(__file__=str(tmp_path / "built_c.so"), SOURCE=extension.fingerprint(made_from))
        monkeypatch.setitem(sys.modules, "built_c", module)

    return build


def test_a_stale_extension_names_the_command(built: Callable[[bytes, bytes | None], None]) -> None:
    built(b"old", b"new")
    with pytest.raises(ImportError, match=r"built_c is stale.*pip install"), extension.Extension("built_c"):
        pass


@pytest.mark.parametrize("beside", [b"same", None], ids=["editable", "wheel"])
def test_a_current_extension_is_taken(built: Callable[[bytes, bytes | None], None], beside: bytes | None) -> None:
    built(b"same", beside)
    with extension.Extension("built_c"):
        pass


def test_the_extensions_of_this_run_are_current() -> None:
    for module in (_codec_c, _keys_c):
        assert module.__file__ is not None
        source = Path(module.__file__).with_name(f"{module.__name__.rpartition('.')[2]}.pyx")
        assert extension.fingerprint(source.read_bytes()) == module.SOURCE
