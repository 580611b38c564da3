"""From the annotations of a NamedTuple to the layout of its fields on the wire. Pure.

Both codecs and the page docs/protocol.md walk the tree that `layout_of` makes; nothing else reads annotations. The
table of annotations stands in `schema`'s docstring. An annotation that is not in it is an error when the layout is
made, never when a packet is sent.
"""

from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Final, Union, get_args, get_origin, get_type_hints

from neo_common.ids import Epoch, NodeId, Oid, Partition, Ptid, Seconds, Session, Tid
from neo_common.model.partition_table import TableUpdate


class Wire(IntEnum):
    """How a value travels. The numbers stay within one process."""

    U8 = 0
    U16 = 1
    U32 = 2
    U64 = 3
    BOOL = 4
    DOUBLE = 5
    BYTES16 = 6
    BYTES = 7
    TEXT = 8
    TABLE = 9
    ENUM = 10
    STRUCT = 11
    TUPLE = 12
    OPTIONAL = 13


@dataclass(frozen=True, slots=True)
class Layout:
    """One value on the wire.

    `min_size` is the least number of bytes that it takes, at least 1 wherever it can be an item of a tuple: so a
    count can be checked against what is left before anything is allocated.
    """

    wire: Wire
    name: str
    """As people read it: `Tid`, `tuple[Write, ...]`, `Data | None`."""
    min_size: int
    cls: type | None = None
    """The NamedTuple of a STRUCT, the IntEnum of an ENUM."""
    fields: "tuple[Field, ...]" = ()
    """Of a STRUCT, in order."""
    item: "Layout | None" = None
    """Of a TUPLE or an OPTIONAL."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a STRUCT."""

    name: str
    layout: Layout


_SIZES: Final = {
    Wire.U8: 1,
    Wire.U16: 2,
    Wire.U32: 4,
    Wire.U64: 8,
    Wire.BOOL: 1,
    Wire.DOUBLE: 8,
    Wire.BYTES16: 16,
    Wire.BYTES: 4,
    Wire.TEXT: 4,
    Wire.TABLE: 4,
}
_PLAIN: Final[dict[object, tuple[Wire, str]]] = {
    Oid: (Wire.U64, "Oid"),
    Tid: (Wire.U64, "Tid"),
    Epoch: (Wire.U64, "Epoch"),
    Session: (Wire.U64, "Session"),
    Ptid: (Wire.U64, "Ptid"),
    Partition: (Wire.U32, "Partition"),
    NodeId: (Wire.U32, "NodeId"),
    Seconds: (Wire.DOUBLE, "Seconds"),
    int: (Wire.U64, "U64"),  # the parts of `ids`, which know nothing of the wire
    bool: (Wire.BOOL, "bool"),
    bytes: (Wire.BYTES, "bytes"),
    str: (Wire.TEXT, "str"),
    TableUpdate: (Wire.TABLE, "TableUpdate"),
}
_MARKS: Final = {
    (int, "u8"): Wire.U8,
    (int, "u16"): Wire.U16,
    (int, "u32"): Wire.U32,
    (int, "u64"): Wire.U64,
    (bytes, "bytes16"): Wire.BYTES16,
}


def is_struct(cls: object) -> bool:
    """Whether *cls* is a NamedTuple class."""
    return isinstance(cls, type) and issubclass(cls, tuple) and hasattr(cls, "_fields")


@cache
def layout_of(cls: type) -> Layout:
    """Return the layout of the NamedTuple class *cls*.

    Raises: TypeError when *cls* is none, or has an annotation that does not travel.
    """
    if not is_struct(cls):
        raise TypeError(f"{cls.__name__} is not a NamedTuple")
    hints = get_type_hints(cls, include_extras=True)
    fields = []
    for name in cls._fields:  # type: ignore[attr-defined]  # `type` cannot say: of a NamedTuple
        try:
            fields.append(Field(name, _layout(hints[name])))
        except TypeError as error:
            raise TypeError(f"{cls.__name__}.{name}: {error}") from error
    return Layout(Wire.STRUCT, cls.__name__, sum(f.layout.min_size for f in fields), cls, tuple(fields))


def _layout(hint: object) -> Layout:
    if hint in _PLAIN:
        wire, name = _PLAIN[hint]
        return Layout(wire, name, _SIZES[wire])
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        wire = _MARKS[args]
        return Layout(wire, "Bytes16" if wire is Wire.BYTES16 else wire.name, _SIZES[wire])
    if origin is tuple and len(args) == 2 and args[1] is Ellipsis:
        item = _layout(args[0])
        if not item.min_size:
            raise TypeError(f"items of {item.name} take no bytes: their count could not be checked")
        return Layout(Wire.TUPLE, f"tuple[{item.name}, ...]", 4, item=item)
    if origin in (UnionType, Union) and len(args) == 2 and args[1] is NoneType:
        item = _layout(args[0])
        return Layout(Wire.OPTIONAL, f"{item.name} | None", 1, item=item)
    if isinstance(hint, type) and issubclass(hint, IntEnum):
        if not all(0 <= member <= 0xFF for member in hint):
            raise TypeError(f"{hint.__name__} has values above 255")
        return Layout(Wire.ENUM, hint.__name__, 1, hint)
    if isinstance(hint, type) and is_struct(hint):
        return layout_of(hint)
    raise TypeError(f"{hint!r} does not travel")
