"""One transaction on its way through votes, conflicts and attempts: what is known of it. Pure.

The rules are `client.ClientCore`'s; this is the noun that they work on.
"""

from dataclasses import dataclass, field
from enum import Enum

from neo_client.core.events import Handle, Job
from neo_common.ids import NO_EPOCH, NO_TID, Epoch, NodeId, Oid, Partition, Seconds, Tid, Ttid, Version
from neo_common.model.partition_table import PartitionTable
from neo_common.wire.schema import ErrorCode, Progress, ReadCheck, Stale, Write

_LONG_AGO = Seconds(0.0)


class Phase(Enum):
    """How far a transaction is.

    BEGUN -> RETRY -> VOTING | LOCKING -> RESOLVING -> VOTED -> FINISHING, and ABORTING from any that has voted;
    COMMITTED and ABORTED wait for the application to ask.
    """

    BEGUN = "begun"
    RETRY = "to be voted, when the leads can be reached"
    LOCKING = "waits for locks, one lead after the other"
    VOTING = "waits for votes"
    RESOLVING = "the application resolves conflicts"
    VOTED = "fully voted"
    FINISHING = "waits for its tid"
    ABORTING = "waits for a durable abort"
    COMMITTED = "committed by recovery, not told to the application yet"
    ABORTED = "aborted by others, not told to the application yet"


class Waiting(Enum):
    """What the application waits for."""

    NOTHING = "nothing"
    VOTE = "tpc_vote"
    FINISH = "tpc_finish"
    ABORT = "tpc_abort"


PROGRESS = {
    Phase.VOTING: Progress.VOTING,
    Phase.RETRY: Progress.VOTING,
    Phase.LOCKING: Progress.VOTING,
    Phase.RESOLVING: Progress.VOTING,
    Phase.VOTED: Progress.VOTED,
    Phase.FINISHING: Progress.FINISHING,
    Phase.ABORTING: Progress.ABORTING,
}
"""What CHello says of a phase. Those left out are not under way for the primary."""


@dataclass(slots=True)
class Tpc:
    """A transaction of this client.

    `handle` is its name for the application, `ttid` for all others: another one when the session in which it began was
    given up. `attempt` is 0 until something was sent of it. `maybe`: an earlier attempt may be fully voted, so that
    only a durable abort is a failure. `refused`: a lead has refused this attempt for good, and was not asked again
    since.
    """

    handle: Handle
    ttid: Ttid
    phase: Phase = Phase.BEGUN
    waiting: Waiting = Waiting.NOTHING
    job: Job | None = None
    parts: tuple[Partition, ...] = ()
    attempt: int = 0
    deadline: Seconds = _LONG_AGO
    asked: dict[NodeId, tuple[Partition, ...]] = field(default_factory=dict)
    wait: set[NodeId] = field(default_factory=set)
    voted: set[Partition] = field(default_factory=set)
    held: set[NodeId] = field(default_factory=set)
    stale: dict[Oid, Stale] = field(default_factory=dict)
    ordered: bool = False
    contended: bool = False
    lost_vote: bool = False
    refused: bool = False
    maybe: bool = False
    locked_stale: bool = False
    """The conflicts being resolved came with Locked."""
    locks_lost: bool = False
    rounds: int = 0
    failures: int = 0
    not_before: Seconds = _LONG_AGO
    voted_version: Version | None = None
    vote_epoch: Epoch = NO_EPOCH
    failure: tuple[ErrorCode, str] | None = None
    """Why it shall fail, as soon as that is durable."""
    tid: Tid = NO_TID
    is_last: bool = False
    """It is the last commit that this client knows of."""
    deferred: bool = False
    """FinishNow or AbortNow came between CHello and Welcome."""
    ahead: dict[Partition, int] = field(default_factory=dict)
    """How many of the first writes of a partition go ahead of the vote."""
    uploaded: dict[NodeId, dict[Partition, int]] = field(default_factory=dict)
    """How many of them a lead has, on its present connection."""
    kept: dict[NodeId, set[Partition]] = field(default_factory=dict)
    """Storages that may keep something that was sent ahead, under any attempt, until it is decided or taken back."""

    def __repr__(self) -> str:
        return f"<Tpc {self.ttid} attempt={self.attempt} {self.phase.name} wait={sorted(self.wait)} maybe={self.maybe}>"

    def take_job(self, job: Job, table: PartitionTable) -> None:
        """Note what is to be voted."""
        self.job = job
        touched = {table.partition(w.oid) for w in job.writes} | {table.partition(r.oid) for r in job.reads}
        self.parts = tuple(sorted(touched))

    def begin_anew(self, ttid: Ttid) -> None:
        """Forget what was sent of it: it is voted from scratch, under another name, if it is to be voted already."""
        self.ttid, self.attempt = ttid, 0
        self.wait, self.held, self.voted, self.uploaded = set(), set(), set(), {}
        self.kept = {}  # with the session goes what was sent under it
        self.contended = self.lost_vote = self.refused = self.maybe = False
        self.failures, self.not_before = 0, _LONG_AGO
        if self.phase is Phase.RESOLVING:
            self.locks_lost = True
        elif self.phase is not Phase.BEGUN:
            self.phase, self.failure = Phase.RETRY, None

    def by_lead(self, table: PartitionTable) -> dict[NodeId | None, tuple[Partition, ...]]:
        """Return the touched partitions of each lead; those without a lead under None."""
        leads: dict[NodeId | None, list[Partition]] = {}
        for p in self.parts:
            leads.setdefault(table.lead(p), []).append(p)
        return {n: tuple(ps) for n, ps in leads.items()}

    def merge(self, writes: tuple[Write, ...], reads: tuple[ReadCheck, ...], table: PartitionTable) -> None:
        """Take *writes* and *reads* in place of those of the same oids. What had gone ahead of them must go again."""
        assert self.job is not None
        new_writes = {w.oid: w for w in writes}
        new_reads = {r.oid: r for r in reads}
        position: dict[Partition, int] = {}
        for w in self.job.writes:
            p = table.partition(w.oid)
            position[p] = position.get(p, 0) + 1
            if new_writes.get(w.oid, w) != w and position[p] <= self.ahead.get(p, 0):
                self.forget_upload(p)
        self.job = self.job._replace(
            writes=tuple(new_writes.get(w.oid, w) for w in self.job.writes),
            reads=tuple(new_reads.get(r.oid, r) for r in self.job.reads),
        )

    def forget_upload(self, partition: Partition) -> None:
        """Send again, with the next vote, what went ahead of that partition."""
        for sent in self.uploaded.values():
            sent.pop(partition, None)
