"""The storage that ZODB sees: bytes at the edge, numbers behind it, every decision elsewhere.

Many transactions at once, from any thread: there is no commit lock. Conflicts are found at tpc_vote, by the leads, and
resolved there.
"""

import base64
import binascii
import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from time import monotonic
from typing import Any, Final, Self

import zope.interface
from ZODB import interfaces
from ZODB.BaseStorage import DataRecord, TransactionRecord
from ZODB.ConflictResolution import ConflictResolvingStorage
from ZODB.Connection import TransactionMetaData
from ZODB.POSException import (
    ConflictError,
    POSKeyError,
    ReadConflictError,
    ReadOnlyError,
    StorageError,
    StorageTransactionError,
    UndoError,
)
from ZODB.UndoLogCompatible import UndoLogCompatible
from ZODB.utils import p64, u64, z64

from neo_client import scanning
from neo_client.commit import Commit
from neo_client.core.cache import Hit
from neo_client.errors import StorageClosedError, TooLargeError, translated
from neo_client.gc import References, collect
from neo_client.importing import Pipeline
from neo_client.options import COMPRESSIONS, Options
from neo_client.others import may_refuse_later
from neo_client.reading import Reader
from neo_client.shell import Shell
from neo_client.undo import undo
from neo_common.compression import ABSENT, decompress, make_data
from neo_common.errors import RequestFailed
from neo_common.ids import MAX_TID, NO_TID, Oid, Tid, tid_from_time, time_from_tid
from neo_common.wire.schema import (
    AnswerHistory,
    AnswerImport,
    AnswerLast,
    AnswerOids,
    AnswerPack,
    AnswerPackState,
    AnswerRaiseOid,
    AnswerSizes,
    AnswerTransactions,
    AskHistory,
    AskImport,
    AskLast,
    AskOids,
    AskPack,
    AskPackState,
    AskRaiseOid,
    AskSizes,
    AskTransactions,
    CellSize,
    Compression,
    Metadata,
    Mode,
    Stale,
    Write,
)

OID_BATCH_MIN: Final = 100
OID_BATCH_MAX: Final = 1000
OBJECT_MAX_BYTES: Final = 2**31 - 1
"""No cluster takes a larger object; its own limit may be lower."""
SERIALS_MAX: Final = 2_000_000
"""Serials that an import remembers: some 200 MB."""
_PACK_POLL_S: Final = (0.02, 1.0)
_DURABLE_S: Final = 2.0
"""How long a pack waits for the last commits to be durable; what is not durable then is left to the next pack."""

Func = Callable[[bytes], object]


