"""Which nodes exist, and who is told of them. Pure.

Storages hear of all storages: they dial each other. Clients hear of a storage only when it is ready to serve them, and
from then on of every change. Admins hear of everybody, at most once per tick.
"""

from neo_common.ids import NodeId, Seconds
from neo_common.states import NodeState, Role, role_of
from neo_common.wire.schema import Hello, NodeInfo, Nodes
from neo_master.core.base import MasterBase

_SERVING = (NodeState.RUNNING, NodeState.UNAVAILABLE, NodeState.LEAVING)


class Roster(MasterBase):
    """Keep the node table."""

    def begin_roster(self) -> None:
        """Begin with what the configuration names."""
        for master in self.masters:
            state = NodeState.RUNNING if master.node == self.me or master.node in self.connected else NodeState.UNKNOWN
            self.nodes.add(NodeInfo(master.node, master.name, master.address, state, 0, self.wall, ""))

    @property
    def wall(self) -> Seconds:
        """Return the time that people are shown."""
        return self.now.wall

    def node_connected(self, node: NodeId, hello: Hello) -> None:
        """A node has passed the handshake."""
        state = NodeState.PENDING if role_of(node) in (Role.STORAGE, Role.CLIENT) else NodeState.RUNNING
        info = self.nodes.get(node)
        if info is None:
            new = NodeInfo(node, hello.name, hello.address, NodeState.UNKNOWN, hello.incarnation, self.wall, "")
            self.nodes.add(new)
        self.nodes.change(
            node, self.wall, state, reason="", address=hello.address, name=hello.name, incarnation=hello.incarnation
        )
        self.nodes_changed.add(node)

    def change_node(self, node: NodeId, state: NodeState, reason: str = "") -> None:
        """Change the state of a node, and have it told."""
        if self.nodes.get(node) is not None and self.nodes.change(node, self.wall, state, reason=reason) is not None:
            self.nodes_changed.add(node)

    def node_lost(self, node: NodeId, reason: str) -> None:
        """The connection to a node is gone. Clients and admins are forgotten, the others are expected back."""
        info = self.nodes.get(node)
        if info is None:
            return
        if role_of(node) in (Role.CLIENT, Role.ADMIN):
            self.nodes.remove(node)
            self.nodes_changed.discard(node)
            self.admins_outdated = True
        elif info.state in (NodeState.RUNNING, NodeState.LEAVING):
            self.change_node(node, NodeState.UNAVAILABLE, reason)
        elif info.state is NodeState.PENDING:
            self.change_node(node, NodeState.UNKNOWN, reason)

    def name_table_nodes(self) -> None:
        """Have every node of the partition table in the node table."""
        for node in sorted(self.pt.nodes()):
            if node not in self.nodes:
                name = next((s.name for s in self.settings.storages if s.node == node), "")
                reason = "not heard of since this primary took over"
                self.nodes.add(NodeInfo(node, name, "", NodeState.UNKNOWN, 0, self.wall, reason))
                self.nodes_changed.add(node)

    # ------------------------------------------------------------------------------------------ telling

    def nodes_for_clients(self) -> tuple[NodeInfo, ...]:
        """Return the storages that clients may know."""
        return self.nodes.select(Role.STORAGE, *_SERVING)

    def tell_nodes(self, peer: NodeId) -> None:
        """Send the node table, as far as it concerns a storage or an admin."""
        if role_of(peer) == Role.STORAGE:
            self.send(peer, Nodes(True, self.nodes.select(Role.STORAGE)))
        else:
            self.send(peer, Nodes(True, tuple(self.nodes)))

    def tell_node_changes(self) -> None:
        """Tell storages and clients what has changed of the storages, with this event."""
        changed, self.nodes_changed = self.nodes_changed, set()
        if not changed:
            return
        self.admins_outdated = True
        infos = tuple(self.nodes[n] for n in sorted(changed) if role_of(n) == Role.STORAGE and n in self.nodes)
        if not infos:
            return
        packet = Nodes(False, infos)
        for storage in sorted(self.obeying):
            self.send(storage, packet)
        serving = tuple(i for i in infos if i.state in _SERVING)
        if serving:
            packet = Nodes(False, serving)
            for client in sorted(self.clients):
                self.send(client, packet)

    def tell_admins(self) -> None:
        """Tell admins, if anything has changed since the last tick."""
        if self.admins_outdated:
            self.admins_outdated = False
            packet = Nodes(True, tuple(self.nodes))
            for admin in self.peers(Role.ADMIN):
                self.send(admin, packet)
