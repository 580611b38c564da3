"""The applier: writes what the log has decided to the back end, in batches, on a native thread of its own.

What it lacks is in the overlay, so nobody waits for it but long reads (`hurry`). A batch is one SQL transaction with
the log position up to which the back end is then complete. Between batches it makes slices of packing and of erasing,
and checkpoints: then the log may let go. A full disk is tried again, votes refused meanwhile; a database that is away
is looked for, with votes taken as far as the overlay has room; every other error is fatal: the node stops, starts again
and replays.
"""

import traceback
from collections import deque
from collections.abc import Callable, Sequence
from queue import Empty
from time import monotonic
from typing import Final, NamedTuple, Protocol

from neo_common.errors import BackendError, BackendLost, DiskFull
from neo_common.ids import Partition
from neo_storage.backends.base import REMOVALS, ApplyCommit, ApplyCopy, Backend, Op
from neo_storage.core.events import CopyIn, EraseCells, PackCells
from neo_storage.native import Bell, NativeQueue, start

_PACK_SLICE: Final = 500
"""Revisions per slice: some ms."""
_RETRY_S: Final = 1.0
_RETRY_MIN_S: Final = 0.1
_RETRY_MAX_S: Final = 5.0
"""Between two attempts to find a lost database: growing."""
_COMPANY_MAX: Final = 256
"""Items in the inbox that end the wait for company."""
_OP_BYTES: Final = 200
"""What an operation weighs beside its values, about."""


class ApplierSettings(NamedTuple):
    """Times in seconds, sizes in bytes."""

    linger_s: float = 0.05
    """How long a batch waits for company: a commit alone costs as much as ten. Meanwhile the overlay has it."""
    batch_bytes: int = 16 * 2**20
    checkpoint_bytes: int = 16 * 2**20
    """Written since the last checkpoint, at most about; SQLite's log has that size."""
    checkpoint_s: float = 5.0
    """After which something written is checkpointed at the latest."""


class Listener(Protocol):
    """Who is told; called on the applier's thread."""

    def applied(self, position: int) -> None:
        """The back end has everything up to *position*, readable."""

    def checkpointed(self, position: int) -> None:
        """It has it durably."""

    def copied_in(self, number: int) -> None:
        """It has what every `copy` up to that number said."""

    def packed(self, order: int, partition: Partition, revisions: int, size: int) -> None:
        """A cell is packed."""

    def erased(self, partition: Partition) -> None:
        """A dropped cell is erased."""

    def no_room(self, text: str) -> None:
        """The disk is full; it will be tried again."""

    def room(self) -> None:
        """There is room again."""

    def lost(self, text: str) -> None:
        """The database is away; it will be looked for."""

    def found(self) -> None:
        """It is back, and it is known what it has."""

    def failed(self, text: str) -> None:
        """It has stopped, for good."""


class _Batch:
    """What waits to be written."""

    def __init__(self) -> None:
        self.ops: list[Op] = []
        self.position = -1
        self.copied = 0
        self.is_to_be_durable = False
        self.bytes = 0

    def add(self, position: int, ops: Sequence[Op]) -> None:
        self.ops += ops
        self.position = position
        self.bytes += sum(map(_weight, ops))

    def add_copy(self, copy: CopyIn) -> None:
        self.ops += copy.ops
        self.copied = copy.number
        self.is_to_be_durable |= copy.durable
        self.bytes += sum(map(_weight, copy.ops))

    def __bool__(self) -> bool:
        return self.position >= 0 or self.copied > 0


def _weight(op: Op) -> int:
    match op:
        case ApplyCommit(partitions=partitions):
            return _OP_BYTES + sum(_OP_BYTES + w.data.size for _, writes in partitions for w in writes)
        case ApplyCopy(transactions=transactions):
            revisions = [r for t in transactions for r in t.revisions]
            return _OP_BYTES + sum(_OP_BYTES + (r.data.size if r.data else 0) for r in revisions)
        case _:
            return _OP_BYTES


