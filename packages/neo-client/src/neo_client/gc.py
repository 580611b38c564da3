"""Garbage: which objects nobody can reach any more. Found by the client, which knows references; removed by the
storages.

At the tid of a pack, an object is alive if it is the root, was changed later, or a living object refers to it (in its
revision current at that tid, or in a later one). One pass over all records in the order of oids marks nearly
everything, because a reference mostly points to a higher oid; what is found behind the pass is loaded by oid, in
batches.

Memory: three bits per oid that exists, in blocks of 64 Ki oids.
"""

from collections.abc import Callable, Iterable, Iterator
from time import monotonic
from typing import Final

from ZODB.POSException import POSKeyError
from ZODB.utils import u64

from neo_client import scanning
from neo_client.errors import ClusterUnavailable
from neo_client.reading import Reader
from neo_common.ids import Oid, Tid
from neo_common.wire.schema import AnswerCollect, AskCollect

COLLECT_BATCH: Final = 10_000
LOAD_BATCH: Final = 500
RETRY_MIN_S: Final = 0.05
RETRY_MAX_S: Final = 1.0
_BLOCK: Final = 16
_MASK: Final = (1 << _BLOCK) - 1
ROOT: Final = Oid(0)

References = Callable[[bytes], Iterable[bytes]]
"""ZODB's referencesf: the oids, as bytes, that a record refers to."""


class OidSet:
    """A set of oids, one bit for each in the blocks that are touched.

    >>> s = OidSet()
    >>> s.add(Oid(70000)), s.add(Oid(70000)), s.add(Oid(3))
    (True, False, True)
    >>> Oid(3) in s, Oid(4) in s, list(s), len(s)
    (True, False, [3, 70000], 2)
    """

    def __init__(self) -> None:
        self._blocks: dict[int, bytearray] = {}
        self._count = 0

    def add(self, oid: Oid) -> bool:
        """Add; return whether it was not there."""
        number = oid >> _BLOCK
        block = self._blocks.get(number)
        if block is None:
            block = self._blocks[number] = bytearray(1 << _BLOCK - 3)
        index, bit = (oid & _MASK) >> 3, 1 << (oid & 7)
        if block[index] & bit:
            return False
        block[index] |= bit
        self._count += 1
        return True

    def __contains__(self, oid: Oid) -> bool:
        block = self._blocks.get(oid >> _BLOCK)
        return block is not None and bool(block[(oid & _MASK) >> 3] & 1 << (oid & 7))

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Oid]:
        for number in sorted(self._blocks):
            yield from _bits(number, self._blocks[number])

    def minus(self, other: "OidSet") -> Iterator[Oid]:
        """Yield what is here and not in *other*, ascending. Neither may change meanwhile."""
        for number in sorted(self._blocks):
            mine, theirs = self._blocks[number], other._blocks.get(number)
            if theirs is None:
                yield from _bits(number, mine)
            elif mine != theirs:
                left = int.from_bytes(mine, "little") & ~int.from_bytes(theirs, "little")
                yield from _bits(number, left.to_bytes(len(mine), "little"))


def _bits(number: int, block: bytes | bytearray) -> Iterator[Oid]:
    for index, byte in enumerate(block):
        if byte:
            for bit in range(8):
                if byte & 1 << bit:
                    yield Oid(number << _BLOCK | index << 3 | bit)


class Marking:
    """Finds what is alive at *tid*."""

    def __init__(self, reader: Reader, tid: Tid, references: References) -> None:
        self._reader = reader
        self._tid = tid
        self._references = references
        self.seen = OidSet()
        self.reached = OidSet()
        self._scanned = OidSet()

    def run(self) -> None:
        """Mark."""
        last = self._reader.shell.last
        self.reached.add(ROOT)
        for group in scanning.records(self._reader, Oid(0), Tid(self._tid + 1), newer=True):
            oid = group[0].revision.oid
            self.seen.add(oid)
            if group[-1].revision.tid > self._tid:
                self.reached.add(oid)
            if oid in self.reached:
                self._scanned.add(oid)
                for item in group:
                    self._follow(scanning.plain_value(self._reader, item.node, item.revision))
        self._follow_the_rest()
        # What was committed while we looked may refer to what we have passed.
        for transaction in scanning.transactions(self._reader, Tid(last + 1), self._reader.shell.last):
            for node, revisions in transaction.told:
                for revision in revisions:
                    self.reached.add(revision.oid)
                    self._scanned.add(revision.oid)
                    self._follow(scanning.plain_value(self._reader, node, revision))
        self._follow_the_rest()

    def garbage(self) -> Iterator[Oid]:
        """Yield what is not alive, ascending."""
        return self.seen.minus(self.reached)

    def _follow(self, value: bytes | None) -> None:
        if value:
            for oid in self._references(value):
                self.reached.add(Oid(u64(oid)))

    def _follow_the_rest(self) -> None:
        """Load what was reached behind the pass, and what that refers to, until nothing is new."""
        while True:
            rest = list(self.reached.minus(self._scanned))
            if not rest:
                return
            for start in range(0, len(rest), LOAD_BATCH):
                batch = rest[start : start + LOAD_BATCH]
                wanted = [oid for oid in batch if oid in self.seen]
                self._reader.prefetch(wanted, Tid(self._tid + 1))
                for oid in batch:
                    self._scanned.add(oid)
                for oid in wanted:
                    try:
                        hit = self._reader.load(oid, Tid(self._tid + 1))
                    except POSKeyError:
                        continue
                    self._follow(hit.value if hit is not None else None)


def collect(reader: Reader, tid: Tid, references: References) -> int:
    """Remove what nobody can reach at *tid*; return how many objects that were."""
    marking = Marking(reader, tid, references)
    marking.run()
    removed = 0
    batch: list[Oid] = []
    for oid in marking.garbage():
        batch.append(oid)
        if len(batch) == COLLECT_BATCH:
            removed += _remove(reader, tid, batch)
            batch = []
    return removed + (_remove(reader, tid, batch) if batch else 0)


def _remove(reader: Reader, tid: Tid, oids: list[Oid]) -> int:
    shell = reader.shell
    deadline, delay_s = monotonic() + shell.options.wait_timeout_s, RETRY_MIN_S
    while True:
        try:
            answer = shell.ask_primary(AskCollect(tid, tuple(oids)))
        except ClusterUnavailable:  # a storage was lost meanwhile: to remove what is removed already does nothing
            if monotonic() + delay_s >= deadline:
                raise
            shell.sleep(delay_s)
            delay_s = min(2 * delay_s, RETRY_MAX_S)
            continue
        assert isinstance(answer, AnswerCollect)
        return answer.removed
