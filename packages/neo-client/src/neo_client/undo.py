"""Undo: what a transaction must store to take back another one. The leads then check it like any store.

For each object of the undone transaction: if its current data is what that transaction wrote, the data before it
comes back (as a copy, or as an absence if that transaction created the object). Otherwise the class of the object may
merge: the state before the undone transaction into the current one, with the undone one as their common ancestor.
"""

from collections.abc import Callable

from ZODB.POSException import ConflictError, POSKeyError, UndoError
from ZODB.utils import p64

from neo_client.commit import Commit
from neo_client.reading import Reader
from neo_common.compression import ABSENT, decompress, make_data
from neo_common.errors import RequestFailed
from neo_common.ids import NO_TID, Oid, Partition, Tid
from neo_common.wire.schema import (
    AnswerTransactions,
    AnswerUndo,
    AskTransactions,
    AskUndo,
    Compression,
    Data,
    UndoInfo,
    Write,
)

Merge = Callable[[bytes, bytes, bytes, bytes, bytes], bytes]
"""ZODB's tryToResolveConflict(oid, committed serial, old serial, new data, committed data)."""


def undo(reader: Reader, commit: Commit, tid: Tid, merge: Merge, preferred: Compression) -> list[Oid]:
    """Store in *commit* what undoes *tid*; return the oids concerned.

    Raises: UndoError with the reason; nothing was stored then.
    """
    oids = _objects_of(reader, tid)
    writes = [_undone(reader, commit, info, tid, merge, preferred) for info in _infos(reader, tid, oids)]
    for write, plain in writes:
        commit.write(write, plain)
    return [write.oid for write, _ in writes]


def _objects_of(reader: Reader, tid: Tid) -> list[Oid]:
    answers = reader.ask_cover(
        reader.all_partitions(),
        lambda epoch, parts: AskTransactions(epoch, parts, tid, tid, False, True, False, 1),
        AnswerTransactions,
    )
    oids = sorted(r.oid for a in answers for t in a.packet.transactions if t.tid == tid for r in t.revisions)
    if not oids:
        raise UndoError(f"there is no transaction {tid:016x}, or nothing is left of it")
    return oids


def _infos(reader: Reader, tid: Tid, oids: list[Oid]) -> list[UndoInfo]:
    by_part: dict[Partition, list[Oid]] = {}
    for oid in oids:
        by_part.setdefault(reader.shell.core.table.partition(oid), []).append(oid)
    try:
        answers = reader.ask_cover(
            by_part, lambda epoch, parts: AskUndo(epoch, tid, tuple(o for p in parts for o in by_part[p])), AnswerUndo
        )
    except RequestFailed as error:
        raise UndoError(f"transaction {tid:016x} cannot be undone any more: {error}") from error
    return sorted(info for a in answers for info in a.packet.objects)


def _undone(
    reader: Reader, commit: Commit, info: UndoInfo, tid: Tid, merge: Merge, preferred: Compression
) -> tuple[Write, bytes | None]:
    """Return what to store for one object."""
    oid, pending = info.oid, commit.writes.get(info.oid)
    origin = info.current_origin if pending is None else pending.copied_from
    if (pending is None and info.current == tid) or (origin == info.undone_origin and origin != NO_TID):
        return _former(reader, info)
    undone = _value(reader, oid, tid)
    current = _value(reader, oid, info.current) if pending is None else _plain(commit.value(oid))
    if undone == current:
        return _former(reader, info)
    if not info.previous:
        raise UndoError("the object was created by this transaction and changed by later ones", p64(oid))
    former = _value(reader, oid, info.previous)
    if undone is None or current is None or former is None:
        raise UndoError("the object was deleted meanwhile", p64(oid))
    try:
        merged = merge(p64(oid), p64(info.current), p64(tid), former, current)
    except ConflictError as error:
        raise UndoError(
            "later transactions have changed the object, and its class cannot merge them", p64(oid)
        ) from error
    return Write(oid, info.current, NO_TID, make_data(merged, preferred)), merged


def _former(reader: Reader, info: UndoInfo) -> tuple[Write, bytes | None]:
    """Return a store of what was there before."""
    if info.previous:
        try:
            serial, data = reader.load_data(info.oid, Tid(info.previous + 1))
        except POSKeyError:  # it was absent then too
            pass
        else:
            if serial != info.previous:
                raise UndoError("the revision before was packed away", p64(info.oid))
            return Write(info.oid, info.current, info.previous_origin, data), None
    return Write(info.oid, info.current, NO_TID, ABSENT), None


def _value(reader: Reader, oid: Oid, tid: Tid) -> bytes | None:
    """Return the plain value of the revision of that moment, None if it is an absence."""
    try:
        _, data = reader.load_data(oid, Tid(tid + 1))
    except POSKeyError:
        return None
    return _plain(data)


def _plain(data: Data) -> bytes | None:
    return None if data.compression is Compression.ABSENT else decompress(data.compression, data.value)
