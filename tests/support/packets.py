"""Any packet, and anything like one: hypothesis strategies and plain generators, made from the layouts."""

from collections.abc import Callable, Iterator
from enum import IntEnum
from functools import cache
from random import Random

from hypothesis import strategies as st

from neo_common.errors import NeoError
from neo_common.ids import Epoch, NodeId, Partition, Ptid, Tid, Version
from neo_common.model.orders import NO_ORDERS, REASON_BYTES, Choice, Orders
from neo_common.model.partition_table import Cell, Row, TableUpdate
from neo_common.states import CellState
from neo_common.wire.layout import Layout, Wire, layout_of
from neo_common.wire.schema import PACKETS, Packet
from neo_storage.core import log_records

TOPS = {Wire.U8: 2**8 - 1, Wire.U16: 2**16 - 1, Wire.U32: 2**32 - 1, Wire.U64: 2**64 - 1}
CLASSES = [info.cls for _, info in sorted(PACKETS.items())] + [cls for _, cls in sorted(log_records.CODES.items())]
"""All that is ever encoded: packets and log records."""


def outcome(function: Callable[..., object], *args: object) -> tuple[str, str]:
    """Return what *function* does with *args*: type and text of its result, or of an error of ours."""
    try:
        result = function(*args)
    except NeoError as error:
        return type(error).__name__, str(error)
    return type(result).__name__, repr(result)


# ---------------------------------------------------------------------------------------------- tables

_nodes = st.one_of(st.integers(0x01000001, 0x01000008), st.integers(0, 2**32 - 1)).map(NodeId)
_cells = st.builds(Cell, _nodes, st.sampled_from(CellState))
rows: st.SearchStrategy[Row] = st.lists(_cells, max_size=4, unique_by=lambda cell: cell.node).map(tuple)
_versions = st.builds(
    Version, st.integers(0, 2**64 - 1).map(Epoch), st.one_of(st.integers(0, 300), st.integers(0, 2**64 - 1)).map(Ptid)
)


@st.composite
def shifted_rows(draw: st.DrawFn) -> list[Row]:
    """Rows in runs, as balanced tables have them, some of them broken."""
    count = draw(st.integers(1, 9))
    nodes = [NodeId(0x01000000 + 3 * n) for n in range(count)]
    found: list[Row] = []
    for _ in range(draw(st.integers(0, 4))):
        keys = draw(st.lists(st.integers(0, count - 1), max_size=3, unique=True))
        states = [draw(st.sampled_from(CellState)) for _ in keys]
        shift = draw(st.integers(0, count - 1))
        for step in range(draw(st.integers(1, 12))):
            found.append(tuple(Cell(nodes[(k + step * shift) % count], s) for k, s in zip(keys, states, strict=True)))
        if draw(st.booleans()) and found:
            found[-1] = draw(rows)
    return found


