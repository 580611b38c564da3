"""What removes much at once from the golden database: for tests that kill it in the middle."""

from typing import Final

from neo_common.ids import Epoch, Oid, Partition, Ptid, Tid, Version
from neo_common.wire.schema import Metadata, Transaction
from neo_storage.backends import removal
from neo_storage.backends.base import ApplyClear, ApplyCollect, ApplyCopy, ApplyTable, ApplyTruncate, Backend, Op
from support.backend_contract import T1, T4, T6, ttid
from support.formats.sample import LARGE_OID, POSITION, TABLE

OPS: Final[dict[str, list[Op]]] = {
    "truncate": [ApplyTruncate(T1), ApplyTable(TABLE.changed(Version(Epoch(4 << 24 | 1), Ptid(10)), {}))],
    "clear": [ApplyClear(Partition(0), T1)],
    "collect": [
        ApplyCollect(T4, (Oid(3), Oid(4), Oid(6), LARGE_OID, Oid(12), Oid(2**40))),
        ApplyClear(Partition(2), T4),
    ],
}
SLICE_ROWS: Final = 2


def prepare(backend: Backend) -> None:
    """Add transactions without revisions, which have no revisions to go with."""
    for partition, count in ((Partition(0), 9), (Partition(2), 4)):
        empty = [
            Transaction(Tid(T6 + n), ttid(n), Metadata(b"", b"", b""), (partition,), ()) for n in range(1, count + 1)
        ]
        backend.apply([ApplyCopy(partition, tuple(empty), ())], POSITION)


def install() -> None:
    """Have it done in very small slices."""
    removal.SLICE_ROWS = SLICE_ROWS


def remove(backend: Backend, deed: str) -> None:
    """Do it, as the record after the last one of the sample."""
    backend.apply(OPS[deed], POSITION + 1)
