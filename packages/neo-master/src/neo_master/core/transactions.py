"""Commit, seal, abort; and how long each decision is kept. Pure.

    unknown -> sealing       Finish, mode A
    unknown -> committed     Finish, mode C
    sealing -> committed     SealOk of all readable cells of the lowest partition
    committed -> forgotten   CommitOk of all written cells, and client told or gone (D)
    unknown -> aborting      Abort; the client is gone; the vote is overdue
    aborting -> aborted      AbortOk of all readable cells of one partition

A commit leaves in one step: Commit to the storages, Finished to its client, Invalidate to the others. So tids leave in
order on every connection, and whoever knows a tid knows all those before it.
"""

from collections import deque

from neo_common.ids import NO_NODE, NO_TID, NodeId, Partition, Seconds, Session, Tid, Ttid, tid_from_time
from neo_common.states import ClusterState
from neo_common.wire.schema import (
    Abort,
    Aborted,
    AbortOk,
    Ask,
    Commit,
    CommitOk,
    Decision,
    Finish,
    Finished,
    Heard,
    Invalidate,
    Mode,
    Overdue,
    Packet,
    SAbort,
    Seal,
    SealOk,
    Told,
)
from neo_master.core.base import MasterBase
from neo_master.core.effects import INFO
from neo_master.core.underway import Aborting, Sealing


