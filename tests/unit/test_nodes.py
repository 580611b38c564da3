"""The node table: indexes kept on change, legal changes only, differences to broadcast."""

from random import Random

import pytest

from neo_common.errors import IllegalTransition
from neo_common.ids import NodeId, Seconds
from neo_common.model.nodes import NodeTable
from neo_common.states import NODE_CHANGES, NodeState, Role, node_id, role_of
from neo_common.wire.schema import NodeInfo, Nodes

S1, S2, S3 = (node_id(Role.STORAGE, n) for n in (1, 2, 3))
M1, C1 = node_id(Role.MASTER, 1), node_id(Role.CLIENT, 1)
T1, T2 = Seconds(1.0), Seconds(2.0)


def info(node: NodeId, state: NodeState = NodeState.PENDING, address: str = "", name: str = "") -> NodeInfo:
    return NodeInfo(node, name, address, state, 7, T1, "")


def test_nodes_are_found_by_everything_that_names_them() -> None:
    table = NodeTable(
        [info(S2, NodeState.RUNNING, "h:2", "s2"), info(S1, address="h:1", name="s1"), info(M1, name="s1")]
    )
    assert [n.node for n in table] == [S1, S2, M1]
    assert [n.node for n in table.select(Role.STORAGE)] == [S1, S2]
    assert [n.node for n in table.select(Role.STORAGE, NodeState.RUNNING)] == [S2]
    assert [n.node for n in table.select(Role.STORAGE, NodeState.RUNNING, NodeState.PENDING)] == [S1, S2]
    assert table.by_address("h:2") == table[S2]
    assert table.by_name(Role.STORAGE, "s1") == table[S1]
    assert table.by_name(Role.MASTER, "s1") == table[M1]
    assert table.by_name(Role.CLIENT, "s1") is None
    assert table.by_address("") is None
    assert (table.count(Role.STORAGE), table.count(Role.STORAGE, NodeState.RUNNING)) == (2, 1)
    assert table.take_changes() is None


def test_change_keeps_the_indexes_and_the_time_of_the_state() -> None:
    table = NodeTable([info(S1, address="h:1", name="s1")])
    changed = table.change(S1, T2, NodeState.RUNNING, reason="adopted", address="h:9", incarnation=8)
    assert changed == NodeInfo(S1, "s1", "h:9", NodeState.RUNNING, 8, T2, "adopted")
    assert table.by_address("h:1") is None
    assert table.by_address("h:9") == changed
    assert table.select(Role.STORAGE, NodeState.PENDING) == ()
    renamed = table.change(S1, Seconds(3.0), name="other")
    assert renamed is not None
    assert renamed.since == T2  # the state is as old as it was


def test_a_new_state_forgets_the_reason_of_the_old_one() -> None:
    table = NodeTable([info(S1)])
    table.change(S1, T1, NodeState.RUNNING, reason="adopted")
    lost = table.change(S1, T2, NodeState.UNAVAILABLE)
    assert lost is not None
    assert lost.reason == ""


@pytest.mark.parametrize("old", NodeState)
@pytest.mark.parametrize("new", NodeState)
def test_only_legal_changes_are_made(old: NodeState, new: NodeState) -> None:
    table = NodeTable([info(S1, old)])
    if old == new:
        assert table.change(S1, T2, new) is None
    elif (old, new) in NODE_CHANGES:
        table.change(S1, T2, new)
        assert table[S1].state == new
    else:
        with pytest.raises(IllegalTransition, match="S1"):
            table.change(S1, T2, new, address="h:5")
        assert table[S1] == info(S1, old)
        assert table.by_address("h:5") is None
        assert table.take_changes() is None


