"""Histories as people read them: one line per event, short names for what is long and differs from run to run.

A tid is `t1`, `t2`... in the order in which they appear, a transaction `T1`, a session `s1`, an epoch `e1`; an object
`#3`; a value only its writer.
"""

from __future__ import annotations

import types
from collections.abc import Iterable
from enum import Enum
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from neo_common.core import Connected, Greeted, Lost, Received
from neo_common.ids import Epoch, NodeId, Oid, Session, Tid, Ttid, Version
from neo_common.model.partition_table import TableUpdate
from neo_common.states import CellState, node_text
from neo_common.wire.schema import Data, Hello, Metadata
from support.world import Entry, World

_HIDDEN = frozenset(
    {"metadata", "cluster_id", "nodes", "data", "given_tid", "after", "tentative", "copied_from", "durable"}
)


class Namer:
    """Gives short names, in the order of first use."""

    def __init__(self) -> None:
        self._names: dict[tuple[str, object], str] = {}

    def name(self, letter: str, value: object) -> str:
        """Return the name of *value* among those with that letter; `-` for zero."""
        if not value:
            return "-"
        key = (letter, value)
        if key not in self._names:
            self._names[key] = f"{letter}{sum(1 for k in self._names if k[0] == letter) + 1}"
        return self._names[key]

    def show(self, value: object, hint: Any = None) -> str:
        """Return *value*, of the annotated type *hint*, for people."""
        if get_origin(hint) is Annotated:
            hint = get_args(hint)[0]
        if get_origin(hint) in (Union, types.UnionType):
            hint = next(h for h in get_args(hint) if h is not type(None))
        if value is None:
            return "none"
        if hint is Tid:
            return self.name("t", value)
        if hint is Epoch:
            return self.name("e", value)
        if hint is Session:
            return self.name("s", value)
        if hint is NodeId:
            return node_text(value)  # type: ignore[arg-type]
        if hint is Oid:
            return f"#{value}"
        match value:
            case Ttid():
                return self.name("T", value)
            case Version(epoch, ptid):
                return f"{self.name('e', epoch)}:{ptid}"
            case TableUpdate():
                rows = (
                    "".join(f"{node_text(n)}{CellState(s).letter}" for n, s in row)
                    + ("" if value.base is None else "'")
                    for _, row in value.rows
                )
                return f"[{self.show(value.version)} {' '.join(rows)}]"
            case Data() | Metadata():
                return ".."
            case Enum():
                return value.name
            case bytes():
                return f"{len(value)}B"
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return self._named_tuple(value)
        if isinstance(value, tuple):
            inner = get_args(hint)[0] if get_args(hint) else None
            return "(" + " ".join(self.show(v, inner) for v in value) + ")"
        if isinstance(value, float):
            return f"{value:g}"
        return str(value)

    def _named_tuple(self, value: Any) -> str:
        cls = type(value)
        hints = get_type_hints(cls, include_extras=True)
        fields = [
            f"{name}={self.show(getattr(value, name), hints.get(name))}"
            for name in cls._fields
            if name not in _HIDDEN and getattr(value, name) not in ((), "", None)
        ]
        return f"{cls.__name__}({' '.join(fields)})"


def lines(world: World, entries: Iterable[Entry], *, times: bool = True) -> list[str]:
    """Return readable lines: what was sent, what changed, what went wrong."""
    namer = Namer()
    names = {p.node: p.name for p in world.processes.values()}
    shown = []
    for time, who, what, detail in entries:
        match what, detail:
            case (("sends" | "asks"), (int() as node, packet)):
                peer = NodeId(node)
                text = f"{who} > {names.get(peer, node_text(peer))}  {namer.show(packet)}"
            case "event", (Received() | Greeted()):
                continue
            case "event", Connected(peer, Hello()):
                text = f"{who} connected to {names.get(peer, node_text(peer))}"
            case "event", Lost(peer, reason):
                text = f"{who} lost {names.get(peer, node_text(peer))}: {reason}"
            case "event", _:
                text = f"{who} hears {namer.show(detail)}"
            case "appends", (position, record):
                text = f"{who} logs {position} {namer.show(record)}"
            case _, str():
                text = f"{who} {what} {detail}".rstrip()
            case _:
                text = f"{who} {what} {namer.show(detail)}"
        shown.append(f"{time:9.4f}  {text}" if times else text)
    return shown
