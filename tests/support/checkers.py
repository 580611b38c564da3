"""What the outside may rely on, checked without asking the cores. The invariants are those of docs/commit-protocol.md.

`Oracle` sees each effect just before it is performed, keeps its own idea of the truth, and decides nothing. It is the
oracle of `tests/model`, fed with real packets. `Committed` interprets what a storage writes in its log: the history of
a cell as its records tell it, not as core or back end believe it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from neo_common.ids import NO_NODE, NO_TID, Epoch, Oid, Partition, Tid, Ttid
from neo_common.wire.schema import Mode, Record, Write
from neo_storage.backends.base import ApplyCopy, ApplyDrop
from neo_storage.core import log_records as log
from neo_storage.core.events import CopyIn
from support.packing import needed

TITLES = {
    1: "a commit that was acknowledged, or told to any client, is never lost",
    2: "a transaction that failed for its client is never committed",
    3: "two commits never replace the same revision of an object",
    4: "a reader sees of each transaction all or nothing",
    5: "its cache gives a reader nothing else",
    6: "tids are unique, and published in increasing order",
    7: "readable cells have what is committed, and are the same at rest",
    8: "a primary publishes nothing once another one is RUNNING",
    9: "without further faults everything comes to rest",
    10: "at rest no voted record is left",
    11: "no transaction has a tid below that of one that it could have seen",
    12: "readable nodes never hold two tids for one transaction",
    13: "an oid is never given twice",
    14: "a client hears of every commit of the others, in the order of tids",
    15: "what is there of a copy is its beginning, with the tids that were given",
    16: "what masters hold as settled is committed, and keeps its tid for ever",
    17: "a pack takes nothing that is current at its tid, or later",
    18: "a pack that was acknowledged is done, or goes on, on every readable cell",
    19: "a value in pieces is what was voted, and nothing is kept of what was not",
}


class Violation(AssertionError):
    """An invariant does not hold."""

    def __init__(self, invariant: int, text: str) -> None:
        super().__init__(f"invariant {invariant} ({TITLES[invariant]}): {text}")
        self.invariant = invariant


def check(holds: bool, invariant: int, text: str) -> None:
    """Raise Violation unless it holds."""
    if not holds:
        raise Violation(invariant, text)


class Wanted(NamedTuple):
    """What an attempt of a transaction wants, as its client has said in votes."""

    attempt: int
    parts: tuple[Partition, ...]
    writes: Mapping[Oid, Tid]
    """Each oid with the serial that it replaces."""
    reads: Mapping[Oid, Tid]
    """readCurrent: each oid with the serial that must stay."""
    mode: Mode
    seen: frozenset[Ttid]
    """The commits that its client knew."""


class Oracle:
    """The truth of a cluster, reign by reign."""

    def __init__(self) -> None:
        self.view: dict[Epoch, dict[Ttid, Tid]] = {}
        """The commits of each reign, those it has inherited included."""
        self.running = Epoch(0)
        self.last_published = NO_TID
        self.wanted: dict[tuple[Ttid, int], Wanted] = {}
        self.committed: dict[Ttid, Wanted] = {}
        self.failed: dict[Ttid, str] = {}
        self.first_names: dict[Ttid, Ttid] = {}
        """What a transaction was called first, by what it is called now: its values know the first name only."""
        self.acked: dict[Ttid, Tid] = {}
        self.by_tid: dict[Tid, Ttid] = {}
        self.known: dict[str, set[Ttid]] = {}
        """Commits that each client knows."""
        self.oids_given: list[tuple[Oid, int]] = []
        self.last_heard: dict[str, Tid] = {}
        self.settled: dict[Ttid, Tid] = {}
        """What a master has held as settled."""
        self.reads = 0
        self.editions: dict[tuple[Ttid, int, Oid], int] = {}
        """Of large values that an application has stored more than once: which one it has voted at an attempt."""
        self.pack_asked = NO_TID
        """The highest tid to which anybody wanted to pack."""
        self.pack_ordered = NO_TID
        """The highest one to which a primary has let storages pack."""
        self.pack_promised = NO_TID
        """The highest one to which a primary has said that it is packed."""

    # ---- clients

    def began(self, client: str, ttid: Ttid) -> None:
        """A client has begun a transaction."""
        self.known.setdefault(client, set())

    def renamed(self, client: str, old: Ttid, new: Ttid) -> None:
        """A client goes on with a transaction under another name: under the old one it must never be committed."""
        self.gave_up(client, old, f"goes on as {new}")
        self.first_names[new] = self.first_name(old)

    def first_name(self, ttid: Ttid) -> Ttid:
        """Return what that transaction was called first."""
        return self.first_names.get(ttid, ttid)

    def voting(
        self,
        client: str,
        ttid: Ttid,
        attempt: int,
        parts: tuple[Partition, ...],
        writes: Iterable[tuple[Oid, Tid]],
        reads: Iterable[tuple[Oid, Tid]],
        mode: Mode,
    ) -> None:
        """A client asks a lead to vote; the votes of one attempt are told one by one."""
        old = self.wanted.get((ttid, attempt))
        seen = frozenset(self.known.get(client, ()))
        self.wanted[ttid, attempt] = Wanted(
            attempt,
            parts,
            {**(old.writes if old else {}), **dict(writes)},
            {**(old.reads if old else {}), **dict(reads)},
            mode,
            seen | (old.seen if old else frozenset()),
        )

    def read(
        self,
        client: str,
        epoch: Epoch,
        snapshot: Tid,
        oid: Oid,
        serial: Tid,
        writer: Ttid,
        *,
        cached: bool,
        edition: int = 0,
    ) -> None:
        """A client got a revision for a snapshot; `writer` and `edition` are what the value itself says."""
        self.reads += 1
        view = self.view.get(epoch, {})
        truth = max(
            ((tid, t) for t, tid in view.items() if tid <= snapshot and oid in self.committed[t].writes),
            default=(NO_TID, None),
        )
        check(
            (serial, writer) == (truth[0], None if truth[1] is None else self.first_name(truth[1])),
            5 if cached else 4,
            f"{client} at snapshot {snapshot:x} read {oid}@{serial:x} of {writer} {'from its cache ' if cached else ''}"
            f"where {truth[0]:x} of {truth[1]} is the truth",
        )
        if truth[1] is not None:
            self.is_edition(truth[1], oid, edition)

    def is_edition(self, ttid: Ttid, oid: Oid, edition: int) -> None:
        """Somebody has found that edition of the value that *ttid* wrote."""
        voted = self.editions.get((ttid, self.committed[ttid].attempt, oid), 0)
        check(edition == voted, 19, f"{oid} of {ttid} is edition {edition}, edition {voted} was voted")

    def missed(self, client: str, epoch: Epoch, snapshot: Tid, oid: Oid) -> None:
        """A client was told that there is no such object in its snapshot."""
        view = self.view.get(epoch, {})
        history = sorted((tid, t) for t, tid in view.items() if oid in self.committed[t].writes)
        there = [tid for tid, _ in history if tid <= snapshot]
        is_packed = bool(there) and there[-1] < needed(history, self.pack_ordered)[0][0]
        check(not there or is_packed, 4, f"{client} at snapshot {snapshot:x} found no {oid}, which has {there}")

    def finished(self, client: str, ttid: Ttid, tid: Tid) -> None:
        """tpc_finish has returned *tid*."""
        check(ttid in self.view.get(self.running, {}), 1, f"{ttid} is acknowledged, not committed")
        check(ttid not in self.failed, 2, f"{ttid} is acknowledged after {self.failed.get(ttid)}")
        self.acked[ttid] = tid
        self.known.setdefault(client, set()).add(ttid)

    def gave_up(self, client: str, ttid: Ttid, what: str) -> None:
        """tpc_vote or tpc_finish has raised, or tpc_abort has returned."""
        check(ttid not in self.view.get(self.running, {}), 2, f"{ttid} of {client}: {what}, but it is committed")
        self.failed[ttid] = what

    def committed_by_recovery(self, client: str, ttid: Ttid, mode: Mode) -> None:
        """tpc_abort has raised: recovery has committed."""
        check(mode is Mode.C, 2, f"{ttid} of {client}: recovery has committed, in mode A")
        check(ttid in self.view.get(self.running, {}), 1, f"{ttid} is told committed, and is not")
        self.known.setdefault(client, set()).add(ttid)

    def invalidated(self, client: str, tid: Tid) -> None:
        """A client's lastTransaction() will say *tid*."""
        check(
            tid > self.last_heard.get(client, NO_TID),
            14,
            f"{client} hears of {tid:x} after {self.last_heard.get(client, 0):x}",
        )
        self.last_heard[client] = tid
        if tid in self.by_tid:
            self.known.setdefault(client, set()).add(self.by_tid[tid])

    def caught_up(self, client: str, now: Tid) -> None:
        """A client was told by Welcome that *now* is the last tid: its next snapshot has all up to there."""
        self.last_heard[client] = max(now, self.last_heard.get(client, NO_TID))
        view = self.view.get(self.running, {})
        self.known.setdefault(client, set()).update(t for t, tid in view.items() if tid <= now)

    def forgot(self, client: str) -> None:
        """The client has dropped what it knew (a reset, or another process)."""
        self.known[client] = set()
        self.last_heard.pop(client, None)

    def oids(self, first: Oid, number: int) -> None:
        """A range of oids was given."""
        for other, count in self.oids_given:
            check(first + number <= other or other + count <= first, 13, f"{first}+{number} and {other}+{count}")
        self.oids_given.append((first, number))

    # ---- masters

    def publish(self, epoch: Epoch, ttid: Ttid, attempt: int, tid: Tid) -> None:
        """A primary tells anybody, for the first time in its reign perhaps, that *ttid* became *tid*."""
        view = self.view.get(epoch)
        check(view is not None, 8, f"primary of epoch {epoch:x} publishes {ttid} before it is RUNNING")
        assert view is not None
        if ttid in view:
            check(view[ttid] == tid, 12, f"{ttid} is {view[ttid]:x} and {tid:x}")
            return
        check(
            epoch >= self.running, 8, f"primary of epoch {epoch:x} publishes {ttid} while {self.running:x} is RUNNING"
        )
        check(
            ttid not in self.failed, 2, f"{ttid} has failed for its client ({self.failed.get(ttid)}), and is committed"
        )
        check(tid > self.last_published, 6, f"{ttid} gets {tid:x}, {self.last_published:x} is published already")
        self.last_published = tid
        self._commit(ttid, attempt)
        view[ttid] = tid
        self.by_tid[tid] = ttid
        self._no_rival(epoch, ttid)

    def _commit(self, ttid: Ttid, attempt: int) -> None:
        wanted = self.wanted.get((ttid, attempt))
        check(wanted is not None, 2, f"{ttid} is committed at attempt {attempt}, for which nobody has voted")
        assert wanted is not None
        self.committed[ttid] = wanted

    def _no_rival(self, epoch: Epoch, ttid: Ttid) -> None:
        view, wanted = self.view[epoch], self.committed[ttid]
        for oid, promised in wanted.reads.items():
            last = max(
                (tid for t, tid in view.items() if tid < view[ttid] and oid in self.committed[t].writes), default=NO_TID
            )
            check(last == promised, 3, f"{ttid} relies on {oid}@{promised:x}, {last:x} has changed it")
        for other in view:
            if other != ttid:
                for oid, base in wanted.writes.items():
                    check(
                        self.committed[other].writes.get(oid) != base,
                        3,
                        f"{other} and {ttid} both replace {oid}@{base:x}",
                    )

    def reign(self, epoch: Epoch, decisions: Mapping[Ttid, tuple[int, Tid]], kept: Mapping[Ttid, Tid]) -> None:
        """A primary is RUNNING. `kept`: what storages hold and recovery need not decide again."""
        old = self.view.get(self.running, {})
        new = dict(kept)
        for ttid, (attempt, tid) in decisions.items():
            check(
                new.get(ttid, tid) == tid, 12, f"{ttid} is {tid:x} by recovery, {new.get(ttid, 0):x} in a readable cell"
            )
            new[ttid] = tid
            if (ttid, attempt) in self.wanted or ttid not in self.committed:
                self._commit(ttid, attempt)
        self.view[epoch], self.running = new, max(self.running, epoch)
        for ttid, tid in old.items():
            check(ttid in new, 1, f"{ttid}, committed at {tid:x}, is lost by the primary of epoch {epoch:x}")
        elsewhere = {(t, tid) for e, v in self.view.items() if e != epoch for t, tid in v.items()}
        for ttid, tid in new.items():
            check(ttid not in self.failed, 2, f"{ttid} has failed ({self.failed.get(ttid)}), and recovery commits it")
            if old.get(ttid) != tid:
                check(
                    tid > self.last_published or (ttid, tid) in elsewhere,
                    6,
                    f"{ttid} gets {tid:x} by recovery, {self.last_published:x} is published already",
                )
            self.by_tid[tid] = ttid
        check(len(set(new.values())) == len(new), 6, f"recovery gives a tid twice: {sorted(new.values())}")
        self.last_published = max([self.last_published, *new.values()])
        for ttid, tid in self.settled.items():
            check(new.get(ttid) == tid, 16, f"{ttid} was settled at {tid:x}, recovery says {new.get(ttid)}")
        for ttid in new:
            self._no_rival(epoch, ttid)
        for ttid, tid in new.items():
            for seen in self.committed[ttid].seen:
                check(
                    seen not in new or new[seen] < tid,
                    11,
                    f"{ttid} gets {tid:x}, below {new.get(seen, 0):x} of {seen}, which it has seen",
                )

    def held(self, master: str, ttid: Ttid, tid: Tid) -> None:
        """A master holds that commit as settled."""
        truth = self.view.get(self.running, {}).get(ttid)
        check(truth == tid, 16, f"{master} holds {ttid} at {tid:x}, it is {truth and hex(truth)}")
        self.settled[ttid] = tid

    # ---- packs

    def pack_wanted(self, tid: Tid) -> None:
        """Somebody asks for a pack."""
        self.pack_asked = max(self.pack_asked, tid)

    def packs(self, tid: Tid) -> None:
        """A primary lets a storage pack to *tid*."""
        check(tid <= self.pack_asked, 17, f"a pack goes to {tid:x}, {self.pack_asked:x} was asked for")
        check(tid <= self.last_published, 17, f"a pack goes to {tid:x}, {self.last_published:x} is published")
        self.pack_ordered = max(self.pack_ordered, tid)

    def pack_promises(self, tid: Tid) -> None:
        """A primary says that every storage has that order durably."""
        check(tid <= self.pack_ordered, 18, f"a pack to {tid:x} is promised, {self.pack_ordered:x} was ordered")
        self.pack_promised = max(self.pack_promised, tid)

    def is_packed_away(self, partition_of: Callable[[Oid], Partition], partition: Partition, ttid: Ttid) -> bool:
        """Whether a pack may have left nothing of that transaction in *partition*."""
        tid = self.view[self.running][ttid]
        if tid > self.pack_ordered:
            return False
        mine = [oid for oid in self.committed[ttid].writes if partition_of(oid) == partition]
        return all(tid < needed(self.history(oid), self.pack_ordered)[0][0] for oid in mine)

    def give_up(self, kept: Iterable[Ttid], voted: Iterable[Ttid]) -> None:
        """An operator goes on with what few have: of all commits *kept* remain, the others must never come back.

        `voted`: what those few have voted; whether it was committed elsewhere, or aborted, they cannot know.
        """
        kept, voted = set(kept), set(voted)
        old = self.view[self.running]
        self.view[self.running] = {t: tid for t, tid in old.items() if t in kept}
        for ttid in set(old) - kept - voted:
            self.failed[ttid] = "given up by the operator"
        for ttid in voted:
            self.failed.pop(ttid, None)
        for known in self.known.values():
            known &= kept
        self.settled = {t: tid for t, tid in self.settled.items() if t in kept}

    # ---- at rest

    def serves(self, storage: str, oid: Oid, read: list[tuple[Tid, Ttid]]) -> None:
        """A readable cell has these revisions of an object: all, or those that a pack must leave; no others."""
        truth, what = self.history(oid), f"{storage} serves {oid}: {read}"
        check(read == truth[len(truth) - len(read) :], 7, f"{what}, committed are {truth}")
        must, may = needed(truth, self.pack_ordered), needed(truth, self.pack_promised)
        invariant = 17 if self.pack_ordered else 7
        check(len(read) >= len(must), invariant, f"{what}, not all of {must}, from {self.pack_ordered:x} on")
        check(len(read) <= len(may), 18, f"{what}, packed to {self.pack_promised:x} that is {may}")

    def history(self, oid: Oid) -> list[tuple[Tid, Ttid]]:
        """Return every revision of *oid*, oldest first, as it must be; writers by their first names."""
        view = self.view.get(self.running, {})
        return sorted((tid, self.first_name(t)) for t, tid in view.items() if oid in self.committed[t].writes)