class _PackRun:
    """The cells of a pack order that are not done."""

    def __init__(self, order: PackCells) -> None:
        self.order = order.order
        self.tid = order.tid
        self.cells = deque(order.partitions)
        self.revisions = self.bytes = 0


class Applier:
    """One thread, from `start` to `stop`. `put`, `pack`, `erase`, `hurry` and `stop`, for the hub, never block."""

    def __init__(self, backend: Backend, listener: Listener, settings: ApplierSettings) -> None:
        self._backend = backend
        self._listener = listener
        self._settings = settings
        self._position = -1
        self._inbox = NativeQueue()
        self._bell = Bell()
        self._batch = _Batch()
        self._before: deque[_Batch] = deque()
        """Batches that come before it: a removal begins one, so that it can be done in slices."""
        self._pack: _PackRun | None = None
        self._erase: deque[Partition] = deque()
        self._unsynced_bytes = 0
        self._unsynced_since: float | None = None
        self._is_hurried = False
        self._is_stopping = False
        self._is_full = False
        self._is_lost = False
        self._retry_s = _RETRY_MIN_S
        self._wait: Callable[[float], bool] | None = None

    def start(self, position: int = -1) -> None:
        """Begin. *position*: up to where the back end has been given the log already."""
        self._position = position
        self._wait = start(self._run)

    def put(self, position: int, ops: Sequence[Op]) -> None:
        """Write *ops*; positions ascend."""
        self._inbox.put((position, ops))
        if self._inbox.qsize() >= _COMPANY_MAX:
            self._bell.ring()

    def pack(self, order: PackCells) -> None:
        """Pack these cells, in place of an older order."""
        self._inbox.put(order)

    def copy(self, copy: CopyIn) -> None:
        """Write what has no place in the log, after what was put before; a flush is hurried."""
        self._inbox.put(copy)
        if copy.durable or self._inbox.qsize() >= _COMPANY_MAX:
            self.hurry()

    def erase(self, order: EraseCells) -> None:
        """Erase these cells, after those of older orders."""
        self._inbox.put(order)

    def hurry(self) -> None:
        """Somebody waits: write what there is now."""
        self._inbox.put("hurry")
        self._bell.ring()

    def stop(self) -> None:
        """Write what there is, make it durable, end. Then `wait`."""
        self._inbox.put("stop")
        self._bell.ring()

    def wait(self, timeout_s: float) -> bool:
        """Block until the thread has ended; return whether it has."""
        return self._wait is None or self._wait(timeout_s)

    # ------------------------------------------------------------------------------------------ its thread

    def _run(self) -> None:
        try:
            while not (self._is_stopping and (not self._batch or self._is_full or self._is_lost)):
                self._gather()
                self._work()
            if self._unsynced_since is not None and not self._is_lost:
                self._checkpoint()
        except BackendError as error:
            self._listener.failed(f"the database has failed: {error}")
        except Exception as error:  # noqa: BLE001  the root of this thread
            where = "; ".join(f"{f.name}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)[-5:])
            self._listener.failed(f"the applier has crashed: {type(error).__name__}: {error} ({where})")

    def _gather(self) -> None:
        """Wait until there is something to do; then, unless somebody is in a hurry, for more of it."""
        if self._is_full:
            self._take(_RETRY_S)
            return
        if self._is_lost:
            until = monotonic() + self._retry_s
            while not self._is_stopping and (left := until - monotonic()) > 0:
                self._take(left)
            self._retry_s = min(_RETRY_MAX_S, 2 * self._retry_s)
            return
        is_packing = (self._pack is not None and bool(self._pack.cells)) or bool(self._erase)
        if not self._batch and not is_packing:
            wait_s = None
            if self._unsynced_since is not None:
                wait_s = max(0.0, self._unsynced_since + self._settings.checkpoint_s - monotonic())
            self._take(wait_s)
        self._drain()
        is_company_wanted = self._batch and self._batch.bytes < self._settings.batch_bytes and not is_packing
        if is_company_wanted and not (self._is_hurried or self._is_stopping):
            # On the bell, not on the queue: to be woken for every commit would cost the hub more than the batch.
            self._bell.wait(self._settings.linger_s)
            self._drain()

    def _drain(self) -> None:
        """Take what is there, up to a full batch."""
        while self._batch.bytes < self._settings.batch_bytes and self._take(0.0):
            pass

    def _take(self, wait_s: float | None) -> bool:
        """Take one item, waiting so long for it; return whether there was one."""
        if wait_s is not None and wait_s <= 0 and self._inbox.empty():
            return False
        try:
            item = self._inbox.get(timeout=wait_s)
        except Empty:
            return False
        if item == "hurry":
            self._is_hurried = True
        elif item == "stop":
            self._is_stopping = True
        elif isinstance(item, CopyIn):
            self._batch.add_copy(item)
        elif isinstance(item, PackCells):
            self._pack = _PackRun(item)
        elif isinstance(item, EraseCells):
            self._erase += item.partitions
        else:
            position, ops = item
            if self._batch and ops and isinstance(ops[0], REMOVALS):
                self._before.append(self._batch)
                self._batch = _Batch()
            self._batch.add(position, ops)
        return True

    def _work(self) -> None:
        try:
            if self._is_lost:
                # What was under way is given again, whole: the database has said up to where it is complete, and
                # writing what is there already changes nothing.
                self._backend.reconnect()
                self._is_lost = False
                self._listener.found()
            while self._batch:
                self._apply()
            if self._pack and self._pack.cells and not self._is_stopping:
                self._pack_slice(self._pack)
            if self._erase and not self._is_stopping:
                self._erase_slice(self._erase[0])
            if self._is_checkpoint_due():
                self._checkpoint()
        except DiskFull as error:
            if not self._is_full:
                self._is_full = True
                self._listener.no_room(str(error))
        except BackendLost as error:
            if not self._is_lost:
                self._is_lost, self._retry_s = True, _RETRY_MIN_S
                self._listener.lost(str(error))
        else:
            if self._is_full:
                self._is_full = False
                self._listener.room()

    def _apply(self) -> None:
        batch = self._before[0] if self._before else self._batch
        self._backend.apply(batch.ops, max(batch.position, self._position))
        if self._before:
            self._before.popleft()
        else:
            self._batch = _Batch()
        self._is_hurried = False
        self._dirty(batch.bytes)
        if batch.position >= 0:
            self._position = batch.position
            self._listener.applied(batch.position)
        if batch.is_to_be_durable:
            self._checkpoint()
        if batch.copied:
            self._listener.copied_in(batch.copied)

    def _pack_slice(self, pack: _PackRun) -> None:
        step = self._backend.pack_step(pack.cells[0], pack.tid, _PACK_SLICE)
        self._dirty(_OP_BYTES * (1 + step.revisions_removed))
        pack.revisions += step.revisions_removed
        pack.bytes += step.bytes_removed
        if step.done:
            self._listener.packed(pack.order, pack.cells.popleft(), pack.revisions, pack.bytes)
            pack.revisions = pack.bytes = 0

    def _erase_slice(self, partition: Partition) -> None:
        is_done = self._backend.erase_step(partition, _PACK_SLICE)
        self._dirty(_OP_BYTES * _PACK_SLICE)
        if is_done:
            self._erase.popleft()
            self._listener.erased(partition)

    def _dirty(self, size: int) -> None:
        self._unsynced_bytes += size
        if self._unsynced_since is None:
            self._unsynced_since = monotonic()

    def _is_checkpoint_due(self) -> bool:
        since, settings = self._unsynced_since, self._settings
        if since is None:
            return False
        return self._unsynced_bytes >= settings.checkpoint_bytes or monotonic() >= since + settings.checkpoint_s

    def _checkpoint(self) -> None:
        position = self._backend.checkpoint()
        self._unsynced_bytes = 0
        self._unsynced_since = None
        self._listener.checkpointed(position)
