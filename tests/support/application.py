"""A simulated program: a ClientCore, its shell, and a script of transactions as `tests/model/scenarios.py` has them.

What a value says is who wrote it, so that a reader needs to trust nobody. Loads are done as neo_client's shell does
them, with the core's own routing, cache and bookkeeping.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from neo_client.core.cache import Cache
from neo_client.core.client import ClientCore, ClientSettings, Loading
from neo_client.core.events import (
    AbortDone,
    AbortNow,
    CacheCut,
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
from neo_client.core.routing import Router
from neo_common.checksum import checksum
from neo_common.errors import NotReady
from neo_common.ids import NO_NODE, NO_TID, Epoch, NodeId, Oid, Partition, Seconds, Tid, Ttid
from neo_common.states import Role
from neo_common.wire.schema import (
    PIECE_BYTES,
    AnswerLoad,
    AnswerOids,
    AnswerPiece,
    AskLoad,
    AskOids,
    AskPiece,
    Compression,
    Data,
    Error,
    ErrorCode,
    Metadata,
    Mode,
    Packet,
    ReadCheck,
    Stale,
    Store,
    StorePiece,
    Write,
)
from support.checkers import Oracle
from support.network import Connection
from support.pieces import Storing, edition_of, is_whole
from support.seeking import Seeker
from support.world import World


class Spec(NamedTuple):
    """A transaction of a script: what it writes, reads and checks (readCurrent)."""

    writes: tuple[int, ...] = ()
    reads: tuple[int, ...] = ()
    current: tuple[int, ...] = ()
    resolve: bool = False
    """Its classes can resolve conflicts."""
    may_abort: bool = False
    """Another resource manager may refuse after our vote."""
    mode: Mode = Mode.C
    ahead: bool = False
    """Its writes go to the storages before the vote, as those of a large transaction."""
    creates: int = 0
    """How many new objects it writes, under oids that it asks for."""
    creating: bool = False
    """Its writes have no revision yet (the first transaction of every run)."""


def value_of(ttid: Ttid, oid: Oid) -> Data:
    """Return the value that *ttid* writes."""
    text = f"{ttid.session} {ttid.counter} {oid}".encode()
    return Data(Compression.NONE, checksum(text), len(text), text)


def writer_of(value: bytes) -> tuple[Ttid, Oid]:
    """Return who wrote a value, and where."""
    session, counter, oid = map(int, value[:100].split()[:3])
    writer, of = Ttid(session, counter), Oid(oid)  # type: ignore[arg-type]
    assert len(value) <= PIECE_BYTES or is_whole(value, writer, of), f"the value of {of} by {writer} is not whole"
    return writer, of


def spooled(write: Write) -> Write:
    """Return *write* as a core sees it: a value in pieces stays with its shell."""
    is_large = write.data.size > PIECE_BYTES
    return write._replace(data=write.data._replace(value=b"")) if is_large else write


class Step(Enum):
    """What the application does."""

    IDLE = "between two transactions"
    READING = "reads its snapshot"
    STORING = "stores values before its vote"
    VOTING = "in tpc_vote"
    VOTED = "between tpc_vote and tpc_finish"
    FINISHING = "in tpc_finish"
    ABORTING = "in tpc_abort"
    DONE = "done"


class Got(NamedTuple):
    """A revision that the snapshot shows."""

    serial: Tid
    writer: Ttid


class Request(NamedTuple):
    peer: NodeId
    oid: Oid
    loading: Loading | None
    """None: a question for oids."""
    found: AnswerLoad | None = None
    """A revision whose value comes in pieces."""
    parts: tuple[bytes, ...] = ()
    """Those that have come."""


class Application(Seeker):
    """One process with one client, and its script."""

    role = Role.CLIENT

    def __init__(self, world: World, name: str, oracle: Oracle, settings: ClientSettings) -> None:
        self.oracle = oracle
        self.settings = settings
        self.script: deque[Spec] = deque()
        self.step = Step.DONE
        self.outcomes: list[str] = []
        self.runs_away = True
        """Whether it sometimes gives up in the middle of tpc_vote."""
        self.early: random.Random | None = None
        """Chooses what is stored before the vote; None: nothing."""
        self.in_pieces = False
        """Whether that is large."""
        self.vote_not_before = 0.0
        """Moment before which it does not vote."""
        super().__init__(world, name, NO_NODE)

    # ---- life

    def run_script(self, specs: Sequence[Spec]) -> None:
        """Go through these transactions, one after the other."""
        self.script.extend(specs)
        if self.step is Step.DONE:
            self.step = Step.IDLE
        self._think()

    def make_core(self) -> ClientCore:
        self.node = NO_NODE
        self.client = ClientCore(self.settings)
        self.cache = Cache(2**20)
        self._router = Router((), self.world.rng.randrange(100))
        self.last = NO_TID
        """What lastTransaction() says."""
        self._requests: dict[int, Request] = {}
        self._request_count = 0
        self._is_thinking = False
        self._clear_transaction()
        self.oracle.forgot(self.name)
        self.make_bootstrap()
        if self.step is not Step.DONE:
            self._next_transaction("the process died")
        self._think()
        return self.client

    def core_died(self) -> None:
        if self.step not in (Step.DONE, Step.IDLE) and self.ttid is not None:
            # Nobody was told: it may be committed or not.
            self.outcomes.append("unknown")

    def epoch(self) -> Epoch:
        return self.client.epoch

    def cluster_id(self) -> bytes:
        return self.client.cluster_id or bytes(16)

    def _clear_transaction(self) -> None:
        self.handle: Handle | None = None
        self.ttid: Ttid | None = None
        """Its first name: what its values say, whatever it is called later."""
        self.names: list[Ttid] = []
        """All it was called so far; the last one counts."""
        self.snapshot = NO_TID
        self.got: dict[Oid, Got] = {}
        self.new_oids: tuple[Oid, ...] = ()
        self.writes: dict[Oid, Write] = {}
        self.ahead: dict[Partition, tuple[Write, ...]] = {}
        self.storing: Storing | None = None

    # ---- the shell

    def after_events(self) -> None:
        self.seek()
        wanted = set(self.client.nodes) | self.client.wanted_peers()
        for storage in self.world.of_role(Role.STORAGE):
            if storage.node in wanted and storage.node not in self.connections:
                self.dial(storage)
        self._think()

    def perform(self, effect: object) -> None:
        match effect:
            case Invalidated(tid, oids):
                for oid in oids:
                    self.cache.invalidate(tid, oid)
                self.last = tid
            case CacheCut(last, now):
                self.cache.cut(last)
                self.last = now
            case Reset(durable, _):
                self.cache.clear()
                if self.step is Step.READING and self.snapshot > durable:
                    self._clear_transaction()
                    self.step = Step.IDLE
            case VoteDone(handle):
                if handle == self.handle and self.step is Step.VOTING:
                    self.step = Step.VOTED
            case Resolve(handle, stale):
                if handle == self.handle:
                    self.world.schedule(self._thinking_time(), self._answer_resolve, handle, stale, self.incarnation)
            case Failed(handle, _, text):
                self.world.note(self.name, "failed", (self.names, text))
                if handle == self.handle:
                    # ZODB aborts what has failed.
                    self.step = Step.ABORTING
                    self.feed(AbortNow(handle))
            case FinishDone(handle, tid, is_last):
                for oid, write in self.writes.items() if is_last else ():
                    self.cache.invalidate(tid, oid)
                    if write.data.size <= PIECE_BYTES:
                        self.cache.put(oid, tid, NO_TID, write.data.value)
                self.last = max(self.last, tid)
                if handle == self.handle:
                    self._next_transaction("committed")
            case AbortDone(handle):
                if handle == self.handle:
                    self._next_transaction("aborted")
            case CommittedByRecovery(handle, _):
                if handle == self.handle:
                    self._next_transaction("committed by recovery")
            case Upload(_, ttid, node, partition, first):
                self._upload(ttid, node, partition, first)
            case TableChanged() | NodesChanged():
                pass  # after_events dials whoever is there
            case _:
                super().perform(effect)
        self._think()

    def received(self, connection: Connection, packet: Packet, request: int) -> None:
        if not request:
            super().received(connection, packet, request)
            return
        waiting = self._requests.pop(request, None)
        if waiting is not None:
            self._answered(waiting, packet)
        self._think()

    def connection_lost(self, peer: NodeId, reason: str) -> None:
        super().connection_lost(peer, reason)
        for request, waiting in list(self._requests.items()):
            if waiting.peer == peer:
                del self._requests[request]
                if waiting.loading is not None:
                    self.client.load_ended(waiting.loading)

    def _upload(self, ttid: Ttid, node: NodeId, partition: Partition, first: int) -> None:
        epoch = self.client.epoch
        writes = []
        for write in self.ahead.get(partition, ())[first:]:
            value = write.data.value
            if len(value) > PIECE_BYTES:
                for offset in range(0, len(value), PIECE_BYTES):
                    piece = value[offset : offset + PIECE_BYTES]
                    self.send(node, StorePiece(ttid, epoch, write.oid, offset, piece))
                write = write._replace(data=write.data._replace(value=b""))
            writes.append(write)
        self.send(node, Store(ttid, epoch, partition, first, tuple(writes)))

    # ---- the application

    def _thinking_time(self) -> float:
        return self.world.delay(self.world.temper.think_s, self.world.temper.think_tail, self.name)

    def _think(self) -> None:
        if self.alive and not self._is_thinking and self.step is not Step.DONE:
            self._is_thinking = True
            self.world.schedule(self._thinking_time(), self._act, self.incarnation)

    def _act(self, incarnation: int) -> None:
        if not self.alive or self.incarnation != incarnation:
            return
        self._is_thinking = False
        if self.stalled:
            self.world.schedule(0.1, self._act, incarnation)
            self._is_thinking = True
            return
        match self.step:
            case Step.IDLE if not self.script:
                self.step = Step.DONE
            case Step.IDLE if self.client.is_ready:
                self.snapshot = self.last
                self.step = Step.READING
                self._think()
            case Step.READING:
                self._read_on()
            case Step.STORING:
                self._store_on()
            case Step.VOTED:
                assert self.handle is not None
                if self.script[0].may_abort and self.world.rng.random() < 0.5:
                    self.step = Step.ABORTING
                    self.feed(AbortNow(self.handle))
                else:
                    self.step = Step.FINISHING
                    self.feed(FinishNow(self.handle))

    def _act_at_last(self, incarnation: int) -> None:
        if self.alive and self.incarnation == incarnation and self.step is Step.READING:
            self._is_thinking = False
            self._vote()

    def _next_transaction(self, outcome: str) -> None:
        self.world.note(self.name, outcome, self.ttid or "")
        if outcome != "the process died":
            self.outcomes.append(outcome)
        self.script.popleft()
        self._clear_transaction()
        self.step = Step.IDLE if self.script else Step.DONE

    def _read_on(self) -> None:
        spec = self.script[0]
        if self._requests:
            return
        if spec.creating:
            self._vote()
            return
        if spec.creates and not self.new_oids:
            if self.client.primary is not None:
                self._ask(self.client.primary, AskOids(spec.creates), Oid(0), None)
            return
        wanted = sorted({*spec.reads, *spec.writes, *spec.current})
        oid = next((Oid(o) for o in wanted if o not in self.got), None)
        if oid is None and self.world.now < self.vote_not_before:
            self._is_thinking = True
            self.world.schedule_at(self.vote_not_before, self._act_at_last, self.incarnation)
            return
        if oid is None:
            self._vote()
            return
        cached = self.cache.get(oid, Tid(self.snapshot + 1))
        if cached is not None:
            self._see(oid, cached.tid, cached.value, cached=True)
            self._think()
            return
        self._load(oid)

    def _ask(self, peer: NodeId, packet: Packet, oid: Oid, loading: Loading | None) -> None:
        self._send_request(packet, Request(peer, oid, loading))

    def _send_request(self, packet: Packet, request: Request) -> None:
        peer = request.peer
        self._request_count += 1
        self._requests[self._request_count] = request
        connection = self.connections[peer]
        self.world.note(self.name, "asks", (peer, packet))
        connection.send(self, packet, self._request_count)

    def ask_primary(self, packet: Packet) -> None:
        """Send the primary a question whose answer only observers see."""
        assert self.client.primary is not None
        self.world.note(self.name, "asks", packet)
        self.connections[self.client.primary].send(self, packet, 2**31)

    def _load(self, oid: Oid) -> None:
        # Any readable cell is legal; the router's preference is its own affair, and tests want them all.
        table, client = self.client.table, self.client
        if not table.partitions:
            return
        cells = self._router.cells(table, client.nodes, table.partition(oid), self.connections, Seconds(self.world.now))
        nodes = [n for n in cells if n in self.connections]
        if nodes:
            before = Tid(self.snapshot + 1)
            node = self.world.rng.choice(nodes)
            loading = self.client.load_began(oid, before)
            self._ask(node, AskLoad(self.client.epoch, oid, before), oid, loading)

    def _answered(self, waiting: Request, packet: Packet) -> None:
        loading = waiting.loading
        match packet:
            case AnswerOids(first, number):
                if self.step is Step.READING:
                    self.new_oids = tuple(Oid(first + i) for i in range(min(number, self.script[0].creates)))
            case AnswerLoad(tid, _, data) if data.size and not data.value:
                piece = AskPiece(self.client.epoch, waiting.oid, tid, 0)
                self._send_request(piece, waiting._replace(found=packet))
            case AnswerPiece(value):
                self._add_piece(waiting, value)
            case AnswerLoad(tid, end, data):
                assert loading is not None
                until = self.client.load_ended(loading, tid, end)
                if loading.void:
                    return
                assert checksum(data.value) == data.checksum, data
                self.cache.put(waiting.oid, tid, until, data.value)
                if self.step is Step.READING and loading.before == self.snapshot + 1:
                    self._see(waiting.oid, tid, data.value, cached=False)
            case Error(code=code):
                self.world.note(self.name, "is refused", packet)
                if loading is None:
                    return
                self.client.load_ended(loading)
                is_missing = code == ErrorCode.NOT_FOUND and waiting.found is None  # else it was packed meanwhile
                if is_missing and not loading.void and self.step is Step.READING:
                    # The snapshot is older than the object.
                    self.oracle.missed(self.name, self.client.epoch, self.snapshot, waiting.oid)
                    self._clear_transaction()
                    self.step = Step.IDLE
            case _:
                raise AssertionError(packet)

    def _add_piece(self, waiting: Request, value: bytes) -> None:
        """Ask for the next piece; or take the value, if this was the last."""
        found, parts = waiting.found, (*waiting.parts, value)
        assert found is not None
        offset = sum(map(len, parts))
        if offset < found.data.size:
            piece = AskPiece(self.client.epoch, waiting.oid, found.tid, offset)
            self._send_request(piece, waiting._replace(parts=parts))
        else:
            whole = found._replace(data=found.data._replace(value=b"".join(parts)))
            self._answered(waiting._replace(found=None, parts=()), whole)

    def _see(self, oid: Oid, serial: Tid, value: bytes, *, cached: bool) -> None:
        writer, of = writer_of(value)
        assert of == oid, f"{oid} holds the value of {of}"
        self.got[oid] = Got(serial, writer)
        edition = edition_of(value)
        self.oracle.read(
            self.name, self.client.epoch, self.snapshot, oid, serial, writer, cached=cached, edition=edition
        )

    def _vote(self) -> None:
        spec = self.script[0]
        if not spec.writes and not spec.current and not spec.creates:
            self._next_transaction("read")
            return
        try:
            handle = self.client.begin()
        except NotReady:
            return
        ttid = self.client.transactions[handle].ttid
        self.handle, self.ttid, self.names = handle, ttid, [ttid]
        self.oracle.began(self.name, ttid)
        oids = [Oid(o) for o in spec.writes] + list(self.new_oids)
        bases = {oid: got.serial for oid, got in self.got.items()}
        self.writes = {o: Write(o, bases.get(o, NO_TID), NO_TID, value_of(ttid, o)) for o in oids}
        if self.early is not None and self.client.table.partitions:
            self.storing = Storing(oids, self.early, in_pieces=self.in_pieces)
            if self.storing.early:
                self.step = Step.STORING
                self._think()
                return
        if spec.ahead and self.client.table.partitions:
            partitions = self.client.table.partitions
            for p in sorted({Partition(o % partitions) for o in self.writes}):
                self.ahead[p] = tuple(w for w in self.writes.values() if w.oid % partitions == p)
                self.feed(StoredAhead(handle, p, 0, len(self.ahead[p])))
        self._vote_now(handle)

    def _store_on(self) -> None:
        """Store the next value; or one once more, as another edition; or vote, or give up."""
        storing, handle = self.storing, self.handle
        assert storing is not None
        assert handle is not None
        if storing.left:
            self._store(handle, storing, storing.left.pop(0))
        elif storing.again:
            storing.again -= 1
            oid = storing.any()
            storing.renew(oid)
            self._store(handle, storing, oid)
        elif storing.gives_up:
            self.step = Step.ABORTING
            self.feed(AbortNow(handle))
        else:
            self._vote_now(handle)

    def _store(self, handle: Handle, storing: Storing, oid: Oid) -> None:
        assert self.ttid is not None
        partition = self.client.table.partition(oid)
        self.writes[oid] = self.writes[oid]._replace(data=storing.value(self.ttid, oid))
        ahead = {w.oid: w for w in self.ahead.get(partition, ())} | {oid: self.writes[oid]}
        self.ahead[partition] = tuple(ahead.values())
        self.feed(StoredAhead(handle, partition, list(ahead).index(oid), len(ahead)))

    def _vote_now(self, handle: Handle) -> None:
        spec = self.script[0]
        bases = {oid: got.serial for oid, got in self.got.items()}
        reads = tuple(ReadCheck(Oid(o), bases[Oid(o)]) for o in spec.current if o not in self.writes)
        metadata = Metadata(self.name.encode(), b"step %d" % len(self.outcomes), b"")
        ahead = [w for writes in self.ahead.values() for w in writes]
        early = {w.oid for w in ahead}
        writes = (*ahead, *(w for w in self.writes.values() if w.oid not in early))
        # Of what went ahead the core needs to know the places only.
        job = Job(metadata, tuple(map(spooled, writes)), reads, spec.mode)
        self.step = Step.VOTING
        self.feed(VoteNow(handle, job))
        if self.runs_away and self.world.rng.random() < 0.02:
            self.world.schedule(self._thinking_time(), self._run_away, handle, self.incarnation)

    def _run_away(self, handle: Handle, incarnation: int) -> None:
        """The application gives up while tpc_vote still works."""
        if self.alive and self.incarnation == incarnation and self.handle == handle and self.step is Step.VOTING:
            self.step = Step.ABORTING
            self.feed(AbortNow(handle))

    def name_of(self, handle: Handle) -> Ttid:
        """Return what the transaction of *handle* is called now."""
        del handle  # it has one at a time
        return self.names[-1]

    def note_name(self) -> None:
        """Tell the oracle when the core goes on with the transaction under another name."""
        tx = self.client.transactions.get(self.handle) if self.handle is not None else None
        if tx is not None and tx.ttid != self.names[-1]:
            self.oracle.renamed(self.name, self.names[-1], tx.ttid)
            self.names.append(tx.ttid)

    def _answer_resolve(self, handle: Handle, stale: tuple[Stale, ...], incarnation: int) -> None:
        if not self.alive or self.incarnation != incarnation or handle != self.handle:
            return
        spec = self.script[0]
        changed = {s.oid: s for s in stale}
        if not spec.resolve or any(oid not in self.writes for oid in changed):
            self.feed(GiveUp(handle))
            return
        writes = []
        for oid, s in sorted(changed.items()):
            if s.data is not None:
                writer_of(s.data.value)
            else:
                assert self.in_pieces or not self.world.reads_at_once, "values are small here, and at hand"
            self.writes[oid] = self.writes[oid]._replace(base=s.serial)
            if self.storing is not None and oid in self.storing.early:
                self.storing.renew(oid)
                self.writes[oid] = self.writes[oid]._replace(data=self.storing.value(self.names[0], oid))
            writes.append(spooled(self.writes[oid]))
        for p, ahead in self.ahead.items():
            self.ahead[p] = tuple(self.writes[w.oid] for w in ahead)
        self.feed(Resolved(handle, tuple(writes), ()))
