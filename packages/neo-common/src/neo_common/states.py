"""States of nodes, cells and the cluster, and every legal change between them. Pure.

An illegal change is an error, never a silent repair: `check_node(NodeState.PENDING, NodeState.UNAVAILABLE)` raises.
"""

from enum import IntEnum
from typing import Final

from neo_common.errors import IllegalTransition
from neo_common.ids import NO_NODE, NodeId


class Role(IntEnum):
    """What a node is; the high byte of its id."""

    STORAGE = 1
    MASTER = 2
    CLIENT = 3
    ADMIN = 4


_LETTER = {Role.STORAGE: "S", Role.MASTER: "M", Role.CLIENT: "C", Role.ADMIN: "A"}


def node_id(role: Role, number: int) -> NodeId:
    """Return the id of node *number* (1 to 2**24 - 1) of a role.

    >>> node_text(node_id(Role.STORAGE, 2))
    'S2'
    """
    assert 0 < number < 2**24, number
    return NodeId(role << 24 | number)


def role_of(node: NodeId) -> Role:
    """Return the role that *node* carries in its high byte.

    >>> role_of(node_id(Role.ADMIN, 1)).name
    'ADMIN'
    """
    return Role(node >> 24)


def node_text(node: NodeId) -> str:
    """Return how people write *node*: a letter and a number; `-` for none. Never fails: a peer may have made it up.

    >>> node_text(NO_NODE), node_text(node_id(Role.STORAGE, 2)), node_text(NodeId(0xFF000001))
    ('-', 'S2', '?0xff000001')
    """
    letter = _LETTER.get(node >> 24)  # type: ignore[call-overload]  # a Role is an int
    if letter is None:
        return "-" if node == NO_NODE else f"?{node:#x}"
    return f"{letter}{node & 0xFFFFFF}"


class NodeState(IntEnum):
    """What a node is good for now.

    >>> [s.name for s in NodeState]
    ['UNKNOWN', 'PENDING', 'RUNNING', 'UNAVAILABLE', 'LEAVING']
    """

    UNKNOWN = 0
    """Named in the partition table or the configuration, not heard of since this primary took over."""
    PENDING = 1
    """Connected and identified; holds no cell in service."""
    RUNNING = 2
    """Connected and in service."""
    UNAVAILABLE = 3
    """Was RUNNING, the connection is lost; expected back, never dropped by itself."""
    LEAVING = 4
    """Being drained at the operator's request; serves until its last cell has moved."""


class CellState(IntEnum):
    """What one copy of one partition is good for.

    >>> [s.letter for s in CellState]
    ['O', 'J', 'U', 'F', 'C']
    >>> [s.name for s in CellState if s.is_readable]
    ['UP_TO_DATE', 'FEEDING']
    >>> [s.name for s in CellState if s.is_written]
    ['JOINING', 'UP_TO_DATE', 'FEEDING']
    """

    OUT_OF_DATE = 0
    """New, or was away: pulls history by itself; receives neither votes nor commits."""
    JOINING = 1
    """Has caught up and now takes part in votes; neither read nor counted."""
    UP_TO_DATE = 2
    """Has every committed transaction of its partition. The first one of a row leads it."""
    FEEDING = 3
    """As UP_TO_DATE but never lead; dropped when its replacement is complete."""
    CORRUPTED = 4
    """As OUT_OF_DATE, because a scrub found it different; rebuilt from a good cell."""

    @property
    def letter(self) -> str:
        """One letter, for tables that people read."""
        return self.name[0]

    @property
    def is_readable(self) -> bool:
        """Whether loads may be answered from this cell."""
        return self in (CellState.UP_TO_DATE, CellState.FEEDING)

    @property
    def is_written(self) -> bool:
        """Whether votes and commits must reach this cell."""
        return self in (CellState.UP_TO_DATE, CellState.FEEDING, CellState.JOINING)


class ClusterState(IntEnum):
    """What the cluster does for its clients.

    >>> check_cluster(ClusterState.RECOVERING, ClusterState.VERIFYING)
    >>> check_cluster(ClusterState.RUNNING, ClusterState.VERIFYING)
    Traceback (most recent call last):
    ...
    neo_common.errors.IllegalTransition: the cluster cannot go from RUNNING to VERIFYING
    """

    RECOVERING = 0
    """A primary exists; it collects partition tables and storages until one table is operational."""
    VERIFYING = 1
    """The fate of every voted, undecided transaction is being settled."""
    RUNNING = 2
    """In service."""
    BACKING_UP = 3
    """Follows another cluster; read-only clients are served."""
    IMPORTING = 4
    """One client commits with tids of its own; the others read only."""
    STOPPING = 5
    """No new transactions; those in flight end, then every node stops cleanly."""


