"""One transaction of ZODB between tpc_begin and its end: what it stores, and its talk with the core.

Used by the thread that commits. What goes ahead of the vote is also read by whoever writes to the sockets.
"""

import logging
from collections.abc import Callable, Iterator
from typing import Final

from neo_client.core.events import (
    AbortDone,
    AbortNow,
    CommittedByRecovery,
    Failed,
    FinishDone,
    FinishNow,
    GiveUp,
    Job,
    Resolve,
    Resolved,
    StoredAhead,
    VoteDone,
    VoteNow,
)
from neo_client.errors import CommittedByRecoveryError, TooLargeError, of_code
from neo_client.shell import Shell, Underway
from neo_client.spool import Spool
from neo_common.ids import NO_TID, Oid, Partition, Tid, Ttid
from neo_common.wire.schema import (
    PIECE_BYTES,
    Compression,
    Data,
    ErrorCode,
    Metadata,
    Mode,
    Packet,
    ReadCheck,
    Stale,
    Store,
    StorePiece,
    Write,
)

log = logging.getLogger("neo_client")

AHEAD_BYTES: Final = 2 * 2**20
"""When so much waits for the vote, it goes ahead of it."""
BATCH_BYTES: Final = 512 * 2**10
"""Values joined into one Store."""
OBJECTS_MAX: Final = 800_000
"""Objects that one transaction may store or check: their oids must fit into one packet of the ordered path."""
METADATA_MAX_BYTES: Final = 4 * 2**20
"""User, description and extension of a transaction, together."""
WRITE_OVERHEAD: Final = 64
"""What a Write takes in a packet beyond its value, in bytes, about."""

Resolver = Callable[[Write, Stale], tuple[Write, bytes | None]]
"""Merges: given our write and what is current, returns the write to vote instead and its plain value; or raises."""


