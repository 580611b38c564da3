"""Histories of one cell, put into a storage under test as if they had always been there."""

from neo_common.ids import NO_TID, Oid, Tid
from neo_common.wire.schema import Revision, Transaction
from neo_storage.backends.base import ApplyCopy, Op
from support.storage_rig import C1, META, P0, Rig, data, ttid


def transaction(tid: int, *oids: int, value: bytes = b"v") -> Transaction:
    revisions = tuple(Revision(Oid(o), Tid(tid), NO_TID, data(value + b"%d" % tid)) for o in oids)
    return Transaction(Tid(tid), ttid(C1, tid), META, (P0,), revisions)


HISTORY = [transaction(n, 0, 2 * n) for n in range(1, 41)]


def fill(rig: Rig, transactions: list[Transaction]) -> None:
    """Have a cell hold these, in every partition's own place, as if it had always."""
    ops: list[Op] = [ApplyCopy(P0, tuple(transactions), ())]
    rig.backend.apply(ops, rig.backend.open().position)
    rig._begin(rig.core.me)


def is_same(rigs: dict[int, Rig]) -> bool:
    one, two = (rig.backend.range_reader() for rig in rigs.values())
    return one.digest(P0, Tid(1), Tid(2**60)) == two.digest(P0, Tid(1), Tid(2**60))
