"""Tids and oids: taken in ascending order, below ceilings that the storages have durably. Pure.

No tid and no oid at or above the ceilings was ever given to anybody; a new reign starts above them. So what was
published and lost is not given again, clocks may jump back, and ranges of oids in the hands of clients stay theirs.
"""

from neo_common.ids import MAX_OID, Instant, NodeId, Oid, Tid, Ttid, tid_from_time
from neo_common.states import ClusterState
from neo_common.wire.schema import (
    AnswerOids,
    AnswerRaiseOid,
    AskOids,
    AskRaiseOid,
    Ceilings,
    CeilingsOk,
    Error,
    ErrorCode,
    Finish,
    Packet,
    SetCeilings,
)
from neo_master.core.base import MasterBase
from neo_master.core.effects import ERROR, WARNING
from neo_master.core.underway import Waiting

_SLEW_S = 1.0
"""Steps of the clock below this are not worth a word."""


class Oids(MasterBase):
    """Give tids and oids."""

    # ------------------------------------------------------------------------------------------ the clock

    def watch_clock(self) -> None:
        """Compare the wall clock with the monotonic one: see steps.

        Back: tids go on from the last one. Ahead by more than `clock_jump_s`: not believed; tids go on one by one from
        the last one until the clock is back, or the operator confirms the new time by restarting this master.
        """
        if self.clock_reference is None:
            self.clock_reference = self.now
        step = self.clock_step(self.clock_reference)
        if self.clock_refused:
            if step <= self.settings.clock_jump_s:
                self.clock_refused = False
                self.clock_reference = self.now
                self.log(WARNING, "the clock is believed again")
        elif step > self.settings.clock_jump_s:
            self.clock_refused = True
            self.log(
                ERROR,
                f"the clock has jumped ahead by {step:.0f} s: not believed; tids go on one by one from the last one. "
                "Set the clock right, or restart this master to confirm the new time",
            )
        else:
            if step < -_SLEW_S:
                self.log(WARNING, f"the clock has stepped back by {-step:.0f} s: tids go on from the last one")
            elif step > _SLEW_S:
                self.log(WARNING, f"the clock has stepped ahead by {step:.0f} s")
            self.clock_reference = self.now

    def clock_step(self, reference: Instant) -> float:
        """Return by how much the wall clock has gone further than the monotonic one since *reference*, in seconds."""
        return (self.now.wall - reference.wall) - (self.now.monotonic - reference.monotonic)

    def clock_tid(self) -> Tid:
        """Return the tid of this moment, 0 while the clock is not believed."""
        if self.clock_refused or (
            self.clock_reference is not None and self.clock_step(self.clock_reference) > self.settings.clock_jump_s
        ):
            return Tid(0)
        return tid_from_time(max(self.now.wall, 0.0))

    # ------------------------------------------------------------------------------------------ ceilings

    def wanted_ceilings(self) -> Ceilings:
        """Return ceilings well above what is in use."""
        base = max(self.clock_tid(), self.last, self.tid_floor)
        ahead = tid_from_time(self.settings.ceiling_ahead_s) - tid_from_time(0)
        batches = self.settings.oid_batch * self.settings.oid_batches_ahead
        return Ceilings(
            Tid(max(base + ahead, self.ceilings.tid)),
            Oid(min(max(self.next_oid + batches, self.ceilings.oid), MAX_OID)),
        )

    def first_ceilings(self) -> Ceilings:
        """Return the ceilings for Start."""
        return self.wanted_ceilings()

    def above_ceiling(self, tid: Tid) -> bool:
        """Whether *tid* must wait: it is given only below what all readable nodes hold as ceiling."""
        return tid >= self.ceilings.tid

    def is_ceiling_low(self) -> bool:
        """Whether half of what was ahead is used up."""
        wanted = self.wanted_ceilings()
        ahead = (tid_from_time(self.settings.ceiling_ahead_s) - tid_from_time(0)) // 2
        oids = self.settings.oid_batch * self.settings.oid_batches_ahead // 2
        return wanted.tid - self.ceilings.tid > ahead or wanted.oid - self.ceilings.oid > oids

    def keep_ceilings_ahead(self) -> None:
        """Raise the ceilings in the background, as long as there are clients that may need them."""
        are_needed = self.waiting or (self.writers() and self.is_ceiling_low())
        if self.is_running and self.ceilings_asked is None and are_needed:
            self.ask_ceilings(self.wanted_ceilings())

    def writers(self) -> bool:
        """Whether any client may commit."""
        return len(self.clients) > len(self.read_only)

    def ask_ceilings(self, ceilings: Ceilings) -> None:
        """Have higher ceilings made durable, on every readable node that is there.

        That is enough: of the nodes that are there, one at least stays readable, and recovery asks every readable one.
        """
        need = {n for n in self.readable_nodes() if n in self.obeying}
        if not need or (self.is_quorum and not self.is_row_in(need)):
            return  # what only some have, who comes to power with the others would not know
        self.ceilings_asked = ceilings
        self.ceilings_need = need
        for storage in sorted(need):
            self.send(storage, SetCeilings(ceilings))

    def on_ceilings_ok(self, storage: NodeId, packet: CeilingsOk) -> None:
        """Ceilings are durable there."""
        asked = self.ceilings_asked
        if asked is not None and packet.ceilings.tid >= asked.tid and packet.ceilings.oid >= asked.oid:
            self.ceilings_need.discard(storage)
            self.check_ceilings()

    def ceilings_storage_lost(self, storage: NodeId) -> None:
        """Do not wait for it: it gets the ceilings when it comes back. If nobody is left, ask again then."""
        if self.ceilings_asked is None:
            return
        readable = self.readable_nodes() & self.obeying
        was_last = self.ceilings_need == {storage} and not readable
        if self.is_quorum and not self.is_row_in(readable):
            was_last = True
        self.ceilings_need.discard(storage)
        if was_last:
            self.ceilings_asked = None
        else:
            self.check_ceilings()

    def check_ceilings(self) -> None:
        """Use the higher ceilings when they are durable, and go on with what has waited for them."""
        if self.ceilings_asked is None or self.ceilings_need:
            return
        self.ceilings, self.ceilings_asked = self.ceilings_asked, None
        self.put_forward(self.proposed_table)
        waiting = list(self.waiting)
        self.waiting.clear()
        self.has_waited = True
        for i, (client, packet, request) in enumerate(waiting):
            self.retry(client, packet, request)
            if self.waiting:  # it waits again: so do those behind it
                self.waiting.extend(waiting[i + 1 :])
                break
        for ttid in sorted(self.sealing):  # those whose client is lost too
            if ttid in self.sealing:
                self.check_seal(ttid)
        self.has_waited = False

    def retry(self, client: NodeId, packet: Packet, request: int) -> None:
        """Handle again what has waited."""
        match packet:
            case Finish():
                self.on_finish(client, packet)
            case AskOids():
                self.on_ask_oids(client, packet, request)
            case AskRaiseOid():
                self.on_ask_raise_oid(client, packet, request)
            case _:
                raise AssertionError(packet)

    def wait_for_ceiling(self, client: NodeId, packet: Packet, tid: Tid, request: int = 0) -> None:
        """Queue a request until the ceilings are higher; raise them, above *tid* too.

        The queue is bounded: above it, who asks is cut off, and comes back later.
        """
        if len(self.waiting) >= self.settings.waiting_max:
            self.cut(client, "too many requests wait for the storages to confirm a higher ceiling")
            return
        self.waiting.append(Waiting(client, packet, request))
        if self.ceilings_asked is None:
            wanted = self.wanted_ceilings()
            self.ask_ceilings(wanted._replace(tid=Tid(max(wanted.tid, tid + 1))))

    def drop_waiting(self, ttid: Ttid) -> None:
        """Forget a Finish that waits."""
        for waiting in [w for w in self.waiting if isinstance(w.packet, Finish) and w.packet.ttid == ttid]:
            self.waiting.remove(waiting)

    def is_waiting(self, ttid: Ttid) -> bool:
        """Whether a Finish waits for a ceiling."""
        return any(isinstance(w.packet, Finish) and w.packet.ttid == ttid for w in self.waiting)

    # ------------------------------------------------------------------------------------------ oids

    def on_ask_oids(self, client: NodeId, packet: AskOids, request: int) -> None:
        """Give a range of new oids, below the durable ceiling."""
        if self.may_have_oids(client, request):
            number = min(max(packet.number, 1), self.settings.oid_batch * self.settings.oid_batches_ahead)
            there = self.ceilings.oid - self.next_oid
            if there <= 0:
                self.wait_for_ceiling(client, packet, self.last, request)
                return
            number = min(number, there)
            first = self.next_oid
            self.next_oid = Oid(first + number)
            self.send(client, AnswerOids(first, number), request)
            self.keep_ceilings_ahead()

    def on_ask_raise_oid(self, client: NodeId, packet: AskRaiseOid, request: int) -> None:
        """An import brings oids of its own: give none up to that one, in later reigns neither."""
        if self.may_have_oids(client, request):
            if packet.oid >= MAX_OID:
                self.send(client, Error(ErrorCode.ILLEGAL, f"oid {packet.oid:#x} is above the largest"), request)
                return
            self.next_oid = max(self.next_oid, Oid(packet.oid + 1))
            if self.ceilings.oid <= packet.oid:
                self.wait_for_ceiling(client, packet, self.last, request)
            else:
                self.send(client, AnswerRaiseOid(), request)

    def may_have_oids(self, client: NodeId, request: int) -> bool:
        """Whether that client may have oids now; if not, it has been told why."""
        if not self.is_running or client not in self.clients:
            self.send(client, Error(ErrorCode.NOT_READY, self.reason or "no session yet"), request)
        elif client in self.read_only:
            self.send(client, Error(ErrorCode.READ_ONLY, "this client has said that it only reads"), request)
        elif self.state is ClusterState.STOPPING:
            self.send(client, Error(ErrorCode.NOT_READY, "the cluster stops"), request)
        else:
            return True
        return False
