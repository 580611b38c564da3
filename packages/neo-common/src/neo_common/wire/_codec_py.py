"""The reference codec: slow, obvious, the oracle of `_codec_c`. Pure.

The two have the same functions, results and errors, down to the texts. What must be checked, and in which order, is
decided here: fields from left to right, depth first; lengths and counts before anything is allocated.
"""

from collections.abc import Callable
from math import isfinite
from struct import Struct
from typing import Final, NoReturn, TypeVar, cast

from neo_common.errors import LocalProtocolError, RemoteProtocolError
from neo_common.model._keys_py import decode_update, encode_update
from neo_common.model.partition_table import TableUpdate
from neo_common.wire.layout import Layout, Wire, is_struct, layout_of
from neo_common.wire.schema import CODES, FRAME_MAX, PACKETS, Kind, Packet

_T = TypeVar("_T")
_Buffer = bytes | bytearray | memoryview

_HEADER: Final = Struct(">IHI")
_DOUBLE: Final = Struct(">d")
_WIDTHS: Final = {Wire.U8: 1, Wire.U16: 2, Wire.U32: 4, Wire.U64: 8}
_U32_MAX: Final = 2**32 - 1


class _Misfit(Exception):
    """A value, or bytes, do not fit: where (innermost part first) and why."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why
        self.path: list[str] = []

    def text(self, start: str) -> str:
        return f"{start}{''.join(reversed(self.path))}: {self.why}"


# ---------------------------------------------------------------------------------------------- encoding


def encode(value: Packet) -> bytes:
    """Return *value*, an instance of a NamedTuple class with schema annotations, as bytes.

    Raises: LocalProtocolError when it, or anything in it, does not fit its annotation.
    """
    cls = type(value)
    if not is_struct(cls):
        raise LocalProtocolError(f"{cls.__name__} is not a NamedTuple: it cannot be encoded")
    out = bytearray()
    try:
        _write(layout_of(cls), value, out)
    except _Misfit as misfit:
        raise LocalProtocolError(misfit.text(cls.__name__)) from misfit.__cause__
    return bytes(out)


def frame(packet: Packet, request: int = 0) -> bytes:
    """Return the frame of *packet*: header and payload.

    *request* is 0 for notifications, and only for them. Raises: LocalProtocolError when *packet* is none, does not
    fit its annotations, or takes more than FRAME_MAX bytes.
    """
    name = type(packet).__name__
    code = CODES.get(type(packet))
    if code is None:
        raise LocalProtocolError(f"{name} is not a packet")
    if not 0 <= request <= _U32_MAX:
        raise LocalProtocolError(f"{name}: request id {request:#x} is outside 0..{_U32_MAX:#x}")
    if (PACKETS[code].kind is Kind.NOTIFICATION) != (request == 0):
        raise LocalProtocolError(_wrong_request(name, request))
    payload = encode(packet)
    if len(payload) > FRAME_MAX:
        raise LocalProtocolError(f"{name}: {len(payload)} bytes, more than a frame of {FRAME_MAX} can carry")
    return _HEADER.pack(len(payload), code, request) + payload


def _wrong_request(name: str, request: int) -> str:
    if request:
        return f"{name}: a notification with request id {request}"
    return f"{name}: a question or answer without request id"


def _write(layout: Layout, value: object, out: bytearray) -> None:
    match layout.wire:
        case Wire.U8 | Wire.U16 | Wire.U32 | Wire.U64:
            if not isinstance(value, int) or isinstance(value, bool):
                raise _wrong_type(layout, value)
            width = _WIDTHS[layout.wire]
            top = (1 << 8 * width) - 1
            if not 0 <= value <= top:
                raise _Misfit(f"{value:#x} is outside 0..{top:#x}")
            out += value.to_bytes(width, "big")
        case Wire.BOOL:
            if not isinstance(value, bool):
                raise _wrong_type(layout, value)
            out.append(value)
        case Wire.DOUBLE:
            if not isinstance(value, (int, float)) or isinstance(value, bool):
                raise _wrong_type(layout, value)
            try:
                number = float(value)
            except OverflowError:
                raise _Misfit("the number is too large") from None
            if not isfinite(number):
                raise _Misfit("the number is not finite")
            out += _DOUBLE.pack(number)
        case Wire.BYTES16:
            if not isinstance(value, bytes):
                raise _wrong_type(layout, value)
            if len(value) != 16:
                raise _Misfit(f"{len(value)} bytes, not 16")
            out += value
        case Wire.BYTES:
            if not isinstance(value, bytes):
                raise _wrong_type(layout, value)
            _write_bytes(value, out)
        case Wire.TEXT:
            if not isinstance(value, str):
                raise _wrong_type(layout, value)
            try:
                text = value.encode()
            except UnicodeEncodeError:
                raise _Misfit("the text has characters that UTF-8 has not") from None
            _write_bytes(text, out)
        case Wire.TABLE:
            if not isinstance(value, TableUpdate):
                raise _wrong_type(layout, value)
            try:
                packed = encode_update(value)
            except LocalProtocolError as error:
                raise _Misfit(str(error)) from error
            _write_bytes(packed, out)
        case Wire.ENUM:
            assert layout.cls is not None
            if not isinstance(value, layout.cls):
                raise _wrong_type(layout, value)
            out.append(cast(int, value))
        case Wire.STRUCT:
            assert layout.cls is not None
            if not isinstance(value, layout.cls):
                raise _wrong_type(layout, value)
            _write_fields(layout, cast(tuple[object, ...], value), out)
        case Wire.TUPLE:
            assert layout.item is not None
            if not isinstance(value, tuple):
                raise _wrong_type(layout, value)
            _write_length(len(value), out)
            for index, item in enumerate(value):
                try:
                    _write(layout.item, item, out)
                except _Misfit as misfit:
                    misfit.path.append(f"[{index}]")
                    raise
        case Wire.OPTIONAL:
            assert layout.item is not None
            out.append(value is not None)
            if value is not None:
                _write(layout.item, value, out)


def _write_fields(layout: Layout, values: tuple[object, ...], out: bytearray) -> None:
    if len(values) != len(layout.fields):
        raise _Misfit(f"{len(values)} fields, not {len(layout.fields)}")
    for field, value in zip(layout.fields, values, strict=True):
        try:
            _write(field.layout, value, out)
        except _Misfit as misfit:
            misfit.path.append(f".{field.name}")
            raise


def _write_length(length: int, out: bytearray) -> None:
    if length > _U32_MAX:
        raise _Misfit(f"a length of {length} does not fit in 32 bits")
    out += length.to_bytes(4, "big")


def _write_bytes(value: bytes, out: bytearray) -> None:
    _write_length(len(value), out)
    out += value


def _wrong_type(layout: Layout, value: object) -> _Misfit:
    return _Misfit(f"a {type(value).__name__} where {layout.name} is wanted")


# ---------------------------------------------------------------------------------------------- decoding


class _Input:
    """Bytes and how far they have been read."""

    __slots__ = ("data", "position")

    def __init__(self, data: _Buffer) -> None:
        self.data = memoryview(data).cast("B")
        self.position = 0

    @property
    def left(self) -> int:
        return len(self.data) - self.position

    def take(self, size: int) -> bytes:
        if size > self.left:
            raise _Misfit(f"{size} bytes wanted, {self.left} left")
        start, self.position = self.position, self.position + size
        return bytes(self.data[start : self.position])

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "big")


def decode(cls: Callable[..., _T], data: _Buffer) -> _T:
    """Return the instance of the NamedTuple class *cls* that *data*, all of it, encodes.

    Raises: RemoteProtocolError, with packet and field, when `encode` makes no such bytes; LocalProtocolError when
    *cls* is no such class.
    """
    if not is_struct(cls):
        raise LocalProtocolError(f"{getattr(cls, '__name__', cls)} is not a NamedTuple: it cannot be decoded")
    layout = layout_of(cast(type, cls))
    source = _Input(data)
    try:
        value = _read(layout, source)
        if source.left:
            raise _Misfit(f"{source.left} bytes after the end")
    except _Misfit as misfit:
        raise RemoteProtocolError(misfit.text(layout.name)) from misfit.__cause__
    return cast(_T, value)


def _read(layout: Layout, source: _Input) -> object:
    match layout.wire:
        case Wire.U8 | Wire.U16 | Wire.U32 | Wire.U64:
            return source.number(_WIDTHS[layout.wire])
        case Wire.BOOL:
            return _read_flag(source)
        case Wire.DOUBLE:
            (number,) = _DOUBLE.unpack(source.take(8))
            if not isfinite(number):
                raise _Misfit("the number is not finite")
            return number
        case Wire.BYTES16:
            return source.take(16)
        case Wire.BYTES:
            return source.take(source.number(4))
        case Wire.TEXT:
            try:
                return source.take(source.number(4)).decode()
            except UnicodeDecodeError:
                raise _Misfit("the text is not UTF-8") from None
        case Wire.TABLE:
            try:
                return decode_update(source.take(source.number(4)))
            except RemoteProtocolError as error:
                raise _Misfit(str(error)) from error
        case Wire.ENUM:
            assert layout.cls is not None
            byte = source.number(1)
            try:
                return layout.cls(byte)
            except ValueError:
                raise _Misfit(f"{byte} is no {layout.name}") from None
        case Wire.STRUCT:
            assert layout.cls is not None
            values = []
            for field in layout.fields:
                try:
                    values.append(_read(field.layout, source))
                except _Misfit as misfit:
                    misfit.path.append(f".{field.name}")
                    raise
            return layout.cls(*values)
        case Wire.TUPLE:
            return _read_tuple(layout, source)
        case Wire.OPTIONAL:
            assert layout.item is not None
            return _read(layout.item, source) if _read_flag(source) else None


def _read_flag(source: _Input) -> bool:
    byte = source.number(1)
    if byte > 1:
        raise _Misfit(f"{byte} where 0 or 1 is wanted")
    return bool(byte)


def _read_tuple(layout: Layout, source: _Input) -> tuple[object, ...]:
    assert layout.item is not None
    count = source.number(4)
    if count * layout.item.min_size > source.left:
        raise _Misfit(f"{count} items announced, {source.left} bytes left")
    values = []
    for index in range(count):
        try:
            values.append(_read(layout.item, source))
        except _Misfit as misfit:
            misfit.path.append(f"[{index}]")
            raise
    return tuple(values)


class FrameReader:
    """Cuts a stream of bytes into frames and decodes each.

    A header is judged as soon as it is complete: nobody fills our memory with a frame that we would not take. After
    an error the reader is dead: the stream has lost its rhythm.
    """

    __slots__ = ("_buffer", "_error")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._error: str | None = None

    @property
    def buffered(self) -> int:
        """How many bytes wait for the rest of their frame."""
        return len(self._buffer)

    def feed(self, data: _Buffer) -> list[tuple[int, Packet]]:
        """Return the (request id, packet) that *data* completes, in order.

        Raises: RemoteProtocolError when something was not legal; packets that the same *data* completed before it
        are lost with the connection. Every later call raises the same.
        """
        if self._error is not None:
            raise RemoteProtocolError(self._error)
        buffer = self._buffer
        buffer += data
        frames: list[tuple[int, Packet]] = []
        start = 0
        while len(buffer) - start >= _HEADER.size:
            size, code, request = _HEADER.unpack_from(buffer, start)
            info = PACKETS.get(code)
            if info is None:
                self._fail(f"unknown packet code {code:#06x}")
            if (info.kind is Kind.NOTIFICATION) != (request == 0):
                self._fail(_wrong_request(info.cls.__name__, request))
            if size > FRAME_MAX:
                self._fail(f"{info.cls.__name__}: a frame of {size} bytes, more than {FRAME_MAX}")
            stop = start + _HEADER.size + size
            if len(buffer) < stop:
                break
            try:
                packet = decode(info.cls, bytes(buffer[start + _HEADER.size : stop]))
            except RemoteProtocolError as error:
                self._fail(str(error))
            frames.append((request, packet))
            start = stop
        del buffer[:start]
        return frames

    def _fail(self, text: str) -> NoReturn:
        self._error = text
        self._buffer = bytearray()
        raise RemoteProtocolError(text)
