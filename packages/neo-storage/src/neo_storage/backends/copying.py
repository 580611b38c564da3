"""Reading history for another cell, and comparing it: ranges, their digests, revisions in the order of tids."""

from collections.abc import Sequence

from neo_common.ids import NO_TID, Oid, Partition, Session, Tid, Ttid
from neo_common.wire.schema import PIECE_BYTES, Compression, Data, Metadata, RangeDigest, Revision, Transaction
from neo_storage.backends.base import Place, digest_of
from neo_storage.backends.codec import unpack_parts
from neo_storage.backends.database import Database, Row
from neo_storage.backends.removal import Found, drop_revisions
from neo_storage.backends.walk import rows_from


def copy(
    db: Database, partition: Partition, start: Place, stop: Tid, *, values: bool, limit: int, limit_bytes: int
) -> tuple[tuple[Transaction, ...], Place | None]:
    """As `RangeReader.copy`."""
    rows = rows_from(db, partition, start, stop, limit + 1)
    rest: Place | None = None
    if len(rows) > limit:
        rest = Place(Tid(rows[limit][0]), Oid(rows[limit][1]))
        del rows[limit:]
    if values:
        fitting = _fitting(rows, limit_bytes)
        if fitting < len(rows):
            rest = Place(Tid(rows[fitting][0]), Oid(rows[fitting][1]))
            del rows[fitting:]
    ids = [row[3] for row in rows if values and row[3] is not None and row[6] <= PIECE_BYTES]
    found = db.values(ids) if ids else {}
    revisions: dict[int, list[Revision]] = {}
    for tid, oid, copied, data_id, compression, checksum, size in rows:
        value = found.get(data_id, b"")  # who verifies it will say that it is not there
        revision = Revision(Oid(oid), Tid(tid), Tid(copied), Data(Compression(compression), checksum, size, value))
        revisions.setdefault(tid, []).append(revision)
    last = stop if rest is None else rest.tid
    heads = db.rows(db.statements.copy_trans, (partition, start.tid, last, limit + 1))
    if len(heads) > limit:  # transactions without revisions are many here
        cut = heads[limit][0]
        if rest is None or cut < rest.tid:
            rest = Place(Tid(cut), Oid(0))
            heads = [h for h in heads if h[0] < cut]
    transactions = []
    for tid, session, counter, user, description, extension, parts in heads:
        if rest is not None and tid == rest.tid and tid not in revisions:
            continue  # it comes with its first revision
        of = tuple(revisions.get(tid, ()))
        metadata = Metadata(user, description, extension)
        transactions.append(Transaction(Tid(tid), Ttid(Session(session), counter), metadata, unpack_parts(parts), of))
    return tuple(transactions), rest


def _fitting(rows: Sequence[Row], room: int) -> int:
    """Return how many of *rows* have values that fit into *room*: one at least."""
    for count, row in enumerate(rows):
        if count and row[6] > room:
            return count
        room -= row[6]
    return len(rows)


def digest(db: Database, partition: Partition, start: Tid, stop: Tid) -> RangeDigest:
    """As `RangeReader.digest`."""
    bounds = (partition, start, stop)
    texts = db.statements.digest_texts
    if texts is not None:
        (_, transactions), (count, revisions) = [row for text in texts if (row := db.one(text, bounds)) is not None]
    else:
        transactions = b"".join(_line(row, 3) for row in db.rows(db.statements.digest_trans, bounds))
        lines = [_line(row, 5) for row in db.rows(db.statements.digest_obj, bounds)]
        count, revisions = len(lines), b"".join(lines)
    return RangeDigest(start, stop, count, digest_of(transactions, revisions))


def _line(row: Row, numbers: int) -> bytes:
    """Return a row as it is digested: so many numbers, then bytes."""
    texts = [str(int(x)) for x in row[:numbers]] + [bytes(x).hex().upper() for x in row[numbers:]]
    return (",".join(texts) + ";").encode()


def digests(
    db: Database, partition: Partition, start: Tid, stop: Tid, *, size: int, limit: int
) -> tuple[RangeDigest, ...]:
    """As `RangeReader.digests`."""
    found: list[RangeDigest] = []
    lasts = [db.one(sql, (partition, start, stop)) for sql in db.statements.last_in]
    last = Tid(max((row[0] or NO_TID for row in lasts if row is not None), default=NO_TID))
    while len(found) < limit and start <= last and last != NO_TID:
        ends = [_end(db, number, (partition, start, last), size) for number in range(2)]
        end = min((e for e in ends if e is not None), default=last)
        found.append(digest(db, partition, start, end))
        start = Tid(end + 1)
    return tuple(found)


def _end(db: Database, number: int, bounds: tuple[Partition, Tid, Tid], size: int) -> Tid | None:
    """Return the tid that ends a range of about *size* rows; None if there are no more."""
    sql = db.statements.nth[number]
    beyond = db.one(sql, (*bounds, size))
    if beyond is None:
        return None
    first = db.one(sql, (*bounds, 0))
    assert first is not None, "what has rows before it is not the first"
    return Tid(max(beyond[0] - 1, first[0]))


def drop(db: Database, partition: Partition, revisions: Sequence[Place], transactions: Sequence[Tid]) -> None:
    """Do what ApplyDrop says."""
    found: list[Found] = []
    for tid, oid in revisions:
        row = db.one(db.statements.find_obj, (partition, oid, tid))
        if row is not None:
            found.append((oid, tid, row[0], row[1]))
    for tid in transactions:
        rows = db.rows(db.statements.revisions, (partition, tid))
        found += [(oid, tid, first, size) for oid, _, first, _, _, size in rows]
    if found:
        drop_revisions(db, partition, found)
    if transactions:
        db.run_many(db.statements.drop_trans, [(partition, tid) for tid in transactions])
