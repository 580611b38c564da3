"""A storage node: events in, effects out. Pure.

`StorageCore` gives each packet to the part that knows what to do. The parts, each a sub-object, and their rules that a
test may override (each is one small method):

    reign       remember_lease, lease_holder, is_free_for, amnesty, is_our_cluster, resync
    votes       refusal, problem, is_contended, record, put, nodes_to_await, acked, nodes_to_forget, is_withdrawn,
                withdraw, is_superseded, relax
    locks       is_blocked, passes_waiters, take, wake, rebuild, expire, `wants_of` (module)
    tables      become_lead, is_synced, sync, is_old_stream, is_join_complete, stabilize, write; reign._rely_on
    copies      resume_from, source_of, is_intact, `difference` (module)
    giving      is_good
    scrub       compared_above, who_is_wrong
    decisions   take_tail, mark, decide, check_records, settle
    reading     may_be_below, undecided
    this class  verdict (fencing, what is held back)
    ground      stale, write (what is durable when), seen

What is appended to the log goes through `image.apply`, as in a replay. An effect that promises something comes only
with the event that makes it true: `Durable` (log), `Applied` (back end), an answer of another cell.
"""

import json
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Any, Final, assert_never

from neo_common.core import Connected, Durable, Lost, Received, Tick
from neo_common.errors import RemoteProtocolError
from neo_common.ids import NO_NODE, Instant, NodeId, Oid, Partition, Version
from neo_common.states import CellState, Role, node_text, role_of
from neo_common.wire import schema as s
from neo_storage.backends.base import Reader
from neo_storage.core.ahead import Ahead, is_nothing
from neo_storage.core.copying import Copies
from neo_storage.core.decisions import Decisions
from neo_storage.core.events import Applied, CopiedIn, DiskUsage, Erased, Named, Own, Packed, PointsRead
from neo_storage.core.giving import Giving
from neo_storage.core.ground import Effect, Ground, lead
from neo_storage.core.image import Image
from neo_storage.core.locks import Locks
from neo_storage.core.reading import Reading
from neo_storage.core.reign import Reign
from neo_storage.core.scrubbing import FOREIGN, Scrubbing
from neo_storage.core.settings import StorageSettings
from neo_storage.core.tables import Tables
from neo_storage.core.upkeep import Upkeep
from neo_storage.core.votes import Votes

Event = (
    Named
    | Connected
    | Lost
    | Received
    | Durable
    | Applied
    | CopiedIn
    | Own
    | Packed
    | Erased
    | PointsRead
    | DiskUsage
    | Tick
)

NEEDS_TABLE: Final = (s.Fwd, s.FwdStore, s.FwdPiece, s.FwdUnvote, s.Sync, s.Pull, s.Compare)
"""Held back until the receiver has the sender's partition table."""
FROM_PRIMARY: Final = (
    s.SetPT,
    s.Stable,
    s.Commit,
    s.Seal,
    s.SAbort,
    s.Told,
    s.Gone,
    s.AskFate,
    s.Renew,
    s.Resign,
    s.SetCeilings,
    s.Pack,
    s.Collect,
    s.Scrub,
)
"""Heard only from the primary that is obeyed, while serving."""


CLAIMS: Final = (s.Fence, s.Adopt)
FROM_ITS_PRIMARY: Final = (s.Start, s.Stop)
OF_CLIENTS: Final = (s.Vote, s.Unvote, s.Lock, s.Store, s.StorePiece)
"""What clients say of their transactions."""


class Verdict(Enum):
    """What to do with a packet now."""

    TAKE = "handle it"
    HOLD = "handle it, and what follows it on that connection, later"
    DROP = "it comes too late"


