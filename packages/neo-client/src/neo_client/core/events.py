"""What the client's core is told by the application, and what it orders beside `neo_common.core`. Pure."""

from typing import NamedTuple, NewType

from neo_common.ids import NO_TID, NodeId, Oid, Partition, Tid, Ttid
from neo_common.wire.schema import ErrorCode, Metadata, Mode, ReadCheck, Stale, Write

Handle = NewType("Handle", int)
"""A transaction, between the application and the core. Its ttid, which only the wire knows, may change meanwhile."""


class Job(NamedTuple):
    """What a transaction wants, when it is voted.

    `writes`: one per oid, in the order of the stores; of each partition, those that went ahead first (their values may
    be left out: the shell has them). `reads`: readCurrent of objects that are not written. `after`: of an import, the
    tid of the transaction before it, which is voted and will be committed first.
    """

    metadata: Metadata
    writes: tuple[Write, ...]
    reads: tuple[ReadCheck, ...]
    mode: Mode
    given_tid: Tid = NO_TID
    after: Tid = NO_TID


# ---------------------------------------------------------------------------------------------- events


class StoredAhead(NamedTuple):
    """The first *total* writes of *partition* go ahead of the vote; those from *first* on are new or changed."""

    handle: Handle
    partition: Partition
    first: int
    total: int


class VoteNow(NamedTuple):
    """tpc_vote."""

    handle: Handle
    job: Job


class Resolved(NamedTuple):
    """The answer to Resolve: these writes and reads replace those of the same oids."""

    handle: Handle
    writes: tuple[Write, ...]
    reads: tuple[ReadCheck, ...]


class GiveUp(NamedTuple):
    """The other answer to Resolve: the transaction shall fail. Failed, with `code` and `text`, follows when it may."""

    handle: Handle
    code: ErrorCode = ErrorCode.ILLEGAL
    text: str = "conflict"


class FinishNow(NamedTuple):
    """tpc_finish."""

    handle: Handle


class AbortNow(NamedTuple):
    """tpc_abort; at any moment, also when the application has run away from tpc_vote or tpc_finish."""

    handle: Handle


class Closing(NamedTuple):
    """The storage is being closed: nobody will come back under this session."""


# ---------------------------------------------------------------------------------------------- effects


class Upload(NamedTuple):
    """Send to *node* the writes of *partition* that go ahead, from the *first* on, as StorePiece and Store.

    They leave before whatever is sent to that node after this effect, under the name *ttid*.
    """

    handle: Handle
    ttid: Ttid
    node: NodeId
    partition: Partition
    first: int


class Resolve(NamedTuple):
    """These objects have changed: resolve in the application's thread, then Resolved or GiveUp."""

    handle: Handle
    stale: tuple[Stale, ...]


class VoteDone(NamedTuple):
    """tpc_vote returns."""

    handle: Handle


class Failed(NamedTuple):
    """tpc_vote or tpc_finish raises: the transaction is not, and will never be, committed. It is forgotten here."""

    handle: Handle
    code: ErrorCode
    text: str


class FinishDone(NamedTuple):
    """tpc_finish returns *tid*. As Invalidated for everybody else in this program. It is forgotten here."""

    handle: Handle
    tid: Tid
    is_last: bool
    """Nothing above *tid* is known: what was written is current. Else others may have changed it since, and CacheCut,
    Invalidated or both have come for *tid* already."""


class AbortDone(NamedTuple):
    """tpc_abort returns. It is forgotten here."""

    handle: Handle


class CommittedByRecovery(NamedTuple):
    """tpc_abort raises: a recovery has committed what was fully voted. It is forgotten here."""

    handle: Handle
    tid: Tid


class Invalidated(NamedTuple):
    """Another client's commit, in the order of tids: cut the cache, tell ZODB, then lastTransaction() may say *tid*."""

    tid: Tid
    oids: tuple[Oid, ...]


class CacheCut(NamedTuple):
    """After a Welcome: current entries of the cache end at *last*; lastTransaction() may say *now* afterwards.

    When *now* is above *last*, nobody knows what changed in between: ZODB must forget all it has.
    """

    last: Tid
    now: Tid


class Reset(NamedTuple):
    """A tid above *durable* known here is not the cluster's: drop the cache; snapshots up to *last* fail."""

    durable: Tid
    last: Tid


class TableChanged(NamedTuple):
    """`core.table` is new: dial storages, try again what waited."""


class NodesChanged(NamedTuple):
    """`core.nodes` is new."""
