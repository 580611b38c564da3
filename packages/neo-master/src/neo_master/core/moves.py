"""Changing where cells are, at the operator's order: add, drain, drop storages, balance, more or fewer copies. Pure.

An order becomes a *goal*, the table that `balance.plan` wants; `moving.next_rows` makes one safe change after the
other, each when the one before is stable, until the goal is reached. Of an order the table itself carries what must
outlive this primary (`orders`, `replicas`): the next one plans again from where the table is.
"""

from typing import NamedTuple

from neo_common.ids import NodeId, Partition
from neo_common.model import moving
from neo_common.model.balance import Place, Plan, plan
from neo_common.model.orders import Orders
from neo_common.model.partition_table import Row
from neo_common.states import CellState, ClusterState, NodeState, Role, role_of
from neo_common.wire.schema import (
    AnswerChange,
    AnswerDrop,
    AnswerMoves,
    AskChange,
    AskDrop,
    AskMoves,
    CellMove,
    ChangeKind,
    Error,
    ErrorCode,
    Packet,
)
from neo_master.core.base import MasterBase
from neo_master.core.changes import Advance, Begin, Change, Drop
from neo_master.core.effects import INFO, WARNING

_AWAY = (NodeState.UNKNOWN, NodeState.UNAVAILABLE)


class Wanted(NamedTuple):
    """What an order asks for."""

    replicas: int
    leaving: tuple[NodeId, ...]
    added: tuple[NodeId, ...] = ()