_u64 = st.integers(0, 2**64 - 1)
_some_nodes = st.lists(_nodes, max_size=4, unique=True).map(sorted).map(tuple)
_tids = _u64.map(Tid)
_choices = st.builds(Choice, _u64, _u64, _versions, _tids, _tids, st.text(max_size=REASON_BYTES // 4))
_orders = st.builds(
    Orders,
    _some_nodes,
    st.booleans(),
    _versions,
    _tids,
    st.lists(_choices, max_size=3).map(tuple),
    _some_nodes,
)


@st.composite
def updates(draw: st.DrawFn) -> TableUpdate:
    """Any legal update: whole tables and differences."""
    body: list[Row] = draw(st.one_of(st.lists(rows, max_size=8), shifted_rows()))
    base = draw(st.one_of(st.none(), _versions))
    partitions = [Partition(p) for p in range(len(body))]
    total = len(body)
    if base is not None and body:
        gaps = draw(st.lists(st.one_of(st.just(0), st.integers(0, 200)), min_size=len(body), max_size=len(body)))
        partitions = [Partition(p + sum(gaps[: p + 1])) for p in range(len(body))]
        total = partitions[-1] + 1 + draw(st.integers(0, 5))
    replicas = draw(st.integers(0, 2**32 - 1))
    orders = draw(st.one_of(st.just(NO_ORDERS), _orders))
    return TableUpdate(base, draw(_versions), replicas, total, tuple(zip(partitions, body, strict=True)), orders)


# ---------------------------------------------------------------------------------------------- values


@cache
def values(layout: Layout) -> st.SearchStrategy[object]:
    """Any value of that layout."""
    match layout.wire:
        case Wire.U8 | Wire.U16 | Wire.U32 | Wire.U64:
            top = TOPS[layout.wire]
            return st.one_of(st.integers(0, top), st.sampled_from([0, 1, top // 2, top]))
        case Wire.BOOL:
            return st.booleans()
        case Wire.DOUBLE:
            return st.floats(allow_nan=False, allow_infinity=False)
        case Wire.BYTES16:
            return st.binary(min_size=16, max_size=16)
        case Wire.BYTES:
            return st.binary(max_size=40)
        case Wire.TEXT:
            return st.text(max_size=20)
        case Wire.TABLE:
            return updates()
        case Wire.ENUM:
            assert layout.cls is not None
            assert issubclass(layout.cls, IntEnum)
            return st.sampled_from(layout.cls)
        case Wire.STRUCT:
            cls = layout.cls
            assert cls is not None
            return st.tuples(*(values(field.layout) for field in layout.fields)).map(lambda fields: cls(*fields))
        case Wire.TUPLE:
            assert layout.item is not None
            return st.lists(values(layout.item), max_size=3).map(tuple)
        case Wire.OPTIONAL:
            assert layout.item is not None
            return st.one_of(st.none(), values(layout.item))


def instances(cls: type) -> st.SearchStrategy[Packet]:
    """Any instance of a NamedTuple class."""
    return values(layout_of(cls))  # type: ignore[return-value]  # the layout of a class is a STRUCT


def packets() -> st.SearchStrategy[Packet]:
    """Any packet."""
    return st.sampled_from(sorted(PACKETS)).flatmap(lambda code: instances(PACKETS[code].cls))


def filled(layout: Layout, rng: Random) -> object:
    """Return a value in which every part occurs: tuples have two items, optional values are there."""
    match layout.wire:
        case Wire.U8 | Wire.U16 | Wire.U32 | Wire.U64:
            return rng.randint(0, TOPS[layout.wire])
        case Wire.BOOL:
            return rng.random() < 0.5
        case Wire.DOUBLE:
            return rng.uniform(-1e12, 1e12)
        case Wire.BYTES16:
            return rng.randbytes(16)
        case Wire.BYTES:
            return rng.randbytes(rng.randint(0, 9))
        case Wire.TEXT:
            return rng.choice(["", "neo", "größer", "\U0001f600"])
        case Wire.TABLE:
            row = (Cell(NodeId(3), CellState.UP_TO_DATE), Cell(NodeId(9), CellState.FEEDING))
            body = (Partition(0), row), (Partition(1), row[::-1])
            return TableUpdate(None, Version(Epoch(3), Ptid(200)), 1, 2, body)
        case Wire.ENUM:
            assert layout.cls is not None
            return rng.choice(list(layout.cls))  # type: ignore[call-overload]  # an IntEnum class
        case Wire.STRUCT:
            assert layout.cls is not None
            return layout.cls(*(filled(field.layout, rng) for field in layout.fields))
        case Wire.TUPLE:
            assert layout.item is not None
            return (filled(layout.item, rng), filled(layout.item, rng))
        case Wire.OPTIONAL:
            assert layout.item is not None
            return filled(layout.item, rng)


def spoilt(value: object, bad: object) -> Iterator[object]:
    """Yield copies of the packet *value* with *bad* in place of one thing in it, for every thing in it."""
    if not isinstance(value, tuple):
        return
    for index, item in enumerate(value):
        for other in [bad, *spoilt(item, bad)]:
            items = (*value[:index], other, *value[index + 1 :])
            yield items if type(value) is tuple else tuple.__new__(type(value), items)
