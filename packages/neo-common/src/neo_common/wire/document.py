"""The page docs/protocol.md, made from the schema: `python -m neo_common.wire.document > docs/protocol.md`. Pure.

What a class or a field is for is read from the docstring below it, so the page says what the code says.
"""

import ast
import inspect
import sys
from collections.abc import Iterator
from enum import IntEnum
from types import ModuleType
from typing import Final

from neo_common import ids, states
from neo_common.model import _keys_py
from neo_common.states import Role
from neo_common.wire import schema
from neo_common.wire.layout import Layout, Wire, layout_of
from neo_common.wire.schema import ANSWER_CODE, FRAME_MAX, MAGIC, PACKETS, PIECE_BYTES, PROTOCOL_VERSION, PacketInfo

GROUPS: Final = {
    0: "Every session",
    1: "Client and storage",
    2: "Storage and storage",
    3: "Client and master",
    4: "Storage and master",
    5: "Masters",
    6: "Administration",
}
"""High byte of a code, without the bit of answers, to who talks."""

_WIRES: Final = {
    Wire.U8: ("1", "unsigned"),
    Wire.U16: ("2", "unsigned, big-endian"),
    Wire.U32: ("4", "unsigned, big-endian"),
    Wire.U64: ("8", "unsigned, big-endian"),
    Wire.BOOL: ("1", "0 or 1, nothing else"),
    Wire.DOUBLE: ("8", "IEEE 754 double, big-endian; never infinite, never not a number"),
    Wire.BYTES16: ("16", "the bytes"),
    Wire.BYTES: ("4 + n", "U32 length, then the bytes"),
    Wire.TEXT: ("4 + n", "as bytes, in UTF-8"),
    Wire.TABLE: ("4 + n", "as bytes, packed with compact keys: see the last section"),
    Wire.ENUM: ("1", "the number of a member"),
    Wire.STRUCT: ("", "the fields, in order, nothing between them"),
    Wire.TUPLE: ("4 + ...", "U32 count, then the items"),
    Wire.OPTIONAL: ("1 + ...", "0 for none, or 1 and the value"),
}
_SPELLED: Final = {
    Wire.U64: "U64, Oid, Tid, Epoch, Session, Ptid",
    Wire.U32: "U32, Partition, NodeId",
    Wire.DOUBLE: "Seconds",
    Wire.BOOL: "bool",
    Wire.BYTES16: "Bytes16",
    Wire.BYTES: "bytes",
    Wire.TEXT: "str",
    Wire.TABLE: "TableUpdate",
    Wire.ENUM: "an enumeration",
    Wire.STRUCT: "a part",
    Wire.TUPLE: "tuple[X, ...]",
    Wire.OPTIONAL: "X | None",
}


class Texts:
    """The docstrings of classes and of their fields or members, from the source of *module*."""

    def __init__(self, module: ModuleType) -> None:
        self.classes: dict[str, str] = {}
        self.fields: dict[tuple[str, str], str] = {}
        for statement in ast.parse(inspect.getsource(module)).body:
            if isinstance(statement, ast.ClassDef):
                self._read(statement)

    def _read(self, cls: ast.ClassDef) -> None:
        self.classes[cls.name] = inspect.cleandoc(ast.get_docstring(cls) or "").partition("\n\n>>>")[0]
        last = None
        for statement in cls.body:
            match statement:
                case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
                    last = name
                case ast.Expr(value=ast.Constant(value=str(text))) if last is not None:
                    self.fields[cls.name, last] = " ".join(text.split())


def page() -> str:
    """Return the whole page, as Markdown."""
    texts = Texts(schema)
    for module in (ids, states):
        other = Texts(module)
        texts.classes |= other.classes
        texts.fields |= other.fields
    return "\n".join(
        [
            *_introduction(),
            *_packets(texts),
            *_parts(texts),
            *_enumerations(texts),
            "## Partition tables",
            "",
            "```text",
            inspect.cleandoc(_keys_py.__doc__ or "").partition("\n\n")[2],
            "```",
            "",
        ]
    )


