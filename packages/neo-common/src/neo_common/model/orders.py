"""What operators have ordered of a table and is not done yet. It goes with the table: so it outlives a primary. Pure.

Both packings of tables (`keys`) use what is here: a list of numbers, rare and short.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from neo_common.errors import LocalProtocolError, RemoteProtocolError
from neo_common.ids import NO_TID, NO_VERSION, Epoch, NodeId, Ptid, Tid, Version

_U32_MAX: Final = 2**32 - 1
_U64_MAX: Final = 2**64 - 1
_NODES_MAX: Final = 2**16


class Orders(NamedTuple):
    """The orders that a table carries."""

    leaving: tuple[NodeId, ...] = ()
    """Storages that are drained, ascending."""
    is_balancing: bool = False
    """Whether cells move, until the table is as `balance.plan` wants it."""
    cut_at: Version = NO_VERSION
    """The version with which the cluster was truncated: who has an older table has not done it. NO_VERSION: nothing."""
    cut: Tid = NO_TID
    """Everything above this tid was cut off."""


NO_ORDERS: Final = Orders()


def to_numbers(orders: Orders) -> list[int]:
    """Return *orders* as numbers. Raises: LocalProtocolError when one does not fit."""
    if not isinstance(orders, Orders):
        raise LocalProtocolError(f"orders: a {type(orders).__name__} where Orders is wanted")
    leaving, is_balancing, cut_at, cut = orders
    if not isinstance(leaving, tuple) or not isinstance(is_balancing, bool) or not isinstance(cut_at, Version):
        raise LocalProtocolError("orders: a value of another type")
    numbers = [int(is_balancing), *cut_at, cut, len(leaving)]
    last = -1
    for node in leaving:
        if not isinstance(node, int) or isinstance(node, bool) or not last < node <= _U32_MAX:
            raise LocalProtocolError(f"orders: node {node!r} after {last}")
        numbers.append(node - last - 1)
        last = node
    if any(not isinstance(n, int) or isinstance(n, bool) or not 0 <= n <= _U64_MAX for n in numbers):
        raise LocalProtocolError("orders: a number that does not fit")
    return numbers


def from_numbers(get: Callable[[str, int], int]) -> Orders:
    """Return the orders that *get* reads: it takes what a number is called and its top.

    Raises: RemoteProtocolError when they are none, or none at all (then they are not written).
    """
    is_balancing = bool(get("balancing", 1))
    cut_at = Version(Epoch(get("cut epoch", _U64_MAX)), Ptid(get("cut ptid", _U64_MAX)))
    cut = Tid(get("cut", _U64_MAX))
    leaving: list[NodeId] = []
    last = -1
    for _ in range(get("leaving", _NODES_MAX)):
        last += 1 + get("node", _U32_MAX)
        if last > _U32_MAX:
            raise RemoteProtocolError(f"node: {last:#x} is outside 0..{_U32_MAX:#x}")
        leaving.append(NodeId(last))
    orders = Orders(tuple(leaving), is_balancing, cut_at, cut)
    if orders == NO_ORDERS:
        raise RemoteProtocolError("orders are announced, and there are none")
    return orders
