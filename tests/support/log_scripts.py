"""Records of every kind for tests of the vote log, and a script that writes them."""

import random
from collections.abc import Callable

from neo_common.ids import MAX_TID, Epoch, NodeId, Oid, Partition, Ptid, Session, Tid, Ttid, Version
from neo_common.model.partition_table import Cell, PartitionTable, whole
from neo_common.states import CellState
from neo_common.wire.schema import Ceilings, Compression, Data, Decision, Metadata, Mode, ReadCheck, Record, Write
from neo_storage.core.log_records import (
    LogAbort,
    LogAmnesty,
    LogCeilings,
    LogClear,
    LogCollect,
    LogCommit,
    LogCopy,
    LogCopyPiece,
    LogEpoch,
    LogIdentity,
    LogLeftOut,
    LogPack,
    LogPiece,
    LogReached,
    LogRecord,
    LogSeal,
    LogStored,
    LogTable,
    LogTruncate,
    LogUnvote,
    LogVote,
)
from neo_storage.log_files import LogFiles
from neo_storage.vote_log import VoteLog


def record(number: int, size: int = 0) -> LogRecord:
    """A record that differs from those of other numbers, of every kind in turn, with *size* bytes where it has any."""
    ttid = Ttid(Session(1 << 32 | 7), number)
    tid = Tid(number + 1)
    p = Partition(number % 12)
    write = Write(Oid(number), Tid(0), Tid(0), Data(Compression.NONE, bytes(16), size, bytes([number % 256]) * size))
    table = PartitionTable(Version(Epoch(1), Ptid(number)), 1, [(Cell(NodeId(1 << 24 | 1), CellState.UP_TO_DATE),)])
    meta = Metadata(b"u", b"d", b"e")
    vote = Record(ttid, 1, p, (p,), meta, 0, (write,), (ReadCheck(Oid(5), tid),), Mode.C, tid, MAX_TID)
    kinds: tuple[Callable[[], LogRecord], ...] = (
        lambda: LogVote((vote,)),
        lambda: LogCommit(ttid, 1, tid, (p,), Tid(0)),
        lambda: LogPiece(ttid, Oid(number), 0, bytes([number % 256]) * size),
        lambda: LogStored(ttid, p, 0, (write, write)),
        lambda: LogUnvote(ttid, 1, p),
        lambda: LogAbort(ttid, 1),
        lambda: LogSeal(ttid, 1),
        lambda: LogTable(whole(table)),
        lambda: LogEpoch(Epoch(number)),
        lambda: LogCeilings(Ceilings(tid, Oid(number))),
        lambda: LogIdentity(NodeId(number), bytes(16)),
        lambda: LogAmnesty(),
        lambda: LogClear(p, tid),
        lambda: LogCopy(p, (), (Decision(ttid, 1, tid, ()),)),
        lambda: LogPack(number, tid),
        lambda: LogCollect(tid, (Oid(1), Oid(2))),
        lambda: LogLeftOut(),
        lambda: LogCopyPiece(p, Oid(number), tid, 0, bytes([number % 256]) * size),
        lambda: LogReached(p, tid, Oid(number)),
        lambda: LogTruncate(whole(table), tid),
    )
    return kinds[number % len(kinds)]()


def open_log(files: LogFiles, segment_bytes: int, seed: int = 0) -> tuple[VoteLog, list[LogRecord], int]:
    """Recover what is in *files*; return the log, ready for more, its records, and the first one's position."""
    rng = random.Random(seed)
    log = VoteLog(files, segment_bytes=segment_bytes, spare_segments=2, new_salt=lambda: rng.getrandbits(64))
    found = list(log.recover())
    positions = [position for position, _ in found]
    first = positions[0] if positions else 0
    assert positions == list(range(first, first + len(found)))
    log.flush_recovered()
    log.begin(log.end + 1)
    return log, [record for _, record in found], first
