"""The node table: who exists, in which role and state. Pure.

Indexes by role, state, address and name are kept on change, never searched for. Each change of state is checked against
`states`; what changed is collected, so that a difference can be broadcast. A connection belongs to its node.
"""

from collections.abc import Iterable, Iterator

from neo_common.errors import IllegalTransition
from neo_common.ids import NodeId, Seconds
from neo_common.states import NodeState, Role, check_node, node_text, role_of
from neo_common.wire.schema import NodeInfo, Nodes


class NodeTable:
    """Nodes by id, with indexes.

    Invariants:
      * every index holds exactly the nodes of the table;
      * an address, and a name within a role, belong to one node at most: the last one that claimed it;
      * iteration is always by ascending id.
    """

    def __init__(self, nodes: Iterable[NodeInfo] = ()) -> None:
        self._nodes: dict[NodeId, NodeInfo] = {}
        self._by_role: dict[Role, set[NodeId]] = {role: set() for role in Role}
        self._by_state: dict[NodeState, set[NodeId]] = {state: set() for state in NodeState}
        self._by_address: dict[str, NodeId] = {}
        self._by_name: dict[tuple[Role, str], NodeId] = {}
        self._connections: dict[NodeId, int] = {}
        self._nodes_connected: dict[int, NodeId] = {}
        self._changed: set[NodeId] = set()
        self._removed = False
        for info in nodes:
            self.add(info)
        self._changed.clear()

    def __repr__(self) -> str:
        return f"<NodeTable {' '.join(f'{node_text(n.node)}:{n.state.name}' for n in self)}>"

    def __len__(self) -> int:
        return len(self._nodes)

    def __contains__(self, node: NodeId) -> bool:
        return node in self._nodes

    def __getitem__(self, node: NodeId) -> NodeInfo:
        """Return *node*. Raises: KeyError."""
        return self._nodes[node]

    def __iter__(self) -> Iterator[NodeInfo]:
        """Yield every node, by ascending id."""
        return iter([self._nodes[node] for node in sorted(self._nodes)])

    def get(self, node: NodeId) -> NodeInfo | None:
        """Return *node*, None if there is no such node."""
        return self._nodes.get(node)

    def select(self, role: Role, *states: NodeState) -> tuple[NodeInfo, ...]:
        """Return the nodes of *role*, those in one of *states* if any are given, by ascending id."""
        found = self._by_role[role]
        if states:
            found = set[NodeId]().union(*(self._by_state[state] & found for state in states))
        return tuple(self._nodes[node] for node in sorted(found))

    def count(self, role: Role, state: NodeState | None = None) -> int:
        """Return how many nodes have that role (and state)."""
        return len(self._by_role[role] if state is None else self._by_role[role] & self._by_state[state])

    def by_address(self, address: str) -> NodeInfo | None:
        """Return the node that listens at *address*, None if none does."""
        node = self._by_address.get(address)
        return None if node is None else self._nodes[node]

    def by_name(self, role: Role, name: str) -> NodeInfo | None:
        """Return the node of *role* with that configured name."""
        node = self._by_name.get((role, name))
        return None if node is None else self._nodes[node]

    def free_id(self, role: Role) -> NodeId:
        """Return the smallest id of *role* that is not in the table."""
        number = 1
        while NodeId(role << 24 | number) in self._nodes:
            number += 1
        return NodeId(role << 24 | number)

    # ------------------------------------------------------------------------------------------ changes

    def add(self, info: NodeInfo) -> None:
        """Add a node. Raises: ValueError if its id is taken."""
        if info.node in self._nodes:
            raise ValueError(f"{node_text(info.node)} is in the table already")
        self._put(info)

    def change(
        self,
        node: NodeId,
        now: Seconds,
        state: NodeState | None = None,
        *,
        reason: str | None = None,
        address: str | None = None,
        name: str | None = None,
        incarnation: int | None = None,
    ) -> NodeInfo | None:
        """Change what is given; return the node if anything differs, else None. `since` becomes *now* with a new state.

        Raises: KeyError; IllegalTransition if *node* may not go to *state*.
        """
        old = self._nodes[node]
        new = old
        if state is not None and state != old.state:
            try:
                check_node(old.state, state)
            except IllegalTransition as error:
                raise IllegalTransition(f"{node_text(node)}: {error}") from None
            new = new._replace(state=state, since=now, reason="")
        if reason is not None:
            new = new._replace(reason=reason)
        if address is not None:
            new = new._replace(address=address)
        if name is not None:
            new = new._replace(name=name)
        if incarnation is not None:
            new = new._replace(incarnation=incarnation)
        if new == old:
            return None
        self._put(new)
        return new

    def remove(self, node: NodeId) -> None:
        """Forget *node* and its connection; unknown nodes are ignored."""
        info = self._nodes.get(node)
        if info is None:
            return
        self._drop(info)
        del self._nodes[node]
        self.disconnect(node)
        self._changed.discard(node)
        self._removed = True

    def apply(self, update: Nodes) -> tuple[NodeInfo, ...]:
        """Take what a primary says (its word is not checked for legal changes: some may have been skipped).

        Returns: the nodes that are new or differ, by ascending id. Nodes that are gone are only gone.
        """
        if update.whole:
            told = {info.node for info in update.nodes}
            for node in sorted(self._nodes.keys() - told):
                self.remove(node)
        differ = {info.node: info for info in update.nodes if self._nodes.get(info.node) != info}
        for node in sorted(differ):
            self._put(differ[node])
        return tuple(differ[node] for node in sorted(differ))

    def take_changes(self) -> Nodes | None:
        """Return what has changed since the last call: a difference, the whole after a removal, None if nothing."""
        changed, self._changed = self._changed, set()
        removed, self._removed = self._removed, False
        if removed:
            return self.whole()
        return Nodes(False, tuple(self._nodes[node] for node in sorted(changed))) if changed else None

    def whole(self) -> Nodes:
        """Return the packet that carries all of the table."""
        return Nodes(True, tuple(self))

    # ------------------------------------------------------------------------------------------ connections

    def connect(self, node: NodeId, connection: int) -> int | None:
        """Give *connection* to *node*; return the one that it had, which now belongs to nobody."""
        old = self.disconnect(node)
        self._connections[node] = connection
        self._nodes_connected[connection] = node
        return old

    def disconnect(self, node: NodeId) -> int | None:
        """Take the connection of *node* away; return it."""
        old = self._connections.pop(node, None)
        if old is not None:
            del self._nodes_connected[old]
        return old

    def connection(self, node: NodeId) -> int | None:
        """Return the connection of *node*, None if it has none."""
        return self._connections.get(node)

    def node_of(self, connection: int) -> NodeId | None:
        """Return whose *connection* is, None if nobody's (any more)."""
        return self._nodes_connected.get(connection)

    # ------------------------------------------------------------------------------------------ indexes

    def _put(self, info: NodeInfo) -> None:
        old = self._nodes.get(info.node)
        if old is not None:
            self._drop(old)
        role = role_of(info.node)
        self._nodes[info.node] = info
        self._by_role[role].add(info.node)
        self._by_state[info.state].add(info.node)
        if info.address:
            self._by_address[info.address] = info.node
        if info.name:
            self._by_name[role, info.name] = info.node
        self._changed.add(info.node)

    def _drop(self, info: NodeInfo) -> None:
        role = role_of(info.node)
        self._by_role[role].discard(info.node)
        self._by_state[info.state].discard(info.node)
        if self._by_address.get(info.address) == info.node:
            del self._by_address[info.address]
        if self._by_name.get((role, info.name)) == info.node:
            del self._by_name[role, info.name]
