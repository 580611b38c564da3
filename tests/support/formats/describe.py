"""What is in a database, and what its format is, as text that is compared with what was written down."""

from enum import Enum
from hashlib import sha256

from neo_common.ids import Oid, Tid
from neo_common.wire.layout import Layout, Wire, layout_of
from neo_common.wire.schema import PIECE_BYTES, Data, Page
from neo_master.core.effects import Kept as MasterKept
from neo_storage.backends import logical
from neo_storage.backends.base import Backend, Kept, RangeReader
from neo_storage.backends.mysql.schema import DIALECT as MYSQL
from neo_storage.backends.postgresql.schema import DIALECT as POSTGRESQL
from neo_storage.backends.sqlite.schema import DIALECT as SQLITE
from neo_storage.core.log_records import CODES
from support.backend_contract import END, everything
from support.formats.sample import PARTITIONS


def contents(kept: Kept, backend: Backend) -> str:
    """Return everything that *backend*, just opened, knows."""
    reader = backend.range_reader()
    lines = [
        f"position {kept.position}",
        f"node {kept.node:#x} cluster {kept.cluster_id!r} epoch {kept.epoch:#x}",
        f"table {plain(kept.table.version)} replicas {kept.table.replicas}",
        *(f"  {number}: {plain(row)}" for number, row in enumerate(kept.table.rows)),
        f"ceilings {plain(kept.ceilings)}",
        *(f"decision {plain(decision)}" for decision in kept.decisions),
        *(f"tombstone {plain(tombstone)}" for tombstone in kept.tombstones),
        f"pack {kept.pack_order} to {kept.pack_tid:#x}",
        f"last {kept.last_tid:#x} {kept.last_oid:#x}",
        f"doomed {plain(kept.doomed)}",
    ]
    for partition in PARTITIONS:
        (size,) = reader.sizes([partition])
        lines.append(f"partition {partition}: {plain(size)}, packed {plain(reader.packed(partition))}")
        lines.append(f"  digest {plain(reader.digest(partition, Tid(0), END))}")
        for transaction in everything(reader, [partition]):
            lines.append(f"  {plain(transaction[:-1])}")
            for oid, tid, copied_from, data in transaction.revisions:
                assert data is not None, "values were asked for"
                value = _value(reader, partition, oid, tid, data)
                lines.append(f"    {oid:#x} {tid:#x} copied from {copied_from:#x}: {plain(data[:-1])} {value}")
    reader.close()
    return "\n".join(lines) + "\n"


def _value(reader: RangeReader, partition: int, oid: Oid, tid: Tid, data: Data) -> str:
    offsets = range(0, data.size, PIECE_BYTES) if data.size and not data.value else ()
    value = data.value + b"".join(reader.piece(partition, oid, tid, at) or b"" for at in offsets)  # type: ignore[arg-type]
    return value.hex() if len(value) < 100 else f"{len(value)} bytes {sha256(value).hexdigest()}"


def plain(value: object) -> str:
    """Return *value* without the names of fields: they may change without a change of the format."""
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, bytes):
        return f"x{value.hex()}" if len(value) < 100 else f"{len(value)} bytes {sha256(value).hexdigest()}"
    if isinstance(value, tuple | list):
        return "(" + " ".join(map(plain, value)) + ")"
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, int):
        return hex(value) if value > 0xFFFF else str(value)
    raise TypeError(f"{value!r} is in no golden file")


def schema() -> str:
    """Return what a database of the present format is made of: the logical schema, and as each database writes it."""
    lines = [f"format {logical.FORMAT}, minimum reader {logical.MINIMUM_READER}, pieces of {PIECE_BYTES} bytes"]
    for table in logical.TABLES:
        lines.append(f"table {table.name}, key {' '.join(table.key)}")
        lines += [f"  {c.name} {c.kind.name}{' or null' if c.is_null else ''}" for c in table.columns]
        lines += [f"  index {i.name}: {' '.join(i.columns)}" for i in table.indexes]
    for dialect in (SQLITE, MYSQL, POSTGRESQL):
        lines += ["", type(dialect).__name__, *(text for table in logical.TABLES for text in dialect.create(table))]
    return "\n".join(lines) + "\n"


def log_records() -> str:
    """Return how the records of the vote log are coded."""
    return "".join(f"{code} {_shape(layout_of(CODES[code]))}\n" for code in sorted(CODES))


def journal_record() -> str:
    """Return how the records of a master's journal are coded."""
    return _shape(layout_of(MasterKept)) + "\n"


def notes_record() -> str:
    """Return how the records of a master's notes are coded."""
    return _shape(layout_of(Page)) + "\n"


def _shape(layout: Layout) -> str:
    """Return what a value consists of, down to plain numbers and bytes; enumerations with their values."""
    if layout.wire is Wire.STRUCT:
        return f"{layout.name}({', '.join(f'{f.name}: {_shape(f.layout)}' for f in layout.fields)})"
    if layout.item is not None:
        return f"{'any' if layout.wire is Wire.TUPLE else 'maybe'} {_shape(layout.item)}"
    if layout.wire is Wire.ENUM:
        assert layout.cls is not None
        assert issubclass(layout.cls, Enum)
        return f"one of {' '.join(f'{m.name}={m.value}' for m in layout.cls)}"
    return layout.wire.name
