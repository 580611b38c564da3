"""Streams over the whole database: transactions by tid, current records by oid.

Merged from many cells, fetched ahead.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Generic, NamedTuple, TypeVar

from neo_client.reading import Reader
from neo_client.shell import Call
from neo_common.compression import decompress, verify
from neo_common.errors import NeoError
from neo_common.ids import Epoch, NodeId, Oid, Partition, Tid
from neo_common.wire.schema import (
    AnswerRecords,
    AnswerTransactions,
    AskRecords,
    AskTransactions,
    Compression,
    Metadata,
    Packet,
    Revision,
    Transaction,
)

TRANSACTIONS_FIRST: Final = 32
"""Of the first answer. Each may have twice as many as the last one: the first comes soon, and is used meanwhile."""
TRANSACTIONS_MAX: Final = 1000
RECORDS_PER_BATCH: Final = 8000
"""Divided by the number of partitions: they are merged, so all are fetched at once."""
_P = TypeVar("_P", AnswerTransactions, AnswerRecords)


class _Stream(Generic[_P]):
    """What one node has of some partitions: batch after batch, the next one asked for before this one is used."""

    def __init__(
        self,
        reader: Reader,
        parts: tuple[Partition, ...],
        answer: type[_P],
        question: Callable[[Epoch, tuple[Partition, ...], int, int], Packet],
        place: Callable[[_P], int | None],
    ) -> None:
        """`question(epoch, parts, place, number)` asks from *place* on, `number` questions after the first one;
        `place(answer)` is where to go on, None at the end.
        """
        self.reader = reader
        self.parts = parts
        self.node: NodeId | None = None
        self._answer: type[_P] = answer
        self._question = question
        self._place: Callable[[_P], int | None] = place
        self._next: int | None = None
        self._call: Call | None = None
        self._number = 0
        """Of the last question."""

    def begin(self, place: int) -> "list[tuple[_Stream[_P], _P]]":
        """Ask for the first batch; return it, and from whom to go on: several streams if several nodes are needed."""
        result = []
        for covered in self.reader.ask_cover(
            self.parts, lambda epoch, parts: self._question(epoch, parts, place, 0), self._answer
        ):
            stream = _Stream(self.reader, covered.parts, self._answer, self._question, self._place)
            stream.node = covered.node
            stream._ahead(covered.packet)
            result.append((stream, covered.packet))
        return result

    def more(self) -> "list[tuple[_Stream[_P], _P]]":
        """Return the next batch, from this stream or those that replace it; nothing at the end."""
        if self._next is None:
            return []
        shell = self.reader.shell
        if self._call is not None:
            try:
                packet = shell.result(self._call, self.reader.deadline())
            except NeoError:
                return self.begin(self._next)  # from another cell
            assert isinstance(packet, self._answer)
            self._ahead(packet)
            return [(self, packet)]
        return self.begin(self._next)

    def _ahead(self, packet: _P) -> None:
        self._next, self._call = self._place(packet), None
        if self._next is None or self.node is None:
            return
        shell = self.reader.shell
        with shell.lock:
            self._number += 1
            question = self._question(shell.core.epoch, self.parts, self._next, self._number)
            self._call = shell.call(self.node, question, self.reader.deadline())
            shell.flush()


class WholeTransaction(NamedTuple):
    """A committed transaction with the revisions of all partitions."""

    tid: Tid
    metadata: Metadata
    told: tuple[tuple[NodeId, tuple[Revision, ...]], ...]
    """Who told of which revisions, by partition and oid."""


def transactions(
    reader: Reader, start: Tid, stop: Tid, *, descending: bool = False, revisions: bool = True, values: bool = True
) -> Iterator[WholeTransaction]:
    """Yield the transactions from *start* to *stop* (both included), by tid."""
    if start > stop:
        return

    def question(epoch: Epoch, parts: tuple[Partition, ...], place: int, number: int) -> AskTransactions:
        low, high = (start, Tid(place)) if descending else (Tid(place), stop)
        limit = min(TRANSACTIONS_FIRST << min(number, 16), TRANSACTIONS_MAX)
        return AskTransactions(epoch, parts, low, high, descending, revisions, values, limit)

    stream = _Stream(reader, reader.all_partitions(), AnswerTransactions, question, lambda a: a.next or None)
    sign = -1 if descending else 1
    heap: list[tuple[int, int, _Stream[AnswerTransactions], Iterator[Transaction], Transaction]] = []
    number = 0

    def push(batches: Iterable[tuple[_Stream[AnswerTransactions], AnswerTransactions]]) -> None:
        nonlocal number
        todo = list(batches)
        while todo:
            source, packet = todo.pop()
            items = iter(packet.transactions)
            first = next(items, None)
            if first is None:
                todo += source.more()
                continue
            number += 1
            heapq.heappush(heap, (sign * first.tid, number, source, items, first))

    push(stream.begin(stop if descending else start))
    while heap:
        tid, told = heap[0][4].tid, list[tuple[NodeId, tuple[Revision, ...]]]()
        metadata = heap[0][4].metadata
        while heap and heap[0][4].tid == tid:
            _, n, source, items, head = heap[0]
            assert source.node is not None
            told.append((source.node, head.revisions))
            following = next(items, None)
            if following is not None:
                heapq.heapreplace(heap, (sign * following.tid, n, source, items, following))
            else:
                heapq.heappop(heap)
                push(source.more())
        yield WholeTransaction(tid, metadata, tuple(told))


class CurrentRecord(NamedTuple):
    """A revision of a stream of records, and who told of it."""

    node: NodeId
    revision: Revision


def records(reader: Reader, first: Oid, before: Tid, *, newer: bool = False) -> Iterator[list[CurrentRecord]]:
    """Yield, by ascending oid from *first* on, the revision current just below *before*; with the newer ones if
    asked for.
    """
    count = len(reader.all_partitions())
    limit = max(10, RECORDS_PER_BATCH // count)

    def of_partition(partition: Partition) -> Iterator[tuple[Oid, list[CurrentRecord]]]:
        def question(epoch: Epoch, parts: tuple[Partition, ...], place: int, number: int) -> AskRecords:
            del number
            return AskRecords(epoch, partition, Oid(place), before, limit, newer)

        stream = _Stream(reader, (partition,), AnswerRecords, question, lambda a: a.next)
        batches = stream.begin(first)
        while batches:
            ((source, packet),) = batches
            assert source.node is not None
            group: list[CurrentRecord] = []
            for revision in packet.revisions:
                if group and group[0].revision.oid != revision.oid:
                    yield group[0].revision.oid, group
                    group = []
                group.append(CurrentRecord(source.node, revision))
            if group:
                yield group[0].revision.oid, group
            batches = source.more()

    for _, group in heapq.merge(*(of_partition(Partition(p)) for p in range(count)), key=lambda item: item[0]):
        yield group


def plain_value(reader: Reader, node: NodeId, revision: Revision) -> bytes | None:
    """Return the value of a revision of a stream; None when it is absent."""
    data = revision.data
    assert data is not None
    if data.value:  # whole, as most are: there is nothing to ask for
        verify(data)
        return decompress(data.compression, data.value)
    if data.compression is Compression.ABSENT:
        return None
    if data.size and not data.value:
        _, data = reader.load_data(revision.oid, Tid(revision.tid + 1))
    return reader.value(node, revision.oid, revision.tid, data, reader.deadline())
