"""A primary that answers admins from a script, on the real runtime: for tests of neo_admin without a cluster."""

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from neo_common.core import Accept, Connected, Greeted, Lost, Received, Refuse, Send
from neo_common.ids import NO_NODE, NodeId, Oid, Partition, Ptid, Seconds, Tid, Version, make_epoch, tid_from_time
from neo_common.model.partition_table import Cell, PartitionTable, whole
from neo_common.runtime.shell import Shell
from neo_common.states import CellState, ClusterState, NodeState, Role, node_id
from neo_common.wire.schema import (
    AnswerChange,
    AnswerChoose,
    AnswerCluster,
    AnswerDrop,
    AnswerMoves,
    AnswerNodes,
    AnswerPack,
    AnswerPackState,
    AnswerReadmit,
    AnswerRecovery,
    AnswerReplication,
    AnswerScrub,
    AnswerStart,
    AnswerStop,
    AnswerTable,
    AnswerTruncate,
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
    Ceilings,
    CellMove,
    Cluster,
    Error,
    ErrorCode,
    Hello,
    NewPT,
    NodeInfo,
    Nodes,
    Packet,
    RefusalCode,
)

M1, S1, S2, A1 = (
    node_id(Role.MASTER, 1),
    node_id(Role.STORAGE, 1),
    node_id(Role.STORAGE, 2),
    node_id(Role.ADMIN, 1),
)
EPOCH = make_epoch(3, M1)
ID = bytes(range(16))
SINCE = 1_700_000_000.0
LAST = tid_from_time(SINCE + 60)
VERSION = Version(EPOCH, Ptid(5))
U, O = CellState.UP_TO_DATE, CellState.OUT_OF_DATE  # noqa: E741  as people see them in a drawing
TABLE = PartitionTable(
    VERSION, 1, [(Cell(S1, U), Cell(S2, U)) if p % 2 else (Cell(S2, U), Cell(S1, U)) for p in range(12)]
)


def info(node: NodeId, name: str, port: int, state: NodeState = NodeState.RUNNING, reason: str = "") -> NodeInfo:
    """Return a node at a port of loopback."""
    return NodeInfo(node, name, f"127.0.0.1:{port}", state, 7, Seconds(SINCE), reason)


NODES = (info(M1, "m1", 10010), info(S1, "s1", 10021), info(S2, "s2", 10022), info(A1, "a1", 10000))
CLUSTER = AnswerCluster(
    "test",
    ID,
    ClusterState.RUNNING,
    "",
    EPOCH,
    M1,
    VERSION,
    12,
    1,
    0,
    LAST,
    LAST,
    Oid(0x2A),
    Ceilings(Tid(LAST + 2**40), Oid(0x1000)),
    4,
    0,
)


class FakeCore:
    """Answers what an admin asks, from attributes that a test may change."""

    def __init__(self) -> None:
        self.cluster = CLUSTER
        self.nodes: tuple[NodeInfo, ...] = NODES
        self.table = TABLE
        self.pack: list[AnswerPackState] = [AnswerPackState(0, Tid(0), Seconds(0.0), 0, 0, 0, 0)]
        self.replication = AnswerReplication((), ())
        self.change = AnswerChange("1 cells to make", (CellMove(Partition(0), NO_NODE, S2),), 1, 1)
        self.moves: list[AnswerMoves] = [AnswerMoves(False, 1, (), 0, 0, 0, 0, "")]
        self.scrub = AnswerScrub((), ())
        self.recovery = AnswerRecovery(ClusterState.RUNNING, "", False, False, (S1,), (M1,), 1, (), whole(TABLE))
        self.chosen = TABLE
        """The table after a choice."""
        self.truncated = TABLE
        """The table after a truncation."""
        self.refuse = ""
        self.asked: list[Packet] = []
        self.admins: dict[NodeId, Hello] = {}
        self._next = 100

    def handle(self, event: object, now: object) -> Sequence[object]:
        """Return the effects of *event*."""
        del now
        match event:
            case Greeted(connection, hello) if hello.role is not Role.ADMIN:
                return [Refuse(connection, RefusalCode.ROLE, "only admins here")]
            case Greeted(connection, hello):
                self._next += 1
                return [Accept(connection, hello.node or node_id(Role.ADMIN, self._next))]
            case Connected(peer, hello):
                self.admins[peer] = hello
                state = Cluster(self.cluster.state, self.cluster.reason)
                return [Send(peer, NewPT(whole(self.table))), Send(peer, Nodes(True, self.nodes)), Send(peer, state)]
            case Lost(peer, _):
                del self.admins[peer]
            case Received(peer, packet, request) if request:
                self.asked.append(packet)
                return [Send(peer, self._answer(packet), request)]
        return []

    def _answer(self, packet: Packet) -> Packet:
        if self.refuse:
            return Error(ErrorCode.ILLEGAL, self.refuse)
        match packet:
            case AskCluster():
                return self.cluster
            case AskNodes():
                return AnswerNodes(self.nodes)
            case AskTable():
                return AnswerTable(whole(self.table))
            case AskScrub():
                return self.scrub
            case AskReplication():
                return self.replication
            case AskStart(reason):
                return AnswerStart(f"starts because of {reason}")
            case AskStop(reason):
                return AnswerStop(f"stops because of {reason}")
            case AskPack(tid, _):
                self.pack = [p._replace(order=9, tid=tid) for p in self.pack]
                return AnswerPack(9, tid)
            case AskChange():
                return self.change
            case AskMoves():
                return self.moves.pop(0) if len(self.moves) > 1 else self.moves[0]
            case AskDrop(_, force, _):
                return AnswerDrop(f"forgotten, force={force}")
            case AskTruncate():
                self.table = self.truncated
                return AnswerTruncate("it is truncated")
            case AskRecovery():
                return self.recovery
            case AskChoose():
                self.table = self.chosen
                return AnswerChoose(77, "an operator has chosen")
            case AskReadmit():
                return AnswerReadmit("let in again")
            case AskPackState():
                return self.pack.pop(0) if len(self.pack) > 1 else self.pack[0]
        raise AssertionError(packet)


class FakeMaster(Shell):
    """A primary at a free port of loopback, running inside a `with`."""

    core: FakeCore

    def __init__(self, listen: str = "127.0.0.1:0") -> None:
        us = Hello(1, 1, (), Role.MASTER, "m1", "test", ID, M1, 7, EPOCH, "")
        super().__init__(FakeCore(), us, [listen])

    @property
    def address(self) -> str:
        """Where it listens."""
        return self.listener.addresses[0]

    def tell(self, packet: Packet) -> None:
        """Tell every admin."""
        for node in sorted(self.core.admins):
            self.by_node[node].notify(packet)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
