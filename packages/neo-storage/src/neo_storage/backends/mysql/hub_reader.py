"""Reads of single revisions in the hub: what is short there, what is long on a native thread."""

from collections.abc import Sequence
from typing import Final

from neo_common.ids import MAX_OID, MAX_TID, Oid, Partition, Tid
from neo_common.wire.schema import PIECE_BYTES
from neo_storage.backends.base import Stored, Waits
from neo_storage.backends.mysql.connection import HubMysqlDatabase, MysqlDatabase
from neo_storage.backends.mysql.queries import QUERIES
from neo_storage.backends.range_reader import DatabaseReader, stored

ANSWER_BYTES: Final = 16 * 1024
"""What a server must write at once, at least (net_buffer_length; so it is unless somebody lowers it)."""
_SHORT_BYTES: Final = 8 * 1024
"""Values that are read in the hub, at most."""


class MysqlHubReader:
    """`backends.base.PointReader` for one greenlet of the hub."""

    def __init__(self, short: HubMysqlDatabase, long: MysqlDatabase, waits: Waits) -> None:
        """Take over both connections: *short* for the hub, *long* for a native thread."""
        self._db = short
        self._short = DatabaseReader(short)
        self._long = DatabaseReader(long)
        self._waits = waits

    def currents(self, pairs: Sequence[tuple[Partition, Oid]]) -> dict[Oid, Tid]:
        """Return the serial of each object."""
        return self._short.currents(pairs)

    def load(self, partition: Partition, oid: Oid, before: Tid) -> Stored | None:
        """Return the last revision below *before*; its data is in pieces above PIECE_BYTES. None if there is none."""
        if oid > MAX_OID:
            return None
        with self._db.snapshot("load", is_single=True):
            row = self._db.one(QUERIES.load_short, (partition, oid, min(before, MAX_TID), _SHORT_BYTES))
        if row is None:
            return None
        size = row[4]
        if _SHORT_BYTES < size <= PIECE_BYTES:
            return self._waits.apart(lambda: self._long.load(partition, oid, before))
        return stored(oid, row)

    def piece(self, partition: Partition, oid: Oid, tid: Tid, offset: int) -> bytes | None:
        """Return a piece of a value."""
        return self._waits.apart(lambda: self._long.piece(partition, oid, tid, offset))

    def close(self) -> None:
        """Release the connections."""
        self._short.close()
        self._long.close()