class Moves(MasterBase):
    """Take orders about cells, and carry them out."""

    # ------------------------------------------------------------------------------------------ orders

    def on_ask_change(self, peer: NodeId, packet: AskChange, request: int) -> None:
        """Plan, and begin, or only tell."""
        if self.state is not ClusterState.RUNNING:
            text = f"cells are moved while the cluster is RUNNING: it is {self.state.name}"
            self.send(peer, Error(ErrorCode.ILLEGAL, text), request)
            return
        wanted = self.wanted(packet)
        refusal = self.refusal(packet, wanted)
        if refusal is not None:
            self.send(peer, refusal, request)
            return
        orders, _ = self.last_ordered()
        if packet.kind is ChangeKind.PAUSE:
            if not packet.dry_run and orders.is_balancing:
                self.goal = None
                self.begin_order(packet, orders._replace(is_balancing=False), wanted.replicas)
            self.answer_order(peer, request, AnswerChange("no more moves begin", (), 0, 0))
            return
        made = plan(self.pt, self.places(wanted.leaving, wanted.added), wanted.replicas)
        if packet.dry_run:
            self.send(peer, self.told(made), request)
            return
        self.goal, self.goal_cells = made.rows, len(made.moves)
        self.begin_order(packet, orders._replace(leaving=wanted.leaving, is_balancing=True), wanted.replicas)
        self.answer_order(peer, request, self.told(made))

    def wanted(self, packet: AskChange) -> Wanted:
        """Return what the order asks for, legal or not."""
        orders, replicas = self.last_ordered()
        leaving, nodes = set(orders.leaving), set(packet.nodes)
        added = frozenset[NodeId]()
        match packet.kind:
            case ChangeKind.ADD:
                leaving -= nodes
                added = frozenset(nodes)
            case ChangeKind.DRAIN:
                leaving |= nodes
            case ChangeKind.KEEP:
                leaving -= nodes
            case ChangeKind.REPLICAS:
                replicas = packet.replicas
            case ChangeKind.TWEAK | ChangeKind.PAUSE:
                pass
        return Wanted(replicas, tuple(sorted(leaving)), tuple(sorted(added)))

    def last_ordered(self) -> tuple[Orders, int]:
        """Return orders and number of copies as the last order wants them: its table may be still to come."""
        for change in reversed(self.changes):
            if isinstance(change, Begin):
                return change.orders, change.replicas
        newest = self.pt if self.next_change is None else self.next_change.table  # masters are to hold it first
        return newest.orders, newest.replicas

    def refusal(self, packet: AskChange, wanted: Wanted) -> Error | None:
        """Return why the order is not legal now, and what would be; None if it is."""
        if packet.kind is ChangeKind.PAUSE:
            return None
        if not packet.nodes and packet.kind in (ChangeKind.ADD, ChangeKind.DRAIN, ChangeKind.KEEP):
            return Error(ErrorCode.ILLEGAL, f"{packet.kind.name}: no storage is named")
        cells = self.pt.nodes()
        for node in packet.nodes:
            if node not in self.nodes or role_of(node) is not Role.STORAGE:
                return Error(ErrorCode.ILLEGAL, f"{self.text(node)} is not a storage of this cluster")
            if packet.kind is ChangeKind.ADD and node not in self.adopted:
                return Error(ErrorCode.NOT_READY, f"{self.text(node)} is not there: start it, then add it")
            if packet.kind is ChangeKind.DRAIN and node not in cells:
                return Error(ErrorCode.ILLEGAL, f"{self.text(node)} has no cells: nothing is to be drained")
        absent = sorted(cells - self.adopted)
        if absent and packet.kind is not ChangeKind.KEEP:
            text = f"{self.texts(absent)} is not there: wait until it is back, or drop it if it will not come back"
            return Error(ErrorCode.NOT_READY, text)
        count = len((cells | set(wanted.added)) - set(wanted.leaving))
        if count < wanted.replicas + 1:
            text = f"{wanted.replicas + 1} copies need {wanted.replicas + 1} storages, {count} would have cells: "
            return Error(ErrorCode.ILLEGAL, text + "add storages, or lower `replicas`")
        return None

    def begin_order(self, packet: AskChange, orders: Orders, replicas: int) -> None:
        """Begin: orders, number of copies and the first step are one table."""
        self.log(INFO, f"{packet.kind.name} {self.texts(packet.nodes)}: {packet.reason}")
        self.request_change(Begin(orders, replicas))

    def answer_order(self, peer: NodeId, request: int, answer: Packet) -> None:
        """Answer once what was ordered is durable, wherever it must be."""
        self.order_answers.append((peer, request, answer))
        if not self.is_changing:
            self.answer_orders()

    def answer_orders(self) -> None:
        """Answer orders, if the tables that carry them are stable. Called when the newest table is."""
        if not any(isinstance(change, Begin | Drop) for change in self.changes):
            answers, self.order_answers = self.order_answers, []
            for peer, request, answer in answers:
                self.send(peer, answer, request)

    def mark_leaving(self, node: NodeId) -> None:
        """Show whether a storage in service is drained."""
        info = self.nodes.get(node)
        leaves = node in self.pt.orders.leaving
        if info is not None and info.state is (NodeState.RUNNING if leaves else NodeState.LEAVING):
            self.change_node(node, NodeState.LEAVING if leaves else NodeState.RUNNING)

    def places(self, leaving: tuple[NodeId, ...], added: tuple[NodeId, ...] = ()) -> list[Place]:
        """Return where cells may be: what has cells, and what is added, without what leaves."""
        nodes = (self.pt.nodes() | set(added)) - set(leaving)
        return [self.place_of(node) for node in sorted(nodes)]

    def place_of(self, node: NodeId) -> Place:
        """Return domain and weight: as the storage itself says, else as our configuration does."""
        told = self.storage_states.get(node)
        if told is not None:
            return Place(node, told.domain, max(told.weight, 1))
        info = self.nodes.get(node)
        name = info.name if info is not None else ""
        known = next((c for c in self.settings.storages if c.node == node or (name and c.name == name)), None)
        return Place(node) if known is None else Place(node, known.domain, known.weight)

    def told(self, made: Plan) -> AnswerChange:
        """Return what a plan means, for people."""
        moves = tuple(CellMove(p, self.source_of(p), node) for p, node in made.moves)
        text = f"{len(moves)} cells to make, {made.drops} to drop, {made.leads_moved} leads to move"
        if not (moves or made.drops or made.leads_moved):
            text = "nothing to move: the table is as it should be"
        return AnswerChange(text, moves, made.drops, made.leads_moved)

    def source_of(self, partition: Partition) -> NodeId:
        """Return who would be copied from: the lead, if it is there."""
        lead = self.pt.lead(partition)
        return lead if lead is not None and lead in self.adopted else NodeId(0)

    # ------------------------------------------------------------------------------------------ carrying out

    def next_step(self) -> Change | None:
        """Return the next change towards the goal, None if there is none or something must happen first."""
        if not self.pt.orders.is_balancing or self.state not in (ClusterState.RUNNING, ClusterState.IMPORTING):
            return None
        if self.goal is None:  # ordered under another primary, or a storage was dropped
            places = self.places(self.pt.orders.leaving)
            if not places:
                return None  # all that is left is drained: until the operator keeps one, or adds one
            made = plan(self.pt, places, self.pt.replicas)
            self.goal, self.goal_cells = made.rows, len(made.moves)
        if moving.left(self.pt, self.goal).is_nothing:
            self.goal = None
            leaving = tuple(n for n in self.pt.orders.leaving if n in self.pt.nodes())
            self.log(INFO, "the table is as it should be")
            return Begin(self.pt.orders._replace(is_balancing=False, leaving=leaving), self.pt.replicas)
        rows = self.step_rows()
        return Advance(tuple(sorted(rows.items()))) if rows else None

    def step_rows(self) -> dict[Partition, Row]:
        """Return the rows of the next step."""
        assert self.goal is not None
        return moving.next_rows(self.pt, self.goal, self.settings.moves_max, lambda n: n in self.adopted)

    def placed(self) -> None:
        """After a change: who has got its first cell is in service, who has lost its last is not."""
        cells = self.pt.nodes()
        for node in sorted(self.adopted):
            self.mark_leaving(node)
            state = self.nodes[node].state
            if node in cells and state is NodeState.PENDING:
                self.change_node(node, NodeState.RUNNING)
            elif node not in cells and state in (NodeState.RUNNING, NodeState.LEAVING):
                self.change_node(node, NodeState.PENDING, "it has no cells: it may be dropped, or added again")

    def on_ask_moves(self, peer: NodeId, packet: AskMoves, request: int) -> None:
        """Say how far it is."""
        orders = self.pt.orders
        goal = self.goal
        rest = moving.Left(0, 0, 0, 0) if goal is None else moving.left(self.pt, goal)
        total = 0 if goal is None else max(self.goal_cells, rest.cells)
        self.send(
            peer,
            AnswerMoves(
                orders.is_balancing,
                self.pt.replicas,
                orders.leaving,
                total,
                rest.copying,
                rest.cells,
                rest.drops,
                self.why_not_on(goal),
            ),
            request,
        )

    def why_not_on(self, goal: moving.Goal | None) -> str:
        """Return what the moves wait for, if somebody is missing."""
        if goal is None:
            return ""
        absent = sorted({n for row in goal for n in row} - self.adopted)
        return f"waits for {self.texts(absent)}" if absent else ""

    # ------------------------------------------------------------------------------------------ dropping a storage

    def on_ask_drop(self, peer: NodeId, packet: AskDrop, request: int) -> None:
        """Forget storages, if nothing needs them; by force, if at least every partition can still be read."""
        if self.state is not ClusterState.RUNNING:
            text = f"storages are dropped while the cluster is RUNNING: it is {self.state.name}"
            self.send(peer, Error(ErrorCode.ILLEGAL, text), request)
            return
        for node in packet.nodes:
            if node not in self.nodes or role_of(node) is not Role.STORAGE:
                text = f"{self.text(node)} is not a storage of this cluster"
                self.send(peer, Error(ErrorCode.ILLEGAL, text), request)
                return
        orders, _ = self.last_ordered()
        going = frozenset(c.node for c in self.changes if isinstance(c, Drop))  # by orders that wait for the table
        only, readable = self.needed_cells(packet.nodes, going)
        rest = self.pt.nodes() - set(packet.nodes) - going
        if only:
            text = f"{self.texts(packet.nodes)} has the only complete copy of {len(only)} partitions: "
            text += "drain it; if its disk is lost, no other storage has what was written there"
        elif rest and rest <= set(orders.leaving):
            text = f"{self.texts(rest)} would be left, and is drained: keep it, or add a storage first"
        elif readable and not packet.force:
            text = f"{readable} partitions would have a copy less: drain it first, or --force"
        else:
            text = f"{self.texts(packet.nodes)}: forgotten, {readable} copies with it"
            self.log(WARNING, f"{text}: {packet.reason}")
            for node in sorted(packet.nodes):
                self.request_change(Drop(node))
            self.answer_order(peer, request, AnswerDrop(text))
            return
        self.send(peer, Error(ErrorCode.ILLEGAL, text), request)

    def needed_cells(self, nodes: tuple[NodeId, ...], going: frozenset[NodeId]) -> tuple[list[Partition], int]:
        """Return the partitions of which nobody else has an UP_TO_DATE cell, and how many readable cells they have.

        Those who are *going* have none.
        """
        only = []
        readable = 0
        for p, row in enumerate(self.pt.rows):
            readable += sum(n in nodes and s.is_readable for n, s in row)
            mine = any(n in nodes for n, _ in row)
            if mine and not any(s == CellState.UP_TO_DATE and n not in nodes and n not in going for n, s in row):
                only.append(Partition(p))
        return only, readable

    def may_drop(self, row: Row, node: NodeId) -> bool:
        """Whether the cell of *node* can go from *row*, as the next table has it: somebody else leads, or can."""
        return any(n != node and s == CellState.UP_TO_DATE for n, s in row)

    def dropped(self, node: NodeId) -> None:
        """It has no cells any more: it is listed no longer, unless it is connected. Moves are planned anew."""
        self.goal = None
        self.away_alerted.discard(node)
        if node not in self.connected:
            self.nodes.remove(node)
            self.nodes_changed.discard(node)
            self.admins_outdated = True

    # ------------------------------------------------------------------------------------------ who stays away

    def watch_absent(self) -> None:
        """Tell the operator of storages with cells that are away for long. They are never dropped by themselves."""
        limit = self.settings.node_expiry_s
        for info in self.nodes.select(Role.STORAGE, *_AWAY):
            if info.node in self.away_alerted or self.now.wall - info.since < limit or info.node not in self.pt.nodes():
                continue
            self.away_alerted.add(info.node)
            text = f"away for more than {limit:g} s: repair it, or drop it and tweak"
            self.log(WARNING, f"{self.text(info.node)} is {text}")
            self.change_node(info.node, info.state, f"{info.reason}; {text}" if info.reason else text)
        back = {n for n in self.away_alerted if n not in self.nodes or self.nodes[n].state not in _AWAY}
        self.away_alerted -= back
