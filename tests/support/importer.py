"""A simulated client that copies transactions with their tids, several at a time, as neo_client's Pipeline does.

One copy, in order; when anything fails it withdraws what the primary was not asked to commit, and ends. Whatever
happened: what is there at last must be a beginning of what was copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from neo_client.core.client import ClientCore
from neo_client.core.events import (
    AbortDone,
    AbortNow,
    CommittedByRecovery,
    Failed,
    FinishDone,
    FinishNow,
    Handle,
    Job,
    Resolve,
    Resolved,
    VoteDone,
    VoteNow,
)
from neo_common.errors import NotReady
from neo_common.ids import NO_TID, NodeId, Oid, Tid, Ttid
from neo_common.wire.schema import (
    AnswerImport,
    AnswerRaiseOid,
    AskImport,
    AskRaiseOid,
    Error,
    Metadata,
    Mode,
    Packet,
    Stale,
    Write,
)
from support.application import Application, Request, Step, value_of


class State(Enum):
    """Where a transaction of the copy is."""

    VOTING = "in tpc_vote"
    VOTED = "fully voted"
    FINISHING = "in tpc_finish"
    ABORTING = "in tpc_abort"
    OVER = "over"


class Flight:
    """A transaction of the copy."""

    def __init__(self, handle: Handle, ttid: Ttid, tid: Tid, writes: dict[Oid, Write]) -> None:
        self.handle, self.tid, self.writes = handle, tid, writes
        self.names = [ttid]
        self.state = State.VOTING


class Importer(Application):
    """Copies once. `flights` are in the order of the copy."""

    plan: Sequence[tuple[int, ...]] = ()
    flights: Sequence[Flight] = ()
    """Those of this life."""
    ever: Sequence[Flight] = ()
    """Those of all lives."""

    def begin(self, plan: Sequence[tuple[int, ...]]) -> None:
        """Copy transactions that write these objects: new ones, or of transactions before."""
        self.plan, self.step = plan, Step.IDLE
        self._think()

    def make_core(self) -> ClientCore:
        self.ever, self.flights = [*self.ever, *self.flights], []
        self._is_asking = self._is_importing = self._is_raised = self._has_failed = self._is_over = False
        self.step = Step.DONE  # a copy that died is begun again by people
        core = super().make_core()
        if self.plan and self.incarnation == 1:  # it was told to begin before it was there
            self.begin(self.plan)
        return core

    def core_died(self) -> None:
        if self.step is not Step.DONE:
            self.outcomes.append("unknown")

    def name_of(self, handle: Handle) -> Ttid:
        return next(f.names[-1] for f in self.flights if f.handle == handle)

    def note_name(self) -> None:
        for flight in self.flights:
            tx = self.client.transactions.get(flight.handle)
            if tx is not None and tx.ttid != flight.names[-1]:
                self.oracle.renamed(self.name, flight.names[-1], tx.ttid)
                flight.names.append(tx.ttid)

    # ---- what the core says

    def perform(self, effect: object) -> None:
        match effect:
            case VoteDone(handle):
                self._set(handle, State.VOTED, State.VOTING)
            case Resolve(handle, stale):
                self.world.schedule(self._thinking_time(), self._replace, handle, stale, self.incarnation)
            case FinishDone(handle, tid, _):
                self.last = tid
                self._set(handle, State.OVER)
            case AbortDone(handle) | CommittedByRecovery(handle, _):
                self._set(handle, State.OVER)
            case Failed(handle, _, text):
                self.world.note(self.name, "failed", (self.name_of(handle), text))
                self._has_failed = True
                self._set(handle, State.OVER)
            case _:
                super().perform(effect)
        self._think()

    def _set(self, handle: Handle, state: State, only_from: State | None = None) -> None:
        for flight in self.flights:
            if flight.handle == handle and only_from in (None, flight.state):
                flight.state = state

    def _replace(self, handle: Handle, stale: tuple[Stale, ...], incarnation: int) -> None:
        """Whatever is current is replaced."""
        flight = next((f for f in self.flights if f.handle == handle), None)
        if self.alive and self.incarnation == incarnation and flight is not None and flight.state is State.VOTING:
            for s in stale:
                flight.writes[s.oid] = flight.writes[s.oid]._replace(base=s.serial)
            self.feed(Resolved(handle, tuple(flight.writes[s.oid] for s in stale), ()))

    def _answered(self, waiting: Request, packet: Packet) -> None:
        self._is_asking = False
        match packet:
            case AnswerImport():
                self._is_importing = not self._is_over
                if self._is_over:
                    self.step = Step.DONE
            case AnswerRaiseOid():
                self._is_raised = True
            case Error():
                self.world.note(self.name, "is refused", packet)
                self._has_failed = True
                if self._is_over:
                    self.step = Step.DONE
            case _:
                super()._answered(waiting, packet)

    def connection_lost(self, peer: NodeId, reason: str) -> None:
        super().connection_lost(peer, reason)
        self._is_asking = any(r.peer == peer for r in self._requests.values())

    # ---- what it does

    def _act(self, incarnation: int) -> None:
        if self.stalled or not self.alive or self.incarnation != incarnation:
            super()._act(incarnation)
            return
        self._is_thinking = False
        if self._is_over:
            self._ask_primary(AskImport(begin=False))
        elif self._has_failed:
            self._withdraw()
        elif not self.client.is_ready:
            pass
        elif not (self._is_importing and self._is_raised):
            self._ask_primary(AskRaiseOid(Oid(1000)) if self._is_importing else AskImport(begin=True))
        else:
            self._go_on()

    def _ask_primary(self, packet: Packet) -> None:
        """Ask, and ask the next one if this one is lost."""
        if not self._is_asking and self.client.is_ready and self.client.primary is not None:
            self._is_asking = True
            self._ask(self.client.primary, packet, Oid(0), None)

    def _go_on(self) -> None:
        flights = self.flights
        if len(flights) < len(self.plan) and (not flights or flights[-1].state is not State.VOTING):
            self._vote_next()
        elif len(flights) == len(self.plan) and all(f.state is State.OVER for f in flights):
            self._end("copied")
            return
        self._finish_next()

    def _vote_next(self) -> None:
        try:
            handle = self.client.begin()
        except NotReady:
            return
        ttid = self.client.transactions[handle].ttid
        self.oracle.began(self.name, ttid)
        before = self.flights[-1].tid if self.flights else NO_TID
        tid = Tid(max(before, self.last) + 1000)
        current = {oid: f.tid for f in self.flights for oid in f.writes}
        writes = {
            Oid(o): Write(Oid(o), current.get(Oid(o), NO_TID), NO_TID, value_of(ttid, Oid(o)))
            for o in self.plan[len(self.flights)]
        }
        self.flights = [*self.flights, Flight(handle, ttid, tid, writes)]
        metadata = Metadata(self.name.encode(), b"copy %d" % len(self.flights), b"")
        self.feed(VoteNow(handle, Job(metadata, tuple(writes.values()), (), Mode.C, tid, before)))

    def _finish_next(self) -> None:
        """The oldest that is voted, when those before it are committed."""
        for flight in self.flights:
            if flight.state is State.VOTED and not self._has_failed:
                flight.state = State.FINISHING
                self.feed(FinishNow(flight.handle))
            if flight.state is not State.OVER:
                return

    def _withdraw(self) -> None:
        """The newest first; what is being finished ends by itself."""
        for flight in reversed(self.flights):
            if flight.state in (State.VOTING, State.VOTED):
                flight.state = State.ABORTING
                self.feed(AbortNow(flight.handle))
                return
            if flight.state is State.ABORTING:
                return
        if all(f.state is State.OVER for f in self.flights):
            self._end("failed")

    def _end(self, outcome: str) -> None:
        self.outcomes.append(outcome)
        self._is_over = True
