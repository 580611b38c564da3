"""The locks of the partitions that this node leads. Pure.

X for writes, S for readCurrent. A vote takes its locks without waiting; the ordered path waits, first come, first
served. A lock belongs to a transaction, whatever its attempt. Nothing here is durable: a new lead makes
them from its records.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from neo_common.ids import NodeId, Oid, Partition, Seconds, Ttid
from neo_common.wire.schema import ErrorCode, Lock, Locked, LockMode, Record, Refused
from neo_storage.core.ground import Ground

Want = tuple[Oid, LockMode]


@dataclass(frozen=True, slots=True)
class Held:
    """Locks granted to a Lock, until its vote, or until it loses them."""

    attempt: int
    client: NodeId
    wants: tuple[Want, ...]
    since: Seconds


@dataclass(frozen=True, slots=True)
class Waiter:
    """A Lock that waits."""

    client: NodeId
    lock: Lock
    since: Seconds

    @property
    def wants(self) -> tuple[Want, ...]:
        return tuple((w.oid, w.mode) for w in self.lock.wants)


class Locks:
    """Who has, and who waits for, which lock.

    Invariants: an X lock has one owner and no S beside it (but in an import the next transaction has the locks of the
    one that it rests on too); all of one Lock is granted together; a waiter is overtaken by nobody that it conflicts
    with.
    """

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._modes: dict[Oid, dict[Ttid, LockMode]] = {}
        self._oids: dict[Ttid, set[Oid]] = {}
        self.held: dict[Ttid, Held] = {}
        self.waiters: list[Waiter] = []

    def __len__(self) -> int:
        return sum(map(len, self._modes.values()))

    def owners(self, oid: Oid) -> dict[Ttid, LockMode]:
        """Return who has locked *oid*."""
        return dict(self._modes.get(oid, {}))

    # ---- taking and giving back

    def is_blocked(self, ttid: Ttid, wants: Iterable[Want], base: Collection[Ttid] = ()) -> bool:
        """Return whether others than *base* have a lock that conflicts with *wants*."""
        for oid, mode in wants:
            for owner, theirs in self._modes.get(oid, {}).items():
                if owner != ttid and owner not in base and _conflict(mode, theirs):
                    return True
        return False

    def passes_waiters(self, ttid: Ttid, wants: Iterable[Want]) -> bool:
        """Return whether taking *wants* would pass a waiter that it conflicts with."""
        if not self.waiters or ttid in self.held:
            return False
        queued: dict[Oid, LockMode] = {}
        for waiter in self.waiters:
            if waiter.lock.ttid != ttid:
                _merge(queued, waiter.wants)
        return _meets(queued, wants)

    def take(self, ttid: Ttid, wants: Iterable[Want]) -> None:
        """Give *wants* to *ttid*; the stronger mode stays."""
        oids = self._oids.setdefault(ttid, set())
        for oid, mode in wants:
            owners = self._modes.setdefault(oid, {})
            owners[ttid] = max(mode, owners.get(ttid, LockMode.S))
            oids.add(oid)
        if not oids:
            del self._oids[ttid]

    def free(self, ttid: Ttid) -> None:
        """Take every lock from *ttid*."""
        for oid in self._oids.pop(ttid, set()):
            self._modes[oid].pop(ttid, None)
            if not self._modes[oid]:
                del self._modes[oid]

    def release(self, ttid: Ttid) -> None:
        """Take from *ttid* the locks that no voted record of it needs, and wake who waits for them."""
        self.held.pop(ttid, None)
        self.free(ttid)
        for partition, voted in sorted(self._ground.image.voted.get(ttid, {}).items()):
            if self._ground.leads(partition):
                self.take(ttid, wants_of(voted.record))
        self.wake()

    def release_unless_held(self, ttid: Ttid) -> None:
        """As `release`, but the ordered path of *ttid* keeps what it has."""
        if ttid not in self.held:
            self.release(ttid)

    # ---- waiting

    def wait(self, client: NodeId, lock: Lock) -> None:
        """Put *lock* at the end of the queue, in place of an earlier attempt's, and grant what can be granted."""
        self.waiters = [w for w in self.waiters if w.lock.ttid != lock.ttid]
        self.waiters.append(Waiter(client, lock, self._ground.now))
        self.wake()

    def wake(self) -> None:
        """Grant every waiter whose locks are free, in order, none passing another that it conflicts with."""
        if not self.waiters:
            return
        ahead: dict[Oid, LockMode] = {}
        still: list[Waiter] = []
        for waiter in self.waiters:
            wants = waiter.wants
            if self.is_blocked(waiter.lock.ttid, wants) or _meets(ahead, wants):
                still.append(waiter)
                _merge(ahead, wants)
            else:
                self._grant(waiter)
        self.waiters = still

    def _grant(self, waiter: Waiter) -> None:
        lock = waiter.lock
        self.take(lock.ttid, waiter.wants)
        self.held[lock.ttid] = Held(lock.attempt, waiter.client, waiter.wants, self._ground.now)
        stale = self._ground.stale((w.oid, w.base) for w in lock.wants)
        self._ground.send(waiter.client, Locked(lock.ttid, lock.attempt, stale))

    def forget_waiters(self, ttid: Ttid, attempt: int | None = None) -> list[Waiter]:
        """Remove and return the waiters of *ttid*, up to *attempt* or all."""
        out = [w for w in self.waiters if w.lock.ttid == ttid and (attempt is None or w.lock.attempt <= attempt)]
        self.waiters = [w for w in self.waiters if w not in out]
        return out

    def refuse(self, waiter: Waiter, text: str) -> None:
        """Tell the client of a waiter that it waits no longer."""
        lock = waiter.lock
        self._ground.send(waiter.client, Refused(lock.ttid, lock.attempt, self.parts(lock), ErrorCode.NOT_READY, text))

    def parts(self, lock: Lock) -> tuple[Partition, ...]:
        """Return the partitions that *lock* touches, ascending."""
        return tuple(sorted({self._ground.partition(w.oid) for w in lock.wants}))

    def expire(self) -> None:
        """Take the locks of ordered paths that have had them for long while others wait."""
        for ttid, held in sorted(self.held.items()):
            if held.since + self._ground.settings.lock_s <= self._ground.now and self._is_waited_for(ttid, held):
                self.release(ttid)

    def _is_waited_for(self, ttid: Ttid, held: Held) -> bool:
        mine: dict[Oid, LockMode] = {}
        _merge(mine, held.wants)
        return any(w.lock.ttid != ttid and _meets(mine, w.wants) for w in self.waiters)

    # ---- partitions

    def rebuild(self, partitions: frozenset[Partition]) -> None:
        """Make the locks of *partitions* from the records: this node has become their lead, or restarted as that."""
        self.drop(partitions)
        for ttid, parts in sorted(self._ground.image.voted.items()):
            for partition in sorted(parts):
                if partition in partitions:
                    self.take(ttid, wants_of(parts[partition].record))

    def drop(self, partitions: frozenset[Partition]) -> None:
        """Forget the locks of *partitions*."""
        for oid in [o for o in self._modes if self._ground.partition(o) in partitions]:
            for ttid in self._modes.pop(oid):
                self._oids[ttid].discard(oid)
                if not self._oids[ttid]:
                    del self._oids[ttid]

    def leave(self, partitions: frozenset[Partition]) -> None:
        """This node no longer leads *partitions*: refuse who waits there, forget who holds."""
        for ttid, held in sorted(self.held.items()):
            if any(self._ground.partition(oid) in partitions for oid, _ in held.wants):
                del self.held[ttid]
        for waiter in [w for w in self.waiters if not partitions.isdisjoint(self.parts(w.lock))]:
            self.waiters.remove(waiter)
            self.refuse(waiter, "no longer the lead")
        self.drop(partitions)

    def lost(self, client: NodeId) -> None:
        """Locks and places in the queue go with the connection; voted records keep theirs."""
        self.waiters = [w for w in self.waiters if w.client != client]
        for ttid in sorted(t for t, h in self.held.items() if h.client == client):
            self.release(ttid)
        self.wake()


def wants_of(record: Record) -> list[Want]:
    """Return the locks that a voted record needs."""
    return [(w.oid, LockMode.X) for w in record.writes] + [(r.oid, LockMode.S) for r in record.reads]


def _conflict(a: LockMode, b: LockMode) -> bool:
    return LockMode.X in (a, b)


def _merge(modes: dict[Oid, LockMode], wants: Iterable[Want]) -> None:
    for oid, mode in wants:
        modes[oid] = max(mode, modes.get(oid, LockMode.S))


def _meets(modes: dict[Oid, LockMode], wants: Iterable[Want]) -> bool:
    return any(oid in modes and _conflict(mode, modes[oid]) for oid, mode in wants)