_N, _C, _K = NodeState, CellState, ClusterState

NODE_CHANGES: Final = frozenset(
    {
        (_N.UNKNOWN, _N.PENDING),  # it connected
        (_N.UNKNOWN, _N.RUNNING),  # it connected, and the table has cells for it
        (_N.PENDING, _N.RUNNING),  # adopted, or recovery is over
        (_N.PENDING, _N.UNKNOWN),  # it left before it served
        (_N.RUNNING, _N.UNAVAILABLE),  # connection lost
        (_N.RUNNING, _N.LEAVING),  # the operator drains it
        (_N.LEAVING, _N.RUNNING),  # the operator changed his mind
        (_N.LEAVING, _N.UNAVAILABLE),  # connection lost while draining
        (_N.LEAVING, _N.PENDING),  # drained: its last cell has moved
        (_N.RUNNING, _N.PENDING),  # dropped by force: it has no cells any more
        (_N.UNAVAILABLE, _N.PENDING),  # back, not adopted yet
        (_N.UNAVAILABLE, _N.RUNNING),  # back and adopted
    }
)
CELL_CHANGES: Final = frozenset(
    {
        (_C.OUT_OF_DATE, _C.JOINING),  # it has caught up with history
        (_C.JOINING, _C.UP_TO_DATE),  # it has the votes too, durably
        (_C.JOINING, _C.OUT_OF_DATE),  # its join was broken off
        (_C.UP_TO_DATE, _C.OUT_OF_DATE),  # it missed something
        (_C.FEEDING, _C.OUT_OF_DATE),  # it missed something
        (_C.UP_TO_DATE, _C.FEEDING),  # it will be replaced
        (_C.FEEDING, _C.UP_TO_DATE),  # it will stay after all
        (_C.UP_TO_DATE, _C.CORRUPTED),  # a scrub found it wrong
        (_C.FEEDING, _C.CORRUPTED),  # a scrub found it wrong
        (_C.CORRUPTED, _C.OUT_OF_DATE),  # it begins to be rebuilt
    }
)
CLUSTER_CHANGES: Final = frozenset(
    {
        (_K.RECOVERING, _K.VERIFYING),
        (_K.VERIFYING, _K.RUNNING),
        (_K.VERIFYING, _K.BACKING_UP),
        (_K.VERIFYING, _K.RECOVERING),  # a node was lost meanwhile
        (_K.RUNNING, _K.IMPORTING),
        (_K.IMPORTING, _K.RUNNING),
        (_K.BACKING_UP, _K.RECOVERING),
        (_K.RUNNING, _K.RECOVERING),  # a truncation, or the primary was deposed
        (_K.IMPORTING, _K.RECOVERING),
        (_K.RECOVERING, _K.STOPPING),
        (_K.VERIFYING, _K.STOPPING),
        (_K.RUNNING, _K.STOPPING),
        (_K.IMPORTING, _K.STOPPING),
        (_K.BACKING_UP, _K.STOPPING),
    }
)


def check_node(old: NodeState, new: NodeState) -> None:
    """Raise IllegalTransition unless a node may go from *old* to *new*; staying is legal.

    >>> check_node(NodeState.PENDING, NodeState.UNAVAILABLE)
    Traceback (most recent call last):
    ...
    neo_common.errors.IllegalTransition: a node cannot go from PENDING to UNAVAILABLE
    """
    if old != new and (old, new) not in NODE_CHANGES:
        raise IllegalTransition(f"a node cannot go from {old.name} to {new.name}")


def check_cell(old: CellState, new: CellState) -> None:
    """Raise IllegalTransition unless a cell may go from *old* to *new*; staying is legal.

    >>> check_cell(CellState.OUT_OF_DATE, CellState.UP_TO_DATE)
    Traceback (most recent call last):
    ...
    neo_common.errors.IllegalTransition: a cell cannot go from OUT_OF_DATE to UP_TO_DATE
    """
    if old != new and (old, new) not in CELL_CHANGES:
        raise IllegalTransition(f"a cell cannot go from {old.name} to {new.name}")


def check_cluster(old: ClusterState, new: ClusterState) -> None:
    """Raise IllegalTransition unless the cluster may go from *old* to *new*; staying is legal."""
    if old != new and (old, new) not in CLUSTER_CHANGES:
        raise IllegalTransition(f"the cluster cannot go from {old.name} to {new.name}")