def test_changes_are_told_once_and_only_if_something_differs() -> None:
    table = NodeTable([info(S1), info(S2)])
    assert table.change(S1, T2, NodeState.PENDING, reason="") is None
    assert table.take_changes() is None
    table.change(S2, T2, NodeState.RUNNING)
    table.change(S1, T2, NodeState.RUNNING)
    table.add(info(C1))
    assert table.take_changes() == Nodes(False, (table[S1], table[S2], table[C1]))
    assert table.take_changes() is None


def test_a_removal_is_told_by_the_whole_table() -> None:
    table = NodeTable([info(S1, address="h:1"), info(S2)])
    table.connect(S1, 4)
    table.remove(S1)
    table.remove(S1)
    assert table.node_of(4) is None
    assert table.by_address("h:1") is None
    assert S1 not in table
    assert table.take_changes() == Nodes(True, (table[S2],))


def test_who_hears_of_changes_has_the_same_table() -> None:
    """Random changes here, applied there from the differences: both tables and all indexes agree."""
    rng = Random(5)
    source, target = NodeTable(), NodeTable()
    nodes = [node_id(role, n) for role in Role for n in range(1, 5)]
    for step in range(2000):
        node = rng.choice(nodes)
        known = source.get(node)
        if known is None:
            source.add(info(node, rng.choice(list(NodeState)), f"h:{rng.randrange(9)}", f"n{rng.randrange(9)}"))
        elif rng.random() < 0.1:
            source.remove(node)
        else:
            state = rng.choice([new for old, new in sorted(NODE_CHANGES) if old == known.state])
            source.change(node, Seconds(step), state, address=f"h:{rng.randrange(9)}", name=f"n{rng.randrange(9)}")
        if rng.random() < 0.3:
            update = source.take_changes()
            if update is not None:
                target.apply(update)
            assert list(target) == list(source)
            for table in (source, target):
                check_indexes(table)


def check_indexes(table: NodeTable) -> None:
    """Compare every index with a scan."""
    every = list(table)
    for role in Role:
        assert [n for n in every if role_of(n.node) == role] == list(table.select(role))
        for state in NodeState:
            found = table.select(role, state)
            assert [n for n in every if role_of(n.node) == role and n.state == state] == list(found)
            assert table.count(role, state) == len(found)
        for name in {n.name for n in every}:
            at_name = table.by_name(role, name)
            assert at_name is None or (at_name in every and at_name.name == name)
    for address in {n.address for n in every}:
        at_address = table.by_address(address)
        assert at_address is None or (at_address in every and at_address.address == address)


def test_apply_tells_what_differs() -> None:
    table = NodeTable([info(S1), info(S2), info(S3)])
    new = info(S2, NodeState.RUNNING)
    assert table.apply(Nodes(False, (info(S1), new))) == (new,)
    assert table.apply(Nodes(True, (info(S1), new))) == ()
    assert [n.node for n in table] == [S1, S2]


def test_the_last_claim_to_an_address_counts() -> None:
    table = NodeTable([info(S1, address="h:1", name="a"), info(S2, address="h:1", name="a")])
    assert table.by_address("h:1") == table[S2]
    table.remove(S1)
    assert table.by_address("h:1") == table[S2]
    assert table.by_name(Role.STORAGE, "a") == table[S2]


def test_a_connection_belongs_to_one_node() -> None:
    table = NodeTable([info(S1), info(S2)])
    assert table.connect(S1, 1) is None
    assert table.connect(S1, 2) == 1
    assert table.node_of(1) is None
    assert (table.node_of(2), table.connection(S1)) == (S1, 2)
    assert table.disconnect(S1) == 2
    assert table.disconnect(S1) is None
    assert table.node_of(2) is None


def test_free_id_is_the_smallest() -> None:
    table = NodeTable([info(S1), info(S3)])
    assert table.free_id(Role.STORAGE) == S2
    assert table.free_id(Role.CLIENT) == C1


def test_an_id_is_added_once() -> None:
    table = NodeTable([info(S1)])
    with pytest.raises(ValueError, match="S1"):
        table.add(info(S1))
