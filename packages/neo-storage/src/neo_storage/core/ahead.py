"""Large transactions: what goes ahead of a vote, from the client to the lead and on to the other written cells. Pure.

Nothing of it has a lock or is awaited. It is checked when it comes, but answered only by the fate of the vote. What one
transaction has sent ahead for one partition is a part; what becomes of it without a vote says docs/commit-protocol.md,
"What goes ahead of a vote".
"""

from collections.abc import Iterator
from typing import NamedTuple

from neo_common.checksum import checksum
from neo_common.ids import MAX_OID, MAX_TID, NodeId, Oid, Partition, Seconds, Session, Ttid
from neo_common.model.partition_table import PartitionTable
from neo_common.states import CellState, Role, role_of
from neo_common.wire.schema import (
    INLINE_BYTES,
    PIECE_BYTES,
    Compression,
    ErrorCode,
    FwdPiece,
    FwdStore,
    Record,
    Store,
    StorePiece,
    Write,
)
from neo_storage.core.ground import Ground, cell_state, lead
from neo_storage.core.log_records import LogPiece, LogStored
from neo_storage.core.tentative import ENTRY_BYTES, VotedRecord


class _Source(NamedTuple):
    """Who has sent a part, and when it has sent some of it last."""

    peer: NodeId
    at: Seconds


class _Wrong(NamedTuple):
    """What was wrong with something that a client has sent."""

    source: _Source
    code: ErrorCode
    text: str