@zope.interface.implementer(
    interfaces.IStorage,
    interfaces.IStorageUndoable,
    interfaces.IStorageIteration,
    interfaces.IStorageRestoreable,
    interfaces.IStorageCurrentRecordIteration,
    interfaces.IPrefetchStorage,
    interfaces.IMultiCommitStorage,
    interfaces.IExternalGC,
    interfaces.ReadVerifyingStorage,
)
class Storage(ConflictResolvingStorage, UndoLogCompatible):  # type: ignore[misc]
    """A ZODB storage on a NEO cluster."""

    def __init__(self, options: Options) -> None:
        """Open, and wait for the cluster unless told otherwise.

        Raises: ClusterUnavailable when no primary serves within wait-timeout.
        """
        self.options = options
        self.__name__ = options.name
        self._db: Any = None
        self._compression = COMPRESSIONS[options.compress]
        self._commits: dict[int, tuple[Any, Commit]] = {}
        self._oids: list[Oid] = []
        self._oid_batch = OID_BATCH_MIN
        self._importing = False
        self._serials: dict[Oid, Tid] = {}
        """Serials that this import has written: what the next revision of each replaces."""
        self._records: tuple[bytes, Iterator[list[scanning.CurrentRecord]], list[scanning.CurrentRecord]] | None = None
        self._lock = threading.RLock()
        """For wrappers of ZODB that take their base's lock (DemoStorage); nothing here does."""
        self._shell = Shell(options, self)
        self._reader = Reader(self._shell)
        self._shell.start()
        if options.wait:
            try:
                self._shell.wait_ready(monotonic() + options.wait_timeout_s)
            except BaseException:
                self._shell.close()
                raise

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.options.name} on {', '.join(self.options.masters)}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # ------------------------------------------------------------------------------------------ what the shell tells

    def registerDB(self, wrapper: Any) -> None:
        """Take the wrapper that is told of invalidations."""
        super().registerDB(wrapper)
        self._db = wrapper

    def invalidated(self, tid: Tid, oids: tuple[Oid, ...]) -> None:
        """Tell ZODB of another client's commit, before `lastTransaction()` says it."""
        if self._db is not None:
            self._db.invalidate(p64(tid), [p64(oid) for oid in oids])

    def gap(self) -> None:
        """Tell ZODB that it must forget everything."""
        if self._db is not None:
            self._db.invalidateCache()

    # ------------------------------------------------------------------------------------------ about the storage

    def close(self) -> None:
        """Leave nothing behind. Open transactions are without effect."""
        if self._importing and not self._shell.is_closed:
            # The cluster finds out by itself when this client is gone: nothing to wait long for.
            with contextlib.suppress(StorageError):
                self._end_import(patience_s=2.0)
        self._shell.close()
        self._commits.clear()

    def getName(self) -> str:
        """Return the cluster's name."""
        return self.options.name

    def sortKey(self) -> str:
        """Return the cluster's name: the same on every client, so that the locks of two clusters are taken in
        one order.
        """
        return self.options.name

    def isReadOnly(self) -> bool:
        """Return whether writing is refused here."""
        return self.options.read_only

    def supportsUndo(self) -> bool:
        """Return True."""
        return True

    def getSize(self) -> int:
        """Return the bytes of all values, as stored, one copy of each."""
        return sum(cell.bytes for cell in self._sizes())

    def __len__(self) -> int:
        return sum(cell.objects for cell in self._sizes())

    def _sizes(self) -> list[CellSize]:
        reader, last = self._reader, self._shell.last
        partitions = reader.all_partitions()
        # A question about transactions waits for what is voted and not decided there yet: the sizes asked for after it
        # count every commit that this client knows.
        reader.ask_cover(
            partitions,
            lambda epoch, parts: AskTransactions(epoch, parts, last, last, False, False, False, 1),
            AnswerTransactions,
        )
        answers = reader.ask_cover(partitions, lambda epoch, parts: AskSizes(parts), AnswerSizes)
        return [cell for answer in answers for cell in answer.packet.cells]

    def lastTransaction(self) -> bytes:
        """Return the last tid of which ZODB has been told everything. Asks nobody."""
        self._shell.drain()
        return p64(self._shell.last)  # type: ignore[no-any-return]

    def sync(self, force: bool = True) -> None:
        """With the option server-sync: see everything that was committed before this call."""
        if self.options.server_sync and force:
            answer = self._shell.ask_primary(AskLast())
            assert isinstance(answer, AnswerLast)  # the invalidations up to it came before it

    def new_oid(self) -> bytes:
        """Return an oid that nobody else will ever be given."""
        self._must_write()
        while True:
            try:
                return p64(self._oids.pop())  # type: ignore[no-any-return]
            except IndexError:
                answer = self._shell.ask_primary(AskOids(self._oid_batch))
                assert isinstance(answer, AnswerOids)
                self._oid_batch = min(self._oid_batch * 2, OID_BATCH_MAX)
                fresh = range(answer.first, answer.first + answer.number)
                # One reference to a list whose end is taken: threads that come here together each bring a batch.
                self._oids[:0] = [Oid(n) for n in reversed(fresh)]

    # ------------------------------------------------------------------------------------------ reading

    def load(self, oid: bytes, version: str = "") -> tuple[bytes, bytes]:
        """Return value and serial as of `lastTransaction()`."""
        hit = self._load(Oid(u64(oid)), MAX_TID)
        if hit is None:
            raise POSKeyError(oid)
        return hit.value, p64(hit.tid)

    def loadBefore(self, oid: bytes, tid: bytes) -> tuple[bytes, bytes, bytes | None] | None:
        """Return value, serial and end of the revision just below *tid*; None if the object is newer."""
        hit = self._load(Oid(u64(oid)), Tid(u64(tid)))
        return None if hit is None else (hit.value, p64(hit.tid), p64(hit.end) if hit.end else None)

    def _load(self, oid: Oid, before: Tid) -> Hit | None:
        """Return the revision just below *before*, as of `lastTransaction()`: nothing above it was told to ZODB yet."""
        shell = self._shell
        if not shell.last:
            shell.wait_ready(self._reader.deadline())
        while True:
            with shell.lock:  # while a commit is being told, wait: it is either told, or not yet seen
                last = shell.last
            snapshot = min(before, Tid(last + 1))
            low, high = shell.void
            if low + 1 < snapshot <= high + 1:
                text = f"snapshot {snapshot:016x} saw transactions that a recovery of the cluster has given other tids"
                raise ReadConflictError(text, oid=p64(oid))
            hit = self._reader.load(oid, snapshot)
            if before == snapshot or hit is None or not hit.end:
                return hit
            if hit.end > shell.last:
                return hit._replace(end=NO_TID)
            # It was current a moment ago: whoever asks for what is current wants the next one.

    def loadSerial(self, oid: bytes, serial: bytes) -> bytes:
        """Return the value of that very revision."""
        tid = Tid(u64(serial))
        if tid >= MAX_TID:
            raise POSKeyError(oid)
        hit = self._reader.load(Oid(u64(oid)), Tid(tid + 1))
        if hit is None or hit.tid != tid:
            raise POSKeyError(oid)
        return hit.value

    def getTid(self, oid: bytes) -> bytes:
        """Return the serial of an object as of `lastTransaction()`."""
        return self.load(oid)[1]

    def prefetch(self, oids: Iterable[bytes], tid: bytes) -> None:
        """Bring these into the cache, with one message per storage."""
        before = min(Tid(u64(tid)), Tid(self._shell.last + 1))
        self._reader.prefetch([Oid(u64(oid)) for oid in oids], before)

    def history(self, oid: bytes, size: int = 1) -> list[dict[str, Any]]:
        """Return descriptions of the last *size* revisions, newest first."""
        number, reader = Oid(u64(oid)), self._reader
        limit = min(max(size, 0), 2**32 - 1)
        try:
            _, answer = reader.ask_cell(
                reader.shell.core.table.partition(number),
                lambda epoch: AskHistory(epoch, number, limit),
                AnswerHistory,
                reader.deadline(),
            )
        except RequestFailed as error:
            raise POSKeyError(oid) from error
        if not answer.changes and limit:
            raise POSKeyError(oid)
        return [
            {**_described(change.metadata), "tid": p64(change.tid), "serial": p64(change.tid), "size": change.size}
            | {"time": time_from_tid(change.tid)}
            for change in answer.changes
        ]

    # ------------------------------------------------------------------------------------------ committing

    def tpc_begin(self, transaction: Any, tid: bytes | None = None, status: str = " ") -> None:
        """Begin. With *tid* it is an import: one client at a time may do that, the others read only meanwhile."""
        self._must_write()
        if id(transaction) in self._commits:
            raise StorageTransactionError("Duplicate tpc_begin calls for same transaction")
        if tid is not None:
            self._begin_import()
        elif self._importing:
            self._end_import()
        given = NO_TID if tid is None else Tid(u64(tid))
        self._commits[id(transaction)] = transaction, self._new_commit(transaction, given)

    def _new_commit(self, transaction: Any, given_tid: Tid) -> Commit:
        metadata = Metadata(_bytes(transaction.user), _bytes(transaction.description), _extension(transaction))
        return Commit(self._shell, metadata, given_tid)

    def store(self, oid: bytes, serial: bytes | None, data: bytes, version: str, transaction: Any) -> None:
        """Store a revision; conflicts are found by tpc_vote."""
        assert not version, "ZODB has no versions any more"
        self._must_write()
        self._write(oid, serial, data, self._commit(transaction))

    def restore(
        self, oid: bytes, serial: bytes, data: bytes | None, version: str, prev_txn: bytes | None, transaction: Any
    ) -> None:
        """Store a revision that was committed elsewhere: whatever is current is replaced."""
        assert not version, "ZODB has no versions any more"
        self._must_write()
        self._restore(self._commit(transaction), oid, data, prev_txn)

    def _restore(self, commit: Commit, oid: bytes, data: bytes | None, prev_txn: bytes | None) -> None:
        number = Oid(u64(oid))
        base = self._serials.get(number, NO_TID)
        copied = Tid(u64(prev_txn)) if prev_txn else NO_TID
        value = ABSENT if data is None else make_data(_checked(data), self._compression)
        commit.restores = True
        # Not for the cache: what is copied is history, and more than it holds.
        commit.write(Write(number, base, copied, value), None)

    def _write(self, oid: bytes, serial: bytes | None, data: bytes, commit: Commit) -> None:
        base = Tid(u64(serial or z64))
        commit.write(Write(Oid(u64(oid)), base, NO_TID, make_data(_checked(data), self._compression)), data)

    def deleteObject(self, oid: bytes, serial: bytes, transaction: Any) -> None:
        """Delete an object, which must be at *serial*."""
        self._must_write()
        self._commit(transaction).write(Write(Oid(u64(oid)), Tid(u64(serial)), NO_TID, ABSENT), None)

    def checkCurrentSerialInTransaction(self, oid: bytes, serial: bytes, transaction: Any) -> None:
        """readCurrent: tpc_vote will fail unless *serial* is current, and stays so until the end."""
        commit, number, tid = self._commit(transaction), Oid(u64(oid)), Tid(u64(serial))
        if commit.check(number, tid) != tid:
            raise ReadConflictError(oid=oid, serials=(p64(commit.reads[number]), serial))

    def undo(self, transaction_id: bytes, transaction: Any) -> tuple[None, list[bytes]]:
        """Store what takes back a transaction of undoLog."""
        self._must_write()
        commit = self._commit(transaction)
        try:
            tid = Tid(u64(base64.decodebytes(transaction_id + b"\n")))
        except (binascii.Error, ValueError) as error:
            raise UndoError("Invalid transaction id") from error
        if tid <= self._packed():
            raise UndoError(f"transaction {tid:016x} was packed")
        try:
            oids = undo(self._reader, commit, tid, self.tryToResolveConflict, self._compression)
        except RequestFailed as error:
            raise translated(error) from error
        return None, [p64(oid) for oid in oids]

    def tpc_vote(self, transaction: Any) -> list[bytes]:
        """Vote; return the oids of which the stored data is not what ZODB has (conflicts that were resolved)."""
        commit = self._commit(transaction, "tpc_vote")
        if not commit.is_voted:
            if commit.restores and commit.writes:
                self._raise_oid(max(commit.writes))
            commit.mode = self._mode(transaction)
            commit.vote(partial(self._resolve, commit))
        return [p64(oid) for oid in commit.resolved]

    def _mode(self, transaction: Any) -> Mode:
        chosen = self.options.two_phase
        return Mode.A if (may_refuse_later(transaction) if chosen is None else chosen) else Mode.C

    def _resolve(self, commit: Commit, write: Write, stale: Stale) -> tuple[Write, bytes | None]:
        oid = p64(write.oid)
        if write.oid not in commit.writes:
            raise ReadConflictError(oid=oid, serials=(p64(stale.serial), p64(commit.reads[write.oid])))
        if commit.restores:
            return write._replace(base=stale.serial), None
        if write.data.compression is Compression.ABSENT:
            raise ConflictError(oid=oid, serials=(p64(stale.serial), p64(write.base)))
        plain = decompress(write.data.compression, write.data.value)
        if stale.serial == NO_TID:  # a pack has removed it: it comes back, as with other storages
            return write._replace(base=NO_TID), plain
        if write.base == NO_TID or (stale.data is not None and stale.data.compression is Compression.ABSENT):
            raise ConflictError(oid=oid, serials=(p64(stale.serial), p64(write.base)), data=plain)
        if stale.data is not None:
            committed = decompress(stale.data.compression, stale.data.value)
        else:
            try:
                committed = self.loadSerial(oid, p64(stale.serial))
            except POSKeyError:  # a deletion, which did not come along
                raise ConflictError(oid=oid, serials=(p64(stale.serial), p64(write.base)), data=plain) from None
        merged = self.tryToResolveConflict(oid, p64(stale.serial), p64(write.base), plain, committed)
        return Write(write.oid, stale.serial, NO_TID, make_data(merged, self._compression)), merged

    def tpc_finish(self, transaction: Any, func: Func = lambda tid: None) -> bytes:
        """Commit; return the tid. *func* is called with it before anybody here can see the commit."""
        commit = self._commit(transaction, "tpc_finish")
        if not commit.is_voted:
            raise StorageTransactionError("tpc_finish called before tpc_vote")
        del self._commits[id(transaction)]
        tid = commit.finish(lambda tid: func(p64(tid)))
        if commit.restores:
            self._remember_serials(commit.writes, tid)
        return p64(tid)  # type: ignore[no-any-return]

    def _remember_serials(self, oids: Iterable[Oid], tid: Tid) -> None:
        """Remember what the next revision of each will replace."""
        if len(self._serials) > SERIALS_MAX:
            self._serials.clear()  # then a conflict says what is current, at the price of a round trip
        self._serials.update((oid, tid) for oid in oids)

    def tpc_abort(self, transaction: Any) -> None:
        """Give up; unknown transactions are ignored."""
        _, commit = self._commits.pop(id(transaction), (None, None))
        if commit is not None:
            commit.abort()

    def tpc_transaction(self) -> Any:
        """Return a transaction that is being committed, if there is one. (There may be several.)"""
        return next((t for t, _ in self._commits.values()), None)

    def _commit(self, transaction: Any, what: str = "") -> Commit:
        _, commit = self._commits.get(id(transaction), (None, None))
        if commit is None:
            if self._shell.is_closed:
                raise StorageClosedError(f"the storage of cluster {self.options.name} is closed")
            raise StorageTransactionError(f"{what} called with wrong transaction" if what else (self, transaction))
        return commit

    def _must_write(self) -> None:
        if self.options.read_only:
            raise ReadOnlyError

    # ------------------------------------------------------------------------------------------ importing

    def copyTransactionsFrom(self, other: Any, verbose: int = 0) -> None:
        """Copy every transaction of *other*, with its tids, into this cluster."""
        self._must_write()
        pipeline = Pipeline()
        try:
            for source in other.iterator():
                self._begin_import()
                commit = self._new_commit(source, Tid(u64(source.tid)))
                pipeline.prepare(commit)
                for record in source:
                    self._restore(commit, record.oid, record.data, record.data_txn)
                if commit.writes:
                    self._raise_oid(max(commit.writes))
                self._remember_serials(commit.writes, commit.given_tid)
                pipeline.vote(partial(self._resolve, commit))
            pipeline.drain()
        except BaseException:
            self._serials.clear()
            pipeline.abandon()
            raise
        if self._importing:
            self._end_import()

    _raised: Oid = Oid(0)

    def _raise_oid(self, oid: Oid) -> None:
        """New oids must be above those that come."""
        if oid > self._raised:
            self._raised = Oid(oid + 10 * OID_BATCH_MAX)
            answer = self._shell.ask_primary(AskRaiseOid(self._raised))
            assert isinstance(answer, AnswerRaiseOid)
            self._oids.clear()

    def _begin_import(self) -> None:
        if not self._importing:
            answer = self._shell.ask_primary(AskImport(True))
            assert isinstance(answer, AnswerImport)
            self._importing = True

    def _end_import(self, patience_s: float | None = None) -> None:
        self._importing = False
        self._serials.clear()
        self._shell.ask_primary(AskImport(False), patience_s)

    # ------------------------------------------------------------------------------------------ undo log, iteration

    def undoLog(
        self, first: int = 0, last: int = -20, filter: Callable[[dict[str, Any]], Any] | None = None
    ) -> list[dict[str, Any]]:
        """Return descriptions of transactions that can be undone, newest first."""
        last = first - last if last < 0 else last
        found: list[dict[str, Any]] = []
        count = 0
        packed = self._packed()
        for item in scanning.transactions(
            self._reader, Tid(packed + 1), self._shell.last, descending=True, revisions=False, values=False
        ):
            if count >= last:
                break
            description = _described(item.metadata) | {"time": time_from_tid(item.tid)}
            description["id"] = base64.encodebytes(p64(item.tid)).rstrip()
            if filter is None or filter(description):
                if count >= first:
                    found.append(description)
                count += 1
        return found

    def _packed(self) -> Tid:
        """Return the tid of the last pack: nothing up to it can be undone."""
        answer = self._shell.ask_primary(AskPackState())
        assert isinstance(answer, AnswerPackState)
        return answer.tid

    def iterator(self, start: bytes | None = None, stop: bytes | None = None) -> "Iterator[TransactionRecord]":
        """Yield the transactions from *start* to *stop*, in the order of tids, as of now."""
        self._shell.wait_ready(self._reader.deadline())
        low = NO_TID if start is None else Tid(u64(start))
        high = self._shell.last if stop is None else min(Tid(u64(stop)), self._shell.last)
        return self._iterate(low, high)

    def _iterate(self, low: Tid, high: Tid) -> "Iterator[TransactionRecord]":
        for item in scanning.transactions(self._reader, low, high):
            yield _Transaction(self._reader, item)

    def record_iternext(self, next: bytes | None = None) -> tuple[bytes, bytes, bytes, bytes | None]:
        """Return oid, serial and value of the first current record from *next* on, and where to go on."""
        first = z64 if next is None else next
        if next is not None and self._records is not None and self._records[0] == first:
            _, stream, group = self._records
        else:
            self._shell.wait_ready(self._reader.deadline())
            stream = scanning.records(self._reader, Oid(u64(first)), Tid(self._shell.last + 1))
            found = _next(stream)
            if found is None:
                raise ValueError("there is no record any more") if next is not None else StopIteration
            group = found
        item = group[-1]
        following = _next(stream)
        self._records = None
        place = None
        if following is not None:
            place = p64(following[0].revision.oid)
            self._records = place, stream, following
        value = scanning.plain_value(self._reader, item.node, item.revision)
        assert value is not None, "deleted objects are left out"
        return p64(item.revision.oid), p64(item.revision.tid), value, place

    # ------------------------------------------------------------------------------------------ packing

    def pack(self, pack_time: float, referencesf: References | None, gc: bool | None = None) -> None:
        """Remove revisions that were not current any more at *pack_time*, and objects that nobody could reach then."""
        self._must_write()
        collecting = self.options.pack_gc if gc is None else gc
        wanted = min(tid_from_time(pack_time), self._shell.last)
        if not wanted:
            return
        self._wait_until_durable(wanted)
        answer = self._shell.ask_primary(AskPack(wanted, "asked by ZODB"))
        assert isinstance(answer, AnswerPack)
        self._wait_for_pack(answer.order)
        if collecting and referencesf is not None:
            collect(self._reader, answer.tid, referencesf)
        with self._shell.lock:
            self._shell.cache.clear()

    def _wait_until_durable(self, tid: Tid) -> None:
        """A pack goes to no tid that may still change: wait a moment for the last commits to be durable everywhere."""
        self._shell.say_heard()
        until = monotonic() + _DURABLE_S
        while monotonic() < until:
            answer = self._shell.ask_primary(AskLast())
            assert isinstance(answer, AnswerLast)
            if answer.durable >= tid:
                return
            self._shell.sleep(0.01)

    def _wait_for_pack(self, order: int) -> None:
        """Wait as long as it takes, and the cluster is there."""
        pause, pause_max = _PACK_POLL_S
        while True:
            state = self._shell.ask_primary(AskPackState())
            assert isinstance(state, AnswerPackState)
            if state.order != order or state.cells_done >= state.cells_total:
                return
            self._shell.sleep(pause)
            pause = min(pause * 1.5, pause_max)


