"""The admin daemon: what it knows of the cluster, and whom it asks for whom. Pure.

It follows the primary and keeps nodes, table and state as they are told. What a neoadmin asks is relayed to the primary
and its answer back: an admin never answers from memory what may have changed, and never decides anything. Without a
primary it answers at once that there is none, and why.
"""

from typing import Final, NamedTuple

from neo_common.core import Connected, Log, Lost, Received, Send, Tick
from neo_common.errors import NeoError, RemoteProtocolError, RequestFailed
from neo_common.ids import NodeId
from neo_common.model.partition_table import EMPTY, PartitionTable
from neo_common.states import ClusterState, NodeState, Role, node_text, role_of
from neo_common.wire.schema import (
    AskChange,
    AskChoose,
    AskCluster,
    AskDrop,
    AskMoves,
    AskNodes,
    AskPack,
    AskPackState,
    AskReadmit,
    AskRecovery,
    AskReplication,
    AskScrub,
    AskStart,
    AskStop,
    AskTable,
    AskTruncate,
    Cluster,
    Error,
    ErrorCode,
    NewPT,
    NodeInfo,
    Nodes,
    Packet,
)

INFO: Final = 20
WARNING: Final = 30
"""Levels of `logging`, which a core does not see."""
RELAYED: Final = frozenset(
    (
        AskCluster,
        AskNodes,
        AskTable,
        AskStart,
        AskStop,
        AskPack,
        AskPackState,
        AskReplication,
        AskChange,
        AskMoves,
        AskDrop,
        AskScrub,
        AskTruncate,
        AskRecovery,
        AskChoose,
        AskReadmit,
    )
)
"""The questions that go to the primary."""


class Relay(NamedTuple):
    """Ask the primary what *peer* has asked; `Relayed` follows, once."""

    peer: NodeId
    request: int
    primary: NodeId
    packet: Packet


class Relayed(NamedTuple):
    """What came of a Relay: the answer (perhaps an Error), or why there is none."""

    peer: NodeId
    request: int
    answer: Packet | NeoError


Event = Connected | Lost | Received | Relayed | Tick
Effect = Send | Relay | Log


class AdminCore:
    """What an admin knows.

    Invariants:
      * each question is answered once, by the primary of the moment or with an Error;
      * what is kept (`state`, `nodes`, `table`) is what the last primary has told; it says nothing while there is none.
    """

    def __init__(self) -> None:
        self.primary: NodeId | None = None
        self.state = ClusterState.RECOVERING
        self.reason = ""
        self.nodes: dict[NodeId, NodeInfo] = {}
        self.table: PartitionTable = EMPTY
        self._why = "it was not reached yet"

    def __repr__(self) -> str:
        primary = "-" if self.primary is None else node_text(self.primary)
        return f"<AdminCore primary={primary} {self.state.name} nodes={len(self.nodes)} table={self.table.version}>"

    def handle(self, event: Event, now: object = None) -> list[Effect]:
        """Return the effects of *event*, in the order to perform them; *now* does not matter here."""
        del now
        match event:
            case Received(peer, packet, request) if request:
                return self._asked(peer, packet, request)
            case Received(peer, packet, _):
                return self._told(packet) if peer == self.primary else []
            case Relayed(peer, request, answer):
                return [Send(peer, self._answer(answer), request)]
            case Connected(peer, _) if role_of(peer) is Role.MASTER:
                self.primary = peer
                self.nodes.clear()
                self.table = EMPTY
                return [Log(INFO, f"follows {node_text(peer)}")]
            case Lost(peer, reason) if peer == self.primary:
                self.primary = None
                self._why = reason
                return [Log(WARNING, f"lost the primary {node_text(peer)}: {reason}")]
            case Connected() | Lost() | Tick():
                return []
        raise AssertionError(f"no such event: {event!r}")

    def debug(self) -> dict[str, object]:
        """Return what it knows, for people."""
        return {
            "primary": "" if self.primary is None else node_text(self.primary),
            "state": self.state.name,
            "reason": self.reason,
            "table": str(self.table.version),
            "nodes": {node_text(n): info.state.name for n, info in sorted(self.nodes.items())},
        }

    def _asked(self, peer: NodeId, packet: Packet, request: int) -> list[Effect]:
        if type(packet) not in RELAYED:
            return [Send(peer, Error(ErrorCode.ILLEGAL, f"an admin does not answer {type(packet).__name__}"), request)]
        if self.primary is None:
            return [Send(peer, Error(ErrorCode.NOT_READY, f"this admin has no primary: {self._why}"), request)]
        return [Relay(peer, request, self.primary, packet)]

    def _answer(self, answer: Packet | NeoError) -> Packet:
        if isinstance(answer, RequestFailed):
            return Error(ErrorCode(answer.code), str(answer))
        if isinstance(answer, NeoError):
            return Error(ErrorCode.NOT_READY, str(answer))
        return answer

    def _told(self, packet: Packet) -> list[Effect]:
        match packet:
            case NewPT(table):
                try:
                    self.table = table.apply(self.table)
                except RemoteProtocolError as error:
                    # Only a whole table helps, and it comes with the next connection; questions are relayed anyway.
                    return [Log(WARNING, f"what it knows of the table is out of date: {error}")]
            case Nodes(whole, nodes):
                return self._nodes_told(whole, nodes)
            case Cluster(state, reason):
                changed, self.state, self.reason = state is not self.state, state, reason
                level = INFO if state in (ClusterState.RUNNING, ClusterState.STOPPING) else WARNING
                if changed:
                    return [Log(level, f"the cluster is {state.name}" + (f": {reason}" if reason else ""))]
        return []

    def _nodes_told(self, whole: bool, nodes: tuple[NodeInfo, ...]) -> list[Effect]:
        effects: list[Effect] = []
        if whole:
            known, self.nodes = self.nodes, {}
        else:
            known = self.nodes
        for info in nodes:
            old = known.get(info.node)
            self.nodes[info.node] = info
            is_server = role_of(info.node) in (Role.STORAGE, Role.MASTER)
            if is_server and (old is None or old.state is not info.state):
                level = WARNING if info.state is NodeState.UNAVAILABLE else INFO
                why = f": {info.reason}" if info.reason else ""
                effects.append(Log(level, f"node={node_text(info.node)} is {info.state.name}{why}"))
        return effects
