"""Votes at their lead and on the other written cells; withdrawing them. Pure.

A vote is answered `Voted` when it is durable on every cell that is written in the newest table or in the last stable
one. Until then it is a part of a `Ballot`: what one Vote message asked of this lead.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from neo_common.ids import MAX_TID, NO_NODE, NO_TID, NodeId, Oid, Partition, Seconds, Tid, Ttid
from neo_common.model.partition_table import PartitionTable
from neo_common.states import CellState
from neo_common.wire.schema import (
    INLINE_BYTES,
    Conflict,
    Contended,
    ErrorCode,
    Fwd,
    FwdFail,
    FwdOk,
    FwdUnvote,
    FwdUnvoteOk,
    Lock,
    LockMode,
    Record,
    Refused,
    Unvote,
    UnvoteOk,
    Vote,
    Voted,
    Work,
    Write,
)
from neo_storage.core.ahead import Ahead, check_writes
from neo_storage.core.ground import Ground, lead, written
from neo_storage.core.locks import Locks, Want
from neo_storage.core.log_records import LogCommit, LogUnvote, LogVote
from neo_storage.core.tentative import ENTRY_BYTES

READABLE = (CellState.UP_TO_DATE, CellState.FEEDING)


@dataclass(slots=True)
class Ballot:
    """One Vote message under way: which cells have still to make which partition durable."""

    client: NodeId
    ttid: Ttid
    attempt: int
    waiting: dict[Partition, set[NodeId]] = field(default_factory=dict)
    done: list[Partition] = field(default_factory=list)

    def __repr__(self) -> str:
        waiting = {p: sorted(nodes) for p, nodes in sorted(self.waiting.items())}
        return f"<Ballot {self.ttid} attempt={self.attempt} waiting={waiting} done={sorted(self.done)}>"


@dataclass(slots=True)
class Withdrawal:
    """An Unvote under way in one partition: which cells have still to forget the record."""

    client: NodeId
    waiting: set[NodeId]


class Votes:
    """Votes in progress and their withdrawal."""

    def __init__(self, ground: Ground, locks: Locks, ahead: Ahead) -> None:
        self._ground = ground
        self._locks = locks
        self._ahead = ahead
        self.ballots: dict[Ttid, dict[Partition, Ballot]] = {}
        self.withdrawals: dict[tuple[Ttid, int, Partition], Withdrawal] = {}
        self._overtaking: dict[tuple[Ttid, int], Seconds] = {}
        """Since when votes wait for a Commit that they have overtaken."""
        self.accepts = True
        """False when the disk is full."""

    # ---- the vote, at its lead

    def on_vote(self, client: NodeId, m: Vote) -> None:
        """Vote for all partitions of *m* or for none."""
        parts = tuple(w.partition for w in m.work)
        refusal = self.refusal(m)
        if refusal is not None:
            self._ground.send(client, Refused(m.ttid, m.attempt, parts, *refusal))
            return
        tentative = self._ground.image.tentative
        complete = [(w, (*tentative.writes(m.ttid, w.partition, w.tentative), *w.writes)) for w in m.work]
        problem = self._ahead.problem(m.ttid) or self.problem(m, complete)
        if problem is not None:
            self._ground.send(client, Refused(m.ttid, m.attempt, parts, *problem))
            return
        if not self._is_whole(m, complete):
            self._ahead.gap(client, m.ttid)
            return
        wants: list[Want] = [(w.oid, LockMode.X) for _, writes in complete for w in writes]
        wants += [(r.oid, LockMode.S) for w in m.work for r in w.reads]
        base = self.base_of(m)
        if self.is_contended(m.ttid, wants, base.values()):
            self._ground.send(client, Contended(m.ttid, m.attempt, parts))
            return
        checks = [(w.oid, w.base) for _, writes in complete for w in writes]
        checks += [(r.oid, r.serial) for w in m.work for r in w.reads]
        stale = self._ground.stale(checks, self._coming(base))
        if stale:
            if m.ttid in self._locks.held:
                self._locks.release(m.ttid)
            self._ground.send(client, Conflict(m.ttid, m.attempt, parts, stale))
            return
        self._locks.held.pop(m.ttid, None)
        self._locks.take(m.ttid, wants)
        records = tuple([self.record(m, w) for w in m.work])
        self.put(Ballot(client, m.ttid, m.attempt), records)
        self.pass_on(records)
        self._locks.wake()

    def refusal(self, m: Vote) -> tuple[ErrorCode, str] | None:
        """Return why this node cannot take that vote now, though another, or a later attempt, may be taken."""
        if m.ttid.session in self._ground.gone:
            return ErrorCode.NOT_READY, "the session was given up"
        if self._ground.image.is_superseded(m.ttid, m.attempt):
            return ErrorCode.NOT_READY, "that attempt is decided already"
        if not all(self._ground.leads(w.partition) for w in m.work):
            return ErrorCode.NOT_READY, "not the lead of all these partitions"
        return None

    def problem(self, m: Vote, complete: list[tuple[Work, tuple[Write, ...]]]) -> tuple[ErrorCode, str] | None:
        """Return why that transaction can never be voted, as its data stands."""
        if not self.accepts:
            return ErrorCode.NO_SPACE, "the disk of the storage is full"
        settings, image = self._ground.settings, self._ground.image
        if max(m.known, m.given_tid) > MAX_TID:
            return ErrorCode.ILLEGAL, f"there is no tid above {MAX_TID:#x}"
        for w, writes in complete:
            if w.partition not in m.parts:
                return ErrorCode.ILLEGAL, f"partition {w.partition} is not among those touched"
            if len({write.oid for write in writes}) != len(writes):
                return ErrorCode.ILLEGAL, f"an object is written twice in partition {w.partition}"
            if w.reads and any(self._ground.partition(r.oid) != w.partition for r in w.reads):
                return ErrorCode.PARTITION, f"an object that was read is not of partition {w.partition}"
            problem = check_writes(self._ground, w.partition, w.writes) or self._check_pieces(m.ttid, writes)
            if problem is not None:
                return problem
            size = sum([write.data.size for write in writes])
            if size > settings.transaction_bytes:
                text = f"{size} bytes in partition {w.partition}, the limit is {settings.transaction_bytes}"
                return ErrorCode.TOO_LARGE, text
        inline = sum(ENTRY_BYTES + len(x.data.value) for w in m.work for x in w.writes)
        inline += ENTRY_BYTES * sum(len(w.reads) for w in m.work)
        if image.undecided_bytes + inline > settings.undecided_bytes:
            return ErrorCode.NO_SPACE, f"votes without a decision would take more than {settings.undecided_bytes} bytes"
        return None

    def base_of(self, m: Vote) -> dict[Tid, Ttid]:
        """Return the transactions of an import on which *m* rests, that are voted here and still to be committed.

        By the tids that they will have. They are fully voted, and *m* is finished after them or never: so *m* may have
        the locks that they have, and replace what they will have written (docs/commit-protocol.md, "Settled").
        """
        base: dict[Tid, Ttid] = {}
        if m.given_tid:
            for ttid, parts in self._ground.image.voted.items():
                tid = next(iter(parts.values())).record.given_tid
                if NO_TID < tid <= m.known and ttid.session == m.ttid.session and ttid != m.ttid:
                    base[tid] = ttid
        return base

    def _coming(self, base: dict[Tid, Ttid]) -> dict[Oid, Tid]:
        """Return the serials that objects will have when *base* is committed."""
        voted = self._ground.image.voted
        return {w.oid: tid for tid in sorted(base) for v in voted[base[tid]].values() for w in v.record.writes}

    def is_contended(self, ttid: Ttid, wants: list[Want], base: Collection[Ttid] = ()) -> bool:
        """Return whether these locks cannot be had without waiting for others than *base*, or passing a waiter."""
        return self._locks.is_blocked(ttid, wants, base) or self._locks.passes_waiters(ttid, wants)

    def has_overtaken(self, m: Vote) -> bool:
        """Return whether *m* must wait for a Commit that is on its way here.

        The client knows a tid that this node does not, and another transaction's vote has a lock that *m* wants: most
        likely that is the one, and by Contended the client would lose a round trip, and a queue, for nothing. The order
        of a client's packets stays, as whatever it sends after *m* waits too; and for no longer than `overtaken_s`.
        """
        now, key = self._ground.now, (m.ttid, m.attempt)
        oldest = now - self._ground.settings.overtaken_s
        if m.known > self._ground.seen and self._is_any_locked(m) and self._overtaking.setdefault(key, now) > oldest:
            return True
        # With it go those whose client was lost while they waited; others, as old, are looked at next.
        oldest -= self._ground.settings.overtaken_s
        self._overtaking = {k: since for k, since in self._overtaking.items() if k != key and since > oldest}
        return False

    def _is_any_locked(self, m: Vote) -> bool:
        wants: list[Want] = [(w.oid, LockMode.X) for work in m.work for w in work.writes]
        wants += [(r.oid, LockMode.S) for work in m.work for r in work.reads]
        return self._locks.is_blocked(m.ttid, wants, self.base_of(m).values())

    def record(self, m: Vote, w: Work) -> Record:
        """Return the record of one partition of *m*. Its tid will be above what client and lead know."""
        return Record(
            ttid=m.ttid,
            attempt=m.attempt,
            partition=w.partition,
            parts=m.parts,
            metadata=m.metadata,
            tentative=w.tentative,
            writes=w.writes,
            reads=w.reads,
            mode=m.mode,
            floor=max(m.known, self._ground.seen),
            given_tid=m.given_tid,
        )

    def _is_whole(self, m: Vote, complete: list[tuple[Work, tuple[Write, ...]]]) -> bool:
        tentative = self._ground.image.tentative
        for w, writes in complete:
            if len(writes) != w.tentative + len(w.writes):
                return False
            if w.tentative and not tentative.complete(self.record(m, w), 0).whole:
                return False  # a write came, and the pieces of its value did not
            for write in w.writes:
                if write.data.size and not write.data.value and not tentative.value(m.ttid, write.oid)[0]:
                    return False
        return True

    def _check_pieces(self, ttid: Ttid, writes: tuple[Write, ...]) -> tuple[ErrorCode, str] | None:
        for write in writes:
            data = write.data
            if data.value or not data.size:
                continue
            size, digest = self._ground.image.tentative.value(ttid, write.oid)
            if size:
                if size != data.size:
                    return ErrorCode.CORRUPTED, f"the pieces of oid {write.oid:#x} have {size} bytes, not {data.size}"
                if digest != data.checksum:
                    return ErrorCode.CORRUPTED, f"the checksum of oid {write.oid:#x} does not hold"
        return None

    def put(self, ballot: Ballot, records: tuple[Record, ...]) -> None:
        """Log a vote, and wait for all whom it must reach."""
        ground, ttid = self._ground, ballot.ttid
        parts = [r.partition for r in records]
        for partition in parts:
            self.drop(ttid, partition)
            ballot.waiting[partition] = self.nodes_to_await(partition)
            self.ballots.setdefault(ttid, {})[partition] = ballot
        ground.write(LogVote(records), lambda: self.acked(ttid, parts, ballot.attempt, ground.me))

    def pass_on(self, records: Sequence[Record]) -> None:
        """Send the records of one vote to the other written cells, as few packets as may be."""
        ground, table = self._ground, self._ground.image.table
        for_node: dict[NodeId, list[Record]] = {}
        for record in records:
            for node in written(table, record.partition):
                if node == ground.me:
                    continue
                if node in ground.peers:
                    self._ahead.bring(node, ground.image.voted[record.ttid][record.partition])
                    for_node.setdefault(node, []).append(record)
                elif not self.is_expected(record.partition, node):
                    ground.send(ground.master, FwdFail(table.version, node))
        for node, lot in for_node.items():
            for fitting in _lots(lot):
                ground.send(node, Fwd(ground.image.epoch, table.version, fitting))
        for record in records:
            self._ahead.voted(record.ttid, record.partition)

    def is_expected(self, partition: Partition, node: NodeId) -> bool:
        """Return whether *node* will be here soon: then Sync brings it the vote, and stands for FwdOk.

        A cell that joins gets no Sync by connecting: its join has failed.
        """
        ground = self._ground
        return ground.now < ground.expected.get(node, ground.now) and ground.state(partition, node) in READABLE

    def expect(self, old: PartitionTable | None) -> None:
        """Give those time to connect with whom this storage shares a partition now, and did not under *old*."""
        ground, table = self._ground, self._ground.image.table
        partners = ground.partners(table)
        former = set() if old is None else ground.partners(old)
        until = Seconds(ground.now + ground.settings.first_dial_s)
        for node in sorted(partners - former - ground.peers):
            ground.expected[node] = until
        for node in sorted(set(ground.expected) - partners):
            del ground.expected[node]

    def end_patience(self) -> None:
        """Tell the primary of those who have not come although votes wait for them."""
        ground = self._ground
        late = sorted(n for n, until in ground.expected.items() if ground.now >= until)
        for node in late:
            del ground.expected[node]
        for node in self.missing_peers():
            if node in late:
                ground.send(ground.master, FwdFail(ground.image.table.version, node))

    def nodes_to_await(self, partition: Partition) -> set[NodeId]:
        """Return the cells that must have a vote durable: written in the newest table or in the last stable one."""
        ground = self._ground
        nodes = {ground.me, *written(ground.image.table, partition)}
        if ground.stable is not None:
            nodes.update(written(ground.stable, partition))
        else:
            nodes.add(NO_NODE)  # until a table is said to be stable: `relax` takes it away
        return nodes

    def acked(self, ttid: Ttid, parts: Iterable[Partition], attempt: int, node: NodeId) -> None:
        """*node* has that vote durably in these partitions, or need not have it."""
        for partition in parts:
            ballot = self.ballots.get(ttid, {}).get(partition)
            if ballot is None or ballot.attempt != attempt:
                continue
            waiting = ballot.waiting[partition]
            waiting.discard(node)
            if not waiting:
                ballot.done.append(partition)
                self.drop(ttid, partition)
                if not ballot.waiting:
                    self._ground.send(ballot.client, Voted(ttid, attempt, tuple(sorted(ballot.done))))

    # ---- the vote, on another cell

    def on_fwd(self, peer: NodeId, records: Sequence[Record]) -> None:
        """Take what the lead passes on, and say so when it is durable."""
        taken: dict[tuple[Ttid, int], list[Partition]] = {}
        for record in records:
            if self._take(peer, record):
                taken.setdefault((record.ttid, record.attempt), []).append(record.partition)
        for (ttid, attempt), parts in taken.items():
            answer = FwdOk(ttid, attempt, tuple(parts))
            self._ground.when_durable(partial(self._ground.send, peer, answer))

    def _take(self, peer: NodeId, record: Record) -> bool:
        """Take one record; return whether its lead need not wait for it, once all that was written here is durable."""
        ground, ttid, attempt = self._ground, record.ttid, record.attempt
        decision = ground.image.decisions.get(ttid)
        mine = ground.image.record(ttid, record.partition)
        if decision is None and self.is_superseded(ttid, attempt):
            self._ahead.drop_of(peer, ttid, record.partition)
            return True
        if decision is None and mine is not None and mine.attempt > attempt:
            self._ahead.drop_of(peer, ttid, record.partition)
            return False
        if not ground.image.tentative.complete(record, 0).whole:
            self._ahead.gap(peer, ttid)
            return False
        self.drop_rivals(record)
        ground.write(LogVote((record,)))
        self._ahead.voted(ttid, record.partition)
        if decision is not None:  # a cell that joins may hear the decision first
            ground.write(LogCommit(*decision, NO_TID))
        return True

    def drop_rivals(self, record: Record) -> None:
        """Forget the records that want, from the same revision, what the lead has now given to *record*.

        The lead has freed their locks, so they were withdrawn or aborted. This cell may not have heard of that, and
        will not if it is the only one left after a loss: recovery would then commit both.
        """
        image, wanted = self._ground.image, {(w.oid, w.base) for w in record.writes}
        wanted.update((r.oid, r.serial) for r in record.reads)
        rivals = {
            ttid: voted.record.attempt
            for oid, base in wanted
            for ttid, voted in image.writers.get(oid, {}).items()
            if ttid != record.ttid and any((w.oid, w.base) == (oid, base) for w in voted.record.writes)
        }
        for ttid, attempt in sorted(rivals.items()):
            self._ground.write(LogUnvote(ttid, attempt, record.partition))

    def is_superseded(self, ttid: Ttid, attempt: int) -> bool:
        """Return whether a Fwd or Sync of that attempt was overtaken by its end."""
        return self._ground.image.is_superseded(ttid, attempt)

    def on_fwd_ok(self, peer: NodeId, m: FwdOk) -> None:
        """A cell has them."""
        self.acked(m.ttid, m.parts, m.attempt, peer)

    # ---- withdrawal

    def on_unvote(self, client: NodeId, m: Unvote) -> None:
        """Forget that attempt and those before it; say so when no cell of the row has it any more."""
        ground, image = self._ground, self._ground.image
        self._locks.forget_waiters(m.ttid, m.attempt)
        self.withdraw(m.ttid, m.attempt)
        for p in m.parts:
            if ground.leads(p):
                nodes = self.nodes_to_forget(p)
                self.withdrawals[m.ttid, m.attempt, p] = Withdrawal(client, nodes)
                for node in sorted(nodes & ground.peers):
                    ground.send(node, FwdUnvote(image.epoch, image.table.version, m.ttid, m.attempt, p))
                self._forgotten_when_durable(m.ttid, m.attempt, p)
        held = self._locks.held.get(m.ttid)
        if held is not None and held.attempt <= m.attempt:
            del self._locks.held[m.ttid]
        self._locks.release_unless_held(m.ttid)

    def nodes_to_forget(self, partition: Partition) -> set[NodeId]:
        """Return the cells that must have forgotten a record before its Unvote is confirmed."""
        return {self._ground.me, *written(self._ground.image.table, partition)}

    def _forgotten_when_durable(self, ttid: Ttid, attempt: int, partition: Partition) -> None:
        me = self._ground.me
        self._ground.when_durable(lambda: self.forgotten(ttid, attempt, partition, me))

    def withdraw(self, ttid: Ttid, attempt: int) -> None:
        """Forget the votes of *ttid*, up to *attempt*, in the partitions led, and what is under way of them."""
        image = self._ground.image
        for partition in sorted(image.voted.get(ttid, {})):
            record = image.record(ttid, partition)
            if record is not None and self._ground.leads(partition) and self.is_withdrawn(record, attempt):
                self._ground.write(LogUnvote(ttid, record.attempt, partition))
                self.drop(ttid, partition)
                self._locks.release_unless_held(ttid)

    def is_withdrawn(self, record: Record, attempt: int) -> bool:
        """Return whether the withdrawal of *attempt* concerns *record*."""
        return record.attempt <= attempt

    def drop(self, ttid: Ttid, partition: Partition) -> None:
        """Forget, without an answer, that a client waits for that vote."""
        ballot = self.ballots.get(ttid, {}).pop(partition, None)
        if ballot is not None:
            del ballot.waiting[partition]
            if not self.ballots[ttid]:
                del self.ballots[ttid]

    def on_fwd_unvote(self, peer: NodeId, m: FwdUnvote) -> None:
        """Forget what the lead passes on."""
        ground = self._ground
        if lead(ground.image.table, m.partition) == peer:
            answer = FwdUnvoteOk(m.ttid, m.attempt, m.partition)
            ground.write(LogUnvote(m.ttid, m.attempt, m.partition), lambda: ground.send(peer, answer))

    def on_fwd_unvote_ok(self, peer: NodeId, m: FwdUnvoteOk) -> None:
        """A cell has forgotten it."""
        self.forgotten(m.ttid, m.attempt, m.partition, peer)

    def forgotten(self, ttid: Ttid, attempt: int, partition: Partition, node: NodeId) -> None:
        """*node* has forgotten it durably."""
        withdrawal = self.withdrawals.get((ttid, attempt, partition))
        if withdrawal is None:
            return
        withdrawal.waiting.discard(node)
        if not withdrawal.waiting and self._ground.leads(partition):
            del self.withdrawals[ttid, attempt, partition]
            self._ground.send(withdrawal.client, UnvoteOk(ttid, attempt, (partition,)))

    # ---- the ordered path

    def on_lock(self, client: NodeId, m: Lock) -> None:
        """Wait in order for these locks."""
        ground = self._ground
        parts = self._locks.parts(m)
        text = ""
        if m.ttid.session in ground.gone:
            text = "the session was given up"
        elif not all(ground.leads(p) for p in parts):
            text = "not the lead of all these objects"
        elif len(self._locks.waiters) >= ground.settings.waiters:
            text = "too many transactions wait for locks here"
        if text:
            ground.send(client, Refused(m.ttid, m.attempt, parts, ErrorCode.NOT_READY, text))
            return
        self.withdraw(m.ttid, m.attempt - 1)
        self._locks.wait(client, m)

    # ---- what ends votes in progress

    def relax(self) -> None:
        """A table is stable: nobody waits any more for the cells that it does not write."""
        for ttid in sorted(self.ballots):
            for partition, ballot in sorted(self.ballots.get(ttid, {}).items()):
                for node in sorted(ballot.waiting.get(partition, ())):
                    if node != self._ground.me and node not in written(self._ground.image.table, partition):
                        self.acked(ttid, (partition,), ballot.attempt, node)

    def refuse(self, ttid: Ttid, attempt: int | None, text: str) -> None:
        """Answer Refused for what is under way of *ttid*, up to *attempt* or all."""
        by_ballot: dict[int, tuple[Ballot, list[Partition]]] = {}
        for partition, ballot in sorted(self.ballots.get(ttid, {}).items()):
            if attempt is None or ballot.attempt <= attempt:
                by_ballot.setdefault(id(ballot), (ballot, []))[1].append(partition)
        for ballot, parts in by_ballot.values():
            self._refuse(ballot, parts, text)

    def _refuse(self, ballot: Ballot, parts: list[Partition], text: str) -> None:
        for partition in parts:
            self.drop(ballot.ttid, partition)
        self._ground.send(ballot.client, Refused(ballot.ttid, ballot.attempt, tuple(parts), ErrorCode.NOT_READY, text))

    def leave(self, partitions: frozenset[Partition]) -> None:
        """This node no longer leads *partitions*."""
        for key in [k for k in self.withdrawals if k[2] in partitions]:
            del self.withdrawals[key]
        for ttid in sorted(self.ballots):
            parts = [p for p in sorted(self.ballots[ttid]) if p in partitions]
            while parts:
                ballot = self.ballots[ttid][parts[0]]
                same = [p for p in parts if self.ballots[ttid][p] is ballot]
                parts = [p for p in parts if p not in same]
                self._refuse(ballot, same, "no longer the lead")

    def forget(self, ttid: Ttid) -> None:
        """It is committed: nobody waits for its votes."""
        self.ballots.pop(ttid, None)

    def missing_peers(self) -> list[NodeId]:
        """Return whom votes in progress wait for that is not connected."""
        nodes = {n for parts in self.ballots.values() for p, b in parts.items() for n in b.waiting[p]}
        here = {self._ground.me, NO_NODE, *self._ground.peers, *self._ground.expected}
        return sorted(nodes - here)


def _lots(records: Sequence[Record]) -> Iterator[tuple[Record, ...]]:
    """Yield *records* in lots that fit into a packet each: every one repeats what the Vote has said once."""
    lot: list[Record] = []
    room = INLINE_BYTES
    for record in records:
        size = sum(map(len, record.metadata)) + 4 * len(record.parts) + 24 * len(record.reads)
        size += sum(ENTRY_BYTES + len(write.data.value) for write in record.writes)
        if lot and size > room:
            yield tuple(lot)
            lot, room = [], INLINE_BYTES
        lot.append(record)
        room -= size
    if lot:
        yield tuple(lot)