class Ahead:
    """Tentative data: taken, checked, passed on, repeated to a cell that has missed some.

    Invariants:
      * a part is here only while the connection that it came by lasts, and until a vote takes it;
      * whoever has a part from here is told when it is forgotten here, or finds out as this storage does.
    """

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._from: dict[Ttid, dict[Partition, _Source]] = {}
        self._have: dict[Ttid, dict[Partition, set[NodeId]]] = {}
        """The cells to which all of a part was passed on."""
        self._wrong: dict[Ttid, _Wrong] = {}

    # ---- from the client

    def on_store(self, client: NodeId, m: Store) -> None:
        """Take the writes of *m* and pass them on. None at all, from the first on: take back what came."""
        if is_nothing(m):
            self._wrong.pop(m.ttid, None)
            self.drop_of(client, m.ttid, m.partition)
            return
        if not self._is_wanted(client, m.ttid, m.partition):
            return
        if not self._ground.image.tentative.takes_store(m.ttid, m.partition, m.first):
            self._gap_unless_over(client, m.ttid)
            return
        size = ENTRY_BYTES + sum(ENTRY_BYTES + len(w.data.value) for w in m.writes)
        problem = self._too_much(size) or check_writes(self._ground, m.partition, m.writes)
        if problem is not None:
            self._fail(client, m.ttid, *problem)
            return
        have = self._followers(m.ttid, m.partition)
        self._ground.write(LogStored(m.ttid, m.partition, m.first, m.writes))
        self._came(client, m.ttid, m.partition)
        image = self._ground.image
        for node in sorted(have):
            self._ground.send(node, FwdStore(image.epoch, image.table.version, m))

    def on_piece(self, client: NodeId, m: StorePiece) -> None:
        """Take the piece *m* and pass it on."""
        if not self._ground.image.table.partitions:
            return
        partition = self._ground.partition(m.oid)
        if not self._is_wanted(client, m.ttid, partition):
            return
        if not self._ground.image.tentative.takes_piece(m.ttid, m.oid, m.offset, len(m.value)):
            self._gap_unless_over(client, m.ttid)
            return
        problem = self._too_much(ENTRY_BYTES + len(m.value))
        if m.oid > MAX_OID:
            problem = ErrorCode.ILLEGAL, f"oid {m.oid:#x}: ids are below 2**63, as the databases' numbers"
        if problem is None and m.offset + len(m.value) > self._ground.settings.object_bytes:
            problem = too_large(self._ground, m.oid, m.offset + len(m.value))
        if problem is not None:
            self._fail(client, m.ttid, *problem)
            return
        have = self._followers(m.ttid, partition)
        self._ground.write(LogPiece(m.ttid, m.oid, m.offset, m.value))
        self._came(client, m.ttid, partition)
        image = self._ground.image
        for node in sorted(have):
            self._ground.send(node, FwdPiece(image.epoch, image.table.version, m))

    def problem(self, ttid: Ttid) -> tuple[ErrorCode, str] | None:
        """Return what was wrong with something that went ahead: the transaction must fail."""
        wrong = self._wrong.get(ttid)
        return None if wrong is None else (wrong.code, wrong.text)

    def _is_wanted(self, client: NodeId, ttid: Ttid, partition: Partition) -> bool:
        if ttid.session in self._ground.gone or ttid in self._ground.image.decisions:
            return False
        if self._ground.leads(partition):
            return True
        # What is here is no longer all that came: a vote must not take it, should this node lead again by then.
        self.drop_of(client, ttid, partition)
        return False

    def _came(self, peer: NodeId, ttid: Ttid, partition: Partition) -> None:
        self._from.setdefault(ttid, {})[partition] = _Source(peer, self._ground.now)

    def _too_much(self, size: int) -> tuple[ErrorCode, str] | None:
        limit = self._ground.settings.undecided_bytes
        if self._ground.image.undecided_bytes + size > limit:
            return ErrorCode.NO_SPACE, f"votes without a decision would take more than undecided_bytes={limit}"
        return None

    def _fail(self, client: NodeId, ttid: Ttid, code: ErrorCode, text: str) -> None:
        """Keep in mind, for the vote, that something is wrong. A client of whom that is too much is cut off."""
        self._wrong.setdefault(ttid, _Wrong(_Source(client, self._ground.now), code, text))
        if len(self._wrong) > self._ground.settings.wrong:
            self._ground.cut(client, f"more than {self._ground.settings.wrong} transactions that cannot be voted")

    def _followers(self, ttid: Ttid, partition: Partition) -> set[NodeId]:
        """Return the cells that have all that came so far: at first, all that are connected."""
        parts = self._have.setdefault(ttid, {})
        if partition not in parts:
            peers = self._ground.peers
            parts[partition] = {n for n in self._ground.image.table.written(partition) if n in peers}
        return parts[partition]

    # ---- to the other cells

    def bring(self, node: NodeId, voted: VotedRecord) -> None:
        """See to it that *node* has what went ahead of *voted*."""
        record = voted.record
        if not record.tentative and not voted.pieces:
            return
        if node not in self._have.get(record.ttid, {}).get(record.partition, ()):
            self.repeat(node, voted, record.writes[: record.tentative])

    def repeat(self, node: NodeId, voted: VotedRecord, writes: tuple[Write, ...]) -> None:
        """Send *writes*, the first ones of *voted*, and all its values in pieces, once more to *node*."""
        image, record = self._ground.image, voted.record
        for write in record.writes:
            if write.oid in voted.pieces and write.data.size > PIECE_BYTES:
                for i, value in enumerate(voted.pieces(write.oid)):
                    piece = StorePiece(record.ttid, image.epoch, write.oid, i * PIECE_BYTES, value)
                    self._ground.send(node, FwdPiece(image.epoch, image.table.version, piece))
        for first, some in batches(voted, writes):
            store = Store(record.ttid, image.epoch, record.partition, first, some)
            self._ground.send(node, FwdStore(image.epoch, image.table.version, store))

    def on_fwd_store(self, peer: NodeId, m: FwdStore) -> None:
        """Take writes that the lead passes on, or forget those of a client that has given up."""
        s = m.store
        if is_nothing(s):
            self.drop_of(peer, s.ttid, s.partition)
            return
        if not self._ground.image.tentative.takes_store(s.ttid, s.partition, s.first):
            return  # we have forgotten the beginning: a vote that needs it is found to lack it
        self._ground.write(LogStored(s.ttid, s.partition, s.first, s.writes))
        self._came(peer, s.ttid, s.partition)

    def on_fwd_piece(self, peer: NodeId, m: FwdPiece) -> None:
        """Take a piece that the lead passes on."""
        s = m.piece
        if not self._ground.image.tentative.takes_piece(s.ttid, s.oid, s.offset, len(s.value)):
            return  # as with a Store
        self._ground.write(LogPiece(s.ttid, s.oid, s.offset, s.value))
        self._came(peer, s.ttid, self._ground.partition(s.oid))

    def _gap_unless_over(self, peer: NodeId, ttid: Ttid) -> None:
        """What came does not follow what is here. If its transaction is over we have forgotten the beginning: an abort
        comes from the primary, and overtakes what is on its way from the client.
        """
        image = self._ground.image
        is_over = ttid.session in self._ground.gone or ttid in image.tombstones or image.decision(ttid) is not None
        if not is_over:
            self.gap(peer, ttid)

    def gap(self, peer: NodeId, ttid: Ttid) -> None:
        """Something that goes ahead was lost. A new connection begins anew, on both sides."""
        self._ground.cut(peer, f"part of what went ahead of the vote of {ttid} is missing")

    # ---- forgetting

    def voted(self, ttid: Ttid, partition: Partition) -> None:
        """A vote has taken that part, here and wherever it was passed on."""
        for parts in (self._from, self._have):
            of = parts.get(ttid, {})
            of.pop(partition, None)
            if not of:
                parts.pop(ttid, None)

    def drop(self, ttid: Ttid, partition: Partition) -> None:
        """Forget that part, as nothing will come of it, and tell those who have it from here."""
        ground = self._ground
        ground.image.tentative.take(ttid, partition, ground.partition)
        for node in sorted(self._have.get(ttid, {}).get(partition, ())):
            nothing = Store(ttid, ground.image.epoch, partition, 0, ())
            ground.send(node, FwdStore(ground.image.epoch, ground.image.table.version, nothing))
        self.voted(ttid, partition)

    def drop_of(self, peer: NodeId, ttid: Ttid, partition: Partition) -> None:
        """Forget that part if it is *peer* who has sent it: another may have sent it anew."""
        source = self._from.get(ttid, {}).get(partition)
        if source is not None and source.peer == peer:
            self.drop(ttid, partition)

    def settled(self, ttid: Ttid) -> None:
        """It is decided, and what went ahead is forgotten, unless a cell that joins has still to vote."""
        self._wrong.pop(ttid, None)
        if not self._ground.image.tentative.has(ttid):
            self.forget(ttid)

    def forget(self, ttid: Ttid) -> None:
        """Drop what went ahead, here, and wherever it was passed on."""
        self._wrong.pop(ttid, None)
        for partition in sorted(self._from.get(ttid, ())):
            self.drop(ttid, partition)

    def gone(self, session: Session) -> None:
        """That session was given up: nothing will come of what went ahead in it."""
        for ttid in sorted(t for t in {*self._from, *self._wrong} if t.session == session):
            self.forget(ttid)

    def lost(self, peer: NodeId) -> None:
        """What came from a peer that is gone is dropped: it repeats all of it. A cell that is gone has nothing."""
        for parts in self._have.values():
            for have in parts.values():
                have.discard(peer)
        for ttid in sorted(self._from):
            for partition in sorted(self._from[ttid]):
                self.drop_of(peer, ttid, partition)
        self._wrong = {t: wrong for t, wrong in self._wrong.items() if wrong.source.peer != peer}

    def changed(self, old: PartitionTable) -> None:
        """The table was *old*: forget the parts that were not, or will not be, passed on to this cell as to all."""
        ground, table = self._ground, self._ground.image.table
        for parts in self._have.values():
            for partition, have in parts.items():
                if ground.leads(partition):
                    have.intersection_update([n for n in have if _stays(old, table, partition, n)])
                else:  # they find out themselves, or another lead has brought it to them
                    have.clear()
        for ttid in sorted(self._from):
            for partition, source in sorted(self._from[ttid].items()):
                is_from_lead = role_of(source.peer) is Role.CLIENT or lead(table, partition) == source.peer
                if not is_from_lead or not _stays(old, table, partition, ground.me):
                    self.drop(ttid, partition)

    def known(self) -> tuple[Ttid, ...]:
        """Return the transactions of which anything is remembered here, ascending."""
        return tuple(sorted({*self._from, *self._have, *self._wrong}))

    def begin_reign(self) -> None:
        """A new epoch: clients send all of it again, and others drop what they have."""
        self._have.clear()
        self._wrong.clear()
        self._from.clear()
        for ttid in self._ground.image.tentative.ttids():
            self._ground.image.tentative.forget(ttid)

    def expire(self) -> None:
        """Forget what nobody has voted for long."""
        limit = self._ground.now - self._ground.settings.transaction_age_s
        for ttid in sorted(t for t, parts in self._from.items() if max(s.at for s in parts.values()) < limit):
            if ttid not in self._ground.image.voted:
                self.forget(ttid)
        self._wrong = {t: wrong for t, wrong in self._wrong.items() if wrong.source.at >= limit}