class Transactions(MasterBase):
    """Decide about transactions."""

    # ------------------------------------------------------------------------------------------ finish

    def on_finish(self, client: NodeId, packet: Finish) -> None:
        """Commit; or answer what was decided already; or abort, and say why when that is durable."""
        if not self.is_running or client not in self.clients or not self.are_legal(client, packet.ttid, packet.parts):
            return
        decision = self.decided.get(packet.ttid)
        if decision is not None:
            self.repeat_finished(client, decision)
        elif self.is_dead(packet):
            self.refuse_dead(client, packet)
        elif packet.ttid in self.sealing:
            self.sealing[packet.ttid] = self.sealing[packet.ttid]._replace(client=client)
            self.check_seal(packet.ttid)
        else:
            why = self.why_not(client, packet)
            if why:
                self.begin_abort(packet.ttid, packet.attempt, packet.parts, client, why)
            elif packet.mode == Mode.A:
                self.sealing[packet.ttid] = Sealing(client, packet, set())
                self.seal(packet.ttid)
            else:
                self.commit(client, packet)

    def are_legal(self, client: NodeId, ttid: Ttid, parts: tuple[Partition, ...]) -> bool:
        """Whether these partitions exist, and storages can keep that name; a client that says otherwise is cut off."""
        if not ttid.is_storable:
            self.cut(client, f"{ttid} cannot be the name of a transaction")
            return False
        if parts and min(parts) >= 0 and max(parts) < self.pt.partitions:
            return True
        self.cut(client, f"partitions {parts} are not among the {self.pt.partitions} of the cluster")
        return False

    def is_dead(self, packet: Finish) -> bool:
        """Whether it is aborted, its session given up, or its votes are of an earlier epoch and not pending."""
        return (
            self.aborted.get(packet.ttid, 0) >= packet.attempt
            or packet.ttid.session in self.gone
            or not self.is_of_this_reign(packet)
        )

    def is_of_this_reign(self, packet: Finish) -> bool:
        """Whether the votes were given under this epoch, or recovery has left them to their client."""
        return packet.epoch == self.epoch or (packet.ttid, packet.attempt) in self.pending

    def refuse_dead(self, client: NodeId, packet: Finish) -> None:
        """Answer Aborted, when it is durable; or what is held of it."""
        aborting = self.aborting.get(packet.ttid)
        held = self.settled_decision(packet.ttid)
        if held is not None:
            self.repeat_finished(client, held)
        elif aborting is not None:
            self.aborting[packet.ttid] = aborting._replace(client=client)
        else:
            self.send(client, Aborted(packet.ttid, packet.attempt, "it was aborted already"))

    def why_not(self, client: NodeId, packet: Finish) -> str:
        """Return why the state of the cluster forbids this commit, empty if it does not."""
        if self.state is ClusterState.STOPPING:
            return "the cluster stops"
        if self.state is ClusterState.IMPORTING:
            if self.clients[client] != self.importer:
                return "an import is under way: others read only"
            if not packet.given_tid:
                return "during an import every transaction brings its tid"
        elif packet.given_tid:
            return "a transaction may bring its tid during an import only"
        if packet.given_tid and packet.given_tid <= self.last:
            return f"tid {packet.given_tid:#x} is not above the last one, {self.last:#x}"
        if packet.given_tid > tid_from_time(self.now.wall + self.settings.clock_jump_s):
            return f"tid {packet.given_tid:#x} is of the future: all later ones would be above it"
        return ""

    def repeat_finished(self, client: NodeId, decision: Decision) -> None:
        """Say again what was decided."""
        answer = Finished(decision.ttid, decision.attempt, decision.tid)
        if self.settings.finish_durable and self.unacked.get(decision.ttid):
            self.answers.setdefault(client, deque()).append((decision.ttid, answer, 0))
        else:
            self.to_client(client, answer)

    # ------------------------------------------------------------------------------------------ mode A

    def seal(self, ttid: Ttid) -> None:
        """Send Seal to the written cells of the lowest partition that have not confirmed it."""
        sealing = self.sealing[ttid]
        for storage in sorted(set(self.pt.written(min(sealing.finish.parts))) - sealing.done):
            if storage in self.obeying:
                self.send(storage, Seal(ttid, sealing.finish.attempt))
        self.check_seal(ttid)

    def on_seal_ok(self, storage: NodeId, packet: SealOk) -> None:
        """The seal is durable there."""
        sealing = self.sealing.get(packet.ttid)
        if sealing is not None and packet.attempt == sealing.finish.attempt:
            sealing.done.add(storage)
            self.check_seal(packet.ttid)

    def check_seal(self, ttid: Ttid) -> None:
        """Commit, when the seal is durable on every readable cell of the lowest partition.

        It counts as being sealed until it has its tid: its client may be lost while it waits for a ceiling.
        """
        sealing = self.sealing[ttid]
        if self.readable_in(min(sealing.finish.parts)) <= sealing.done and not self.is_waiting(ttid):
            self.commit(sealing.client, sealing.finish)

    # ------------------------------------------------------------------------------------------ commit

    def commit(self, client: NodeId, packet: Finish) -> None:
        """Decide: commit. Waits, behind others that wait, when the tid would be above the ceiling."""
        if self.stop_told is not None:
            return  # it has resigned: the next primary decides
        if not self.valid_lease():
            self.step_down("it should decide, and holds no lease")
            return
        tid = packet.given_tid or self.next_tid()
        if self.has_waited and not packet.given_tid and self.above_ceiling(tid):
            # The storages take longer to confirm than the ceilings are ahead: rather a tid that is a little old.
            tid = Tid(max(self.last, self.tid_floor) + 1)
        if self.waiting or self.above_ceiling(tid):
            self.wait_for_ceiling(client, packet, tid)
            return
        self.last = tid
        self.publish(client, packet, tid)

    def next_tid(self) -> Tid:
        """Return the tid of a commit now: that of the clock, but above every one before."""
        return Tid(max(self.clock_tid(), self.last + 1, self.tid_floor + 1))

    def publish(self, client: NodeId, packet: Finish, tid: Tid) -> None:
        """Tell it, in this order: the storages, the client, the other clients."""
        ttid, attempt, _, parts, oids, _, _ = packet
        decision = Decision(ttid, attempt, tid, parts)
        written = {n for p in parts for n in self.written_in(p)}
        self.decided[ttid] = decision
        self.sealing.pop(ttid, None)
        self.unacked[ttid] = set(written)
        self.pending.discard((ttid, attempt))
        for storage in sorted(written & self.obeying):
            self.send(storage, Commit(ttid, attempt, tid, parts, self.tail_for(storage), self.durable))
            self.told_tid[storage] = tid
        self.undurable.append(decision)
        self.must_be_told(decision)
        if client in self.clients:
            if self.settings.finish_durable:
                self.answers.setdefault(client, deque()).append((ttid, Finished(ttid, attempt, tid), 0))
            else:
                self.send(client, Finished(ttid, attempt, tid))
        elif ttid.session in self.gone:
            self.session_given_up(ttid.session)
        invalidate = Invalidate(tid, ttid, attempt, oids, self.durable)
        for other in sorted(self.clients):
            if other != client:
                self.to_client(other, invalidate)
        if self.hellos:  # of clients that were given up: one may have waited for this
            self.rewelcome()

    def tail_for(self, storage: NodeId) -> tuple[Decision, ...]:
        """Return the commits above the durable mark that *storage* has not been told, in the order of tids.

        With them, whoever knows a tid knows all those before it: what a power cut takes is always a suffix.
        """
        told = self.told_tid.get(storage, NO_TID)
        tail: list[Decision] = []
        for decision in reversed(self.undurable):
            if decision.tid <= told:
                break
            tail.append(decision)
        return tuple(reversed(tail))

    def to_client(self, client: NodeId, packet: Packet, request: int = 0) -> None:
        """Send what has its place in the order of tids: behind answers that wait until their commit is durable."""
        waiting = self.answers.get(client)
        if waiting:
            waiting.append((None, packet, request))
        else:
            self.send(client, packet, request)

    def release_answers(self) -> None:
        """With `finish_durable`: send what has waited for a commit that is durable now."""
        for client in sorted(self.answers):
            waiting = self.answers[client]
            while waiting and (waiting[0][0] is None or not self.unacked.get(waiting[0][0])):
                _, packet, request = waiting.popleft()
                self.send(client, packet, request)
            if not waiting:
                del self.answers[client]

    # ------------------------------------------------------------------------------------------ the durable mark

    def decisions_above_mark(self) -> list[Decision]:
        """Return every commit that somebody may not have, durably."""
        return list(self.undurable)

    def on_commit_ok(self, storage: NodeId, packet: CommitOk) -> None:
        """These commits are durable there."""
        for ttid in packet.ttids:
            nodes = self.unacked.get(ttid)
            if nodes is not None:
                nodes.discard(storage)
        self.disk_told(storage, packet.position)
        self.advance_durable()

    def acked(self, storage: NodeId, upto: Tid) -> None:
        """Every commit up to *upto* is durable on *storage*: it has confirmed the Adopt that listed them."""
        for decision in self.undurable:
            if decision.tid > upto:
                break
            self.unacked[decision.ttid].discard(storage)
        self.advance_durable()

    def written_changed(self) -> None:
        """A table is stable: cells that are not written any more need not confirm commits."""
        for decision in self.undurable:
            nodes = self.unacked[decision.ttid]
            if nodes:
                nodes &= {n for p in decision.parts for n in self.pt.written(p)}
        self.advance_durable()

    def on_heard(self, client: NodeId, packet: Heard) -> None:
        """The client has handled every Finished up to that tid: nobody will ask for those any more."""
        session = self.clients.get(client)
        waiting = self.untold_of.get(session) if session is not None else None
        while waiting and waiting[0].tid <= packet.last:
            self.untold.pop(waiting.popleft().ttid, None)
        self.advance_durable()

    def must_be_told(self, decision: Decision) -> None:
        """Keep a commit above the durable mark until its client has heard of it."""
        self.untold[decision.ttid] = Seconds(self.now.monotonic + self.settings.told_s)
        self.untold_of.setdefault(decision.ttid.session, deque()).append(decision)

    def is_told(self, ttid: Ttid) -> bool:
        """Whether nobody may still wait for the answer to that commit.

        Its client has said so, is given up, or has been connected for so long that its heartbeats would have failed.
        """
        until = self.untold.get(ttid)
        return until is None or self.now.monotonic >= until

    def advance_durable(self) -> None:
        """Move the durable mark: up to it every commit is durable on every written cell, and its client was told."""
        while self.undurable:
            decision = self.undurable[0]
            if self.unacked.get(decision.ttid) or not self.is_told(decision.ttid):
                break
            self.undurable.popleft()
            self.fresh.append(decision)
            self.durable = decision.tid
            self.unacked.pop(decision.ttid, None)
            if decision.ttid in self.untold or decision.ttid.session not in self.client_of:
                self.untold.pop(decision.ttid, None)
                waiting = self.untold_of.get(decision.ttid.session)
                if waiting and waiting[0] is decision:
                    waiting.popleft()
                self.fresh_unheard.append(decision)
                self.keep_answer(decision)
            else:
                del self.decided[decision.ttid]
        if not self.undurable:
            self.durable = max(self.durable, self.last)
        if self.answers:
            self.release_answers()
        self.settle_import()

    def keep_answer(self, decision: Decision) -> None:
        """Keep a decision above which the mark has gone: its client was not seen to hear of it, and may come back.

        Bounded: the oldest ones are forgotten.
        """
        self.kept_answers.append(decision.ttid)
        while len(self.kept_answers) > self.settings.remembered_max:
            self.decided.pop(self.kept_answers.popleft(), None)

    def session_given_up(self, session: Session) -> None:
        """Nobody waits for the answers to *session* any more: the durable mark may pass them."""
        for decision in self.untold_of.pop(session, ()):
            self.untold.pop(decision.ttid, None)
        self.advance_durable()

    # ------------------------------------------------------------------------------------------ readers

    def on_ask(self, storage: NodeId, packet: Ask) -> None:
        """A reader waits for undecided transactions: what is still undecided after this gets a tid above `last`."""
        if self.is_running:
            self.send(storage, Told(self.last, packet.ttids))

    # ------------------------------------------------------------------------------------------ abort

    def on_abort(self, client: NodeId, packet: Abort) -> None:
        """A client wants to be sure that it is aborted."""
        if not self.is_running or client not in self.clients or not self.are_legal(client, packet.ttid, packet.parts):
            return
        decision = self.decided.get(packet.ttid) or self.settled_decision(packet.ttid)
        if decision is not None:
            self.repeat_finished(client, decision)
        elif packet.ttid not in self.sealing:  # (a client does not abort what it has asked to finish)
            self.drop_waiting(packet.ttid)
            self.begin_abort(packet.ttid, packet.attempt, packet.parts, client, "")

    def begin_abort(self, ttid: Ttid, attempt: int, parts: tuple[Partition, ...], client: NodeId, text: str) -> None:
        """Abort every attempt up to *attempt*; tell *client* when it is durable on one partition's readable cells."""
        if not ttid.is_storable:
            return  # a storage that tells of such a vote has made it up
        parts = tuple(p for p in parts if p < self.pt.partitions)
        former = self.aborting.get(ttid)
        if former is not None and client == NO_NODE:
            client, text = former.client, former.text
        self.aborted[ttid] = max(attempt, self.aborted.get(ttid, 0))
        self.aborting[ttid] = Aborting(attempt, parts, set(), client, text)
        for storage in sorted({n for p in parts for n in self.pt.written(p)} & self.obeying):
            self.send(storage, SAbort(ttid, attempt))
        self.check_abort(ttid)

    def on_abort_ok(self, storage: NodeId, packet: AbortOk) -> None:
        """The abort is durable there."""
        aborting = self.aborting.get(packet.ttid)
        if aborting is not None and packet.attempt >= aborting.attempt:
            aborting.done.add(storage)
            self.check_abort(packet.ttid)

    def is_abort_durable(self, aborting: Aborting) -> bool:
        """Whether no recovery can find it fully voted: every readable cell of one of its partitions has the abort."""
        return not aborting.parts or any(self.readable_in(p) <= aborting.done for p in aborting.parts)

    def check_abort(self, ttid: Ttid) -> None:
        """Tell whom it concerns, if that abort is durable now."""
        aborting = self.aborting[ttid]
        if not self.is_abort_durable(aborting):
            return
        del self.aborting[ttid]
        if aborting.client in self.clients:
            self.send(aborting.client, Aborted(ttid, aborting.attempt, aborting.text))
        self.forget_aborts(ttid)
        for session in sorted(self.going):
            self.went(session)
        self.rewelcome()

    def forget_aborts(self, ttid: Ttid) -> None:
        """Remember aborts within bounds: those that a living client may still want to finish are never forgotten."""
        self.abort_forgettable.append(ttid)
        for _ in range(len(self.abort_forgettable) - self.settings.remembered_max):
            old = self.abort_forgettable.popleft()
            if old in self.aborting or (old.session in self.client_of or old.session in self.lost):
                self.abort_forgettable.append(old)
            else:
                self.aborted.pop(old, None)

    def on_overdue(self, storage: NodeId, packet: Overdue) -> None:
        """Others have waited too long for what these votes hold: abort them."""
        if not self.is_running or storage not in self.obeying:
            return
        for ttid, attempt, parts in packet.voted:
            undecided = ttid not in self.decided and ttid not in self.sealing
            if undecided and self.aborted.get(ttid, 0) < attempt and not self.is_waiting(ttid):
                self.log(INFO, f"{ttid} attempt {attempt} is overdue: aborted")
                self.begin_abort(ttid, attempt, parts, NO_NODE, "")
