"""The client's memory of revisions: intervals, bounded in bytes, the often used kept longest. Pure.

An entry says: from *tid* on, below *end*, this was the value of *oid*; without end it is current. Intervals of one oid
never overlap. Who uses the cache tells it every invalidation in order: then a current entry is current as of the last.

Replacement is by several queues (multi-queue): an entry that is hit again and again climbs, one for each doubling of
its hits; each queue is in order of use; the oldest entry of the lowest queue goes first. An entry that was not used
while the whole cache turned over sinks by one queue, so that yesterday's favourites do not stay for ever. Hits are
remembered for a while after an entry has gone: what comes back climbs where it was.
"""

from bisect import bisect_left
from collections import OrderedDict
from typing import Final, NamedTuple

from neo_common.ids import NO_TID, Oid, Tid

ENTRY_OVERHEAD: Final = 420
"""Bytes that an entry takes beyond its value; measured by a test."""
QUEUES: Final = 8
_GHOSTS_PER_ENTRY: Final = 2


class Hit(NamedTuple):
    """What is cached. `end` is 0 when current."""

    value: bytes
    tid: Tid
    end: Tid


class _Entry:
    __slots__ = ("end", "hits", "oid", "queue", "tid", "used", "value")

    def __init__(self, oid: Oid, tid: Tid, end: Tid, value: bytes, hits: int) -> None:
        self.oid = oid
        self.tid = tid
        self.end = end
        self.value = value
        self.hits = hits
        self.queue = _queue(hits)
        self.used = 0

    @property
    def size(self) -> int:
        return len(self.value) + ENTRY_OVERHEAD


def _queue(hits: int) -> int:
    return min(hits.bit_length(), QUEUES) - 1


class Cache:
    """See the module. `size_max` in bytes; 0: nothing is kept."""

    def __init__(self, size_max: int) -> None:
        self.size_max = size_max
        self.size = 0
        self.hit_count = 0
        self.miss_count = 0
        self._entries: dict[Oid, list[_Entry]] = {}
        """Of each oid, by ascending tid."""
        self._queues: list[OrderedDict[_Entry, None]] = [OrderedDict() for _ in range(QUEUES)]
        self._ghosts: OrderedDict[Oid, int] = OrderedDict()
        self._clock = 0
        """Bytes that have come in: the age of an entry is how much came since it was used."""

    def __len__(self) -> int:
        return sum(map(len, self._queues))

    def get(self, oid: Oid, before: Tid) -> Hit | None:
        """Return the revision of *oid* that was current just below *before*, if it is here."""
        entries = self._entries.get(oid)
        if entries is not None:
            for entry in reversed(entries):
                if entry.tid < before:
                    if entry.end and entry.end < before:
                        break
                    self._use(entry)
                    self.hit_count += 1
                    return Hit(entry.value, entry.tid, entry.end)
        self.miss_count += 1
        return None

    def current(self, oid: Oid) -> Tid:
        """Return the serial of the current revision of *oid*, if it is here, else 0. Does not count as use."""
        entries = self._entries.get(oid)
        return entries[-1].tid if entries and not entries[-1].end else NO_TID

    def put(self, oid: Oid, tid: Tid, end: Tid, value: bytes) -> None:
        """Remember a revision. If it is here with another end, the later one is the true one: an end is too early
        where a `cut`, or a load for an old snapshot, knew no better; it is never too late, as `invalidate` comes first.
        """
        assert not end or end > tid, (tid, end)
        entries = self._entries.get(oid)
        place = 0
        if entries:
            place = bisect_left(entries, tid, key=_tid)
            if place < len(entries) and entries[place].tid == tid:
                entry = entries[place]
                if entry.end and (not end or end > entry.end):
                    entry.end = end
                return
        if len(value) + ENTRY_OVERHEAD > self.size_max:
            return
        entry = _Entry(oid, tid, end, value, self._ghosts.pop(oid, 0) + 1)
        if entries is None:
            self._entries[oid] = [entry]
        else:
            entries.insert(place, entry)
        self._queues[entry.queue][entry] = None
        self.size += entry.size
        self._clock += entry.size
        entry.used = self._clock
        self._shrink()

    def invalidate(self, tid: Tid, oid: Oid) -> None:
        """*oid* was changed by *tid*: what was current ends there."""
        entries = self._entries.get(oid)
        if entries and not entries[-1].end:
            if entries[-1].tid < tid:
                entries[-1].end = tid
            else:  # it was loaded after this change
                assert entries[-1].tid == tid, (entries[-1].tid, tid)

    def cut(self, last: Tid) -> None:
        """Nothing is known of what came after *last*: every current entry ends there."""
        for entries in self._entries.values():
            newest = entries[-1]
            if not newest.end:
                newest.end = Tid(max(last, newest.tid) + 1)

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._ghosts.clear()
        for queue in self._queues:
            queue.clear()
        self.size = 0

    def drop(self, oid: Oid) -> None:
        """Forget every revision of *oid*."""
        for entry in self._entries.pop(oid, ()):
            del self._queues[entry.queue][entry]
            self.size -= entry.size

    def _use(self, entry: _Entry) -> None:
        entry.hits += 1
        entry.used = self._clock
        queue = _queue(entry.hits)
        if queue == entry.queue:
            self._queues[queue].move_to_end(entry)
        else:
            del self._queues[entry.queue][entry]
            entry.queue = queue
            self._queues[queue][entry] = None

    def _shrink(self) -> None:
        """Make room; let what is old in the upper queues sink, one of each at a time."""
        oldest = self._clock - self.size_max
        for number in range(1, QUEUES):
            queue = self._queues[number]
            if queue:
                entry = next(iter(queue))
                if entry.used < oldest:
                    del queue[entry]
                    entry.hits >>= 1
                    entry.queue = number - 1
                    entry.used = self._clock
                    self._queues[number - 1][entry] = None
        while self.size > self.size_max:
            queue = next(q for q in self._queues if q)
            entry, _ = queue.popitem(last=False)
            self.size -= entry.size
            entries = self._entries[entry.oid]
            entries.remove(entry)
            if not entries:
                del self._entries[entry.oid]
            self._ghosts[entry.oid] = entry.hits
        while len(self._ghosts) > _GHOSTS_PER_ENTRY * (len(self._entries) + 1):
            self._ghosts.popitem(last=False)


def _tid(entry: _Entry) -> Tid:
    return entry.tid
