"""Values of current revisions, kept in memory where the back end cannot be asked at once. Pure.

To ask a server for what somebody has just written, or another client has just read, costs twice the way to this storage
and back. A value counts as long as its revision is the last that the back end has, which `SerialCache` knows: so
whatever makes serials unknown makes values unknown.
"""

from typing import Final

from neo_common.ids import NO_TID, Oid, Tid
from neo_common.wire.schema import Data
from neo_storage.backends.base import Stored

ENTRY_BYTES: Final = 400
"""What a value takes in memory besides its bytes, about."""
_SHARE: Final = 64
"""A value larger than this part of the room would drive out too many others."""


class ValueCache:
    """Values by object, the one that was used last at the end. `bytes` never exceeds `limit`."""

    def __init__(self, limit: int) -> None:
        """`limit`: bytes of memory, about; 0: nothing is kept."""
        self.limit = limit
        self.bytes = 0
        self._kept: dict[Oid, Stored] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, oid: Oid, tid: Tid, data: Data) -> None:
        """Keep the value of the revision *tid*, if it is whole and fits."""
        self.drop(oid)
        size = ENTRY_BYTES + len(data.value)
        if len(data.value) != data.size or size * _SHARE > self.limit:
            return
        self._kept[oid] = Stored(tid, NO_TID, data)
        self.bytes += size
        while self.bytes > self.limit:
            self.drop(next(iter(self._kept)))

    def get(self, oid: Oid, serial: Tid) -> Stored | None:
        """Return that revision of *oid*; None if it is not here."""
        stored = self._kept.get(oid)
        if stored is None or stored.tid != serial:
            return None
        self._kept[oid] = self._kept.pop(oid)
        return stored

    def drop(self, oid: Oid) -> None:
        """Forget what is here of *oid*."""
        stored = self._kept.pop(oid, None)
        if stored is not None:
            self.bytes -= ENTRY_BYTES + len(stored.data.value)

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()
        self.bytes = 0