def _stays(old: PartitionTable, table: PartitionTable, partition: Partition, node: NodeId) -> bool:
    """Return whether *node* has been passed on all of that partition since *old*: a cell that joins begins anew."""
    before, now = cell_state(old, partition, node), cell_state(table, partition, node)
    if before is None or now is None or not before.is_written or not now.is_written:
        return False
    return now != CellState.JOINING or before == CellState.JOINING


def is_nothing(store: Store) -> bool:
    """Return whether it takes back what went ahead."""
    return store.first == 0 and not store.writes


def batches(voted: VotedRecord, writes: tuple[Write, ...]) -> Iterator[tuple[int, tuple[Write, ...]]]:
    """Yield *writes* with their values, in lots of about INLINE_BYTES, each with the number of its first."""
    first, lot, room = 0, list[Write](), INLINE_BYTES
    for i, write in enumerate(writes):
        data = write.data
        if data.size and not data.value and data.size <= PIECE_BYTES:
            write = write._replace(data=data._replace(value=b"".join(voted.pieces(write.oid))))
        lot.append(write)
        room -= len(write.data.value)
        if room <= 0:
            yield first, tuple(lot)
            first, lot, room = i + 1, [], INLINE_BYTES
    if lot:
        yield first, tuple(lot)


def inline_bytes(record: Record) -> int:
    """Return the bytes of the values that travel within *record*."""
    return sum(len(w.data.value) for w in record.writes[record.tentative :])


