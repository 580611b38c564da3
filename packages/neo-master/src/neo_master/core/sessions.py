"""Clients: who is welcome, under which session, what became of their transactions; who is given up. Pure.

A session is unique over all reigns. A client whose connection is lost may come back within the grace; then its session
is given up: the storages refuse it, drop its locks and tell what it had voted, which is aborted. The client is told
that something is aborted only when every readable node has told and the aborts are durable.
"""

from neo_common.ids import MAX_TID, NO_NODE, NO_SESSION, Epoch, NodeId, Partition, Seconds, Session, Tid
from neo_common.states import NodeState
from neo_common.wire.schema import (
    AskFate,
    CHello,
    Decision,
    Fate,
    FateKind,
    Gone,
    Leave,
    ToldFate,
    Underway,
    VotedBy,
    Welcome,
)
from neo_master.core.base import MasterBase
from neo_master.core.effects import INFO
from neo_master.core.underway import Seeking


class Sessions(MasterBase):
    """Welcome clients, give them up."""

    # ------------------------------------------------------------------------------------------ hello

    def on_client_hello(self, client: NodeId, packet: CHello) -> None:
        """A client is there: its word counts in recovery; else it is welcome."""
        self.seen_epoch = max(self.seen_epoch, packet.promised)
        if packet.promised > self.epoch:
            self.meet_higher_promise(packet.promised)
        if client not in self.connected:
            return  # this master has stepped down
        ttids = [*(u.ttid for u in packet.underway), *(d.ttid for d in packet.known)]
        tids = [packet.last, *(d.tid for d in packet.known)]
        if packet.session > MAX_TID or not all(t.is_storable for t in ttids) or max(tids) > MAX_TID:
            self.cut(client, "it names what cannot be: an id with the highest bit set")
            return
        if not self.is_running:
            self.hellos[client] = packet
            self.try_start()
        else:
            self.welcome(client, packet)

    def meet_higher_promise(self, promised: Epoch) -> None:
        """A client has promised to hear no epoch below one that is above ours: another primary was, or is, there."""
        if self.is_running or self.start_need is not None:
            self.step_down(f"a client has met epoch {promised >> 24}")
        else:
            self.raise_epoch()
            self.tell_masters()
            self.fence_all()

    def welcome(self, client: NodeId, hello: CHello) -> None:
        """Answer a CHello, at once or when what it had under way is durably aborted."""
        if self.must_wait(hello):
            self.hellos[client] = hello
            return
        doubtful = [u for u in hello.underway if self.is_doubtful(u, hello)]
        if doubtful:
            self.hellos[client] = hello
            for u in doubtful:
                self.seek(u, hello.last)
            return
        self.hellos.pop(client, None)
        self.absent.difference_update(u.ttid for u in hello.underway)
        older = self.client_of.get(hello.session)
        if older is not None and older != client:
            self.cut(older, "its session has come over another connection")
        fates = tuple(self.fate(u, hello) for u in hello.underway)
        session = self.session_for(hello)
        self.lost.pop(session, None)
        self.clients[client] = session
        self.client_of[session] = client
        (self.read_only.add if hello.read_only else self.read_only.discard)(client)
        self.change_node(client, NodeState.RUNNING)
        self.send(
            client,
            Welcome(
                self.epoch,
                session,
                self.cluster_id,
                self.table_for(client, is_whole=True),
                self.nodes_for_clients(),
                self.last,
                self.durable,
                fates,
                self.must_reset(hello),
            ),
        )

    def must_wait(self, hello: CHello) -> bool:
        """Whether something of that client is being aborted and not durably so, or sealed, or looked for."""
        if hello.session in self.going:
            return True
        unsettled = (self.aborting, self.seeking)
        # (What is sealed for a session that lives is UNCHANGED: its Finish is answered later.)
        return any(
            any(u.ttid in which for which in unsettled) or (u.ttid in self.sealing and self.is_gone(u.ttid.session))
            for u in hello.underway
        )

    def session_for(self, hello: CHello) -> Session:
        """Return the client's session, or a new one when it has none or it was given up."""
        if hello.session != NO_SESSION and not self.is_gone(hello.session):
            return hello.session
        self.session_count += 1
        return Session((self.epoch >> 24) << 32 | self.session_count)

    def is_gone(self, session: Session) -> bool:
        """Whether it was given up: remembered so, or of this reign and neither connected nor in its grace."""
        if session in self.gone:
            return True
        is_ours = session >> 32 == self.epoch >> 24
        return is_ours and session not in self.client_of and session not in self.lost

    def fate(self, underway: Underway, hello: CHello) -> Fate:
        """Return what became of a transaction that the client has under way."""
        ttid, attempt, _, _ = underway
        decision = self.decided.get(ttid) or self.settled_decision(ttid)
        if decision is not None:
            return Fate(ttid, decision.attempt, FateKind.COMMITTED, decision.tid)
        if self.aborted.get(ttid, 0) >= attempt or ttid.session in self.gone:
            return Fate(ttid, attempt, FateKind.ABORTED, Tid(0))
        if (ttid, attempt) in self.pending:
            return Fate(ttid, attempt, FateKind.VOTED, Tid(0))
        if hello.epoch == self.epoch and not self.is_gone(ttid.session):
            return Fate(ttid, attempt, FateKind.UNCHANGED, Tid(0))
        return Fate(ttid, attempt, FateKind.ABORTED, Tid(0))

    def must_reset(self, hello: CHello) -> bool:
        """Whether a tid that the client knows is, or may be, not that of the cluster.

        What is in nobody's decisions any more is durable with the tid that the last reign gave it: a client of that
        reign, or of this one, knows that tid. One from an earlier reign may have missed a recovery that changed it.
        """
        is_of_last_reign = hello.epoch in (self.epoch, self.before)
        for ttid, _, tid, _ in hello.known:
            decision = self.decided.get(ttid) or self.settled_decision(ttid)
            if decision.tid != tid if decision is not None else not is_of_last_reign:
                return True
        return False

    # ------------------------------------------------------------------------------------------ what nobody remembers

    def is_doubtful(self, underway: Underway, hello: CHello) -> bool:
        """Whether the client would be told ABORTED although it may have been committed, and that was forgotten.

        The durable mark passes the commits of a client that was given up; then storages forget the decision, and the
        next primary never hears of it. Only history knows.
        """
        parts = [p for p in underway.parts if p < self.pt.partitions]
        is_aborted = self.fate(underway, hello).kind == FateKind.ABORTED
        return bool(parts) and is_aborted and underway.ttid not in self.absent

    def seek(self, underway: Underway, above: Tid) -> None:
        """Look for it in the history of all its partitions: one that it has only read knows nothing of it."""
        ttid, attempt, _, parts = underway
        if ttid not in self.seeking:
            asked = {p: NO_NODE for p in parts if p < self.pt.partitions}
            self.seeking[ttid] = Seeking(attempt, above, tuple(asked), asked)
            self.seek_on()

    def seek_on(self) -> None:
        """Ask a readable cell of every partition for which nobody is asked; it must have adopted what was decided."""
        for ttid in sorted(self.seeking):
            seeking = self.seeking[ttid]
            questions: dict[NodeId, list[Partition]] = {}
            for p in sorted(seeking.asked):
                node = next((n for n in self.pt.readable(p) if n in self.adopted), NO_NODE)
                if seeking.asked[p] == NO_NODE and node != NO_NODE:
                    seeking.asked[p] = node
                    questions.setdefault(node, []).append(p)
            for node in sorted(questions):
                self.send(node, AskFate(ttid, tuple(questions[node]), seeking.above))

    def seek_elsewhere(self, storage: NodeId) -> None:
        """What was asked of a storage that is lost must be asked of others."""
        for seeking in self.seeking.values():
            for p in [p for p, node in seeking.asked.items() if node == storage]:
                seeking.asked[p] = NO_NODE
        self.seek_on()

    def on_told_fate(self, storage: NodeId, packet: ToldFate) -> None:
        """A storage has looked."""
        seeking = self.seeking.get(packet.ttid)
        if seeking is None or not self.is_running:
            return
        if packet.tid:
            del self.seeking[packet.ttid]
            decision = Decision(packet.ttid, seeking.attempt, packet.tid, seeking.parts)
            self.decided[packet.ttid] = decision
            self.keep_answer(decision)
        else:
            for p in [p for p in packet.parts if seeking.asked.get(p) == storage]:
                if storage in self.pt.readable(p):
                    del seeking.asked[p]
                else:  # its cell left the table, and may have been half erased when it looked
                    seeking.asked[p] = NO_NODE
            if seeking.asked:
                self.seek_on()
                return
            del self.seeking[packet.ttid]
            if any(u.ttid == packet.ttid for hello in self.hellos.values() for u in hello.underway):
                self.absent.add(packet.ttid)
        self.rewelcome()

    # ------------------------------------------------------------------------------------------ loss

    def on_leave(self, client: NodeId, packet: Leave) -> None:
        """It closes: nobody will come back under its session."""
        session = self.clients.pop(client, None)
        if session is not None and self.client_of.get(session) == client:
            del self.client_of[session]
            self.give_up(session)

    def client_lost(self, client: NodeId) -> None:
        """Its connection is gone: the grace begins."""
        self.hellos.pop(client, None)
        self.answers.pop(client, None)
        self.read_only.discard(client)
        session = self.clients.pop(client, None)
        if session is not None and self.client_of.get(session) == client:
            del self.client_of[session]
            self.lose_session(session)

    def lose_session(self, session: Session) -> None:
        """Begin the grace of a session without connection."""
        self.lost[session] = Seconds(self.now.monotonic + self.settings.grace_s)

    def end_graces(self) -> None:
        """Give up the sessions whose grace is over."""
        for session in sorted(s for s, until in self.lost.items() if self.now.monotonic >= until):
            self.give_up(session)

    def give_up(self, session: Session) -> None:
        """A client has not come back in time."""
        self.lost.pop(session, None)
        self.gone[session] = None
        self.log(INFO, f"session {session:x} is given up")
        while len(self.gone) > self.settings.remembered_max:
            del self.gone[next(iter(self.gone))]
        self.going[session] = set()
        for storage in sorted(self.obeying):
            self.send(storage, Gone(session))
        self.session_given_up(session)
        if self.importer == session:
            self.end_import("its client has not come back")
        self.went(session)

    def on_voted_by(self, storage: NodeId, packet: VotedBy) -> None:
        """The votes of a session given up: each is aborted."""
        if not self.is_running or storage not in self.obeying:
            return
        for ttid, attempt, parts in packet.voted:
            is_decided = ttid in self.decided or ttid in self.sealing
            if not is_decided and self.aborted.get(ttid, 0) < attempt:
                self.begin_abort(ttid, attempt, parts, NO_NODE, "")
        told = self.going.get(packet.session)
        if told is not None:
            told.add(storage)
            self.went(packet.session)

    def who_must_tell(self) -> frozenset[NodeId]:
        """Return who must have told the votes of a session given up: *every* readable node, there or not."""
        return self.readable_nodes()

    def went(self, session: Session) -> None:
        """See whether all has been heard of a session given up, and is durably aborted."""
        told = self.going.get(session)
        if told is not None and self.who_must_tell() <= told and all(t.session != session for t in self.aborting):
            del self.going[session]
        self.rewelcome()

    def rewelcome(self) -> None:
        """Welcome those clients whose aborts are durable now."""
        if self.is_running:
            for client in sorted(self.hellos):
                hello = self.hellos.get(client)
                if hello is not None and not self.must_wait(hello):
                    self.welcome(client, hello)
