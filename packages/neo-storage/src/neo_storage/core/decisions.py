"""What the primary has decided, done: commits, aborts, seals, sessions given up. Pure."""

from typing import Final

from neo_common.ids import NO_TID, NodeId, Partition, Seconds, Tid, Ttid
from neo_common.wire.schema import (
    AbortOk,
    Commit,
    Gone,
    Mode,
    Overdue,
    SAbort,
    Seal,
    SealOk,
    VotedBy,
    VotedId,
)
from neo_storage.core.ahead import Ahead
from neo_storage.core.events import Exit
from neo_storage.core.ground import Ground, Then
from neo_storage.core.locks import Locks
from neo_storage.core.log_records import LogAbort, LogCommit, LogSeal
from neo_storage.core.reading import Reading
from neo_storage.core.votes import Votes

ERROR: Final = 40
"""`logging.ERROR`, which pure modules do not import."""


AGE_LOOK_S: Final = 1.0
"""Between two looks at how old votes are."""


class Decisions:
    """Ends votes as the primary says."""

    def __init__(self, ground: Ground, locks: Locks, ahead: Ahead, votes: Votes, reading: Reading) -> None:
        self._ground = ground
        self._locks = locks
        self._ahead = ahead
        self._votes = votes
        self._reading = reading
        self._told_overdue = Seconds(float("-inf"))
        self._first_seen: dict[Ttid, Seconds] = {}
        """Since when each vote has been here, as far as `report_aged` knows."""
        self._look_at = Seconds(float("-inf"))

    # ---- commits

    def on_commit(self, master: NodeId, m: Commit) -> None:
        """Commit, after the commits before it that this node has not been told."""
        ground, image = self._ground, self._ground.image
        ground.seen = max(ground.seen, m.tid)
        ground.durable_mark = max(ground.durable_mark, m.durable)
        self.take_tail(m)
        mark, then = self.mark(m.durable), ground.confirm_commit(master, m.ttid)
        self.decide(m.ttid, m.attempt, m.tid, m.parts, mark, image.last_tid, then)

    def take_tail(self, m: Commit) -> None:
        """Remember the commits before *m*: whoever knows a tid knows all those before it."""
        image = self._ground.image
        for d in m.tail:
            if d.ttid not in image.decisions and d.ttid not in image.voted:
                self._ground.write(LogCommit(*d, NO_TID))

    def mark(self, durable: Tid) -> Tid:
        """Return up to where decisions may be forgotten: nothing while a record may come after its decision."""
        return NO_TID if self._ground.is_joining() else durable

    def decide(
        self,
        ttid: Ttid,
        attempt: int,
        tid: Tid,
        parts: tuple[Partition, ...],
        mark: Tid,
        known_to: Tid,
        then: Then,
    ) -> None:
        """*ttid* became *tid*: show its revisions at once, free its locks; *then* when that is durable.

        *known_to*: a commit up to that tid may be one that was done here, and forgotten since.
        """
        ground, image = self._ground, self._ground.image
        decision = image.decisions.get(ttid)
        if decision is not None and (decision.attempt, decision.tid) == (attempt, tid) and ttid not in image.voted:
            ground.when_durable(then)
        else:
            if decision is None and tid > known_to:
                self.check_records(ttid, attempt, parts)
            ground.write(LogCommit(ttid, attempt, tid, parts, mark), then)
        self.settle(ttid)

    def check_records(self, ttid: Ttid, attempt: int, parts: tuple[Partition, ...]) -> None:
        """Stop this node if a cell of it that is up to date lacks what is committed. It must not serve that."""
        for p in parts:
            record = self._ground.image.record(ttid, p)
            if self._ground.is_readable(p) and (record is None or record.attempt != attempt):
                text = f"the vote of {ttid} attempt {attempt} in partition {p} is committed and not here"
                self._ground.log(ERROR, text)
                self._ground.order(Exit(1, text))

    def settle(self, ttid: Ttid) -> None:
        """Nobody waits any more for votes or locks of *ttid*; who waits for those it had goes on."""
        self._votes.forget(ttid)
        self._ahead.settled(ttid)
        self._locks.held.pop(ttid, None)
        self._locks.forget_waiters(ttid)
        self._locks.free(ttid)
        self._locks.wake()
        self._reading.settled(ttid)

    # ---- aborts

    def on_abort(self, master: NodeId, m: SAbort) -> None:
        """Abort every attempt up to that one, durably."""
        self._ground.write(LogAbort(m.ttid, m.attempt), lambda: self._ground.send(master, AbortOk(m.ttid, m.attempt)))
        text = "aborted by the primary"
        self._ahead.settled(m.ttid)
        self._votes.refuse(m.ttid, m.attempt, text)
        for waiter in self._locks.forget_waiters(m.ttid, m.attempt):
            self._locks.refuse(waiter, text)
        held = self._locks.held.get(m.ttid)
        if held is None or held.attempt <= m.attempt:
            self._locks.release(m.ttid)
        self._reading.serve()

    # ---- seals

    def on_seal(self, master: NodeId, m: Seal) -> None:
        """From now on recovery commits it."""
        self._ground.write(LogSeal(m.ttid, m.attempt), lambda: self._ground.send(master, SealOk(m.ttid, m.attempt)))

    # ---- sessions

    def on_gone(self, master: NodeId, m: Gone) -> None:
        """Refuse that session from now on; tell what it has voted."""
        ground = self._ground
        ground.gone.add(m.session)
        self._locks.waiters = [w for w in self._locks.waiters if w.lock.ttid.session != m.session]
        for ttid in sorted(t for t in self._locks.held if t.session == m.session):
            self._locks.release(ttid)
        self._ahead.gone(m.session)
        self._locks.wake()
        voted = tuple(v for v in ground.image.voted_ids() if v.ttid.session == m.session)
        ground.send(master, VotedBy(m.session, voted))

    # ---- votes that nobody decides

    def report_aged(self) -> None:
        """Tell the primary of votes that are older than a transaction may be, whoever waits. Not in mode A: what has
        voted there may be committed elsewhere.
        """
        ground, now = self._ground, self._ground.now
        if now < self._look_at:
            return
        self._look_at = Seconds(now + AGE_LOOK_S)
        voted = ground.image.voted
        self._first_seen = {ttid: self._first_seen.get(ttid, now) for ttid in sorted(voted)}
        limit = now - ground.settings.transaction_age_s
        records = (v.record for t, since in self._first_seen.items() if since <= limit for v in voted[t].values())
        aged = {VotedId(r.ttid, r.attempt, r.parts) for r in records if r.mode == Mode.C}
        if aged and ground.master is not None:
            ground.send(ground.master, Overdue(tuple(sorted(aged))))

    # ---- votes that keep others waiting

    def report_overdue(self) -> None:
        """Tell the primary which votes others have waited for too long."""
        ground = self._ground
        limit = ground.now - ground.settings.overdue_s
        late = [w for w in self._locks.waiters if w.since <= limit]
        if not late or ground.master is None or self._told_overdue > limit:
            return
        voted: set[VotedId] = set()
        for waiter in late:
            for oid, _ in waiter.wants:
                for ttid in self._locks.owners(oid):
                    if ttid != waiter.lock.ttid:
                        records = (v.record for v in ground.image.voted.get(ttid, {}).values())
                        voted.update(VotedId(ttid, r.attempt, r.parts) for r in records if r.mode == Mode.C)
        if voted:
            self._told_overdue = ground.now
            ground.send(ground.master, Overdue(tuple(sorted(voted))))
