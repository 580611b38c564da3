"""Truncating the cluster to a tid, at the operator's order. Pure.

It happens in recovery only, where nothing is under way: all votes are forgotten, decisions above the cut too, and the
table of the new reign carries the cut. A storage takes that table and erases what is above in one step of its log. So
as soon as one storage has it every recovery finds it, as the newest table, and has it done everywhere; before that
nothing has happened. A storage that was away does it when it takes the table, whenever that is.
"""

from neo_common.ids import NodeId, Tid, Version
from neo_common.model.orders import Orders
from neo_common.model.partition_table import PartitionTable
from neo_common.states import ClusterState, Role
from neo_common.wire.schema import AnswerTruncate, AskTruncate, Error, ErrorCode, Fenced
from neo_master.core.base import MasterBase
from neo_master.core.effects import WARNING


class Truncation(MasterBase):
    """Cut the end of history off."""

    def on_ask_truncate(self, peer: NodeId, packet: AskTruncate, request: int) -> None:
        """Begin a recovery that truncates."""
        refusal = self.truncate_refusal(packet.tid)
        if refusal is not None:
            self.send(peer, refusal, request)
            return
        text = f"is truncated to {packet.tid:#x}: {packet.reason}"
        self.log(WARNING, f"the cluster {text}")
        self.send(peer, AnswerTruncate(f"the cluster {text}"), request)
        for client in self.peers(Role.CLIENT):
            self.cut(client, f"the cluster {text}")
        self.cut_to = packet.tid
        self.restart_recovery(text)

    def truncate_refusal(self, tid: Tid) -> Error | None:
        """Return why that is not legal now; None if it is."""
        if self.state is not ClusterState.RUNNING:
            return Error(ErrorCode.ILLEGAL, f"a RUNNING cluster can be truncated: it is {self.state.name}")
        if tid >= self.last:
            return Error(ErrorCode.ILLEGAL, f"nothing is above {tid:#x}: the last tid is {self.last:#x}")
        if tid < self.packed:
            text = f"it was packed to {self.packed:#x}: what was current at {tid:#x} may be gone"
            return Error(ErrorCode.ILLEGAL, text)
        absent = sorted(self.pt.readable_nodes() - self.adopted)
        if absent:
            return Error(ErrorCode.NOT_READY, f"{self.texts(absent)} is not there: wait until it is back")
        orders = self.pt.orders
        behind = any(not s.is_readable for row in self.pt.rows for _, s in row)
        if behind and orders.cut < tid and orders.cut_at.epoch:
            text = f"some cells may still lack the truncation to {orders.cut:#x}: wait until all are up to date"
            return Error(ErrorCode.NOT_READY, text)
        return None

    def trim_replies(self, table: PartitionTable) -> None:
        """Forget what storages have told of what is cut off, by this order or by an earlier one that they have not met.

        Their votes too: whoever takes a cut forgets all votes, and no vote of before has a place after it.
        """
        orders = table.orders
        for node, reply in list(self.replies.items()):
            cuts = [] if self.cut_to is None else [self.cut_to]
            if reply.table.partitions and reply.table.version < orders.cut_at:
                cuts.append(orders.cut)
            if cuts:
                self.replies[node] = trimmed(reply, min(cuts))
                self.is_trimmed = True

    def lift_last(self) -> None:
        """After a truncation the last tid is above all that were ever given: snapshots between are nobody's any more.

        So tids never go back, for clients neither. No transaction has that tid.
        """
        if self.is_trimmed:
            self.last = self.tid_floor = Tid(max(self.last, self.tid_floor, self.former_ceiling() + 1))

    def orders_of(self, orders: Orders, version: Version) -> Orders:
        """Return the orders of the table of a new reign."""
        return orders if self.cut_to is None else orders._replace(cut_at=version, cut=self.cut_to)


def trimmed(reply: Fenced, cut: Tid) -> Fenced:
    """Return what a storage has told, without its votes and what is above *cut*."""
    decisions = tuple(d for d in reply.decisions if d.tid <= cut)
    return reply._replace(voted=(), decisions=decisions, last=min(reply.last, cut))
