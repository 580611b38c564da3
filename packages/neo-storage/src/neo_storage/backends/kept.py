"""What a database says of itself when it is opened. Pure."""

from typing import cast

from neo_common.errors import BackendError, DataCorrupted, NeoError
from neo_common.ids import Epoch, NodeId, Oid, Partition, Session, Tid, Ttid
from neo_common.model.keys import decode_update
from neo_common.model.partition_table import EMPTY, PartitionTable
from neo_common.wire.schema import Ceilings, Decision, Tombstone
from neo_storage.backends import logical
from neo_storage.backends.base import Kept
from neo_storage.backends.codec import unpack_parts
from neo_storage.backends.database import Database

Config = dict[str, int | bytes]


def check_format(config: Config, what: str) -> None:
    """Raise BackendError when the database *what* is for newer programs, DataCorrupted when it says nothing of it."""
    written, minimum = config.get("format"), config.get("minimum_reader")
    if not isinstance(written, int) or not isinstance(minimum, int):
        raise DataCorrupted(f"{what} has tables like ours, but no format: it is no database of NEO, or is damaged")
    if minimum > logical.FORMAT:
        raise BackendError(
            f"{what} has format {written}, for programs that read {minimum} or above; this one reads"
            f" {logical.FORMAT}: install a newer NEO"
        )


def read_kept(db: Database) -> Kept:
    """Return what the database knows."""
    config = db.config()

    def number(name: str, default: int = 0) -> int:
        return cast(int, config.get(name, default))  # by its name: `Writer` writes no bytes there

    return Kept(
        position=number("position", -1),
        node=NodeId(number("node")),
        cluster_id=cast(bytes, config.get("cluster_id", bytes(16))),
        epoch=Epoch(number("epoch")),
        table=_table(cast("bytes | None", config.get("table"))),
        ceilings=Ceilings(Tid(number("ceiling_tid")), Oid(number("ceiling_oid"))),
        decisions=tuple(
            Decision(Ttid(Session(session), counter), attempt, Tid(tid), unpack_parts(parts))
            for session, counter, attempt, tid, parts in db.rows(db.statements.decisions)
        ),
        tombstones=tuple(
            Tombstone(Ttid(Session(session), counter), attempt)
            for session, counter, attempt in db.rows(db.statements.tombstones)
        ),
        pack_order=number("pack_order"),
        pack_tid=Tid(number("pack_tid")),
        last_tid=Tid(number("last_tid")),
        last_oid=Oid(number("last_oid")),
        doomed=doomed_in(config),
    )


def doomed_in(config: Config) -> tuple[Partition, ...]:
    """Return the partitions that are to be erased."""
    return unpack_parts(cast("bytes", config.get("doomed", b"")))


def _table(packed: bytes | None) -> PartitionTable:
    if packed is None:
        return EMPTY
    try:
        return decode_update(packed).apply(EMPTY)
    except NeoError as error:
        raise DataCorrupted(f"the partition table cannot be read: {error}") from error
