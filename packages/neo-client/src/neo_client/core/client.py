"""The client's side of the commit protocol: many transactions, one primary, the truth about what is current. Pure.

Each rule of docs/commit-protocol.md that a client keeps stands in a small method of its own, with the reason. The
simulator plants bugs by overriding them.

Invariants:
  * `Failed`, and `AbortDone` after a vote, are said only when the transaction can never count as fully voted;
  * a transaction is told `FinishDone` only with the tid that a primary gave;
  * `Invalidated`, `FinishDone` and `CacheCut` leave in the order of tids: what they name is complete up to there;
  * between CHello and Welcome nothing is begun, voted or finished; a lower epoch than the promised one is never heard.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from neo_client.core.events import (
    AbortDone,
    AbortNow,
    CacheCut,
    Closing,
    CommittedByRecovery,
    Failed,
    FinishDone,
    FinishNow,
    GiveUp,
    Handle,
    Invalidated,
    Job,
    NodesChanged,
    Reset,
    Resolve,
    Resolved,
    StoredAhead,
    TableChanged,
    Upload,
    VoteDone,
    VoteNow,
)
from neo_client.core.tpc import PROGRESS, Phase, Tpc, Waiting
from neo_common.core import Connected, Disconnect, Lost, Received, Send, Tick
from neo_common.errors import NotReady, RemoteProtocolError
from neo_common.ids import (
    NO_EPOCH,
    NO_SESSION,
    NO_TID,
    NO_VERSION,
    Epoch,
    Instant,
    NodeId,
    Oid,
    Partition,
    Seconds,
    Session,
    Tid,
    Ttid,
)
from neo_common.model.partition_table import EMPTY, PartitionTable
from neo_common.states import ClusterState, Role, node_text, role_of
from neo_common.wire.schema import (
    Abort,
    Aborted,
    CHello,
    Cluster,
    Conflict,
    Contended,
    Decision,
    ErrorCode,
    Fate,
    FateKind,
    Finish,
    Finished,
    Heard,
    Invalidate,
    Leave,
    Lock,
    Locked,
    LockMode,
    Mode,
    NewPT,
    NodeInfo,
    Nodes,
    Packet,
    ReadCheck,
    Refused,
    Stale,
    Store,
    Underway,
    Unvote,
    UnvoteOk,
    Vote,
    Voted,
    Want,
    Welcome,
    Work,
    Write,
)

Event = Connected | Lost | Received | Tick | StoredAhead | VoteNow | Resolved | GiveUp | FinishNow | AbortNow | Closing
Effect = (
    Send
    | Disconnect
    | Upload
    | Resolve
    | VoteDone
    | Failed
    | FinishDone
    | AbortDone
    | CommittedByRecovery
    | Invalidated
    | CacheCut
    | Reset
    | TableChanged
    | NodesChanged
)

RETRY_DELAY_S: Final = 0.01
"""First pause before a lead that has refused is asked again although nothing has changed; doubled each time..."""
RETRY_DELAY_MAX_S: Final = 1.0
"""... up to this."""
UNVOTE_REPEAT_S: Final = 2.0
"""An Unvote that nobody has confirmed is repeated after this."""
PAUSE_S: Final = 2.0
"""Ticks further apart than this, in seconds, show that the process was stopped or starved."""

_PASSING: Final = frozenset((ErrorCode.NOT_READY, ErrorCode.NOT_READABLE, ErrorCode.EPOCH))
"""Refusals that another attempt may not meet."""
_VOTE_PHASES: Final = (Phase.VOTING, Phase.LOCKING)
_EARLY_PHASES: Final = (Phase.VOTING, Phase.LOCKING, Phase.RETRY, Phase.RESOLVING)
_DECIDED: Final = (Phase.COMMITTED, Phase.ABORTED)


class ClientSettings(NamedTuple):
    """What the user chooses."""

    wait_timeout_s: float = 30.0
    """How long tpc_vote waits for locks and votes before it gives up."""
    read_only: bool = False


@dataclass(slots=True, eq=False)
class Loading:
    """A load on its way. `cut`: the answer, if it has no end, is known to be current only below this tid; 0: for ever.

    `void`: it was asked under a former primary; ask again.
    """

    oid: Oid
    before: Tid
    cut: Tid
    void: bool = False


class ClientCore:
    """See the module."""

    def __init__(self, settings: ClientSettings) -> None:
        self.settings = settings
        self.session: Session = NO_SESSION
        self.epoch: Epoch = NO_EPOCH
        self.promised: Epoch = NO_EPOCH
        """The highest epoch that it has said CHello to."""
        self.primary: NodeId | None = None
        """The master that has welcomed us, while connected."""
        self.frozen = False
        """Between CHello and Welcome."""
        self.table: PartitionTable = EMPTY
        self.nodes: dict[NodeId, NodeInfo] = {}
        self.cluster_state: ClusterState | None = None
        self.cluster_reason = ""
        self.cluster_id = b""
        self.last: Tid = NO_TID
        self.durable: Tid = NO_TID
        self.known: dict[Ttid, Decision] = {}
        """The commits above `durable` that it has heard of."""
        self.peers: set[NodeId] = set()
        self.transactions: dict[Handle, Tpc] = {}
        self.named: dict[Ttid, Tpc] = {}
        """The same by the names that the wire knows."""
        self.dead: dict[tuple[Ttid, int], set[Partition]] = {}
        """Attempts withdrawn, and the partitions whose lead has not confirmed yet."""
        self._import: tuple[Epoch, Session] = NO_EPOCH, NO_SESSION
        """Where the first transaction of the last import was to be voted."""
        self._counter = 0
        self._last_handle = Handle(0)
        self._ticked_at: Seconds | None = None
        self._loading: dict[Oid, list[Loading]] = {}
        self._unvote_at = Seconds(0.0)
        self._heard = NO_TID
        """Up to where the primary knows that its answers arrived."""
        self._answered = False
        """A Finished has come since."""
        self._effects: list[Effect] = []
        self._now = Seconds(0.0)

    # ------------------------------------------------------------------------------------------ what shells call

    @property
    def is_ready(self) -> bool:
        """Whether a transaction may begin."""
        return bool(self.session) and self.primary is not None and not self.frozen

    def begin(self) -> Handle:
        """Return the handle of a new transaction.

        Raises: NotReady without a session with a primary.
        """
        if not self.is_ready:
            raise NotReady(
                "no primary master has welcomed this client yet" if not self.session else "the primary master is away"
            )
        self._last_handle = Handle(self._last_handle + 1)
        tx = Tpc(self._last_handle, self._new_ttid())
        self.transactions[tx.handle] = self.named[tx.ttid] = tx
        return tx.handle

    def _new_ttid(self) -> Ttid:
        self._counter += 1
        return Ttid(self.session, self._counter)

    def _forget(self, tx: Tpc) -> None:
        del self.transactions[tx.handle], self.named[tx.ttid]

    def handle(self, event: Event, now: Instant) -> list[Effect]:
        """Return the effects of *event*, in the order to perform them."""
        self._now = now.monotonic
        self._effects = []
        match event:
            case Received(peer, packet, _):
                self._received(peer, packet)
            case Tick():
                self._tick()
            case Connected(peer, hello):
                self._connected(peer, hello.epoch)
            case Lost(peer, reason):
                self._lost(peer, reason)
            case Closing():
                if self.primary is not None:
                    self._do(Send(self.primary, Leave()))
            case VoteNow(handle, job):
                self._vote_now(handle, job)
            case FinishNow(handle):
                self._finish_now(handle)
            case AbortNow(handle):
                self._abort_now(handle)
            case Resolved(handle, writes, reads):
                tx = self.transactions.get(handle)
                if tx is not None and tx.phase is Phase.RESOLVING:
                    tx.merge(writes, reads, self.table)
                    self._resolved(tx)
            case GiveUp(handle, code, text):
                tx = self.transactions.get(handle)
                if tx is not None and tx.phase is Phase.RESOLVING:
                    self._fail(tx, code, text)
            case StoredAhead(handle, partition, first, total):
                tx = self.transactions.get(handle)
                if tx is not None and tx.phase is Phase.BEGUN:
                    self._stored_ahead(tx, partition, first, total)
        self._pump()
        effects, self._effects = self._effects, []
        return effects

    def wanted_peers(self) -> frozenset[NodeId]:
        """Return the storages that some transaction needs a connection to."""
        wanted = {
            n
            for tx in self.transactions.values()
            if tx.phase in _EARLY_PHASES
            for n in tx.by_lead(self.table)
            if n is not None
        }
        for parts in self.dead.values():
            wanted.update(n for n in map(self.table.lead, parts) if n is not None)
        return frozenset(wanted)

    # ------------------------------------------------------------------------------------------ what is current

    def load_began(self, oid: Oid, before: Tid) -> Loading:
        """Note that *oid* is asked for, as of just below *before*; `load_ended` must follow."""
        loading = Loading(oid, before, self._load_cut(before))
        self._loading.setdefault(oid, []).append(loading)
        return loading

    def load_ended(self, loading: Loading, tid: Tid = NO_TID, end: Tid = NO_TID) -> Tid:
        """Return where the revision *tid* ends as far as this client knows, given the *end* of the answer; 0: current.

        Call it once per `load_began`, also when the load has failed (then the result means nothing).
        """
        others = self._loading[loading.oid]
        others.remove(loading)
        if not others:
            del self._loading[loading.oid]
        return min((t for t in (end, loading.cut) if t > tid), default=NO_TID)

    def _load_cut(self, before: Tid) -> Tid:
        """An answer for an old snapshot says nothing of what came after it: those invalidations are gone by."""
        return before if self.last >= before else NO_TID

    def _cut_loads(self, oids: Iterable[Oid], tid: Tid) -> None:
        """An answer that Invalidate has overtaken is not current."""
        for oid in oids:
            for loading in self._loading.get(oid, ()):
                loading.cut = loading.cut or tid

    def _cut_all_loads(self, is_new_epoch: bool) -> None:
        """Invalidations may have been missed; what a storage answers under a former primary is not heard."""
        for loadings in self._loading.values():
            for loading in loadings:
                loading.cut = loading.cut or loading.before
                loading.void = loading.void or is_new_epoch

    def _learn(self, decision: Decision) -> None:
        """Remember a commit until it is durable: after a disaster this client may be the only one who knows its tid."""
        if decision.tid > self.durable:
            self.known[decision.ttid] = decision
        self.last = max(self.last, decision.tid)

    def _prune(self, durable: Tid) -> None:
        if durable > self.durable:
            self.durable = durable
            self.known = {t: d for t, d in self.known.items() if d.tid > durable}

    # ------------------------------------------------------------------------------------------ the application's steps

    def _stored_ahead(self, tx: Tpc, partition: Partition, first: int, total: int) -> None:
        tx.ahead[partition] = total
        for sent in tx.uploaded.values():
            if sent.get(partition, 0) > first:
                sent[partition] = first
        lead = self.table.lead(partition) if partition < self.table.partitions else None
        if lead in self.peers and not self.frozen:
            assert lead is not None
            self._upload(tx, lead, partition)

    def _upload(self, tx: Tpc, node: NodeId, partition: Partition) -> None:
        """Send what *node* has not got of what goes ahead."""
        sent = tx.uploaded.setdefault(node, {})
        if sent.get(partition, 0) < tx.ahead.get(partition, 0):
            tx.kept.setdefault(node, set()).add(partition)
            self._do(Upload(tx.handle, tx.ttid, node, partition, sent.get(partition, 0)))
            sent[partition] = tx.ahead[partition]
            for other in tx.uploaded:
                if other != node:  # a former lead gets it from this one, and keeps nothing of what we have sent it
                    tx.uploaded[other].pop(partition, None)

    def _vote_now(self, handle: Handle, job: Job) -> None:
        tx = self.transactions.get(handle)
        if tx is None:
            self._do(Failed(handle, ErrorCode.NOT_READY, "the transaction is not known any more"))
            return
        assert tx.phase is Phase.BEGUN, tx
        tx.take_job(job, self.table)
        if job.given_tid and job.after == NO_TID:
            self._import = self.epoch, self.session
        tx.waiting = Waiting.VOTE
        tx.deadline = Seconds(self._now + self.settings.wait_timeout_s)
        if not tx.parts:  # nothing to decide
            tx.phase, tx.tid = Phase.COMMITTED, self.last
            self._vote_returns(tx)
        elif tx.failure is not None:
            self._failed(tx, *tx.failure)
        else:
            tx.phase = Phase.RETRY

    def _finish_now(self, handle: Handle) -> None:
        tx = self.transactions.get(handle)
        if tx is None:
            self._do(Failed(handle, ErrorCode.NOT_READY, "the transaction is not known any more"))
            return
        tx.waiting = Waiting.FINISH
        if tx.phase in _DECIDED:
            self._tell(tx)
            return
        assert tx.phase is Phase.VOTED, tx
        if self.frozen:
            tx.deferred = True
        else:
            self._finish(tx)

    def _abort_now(self, handle: Handle) -> None:
        tx = self.transactions.get(handle)
        if tx is None:
            self._do(AbortDone(handle))
            return
        tx.waiting = Waiting.ABORT
        if tx.phase in _DECIDED:
            self._tell(tx)
        elif tx.phase is Phase.VOTED:
            if self.frozen:
                tx.deferred = True
            else:
                self._abort(tx)
        elif tx.phase not in (Phase.FINISHING, Phase.ABORTING):
            self._fail(tx, ErrorCode.ILLEGAL, "aborted")

    # ------------------------------------------------------------------------------------------ voting

    def _pump(self) -> None:
        """Go on with what waited for leads, for the end of a pause, or for Welcome."""
        if self.frozen:
            return
        for tx in list(self.transactions.values()):
            if tx.deferred:
                tx.deferred = False
                if tx.phase is Phase.VOTED and tx.waiting is Waiting.FINISH:
                    self._finish(tx)
                elif tx.phase is Phase.VOTED and tx.waiting is Waiting.ABORT:
                    self._abort(tx)
            if tx.phase is Phase.RETRY and self._may_vote(tx):
                self._attempt(tx)

    def _may_vote(self, tx: Tpc) -> bool:
        """A vote from scratch starts only when every lead can be reached, and never in the same instant as a refusal by
        which nothing has changed."""
        if tx.not_before > self._now and tx.voted_version == self.table.version and tx.vote_epoch == self.epoch:
            return False
        return bool(self.epoch) and all(n in self.peers for n in tx.by_lead(self.table))

    def _attempt(self, tx: Tpc) -> None:
        """Vote from scratch, as another attempt: every lead at once, or lock by lock."""
        if self._is_of_ended_import(tx):
            self._fail(tx, ErrorCode.NOT_READY, "the import has ended with the reign, or the session, that it began in")
            return
        tx.attempt += 1
        tx.refused = tx.lost_vote = tx.contended = False
        tx.failure = None
        if tx.ordered:
            tx.held = set()
            tx.vote_epoch, tx.voted_version = self.epoch, self.table.version
            self._lock_next(tx)
        else:
            self._vote(tx, tx.by_lead(self.table), everywhere=True)

    def _is_of_ended_import(self, tx: Tpc) -> bool:
        """What rests on a transaction before it is voted only while nobody else can commit. Later that one may be
        refused, as others have committed above its tid; and recovery, finding these, would commit this one without it.
        """
        assert tx.job is not None
        return tx.job.after != NO_TID and self._import != (self.epoch, self.session)

    def _vote(self, tx: Tpc, leads: dict[NodeId | None, tuple[Partition, ...]], everywhere: bool) -> None:
        """Send Vote to these leads. What is cleared here is what the answers will say anew."""
        if everywhere:
            tx.voted = set()
        tx.phase = Phase.VOTING
        tx.asked = {n: ps for n, ps in leads.items() if n is not None}
        tx.wait = set(tx.asked)
        tx.stale, tx.contended, tx.lost_vote, tx.refused, tx.failure = {}, False, False, False, None
        tx.vote_epoch, tx.voted_version = self.epoch, self.table.version
        for node in sorted(tx.asked):
            for p in tx.asked[node]:
                self._upload(tx, node, p)
            self._do(Send(node, self._vote_packet(tx, tx.asked[node])))

    def _vote_packet(self, tx: Tpc, parts: tuple[Partition, ...]) -> Vote:
        assert tx.job is not None
        work, job = self._work(tx, parts), tx.job
        version, mode, known = self.table.version, self._mode(tx), self._known(job)
        return Vote(tx.ttid, tx.attempt, self.epoch, version, tx.parts, job.metadata, work, mode, known, job.given_tid)

    def _known(self, job: Job) -> Tid:
        """Return the tid that a vote rests on. In an import that of the transaction before it, though its answer is
        still on its way: a storage waits for that commit then, and recovery never commits this one without it."""
        return max(self.last, job.after)

    def _work(self, tx: Tpc, parts: tuple[Partition, ...]) -> tuple[Work, ...]:
        assert tx.job is not None
        writes: dict[Partition, list[Write]] = {p: [] for p in parts}
        reads: dict[Partition, list[ReadCheck]] = {p: [] for p in parts}
        count = self.table.partitions
        for w in tx.job.writes:
            if (p := Partition(w.oid % count)) in writes:
                writes[p].append(w)
        for r in tx.job.reads:
            if (p := Partition(r.oid % count)) in reads:
                reads[p].append(r)
        ahead = tx.ahead
        return tuple(Work(p, ahead.get(p, 0), tuple(writes[p][ahead.get(p, 0) :]), tuple(reads[p])) for p in parts)

    def _mode(self, tx: Tpc) -> Mode:
        """Presumed abort only where another resource manager can still refuse: it costs a round trip more."""
        assert tx.job is not None
        return tx.job.mode

    def _lock_order(self, tx: Tpc) -> list[NodeId]:
        """Leads still to be locked, ascending: two ordered paths cannot wait for each other."""
        return sorted(n for n in tx.by_lead(self.table) if n is not None and n not in tx.held)

    def _lock_next(self, tx: Tpc) -> None:
        tx.phase, tx.wait, tx.locks_lost = Phase.LOCKING, set(), False
        leads = tx.by_lead(self.table)
        todo = self._lock_order(tx)
        if not todo and None not in leads:
            if self.frozen:
                self._retry(tx)
            else:
                self._vote(tx, leads, everywhere=True)
            return
        if None in leads or todo[0] not in self.peers or self._out_of_order(tx, todo[0]):
            self._retry(tx)
            return
        tx.wait = {todo[0]}
        self._do(Send(todo[0], Lock(tx.ttid, tx.attempt, self.epoch, self.table.version, self._wants(tx, todo[0]))))

    def _out_of_order(self, tx: Tpc, node: NodeId) -> bool:
        """A lead change asks for a lead below one that is held: withdraw, and start again."""
        return any(held > node for held in tx.held)

    def _wants(self, tx: Tpc, node: NodeId) -> tuple[Want, ...]:
        assert tx.job is not None
        wants = [Want(w.oid, LockMode.X, w.base) for w in tx.job.writes]
        wants += [Want(r.oid, LockMode.S, r.serial) for r in tx.job.reads]
        return tuple(sorted(w for w in wants if self.table.lead(self.table.partition(w.oid)) == node))

    def _retry(self, tx: Tpc) -> None:
        """Withdraw this attempt; vote from scratch when the leads can be reached."""
        self._unvote(tx)
        tx.phase, tx.wait = Phase.RETRY, set()

    def _pause(self, tx: Tpc) -> None:
        delay = min(RETRY_DELAY_S * 2.0 ** min(tx.failures, 10), RETRY_DELAY_MAX_S)
        tx.failures += 1
        tx.not_before = Seconds(self._now + delay)

    def _take_back(self, tx: Tpc) -> None:
        """Nothing will come of what went ahead: nobody need keep it. Each passes it on to whom it has passed that.

        Whoever does not hear this has lost it with our connection, or with the epoch under which it was sent.
        """
        for node in sorted(tx.kept):
            for p in sorted(tx.kept[node]):
                self._do(Send(node, Store(tx.ttid, self.epoch, p, 0, ())))

    # ------------------------------------------------------------------------------------------ unvote

    def _unvote(self, tx: Tpc) -> None:
        """Withdraw the votes and locks of this attempt everywhere, until every lead has confirmed it."""
        tx.held = set()
        had_ahead = bool(tx.uploaded)
        tx.uploaded = {}
        if tx.attempt or had_ahead:
            parts = tx.parts or tuple(sorted(tx.ahead))
            self.dead[tx.ttid, tx.attempt] = set(parts)
            self._repeat_unvotes([(tx.ttid, tx.attempt)])

    def _repeat_unvotes(self, which: Iterable[tuple[Ttid, int]], node: NodeId | None = None) -> None:
        """Say again, to *node* or all leads, which attempts are withdrawn: a lost one would leave its locks for
        ever.
        """
        for key in which:
            leads: dict[NodeId, list[Partition]] = {}
            for p in sorted(self.dead[key]):
                lead = self.table.lead(p)
                if lead is not None and lead in self.peers and node in (None, lead):
                    leads.setdefault(lead, []).append(p)
            for lead in sorted(leads):
                self._do(Send(lead, Unvote(key[0], key[1], self.epoch, tuple(leads[lead]))))

    def _unvote_ok(self, packet: UnvoteOk) -> None:
        missing = self.dead.get((packet.ttid, packet.attempt))
        if missing is not None:
            missing.difference_update(packet.parts)
            if not missing:
                del self.dead[packet.ttid, packet.attempt]

    # ------------------------------------------------------------------------------------------ answers of leads

    def _received(self, peer: NodeId, packet: Packet) -> None:
        if peer not in self.peers:
            return  # of a connection that is gone for us
        match packet:
            case Voted() | Conflict() | Contended() | Refused() | Locked():
                self._from_lead(peer, packet)
            case UnvoteOk():
                self._unvote_ok(packet)
            case Welcome():
                self._welcome(peer, packet)
            case _ if peer != self.primary:
                pass  # a master that has not welcomed us has nothing to say
            case Finished(ttid, attempt, tid):
                tx = self.named.get(ttid)
                self._answered = True
                if tx is not None and tx.phase in (Phase.FINISHING, Phase.ABORTING):
                    self._committed(tx, attempt, tid)
            case Aborted(ttid, attempt, text):
                tx = self.named.get(ttid)
                if tx is not None and tx.attempt == attempt and tx.phase in (Phase.FINISHING, Phase.ABORTING):
                    self._aborted(tx, text)
            case Invalidate():
                self._invalidate(packet)
            case NewPT(update):
                try:
                    self.table = update.apply(self.table)
                except RemoteProtocolError as error:
                    self._do(Disconnect(peer, str(error)))
                    self._lost(peer, str(error))
                    return
                self._do(TableChanged())
                self._repeat_unvotes(sorted(self.dead))
            case Nodes(whole, nodes):
                if whole:
                    self.nodes = {}
                self.nodes.update((n.node, n) for n in nodes)
                self._do(NodesChanged())
            case Cluster(state, reason):
                self.cluster_state, self.cluster_reason = state, reason

    def _from_lead(self, node: NodeId, packet: Voted | Conflict | Contended | Refused | Locked) -> None:
        tx = self.named.get(packet.ttid)
        if tx is None or tx.attempt != packet.attempt or node not in tx.wait:
            return  # late, of an attempt that is withdrawn
        match packet:
            case Voted(parts=parts) if tx.phase is Phase.VOTING:
                tx.voted.update(parts)
                if set(tx.asked[node]) <= tx.voted:
                    self._replied(tx, node)
            case Conflict(stale=stale) if tx.phase is Phase.VOTING:
                tx.stale.update((s.oid, s) for s in stale)
                tx.refused = True
                tx.uploaded.pop(node, None)
                self._replied(tx, node)
            case Contended() if tx.phase is Phase.VOTING:
                tx.contended = tx.refused = True
                tx.uploaded.pop(node, None)
                self._replied(tx, node)
            case Refused(code=code, text=text) if tx.phase in _VOTE_PHASES:
                tx.uploaded.pop(node, None)
                if code in _PASSING:
                    tx.lost_vote = True
                    self._pause(tx)
                else:
                    tx.refused = True
                    tx.failure = code, text
                self._replied(tx, node)
            case Locked(stale=stale) if tx.phase is Phase.LOCKING:
                tx.wait.discard(node)
                tx.held.add(node)
                if stale:
                    self._resolve(tx, stale, locked=True)
                else:
                    self._lock_next(tx)

    def _replied(self, tx: Tpc, node: NodeId) -> None:
        """*node* has answered this vote or lock, or never will. Nothing is decided before all have."""
        tx.wait.discard(node)
        if tx.phase is Phase.LOCKING:
            if tx.failure:
                self._fail(tx, *tx.failure)
            elif tx.lost_vote:
                tx.lost_vote = False
                self._retry(tx)
            return
        if tx.wait or tx.phase is not Phase.VOTING:
            return
        if tx.failure:
            self._fail(tx, *tx.failure)
        elif tx.lost_vote:
            self._note_lost_vote(tx)
            self._retry(tx)
        elif tx.contended:
            tx.ordered = True
            self._retry(tx)
        elif tx.stale:
            self._resolve(tx, tuple(tx.stale[oid] for oid in sorted(tx.stale)), locked=False)
        elif set(tx.parts) <= tx.voted:
            self._fully_voted(tx)
        else:  # the table has changed between two rounds
            self._pause(tx)
            self._retry(tx)

    def _note_lost_vote(self, tx: Tpc) -> None:
        """The answer that was lost may have been Voted: recovery would commit this attempt."""
        tx.maybe = True

    def _fully_voted(self, tx: Tpc) -> None:
        tx.phase, tx.failures = Phase.VOTED, 0
        self._vote_returns(tx)

    def _vote_returns(self, tx: Tpc) -> None:
        if tx.waiting is Waiting.VOTE:
            tx.waiting = Waiting.NOTHING
            self._do(VoteDone(tx.handle))

    # ------------------------------------------------------------------------------------------ conflicts

    def _resolve(self, tx: Tpc, stale: tuple[Stale, ...], locked: bool) -> None:
        tx.phase, tx.locked_stale, tx.locks_lost = Phase.RESOLVING, locked, False
        self._do(Resolve(tx.handle, stale))

    def _resolved(self, tx: Tpc) -> None:
        """Vote again where the conflicts were, as the same attempt; after a second conflict, or a loss, as another."""
        if tx.locks_lost or tx.vote_epoch != self.epoch or self.frozen:
            self._retry(tx)
        elif tx.locked_stale:
            self._lock_next(tx)
        elif self._is_second_conflict(tx):
            tx.ordered = True
            self._retry(tx)
        else:
            leads = tx.by_lead(self.table)
            again = {self.table.lead(self.table.partition(oid)) for oid in tx.stale}
            if None in again or not all(n in self.peers for n in again):
                self._retry(tx)
            else:
                self._vote(tx, {n: leads[n] for n in again}, everywhere=again == set(leads))

    def _is_second_conflict(self, tx: Tpc) -> bool:
        """Resolution must not starve: after the second conflict the locks come first."""
        tx.rounds += 1
        return tx.rounds > 1

    # ------------------------------------------------------------------------------------------ failures

    def _may_be_fully_voted(self, tx: Tpc) -> bool:
        """Whether recovery may commit some attempt of it. Then only a durable abort is a failure."""
        return tx.maybe or (tx.phase is Phase.VOTING and not tx.refused)

    def _fail(self, tx: Tpc, code: ErrorCode, text: str) -> None:
        """Withdraw it, and say Failed (or AbortDone) as soon as it can never be committed."""
        must_abort = self._may_be_fully_voted(tx)
        tx.failure = code, text
        self._unvote(tx)
        if must_abort:
            self._abort(tx)
        else:
            self._failed(tx, code, text)

    def _failed(self, tx: Tpc, code: ErrorCode, text: str) -> None:
        self._forget(tx)
        self._take_back(tx)
        if tx.waiting is Waiting.ABORT:
            self._do(AbortDone(tx.handle))
        else:
            self._do(Failed(tx.handle, code, text))

    def _say_heard(self) -> None:
        """The primary keeps a decision until it knows that its client has the answer."""
        if self.primary is not None and self._heard < self.last:
            self._heard = self.last
            self._do(Send(self.primary, Heard(self.last)))

    def _tick(self) -> None:
        self._pardon_pause()
        if self._answered:
            self._answered = False
            self._say_heard()
        if self.dead and self._now >= self._unvote_at:
            if self._unvote_at:
                self._repeat_unvotes(sorted(self.dead))
            self._unvote_at = Seconds(self._now + UNVOTE_REPEAT_S)
        elif not self.dead:
            self._unvote_at = Seconds(0.0)
        for tx in list(self.transactions.values()):
            if tx.phase in (Phase.VOTING, Phase.LOCKING, Phase.RETRY) and self._now >= tx.deadline:
                self._fail(tx, ErrorCode.NOT_READY, self._overdue_text(tx))

    def _pardon_pause(self) -> None:
        """While this process did not run nobody could answer it: that time does not count as waiting."""
        pause = 0.0 if self._ticked_at is None else self._now - self._ticked_at
        self._ticked_at = self._now
        if pause > PAUSE_S:
            for tx in self.transactions.values():
                tx.deadline = Seconds(tx.deadline + pause)

    def _overdue_text(self, tx: Tpc) -> str:
        away = [n for n in tx.by_lead(self.table) if n is not None and n not in self.peers]
        if away:
            waits = f"no connection to {self.names(away)}"
        elif tx.wait:
            waits = f"{tx.phase.value}: no answer from {self.names(tx.wait)}"
        else:
            waits = tx.phase.value
        return f"not voted within wait-timeout, {self.settings.wait_timeout_s:g} s ({waits})"

    def names(self, nodes: Iterable[NodeId]) -> str:
        """Return how people know these nodes."""
        return ", ".join(
            f"{node_text(n)} ({self.nodes[n].name}, {self.nodes[n].address})" if n in self.nodes else node_text(n)
            for n in sorted(nodes)
        )

    # ------------------------------------------------------------------------------------------ the end

    def _finish(self, tx: Tpc) -> None:
        tx.phase = Phase.FINISHING
        self._send_finish(tx)

    def _send_finish(self, tx: Tpc) -> None:
        if self.primary is not None:
            assert tx.job is not None
            oids = tuple(sorted(w.oid for w in tx.job.writes))
            finish = Finish(tx.ttid, tx.attempt, tx.vote_epoch, tx.parts, oids, self._mode(tx), tx.job.given_tid)
            self._do(Send(self.primary, finish))

    def _abort(self, tx: Tpc) -> None:
        """Ask the primary for a durable abort; through losses of it, until it is known what became of it."""
        tx.phase, tx.wait = Phase.ABORTING, set()
        self._send_abort(tx)

    def _send_abort(self, tx: Tpc) -> None:
        if self.primary is not None:
            self._do(Send(self.primary, Abort(tx.ttid, tx.attempt, tx.parts)))

    def _committed(self, tx: Tpc, attempt: int, tid: Tid) -> None:
        """It is committed, perhaps against our will: as recovery presumes of what is fully voted."""
        assert tx.job is not None
        is_news = tid > self.last  # else CacheCut has covered it
        self._learn(Decision(tx.ttid, attempt, tid, tx.parts))
        self._cut_loads((w.oid for w in tx.job.writes), tid)
        tx.phase, tx.tid, tx.failure, tx.wait = Phase.COMMITTED, tid, None, set()
        tx.is_last = is_news and tx.waiting is Waiting.FINISH
        if is_news and tx.waiting is not Waiting.FINISH:
            self._do(Invalidated(tid, tuple(w.oid for w in tx.job.writes)))
        if tx.waiting is Waiting.VOTE:
            self._vote_returns(tx)
        elif tx.waiting is not Waiting.NOTHING:
            self._tell(tx)

    def _aborted(self, tx: Tpc, text: str) -> None:
        """It is aborted, durably."""
        code, text = tx.failure or (ErrorCode.NOT_READY, text or "aborted by the primary master")
        if tx.waiting is Waiting.NOTHING:
            tx.phase, tx.failure = Phase.ABORTED, (code, text)
        else:
            self._failed(tx, code, text)

    def _tell(self, tx: Tpc) -> None:
        """The application asks at last about what is decided already."""
        if tx.phase is Phase.ABORTED:
            assert tx.failure is not None
            self._failed(tx, *tx.failure)
            return
        assert tx.phase is Phase.COMMITTED
        self._forget(tx)
        if tx.waiting is Waiting.FINISH:
            self._do(FinishDone(tx.handle, tx.tid, tx.is_last))
        elif tx.parts:
            self._do(CommittedByRecovery(tx.handle, tx.tid))
        else:
            self._do(AbortDone(tx.handle))

    def _invalidate(self, packet: Invalidate) -> None:
        self._learn(Decision(packet.ttid, packet.attempt, packet.tid, ()))
        self._cut_loads(packet.oids, packet.tid)
        self._prune(packet.durable)
        self._do(Invalidated(packet.tid, packet.oids))

    # ------------------------------------------------------------------------------------------ connections

    def _connected(self, peer: NodeId, epoch: Epoch) -> None:
        self.peers.add(peer)
        if role_of(peer) is Role.MASTER:
            self._hello(peer, epoch)
        elif self.table.partitions:
            self._repeat_unvotes(sorted(self.dead), peer)

    def _hello(self, master: NodeId, epoch: Epoch) -> None:
        """One reign at a time: what another master still says is not heard any more."""
        for other in sorted(n for n in self.peers if role_of(n) is Role.MASTER and n != master):
            self._do(Disconnect(other, "another master is in charge"))
            self.peers.discard(other)
        self.primary = None
        self._promise(epoch)
        underway = tuple(
            Underway(tx.ttid, tx.attempt, PROGRESS[tx.phase], tx.parts)
            for tx in self.transactions.values()
            if tx.attempt and tx.phase in PROGRESS
        )
        known = tuple(sorted(self.known.values(), key=lambda d: d.tid))
        promised = Epoch(max(self.epoch, self.promised))
        self._do(
            Send(
                master, CHello(self.session, self.epoch, promised, underway, known, self.last, self.settings.read_only)
            )
        )

    def _promise(self, epoch: Epoch) -> None:
        """From now until Welcome nothing is begun, voted or finished, and no lower epoch is ever heard again."""
        self.promised = Epoch(max(self.promised, epoch))
        self.frozen = True

    def _hears(self, packet: Welcome) -> bool:
        """Whether this primary may be followed."""
        return packet.epoch >= max(self.epoch, self.promised)

    def _welcome(self, master: NodeId, packet: Welcome) -> None:
        try:
            table = packet.table.apply(self.table)
        except RemoteProtocolError as error:
            self._do(Disconnect(master, str(error)))
            self._lost(master, str(error))
            return
        if not self._hears(packet):
            self._do(Disconnect(master, "a newer primary has been heard of"))
            self._lost(master, "a newer primary has been heard of")
            return
        is_new = packet.epoch != self.epoch
        known_before = self.last
        is_cut = NO_VERSION < self.table.version < table.orders.cut_at
        is_other_line = self._is_of_other_line(table)
        self._cut_cache(max(packet.last, self.last))
        self._cut_all_loads(is_new)
        self.epoch, self.session, self.table, self.primary = packet.epoch, packet.session, table, master
        self.nodes = {n.node: n for n in packet.nodes}
        self.cluster_id = packet.cluster_id
        self.last = max(packet.last, self.last)
        durable_before = self.durable
        self._prune(packet.durable)
        if is_new:
            self.dead = {}  # recovery has decided about all of it
            for tx in self.transactions.values():
                tx.uploaded = {}
                if tx.attempt and self._recovery_may_commit(tx):
                    tx.maybe = True
        else:  # those of a session that was given up are aborted, durably
            self.dead = {key: parts for key, parts in self.dead.items() if key[0].session == self.session}
        if is_other_line:  # an operator has given up what this client may have seen
            self._reset(NO_TID, known_before)
        elif is_cut:  # the cluster was truncated: what is above is nowhere any more
            self._reset(min(durable_before, table.orders.cut), known_before)
        elif packet.reset:
            self._reset(durable_before, known_before)
        self.frozen = False
        self._do(NodesChanged())
        self._do(TableChanged())
        fates = {f.ttid: f for f in packet.fates}
        for tx in list(self.transactions.values()):
            self._take_fate(tx, fates.get(tx.ttid), is_new)

    def _is_of_other_line(self, table: PartitionTable) -> bool:
        """Whether an operator has chosen a partition table since: what this client has seen may be nowhere any more."""
        return self.table.version != NO_VERSION and self.table.orders.line != table.orders.line

    def _reset(self, durable: Tid, last: Tid) -> None:
        """Recovery has changed tids that this client knows: whatever began on a snapshot with them must begin again."""
        self.known = {}
        for tx in self.transactions.values():
            if tx.phase is Phase.BEGUN:
                tx.failure = ErrorCode.NOT_READY, "the transaction's snapshot was lost with the former primary master"
        self._do(Reset(durable, last))

    def _recovery_may_commit(self, tx: Tpc) -> bool:
        """A new primary may have found every vote of an attempt whose answers were on their way here."""
        return tx.phase in (Phase.VOTING, Phase.RETRY)

    def _cut_cache(self, last: Tid) -> None:
        """Invalidations may have been missed since the last that was heard."""
        self._do(CacheCut(self.last, last))

    def _take_fate(self, tx: Tpc, fate: Fate | None, is_new: bool) -> None:
        """Do what Welcome says of a transaction; a fate names its attempt, that of another attempt does not count."""
        kind = fate.kind if fate is not None else None
        of_this = fate is not None and fate.attempt == tx.attempt
        given_up = tx.ttid.session != self.session
        if given_up and (tx.phase is Phase.BEGUN or not tx.attempt):
            self._begin_anew(tx)
        elif tx.phase in _EARLY_PHASES and tx.attempt:
            if kind == FateKind.COMMITTED:
                assert fate is not None
                self._committed(tx, fate.attempt, fate.tid)
            elif kind == FateKind.VOTED and of_this:
                tx.vote_epoch = self.epoch
                self._fully_voted(tx)
            elif given_up:
                self._begin_anew(tx)
            elif kind == FateKind.ABORTED and not is_new:
                if of_this:
                    self._try_again(tx)
            elif is_new:
                if kind == FateKind.VOTED:  # the primary has kept an attempt that is withdrawn
                    assert fate is not None
                    self.dead[tx.ttid, fate.attempt] = set(tx.parts)
                    self._repeat_unvotes([(tx.ttid, fate.attempt)])
                if tx.phase is Phase.RESOLVING:
                    tx.locks_lost = True
                else:
                    tx.phase, tx.wait, tx.held = Phase.RETRY, set(), set()
        elif tx.phase in (Phase.VOTED, Phase.FINISHING, Phase.ABORTING):
            if kind == FateKind.COMMITTED:
                assert fate is not None
                self._committed(tx, fate.attempt, fate.tid)
            elif kind == FateKind.ABORTED and (of_this or given_up):
                self._aborted(tx, "aborted while the primary master was away")
            elif tx.phase is Phase.FINISHING:
                self._send_finish(tx)
            elif tx.phase is Phase.ABORTING:
                self._send_abort(tx)

    def _begin_anew(self, tx: Tpc) -> None:
        """Its session was given up while this client was away, before tpc_vote has returned: nothing is lost but time.

        Welcome says that what the old session had voted is, and stays, aborted; all its data is here.
        """
        del self.named[tx.ttid]
        tx.begin_anew(self._new_ttid())
        self.named[tx.ttid] = tx

    def _try_again(self, tx: Tpc) -> None:
        """The primary has aborted this attempt, and the session lives: another attempt."""
        if tx.phase is Phase.RESOLVING:
            self._unvote(tx)
            tx.locks_lost = True
        else:
            self._retry(tx)

    def _lost(self, peer: NodeId, reason: str) -> None:
        self.peers.discard(peer)
        if role_of(peer) is Role.MASTER:
            if peer == self.primary:
                self.primary = None
            if not any(role_of(n) is Role.MASTER for n in self.peers):
                self.frozen = False
            return
        for tx in list(self.transactions.values()):
            tx.uploaded.pop(peer, None)
            tx.kept.pop(peer, None)  # the storage forgets it as soon as it notices
            if tx.phase is Phase.LOCKING and peer in tx.held:
                self._retry(tx)
            elif tx.phase is Phase.RESOLVING and peer in tx.held:
                tx.locks_lost = True
            elif tx.phase in _VOTE_PHASES and peer in tx.wait:
                tx.lost_vote = True
                self._replied(tx, peer)

    def _do(self, effect: Effect) -> None:
        self._effects.append(effect)
