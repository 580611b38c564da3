"""The core of a master: events in, effects out. Pure.

`MasterCore` is made of parts, one concern each; here is who gets in, and which part hears of what. Rules of the
protocol are methods with names: the simulator breaks one at a time, to see that the checker notices.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

from neo_common.core import Accept, Connected, Disconnect, Greeted, Left, Lost, Park, Received, Refuse, Tick
from neo_common.ids import NO_EPOCH, NO_NODE, Epoch, Instant, NodeId, Seconds, Tid, tid_from_time
from neo_common.states import ClusterState, NodeState, Role, check_cluster, node_id, node_text, role_of
from neo_common.wire.schema import (
    Abort,
    AbortOk,
    AnswerLast,
    Ask,
    AskChange,
    AskChoose,
    AskCluster,
    AskCollect,
    AskDrop,
    AskImport,
    AskLast,
    AskMoves,
    AskNodes,
    AskOids,
    AskPack,
    AskPackState,
    AskRaiseOid,
    AskReadmit,
    AskRecovery,
    AskReplication,
    AskScrub,
    AskStart,
    AskStop,
    AskTable,
    AskTruncate,
    CaughtUp,
    CeilingsOk,
    CHello,
    Claim,
    Cluster,
    CollectOk,
    CommitOk,
    Copying,
    Damaged,
    Denied,
    Error,
    ErrorCode,
    Fenced,
    Finish,
    FwdFail,
    Heard,
    Held,
    Hello,
    Hold,
    Leave,
    Mended,
    MHello,
    Overdue,
    PackProgress,
    Promised,
    PtOk,
    Ready,
    RefusalCode,
    Renew,
    Renewed,
    Resign,
    ScrubState,
    SealOk,
    Settle,
    SHello,
    StartOk,
    Stop,
    StorageState,
    ToldFate,
    VotedBy,
)
from neo_master.core.admin import Admin
from neo_master.core.base import Chance
from neo_master.core.choices import Choices
from neo_master.core.effects import ERROR, INFO, NO_ID, WARNING, Effect, Exit, Kept, Store, Stored, Terminate
from neo_master.core.election import Election
from neo_master.core.holding import Holding
from neo_master.core.moves import Moves
from neo_master.core.oids import Oids
from neo_master.core.packs import Packs
from neo_master.core.plausible import FUTURE_S, REIGNS_MAX, epoch_of, problem_of
from neo_master.core.recovery import Recovery
from neo_master.core.roster import Roster
from neo_master.core.scrubs import Scrubs
from neo_master.core.sessions import Sessions
from neo_master.core.settings import Configured, MasterSettings
from neo_master.core.settled import Settled
from neo_master.core.tables import Tables
from neo_master.core.transactions import Transactions
from neo_master.core.truncation import Truncation
from neo_master.core.underway import Place

__all__ = ["Configured", "Effect", "Exit", "Kept", "MasterCore", "MasterSettings", "Place", "Store", "Stored"]


REIGNS_AHEAD: Final = 1000
"""So many reigns a running primary can have missed."""


def told_epoch(packet: object) -> Epoch:
    """Return the highest epoch that *packet* speaks of as met by its sender; NO_EPOCH if it speaks of none."""
    match packet:
        case SHello(epoch) | Fenced(epoch):
            return epoch
        case CHello():
            return max(packet.epoch, packet.promised)
    return epoch_of(packet) or NO_EPOCH


class MasterCore(
    Election,
    Recovery,
    Choices,
    Settled,
    Transactions,
    Tables,
    Moves,
    Truncation,
    Sessions,
    Oids,
    Packs,
    Scrubs,
    Admin,
    Roster,
):
    """One master: secondary, or primary of a cluster that is recovering or runs.

    Invariants:
      * a commit is decided only by a primary that is RUNNING and holds a lease;
      * tids leave in ascending order on every connection, Commit before Finished before Invalidate;
      * nobody is told that something is aborted before no recovery can commit it;
      * no table is used by clients before it is durable on every node that could outvote it.
    """

    def __init__(
        self,
        me: NodeId,
        settings: MasterSettings,
        masters: Sequence[Configured],
        rng: Chance,
        kept: Kept | None = None,
        holding: Holding | None = None,
    ) -> None:
        """Begin. *masters* are all that are configured, this one included, in the order of the election.

        *kept* is what the disk has; None if it has nothing. *holding*: what its notes have.
        """
        super().__init__(me, settings, masters, rng, kept, holding)
        # Any: each handler takes the packet class under which it stands.
        self.notified: dict[type, Callable[[NodeId, Any], None]] = {
            SHello: self.on_storage_hello,
            Fenced: self.on_fenced,
            StartOk: self.on_start_ok,
            PtOk: self.on_pt_ok,
            CommitOk: self.on_commit_ok,
            SealOk: self.on_seal_ok,
            AbortOk: self.on_abort_ok,
            VotedBy: self.on_voted_by,
            Ask: self.on_ask,
            FwdFail: self.on_fwd_fail,
            Ready: self.on_ready,
            CaughtUp: self.on_caught_up,
            Copying: self.on_copying,
            Damaged: self.on_damaged,
            Mended: self.on_mended,
            ScrubState: self.on_scrub_state,
            Renewed: self.on_renewed,
            CeilingsOk: self.on_ceilings_ok,
            PackProgress: self.on_pack_progress,
            CollectOk: self.on_collect_ok,
            Overdue: self.on_overdue,
            StorageState: self.on_storage_state,
            CHello: self.on_client_hello,
            Finish: self.on_finish,
            Abort: self.on_abort,
            Heard: self.on_heard,
            Leave: self.on_leave,
            ToldFate: self.on_told_fate,
        }
        self.between_masters: dict[type, Callable[[NodeId, Any], None]] = {
            MHello: self.on_master_hello,
            Claim: self.on_claim,
            Promised: self.on_promised,
            Denied: self.on_denied,
            Hold: self.on_hold,
            Held: self.on_held,
            Renew: self.on_master_renew,
            Resign: self.on_master_resign,
            Settle: self.on_settle,
        }
        self.asked: dict[type, Callable[[NodeId, Any, int], None]] = {
            AskOids: self.on_ask_oids,
            AskRaiseOid: self.on_ask_raise_oid,
            AskLast: self.on_ask_last,
            AskImport: self.on_ask_import,
            AskPack: self.on_ask_pack,
            AskPackState: self.on_ask_pack_state,
            AskCollect: self.on_ask_collect,
            AskCluster: self.on_ask_cluster,
            AskNodes: self.on_ask_nodes,
            AskTable: self.on_ask_table,
            AskReplication: self.on_ask_replication,
            AskScrub: self.on_ask_scrub,
            AskStart: self.on_ask_start,
            AskStop: self.on_ask_stop,
            AskChange: self.on_ask_change,
            AskMoves: self.on_ask_moves,
            AskDrop: self.on_ask_drop,
            AskTruncate: self.on_ask_truncate,
            AskRecovery: self.on_ask_recovery,
            AskChoose: self.on_ask_choose,
            AskReadmit: self.on_ask_readmit,
        }

    def __repr__(self) -> str:
        what = f"{self.place.value} {self.state.name} epoch {self.epoch >> 24} table {self.pt.version}"
        return f"<MasterCore {node_text(self.me)} {what}>"

    # ------------------------------------------------------------------------------------------ events

    def handle(self, event: object, now: Instant) -> list[Effect]:
        """Take an event of `neo_common.core`; return the effects in the order to perform them."""
        self.now = now
        self.effects = effects = list[Effect]()
        self.given.clear()
        if not self.started:
            self.started = True
            self.watch_clock()
            self.begin_memory()
            self.start_election()
        match event:
            case Received(peer, packet, request):
                self.received(peer, packet, request)
            case Tick():
                self.tick()
            case Connected(peer, hello):
                self.peer_connected(peer, hello)
            case Lost(peer, reason, is_ended):
                if is_ended:
                    self.lease_ended(peer)
                if peer in self.connected:
                    self.peer_lost(peer, reason)
            case Stored(number):
                self.stored(number)
            case Greeted(connection, hello):
                self.greet(connection, hello)
            case Left(connection, _):
                self.parked.pop(connection, None)
            case Terminate(reason):
                self.terminate(reason)
            case _:
                raise AssertionError(f"a master does not know the event {event}")
        self.tell_node_changes()
        return effects

    def received(self, peer: NodeId, packet: object, request: int) -> None:
        """Give a packet to the part that it concerns; drop what comes from a peer that is not connected (any more)."""
        if peer not in self.connected:
            return
        told = told_epoch(packet)
        if self.is_absurd(told):
            self.cut(peer, f"epoch {told >> 24} cannot be: this master knows of {self.seen_epoch >> 24}")
            return
        kind = type(packet)
        if role_of(peer) == Role.MASTER and kind in self.between_masters:
            why = problem_of(packet, self.master_of(told), peer, self.future())
            if why:
                self.cut(peer, why)
                return
            self.is_heard(peer)
            self.between_masters[kind](peer, packet)
        elif kind is Stop:
            self.on_stop(peer, packet)  # type: ignore[arg-type]  # the same
        elif request:
            if kind in self.asked and self.is_primary:
                self.asked[kind](peer, packet, request)
            else:
                self.send(peer, Error(ErrorCode.ILLEGAL, f"a master does not answer {kind.__name__} now"), request)
        elif self.is_primary and kind in self.notified:
            self.notified[kind](peer, packet)

    def tick(self) -> None:
        """Look at what is due."""
        self.watch_clock()
        self.hear_claims()
        self.watch_primary()
        if self.place is Place.ELECTING:
            self.elect()
        if not self.is_primary:
            return
        if not self.is_running:
            self.renew_leases()
            if (self.grace_until is not None and self.is_grace_over()) or self.patience_until is not None:
                self.try_start()
            self.check_stop()
            self.tell_admins()
            return
        self.renew_leases()
        self.check_lease()
        if not self.is_running:
            return  # it has stepped down
        self.end_graces()
        self.seek_on()
        self.advance_durable()
        self.settle()
        self.keep_ceilings_ahead()
        self.pump()
        self.rejoin_cells()
        self.watch_absent()
        self.rebuild_damaged()
        self.explain_running()
        self.check_stop()
        self.tell_admins()

    # ------------------------------------------------------------------------------------------ who gets in

    def greet(self, connection: int, hello: Hello) -> None:
        """Let in, park or send away who has dialled."""
        self.parked.pop(connection, None)
        if hello.cluster != self.settings.cluster:
            text = f"this is the cluster {self.settings.cluster!r}, not {hello.cluster!r}"
            self.effects.append(Refuse(connection, RefusalCode.CLUSTER, text))
        elif hello.node != NO_NODE and hello.node >> 24 != hello.role:
            text = f"{hello.node:#x} is not the id of a {hello.role.name}"
            self.effects.append(Refuse(connection, RefusalCode.IDENTITY, text))
        elif self.is_absurd(hello.epoch):
            text = f"epoch {hello.epoch >> 24} cannot be: this master knows of {self.seen_epoch >> 24}"
            self.effects.append(Refuse(connection, RefusalCode.IDENTITY, text))
        elif hello.role == Role.MASTER:
            self.greet_master(connection, hello)
        elif self.place is Place.ELECTING:
            self.park(connection, hello, "the masters elect a primary")
        elif self.place is Place.SECONDARY:
            text = f"{node_text(self.primary)} is primary"
            self.effects.append(Refuse(connection, RefusalCode.NOT_PRIMARY, text, self.address_of(self.primary)))
        elif self.is_of_another_cluster(hello):
            text = f"this is cluster {self.known_cluster_id().hex()}, not {hello.cluster_id.hex()}"
            self.effects.append(Refuse(connection, RefusalCode.CLUSTER, text))
        elif hello.role == Role.ADMIN:
            self.effects.append(Accept(connection, self.id_for(hello)))
        elif self.state is ClusterState.STOPPING:
            self.effects.append(Refuse(connection, RefusalCode.STOPPING, "the cluster stops"))
        elif hello.role == Role.CLIENT:
            self.greet_client(connection, hello)
        else:
            self.greet_storage(connection, hello)

    def is_absurd(self, epoch: Epoch) -> bool:
        """Whether nobody can have met *epoch*. What is believed is never unlearned: it ends a reign, and counts for
        all that follow.
        """
        number = epoch >> 24
        return number > REIGNS_MAX or (self.is_running and number > (self.epoch >> 24) + REIGNS_AHEAD)

    def future(self) -> Tid:
        """Return a tid above all that there can be."""
        return tid_from_time(Seconds(self.now.wall + FUTURE_S))

    def is_of_another_cluster(self, hello: Hello) -> bool:
        """Whether it knows its cluster's id, and that is not ours."""
        known = self.known_cluster_id()
        return NO_ID not in (known, hello.cluster_id) and hello.cluster_id != known

    def greet_master(self, connection: int, hello: Hello) -> None:
        """Let in a master that is configured."""
        names = {m.node: m.name for m in self.masters}
        if hello.node == self.me or names.get(hello.node) != hello.name:
            text = f"{hello.name!r} ({node_text(hello.node)}) is not another master of the configuration"
            self.effects.append(Refuse(connection, RefusalCode.IDENTITY, text))
        else:
            self.effects.append(Accept(connection, hello.node))

    def greet_client(self, connection: int, hello: Hello) -> None:
        """Let in a client; before RUNNING too, as recovery hears what it knows."""
        if len(self.peers(Role.CLIENT)) >= self.settings.clients_max:
            text = f"there are {self.settings.clients_max} clients already"
            self.effects.append(Refuse(connection, RefusalCode.LIMIT, text))
        else:
            self.effects.append(Accept(connection, self.id_for(hello)))

    def greet_storage(self, connection: int, hello: Hello) -> None:
        """Let in a storage that has an id; give one to another when the table is made, or is there."""
        twin = next((n for n in self.peers(Role.STORAGE) if self.connected[n].name == hello.name), None)
        if hello.node != NO_NODE:
            there = self.connected.get(hello.node)
            if self.turned_away.get(hello.node) == hello.incarnation:
                self.effects.append(Refuse(connection, RefusalCode.IDENTITY, self.behind_text(hello.node)))
            elif there is not None and there.name != hello.name:
                text = f"{node_text(hello.node)} is {there.name!r}, which is connected: is this a copy of its disk?"
                self.effects.append(Refuse(connection, RefusalCode.IDENTITY, text))
            else:
                self.effects.append(Accept(connection, hello.node))
        elif twin is not None and self.is_same_start(self.connected[twin], hello):
            self.effects.append(Accept(connection, twin))  # it has not heard which id it was given
        elif twin is not None:
            text = f"{hello.name!r} is connected, as {node_text(twin)}"
            self.effects.append(Refuse(connection, RefusalCode.IDENTITY, text))
        elif self.is_running or (self.founding is not None and hello.name in self.founding):
            self.effects.append(Accept(connection, self.id_for(hello)))
        else:
            self.park(connection, hello, "the cluster has no partition table, or has not found it yet")
            self.try_start()

    def is_same_start(self, there: Hello, hello: Hello) -> bool:
        """Whether a process that dials without id was given one over its former connection."""
        return there.node == NO_NODE and there.incarnation == hello.incarnation

    def id_for(self, hello: Hello) -> NodeId:
        """Return the id for who dials: its own if it is free, else a new one, never given before in this reign."""
        role = Role(hello.role)
        if hello.node != NO_NODE and role_of(hello.node) == role:
            there = self.connected.get(hello.node)
            if there is None or (there.name, there.incarnation) == (hello.name, hello.incarnation):
                self.note_number(hello.node)
                return hello.node
        if role == Role.STORAGE:
            return self.storage_id(hello.name)
        self.client_count += 1
        return node_id(role, self.client_count)

    def note_number(self, node: NodeId) -> None:
        """Clients and admins get numbers above all that were seen."""
        if role_of(node) != Role.STORAGE:
            self.client_count = max(self.client_count, node & 0xFFFFFF)

    def storage_id(self, name: str) -> NodeId:
        """Return the id that the configuration gives to that storage, if it is free; else a new one."""
        taken = set(self.peers(Role.STORAGE)) | self.newest_known_nodes() | self.given
        # One that is away, and has no cells, has its id all the same.
        taken |= {n.node for n in self.nodes.select(Role.STORAGE) if n.name != name}
        wanted = next((s.node for s in self.settings.storages if s.name == name), NO_NODE)
        if wanted == NO_NODE or wanted in taken:
            reserved = {s.node for s in self.settings.storages}
            number = 1
            while node_id(Role.STORAGE, number) in taken | reserved:
                number += 1
            wanted = node_id(Role.STORAGE, number)
        self.given.add(wanted)
        return wanted

    def newest_known_nodes(self) -> set[NodeId]:
        """Return the storages of the table, whose ids nobody else may have: one without id has not their data."""
        table = self.pt if self.pt.partitions else self.newest_table()
        return set() if not self.is_running and self.is_founded_in_vain(table) else set(table.nodes())

    def park(self, connection: int, hello: Hello, reason: str) -> None:
        """Let it wait, within bounds."""
        if len(self.parked) >= self.settings.parked_max:
            self.effects.append(Refuse(connection, RefusalCode.LIMIT, "too many nodes wait to be let in"))
        else:
            self.parked[connection] = (hello, reason)
            self.effects.append(Park(connection, reason))

    def admit_parked(self) -> None:
        """Look again at everybody who waits to be let in: storages by name, so that ids follow names."""
        parked, self.parked = self.parked, {}
        for connection in sorted(parked, key=lambda c: (parked[c][0].role, parked[c][0].name, c)):
            before = len(self.effects)
            hello, reason = parked[connection]
            self.greet(connection, hello)
            if self.effects[before:] == [Park(connection, reason)]:
                del self.effects[before:]  # it knows

    # ------------------------------------------------------------------------------------------ connections

    def peer_connected(self, peer: NodeId, hello: Hello) -> None:
        """A peer has passed the handshake."""
        if peer in self.connected:
            self.peer_lost(peer, "it has connected again")
        role = role_of(peer)
        if role == Role.MASTER and all(m.node != peer or peer == self.me for m in self.masters):
            self.effects.append(Disconnect(peer, "it is not another master of the configuration"))
            return
        if role != Role.MASTER and not self.is_primary and not (role == Role.ADMIN and hello.capabilities):
            self.effects.append(Disconnect(peer, "this master is not primary"))
            return
        self.connected[peer] = hello
        self.seen_epoch = max(self.seen_epoch, hello.epoch) if role in (Role.MASTER, Role.STORAGE) else self.seen_epoch
        if self.is_primary:
            self.node_connected(peer, hello)
        if role == Role.MASTER:
            self.master_connected(peer)
        elif role == Role.ADMIN and self.is_primary:
            self.tell_nodes(peer)
            self.send(peer, Cluster(self.state, self.reason))
        elif role == Role.CLIENT and not self.is_running:
            self.send(peer, Cluster(self.state, self.reason))

    def peer_lost(self, peer: NodeId, reason: str) -> None:
        """A connection is gone."""
        del self.connected[peer]
        self.sent_pt.pop(peer, None)
        role = role_of(peer)
        if self.is_primary:
            self.node_lost(peer, reason)
            self.packs_peer_lost(peer)
        if role == Role.MASTER:
            self.register_lost(peer)
            self.covered_until = Seconds(0.0)
            self.master_lost(peer)
        elif role == Role.CLIENT:
            self.client_lost(peer)
        elif role == Role.STORAGE:
            self.storage_lost(peer)

    def storage_lost(self, storage: NodeId) -> None:
        """The connection to a storage is gone: its lease too, as it may have seen us close it."""
        self.said_hello.discard(storage)
        self.storage_states.pop(storage, None)
        self.lease_until.pop(storage, None)
        self.covered_until = Seconds(0.0)
        self.obeying.discard(storage)
        self.adopted.discard(storage)
        self.fence_sent.pop(storage, None)
        self.copies_storage_lost(storage)
        self.readiness.node_changed(storage, False)
        if self.stop_told is not None:
            self.stop_told.discard(storage)
            self.check_stop()
        if not self.is_primary or self.state is ClusterState.STOPPING:
            return
        if not self.is_running:
            self.recovery_storage_lost(storage)
            return
        self.table_storage_lost(storage)
        self.seek_elsewhere(storage)
        self.ceilings_storage_lost(storage)
        self.packs_storage_lost(storage)
        for session in sorted(self.going):
            self.went(session)

    def cut(self, peer: NodeId, reason: str) -> None:
        """Close a connection, and see to what follows from its loss (`Lost` does not come)."""
        if peer in self.connected:
            self.effects.append(Disconnect(peer, reason))
            self.peer_lost(peer, reason)

    def send_away(self, peer: NodeId, reason: str) -> None:
        """Close a connection that should not have been: tell the operator too."""
        self.log(ERROR, f"{self.text(peer)} is sent away: {reason}")
        self.cut(peer, reason)

    # ------------------------------------------------------------------------------------------ the cluster

    def set_state(self, state: ClusterState, reason: str = "") -> None:
        """Change the state of the cluster, or its reason, and tell everybody."""
        check_cluster(self.state, state)
        if state != self.state:
            self.log(INFO, f"{self.state.name} -> {state.name}" + (f": {reason}" if reason else ""))
        elif reason and reason != self.reason:
            self.log(INFO, f"{state.name}: {reason}")
        self.state, self.reason = state, reason
        if self.told_state != (state, reason):
            self.told_state = (state, reason)
            packet = Cluster(state, reason)
            for peer in sorted(self.connected):
                if role_of(peer) != Role.MASTER:
                    self.send(peer, packet)

    def explain_running(self) -> None:
        """Say what is missing while the cluster runs; nothing when all is well."""
        if self.state is ClusterState.RUNNING:
            missing = self.readiness.rows_not_ready
            absent = [n for n in sorted(self.pt.readable_nodes()) if n not in self.adopted]
            reason = f"{missing} partitions have no readable cell: waits for {self.texts(absent)}" if missing else ""
            if reason != self.reason:
                self.set_state(ClusterState.RUNNING, reason)

    def on_storage_state(self, storage: NodeId, packet: StorageState) -> None:
        """A storage tells of itself."""
        former = self.storage_states.get(storage)
        self.storage_states[storage] = packet
        if former is None or former.accepts_votes != packet.accepts_votes:
            info = self.nodes.get(storage)
            if info is not None:
                self.change_node(storage, NodeState(info.state), "" if packet.accepts_votes else packet.reason)
            if not packet.accepts_votes:
                self.log(WARNING, f"{self.text(storage)} refuses votes: {packet.reason}")

    def on_ask_last(self, client: NodeId, packet: AskLast, request: int) -> None:
        """sync(): all invalidations up to the answer are sent before it."""
        if client in self.clients:
            self.to_client(client, AnswerLast(self.last, self.durable), request)
        else:
            self.send(client, Error(ErrorCode.NOT_READY, self.reason or "no session yet"), request)

    def terminate(self, reason: str) -> None:
        """End this process, not the cluster: give up the leases, so that the next primary need not wait for them."""
        self.spread()
        for peer in sorted({*self.obeying, *self.promises} - {self.me}):
            self.send(peer, Resign(self.epoch))
        self.lease_until.clear()
        self.stop_told = set()
        self.effects.append(Exit(0, reason))

    def debug(self) -> dict[str, object]:
        """Return what a person wants to see of the inside: sections of names and values, fit for JSON."""
        return {
            "master": {
                "node": node_text(self.me),
                "place": self.place.value,
                "primary": node_text(self.primary),
                "epoch": self.epoch >> 24,
                "seen_epoch": self.seen_epoch >> 24,
                "state": self.state.name,
                "reason": self.reason,
                "clock_refused": self.clock_refused,
            },
            "peers": {node_text(n): self.connected[n].name for n in sorted(self.connected)},
            "parked": {str(c): f"{hello.name}: {reason}" for c, (hello, reason) in sorted(self.parked.items())},
            "recovery": {
                "replies": [node_text(n) for n in sorted(self.replies)],
                "start_waits_for": None if self.start_need is None else [node_text(n) for n in sorted(self.start_need)],
                "client_hellos": [node_text(n) for n in sorted(self.hellos)],
            },
            "table": {
                "version": str(self.pt.version),
                "stable": str(self.stable_pt.version),
                "waits_for": None if self.pt_need is None else [node_text(n) for n in sorted(self.pt_need)],
                "queued": [repr(c) for c in self.changes],
                "adopted": [node_text(n) for n in sorted(self.adopted)],
            },
            "register": {
                "memory": self.memory.hex(),
                "promised": self.promised >> 24,
                "held": f"{self.register.epoch >> 24}.{self.register.number} table {self.register_table.version}",
                "hears": node_text(self.lease_holder()),
                "heard_by": [node_text(n) for n in sorted(self.promises)],
                "settled": self.holding.debug(),
                "voters": [node_text(v.node) for v in self.voters],
                "held_by": [node_text(n) for n, _ in sorted(self.held)],
                "is_covered": self.is_covered() if self.pt.partitions else None,
                "leases": {
                    node_text(n): round(t - self.now.monotonic, 3) for n, t in sorted(self.master_leases.items())
                },
            },
            "leases": {node_text(n): round(t - self.now.monotonic, 3) for n, t in sorted(self.lease_until.items())},
            "tids": {
                "last": f"{self.last:#x}",
                "durable": f"{self.durable:#x}",
                "ceiling": f"{self.ceilings.tid:#x}",
                "ceilings_wait_for": [node_text(n) for n in sorted(self.ceilings_need)],
                "waiting": len(self.waiting),
                "next_oid": self.next_oid,
            },
            "transactions": {
                "not_durable": {
                    f"{d.tid:#x}": {
                        "storages": [node_text(n) for n in sorted(self.unacked.get(d.ttid, ()))],
                        "client_told": self.is_told(d.ttid),
                    }
                    for d in list(self.undurable)[:100]
                },
                "sealing": [str(t) for t in sorted(self.sealing)],
                "aborting": {str(t): [node_text(n) for n in sorted(a.done)] for t, a in sorted(self.aborting.items())},
                "decided": len(self.decided),
                "aborted": len(self.aborted),
            },
            "sessions": {
                "clients": {node_text(n): f"{s:x}" for n, s in sorted(self.clients.items())},
                "lost": [f"{s:x}" for s in sorted(self.lost)],
                "going": {f"{s:x}": [node_text(n) for n in sorted(t)] for s, t in sorted(self.going.items())},
                "gone": len(self.gone),
            },
        }