class Commit:
    """See the module."""

    def __init__(self, shell: Shell, metadata: Metadata, given_tid: Tid) -> None:
        """Begin. Raises: ClusterUnavailable; TooLargeError."""
        size = sum(map(len, metadata))
        if size > METADATA_MAX_BYTES:
            raise TooLargeError(f"{size} bytes of user, description, extension: at most {METADATA_MAX_BYTES} are kept")
        self.shell = shell
        self.metadata = metadata
        self.mode = Mode.C
        """How it is committed; may be changed until `vote`."""
        self.given_tid = given_tid
        self.writes: dict[Oid, Write] = {}
        """What is stored; values that went ahead are in the spool."""
        self.plain: dict[Oid, bytes] = {}
        """Plain values of what did not go ahead, for the cache."""
        self.reads: dict[Oid, Tid] = {}
        self.resolved: list[Oid] = []
        self.is_voted = False
        self.is_over = False
        """The core has told its end: tpc_abort has nothing more to do."""
        self.restores = False
        """It stores what was committed elsewhere: whatever is current is replaced."""
        self._inline_bytes = 0
        self._ahead: dict[Partition, list[Oid]] = {}
        self._spooled: dict[Oid, int] = {}
        self._spool = Spool()
        self.tx: Underway = shell.begin(self._pieces)

    # ------------------------------------------------------------------------------------------ storing

    def write(self, write: Write, plain: bytes | None) -> None:
        """Store; replaces what this transaction has stored for that oid. Waits when storages are slower than we are."""
        oid, data = write.oid, write.data
        old = self.writes.get(oid)
        self._check_count()
        if oid in self._spooled:
            self._rewrite(write)
            return
        if old is not None:
            self._inline_bytes -= len(old.data.value) + WRITE_OVERHEAD
        self.writes[oid] = write
        self._inline_bytes += len(data.value) + WRITE_OVERHEAD
        if plain is not None:
            self.plain[oid] = plain
        else:
            self.plain.pop(oid, None)
        if data.size > PIECE_BYTES:
            self._go_ahead([oid])
        elif self._inline_bytes > AHEAD_BYTES:
            self._go_ahead([o for o in self.writes if o not in self._spooled])

    def check(self, oid: Oid, serial: Tid) -> Tid:
        """readCurrent; return the serial that this transaction relies on, which is the first that was given."""
        self._check_count()
        return self.reads.setdefault(oid, serial)

    def _check_count(self) -> None:
        if len(self.writes) + len(self.reads) >= OBJECTS_MAX:
            raise TooLargeError(f"a transaction of more than {OBJECTS_MAX} objects: commit in smaller steps")

    def value(self, oid: Oid) -> Data:
        """Return the value that this transaction has stored for *oid*, whole."""
        data = self.writes[oid].data
        if oid in self._spooled:
            data = data._replace(value=self._spool.read(self._spooled[oid]))
        return data

    def _go_ahead(self, oids: list[Oid]) -> None:
        table = self.shell.core.table
        first: dict[Partition, int] = {}
        for oid in oids:
            p = table.partition(oid)
            ahead = self._ahead.setdefault(p, [])
            first.setdefault(p, len(ahead))
            ahead.append(oid)
            self._put_away(self.writes[oid])
        for p, start in first.items():
            self.shell.step(self.tx, StoredAhead(self.tx.handle, p, start, len(self._ahead[p])))
        self.shell.wait_for_room(self.tx)

    def _put_away(self, write: Write) -> None:
        """Move the value into the spool."""
        oid = write.oid
        self._inline_bytes -= len(write.data.value) + WRITE_OVERHEAD
        self.plain.pop(oid, None)
        self._spooled[oid] = self._spool.add(write.data.value)
        self.writes[oid] = write._replace(data=write.data._replace(value=b""))

    def _rewrite(self, write: Write) -> None:
        """Another value for what went ahead: it goes again, with all that followed it."""
        self._replace_spooled(write)
        p = self.shell.core.table.partition(write.oid)
        ahead = self._ahead[p]
        self.shell.step(self.tx, StoredAhead(self.tx.handle, p, ahead.index(write.oid), len(ahead)))
        self.shell.wait_for_room(self.tx)

    def _replace_spooled(self, write: Write) -> None:
        with self.shell.lock:  # whoever writes to the sockets reads the spool under it
            self._spool.drop(self._spooled[write.oid])
            self._spooled[write.oid] = self._spool.add(write.data.value)
            self.writes[write.oid] = write._replace(data=write.data._replace(value=b""))

    def _pieces(self, ttid: Ttid, partition: Partition, first: int) -> Iterator[Packet]:
        """Yield what goes ahead of the vote: pieces, and Stores that name them."""
        epoch = self.shell.core.epoch
        batch: list[Write] = []
        size = 0
        for oid in self._ahead[partition][first:]:
            write, number = self.writes[oid], self._spooled[oid]
            if write.data.size > PIECE_BYTES:
                for offset in range(0, write.data.size, PIECE_BYTES):
                    yield StorePiece(ttid, epoch, oid, offset, self._spool.read(number, offset, PIECE_BYTES))
            else:
                write = write._replace(data=write.data._replace(value=self._spool.read(number)))
            batch.append(write)
            size += len(write.data.value) + WRITE_OVERHEAD
            if size >= BATCH_BYTES:
                yield Store(ttid, epoch, partition, first, tuple(batch))
                first, batch, size = first + len(batch), [], 0
        if batch:
            yield Store(ttid, epoch, partition, first, tuple(batch))

    # ------------------------------------------------------------------------------------------ the end

    def vote(self, resolve: Resolver) -> None:
        """tpc_vote. Raises: ZODB's errors; then the transaction is, and stays, without effect."""
        self.begin_vote()
        self.end_vote(resolve)

    def begin_vote(self, after: Tid = NO_TID) -> None:
        """Send the votes. *after*: the given tid of a transaction that is voted, and will be committed first."""
        self.shell.step(self.tx, VoteNow(self.tx.handle, self._job(after)))

    def end_vote(self, resolve: Resolver) -> None:
        """Wait until it is fully voted. Raises: as `vote`."""
        shell, handle = self.shell, self.tx.handle
        trouble: BaseException | None = None
        while True:
            match shell.answer(self.tx):
                case VoteDone():
                    self.is_voted = True
                    return
                case Resolve(_, stale):
                    try:
                        event: Resolved | GiveUp = self._resolve(stale, resolve)
                    except BaseException as error:  # noqa: BLE001 - raised again below, once the core has let go
                        trouble, event = error, GiveUp(handle, ErrorCode.ILLEGAL, "conflict")
                    shell.step(self.tx, event)
                case Failed(_, code, text):
                    self._end()
                    raise trouble if trouble is not None else of_code(code, text)
                case other:
                    raise AssertionError(other)

    def _job(self, after: Tid) -> Job:
        ahead = [self.writes[oid] for oids in self._ahead.values() for oid in oids]
        inline = [w for oid, w in self.writes.items() if oid not in self._spooled]
        reads = tuple(ReadCheck(oid, tid) for oid, tid in self.reads.items() if oid not in self.writes)
        return Job(self.metadata, (*ahead, *inline), reads, self.mode, self.given_tid, after)

    def _resolve(self, stale: tuple[Stale, ...], resolve: Resolver) -> Resolved:
        writes = []
        for item in stale:
            ours = self.writes.get(item.oid)
            whole = None if ours is None else ours._replace(data=self.value(item.oid))
            if whole is None:
                whole = Write(item.oid, self.reads[item.oid], NO_TID, _NOTHING)
            merged, plain = resolve(whole, item)
            if item.oid in self._spooled:
                self._replace_spooled(merged)
            else:
                self.writes[item.oid] = merged
                if plain is not None:
                    self.plain[item.oid] = plain
            writes.append(self.writes[item.oid])
            if merged.data != whole.data and item.oid not in self.resolved:
                self.resolved.append(item.oid)
        return Resolved(self.tx.handle, tuple(writes), ())

    def finish(self, told: Callable[[Tid], object]) -> Tid:
        """tpc_finish: wait until it is known what became of it, however long that takes. `told` as ZODB wants it."""
        self.begin_finish(told)
        return self.end_finish()

    def begin_finish(self, told: Callable[[Tid], object]) -> None:
        """Ask the primary to commit. `told` as ZODB wants it."""
        self.tx.on_finish = lambda tid, is_last: self._on_finish(tid, is_last, told)
        self.shell.step(self.tx, FinishNow(self.tx.handle))

    def end_finish(self) -> Tid:
        """Wait until it is known what became of it, however long that takes."""
        match self.shell.answer(self.tx):
            case FinishDone(_, tid, _):
                self._end()
                if self.tx.finish_error is not None:
                    raise self.tx.finish_error
                return tid
            case Failed(_, code, text):
                self._end()
                raise of_code(code, text)
            case other:
                raise AssertionError(other)

    def _on_finish(self, tid: Tid, is_last: bool, told: Callable[[Tid], object]) -> None:
        """Note what was written as current, if it is. Of what recovery has committed, or whose answer was lost,
        the client hears after what came later.
        """
        cache = self.shell.cache
        for oid, write in self.writes.items() if is_last else ():
            cache.invalidate(tid, oid)
            plain = self.plain.get(oid)
            if plain is not None and write.data.compression is not Compression.ABSENT:
                cache.put(oid, tid, NO_TID, plain)
        told(tid)

    def abort(self) -> None:
        """tpc_abort. Raises: CommittedByRecoveryError when it is too late for that."""
        if self.is_over:  # tpc_vote or tpc_finish has failed
            return
        shell = self.shell
        shell.step(self.tx, AbortNow(self.tx.handle))
        try:
            while True:
                match shell.answer(self.tx):
                    case AbortDone() | Failed():
                        return
                    case CommittedByRecovery(_, tid) | FinishDone(_, tid, _):
                        raise CommittedByRecoveryError(
                            f"the transaction was committed as {tid:016x}: it cannot be aborted"
                        )
                    case _:
                        continue  # the application has run away from tpc_vote
        finally:
            self._end()

    def _end(self) -> None:
        self.is_over = True
        self.shell.end(self.tx)
        self._spool.close()


_NOTHING: Final = Data(Compression.ABSENT, bytes(16), 0, b"")
