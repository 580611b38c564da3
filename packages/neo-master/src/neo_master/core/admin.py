"""Orders of people, each with its reason and checked against what is legal now; imports; stopping. Pure."""

from neo_common.ids import NO_NODE, NO_TID, NodeId, Oid, Partition, Seconds
from neo_common.model.partition_table import whole
from neo_common.states import CLUSTER_CHANGES, ClusterState, Role, node_text, role_of
from neo_common.wire.schema import (
    AnswerCluster,
    AnswerImport,
    AnswerNodes,
    AnswerReplication,
    AnswerStart,
    AnswerStop,
    AnswerTable,
    AskCluster,
    AskImport,
    AskNodes,
    AskReplication,
    AskStart,
    AskStop,
    AskTable,
    CellCopy,
    Error,
    ErrorCode,
    NodeCopy,
    Resign,
    Stop,
)
from neo_master.core.base import MasterBase
from neo_master.core.effects import INFO, WARNING, Exit


class Admin(MasterBase):
    """Answer people."""

    # ------------------------------------------------------------------------------------------ questions

    def on_ask_cluster(self, peer: NodeId, packet: AskCluster, request: int) -> None:
        """Answer with the cluster in a few figures."""
        table = self.pt if self.pt.partitions else self.newest_table()
        self.send(
            peer,
            AnswerCluster(
                name=self.settings.cluster,
                cluster_id=self.known_cluster_id(),
                state=self.state,
                reason=self.reason,
                epoch=self.epoch,
                primary=self.primary,
                version=table.version,
                partitions=table.partitions,
                replicas=table.replicas,
                rows_not_ready=self.readiness.rows_not_ready if self.pt.partitions else table.partitions,
                last_tid=self.last,
                durable_tid=self.durable,
                last_oid=Oid(max(self.next_oid, 1) - 1),
                ceilings=self.ceilings,
                clients=len(self.clients),
                transactions=len(self.sealing) + len(self.aborting) + len(self.undurable) + len(self.waiting),
            ),
            request,
        )

    def on_ask_nodes(self, peer: NodeId, packet: AskNodes, request: int) -> None:
        """Answer with every node, masters first."""
        order = (Role.MASTER, Role.STORAGE, Role.CLIENT, Role.ADMIN)
        self.send(peer, AnswerNodes(tuple(info for role in order for info in self.nodes.select(role))), request)

    def on_ask_table(self, peer: NodeId, packet: AskTable, request: int) -> None:
        """Answer with the whole table; before RUNNING, with the newest one found."""
        self.send(peer, AnswerTable(whole(self.pt if self.pt.partitions else self.newest_table())), request)

    def on_ask_replication(self, peer: NodeId, packet: AskReplication, request: int) -> None:
        """Answer how far the copies of cells are."""
        copies = tuple(NodeCopy(n, c) for n, cells in sorted(self.copying.items()) for c in cells)
        told = {(c.node, c.copy.partition) for c in copies}
        waiting = tuple(
            NodeCopy(node, CellCopy(Partition(p), NO_NODE, NO_TID, NO_TID, 0, 0, 0, 0))
            for p, row in enumerate(self.pt.rows)
            for node, state in row
            if not state.is_readable and (node, p) not in told
        )
        self.send(peer, AnswerReplication(copies, waiting), request)

    # ------------------------------------------------------------------------------------------ start

    def on_ask_start(self, peer: NodeId, packet: AskStart, request: int) -> None:
        """Make the first table with the storages that are there."""
        names = frozenset(self.names_there())
        if self.state is not ClusterState.RECOVERING:
            self.illegal(peer, request, f"the cluster is {self.state.name}: it has been started")
        elif self.newest_table().partitions:
            text = f"the cluster has a partition table, and starts by itself: it {self.reason}"
            self.send(peer, Error(ErrorCode.NOT_READY, text), request)
        elif len(names) < self.settings.replicas + 1:
            there = ", ".join(sorted(names)) or "none"
            text = f"replicas: {self.settings.replicas} needs {self.settings.replicas + 1} storages; there: {there}"
            self.send(peer, Error(ErrorCode.NOT_READY, text), request)
        else:
            self.log(INFO, f"start asked for by {node_text(peer)}: {packet.reason}")
            self.send(peer, AnswerStart(f"starts with {', '.join(sorted(names))}"), request)
            self.begin_founding(names)
            self.try_start()

    # ------------------------------------------------------------------------------------------ import

    def on_ask_import(self, client: NodeId, packet: AskImport, request: int) -> None:
        """Begin or end an import."""
        if not self.is_running or client not in self.clients:
            self.send(client, Error(ErrorCode.NOT_READY, self.reason or "no session yet"), request)
        elif packet.begin and self.state is ClusterState.IMPORTING and self.importer != self.clients[client]:
            self.illegal(client, request, "another client imports: one at a time")
        elif packet.begin and self.state not in (ClusterState.RUNNING, ClusterState.IMPORTING):
            self.illegal(client, request, f"an import needs a cluster that is RUNNING: it is {self.state.name}")
        else:
            if packet.begin and self.state is ClusterState.RUNNING:
                self.importer = self.clients[client]
                self.set_state(ClusterState.IMPORTING, f"{self.text(client)} imports; others read only")
            elif not packet.begin and self.importer == self.clients[client]:
                self.end_import("it has ended")
            self.import_asked.append((client, request))
            self.settle_import()

    def end_import(self, why: str) -> None:
        """The import is over: others may write again as soon as all of it is durable."""
        self.importer = None
        if self.state is ClusterState.IMPORTING:
            self.log(INFO, f"import: {why}")
            self.settle_import()

    def settle_import(self) -> None:
        """Begin or end an import when what was committed before is durable, and nothing is about to be.

        So recovery never has to find tids, that were not given, between or below some that were.
        """
        is_ending = self.state is ClusterState.IMPORTING and self.importer is None
        if not (self.import_asked or is_ending) or self.sealing or self.waiting:
            return
        if any(self.unacked.get(decision.ttid) for decision in self.undurable):
            return
        if is_ending:
            self.set_state(ClusterState.RUNNING)
        asked, self.import_asked = self.import_asked, []
        for client, request in asked:
            self.to_client(client, AnswerImport(self.last), request)

    # ------------------------------------------------------------------------------------------ stop

    def on_ask_stop(self, peer: NodeId, packet: AskStop, request: int) -> None:
        """Stop the cluster cleanly."""
        if (self.state, ClusterState.STOPPING) not in CLUSTER_CHANGES and self.state is not ClusterState.STOPPING:
            self.illegal(peer, request, f"a cluster that is {self.state.name} cannot be stopped")
            return
        self.send(peer, AnswerStop("it stops" if self.stop_deadline is None else "it stops already"), request)
        self.begin_stop(packet.reason or "an operator has asked for it")

    def begin_stop(self, reason: str) -> None:
        """No new transactions; wait for those in flight."""
        if self.stop_deadline is None:
            self.stop_deadline = Seconds(self.now.monotonic + self.settings.stop_s)
            self.set_state(ClusterState.STOPPING, reason)
            self.check_stop()

    def in_flight(self) -> int:
        """Return how many transactions are under way: sealing, aborting, waiting, or not durable everywhere there."""
        waits = sum(1 for nodes in self.unacked.values() if nodes & self.obeying)
        return len(self.sealing) + len(self.aborting) + len(self.waiting) + waits

    def check_stop(self) -> None:
        """Go on with stopping: first what is in flight, then the storages, then we."""
        if self.stop_deadline is None:
            return
        is_late = self.now.monotonic >= self.stop_deadline
        if self.stop_told is None:
            if self.in_flight() and not is_late:
                return
            if self.in_flight():
                text = f"stops with {self.in_flight()} transactions in flight: the next start decides about them"
                self.log(WARNING, text)
            self.spread()
            self.stop_told = set(self.peers(Role.STORAGE))
            self.stop_deadline = Seconds(self.now.monotonic + self.settings.stop_s)
            self.lease_until.clear()
            for node in sorted(self.connected):
                if role_of(node) in (Role.STORAGE, Role.MASTER):
                    if node in self.obeying:
                        self.send(node, Resign(self.epoch))
                    self.send(node, Stop(self.reason))
            is_late = False
        if not self.stop_told or is_late:
            if self.stop_told:
                self.log(WARNING, "some storages have not stopped in time")
            self.stop_deadline = None
            self.effects.append(Exit(0, self.reason))

    def on_stop(self, peer: NodeId, packet: Stop) -> None:
        """The primary says that the cluster stops: so does this master."""
        if peer == self.primary and not self.is_primary:
            self.effects.append(Exit(0, packet.reason))

    def illegal(self, peer: NodeId, request: int, text: str) -> None:
        """Answer that this is not legal now, and what is."""
        self.send(peer, Error(ErrorCode.ILLEGAL, text), request)