class StorageCore:
    """A storage node. `handle(event, now)` returns effects in the order to perform them."""

    def __init__(self, me: NodeId, image: Image, reader: Reader, settings: StorageSettings, now: Instant) -> None:
        """*image* as `image.replay` returned it, the back end having applied what it lacked. *me* may be 0: `Named`."""
        self.ground = Ground(me, image, reader, settings, now.monotonic)
        self.ground.relied_on = self._relied_on
        self._lookups: dict[NodeId, int] = {}
        """By peer, the read that its first packet was held back for."""
        self.locks = Locks(self.ground)
        self.ahead = Ahead(self.ground)
        self.votes = Votes(self.ground, self.locks, self.ahead)
        self.reading = Reading(self.ground)
        self.decisions = Decisions(self.ground, self.locks, self.ahead, self.votes, self.reading)
        self.copies = Copies(self.ground)
        self.giving = Giving(self.ground)
        self.scrub = Scrubbing(self.ground, self.copies)
        self.tables = Tables(self.ground, self.locks, self.ahead, self.votes, self.reading, self.copies, self.scrub)
        self.upkeep = Upkeep(self.ground, self.votes)
        self.reign = Reign(self.ground, self.ahead, self.votes, self.decisions, self.tables, self.reading, self.upkeep)
        self._held: dict[NodeId, deque[Received]] = {}
        # `Any`: each handler takes the class of packet under which it stands.
        self._notifications: dict[type, Callable[[NodeId, Any], None]] = {
            s.Store: self.ahead.on_store,
            s.StorePiece: self.ahead.on_piece,
            s.Vote: self.votes.on_vote,
            s.Unvote: self.votes.on_unvote,
            s.Lock: self.votes.on_lock,
            s.FwdStore: self._on_fwd_store,
            s.FwdPiece: self._on_fwd_piece,
            s.Fwd: self._on_fwd,
            s.FwdOk: self.votes.on_fwd_ok,
            s.FwdUnvote: self.votes.on_fwd_unvote,
            s.FwdUnvoteOk: self.votes.on_fwd_unvote_ok,
            s.Sync: self.tables.on_sync,
            s.SyncOk: self.tables.on_sync_ok,
            s.Pull: self.giving.on_pull,
            s.Compare: self.giving.on_compare,
            s.PullData: self._on_pull_data,
            s.PullPiece: self.copies.on_pull_piece,
            s.PullNo: self._on_pull_no,
            s.Compared: self._on_compared,
            s.Scrub: self._on_scrub,
            s.Fence: self.reign.on_fence,
            s.Start: self.reign.on_start,
            s.Adopt: self.reign.on_adopt,
            s.Renew: self.reign.on_renew,
            s.Resign: self.reign.on_resign,
            s.SetPT: self.tables.on_set,
            s.Stable: self.tables.on_stable,
            s.Commit: self.decisions.on_commit,
            s.Seal: self.decisions.on_seal,
            s.SAbort: self.decisions.on_abort,
            s.Gone: self.decisions.on_gone,
            s.AskFate: self.giving.on_ask_fate,
            s.Told: self.reading.on_told,
            s.SetCeilings: self.upkeep.on_set_ceilings,
            s.Pack: self.upkeep.on_pack,
            s.Collect: self.upkeep.on_collect,
            s.Stop: self.upkeep.on_stop,
            s.Nodes: _ignore,
            s.Cluster: _ignore,
        }
        self._questions: dict[type, Callable[[NodeId, int, Any], None]] = {
            s.AskLoad: self.reading.on_question,
            s.AskHistory: self.reading.on_question,
            s.AskTransactions: self.reading.on_question,
            s.AskRecords: self.reading.on_question,
            s.AskUndo: self.reading.on_question,
            s.AskLoads: self.reading.on_loads,
            s.AskPiece: self.reading.on_piece,
            s.AskSizes: self.reading.on_sizes,
            s.AskDebug: self._on_debug,
        }

    # ---- for the shell

    @property
    def image(self) -> Image:
        """The durable state, as it will be when the log is flushed."""
        return self.ground.image

    @property
    def me(self) -> NodeId:
        """This node's id; 0 until a master has given it one."""
        return self.ground.me

    @property
    def master(self) -> NodeId | None:
        """The primary that is obeyed and connected."""
        return self.ground.master

    @property
    def serving(self) -> bool:
        """Whether clients are served."""
        return self.ground.serving

    def wanted_peers(self) -> frozenset[NodeId]:
        """Return the storages to dial: those with higher ids to which votes, copies or comparisons of a row go.

        Other connections are let go: cells that are both out of date have nothing to say to each other.
        """
        me, table = self.ground.me, self.ground.image.table
        if not self.ground.serving:
            return frozenset()
        wanted: set[NodeId] = set()
        for p in table.partitions_of(me):
            mine = table.state(p, me)
            assert mine is not None
            wanted.update(node for node, state in table.rows[p] if node > me and _talk(mine, state))
        return frozenset(wanted)

    def needed_from(self, durable: int) -> int:
        """Return the oldest log position to keep when the back end is durable (`checkpoint`) up to *durable*."""
        needed, copied = self.ground.image.needed_from(durable), self.copies.needed_from()
        return needed if copied is None else min(needed, copied)

    def debug(self) -> dict[str, object]:
        """Return what this node waits for, holds and queues, for people: names and plain values."""
        ground, image = self.ground, self.ground.image
        return {
            "node": node_text(ground.me),
            "epoch": image.epoch,
            "table": str(image.table.version),
            "stable_table": None if ground.stable is None else str(ground.stable.version),
            "serving": ground.serving,
            "master": None if ground.master is None else node_text(ground.master),
            "lease": _text(self.reign.lease_holder()),
            "peers": [node_text(n) for n in sorted(ground.peers)],
            "log": {"appended": image.position, "durable": ground.durable, "applied": ground.applied},
            "voted": [f"{t} attempt {r.attempt} in {r.partition}" for r in image.records() for t in (r.ttid,)],
            "votes_in_progress": sorted({repr(b) for parts in self.votes.ballots.values() for b in parts.values()}),
            "withdrawals": [f"{t} attempt {a} in {p}" for t, a, p in sorted(self.votes.withdrawals)],
            "locks": len(self.locks),
            "held_by_ordered_path": [str(t) for t in sorted(self.locks.held)],
            "waiters": [f"{w.lock.ttid} since {w.since}" for w in self.locks.waiters],
            "loads_waiting": len(self.reading.waits),
            "packets_held_back": {node_text(n): len(q) for n, q in sorted(self._held.items())},
            "copies": {str(p): f"{c.step.value}, {c!r}"[:1000] for p, c in sorted(self.copies.copies.items())},
            "joins": {str(p): f"{j.version} data={j.data} sync={j.sync}" for p, j in sorted(self.tables.joins.items())},
            "erasing": list(image.doomed),
            "decisions": len(image.decisions),
            "tombstones": len(image.tombstones),
            "sessions_given_up": len(ground.gone),
            "overlay": {"revisions": len(ground.overlay), "bytes": ground.overlay.bytes},
            "undecided_bytes": image.undecided_bytes,
            "pack": None if self.upkeep.run is None else str(self.upkeep.run),
        }

    def handle(self, event: Event, now: Instant) -> list[Effect]:
        """Return the effects of *event*, in the order to perform them.

        Raises: DataCorrupted when log or back end contradict themselves: the node must stop.
        """
        ground = self.ground
        ground.now = now.monotonic
        match event:
            case Received(peer, packet, request):
                self._received(peer, packet, request)
            case Durable(position):
                ground.flushed(position)
            case Applied(position):
                ground.caught_up(position)
            case CopiedIn():
                self.copies.on_copied_in(event)
                self.scrub.on_copied_in(event)
            case Own():
                (self.copies if event.number > 0 else self.scrub).on_own(event)
            case Connected(peer):
                ground.peers.add(peer)
                ground.expected.pop(peer, None)
                self.reign.connected(peer, role_of(peer))
                if role_of(peer) == Role.STORAGE:
                    self.copies.connected()
            case Lost(peer, _, is_ended):
                ground.peers.discard(peer)
                self._lost(peer, is_ended=is_ended)
            case Tick():
                self.tick()
            case Packed():
                self.upkeep.on_packed(event)
                ground.forget_serials()
            case Erased():
                self.upkeep.on_erased(event)
                ground.forget_serials()
            case PointsRead():
                ground.points_read(event)
            case DiskUsage():
                self.upkeep.on_disk(event)
            case Named(node):
                assert ground.me in (NO_NODE, node), f"this is {node_text(ground.me)}, not {node_text(node)}"
                ground.me = node
            case _:
                assert_never(event)
        self._end_event()
        return ground.take_effects()

    def tick(self) -> None:
        """Look at deadlines."""
        self.locks.expire()
        self.ahead.expire()
        self.votes.end_patience()
        self.decisions.report_overdue()
        self.decisions.report_aged()
        self.upkeep.tell_state()
        self.copies.tick()
        self.scrub.tick()

    # ---- connections

    def _end_event(self) -> None:
        self._retry()
        while self.ground.cut_off:
            self._lost(self.ground.cut_off.pop(0), is_ended=False)
        self.copies.end_event()
        for partition, node, text in self.ground.damaged:
            self.scrub.report(partition, node, text)
        self.ground.damaged.clear()
        self.ground.confirm_commits()
        self.upkeep.erase()
        self.upkeep.follow_table()
        self.upkeep.stop_when_done()

    def _lost(self, peer: NodeId, *, is_ended: bool) -> None:
        self._held.pop(peer, None)
        self._lookups.pop(peer, None)
        self.ahead.lost(peer)
        match role_of(peer):
            case Role.MASTER:
                self.reign.master_lost(peer, is_ended=is_ended)
            case Role.STORAGE:
                self.reign.storage_lost(peer)
                self.copies.lost(peer)
                self.scrub.lost(peer)
            case Role.CLIENT | Role.ADMIN:
                self.reading.lost(peer)
                self.locks.lost(peer)

    # ---- packets

    def _received(self, peer: NodeId, packet: s.Packet, request: int) -> None:
        if peer not in self.ground.peers:  # of a connection that was cut meanwhile
            return
        if request:
            self._asked(peer, packet, request)
            return
        queue = self._held.get(peer)
        if queue is None and self._offer(peer, packet):
            return
        queue = self._held.setdefault(peer, deque())
        queue.append(Received(peer, packet))
        if len(queue) > self.ground.settings.held_packets:
            self.ground.cut(peer, f"{len(queue)} packets wait for a partition table, or for the database")

    def _retry(self) -> None:
        """Handle what was held back and can be handled now."""
        progress = bool(self._held)
        while progress:
            progress = False
            for peer in sorted(self._held):
                queue = self._held.get(peer)
                while queue and self._offer(peer, queue[0].packet):
                    if self._held.get(peer) is not queue:  # the connection was cut
                        break
                    queue.popleft()
                    progress = True
                if queue is not None and not queue and self._held.get(peer) is queue:
                    del self._held[peer]

    def _offer(self, peer: NodeId, packet: s.Packet) -> bool:
        """Handle or drop a notification; return False if it must wait."""
        match self.verdict(peer, packet):
            case Verdict.HOLD:
                return False
            case Verdict.TAKE:
                if self.ground.serials is not None and self._waits_for_serials(peer, packet):
                    return False
                handler = self._notifications.get(type(packet))
                if handler is not None:
                    try:
                        handler(peer, packet)
                    except RemoteProtocolError as error:
                        self.ground.cut(peer, str(error))
            case Verdict.DROP:
                pass
        return True

    def _waits_for_serials(self, peer: NodeId, packet: s.Packet) -> bool:
        """Return whether *packet* needs serials that the back end is being asked for. Only where that takes time."""
        if self._lookups.get(peer) in self.ground.reads:
            return True
        match packet:
            case s.Vote():
                ahead = self.ground.image.tentative.writes
                oids = [x.oid for w in packet.work for x in (*ahead(packet.ttid, w.partition, w.tentative), *w.writes)]
                oids += [r.oid for w in packet.work for r in w.reads]
            case s.Lock():
                oids = [w.oid for w in packet.wants]
            case s.Collect():
                oids = list(packet.oids)
            case _:
                return False
        number = self.ground.ask_serials(oids)
        if number:
            self._lookups[peer] = number
        return number != 0

    def _relied_on(self) -> set[Oid]:
        return {oid for waiter in self.locks.waiters for oid, _ in waiter.wants}

    def verdict(self, peer: NodeId, packet: s.Packet) -> Verdict:
        """Return whether *packet* is for now, for later, or of the past."""
        ground, image = self.ground, self.ground.image
        if isinstance(packet, NEEDS_TABLE):
            if packet.epoch < image.epoch:
                return Verdict.DROP
            is_ready = ground.serving and packet.epoch == image.epoch and image.table.version >= packet.version
            return Verdict.TAKE if is_ready else Verdict.HOLD
        if isinstance(packet, CLAIMS):
            if packet.epoch >= image.epoch and not self.reign.is_free_for(peer):
                return Verdict.HOLD
            return Verdict.TAKE
        if isinstance(packet, FROM_PRIMARY):
            return Verdict.TAKE if ground.serving and ground.master == peer else Verdict.DROP
        if isinstance(packet, FROM_ITS_PRIMARY):
            return Verdict.TAKE if ground.master in (None, peer) else Verdict.DROP
        if isinstance(packet, s.Vote):
            ground.voted_at = ground.now
        if isinstance(packet, OF_CLIENTS):
            if not packet.ttid.is_storable:
                self.ground.cut(peer, f"{packet.ttid} cannot be the name of a transaction")
                return Verdict.DROP
            if not ground.serving or packet.epoch != image.epoch:
                return Verdict.DROP
            is_behind = ground.overlay.bytes > ground.settings.overlay_bytes
            if isinstance(packet, s.Vote) and is_behind and self.votes.accepts:
                return Verdict.HOLD  # what the applier has to do must not grow; without room it is refused at once
            if isinstance(packet, s.Vote) and self.votes.has_overtaken(packet):
                return Verdict.HOLD
        return Verdict.TAKE

    def _asked(self, peer: NodeId, packet: s.Packet, request: int) -> None:
        handler = self._questions.get(type(packet))
        if handler is None:
            text = f"a storage does not answer {type(packet).__name__}"
            self.ground.send(peer, s.Error(s.ErrorCode.ILLEGAL, text), request)
        else:
            handler(peer, request, packet)

    def _from_lead(self, peer: NodeId, partition: Partition, version: Version) -> bool:
        if self.tables.is_old_stream(partition, version):
            return False
        return self.is_lead(peer, partition)

    def is_lead(self, peer: NodeId, partition: Partition) -> bool:
        """Return whether *peer* leads *partition* in this node's table: votes come from nobody else."""
        return lead(self.ground.image.table, partition) == peer

    def _on_scrub(self, master: NodeId, _: s.Scrub) -> None:
        self.scrub.begin()

    def _on_compared(self, peer: NodeId, m: s.Compared) -> None:
        (self.scrub if m.number >= FOREIGN else self.copies).on_compared(peer, m)

    def _on_pull_no(self, peer: NodeId, m: s.PullNo) -> None:
        (self.scrub if m.number >= FOREIGN else self.copies).on_pull_no(peer, m)

    def _on_pull_data(self, peer: NodeId, m: s.PullData) -> None:
        if m.number >= FOREIGN:
            self.scrub.on_pull_data(peer, m)
        elif m.number:
            self.copies.on_pull_data(peer, m)
        else:
            self.tables.on_join_data(peer, m)

    def _on_fwd(self, peer: NodeId, m: s.Fwd) -> None:
        self.ground.voted_at = self.ground.now
        self.votes.on_fwd(peer, [r for r in m.records if self._from_lead(peer, r.partition, m.version)])

    def _on_fwd_store(self, peer: NodeId, m: s.FwdStore) -> None:
        if is_nothing(m.store) or self._from_lead(peer, m.store.partition, m.version):
            self.ahead.on_fwd_store(peer, m)

    def _on_fwd_piece(self, peer: NodeId, m: s.FwdPiece) -> None:
        if self._from_lead(peer, self.ground.partition(m.piece.oid), m.version):
            self.ahead.on_fwd_piece(peer, m)

    def _on_debug(self, peer: NodeId, request: int, _: s.AskDebug) -> None:
        self.ground.send(peer, s.AnswerDebug(json.dumps(self.debug())), request)


def _talk(one: CellState, other: CellState) -> bool:
    """Return whether two cells of a row need a connection."""
    return (one.is_written and other.is_written) or (
        (one.is_readable or other.is_readable) and CellState.OUT_OF_DATE in (one, other)
    )


def _ignore(peer: NodeId, _: object) -> None:
    """What a storage has no use for: the shell reads the addresses of other storages from Nodes."""


def _text(node: NodeId | None) -> str | None:
    return None if node is None else node_text(node)