def too_large(ground: Ground, oid: Oid, size: int) -> tuple[ErrorCode, str]:
    """Return the refusal of an object above the limit."""
    return ErrorCode.TOO_LARGE, f"oid {oid:#x} has {size} bytes or more, the limit is {ground.settings.object_bytes}"


def check_writes(ground: Ground, partition: Partition, writes: tuple[Write, ...]) -> tuple[ErrorCode, str] | None:
    """Return why *writes* cannot be taken, with the code of the refusal; None if they can."""
    for write in writes:
        if write.oid > MAX_OID or max(write.base, write.copied_from) > MAX_TID or write.data.size > MAX_TID:
            return ErrorCode.ILLEGAL, f"oid {write.oid:#x}: ids are below 2**63, as the databases' numbers"
        if ground.partition(write.oid) != partition:
            return ErrorCode.PARTITION, f"oid {write.oid:#x} is not of partition {partition}"
        data = write.data
        if data.size > ground.settings.object_bytes:
            return too_large(ground, write.oid, data.size)
        if data.compression == Compression.ABSENT:
            if data.size or data.value:
                return ErrorCode.ILLEGAL, f"oid {write.oid:#x} is deleted and has a value"
        elif data.value or not data.size:
            if len(data.value) != data.size:
                return ErrorCode.CORRUPTED, f"oid {write.oid:#x} has {len(data.value)} bytes instead of {data.size}"
            if checksum(data.value) != data.checksum:
                return ErrorCode.CORRUPTED, f"the checksum of oid {write.oid:#x} does not hold"
    return None
