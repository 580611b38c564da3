"""Whom this storage obeys: lease, fencing, the beginning of a reign, coming back into one. Pure."""

from collections.abc import Sequence

from neo_common.ids import NO_EPOCH, NO_NODE, NO_TID, NodeId, Partition, Seconds
from neo_common.model.partition_table import PartitionTable, whole
from neo_common.states import CellState, Role, node_id
from neo_common.wire.schema import (
    Adopt,
    Decision,
    Fence,
    Fenced,
    FwdFail,
    Gone,
    RecordHead,
    Renew,
    Renewed,
    Resign,
    SAbort,
    SHello,
    Start,
    StartOk,
    Tombstone,
)
from neo_storage.core.ahead import Ahead
from neo_storage.core.decisions import Decisions
from neo_storage.core.ground import Ground, Then, lead, written
from neo_storage.core.log_records import LogAmnesty, LogCeilings, LogEpoch, LogIdentity, LogLeftOut
from neo_storage.core.reading import Reading
from neo_storage.core.tables import Tables
from neo_storage.core.upkeep import Upkeep
from neo_storage.core.votes import Votes

NO_CLUSTER = bytes(16)


class Reign:
    """The primary that is obeyed, and the one that may believe to be."""

    def __init__(
        self,
        ground: Ground,
        ahead: Ahead,
        votes: Votes,
        decisions: Decisions,
        tables: Tables,
        reading: Reading,
        upkeep: Upkeep,
    ) -> None:
        self._ground = ground
        self._ahead = ahead
        self._votes = votes
        self._decisions = decisions
        self._tables = tables
        self._reading = reading
        self._upkeep = upkeep
        self._lease: NodeId | None = None
        self._lease_end = Seconds(0.0)
        self.remember_lease()

    # ---- the lease

    def remember_lease(self) -> None:
        """A restarted storage waits until the lease that it may have given has run out."""
        epoch = self._ground.image.epoch
        if epoch != NO_EPOCH:
            self.give_lease(node_id(Role.MASTER, epoch & 0xFFFFFF))

    def give_lease(self, master: NodeId) -> None:
        """From now on, and for `lease_s`, *master* may believe that this storage obeys it alone."""
        settings = self._ground.settings
        self._lease = master
        self._lease_end = Seconds(self._ground.now + settings.lease_s + settings.lease_margin_s)

    def lease_holder(self) -> NodeId | None:
        """Return the master that may believe that this storage obeys it; None when any may come."""
        return self._lease if self._ground.now < self._lease_end else None

    def is_free_for(self, master: NodeId) -> bool:
        """Return whether *master* may be obeyed: it is the one with the lease, perhaps restarted, or nobody has it."""
        return self.lease_holder() in (None, master)

    def on_renew(self, master: NodeId, m: Renew) -> None:
        """Renew the lease of the primary that is obeyed."""
        if m.epoch == self._ground.image.epoch:
            self.give_lease(master)
            self._ground.send(master, Renewed(m.epoch, m.number, self._ground.durable_records()))

    def on_resign(self, master: NodeId, m: Resign) -> None:
        """The primary steps down."""
        if m.epoch == self._ground.image.epoch and self._lease == master:
            self._lease = None

    # ---- fencing

    def on_fence(self, master: NodeId, m: Fence) -> None:
        """Obey that epoch only; answer when all that is here is durable."""
        ground, image = self._ground, self._ground.image
        if m.epoch < image.epoch or (m.epoch == image.epoch and ground.serving):
            return
        if ground.master is not None and ground.master != master:
            ground.cut(ground.master, f"master {master & 0xFFFFFF} takes over")
        self._obey(master)
        ground.serving = False
        self._tables.leave_all()
        self._reading.end_reign()
        self._ahead.begin_reign()
        ground.gone.clear()  # a matter of the former reign: its clients come with the new epoch or not at all
        ground.write(LogEpoch(m.epoch), lambda: self.tell_all(master, m))

    def tell_all(self, master: NodeId, m: Fence) -> None:
        """Answer a Fence, if it is still the last one."""
        ground, image = self._ground, self._ground.image
        if image.epoch != m.epoch or ground.serving:
            return
        heads = tuple(
            RecordHead(r.ttid, r.attempt, r.partition, r.parts, r.mode, r.floor, r.given_tid) for r in image.records()
        )
        ground.confirm_commits()
        ground.send(
            master,
            Fenced(
                epoch=image.epoch,
                cluster_id=image.cluster_id,
                table=whole(image.table),
                voted=heads,
                decisions=tuple(d for _, d in sorted(image.decisions.items())),
                tombstones=tuple(Tombstone(t, a) for t, a in sorted(image.tombstones.items())),
                ceilings=image.ceilings,
                last=image.last_tid,
                last_oid=image.last_oid,
                packed=image.pack_tid,
                position=ground.durable_records(),
            ),
        )

    # ---- the beginning of a reign, and coming back into one

    def on_start(self, master: NodeId, m: Start) -> None:
        """Recovery is over: do what it has decided, and serve."""
        if m.epoch != self._ground.image.epoch or not self.is_our_cluster(master, m.cluster_id):
            return
        table = m.table.apply(self._ground.image.table)
        self.amnesty()
        self._take(master, m, table, stable=True)
        self._upkeep.resume_pack(NO_TID)

    def on_adopt(self, master: NodeId, m: Adopt) -> None:
        """Come back into a reign, or into a new one that began without this storage."""
        ground, image = self._ground, self._ground.image
        if m.epoch < image.epoch:
            self.say_hello(master)  # it must step down
            return
        if not self.is_our_cluster(master, m.cluster_id):
            return
        table = m.table.apply(image.table)
        if m.epoch > image.epoch:
            self._ahead.begin_reign()
            ground.gone.clear()
            self.amnesty()
        was_left_out = table.version.epoch > image.table.version.epoch
        if was_left_out:
            self.forget_decisions()
        if not m.stable:
            ground.stable = None  # which table is stable, it has not heard: votes wait for the word
        if ground.master is not None and ground.master != master:
            ground.cut(ground.master, f"master {master & 0xFFFFFF} reigns")
        ground.write(LogEpoch(m.epoch))
        self._take(master, m, table, stable=m.stable)
        for session in m.gone:  # it may have voted since the SHello
            self._decisions.on_gone(master, Gone(session))
        self._upkeep.resume_pack(m.packed, was_left_out=was_left_out)

    def amnesty(self) -> None:
        """Tombstones are a matter of one reign: recovery may have decided otherwise."""
        self._ground.write(LogAmnesty())

    def forget_decisions(self) -> None:
        """A reign began without this storage: what it knows to be decided may be what no reign has ever confirmed."""
        self._ground.write(LogLeftOut())

    def is_our_cluster(self, master: NodeId, cluster_id: bytes) -> bool:
        """Return whether the master is of our cluster, joining it if this storage is new; cut it off if not."""
        ground, ours = self._ground, self._ground.image.cluster_id
        if ours in (b"", NO_CLUSTER):
            assert ground.me != NO_NODE, "Named comes before a reign"
            ground.write(LogIdentity(ground.me, cluster_id))
        elif ours != cluster_id:
            ground.cut(master, f"this storage belongs to cluster {ours.hex()}, not to {cluster_id.hex()}")
            return False
        return True

    def _take(self, master: NodeId, m: Start | Adopt, table: PartitionTable, *, stable: bool) -> None:
        ground = self._ground
        old = ground.image.table
        is_new = not ground.serving  # else it knows already who is not there
        self._obey(master)
        self.give_lease(master)
        ground.serving = True
        ground.write(LogCeilings(m.ceilings))
        is_cut = self._tables.is_cut(table)
        cut = table.orders.cut if is_cut else NO_TID
        # A cut takes all votes, and all above it: what is decided below comes first, what came after it later.
        self._decide(master, [d for d in m.decisions if d.tid <= cut])
        self._tables.write(table, master)
        self._decide(master, [d for d in m.decisions if d.tid > cut])
        for ttid, attempt in m.aborts:
            self._decisions.on_abort(master, SAbort(ttid, attempt))
        if is_cut:  # nobody may read what is cut off
            ground.when_durable(lambda: ground.when_applied(lambda: self._started(master, m)))
        else:
            ground.when_durable(lambda: self._started(master, m))
        if is_new:
            self._votes.expect(None)
        led = frozenset(p for p in ground.partitions() if ground.leads(p))
        self._tables.become_lead(led)
        for node in self._votes.missing_peers():  # what was in flight when the connection was lost
            ground.send(master, FwdFail(table.version, node))
        self._tables.changed(old, None)
        if ground.stable is None and stable:
            ground.stable = old
        if stable:
            self._rely_on(table)

    def _decide(self, master: NodeId, decisions: Sequence[Decision]) -> None:
        ground = self._ground
        known_to = ground.image.last_tid
        for d in decisions:
            ground.seen = max(ground.seen, d.tid)
            confirm: Then = ground.confirm_commit(master, d.ttid)
            self._decisions.decide(d.ttid, d.attempt, d.tid, d.parts, NO_TID, known_to, confirm)

    def _rely_on(self, table: PartitionTable) -> None:
        # It may be durable nowhere yet: at least here, before anything relies on it.
        self._ground.when_durable(lambda: self._tables.stabilize(table.version))

    def _started(self, master: NodeId, m: Start | Adopt) -> None:
        ground = self._ground
        if ground.image.epoch == m.epoch and ground.serving:
            ground.durable_mark = ground.image.last_tid  # recovery has it on every readable cell before anybody votes
            if self._lease == master:
                self.give_lease(master)  # the primary counts from this answer on
            ground.confirm_commits()
            ground.send(master, StartOk(m.epoch))

    # ---- connections

    def _obey(self, master: NodeId) -> None:
        if self._ground.master != master:
            self._reading.master_lost()
            self._upkeep.new_master()
        self._ground.master = master

    def connected(self, peer: NodeId, role: Role) -> None:
        """Greet a master; agree with a cell that comes back; send away clients that come early."""
        ground = self._ground
        if role == Role.MASTER:
            self.say_hello(peer)
        elif role == Role.STORAGE and ground.serving:
            for p in ground.partitions():
                if ground.leads(p) and ground.state(p, peer) in (CellState.UP_TO_DATE, CellState.FEEDING):
                    self.resync(peer, p)
        elif role == Role.CLIENT and not ground.serving:
            ground.cut(peer, "this storage does not serve yet")

    def resync(self, peer: NodeId, partition: Partition) -> None:
        """After a break between lead and readable cell: Sync first."""
        self._tables.sync(partition, peer)

    def say_hello(self, master: NodeId) -> None:
        """Tell a master what this storage is."""
        image = self._ground.image
        choices = image.table.orders.choices
        choice = choices[-1].id if choices else 0
        voted, written = image.voted_ids(), image.length(image.position)
        self._ground.send(master, SHello(image.epoch, image.table.version, voted, choice, image.last_tid, written))

    def storage_lost(self, peer: NodeId) -> None:
        """Tell the primary of a cell that votes cannot reach, or of a join that has lost its source."""
        ground = self._ground
        table = ground.image.table
        if ground.master is None:
            return
        for p in ground.partitions():
            if ground.leads(p) and peer in written(table, p):
                ground.send(ground.master, FwdFail(table.version, peer))
                return
            if ground.mine(p) == CellState.JOINING and lead(table, p) == peer:
                ground.send(ground.master, FwdFail(table.version, ground.me))
                return

    def master_lost(self, peer: NodeId, *, is_ended: bool) -> None:
        """The primary is gone, or not reached: go on serving under its epoch, until another comes.

        Who has closed the connection, or died, does not count on its lease any more: nobody need wait for its end.
        """
        if is_ended and self._lease == peer:
            self._lease = None
        if peer == self._ground.master:
            self._ground.master = None
            self._reading.master_lost()
