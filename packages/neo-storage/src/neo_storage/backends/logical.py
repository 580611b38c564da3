"""The one logical schema of a storage's database. Pure. Dialects make their CREATE statements of it (`dialect.py`).

    config     one row per name: identity, epoch, table, ceilings, the mark, high-water marks, format, owner
    trans      a transaction, once per partition that it touches, with its metadata
    obj        a revision; small rows, clustered by (partition, oid, tid)
    data       values, apart, so that scans of obj stay small; ids ascend in the order of writing
    decisions  commits above the durable mark, by ttid
    tombstones aborts of this reign, by ttid
    pack       how far the pack to a tid is, by partition

A value above PIECE_BYTES is a run of rows of `data`, from `obj.data_id` on, one per piece: sequential ids cost nothing,
and a load of the revision never touches them. Ids above 2**63 - 1 have no place in a database, nor in ZODB.
"""

from enum import Enum, auto
from typing import Final, NamedTuple

FORMAT: Final = 1
"""Version of what is described here, the same in all back ends."""
MINIMUM_READER: Final = 1
"""The lowest FORMAT of a program that may open a database written by this one."""


class Kind(Enum):
    """What a column holds."""

    NUMBER = auto()
    """A signed integer of 8 bytes."""
    NAME = auto()
    """A few ASCII characters."""
    CHECKSUM = auto()
    """16 bytes."""
    BYTES = auto()
    """Any number of bytes, mostly few."""
    VALUE = auto()
    """Up to PIECE_BYTES, compressed already."""
    MIXED = auto()
    """A number or bytes; two columns, `number` and `value`, where a column has one type."""


class Column(NamedTuple):
    """A column. `is_null`: it may have no value."""

    name: str
    kind: Kind = Kind.NUMBER
    is_null: bool = False


class Index(NamedTuple):
    """A second order of the rows of a table."""

    name: str
    columns: tuple[str, ...]


class Table(NamedTuple):
    """A table; `key`: the names of the columns that it is clustered by."""

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    indexes: tuple[Index, ...] = ()


CONFIG: Final = Table("config", (Column("name", Kind.NAME), Column("value", Kind.MIXED)), ("name",))
TRANS: Final = Table(
    "trans",
    (
        Column("partition"),
        Column("tid"),
        Column("session"),
        Column("counter"),
        Column("user", Kind.BYTES),
        Column("description", Kind.BYTES),
        Column("extension", Kind.BYTES),
        Column("parts", Kind.BYTES),
    ),
    ("partition", "tid"),
    # Iteration over many partitions is one walk of this index, in the order of tids.
    (Index("trans_tid", ("tid", "partition")),),
)
OBJ: Final = Table(
    "obj",
    (
        Column("partition"),
        Column("oid"),
        Column("tid"),
        Column("data_id", is_null=True),
        Column("compression"),
        Column("checksum", Kind.CHECKSUM),
        Column("size"),
        Column("copied_from"),
    ),
    ("partition", "oid", "tid"),
    # The revisions of a transaction.
    (Index("obj_tid", ("partition", "tid", "oid")),),
)
DATA: Final = Table("data", (Column("id"), Column("value", Kind.VALUE)), ("id",))
DECISIONS: Final = Table(
    "decisions",
    (Column("session"), Column("counter"), Column("attempt"), Column("tid"), Column("parts", Kind.BYTES)),
    ("session", "counter"),
)
TOMBSTONES: Final = Table(
    "tombstones", (Column("session"), Column("counter"), Column("attempt")), ("session", "counter")
)
# next_oid: the first oid not looked at; NULL when the cell is finished.
PACK: Final = Table("pack", (Column("partition"), Column("tid"), Column("next_oid", is_null=True)), ("partition",))

TABLES: Final = (CONFIG, TRANS, OBJ, DATA, DECISIONS, TOMBSTONES, PACK)
