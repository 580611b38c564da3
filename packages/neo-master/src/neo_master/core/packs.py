"""Packs and garbage collection: one order to every storage, progress added up. Pure.

A pack goes to a tid that is not above the durable mark: all that it needs to know is on every cell, and no transaction
that is still undecided can get a tid below it. Each storage packs by itself, and goes on after a restart.
"""

from typing import Final

from neo_common.ids import NO_TID, NodeId, Oid, Tid
from neo_common.states import ClusterState
from neo_common.wire.schema import (
    AnswerCollect,
    AnswerPack,
    AnswerPackState,
    AskCollect,
    AskPack,
    AskPackState,
    Collect,
    CollectOk,
    Error,
    ErrorCode,
    Pack,
    PackProgress,
)
from neo_master.core.base import MasterBase
from neo_master.core.effects import INFO
from neo_master.core.underway import Collecting, PackOrder

_TOLD_MAX: Final = 2**48
"""Revisions, or bytes, that one storage can have removed: what it tells is added up, and must travel."""


class Packs(MasterBase):
    """Order packs and collections."""

    # ------------------------------------------------------------------------------------------ packs

    def on_ask_pack(self, peer: NodeId, packet: AskPack, request: int) -> None:
        """Begin a pack, one at a time."""
        if self.state is not ClusterState.RUNNING:
            self.refuse(peer, request, f"a pack needs a cluster that is RUNNING: it is {self.state.name}")
        elif self.pack is not None and not (self.pack.was_over or self.is_pack_over(self.pack)):
            done, total, _, _ = self.pack_totals(self.pack)
            self.refuse(peer, request, f"a pack to tid {self.pack.tid:#x} is under way: {done} of {total} cells done")
        else:
            tid = max(self.packed, self.pack_tid(packet.tid))  # what lies below is packed already
            self.packed = tid
            self.put_forward(self.proposed_table)
            self.begin_pack(packet.reason).asked_by.append((peer, request))
            self.check_pack()

    def begin_pack(self, reason: str) -> PackOrder:
        """Order every storage that is there to pack to `packed`."""
        self.pack_count += 1
        order = PackOrder((self.epoch >> 24) << 32 | self.pack_count, self.packed, self.now.wall)
        self.pack = order
        self.log(INFO, f"pack {order.number:#x} to tid {order.tid:#x}: {reason}")
        for storage in sorted(self.obeying):
            self.tell_pack(storage)
        return order

    def repeat_pack(self) -> None:
        """A reign begins: what a storage has missed of former packs, as it was away, it must do now."""
        nodes = sorted(self.replies.keys() & self.obeying & self.pt.nodes())
        behind = [n for n in nodes if self.replies[n].packed < self.packed]
        if behind:
            self.begin_pack(f"{', '.join(map(self.text, behind))} missed the last one")

    def pack_tid(self, wanted: Tid) -> Tid:
        """Return where to pack to: never above the durable mark."""
        return max(NO_TID, min(wanted, self.durable))

    def tell_pack(self, storage: NodeId) -> None:
        """Tell a storage of the pack under way."""
        order = self.pack
        if order is None or storage in order.progress or storage not in self.pt.nodes():
            return
        if not self.is_pack_over(order) or not order.progress:
            order.progress[storage] = None
            self.send(storage, Pack(order.number, order.tid))

    def is_pack_over(self, order: PackOrder) -> bool:
        """Whether every storage that has the order is through, and who asked for it was answered."""
        return not order.asked_by and all(p is not None and p[0] >= p[1] for p in order.progress.values())

    def pack_totals(self, order: PackOrder) -> tuple[int, int, int, int]:
        """Return cells done, cells in all, revisions and bytes removed."""
        known = [p for p in order.progress.values() if p is not None]
        done, total, revisions, size = (sum(x) for x in zip(order.done, *known, strict=True))
        waits = sum(p is None for p in order.progress.values())
        return done, total + waits, revisions, size  # a storage that has said nothing yet has a cell at least

    def on_pack_progress(self, storage: NodeId, packet: PackProgress) -> None:
        """A storage has the order durably, or has packed more cells."""
        if storage not in self.obeying or storage not in self.pt.nodes():
            return  # it has no cell to pack
        if self.pack is None or packet.order > self.pack.number:
            # An order of an earlier reign: the storages go on with it.
            self.pack = PackOrder(packet.order, self.packed, self.now.wall)
        if packet.order == self.pack.number:
            _, cells_done, cells_total, revisions, size = packet
            cells = self.pt.partitions  # no storage has more; sums of what is told must travel too
            told = min(cells_done, cells), min(cells_total, cells), min(revisions, _TOLD_MAX), min(size, _TOLD_MAX)
            self.pack.progress[storage] = told
            self.check_pack()

    def check_pack(self) -> None:
        """Answer who has asked for the pack, when every storage in service has the order durably, and it is covered.

        One at least: whoever is there in the next reign hears of it then. When all are lost it waits for one to return.
        """
        if self.pack is not None and self.pack.progress and None not in self.pack.progress.values():
            if self.is_pack_covered(self.pack):
                asked_by, self.pack.asked_by = self.pack.asked_by, []
                for peer, request in asked_by:
                    self.send(peer, AnswerPack(self.pack.number, self.pack.tid), request)
            self.pack.was_over |= self.is_pack_over(self.pack)

    def is_pack_covered(self, order: PackOrder) -> bool:
        """Whether nobody can come to power without hearing that it was ordered (register).

        A storage that is lost is not waited for, though the table without it may never be held: another primary may
        reign already, with just that storage.
        """
        if not self.is_quorum or self.is_row_in(n for n, p in order.progress.items() if p is not None):
            return True
        return self.proposed is not None and self.proposed.packed >= order.tid and self.is_majority(self.held)

    def packs_storage_lost(self, storage: NodeId) -> None:
        """Do not wait for it any more: it is told again when it comes back."""
        if self.pack is not None and storage in self.pack.progress:
            progress = self.pack.progress.pop(storage)
            if progress is not None and progress[0] >= progress[1]:
                done = self.pack.done
                self.pack.done = (
                    done[0] + progress[0],
                    done[1] + progress[1],
                    done[2] + progress[2],
                    done[3] + progress[3],
                )
            self.check_pack()
        for number in sorted(self.collecting):
            if storage in self.collecting[number].missing:
                collecting = self.collecting.pop(number)
                error = Error(ErrorCode.NOT_READY, f"{self.text(storage)} was lost: ask again")
                self.send(collecting.client, error, collecting.request)

    def on_ask_pack_state(self, peer: NodeId, packet: AskPackState, request: int) -> None:
        """Say how far the pack is."""
        if self.pack is None:
            self.send(peer, AnswerPackState(0, self.packed, self.now.wall, 0, 0, 0, 0), request)
        else:
            totals = self.pack_totals(self.pack)
            self.send(peer, AnswerPackState(self.pack.number, self.pack.tid, self.pack.started, *totals), request)

    # ------------------------------------------------------------------------------------------ garbage

    def on_ask_collect(self, client: NodeId, packet: AskCollect, request: int) -> None:
        """Have garbage removed on every written cell."""
        if self.state is not ClusterState.RUNNING or client not in self.clients:
            self.refuse(client, request, f"garbage is collected while the cluster is RUNNING: it is {self.state.name}")
            return
        tid = self.pack_tid(packet.tid)
        oids: dict[NodeId, list[Oid]] = {}
        for oid in packet.oids:
            for storage in self.pt.written(self.pt.partition(oid)):
                oids.setdefault(storage, []).append(oid)
        absent = sorted(oids.keys() - self.obeying)
        if absent:
            self.send(client, Error(ErrorCode.NOT_READY, f"{self.text(absent[0])} is not there"), request)
        elif not oids:
            self.send(client, AnswerCollect(0), request)
        else:
            self.collect_count += 1
            self.collecting[self.collect_count] = Collecting(client, request, set(oids), [])
            for storage in sorted(oids):
                self.send(storage, Collect(self.collect_count, tid, tuple(oids[storage])))

    def on_collect_ok(self, storage: NodeId, packet: CollectOk) -> None:
        """Garbage is removed there, durably. `removed` of the answer counts every copy."""
        collecting = self.collecting.get(packet.number)
        if collecting is None or storage not in collecting.missing:
            return
        collecting.missing.discard(storage)
        collecting.removed.append(packet.removed)
        if not collecting.missing:
            del self.collecting[packet.number]
            self.send(collecting.client, AnswerCollect(sum(collecting.removed)), collecting.request)

    def packs_peer_lost(self, peer: NodeId) -> None:
        """Nobody waits for these answers any more."""
        for number in [n for n, c in self.collecting.items() if c.client == peer]:
            del self.collecting[number]
        if self.pack is not None:
            self.pack.asked_by = [(p, r) for p, r in self.pack.asked_by if p != peer]

    def refuse(self, peer: NodeId, request: int, text: str) -> None:
        """Answer that this is not legal now, and what would be."""
        self.send(peer, Error(ErrorCode.ILLEGAL, text), request)