class Spoiled(NamedTuple):
    """What the simulator took from a cell that is out of date. A crash may bring it back."""

    partition: Partition
    tids: frozenset[Tid]


class Committed:
    """What the log of one storage says, record by record."""

    def __init__(self) -> None:
        self.node = NO_NODE
        self.left: set[Partition] = set()
        """Partitions of which the cell was dropped at some time."""
        self.perhaps: set[tuple[Partition, Tid]] = set()
        """What may not be there any more, although a log says so."""
        self.voted: dict[tuple[Ttid, Partition], Record] = {}
        self.stored: dict[tuple[Ttid, Partition], list[Write]] = {}
        self.history: dict[tuple[Partition, Oid], dict[Tid, Ttid]] = {}
        self.tids: dict[tuple[Partition, Ttid], Tid] = {}

    def add(self, record: object) -> None:
        """Interpret one more record."""
        match record:
            case log.LogStored(ttid, partition, first, writes):
                have = self.stored.setdefault((ttid, partition), [])
                del have[first:]
                have.extend(writes)
            case log.LogVote(votes):
                self.voted.update({(vote.ttid, vote.partition): vote for vote in votes})
            case log.LogUnvote(ttid, attempt, partition):
                if (ttid, partition) in self.voted and self.voted[ttid, partition].attempt <= attempt:
                    del self.voted[ttid, partition]
            case log.LogAbort(ttid, attempt):
                for key in [k for k, v in self.voted.items() if k[0] == ttid and v.attempt <= attempt]:
                    del self.voted[key]
            case log.LogCommit(ttid, attempt, tid, _, _):
                for key in [k for k in self.voted if k[0] == ttid]:
                    vote = self.voted.pop(key)
                    if vote.attempt == attempt:
                        early = self.stored.get(key, [])[: vote.tentative]
                        self._write(ttid, key[1], tid, (w.oid for w in (*early, *vote.writes)))
            case log.LogClear(partition, keep):
                for key in [k for k in self.voted if k[1] == partition]:
                    del self.voted[key]
                for (p, _), revisions in self.history.items():
                    if p == partition:
                        for tid in [t for t in revisions if t > keep]:
                            del revisions[tid]
                for p, ttid in [k for k, t in self.tids.items() if k[0] == partition and t > keep]:
                    del self.tids[p, ttid]
            case log.LogIdentity(node, _):
                self.node = node
            case log.LogTable(update):
                self._leave({p for p, row in update.rows if any(n == self.node for n, _ in row)})
            case log.LogTruncate(update, keep):
                self.voted.clear()
                for serials in self.history.values():
                    for tid in [t for t in serials if t > keep]:
                        del serials[tid]
                self.tids = {key: tid for key, tid in self.tids.items() if tid <= keep}
                self._leave({p for p, row in update.rows if any(n == self.node for n, _ in row)})
            case CopyIn(_, ops, _):
                for op in ops:
                    self._copied(op)
            case Spoiled(partition, tids):
                self.perhaps |= {(partition, tid) for tid in tids}
            case _:
                pass

    def _leave(self, mine: set[Partition]) -> None:
        """Of a cell that is dropped, what is not erased yet when it comes back is not copied again: no log tells."""
        self.voted = {key: vote for key, vote in self.voted.items() if key[1] in mine}
        self.left |= {p for p, _ in self.history if p not in mine}

    def _copied(self, op: object) -> None:
        match op:
            case ApplyCopy(partition, transactions):
                for transaction in transactions:
                    self._write(transaction.ttid, partition, transaction.tid, (r.oid for r in transaction.revisions))
            case ApplyDrop(partition, revisions, tids):
                for (p, oid), serials in self.history.items():
                    for tid in [t for t in serials if p == partition and (t in tids or (t, oid) in revisions)]:
                        del serials[tid]
                left = {(p, t) for (p, _), serials in self.history.items() for t in serials}
                for key in [k for k, t in self.tids.items() if k[0] == partition and (partition, t) not in left]:
                    del self.tids[key]
            case _:
                raise AssertionError(op)

    def _write(self, ttid: Ttid, partition: Partition, tid: Tid, oids: Iterable[Oid]) -> None:
        old = self.tids.setdefault((partition, ttid), tid)
        if old != tid and (partition, old) in self.perhaps:
            self.tids[partition, ttid] = old = tid
        check(old == tid, 12, f"{ttid} is {old:x} and {tid:x} in one cell of {partition}")
        for oid in oids:
            self.history.setdefault((partition, oid), {})[tid] = ttid
