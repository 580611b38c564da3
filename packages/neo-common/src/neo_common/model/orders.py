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
CHOICES_MAX: Final = 64
"""So many times an operator may choose in the life of a cluster: each is remembered for ever."""
REASON_BYTES: Final = 200
_BALANCING: Final = 1
_CHOSEN: Final = 2


class Choice(NamedTuple):
    """A partition table that an operator has chosen, after which what others had counts no more (docs/masters.md)."""

    id: int
    """By chance: two that were made without knowledge of each other are not taken for one."""
    at: int
    """Unix time."""
    table: Version
    """The table that was chosen."""
    last: Tid
    """The last tid that was kept."""
    known: Tid
    """The highest tid that anybody knew of: above `last` up to here all is lost; at least, as others may know more."""
    reason: str
    """Why, as the operator has said: at most REASON_BYTES of UTF-8."""


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
    choices: tuple[Choice, ...] = ()
    """The choices of operators, oldest first: they name the line of history that this table belongs to."""
    readmitted: tuple[NodeId, ...] = ()
    """Storages of before the last choice that are let in all the same, ascending: what they alone have is discarded."""

    @property
    def line(self) -> tuple[int, ...]:
        """The ids of the choices. A line goes on from another one if it begins with it."""
        return tuple(c.id for c in self.choices)


def is_beginning(line: tuple[int, ...], of: tuple[int, ...]) -> bool:
    """Return whether the line *of* is *line*, or goes on from it.

    >>> is_beginning((), (5,)), is_beginning((5,), (5,)), is_beginning((5,), (6, 5))
    (True, True, False)
    """
    return of[: len(line)] == line


NO_ORDERS: Final = Orders()


def to_numbers(orders: Orders) -> list[int]:
    """Return *orders* as numbers. Raises: LocalProtocolError when one does not fit."""
    if not isinstance(orders, Orders):
        raise LocalProtocolError(f"orders: a {type(orders).__name__} where Orders is wanted")
    leaving, is_balancing, cut_at, cut, choices, readmitted = orders
    types = (leaving, tuple), (is_balancing, bool), (cut_at, Version), (choices, tuple), (readmitted, tuple)
    if not all(isinstance(value, kind) for value, kind in types):
        raise LocalProtocolError("orders: a value of another type")
    if len(choices) > CHOICES_MAX:
        raise LocalProtocolError(f"orders: {len(choices)} choices, {CHOICES_MAX} are the limit")
    is_chosen = bool(choices or readmitted)
    kinds = (_BALANCING if is_balancing else 0) | (_CHOSEN if is_chosen else 0)
    numbers = [kinds, *cut_at, cut, *_nodes_to_numbers(leaving)]
    if is_chosen:
        numbers.append(len(choices))
        for choice in choices:
            numbers += _choice_to_numbers(choice)
        numbers += _nodes_to_numbers(readmitted)
    if any(not isinstance(n, int) or isinstance(n, bool) or not 0 <= n <= _U64_MAX for n in numbers):
        raise LocalProtocolError("orders: a number that does not fit")
    return numbers


def _nodes_to_numbers(nodes: tuple[NodeId, ...]) -> list[int]:
    numbers = [len(nodes)]
    last = -1
    for node in nodes:
        if not isinstance(node, int) or isinstance(node, bool) or not last < node <= _U32_MAX:
            raise LocalProtocolError(f"orders: node {node!r} after {last}")
        numbers.append(node - last - 1)
        last = node
    return numbers


def _choice_to_numbers(choice: Choice) -> list[int]:
    if not isinstance(choice, Choice) or not isinstance(choice.table, Version) or not isinstance(choice.reason, str):
        raise LocalProtocolError(f"orders: {choice!r} is no choice")
    reason = choice.reason.encode()
    if len(reason) > REASON_BYTES:
        raise LocalProtocolError(f"orders: a reason of {len(reason)} bytes, {REASON_BYTES} are the limit")
    return [choice.id, choice.at, *choice.table, choice.last, choice.known, len(reason), *reason]


def from_numbers(get: Callable[[str, int], int]) -> Orders:
    """Return the orders that *get* reads: it takes what a number is called and its top.

    Raises: RemoteProtocolError when they are none, or none at all (then they are not written).
    """
    kinds = get("kinds of orders", _BALANCING | _CHOSEN)
    cut_at = _version(get, "cut")
    cut = Tid(get("cut", _U64_MAX))
    leaving = _nodes(get, "leaving")
    choices: list[Choice] = []
    readmitted: tuple[NodeId, ...] = ()
    if kinds & _CHOSEN:
        for _ in range(get("choices", CHOICES_MAX)):
            choices.append(_choice(get))
        readmitted = _nodes(get, "readmitted")
    orders = Orders(leaving, bool(kinds & _BALANCING), cut_at, cut, tuple(choices), readmitted)
    if bool(kinds & _CHOSEN) != bool(choices or readmitted):
        raise RemoteProtocolError("choices are announced, and there are none")
    if orders == NO_ORDERS:
        raise RemoteProtocolError("orders are announced, and there are none")
    return orders


def _version(get: Callable[[str, int], int], what: str) -> Version:
    return Version(Epoch(get(f"{what} epoch", _U64_MAX)), Ptid(get(f"{what} ptid", _U64_MAX)))


def _nodes(get: Callable[[str, int], int], what: str) -> tuple[NodeId, ...]:
    nodes: list[NodeId] = []
    last = -1
    for _ in range(get(what, _NODES_MAX)):
        last += 1 + get("node", _U32_MAX)
        if last > _U32_MAX:
            raise RemoteProtocolError(f"node: {last:#x} is outside 0..{_U32_MAX:#x}")
        nodes.append(NodeId(last))
    return tuple(nodes)


def _choice(get: Callable[[str, int], int]) -> Choice:
    number, at = get("choice", _U64_MAX), get("time", _U64_MAX)
    table = _version(get, "chosen")
    last, known = Tid(get("last", _U64_MAX)), Tid(get("known", _U64_MAX))
    reason = bytes(get("reason", 255) for _ in range(get("reason", REASON_BYTES)))
    try:
        return Choice(number, at, table, last, known, reason.decode())
    except UnicodeDecodeError:
        raise RemoteProtocolError("a reason that is not UTF-8") from None
