"""What golden files hold: a little of everything that a storage and a master keep."""

from collections.abc import Iterator
from typing import Final

from neo_common.compression import make_data
from neo_common.ids import NO_TID, Epoch, NodeId, Oid, Partition, Ptid, Session, Tid, Ttid, Version, make_epoch
from neo_common.model.balance import first_table
from neo_common.model.partition_table import Cell, PartitionTable, whole
from neo_common.states import CellState, Role, node_id
from neo_common.wire.schema import (
    PIECE_BYTES,
    Ceilings,
    Compression,
    Data,
    Decision,
    DiskMark,
    Metadata,
    Page,
    Tombstone,
    Write,
)
from neo_master.core.effects import NOTHING_HELD, Kept
from neo_storage.backends.base import (
    ApplyAbort,
    ApplyCeilings,
    ApplyCommit,
    ApplyDecision,
    ApplyDoom,
    ApplyEpoch,
    ApplyIdentity,
    ApplyPack,
    ApplyTable,
    Backend,
)
from support.backend_contract import S1, S2, T1, T2, T3, T4, T5, T6, commit, ttid, write

PARTITIONS: Final = (Partition(0), Partition(1), Partition(2))
EPOCH: Final = Epoch(3 << 24 | 1)
TABLE: Final = PartitionTable(
    Version(EPOCH, Ptid(9)),
    1,
    [
        (Cell(S1, CellState.UP_TO_DATE), Cell(S2, CellState.UP_TO_DATE)),
        (Cell(S2, CellState.UP_TO_DATE), Cell(S1, CellState.OUT_OF_DATE)),
        (Cell(S2, CellState.UP_TO_DATE),),
    ],
)
LARGE: Final = Data(Compression.NONE, b"\x11" * 16, PIECE_BYTES + 3, b"")
LARGE_OID: Final = Oid(9)
POSITION: Final = 1234


def _pieces(oid: Oid) -> Iterator[bytes]:
    assert oid == LARGE_OID
    yield b"\xa5" * PIECE_BYTES
    yield b"\xa5" * 3


def _commit(tid: Tid, *writes: Write, forget: Tid = NO_TID) -> ApplyCommit:
    metadata = Metadata(b"user %d" % (tid >> 32), "caf\N{LATIN SMALL LETTER E WITH ACUTE}".encode(), b"\x80\x00'ext\\")
    return commit(tid, *writes, np=len(PARTITIONS), pieces=_pieces, forget=forget, metadata=metadata)


def fill(backend: Backend) -> None:
    """Put the sample into an empty database, open already; all tables have rows then."""
    text = b"a pickle, more or less " * 20
    zlib, zstd = (make_data(text, how) for how in (Compression.ZLIB, Compression.ZSTD))
    identity = [ApplyIdentity(S1, b"0123456789abcdef"), ApplyEpoch(EPOCH), ApplyTable(TABLE)]
    backend.apply([*identity, ApplyCeilings(Ceilings(T6, Oid(2**40)))], 3)
    first = _commit(T1, write(0, b"root"), write(3, b"old"), write(1, b""), write(2, b"in the doomed cell"))
    second = _commit(T2, write(3, b"new", T1), Write(Oid(6), Tid(0), Tid(0), zlib), write(4, b"\x00\xff'\\\n"))
    third = _commit(T3, Write(LARGE_OID, Tid(0), Tid(0), LARGE), Write(Oid(2**40), Tid(0), Tid(0), zstd))
    fourth = _commit(T4, write(4, None, T2), write(3, b"old", T2, copied_from=T1), forget=T2)
    backend.apply([first, second, third, fourth], POSITION - 1)
    known = ApplyDecision(Decision(ttid(5), 2, T5, (Partition(1),)))
    backend.apply([known, ApplyAbort(Tombstone(ttid(8), 4)), ApplyPack(6, T2), ApplyDoom((Partition(2),))], POSITION)
    backend.pack_step(Partition(0), T2, 100)
    backend.pack_step(Partition(1), T2, 1)


def go_on(backend: Backend) -> None:
    """Write a little more, as a program does that works with a database that it has found."""
    backend.apply([_commit(T6, write(3, b"newest", T4), write(12, b"a new one"))], POSITION + 1)
    assert backend.pack_step(Partition(1), T2, 100).done
    assert backend.erase_step(Partition(2), 100)


def journal_records() -> list[Kept]:
    """Return what a master writes in the course of three reigns."""
    found = []
    for number in range(1, 4):
        epoch = make_epoch(number, node_id(Role.MASTER, 1))
        table = first_table([NodeId(0x01000001), NodeId(0x01000002)], 5, 1, Version(epoch, Ptid(number)))
        held = NOTHING_HELD._replace(epoch=epoch, table=whole(table), ceilings=Ceilings(Tid(number << 40), Oid(number)))
        found.append(Kept(bytes(range(16)), epoch, held))
    return found


def pages() -> list[Page]:
    """Return what a master notes in the course of three reigns: of the second line of history nothing is left over."""
    found = []
    for number in range(1, 6):
        version = Version(make_epoch(1 + number // 2, node_id(Role.MASTER, 1)), Ptid(number))
        disks = tuple(DiskMark(NodeId(0x01000000 + n), number << 8) for n in (1, 2))
        held = tuple(Decision(Ttid(Session(number), n), n, Tid(number << 40 | n), PARTITIONS[:n]) for n in range(1, 4))
        found.append(Page(version, number // 3, number == 3, disks, held[:2], held[2:]))
    return found
