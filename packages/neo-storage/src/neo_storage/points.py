"""Reads of single revisions from a back end that cannot be asked at once: over several connections.

Where the driver can wait through the hub, greenlets read, each with a connection of its own: less than half of a
hand-off to a thread and back. Elsewhere native threads do; then all that waits when a thread is free goes to it
together, in fair shares: a hand-off costs more than a read. `docs/backends.md` has the measurement.
"""

from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Final, Protocol, TypeVar

import gevent
from gevent.event import Event

from neo_common.errors import BackendError, BackendLost, DataCorrupted
from neo_common.ids import Oid, Partition, Tid
from neo_storage.backends.base import Backend, PointReader, Stored
from neo_storage.core.events import Loads, Piece, PointsRead, ReadPoints, Serials
from neo_storage.hub_waits import HubWaits
from neo_storage.native import Door, Worker, pause

PATIENCE_S: Final = 5.0
"""How long a read for a client tries to connect again; then it is answered that the database is away."""
_T = TypeVar("_T")


def patient(
    job: Callable[[], _T], limit_s: float, is_stopping: Callable[[], bool], rest: Callable[[float], None] = pause
) -> _T:
    """Return what *job* returns, trying again, ever more slowly, while the database is away. On a native thread.

    *job* must be one that may be repeated; *rest* waits so many seconds. Raises: BackendLost after *limit_s*, or when
    the node stops.
    """
    begun, delay_s = monotonic(), 0.05
    while True:
        try:
            return job()
        except BackendLost:
            if is_stopping() or monotonic() - begun > limit_s:
                raise
        rest(delay_s)
        delay_s = min(1.0, 2 * delay_s)


class PointReads(Protocol):
    """Performs `ReadPoints`. All calls are the hub's."""

    def __len__(self) -> int:
        """Return how many wait or are being read."""

    def ask(self, read: ReadPoints) -> None:
        """Perform *read*; what came of it is told later."""

    def close(self, timeout_s: float) -> None:
        """End it, blocking until what runs on threads has ended."""


def point_reads(
    backend: Backend,
    door: Door,
    spawn: Callable[[Callable[[], None]], None],
    done: Callable[[PointsRead], None],
    readers: int,
) -> PointReads:
    """Return what reads from *backend* over so many connections. *done* gets what came of each.

    *spawn* runs a function in a greenlet, until the node stops.
    """
    waits = HubWaits(door)
    reader = backend.hub_reader(waits)
    if reader is None:
        waits.close(0.0)
        return ThreadReads(backend, door, done, readers)
    lanes = [(waits, reader)]
    while len(lanes) < readers:
        waits = HubWaits(door)
        reader = backend.hub_reader(waits)
        assert reader is not None, "it had one a moment ago"
        lanes.append((waits, reader))
    return HubReads(lanes, spawn, done)


class HubReads:
    """Reads in greenlets: a read that comes takes one that rests; else it waits for the first that is free."""

    def __init__(
        self,
        lanes: Sequence[tuple[HubWaits, PointReader]],
        spawn: Callable[[Callable[[], None]], None],
        done: Callable[[PointsRead], None],
    ) -> None:
        """Take over *lanes*; see `point_reads`."""
        self._lanes = lanes
        self._done = done
        self._waiting: deque[ReadPoints] = deque()
        self._resting: list[Event] = []
        self._under_way = 0
        self._is_stopping = False
        for _, reader in lanes:
            spawn(self._lane(reader))

    def __len__(self) -> int:
        return len(self._waiting) + self._under_way

    def ask(self, read: ReadPoints) -> None:
        """Perform *read*."""
        self._waiting.append(read)
        if self._resting:
            self._resting.pop().set()

    def close(self, timeout_s: float) -> None:
        """Release the connections. The greenlets have ended, or never go on."""
        self._is_stopping = True
        self._waiting.clear()
        for waits, reader in self._lanes:
            if waits.close(timeout_s):
                reader.close()

    def _lane(self, reader: PointReader) -> Callable[[], None]:
        def point_reads() -> None:
            bell = Event()
            while True:
                if not self._waiting:
                    bell.clear()
                    self._resting.append(bell)
                    bell.wait()  # deadline: none, it rests until there is work
                    continue
                read = self._waiting.popleft()
                self._under_way += 1
                try:
                    result = self._read(reader, read)
                finally:
                    self._under_way -= 1
                self._done(PointsRead(read.number, result))

        return point_reads

    def _read(self, reader: PointReader, read: ReadPoints) -> object:
        try:
            return patient(lambda: perform(reader, read.wanted), PATIENCE_S, lambda: self._is_stopping, gevent.sleep)
        except BackendError as error:
            return error


class ThreadReads:
    """Reads on native threads."""

    def __init__(self, backend: Backend, door: Door, done: Callable[[PointsRead], None], readers: int) -> None:
        """*done* gets what came of each."""
        self._done = done
        self._idle = [(Worker(door), backend.range_reader()) for _ in range(readers)]
        self._all = list(self._idle)
        self._waiting: deque[ReadPoints] = deque()
        self._is_stopping = False

    def __len__(self) -> int:
        return len(self._waiting) + len(self._all) - len(self._idle)

    def ask(self, read: ReadPoints) -> None:
        """Perform *read*."""
        self._waiting.append(read)
        self._work()

    def close(self, timeout_s: float) -> None:
        """End the threads, blocking until what runs has ended."""
        self._is_stopping = True
        self._waiting.clear()
        for worker, reader in self._all:
            if worker.stop(timeout_s):
                reader.close()

    def _work(self) -> None:
        while self._waiting and self._idle:
            share = -(-len(self._waiting) // len(self._idle))
            self._begin([self._waiting.popleft() for _ in range(share)])

    def _begin(self, reads: Sequence[ReadPoints]) -> None:
        worker, reader = self._idle.pop()

        def job() -> list[PointsRead]:
            return [PointsRead(read.number, self._read(reader, read)) for read in reads]

        def done(result: object) -> None:
            self._idle.append((worker, reader))
            self._work()
            if isinstance(result, Exception):
                raise result  # what we do not understand stops the node
            assert isinstance(result, list)
            for event in result:
                self._done(event)

        worker.submit(job, done)

    def _read(self, reader: PointReader, read: ReadPoints) -> object:
        try:
            return patient(lambda: perform(reader, read.wanted), PATIENCE_S, lambda: self._is_stopping)
        except BackendError as error:
            return error


def perform(reader: PointReader, wanted: Serials | Loads | Piece) -> object:
    """Return what *wanted* says, as PointsRead has it. Raises: BackendError."""
    match wanted:
        case Serials(pairs):
            return reader.currents(pairs)
        case Loads(pairs, before):
            return tuple(_load(reader, partition, oid, before) for partition, oid in pairs)
        case Piece(partition, oid, tid, offset):
            return reader.piece(partition, oid, tid, offset)


def _load(reader: PointReader, partition: Partition, oid: Oid, before: Tid) -> Stored | DataCorrupted | None:
    """Return a revision, or what is wrong with it: the others of the same question are none the worse."""
    try:
        return reader.load(partition, oid, before)
    except DataCorrupted as error:
        return error
