"""The overlay: committed, not applied yet."""

from collections.abc import Iterator

from neo_common.ids import MAX_TID, NO_TID, Oid, Tid
from neo_common.wire.schema import PIECE_BYTES, Write
from neo_storage.backends.base import ApplyClear, ApplyCommit
from neo_storage.core.log_records import LogPiece, LogRecord
from neo_storage.core.overlay import REVISION_BYTES, Overlay
from neo_storage.core.tentative import Chunk, Pieces, PiecesOf
from support.storage_rig import META, P0, P1, T1, T2, T3, data, ttid, write


def none(oid: Oid) -> Iterator[bytes]:
    raise AssertionError(oid)


def commit(tid: int, *writes: Write, partition: int = 0) -> ApplyCommit:
    parts = (P0, P1)[partition : partition + 1]
    return ApplyCommit(ttid(counter=tid), 1, Tid(tid), META, parts, ((parts[0], writes),), none, NO_TID)


def test_last_revision_is_current_until_it_is_applied() -> None:
    overlay = Overlay()
    overlay.take(1, commit(T1, write(0)))
    overlay.take(2, commit(T2, write(0)))
    assert overlay.current(Oid(0)) == T2
    overlay.applied(1)
    assert overlay.current(Oid(0)) == T2
    overlay.applied(2)
    assert overlay.current(Oid(0)) is None


def test_load_finds_what_is_below_and_what_comes_next() -> None:
    overlay = Overlay()
    overlay.take(1, commit(T1, write(0, 0, b"one")))
    overlay.take(2, commit(T3, write(0, 0, b"three")))
    assert overlay.load(Oid(0), MAX_TID) == ((T3, 0, data(b"three")), 0)
    assert overlay.load(Oid(0), T3) == ((T1, T3, data(b"one")), T3)
    assert overlay.load(Oid(0), T1) == (None, T1)
    assert overlay.load(Oid(2), T1) == (None, 0)


def test_bytes_are_counted_and_given_back() -> None:
    overlay = Overlay()
    overlay.take(1, commit(T1, write(0, 0, bytes(1000)), write(2, 0, bytes(10))))
    assert overlay.bytes == 1010 + 2 * REVISION_BYTES
    overlay.applied(1)
    assert (overlay.bytes, len(overlay)) == (0, 0)


def test_clear_forgets_one_cell() -> None:
    overlay = Overlay()
    overlay.take(1, commit(T1, write(0)))
    overlay.take(1, commit(T1, write(1), partition=1))
    overlay.take(2, ApplyClear(P0, NO_TID))
    overlay.take(3, commit(T2, write(0)))
    assert overlay.load(Oid(0), T2) == (None, T2)
    assert overlay.current(Oid(1)) == T1
    overlay.applied(2)
    assert overlay.current(Oid(0)) == T2
    overlay.applied(3)
    assert (overlay.current(Oid(0)), overlay.bytes) == (None, 0)


def test_same_commit_twice_counts_once() -> None:
    overlay = Overlay()
    overlay.take(1, commit(T1, write(0)))
    overlay.take(2, commit(T1, write(0)))
    assert len(overlay) == 1


def test_value_in_memory_has_pieces_too() -> None:
    overlay = Overlay()
    overlay.take(1, commit(T1, write(0, 0, b"small")))
    assert overlay.piece(Oid(0), T1, 0) == b"small"
    assert overlay.piece(Oid(0), T1, PIECE_BYTES) is None
    assert overlay.piece(Oid(0), T2, 0) is None
    assert overlay.piece(Oid(2), T1, 0) is None


def test_only_the_piece_that_is_asked_for_is_read_from_the_log() -> None:
    values = [bytes([i]) * PIECE_BYTES for i in range(3)]
    read: list[int] = []

    class Log:
        def read(self, position: int) -> LogRecord:
            read.append(position)
            return LogPiece(ttid(), Oid(0), position * PIECE_BYTES, values[position])

    chunks = {Oid(0): tuple(Chunk(i, -1) for i in range(3))}
    big = Write(Oid(0), NO_TID, NO_TID, data(b"".join(values))._replace(value=b""))
    overlay = Overlay()
    overlay.take(1, commit(T1, big)._replace(pieces=PiecesOf({Oid(0): Pieces(Log(), chunks)})))
    assert overlay.piece(Oid(0), T1, 2 * PIECE_BYTES) == values[2]
    assert read == [2]
