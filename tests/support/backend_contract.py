"""What every back end must do. A test module derives from `BackendContract` and gives a `backends` fixture.

The rules are those of `neo_storage.backends.base`; a fourth back end needs only a fixture.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from time import monotonic, sleep
from typing import Final, NamedTuple

import pytest

from neo_common.ids import NO_TID, Epoch, NodeId, Oid, Partition, Ptid, Session, Tid, Ttid, Version
from neo_common.model.partition_table import Cell, PartitionTable
from neo_common.states import CellState
from neo_common.wire.schema import (
    PIECE_BYTES,
    Ceilings,
    Change,
    Compression,
    Data,
    Decision,
    Metadata,
    RangeDigest,
    Revision,
    Tombstone,
    Transaction,
    UndoInfo,
    Write,
)
from neo_storage.backends import removal as removal_module
from neo_storage.backends.base import (
    ApplyAbort,
    ApplyAmnesty,
    ApplyCeilings,
    ApplyClear,
    ApplyCollect,
    ApplyCommit,
    ApplyCopy,
    ApplyDecision,
    ApplyDoom,
    ApplyDrop,
    ApplyEpoch,
    ApplyIdentity,
    ApplyPack,
    ApplyTable,
    ApplyTruncate,
    Backend,
    Kept,
    Op,
    Place,
    RangeReader,
    digest_of,
)

S1, S2 = NodeId(0x01000001), NodeId(0x01000002)
P0, P1 = Partition(0), Partition(1)
T1, T2, T3, T4, T5, T6 = (Tid(number << 32) for number in range(1, 7))
END: Final = Tid(2**63 - 1)
TABLE: Final = PartitionTable(
    Version(Epoch(1 << 24 | 1), Ptid(7)),
    1,
    [(Cell(S1, CellState.UP_TO_DATE), Cell(S2, CellState.JOINING)), (Cell(S2, CellState.UP_TO_DATE),)],
)
META: Final = Metadata(b"user", b"what was done", b"\x80ext")
ABSENT: Final = Data(Compression.ABSENT, bytes(16), 0, b"")


class Backends(NamedTuple):
    """How a test gets at the back end under test."""

    new: Callable[[], Backend]
    """A new one, empty, not yet open. It is closed after the test."""
    reopen: Callable[[Backend], Backend]
    """Close it, as a process that ends would; return one for the same data, not yet open."""
    count: Callable[[Backend], object] = id
    """Have its server count what it has, now: MySQL does so within a minute or two by itself."""


def ttid(number: int) -> Ttid:
    return Ttid(Session(1 << 32 | 1), number)


def data(value: bytes) -> Data:
    return Data(Compression.NONE, bytes(8) + len(value).to_bytes(8, "big"), len(value), value)


def no_pieces(oid: Oid) -> Iterator[bytes]:
    raise AssertionError(f"nobody said that {oid} is in pieces")


def two_pieces(oid: Oid) -> Iterator[bytes]:
    """A value of one byte more than a piece."""
    yield b"a" * PIECE_BYTES
    yield b"b"


def commit(
    tid: Tid,
    *writes: Write,
    np: int = 2,
    forget: Tid = NO_TID,
    pieces: Callable[[Oid], Iterator[bytes]] = no_pieces,
    here: Sequence[int] | None = None,
    metadata: Metadata = META,
) -> ApplyCommit:
    """The commit of *writes* at *tid*; `here`: the partitions of this node, all by default."""
    parts = tuple(Partition(p) for p in sorted({w.oid % np for w in writes}))
    mine = parts if here is None else tuple(p for p in parts if p in here)
    grouped = tuple((p, tuple(w for w in writes if w.oid % np == p)) for p in mine)
    return ApplyCommit(ttid(tid >> 32), 1, tid, metadata, parts, grouped, pieces, forget)


def copy_of_empty(partition: Partition, first: int, last: int) -> ApplyCopy:
    """Transactions that have no revisions in *partition*, at tids T1 * first, ... T1 * last."""
    return ApplyCopy(
        partition,
        tuple(Transaction(Tid(n << 32), ttid(n), META, (partition,), ()) for n in range(first, last + 1)),
        (),
    )


def write(oid: int, value: bytes | None, base: Tid = NO_TID, copied_from: Tid = NO_TID) -> Write:
    return Write(Oid(oid), base, copied_from, ABSENT if value is None else data(value))


def everything(reader: RangeReader, partitions: Sequence[int] = (0, 1), *, values: bool = True) -> list[Transaction]:
    """All transactions with their revisions, by one call."""
    found, rest = reader.transactions(
        [Partition(p) for p in partitions],
        Tid(0),
        END,
        descending=False,
        revisions=True,
        values=values,
        limit=10_000,
        limit_bytes=2**30,
    )
    assert rest == 0
    return list(found)


class BackendContract:
    """The suite."""

    @pytest.fixture
    def backend(self, backends: Backends) -> Backend:
        backend = backends.new()
        backend.open()
        return backend

    @pytest.fixture
    def tabled(self, backend: Backend) -> Backend:
        """One that knows that there are two partitions."""
        backend.apply([ApplyTable(TABLE)], 0)
        return backend

    # ------------------------------------------------------------------------------------------ what is kept

    def test_new_database_knows_nothing(self, backends: Backends) -> None:
        kept = backends.new().open()
        assert kept.position == -1
        assert (kept.node, kept.cluster_id, kept.epoch) == (0, bytes(16), 0)
        assert kept.table.partitions == 0
        assert kept.ceilings == Ceilings(Tid(0), Oid(0))
        assert (kept.decisions, kept.tombstones) == ((), ())
        assert (kept.pack_order, kept.pack_tid, kept.last_tid, kept.last_oid) == (0, 0, 0, 0)

    def test_all_that_was_applied_is_kept(self, backends: Backends, backend: Backend) -> None:
        ops: list[Op] = [
            ApplyIdentity(S1, b"0123456789abcdef"),
            ApplyEpoch(Epoch(1 << 24 | 1)),
            ApplyTable(TABLE),
            ApplyCeilings(Ceilings(T6, Oid(2**40))),
            commit(T1, write(1, b"one"), write(8, b"eight")),
            ApplyDecision(Decision(ttid(2), 3, T2, ())),
            ApplyAbort(Tombstone(ttid(9), 2)),
            ApplyPack(17, T1),
        ]
        backend.apply(ops, 41)
        again = backends.reopen(backend).open()
        assert again == Kept(
            position=41,
            node=S1,
            cluster_id=b"0123456789abcdef",
            epoch=Epoch(1 << 24 | 1),
            table=TABLE,
            ceilings=Ceilings(T6, Oid(2**40)),
            decisions=(Decision(ttid(1), 1, T1, (P0, P1)), Decision(ttid(2), 3, T2, ())),
            tombstones=(Tombstone(ttid(9), 2),),
            pack_order=17,
            pack_tid=T1,
            last_tid=T1,
            last_oid=Oid(8),
        )

    def test_later_words_replace_earlier_ones(self, backends: Backends, backend: Backend) -> None:
        newer = TABLE.changed(Version(Epoch(2 << 24 | 1), Ptid(8)), {P1: (Cell(S1, CellState.UP_TO_DATE),)})
        for number, (table, tid) in enumerate(((TABLE, T1), (newer, T2)), 1):
            ceilings = ApplyCeilings(Ceilings(tid, Oid(number)))
            backend.apply([ApplyTable(table), ApplyEpoch(Epoch(number)), ApplyPack(number, tid), ceilings], number)
        kept = backends.reopen(backend).open()
        assert kept.table == newer
        assert kept.epoch == 2
        assert (kept.pack_order, kept.pack_tid) == (2, T2)
        assert kept.ceilings == Ceilings(T2, Oid(2))
        assert kept.position == 2

    def test_decisions_go_when_they_are_durable_everywhere(self, backends: Backends, backend: Backend) -> None:
        backend.apply([commit(T1, write(0, b"1")), commit(T2, write(0, b"2"))], 0)
        backend.apply([commit(T3, write(0, b"3"), forget=T2), commit(T4, write(0, b"4"), forget=T2)], 1)
        assert [d.tid for d in backends.reopen(backend).open().decisions] == [T3, T4]

    def test_decision_made_and_forgotten_in_one_batch_is_not_kept(self, backends: Backends, backend: Backend) -> None:
        backend.apply([commit(T1, write(0, b"1")), commit(T2, write(0, b"2"), forget=T1)], 0)
        assert [d.tid for d in backends.reopen(backend).open().decisions] == [T2]

    def test_tombstones_are_kept_at_their_highest_attempt_until_amnesty(
        self, backends: Backends, backend: Backend
    ) -> None:
        backend.apply([ApplyAbort(Tombstone(ttid(1), 2)), ApplyAbort(Tombstone(ttid(1), 1))], 0)
        backend = backends.reopen(backend)
        assert backend.open().tombstones == (Tombstone(ttid(1), 2),)
        backend.apply([ApplyAmnesty(), ApplyAbort(Tombstone(ttid(3), 1))], 1)
        assert backends.reopen(backend).open().tombstones == (Tombstone(ttid(3), 1),)

    def test_who_was_left_out_forgets_decisions_and_tombstones(self, backends: Backends, backend: Backend) -> None:
        backend.apply([commit(T1, write(0, b"1")), ApplyAbort(Tombstone(ttid(1), 2))], 0)
        backend.apply([commit(T2, write(0, b"2")), ApplyAmnesty(is_all=True), commit(T3, write(0, b"3"))], 1)
        kept = backends.reopen(backend).open()
        assert [d.tid for d in kept.decisions] == [T3]
        assert kept.tombstones == ()

    def test_checkpoint_tells_how_far_it_is_durable(self, backend: Backend) -> None:
        backend.apply([commit(T1, write(0, b"1"))], 12)
        assert backend.checkpoint() == 12

    # ------------------------------------------------------------------------------------------ point reads

    def test_current_is_the_last_serial(self, backend: Backend) -> None:
        backend.apply([commit(T1, write(2, b"a")), commit(T3, write(2, b"b"))], 0)
        assert backend.current(P0, Oid(2)) == T3
        assert backend.current(P0, Oid(4)) == 0
        assert backend.current(P1, Oid(2)) == 0

    def test_deletion_is_a_revision(self, backend: Backend) -> None:
        backend.apply([commit(T1, write(2, b"a")), commit(T2, write(2, None))], 0)
        assert backend.current(P0, Oid(2)) == T2
        stored = backend.load(P0, Oid(2), END)
        assert stored == (T2, 0, ABSENT)

    def test_load_gives_the_revision_below_and_the_next_tid(self, backend: Backend) -> None:
        backend.apply([commit(T1, write(2, b"a")), commit(T3, write(2, b"b")), commit(T5, write(2, b""))], 0)
        assert backend.load(P0, Oid(2), T1) is None
        assert backend.load(P0, Oid(2), Tid(T1 + 1)) == (T1, T3, data(b"a"))
        assert backend.load(P0, Oid(2), T3) == (T1, T3, data(b"a"))
        assert backend.load(P0, Oid(2), T4) == (T3, T5, data(b"b"))
        assert backend.load(P0, Oid(2), END) == (T5, 0, data(b""))
        assert backend.load(P0, Oid(4), END) is None

    def test_ids_up_to_the_highest_of_a_message_are_merely_not_there(self, backend: Backend) -> None:
        backend.apply([commit(T1, write(2, b"a"))], 0)
        top = 2**64 - 1
        assert backend.current(Partition(1), Oid(top)) == 0
        assert backend.load(Partition(1), Oid(top), Tid(top)) is None
        assert backend.load(P0, Oid(2), Tid(top)) == (T1, 0, data(b"a"))
        assert backend.piece(P0, Oid(2), Tid(top), top) is None

    def test_compression_checksum_and_origin_come_back(self, backend: Backend) -> None:
        packed = Data(Compression.ZSTD, b"\xff" * 16, 5, b"12345")
        backend.apply([commit(T1, Write(Oid(2), Tid(0), Tid(0), packed))], 0)
        assert backend.load(P0, Oid(2), END) == (T1, 0, packed)

    def test_value_in_pieces_comes_back_in_pieces(self, backends: Backends, backend: Backend) -> None:
        pieces = [b"a" * PIECE_BYTES, b"b" * PIECE_BYTES, b"c" * 10]
        big = Data(Compression.NONE, b"\x07" * 16, sum(map(len, pieces)), b"")
        op = commit(T1, Write(Oid(2), Tid(0), Tid(0), big), write(4, b"small"), pieces=lambda oid: iter(pieces))
        backend.apply([op, commit(T2, write(2, b"later"))], 0)
        backend = backends.reopen(backend)
        backend.open()
        assert backend.load(P0, Oid(2), T2) == (T1, T2, big)
        offsets = [number * PIECE_BYTES for number in range(4)]
        assert [backend.piece(P0, Oid(2), T1, offset) for offset in offsets] == [*pieces, None]
        assert backend.piece(P0, Oid(2), T3, 0) is None
        assert backend.load(P0, Oid(4), END) == (T1, 0, data(b"small"))

    def test_small_value_has_one_piece(self, backend: Backend) -> None:
        backend.apply([commit(T1, write(2, b"small"), write(4, None))], 0)
        assert backend.piece(P0, Oid(2), T1, 0) == b"small"
        assert backend.piece(P0, Oid(2), T1, PIECE_BYTES) is None
        assert backend.piece(P0, Oid(4), T1, 0) is None

    # ------------------------------------------------------------------------------------------ writing twice

    def test_what_is_there_already_changes_nothing(self, backends: Backends, backend: Backend) -> None:
        pieces = [b"a" * PIECE_BYTES, b"b"]
        big = Write(Oid(2), Tid(0), Tid(0), Data(Compression.NONE, bytes(16), PIECE_BYTES + 1, b""))
        op = commit(T1, big, write(1, b"one"), write(3, None), pieces=lambda oid: iter(pieces))
        with_more = commit(T2, write(1, b"two"), write(4, b"four"))
        backend.apply([op], 0)
        reader = backend.range_reader()
        once = everything(reader)
        backend.apply([op, with_more, with_more], 1)
        assert everything(reader)[:1] == once
        reader.close()
        backend = backends.reopen(backend)
        backend.open()
        assert [backend.piece(P0, Oid(2), T1, at) for at in (0, PIECE_BYTES)] == pieces
        assert backend.load(P1, Oid(1), END) == (T2, 0, data(b"two"))
        reader = backend.range_reader()
        sizes = reader.sizes([P0, P1])
        reader.close()
        assert [tuple(s) for s in sizes] == [(0, 2, 2, 2, PIECE_BYTES + 5), (1, 1, 3, 2, 6)]

    def test_only_partitions_of_this_node_are_written(self, backend: Backend) -> None:
        backend.apply([commit(T1, write(0, b"a"), write(1, b"b"), here=[1])], 0)
        assert backend.current(P0, Oid(0)) == 0
        reader = backend.range_reader()
        (transaction,) = everything(reader)
        reader.close()
        assert transaction.parts == (P0, P1)
        assert [r.oid for r in transaction.revisions] == [1]

    # ------------------------------------------------------------------------------------------ removals in slices

    @pytest.mark.parametrize(
        "removal",
        [
            ApplyTruncate(T2),
            ApplyClear(P1, T1),
            ApplyCollect(T3, tuple(Oid(n) for n in range(12))),
            ApplyCollect(T2, tuple(Oid(n) for n in range(12))),
        ],
    )
    def test_large_removal_comes_to_the_same_in_slices_of_any_size(
        self, backends: Backends, removal: Op, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = []
        for rows in (1, 2, 5, 1000):
            monkeypatch.setattr(removal_module, "SLICE_ROWS", rows)
            backend = backends.new()
            backend.open()
            big = Write(Oid(5), T1, Tid(0), Data(Compression.NONE, bytes(16), PIECE_BYTES + 1, b""))
            first = commit(T1, *(write(n, b"first") for n in range(20)))
            second = commit(T2, *(write(n, b"second", T1) for n in range(0, 20, 3)), big, pieces=two_pieces)
            backend.apply([ApplyTable(TABLE), first, second], 1)
            backend.apply([commit(T3, *(write(n, b"third", T1) for n in range(0, 20, 5)))], 2)
            backend.apply([copy_of_empty(P1, 11, 20)], 2)
            backend.apply([removal, commit(T4, write(40, b"after"))], 3)
            reader = backend.range_reader()
            found.append((everything(reader), reader.sizes([P0, P1]), backends.reopen(backend).open()))
            reader.close()
        assert all(one == found[0] for one in found)
        (transactions, _, kept) = found[0]
        assert kept.position == 3
        assert kept.last_tid == (T4 if isinstance(removal, ApplyTruncate | ApplyClear) else 20 << 32)
        assert sum(len(t.revisions) for t in transactions) < 20 + 8 + 4 + 1

    def test_removal_that_does_not_come_first_sees_what_comes_before_it(self, tabled: Backend) -> None:
        tabled.apply([commit(T1, write(0, b"old"), write(2, b"garbage"))], 1)
        tabled.apply([commit(T3, write(0, b"new", T1)), ApplyCollect(T2, (Oid(0), Oid(2)))], 2)
        assert tabled.load(P0, Oid(0), T2) == (T1, T3, data(b"old"))
        assert tabled.load(P0, Oid(2), END) is None

    # ------------------------------------------------------------------------------------------ long reads

    def test_history_is_newest_first(self, backend: Backend) -> None:
        second = Metadata(b"other", b"", b"")
        backend.apply([commit(T1, write(2, b"a")), commit(T2, write(4, b"x"))], 0)
        backend.apply([commit(T3, write(2, b"bb"), metadata=second), commit(T4, write(2, None))], 1)
        reader = backend.range_reader()
        changes = reader.history(P0, Oid(2), 10)
        assert changes == (Change(T4, 0, META), Change(T3, 2, second), Change(T1, 1, META))
        assert reader.history(P0, Oid(2), 2) == changes[:2]
        assert reader.history(P0, Oid(6), 2) == ()
        reader.close()

    def test_transactions_come_in_the_order_of_tids_with_what_was_asked(self, backend: Backend) -> None:
        # Applied out of order, as a pull of history beside commits may.
        backend.apply([commit(T3, write(2, b"c"), write(1, b"d"))], 0)
        backend.apply([commit(T1, write(0, b"a")), commit(T2, write(1, b"b", copied_from=T1))], 1)
        reader = backend.range_reader()

        def ask(**changed: object) -> tuple[tuple[Transaction, ...], Tid]:
            wanted: dict[str, object] = {"start": Tid(0), "stop": END, "descending": False}
            wanted |= {"revisions": True, "values": True}
            wanted |= {"limit": 10, "limit_bytes": 2**20} | changed
            partitions = wanted.pop("partitions", [P0, P1])
            return reader.transactions(partitions, **wanted)  # type: ignore[arg-type]  # a dict of mixed types

        t1 = Transaction(T1, ttid(1), META, (P0,), (Revision(Oid(0), T1, Tid(0), data(b"a")),))
        t2 = Transaction(T2, ttid(2), META, (P1,), (Revision(Oid(1), T2, T1, data(b"b")),))
        of_t3 = (Revision(Oid(2), T3, Tid(0), data(b"c")), Revision(Oid(1), T3, Tid(0), data(b"d")))
        t3 = Transaction(T3, ttid(3), META, (P0, P1), of_t3)
        assert ask() == ((t1, t2, t3), 0)
        assert ask(descending=True) == ((t3, t2, t1), 0)
        assert ask(start=T2) == ((t2, t3), 0)
        assert ask(stop=T2) == ((t1, t2), 0)
        assert ask(start=T2, stop=T2) == ((t2,), 0)
        assert ask(start=T3, stop=T2) == ((), 0)
        assert ask(partitions=[P1]) == ((t2, t3._replace(revisions=of_t3[1:])), 0)
        assert ask(partitions=[P1], descending=True) == ((t3._replace(revisions=of_t3[1:]), t2), 0)
        assert ask(partitions=[]) == ((), 0)
        assert ask(limit=2) == ((t1, t2), T3)
        assert ask(limit=2, descending=True) == ((t3, t2), T1)
        assert ask(limit=3) == ((t1, t2, t3), 0)
        assert ask(revisions=False)[0] == tuple(t._replace(revisions=()) for t in (t1, t2, t3))
        without = tuple(t._replace(revisions=tuple(r._replace(data=None) for r in t.revisions)) for t in (t1, t2, t3))
        assert ask(values=False) == (without, 0)
        reader.close()

    def test_transactions_are_the_same_however_they_are_read(
        self, backend: Backend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """In groups, pages and rows of any size: what is cut off is read again."""
        for number in range(1, 12):
            oids = range(number % 3, number * 2 if number != 6 else 30, 1 + number % 2)
            backend.apply([commit(Tid(number << 32), *(write(oid, b"%d" % number) for oid in oids))], number)
        reader = backend.range_reader()
        found, current = set[object](), set[object]()
        for group, rows, page in ((64, 2000, 1000), (2, 3, 2), (3, 1, 3), (1, 5, 7), (5, 4, 1)):
            monkeypatch.setattr("neo_storage.backends.iterating._GROUP", group)
            monkeypatch.setattr("neo_storage.backends.iterating._ROWS", rows)
            monkeypatch.setattr("neo_storage.backends.server.PAGE_ROWS", page)
            for descending in (False, True):
                for parts, limit, room in (([P0, P1], 100, 2**20), ([P1], 4, 2**20), ([P0, P1], 100, 1500)):
                    answers, low, high = list[object](), Tid(0), END
                    while True:
                        some, at = reader.transactions(
                            parts,
                            low,
                            high,
                            descending=descending,
                            revisions=True,
                            values=True,
                            limit=limit,
                            limit_bytes=room,
                        )
                        answers.append(some)
                        if not at:
                            break
                        low, high = (low, at) if descending else (at, high)
                    found.add((descending, tuple(parts), limit, room, tuple(answers)))
            assert len(found) == 6, (group, rows, page)
            for part in (P0, P1):
                records, first = list[Revision](), Oid(0)
                while True:
                    more, following = reader.records(part, first, END, newer=False, limit=7, limit_bytes=2**20)
                    records += more
                    if following is None:
                        break
                    first = following
                current.add((part, tuple(records)))
            assert len(current) == 2, (group, rows, page)
        reader.close()

    def test_transactions_stop_at_the_limit_of_bytes_and_go_on(self, backend: Backend) -> None:
        tids = [Tid(number << 32) for number in range(1, 21)]
        backend.apply([commit(tid, write(tid >> 32, bytes(1000))) for tid in tids], 0)
        reader = backend.range_reader()
        seen: list[Tid] = []
        calls = 0
        start = Tid(0)
        while True:
            found, start = reader.transactions(
                [P0, P1], start, END, descending=False, revisions=True, values=True, limit=100, limit_bytes=3500
            )
            seen += [t.tid for t in found]
            calls += 1
            assert len(found) <= 4
            if not start:
                break
        assert seen == tids
        assert 5 <= calls <= 20
        reader.close()

    def test_transaction_larger_than_an_answer_leaves_values_out(self, backend: Backend) -> None:
        """They look as if they were in pieces, and `piece` has them."""
        backend.apply([commit(T1, *(write(2 * n, bytes([n]) * 1000) for n in range(10)))], 0)
        reader = backend.range_reader()
        found, rest = reader.transactions(
            [P0], Tid(0), END, descending=False, revisions=True, values=True, limit=100, limit_bytes=5000
        )
        reader.close()
        assert rest == 0
        datas = [r.data for r in found[0].revisions]
        assert len(datas) == 10
        assert all(d is not None and d.size == 1000 for d in datas)
        present = [d.value for d in datas if d is not None and d.value]
        assert 1 <= len(present) < 10
        assert [backend.piece(P0, Oid(2 * n), T1, 0) for n in range(10)] == [bytes([n]) * 1000 for n in range(10)]

    def test_records_are_current_below_and_skip_deleted(self, backend: Backend) -> None:
        backend.apply([commit(T1, write(0, b"a"), write(2, b"b"), write(4, b"c"), write(1, b"odd"))], 0)
        backend.apply([commit(T2, write(0, b"aa"), write(2, None)), commit(T4, write(6, b"new"), write(4, b"cc"))], 1)
        reader = backend.range_reader()

        def ask(
            first: int, before: Tid, limit: int = 10, newer: bool = False
        ) -> tuple[list[tuple[int, Tid]], Oid | None]:
            found, rest = reader.records(P0, Oid(first), before, newer=newer, limit=limit, limit_bytes=2**20)
            return [(r.oid, r.tid) for r in found], rest

        assert ask(0, T3) == ([(0, T2), (4, T1)], None)
        assert ask(0, T2) == ([(0, T1), (2, T1), (4, T1)], None)
        assert ask(1, T3) == ([(4, T1)], None)
        assert ask(0, T1) == ([], None)
        assert ask(0, END) == ([(0, T2), (4, T4), (6, T4)], None)
        assert ask(0, END, limit=1) == ([(0, T2)], 2)
        assert ask(2, END, limit=1) == ([(4, T4)], 6)
        assert ask(0, T3, newer=True) == ([(0, T2), (4, T1), (4, T4), (6, T4)], None)
        assert ask(0, T2, newer=True) == ([(0, T1), (0, T2), (2, T1), (4, T1), (4, T4), (6, T4)], None)
        found, _ = reader.records(P0, Oid(4), END, newer=False, limit=1, limit_bytes=2**20)
        assert found == (Revision(Oid(4), T4, Tid(0), data(b"cc")),)
        reader.close()

    def test_records_stop_at_the_limit_of_bytes(self, backend: Backend) -> None:
        backend.apply([commit(T1, *(write(2 * n, bytes(1000)) for n in range(20)))], 0)
        reader = backend.range_reader()
        seen: list[Oid] = []
        first: Oid | None = Oid(0)
        while first is not None:
            found, first = reader.records(P0, first, END, newer=False, limit=100, limit_bytes=3000)
            assert len(found) <= 4
            seen += [r.oid for r in found if r.data is not None and (r.data.value or r.data.size)]
        reader.close()
        assert seen == [2 * n for n in range(20)]

    def test_undo_follows_copies_to_their_origin(self, backend: Backend) -> None:
        backend.apply([commit(T1, write(2, b"a")), commit(T2, write(2, b"b", T1))], 0)
        backend.apply([commit(T3, write(2, b"a", T2, copied_from=T1))], 1)
        backend.apply([commit(T4, write(2, b"a", T3, copied_from=T3))], 2)
        reader = backend.range_reader()
        oid = Oid(2)
        assert reader.undo(P0, oid, T1) == UndoInfo(oid, T4, T1, T1, Tid(0), Tid(0))
        assert reader.undo(P0, oid, T2) == UndoInfo(oid, T4, T1, T2, T1, T1)
        assert reader.undo(P0, oid, T3) == UndoInfo(oid, T4, T1, T1, T2, T2)
        assert reader.undo(P0, oid, T4) == UndoInfo(oid, T4, T1, T1, T3, T1)
        assert reader.undo(P0, oid, T5) is None
        assert reader.undo(P0, Oid(4), T1) is None
        reader.close()

    def test_disk_tells_what_is_used_and_what_is_free(self, backends: Backends, backend: Backend) -> None:
        """The pages that hold the values, when the database has counted again: a server does so at leisure."""
        before, free = backend.disk()
        assert free is None or free > 0
        for position in range(4):
            backend.apply([commit(Tid(T1 + position), *(write(2 * n, bytes(100_000)) for n in range(10)))], position)
        backends.count(backend)
        deadline = monotonic() + 200
        while backend.disk()[0] < before + 4_000_000:
            assert monotonic() < deadline, backend.disk()
            assert backend.checkpoint() == 3
            sleep(0.1)
        assert backend.disk()[0] < before + 40_000_000
        assert [tuple(s) for s in backend.range_reader().sizes([P0])] == [(0, 10, 40, 4, 4_000_000)]

    def test_sizes_count_cells(self, backend: Backend) -> None:
        backend.apply([commit(T1, write(0, b"abc"), write(2, b"de"), write(1, b"f")), commit(T2, write(0, b"g"))], 0)
        backend.apply([commit(T3, write(2, None))], 1)
        reader = backend.range_reader()
        sizes = reader.sizes([P1, P0, Partition(9)])
        reader.close()
        assert [tuple(s) for s in sizes] == [(1, 1, 1, 1, 1), (0, 1, 4, 3, 6), (9, 0, 0, 0, 0)]

    def test_range_reader_sees_what_is_applied_when_it_is_asked(self, backend: Backend) -> None:
        reader = backend.range_reader()
        assert everything(reader) == []
        backend.apply([commit(T1, write(0, b"a"))], 0)
        assert [t.tid for t in everything(reader)] == [T1]
        reader.close()

    # ------------------------------------------------------------------------------------------ removing

    def test_clear_erases_one_cell_above(self, backends: Backends, backend: Backend) -> None:
        backend.apply([commit(t, write(0, b"e"), write(1, b"o")) for t in (T1, T2, T3)], 0)
        backend.apply([ApplyClear(P0, T1)], 1)
        assert backend.load(P0, Oid(0), END) == (T1, 0, data(b"e"))
        assert backend.current(P1, Oid(1)) == T3
        reader = backend.range_reader()
        assert [t.tid for t in everything(reader, [0])] == [T1]
        assert [tuple(s) for s in reader.sizes([P0])] == [(0, 1, 1, 1, 1)]
        reader.close()
        assert backends.reopen(backend).open().last_tid == T3

    def test_clear_of_a_whole_cell_and_copy_back(self, backends: Backends, backend: Backend) -> None:
        backend.apply([commit(T1, write(0, b"ghost"))], 0)
        history = Transaction(T2, ttid(2), META, (P0, P1), (Revision(Oid(0), T2, T1, data(b"true")),))
        decision = Decision(ttid(3), 1, T3, (P1,))
        backend.apply([ApplyClear(P0, Tid(0)), ApplyCopy(P0, (history,), (decision,))], 1)
        assert backend.load(P0, Oid(0), END) == (T2, 0, data(b"true"))
        reader = backend.range_reader()
        assert everything(reader) == [history]
        reader.close()
        kept = backends.reopen(backend).open()
        assert decision in kept.decisions
        assert kept.last_tid == T2

    def pack(self, backend: Backend, partition: Partition, tid: Tid, limit: int = 1000) -> tuple[int, int, int]:
        """Pack one cell; return (steps, revisions, bytes)."""
        revisions = size = 0
        for steps in range(1, 1000):
            step = backend.pack_step(partition, tid, limit)
            revisions += step.revisions_removed
            size += step.bytes_removed
            if step.done:
                return steps, revisions, size
        raise AssertionError("it never ends")

    def test_pack_keeps_what_was_current_and_what_is_newer(self, tabled: Backend) -> None:
        tabled.apply([commit(t, write(0, bytes([t >> 32]))) for t in (T1, T2, T3, T4)], 1)
        tabled.apply([commit(T5, write(2, b"x"))], 2)
        assert self.pack(tabled, P0, T3) == (1, 2, 2)
        assert tabled.load(P0, Oid(0), T3) is None
        assert tabled.load(P0, Oid(0), T4) == (T3, T4, data(b"\x03"))
        assert tabled.load(P0, Oid(0), END) == (T4, 0, data(b"\x04"))
        reader = tabled.range_reader()
        assert [t.tid for t in everything(reader)] == [T3, T4, T5]
        assert [c.tid for c in reader.history(P0, Oid(0), 9)] == [T4, T3]
        reader.close()

    def test_pack_removes_a_deleted_object_wholly(self, tabled: Backend) -> None:
        tabled.apply([commit(T1, write(0, b"a"), write(2, b"stays")), commit(T2, write(0, None))], 1)
        assert self.pack(tabled, P0, T2) == (1, 2, 1)
        assert tabled.current(P0, Oid(0)) == 0
        reader = tabled.range_reader()
        assert [(t.tid, [r.oid for r in t.revisions]) for t in everything(reader)] == [(T1, [2])]
        reader.close()

    def test_pack_keeps_a_deletion_below_a_newer_revision(self, tabled: Backend) -> None:
        tabled.apply([commit(T1, write(0, b"a")), commit(T2, write(0, None)), commit(T3, write(0, b"b"))], 1)
        assert self.pack(tabled, P0, T2) == (1, 1, 1)
        assert tabled.load(P0, Oid(0), T3) == (T2, T3, ABSENT)

    def test_pack_keeps_a_deletion_above(self, tabled: Backend) -> None:
        tabled.apply([commit(T1, write(0, b"a")), commit(T3, write(0, None))], 1)
        assert self.pack(tabled, P0, T2) == (1, 0, 0)
        assert tabled.load(P0, Oid(0), T3) == (T1, T3, data(b"a"))

    def test_pack_leaves_copies_readable(self, tabled: Backend) -> None:
        tabled.apply([commit(T1, write(0, b"a")), commit(T2, write(0, b"b"))], 1)
        tabled.apply([commit(T3, write(0, b"a", copied_from=T1))], 2)
        self.pack(tabled, P0, T3)
        assert tabled.load(P0, Oid(0), END) == (T3, 0, data(b"a"))
        reader = tabled.range_reader()
        assert reader.undo(P0, Oid(0), T3) == UndoInfo(Oid(0), T3, T1, T1, Tid(0), Tid(0))
        reader.close()

    def test_pack_touches_one_cell(self, tabled: Backend) -> None:
        tabled.apply([commit(t, write(0, b"e"), write(1, b"o")) for t in (T1, T2)], 1)
        assert self.pack(tabled, P0, T2) == (1, 1, 1)
        assert tabled.load(P1, Oid(1), T2) == (T1, T2, data(b"o"))
        reader = tabled.range_reader()
        assert [[r.oid for r in t.revisions] for t in everything(reader)] == [[1], [0, 1]]
        reader.close()

    def test_pack_goes_in_slices_and_on_where_it_stopped(self, backends: Backends, tabled: Backend) -> None:
        tabled.apply([commit(t, *(write(2 * n, b"v") for n in range(50))) for t in (T1, T2)], 1)
        first = tabled.pack_step(P0, T2, 20)
        assert not first.done
        assert 0 < first.revisions_removed < 50
        tabled = backends.reopen(tabled)
        tabled.open()
        steps, revisions, _ = self.pack(tabled, P0, T2, 20)
        assert first.revisions_removed + revisions == 50
        assert 2 <= steps <= 8
        assert [tabled.load(P0, Oid(2 * n), END) for n in range(50)] == [(T2, 0, data(b"v"))] * 50
        assert self.pack(tabled, P0, T2) == (1, 0, 0)
        reader = tabled.range_reader()
        assert [tuple(s) for s in reader.sizes([P0])] == [(0, 50, 50, 1, 50)]
        reader.close()

    def test_next_pack_begins_anew(self, tabled: Backend) -> None:
        tabled.apply([commit(t, write(0, b"v")) for t in (T1, T2, T3)], 1)
        assert self.pack(tabled, P0, T2) == (1, 1, 1)
        assert self.pack(tabled, P0, T3) == (1, 1, 1)

    @pytest.mark.parametrize("op", [ApplyClear(P0, T1), ApplyClear(P0, NO_TID), ApplyTruncate(T1)])
    @pytest.mark.parametrize("limit", [10, 1])
    def test_clearing_and_truncation_leave_the_state_of_a_pack(
        self, backends: Backends, tabled: Backend, op: Op, limit: int
    ) -> None:
        """The cell is still, or still being, packed to that tid."""
        tabled.apply([commit(t, *(write(2 * n, b"v") for n in range(3))) for t in (T1, T2, T3)], 1)
        tabled.pack_step(P0, T2, limit)
        reader = tabled.range_reader()
        before = reader.packed(P0)
        reader.close()
        assert before == (T2, limit == 10)
        tabled.apply([op], 2)
        tabled = backends.reopen(tabled)
        tabled.open()
        reader = tabled.range_reader()
        assert reader.packed(P0) == before
        reader.close()

    def test_pack_of_values_in_pieces_frees_them(self, tabled: Backend) -> None:
        big = Write(Oid(2), Tid(0), Tid(0), Data(Compression.NONE, bytes(16), PIECE_BYTES + 1, b""))

        def pieces(oid: Oid) -> Iterator[bytes]:
            return iter([b"a" * PIECE_BYTES, b"b"])

        tabled.apply([commit(T1, big, pieces=pieces), commit(T2, write(2, b"c")), commit(T3, big, pieces=pieces)], 1)
        assert self.pack(tabled, P0, T2) == (1, 1, PIECE_BYTES + 1)
        assert tabled.piece(P0, Oid(2), T1, 0) is None
        assert tabled.piece(P0, Oid(2), T3, PIECE_BYTES) == b"b"
        assert tabled.load(P0, Oid(2), T3) == (T2, T3, data(b"c"))

    def test_collect_removes_all_revisions_unless_one_is_newer(self, tabled: Backend) -> None:
        tabled.apply([commit(T1, write(0, b"a"), write(2, b"b"), write(1, b"c")), commit(T2, write(0, b"d"))], 1)
        tabled.apply([commit(T3, write(2, b"newer"))], 2)
        tabled.apply([ApplyCollect(T2, (Oid(0), Oid(1), Oid(2), Oid(77)))], 3)
        assert [tabled.current(Partition(oid % 2), Oid(oid)) for oid in (0, 1, 2)] == [0, 0, T3]
        assert tabled.load(P0, Oid(2), T3) == (T1, T3, data(b"b"))
        reader = tabled.range_reader()
        assert [(t.tid, [r.oid for r in t.revisions]) for t in everything(reader)] == [(T1, [2]), (T3, [2])]
        reader.close()

    # ---- erasing, truncating

    def test_a_doomed_cell_is_erased_in_slices_and_nothing_else(self, backends: Backends, backend: Backend) -> None:
        backend.apply(
            [ApplyTable(TABLE), commit(T1, write(0, b"a"), write(1, b"b"), write(2, b"c")), ApplyDoom((P0,))], 1
        )
        backend.apply([commit(T2, write(0, b"d"))], 2)
        backend = backends.reopen(backend)
        kept = backend.open()
        assert kept.doomed == (P0,)
        assert not backend.erase_step(P0, 2)
        assert sum(backend.current(P0, Oid(n)) != NO_TID for n in (0, 2)) == 1
        backend = backends.reopen(backend)
        kept = backend.open()
        assert kept.doomed == (P0,)
        while not backend.erase_step(P0, 2):
            pass
        assert backend.range_reader().sizes([P0])[0][1:] == (0, 0, 0, 0)
        assert backend.current(P1, Oid(1)) == T1
        backend = backends.reopen(backend)
        kept = backend.open()
        assert kept.doomed == ()

    def test_a_cell_that_is_back_is_not_erased(self, backend: Backend) -> None:
        backend.apply([ApplyTable(TABLE), commit(T1, write(0, b"a"), write(2, b"c")), ApplyDoom((P0,))], 1)
        assert not backend.erase_step(P0, 1)
        backend.apply([ApplyDoom((), (P0,))], 2)
        assert backend.erase_step(P0, 1)
        assert backend.current(P0, Oid(2)) == T1

    def test_erasing_frees_values_in_pieces(self, backend: Backend) -> None:
        backend.apply([ApplyTable(TABLE), commit(T1, write(0, bytes(PIECE_BYTES + 1))), ApplyDoom((P0,))], 1)
        assert backend.erase_step(P0, 10)
        assert backend.piece(P0, Oid(0), T1, 0) is None

    def test_erasing_takes_transactions_without_revisions_in_slices_too(self, backend: Backend) -> None:
        backend.apply([ApplyTable(TABLE), copy_of_empty(P0, 1, 7), copy_of_empty(P1, 1, 2), ApplyDoom((P0,))], 1)
        assert not backend.erase_step(P0, 3)
        assert not backend.erase_step(P0, 3)
        assert backend.erase_step(P0, 3)
        reader = backend.range_reader()
        assert [s.transactions for s in reader.sizes([P0, P1])] == [0, 2]
        reader.close()

    def test_truncation_erases_everywhere_what_is_above(self, backends: Backends, backend: Backend) -> None:
        backend.apply([ApplyTable(TABLE)], 0)
        for position, tid in enumerate((T1, T2, T3), 1):
            backend.apply([commit(tid, write(0, b"x"), write(1, b"y"))], position)
        backend.apply([ApplyTruncate(T2)], 4)
        backend = backends.reopen(backend)
        kept = backend.open()
        assert [backend.current(p, Oid(p)) for p in (P0, P1)] == [T2, T2]
        assert {d.tid for d in kept.decisions} == {T1, T2}
        assert kept.last_tid == T2

    def test_high_marks_survive_removal(self, backends: Backends, tabled: Backend) -> None:
        """Else lastTransaction() would go back, and an oid be given twice."""
        tabled.apply([commit(T1, write(0, b"a"), write(2, b"b")), commit(T2, write(2, None))], 1)
        self.pack(tabled, P0, T2)
        kept = backends.reopen(tabled).open()
        assert (kept.last_tid, kept.last_oid) == (T2, 2)

    # ------------------------------------------------------------------------------------------ copying

    @staticmethod
    def copied(
        reader: RangeReader, *, limit: int = 100, limit_bytes: int = 2**20, stop: Tid = END
    ) -> list[Transaction]:
        """All of P0 by as many calls as it takes, each part as it came."""
        found: list[Transaction] = []
        place: Place | None = Place(Tid(0), Oid(0))
        while place is not None:
            part, place = reader.copy(P0, place, stop, values=True, limit=limit, limit_bytes=limit_bytes)
            found += part
        return found

    def test_copy_gives_history_in_parts_however_small(self, backend: Backend) -> None:
        backend.apply([commit(T1, write(0, b"a"), write(2, b"bb"), write(4, None)), commit(T2, write(1, b"other"))], 1)
        backend.apply([commit(T3, write(2, b"ccc", T1), write(4, b"d", T1, T1))], 2)
        reader = backend.range_reader()
        whole = self.copied(reader)
        assert [(t.tid, t.metadata, t.parts) for t in whole] == [(T1, META, (P0,)), (T3, META, (P0,))]
        for limit, limit_bytes in ((1, 2**20), (2, 2**20), (100, 1), (100, 3)):
            revisions = [r for t in self.copied(reader, limit=limit, limit_bytes=limit_bytes) for r in t.revisions]
            assert revisions == [r for t in whole for r in t.revisions]
        assert [t.tid for t in self.copied(reader, stop=T2)] == [T1]
        reader.close()

    def test_copy_without_values_has_their_checksums(self, backend: Backend) -> None:
        backend.apply([commit(T1, write(0, b"abc"))], 1)
        reader = backend.range_reader()
        (transaction,), rest = reader.copy(P0, Place(T1, Oid(0)), END, values=False, limit=9, limit_bytes=9)
        assert rest is None
        assert transaction.revisions[0].data == data(b"abc")._replace(value=b"")
        reader.close()

    def test_copy_gives_transactions_without_revisions(self, backend: Backend) -> None:
        empty = [
            ApplyCommit(ttid(n), 1, Tid(n << 32), META, (P0,), ((P0, ()),), no_pieces, NO_TID) for n in range(1, 8)
        ]
        backend.apply([*empty, commit(Tid(8 << 32), write(0, b"a"))], 1)
        reader = backend.range_reader()
        for limit in (1, 3, 100):
            tids = [t.tid >> 32 for t in self.copied(reader, limit=limit)]
            assert sorted(set(tids)) == [1, 2, 3, 4, 5, 6, 7, 8]
        reader.close()

    def test_what_was_copied_in_parts_is_the_same(self, backends: Backends, backend: Backend) -> None:
        large = bytes(range(256)) * (5 * PIECE_BYTES // 512)
        pieces = {Oid(6): [large[at : at + PIECE_BYTES] for at in range(0, len(large), PIECE_BYTES)]}
        backend.apply([commit(T1, write(0, b"a"), write(2, b"bb"), write(6, large)), commit(T2, write(2, b"c", T1))], 1)
        reader = backend.range_reader()
        other = backends.new()
        other.open()
        for part in self.copied(reader, limit=1):
            other.apply([ApplyCopy(P0, (part,), (), lambda oid: iter(pieces[oid]))], 1)
            other.apply([ApplyCopy(P0, (part,), (), lambda oid: iter(pieces[oid]))], 1)  # it may come twice
        theirs = other.range_reader()
        assert self.copied(theirs) == self.copied(reader)
        assert theirs.digest(P0, T1, END) == reader.digest(P0, T1, END)
        assert other.piece(P0, Oid(6), T1, PIECE_BYTES) == pieces[Oid(6)][1]
        reader.close()
        theirs.close()

    def test_ranges_cover_all_that_is_there(self, backend: Backend) -> None:
        backend.apply([commit(Tid(n << 32), write(0, b"%d" % n), write(2, b"x")) for n in range(1, 40)], 1)
        reader = backend.range_reader()
        ranges = reader.digests(P0, Tid(5), END, size=10, limit=100)
        assert ranges[0].start == 5
        assert ranges[-1].stop == 39 << 32
        assert all(b.start == a.stop + 1 for a, b in pairwise(ranges))
        assert sum(r.revisions for r in ranges) == reader.count(P0, Tid(5), END) == 78
        assert all(r.revisions <= 10 for r in ranges)
        assert [reader.digest(P0, r.start, r.stop) for r in ranges] == list(ranges)
        assert reader.digests(P0, Tid(5), END, size=10, limit=3) == ranges[:3]
        assert reader.digests(P0, Tid(40 << 32), END, size=10, limit=3) == ()
        assert reader.digests(P0, T1, T1, size=1, limit=9) == (reader.digest(P0, T1, T1),)
        reader.close()

    def test_digest_differs_when_anything_does(self, backends: Backends, backend: Backend) -> None:
        base = [commit(T1, write(0, b"a"), write(2, b"b")), commit(T2, write(0, b"c", T1))]
        others: list[list[Op]] = [
            [commit(T1, write(0, b"a")), base[1]],
            [commit(T1, write(0, b"a"), write(2, b"B.")), base[1]],
            [commit(T1, write(0, b"a"), write(2, b"b", NO_TID, T1)), base[1]],
            [commit(T1, write(0, b"a"), write(2, b"b"), metadata=META._replace(user=b"x")), base[1]],
            [base[0]],
            [base[0], commit(T3, write(0, b"c", T1))],
        ]
        backend.apply(base, 1)
        digests = {backend.range_reader().digest(P0, T1, END)}
        for ops in others:
            other = backends.new()
            other.open()
            other.apply(ops, 1)
            reader = other.range_reader()
            digests.add(reader.digest(P0, T1, END))
            reader.close()
        assert len(digests) == len(others) + 1

    def test_digest_is_the_one_that_is_written_down(self, backend: Backend) -> None:
        """Cells of one row may stand in databases of different kinds."""
        backend.apply([commit(T1, write(0, b"a"), write(2, None))], 1)
        reader = backend.range_reader()
        session = ttid(1).session
        transactions = f"{T1},{session},1,75736572,776861742077617320646F6E65,80657874;".encode()
        revisions = f"{T1},0,0,0,1,{(bytes(15) + bytes([1])).hex()};{T1},2,0,15,0,{bytes(16).hex()};".encode()
        assert reader.digest(P0, T1, T2) == RangeDigest(T1, T2, 2, digest_of(transactions, revisions))
        reader.close()

    def test_drop_erases_what_it_names(self, backend: Backend) -> None:
        backend.apply([commit(T1, write(0, b"a"), write(2, b"b")), commit(T2, write(0, b"c", T1)), commit(T3)], 1)
        backend.apply([commit(T4, write(0, b"d"), write(2, b"e"))], 2)
        backend.apply([ApplyDrop(P0, (Place(T1, Oid(0)), Place(T2, Oid(0)), Place(T3, Oid(9))), (T4,))], 3)
        reader = backend.range_reader()
        assert [(t.tid, [r.oid for r in t.revisions]) for t in self.copied(reader)] == [(T1, [2])]
        assert backend.current(P0, Oid(0)) == NO_TID
        reader.close()

    def test_cell_that_has_copied_from_before_a_pack_is_packed_anew(self, tabled: Backend) -> None:
        tabled.apply([commit(t, write(0, b"v"), write(2, b"w")) for t in (T1, T2, T3)], 1)
        assert self.pack(tabled, P0, T2) == (1, 2, 2)
        reader = tabled.range_reader()
        later = Revision(Oid(4), T4, NO_TID, data(b"later"))
        tabled.apply([ApplyCopy(P0, (Transaction(T4, ttid(4), META, (P0,), (later,)),), ())], 2)
        assert reader.packed(P0) == (T2, True), "what is newer does not matter"
        old = Revision(Oid(0), T1, NO_TID, data(b"v"))
        tabled.apply([ApplyCopy(P0, (Transaction(T1, ttid(1), META, (P0,), (old,)),), ())], 3)
        assert reader.packed(P0) == (NO_TID, True)
        reader.close()
        assert self.pack(tabled, P0, T2) == (1, 1, 1)

    def test_state_of_a_pack_is_told(self, tabled: Backend) -> None:
        tabled.apply([commit(Tid(n << 32), write(0, b"%d" % n), write(2, b"x")) for n in range(1, 9)], 1)
        reader = tabled.range_reader()
        assert reader.packed(P0) == (NO_TID, True)
        assert not tabled.pack_step(P0, T5, 1).done
        assert reader.packed(P0) == (T5, False)
        while not tabled.pack_step(P0, T5, 1).done:
            pass
        assert reader.packed(P0) == (T5, True)
        reader.close()