class _Transaction(TransactionRecord):  # type: ignore[misc]
    """A transaction of an iterator; values that are large come when its records are asked for."""

    def __init__(self, reader: Reader, item: scanning.WholeTransaction) -> None:
        meta = item.metadata
        super().__init__(p64(item.tid), " ", meta.user, meta.description, meta.extension)
        self._reader = reader
        self._item = item

    def __iter__(self) -> Iterator[DataRecord]:
        for node, revisions in self._item.told:
            for revision in revisions:
                value = scanning.plain_value(self._reader, node, revision)
                copied = p64(revision.copied_from) if revision.copied_from else None
                yield DataRecord(p64(revision.oid), self.tid, value, copied)


def _next(
    stream: Iterator[list[scanning.CurrentRecord]],
) -> list[scanning.CurrentRecord] | None:
    return next(stream, None)


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


def _extension(transaction: Any) -> bytes:
    extension = getattr(transaction, "extension_bytes", None)
    if extension is None:
        extension = TransactionMetaData("", "", transaction.extension).extension_bytes
    assert isinstance(extension, bytes)
    return extension


def _described(metadata: Metadata) -> dict[str, Any]:
    """Return what undoLog and history say of a transaction; its extension first, so that it hides nothing."""
    extension = TransactionMetaData(b"", b"", metadata.extension).extension
    return {**extension, "user_name": metadata.user, "description": metadata.description}


def _checked(data: bytes) -> bytes:
    if len(data) > OBJECT_MAX_BYTES:
        raise TooLargeError(f"an object of {len(data)} bytes; at most {OBJECT_MAX_BYTES} can be stored: split it")
    return data
