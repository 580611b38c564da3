"""Last serials of the back end, where it cannot be asked at once: known, or being asked for; and values. Pure.

A vote needs them at once, so it is held back until they are here. Most are: of what was loaded from here, or committed
lately. What is committed while the back end is asked is noted beside the question, so that an answer that has missed
it does no harm; what changes the back end otherwise (copies, removals) makes everything unknown.
"""

from collections.abc import Iterable

from neo_common.ids import NO_TID, Oid, Tid
from neo_common.wire.schema import Data
from neo_storage.backends.base import Stored
from neo_storage.core.values import ValueCache


class SerialCache:
    """Serials by object. The overlay is asked before it: it has what the back end has not."""

    def __init__(self, limit: int, values_bytes: int = 0) -> None:
        """`limit`: how many are kept, about; `values_bytes`: of values."""
        self._limit = limit
        self.values = ValueCache(values_bytes)
        self._known: dict[Oid, Tid] = {}
        self._asked: dict[Oid, list[int]] = {}
        """How often it is being asked for, and the highest serial that was noted meanwhile."""
        self.generation = 0
        """Answers to questions of an earlier one are void."""

    def __len__(self) -> int:
        return len(self._known)

    def get(self, oid: Oid) -> Tid | None:
        """Return the serial, 0 if there is none; None if it is not known."""
        return self._known.get(oid)

    def load(self, oid: Oid, before: Tid) -> Stored | None:
        """Return the last revision that the back end has, if it is known, kept, and below *before*."""
        serial = self._known.get(oid)
        return self.values.get(oid, serial) if serial is not None and serial < before else None

    def note(self, oid: Oid, tid: Tid, data: Data | None = None) -> None:
        """The back end has that revision now, with that value."""
        serial = self._known[oid] = max(tid, self._known.get(oid, NO_TID))
        if data is not None and tid == serial:
            self.values.keep(oid, tid, data)
        asked = self._asked.get(oid)
        if asked is not None:
            asked[1] = max(asked[1], tid)

    def ask(self, oid: Oid) -> None:
        """The back end is being asked."""
        self._asked.setdefault(oid, [0, NO_TID])[0] += 1

    def answered(self, oid: Oid, tid: Tid | None, generation: int, data: Data | None = None) -> None:
        """It has answered, to a question of that generation; None: it does not say what is last."""
        asked = self._asked[oid]
        asked[0] -= 1
        if tid is not None and generation == self.generation:
            self.note(oid, tid, data)
            self.note(oid, Tid(asked[1]))
        if not asked[0]:
            del self._asked[oid]

    def clear(self, kept: Iterable[Oid]) -> None:
        """Something else than commits has changed the back end. *kept*: who waits relies on these."""
        self.generation += 1
        self.values.clear()
        self._known = {oid: self._known[oid] for oid in kept if oid in self._known}

    def trim(self, kept: Iterable[Oid]) -> None:
        """Forget the older half when there are too many, but for *kept*."""
        if len(self._known) > self._limit:
            wanted = set(kept)
            doomed = list(self._known)[: self._limit // 2]
            for oid in doomed:
                if oid not in wanted:
                    del self._known[oid]
                    self.values.drop(oid)