def _introduction() -> Iterator[str]:
    yield "# Protocol"
    yield ""
    yield "Made from `neo_common/wire/schema.py` by `python -m neo_common.wire.document > docs/protocol.md`; a test"
    yield "fails when the two differ. Do not edit."
    yield ""
    yield f"This is version {PROTOCOL_VERSION}. How packets make a transaction permanent: `commit-protocol.md`."
    yield ""
    yield "## Frames"
    yield ""
    yield f"Each side first sends the {len(MAGIC)} bytes `{MAGIC.hex(' ')}`, then frames:"
    yield ""
    yield "| bytes | what |"
    yield "|---|---|"
    yield f"| 4 | U32, length of the payload, at most {FRAME_MAX:,} |"
    yield "| 2 | U16, code of the packet |"
    yield "| 4 | U32, request id |"
    yield "| n | payload: the fields of the packet, in order |"
    yield ""
    yield f"A notification has request id 0. An answer has the code of its question with the bit `{ANSWER_CODE:#06x}`,"
    yield f"and its request id; `Error` answers any question. Values above {PIECE_BYTES:,} bytes travel in pieces of"
    yield "that size. Whatever is not exactly as described here (an unknown code, a length or count beyond the end, a"
    yield "byte too many, an unknown member of an enumeration...) ends the connection, and nothing else."
    yield ""
    yield "## Types"
    yield ""
    yield "| type | bytes | coded as |"
    yield "|---|---|---|"
    for wire, (size, text) in _WIRES.items():
        yield f"| {_cell(_SPELLED.get(wire, wire.name))} | {size} | {text} |"
    yield ""


def _packets(texts: Texts) -> Iterator[str]:
    yield "## Packets"
    yield ""
    ordered = sorted(PACKETS.values(), key=lambda info: (info.code & ~ANSWER_CODE, info.code))
    for group in sorted({(info.code & ~ANSWER_CODE) >> 8 for info in ordered}):
        members = [info for info in ordered if (info.code & ~ANSWER_CODE) >> 8 == group]
        yield f"### {GROUPS[group]}"
        yield ""
        yield "| code | packet | kind | from | to |"
        yield "|---|---|---|---|---|"
        for info in members:
            ends = f"{_roles(info.senders)} | {_roles(info.receivers)}"
            yield f"| `{info.code:#06x}` | {info.cls.__name__} | {info.kind.name.lower()} | {ends} |"
        yield ""
        for info in members:
            yield from _packet(info, texts)


def _packet(info: PacketInfo, texts: Texts) -> Iterator[str]:
    arrow = f"{info.kind.name.lower()}, {_roles(info.senders)} to {_roles(info.receivers)}"
    yield f"#### {info.cls.__name__} `{info.code:#06x}`"
    yield ""
    yield f"*{arrow}.* {texts.classes[info.cls.__name__]}"
    yield ""
    yield from _fields(layout_of(info.cls), texts)


def _roles(roles: frozenset[Role]) -> str:
    if roles == frozenset(Role):
        return "anyone"
    return ", ".join(role.name.lower() for role in sorted(roles))


def _fields(layout: Layout, texts: Texts) -> Iterator[str]:
    if not layout.fields:
        yield "No fields."
        yield ""
        return
    yield "| field | type | |"
    yield "|---|---|---|"
    for field in layout.fields:
        text = texts.fields.get((layout.name, field.name), "")
        yield f"| {field.name} | {_cell(field.layout.name)} | {_cell(text)} |"
    yield ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _inner(layout: Layout) -> Iterator[Layout]:
    """Yield *layout* and all that it is made of, depth first."""
    yield layout
    for field in layout.fields:
        yield from _inner(field.layout)
    if layout.item is not None:
        yield from _inner(layout.item)


def _used(wire: Wire) -> dict[str, Layout]:
    """Return the layouts of that kind inside packets, by name, in the order of their first use."""
    found: dict[str, Layout] = {}
    for info in PACKETS.values():
        for layout in _inner(layout_of(info.cls)):
            if layout.wire is wire and layout.cls is not info.cls:
                found.setdefault(layout.name, layout)
    return found


def _parts(texts: Texts) -> Iterator[str]:
    yield "## Parts"
    yield ""
    yield "What packets are made of. A packet inside another one is coded as a part, without a header."
    yield ""
    packets = {info.cls for info in PACKETS.values()}
    for name, layout in _used(Wire.STRUCT).items():
        if layout.cls not in packets:
            yield f"### {name}"
            yield ""
            yield texts.classes[name]
            yield ""
            yield from _fields(layout, texts)


def _enumerations(texts: Texts) -> Iterator[str]:
    yield "## Enumerations"
    yield ""
    enumerations = [layout.cls for layout in _used(Wire.ENUM).values()]
    for cls in [*enumerations, states.CellState]:
        assert cls is not None
        assert issubclass(cls, IntEnum)
        name = cls.__name__
        yield f"### {name}"
        yield ""
        yield texts.classes[name]
        yield ""
        yield "| number | name | |"
        yield "|---|---|---|"
        for member in cls:
            yield f"| {member.value} | {member.name} | {_cell(texts.fields.get((name, member.name), ''))} |"
        yield ""


if __name__ == "__main__":
    sys.stdout.write(page())
