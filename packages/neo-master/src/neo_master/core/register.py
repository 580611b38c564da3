"""What masters hold for each other, and whom they hear: promises, leases, the register. Pure.

docs/masters.md has the rules and why they are so. With three masters or more (`is_quorum`) a candidate may come to
power without some readable storages, if a majority of the masters has promised to hear no older epoch and tells the
newest table that any primary could have relied on. So a fact that such a candidate must not miss is *covered*: held by
a majority of the masters, or by every cell of some row that is readable in the stable table or in the newest one.

With one or two masters the register is kept all the same, for people and for later; nothing waits for it.
"""

from collections.abc import Callable, Iterable

from neo_common.ids import NO_EPOCH, NO_NODE, Epoch, NodeId, Partition, Seconds
from neo_common.model.partition_table import EMPTY, PartitionTable, whole
from neo_common.states import Role, node_text
from neo_common.wire.schema import Claim, Denied, Held, Hold, Promised, Register, Renew, Renewed, Resign, Voter
from neo_master.core.base import MasterBase
from neo_master.core.effects import INFO, Kept, Store

_SAFETY = 0.95
"""The part of a lease that the primary relies on: the clocks of two machines do not run equally fast."""
_MARGIN = 1.15
"""How much longer than a lease who has given it waits."""


class RegisterHolder(MasterBase):
    """Promise, hold, claim, cover."""

    # ------------------------------------------------------------------------------------------ on disk

    def begin_memory(self) -> None:
        """Begin with what is on disk: with a new memory if there is nothing. A lease may be alive: wait it out."""
        if not self.memory:
            self.memory = self.rng.getrandbits(128).to_bytes(16, "big")
            self.store(None)
        elif self.promised != NO_EPOCH:
            self.give_lease(self.master_of(self.promised))

    def store(self, then: Callable[[], None] | None) -> None:
        """Have memory, promise and register made durable; then do *then*."""
        self.store_number += 1
        if then is not None:
            self.when_stored.append((self.store_number, then))
        self.effects.append(Store(self.store_number, Kept(self.memory, self.promised, self.register)))

    def stored(self, number: int) -> None:
        """Everything up to that `Store` is durable."""
        while self.when_stored and self.when_stored[0][0] <= number:
            self.when_stored.popleft()[1]()

    # ------------------------------------------------------------------------------------------ whom it hears

    def master_of(self, epoch: Epoch) -> NodeId:
        """Return the master that reigns, or would, under *epoch*."""
        return next((m.node for m in self.masters if m.node & 0xFFFFFF == epoch & 0xFFFFFF), NO_NODE)

    def give_lease(self, master: NodeId) -> None:
        """From now on, and for `lease_s`, *master* may believe that this one hears nobody else."""
        self.lease_to = master
        self.lease_end = Seconds(self.now.monotonic + self.settings.lease_s * _MARGIN)

    def lease_holder(self) -> NodeId:
        """Return the other master that may believe so, NO_NODE if there is none."""
        is_alive = self.lease_to not in (NO_NODE, self.me) and self.now.monotonic < self.lease_end
        return self.lease_to if is_alive else NO_NODE

    def is_free_for(self, master: NodeId) -> bool:
        """Whether *master* may be heard: nobody else has a lease, and this one does not decide itself."""
        if self.is_primary and self.is_running and self.valid_lease():
            return False
        return self.lease_holder() in (NO_NODE, master)

    def on_claim(self, master: NodeId, packet: Claim) -> None:
        """Promise to hear *master*; say what is held here, when the promise is durable."""
        self.seen_epoch = max(self.seen_epoch, packet.epoch)
        if packet.epoch < self.promised:
            self.claims.pop(master, None)
            self.send(master, Denied(self.promised))
        elif not self.is_free_for(master):
            self.claims[master] = packet
            if self.is_primary:
                self.send(master, self.my_hello())  # it has not heard, or believed, that this one reigns
        else:
            self.claims.pop(master, None)
            if self.is_primary:
                self.step_down(f"{node_text(master)} claims epoch {packet.epoch >> 24}")
            self.promised = packet.epoch
            self.give_lease(master)
            self.store(lambda: self.promise(master, packet.epoch))

    def promise(self, master: NodeId, epoch: Epoch) -> None:
        """The promise is durable."""
        if self.promised == epoch and master in self.connected:
            self.give_lease(master)
            self.offer(master)
            self.send(master, Promised(epoch, self.memory, self.register))

    def hear_claims(self) -> None:
        """Look again at who had to wait until a lease is over."""
        for master in sorted(self.claims):
            if master in self.claims and self.is_free_for(master):
                self.on_claim(master, self.claims[master])

    def on_hold(self, master: NodeId, packet: Hold) -> None:
        """Hold what the primary says; answer when it is durable."""
        if not self.may_hold(packet.epoch):
            self.send(master, Denied(self.promised))
            return
        new = packet.register
        if is_newer(new, self.register):
            self.set_register(new)
            self.store(lambda: self.send(master, Held(new.epoch, new.number, self.memory)))
        else:
            self.send(master, Held(new.epoch, new.number, self.memory))

    def may_hold(self, epoch: Epoch) -> bool:
        """Whether no higher epoch was promised."""
        return epoch >= self.promised

    def set_register(self, register: Register) -> None:
        """Take it as what this master holds."""
        self.register = register
        self.register_table = register.table.apply(EMPTY) if register.table.partitions else EMPTY

    def on_master_renew(self, master: NodeId, packet: Renew) -> None:
        """Renew the lease of the primary that is heard."""
        if packet.epoch == self.promised and self.lease_to in (NO_NODE, master):
            self.give_lease(master)
            self.send(master, Renewed(packet.epoch, packet.number, 0))

    def on_master_resign(self, master: NodeId, packet: Resign) -> None:
        """The primary steps down."""
        if packet.epoch == self.promised and self.lease_to == master:
            self.lease_to = NO_NODE

    def lease_ended(self, master: NodeId) -> None:
        """That master has closed its connection, or has died: it does not count on its lease any more."""
        if self.lease_to == master:
            self.lease_to = NO_NODE

    # ------------------------------------------------------------------------------------------ claiming

    def claim(self) -> None:
        """Have every master hear this epoch, this one first."""
        epoch = self.epoch
        self.promises.clear()
        self.offered.clear()
        self.informed.clear()
        self.master_leases.clear()
        self.proposed, self.held, self.voters, self.register_number = None, set(), (), 0
        self.lease_to, self.promised = self.me, epoch
        self.store(lambda: self.on_promised(self.me, Promised(epoch, self.memory, self.register)))
        for master in self.peers(Role.MASTER):
            self.claim_from(master)

    def claim_from(self, master: NodeId) -> None:
        """Ask one of them."""
        self.claim_sent[master] = self.now.monotonic
        self.send(master, Claim(self.epoch))

    def on_denied(self, master: NodeId, packet: Denied) -> None:
        """A higher epoch was promised: this reign is over, or has to begin above."""
        self.seen_epoch = max(self.seen_epoch, packet.epoch)
        if not self.is_primary or packet.epoch <= self.epoch:
            return
        if self.is_running:
            self.step_down(f"{node_text(master)} has promised epoch {packet.epoch >> 24}")
        else:
            self.restart_recovery(f"{node_text(master)} has promised epoch {packet.epoch >> 24}")

    def on_promised(self, master: NodeId, packet: Promised) -> None:
        """A master hears this epoch, and tells what it holds."""
        if not self.is_primary or packet.epoch != self.epoch:
            return
        self.promises[master] = packet
        self.check_offered(master, packet)
        if master != self.me:
            self.master_lease_given(master, self.claim_sent.get(master, self.now.monotonic))
        if self.proposed is not None:
            self.put_forward(self.proposed_table)
        elif self.is_running:
            # A change may have been begun before this master had promised it to itself, and waits for being held.
            self.put_forward(self.pt if self.next_change is None else self.next_change.table)
        else:
            self.try_start()

    def master_lease_given(self, master: NodeId, since: Seconds) -> None:
        """*master* hears nobody else for `lease_s` after *since*."""
        until = Seconds(since + self.settings.lease_s * _SAFETY)
        self.master_leases[master] = max(until, self.master_leases.get(master, until))

    def on_master_renewed(self, master: NodeId, packet: Renewed) -> None:
        """A lease is longer: counted from when its Renew was sent, which is never too late."""
        since = self.renews.get(packet.number)
        if self.is_primary and packet.epoch == self.epoch and since is not None and master in self.promises:
            self.master_lease_given(master, since)

    def register_lost(self, master: NodeId) -> None:
        """The connection to a master is gone."""
        self.promises.pop(master, None)
        self.offered.pop(master, None)
        self.informed.discard(master)
        self.master_leases.pop(master, None)
        self.claims.pop(master, None)
        self.begin_starts()

    # ------------------------------------------------------------------------------------------ the register

    @property
    def is_quorum(self) -> bool:
        """Whether there are masters enough for a majority to outlive one of them."""
        return len(self.masters) >= 3

    def newest_register(self) -> Register:
        """Return the newest one that the masters that hear us hold."""
        best = self.register
        for master in sorted(self.promises):
            if is_newer(self.promises[master].register, best):
                best = self.promises[master].register
        return best

    def put_forward(self, table: PartitionTable) -> None:
        """Have masters hold a new register, with *table*; voters are chosen anew only by all masters that there are."""
        if not self.is_primary or self.me not in self.promises:
            return
        self.register_number += 1
        voters = self.next_voters()
        register = Register(
            self.epoch,
            self.register_number,
            self.cluster_id,
            whole(table),
            voters,
            self.nodes.select(Role.STORAGE),
            self.ceilings_asked or self.ceilings,
            self.packed,
            self.last,
        )
        self.proposed, self.proposed_table, self.held = register, table, set()
        self.set_register(register)
        self.store(lambda: self.on_held(self.me, Held(register.epoch, register.number, self.memory)))
        for master in sorted(self.promises):
            if master != self.me:
                self.send(master, Hold(self.epoch, register))
        self.spread()

    def next_voters(self) -> tuple[Voter, ...]:
        """Return who shall count: everybody, if everybody is there; else who counts already."""
        if self.are_all_there():
            return tuple(Voter(m, self.promises[m].memory) for m in sorted(self.promises))
        return self.proposed.voters if self.proposed is not None else self.voters

    def are_all_there(self) -> bool:
        """Whether every configured master has promised to hear this epoch."""
        return len(self.promises) == len(self.masters)

    def on_held(self, master: NodeId, packet: Held) -> None:
        """The register is durable there."""
        proposed = self.proposed
        if proposed is None or not self.is_primary:
            return
        if (packet.epoch, packet.number) != (proposed.epoch, proposed.number):
            return
        self.held.add((master, packet.memory))
        if proposed.voters != self.voters and len(self.held) == len(self.masters):
            self.voters = proposed.voters
            self.log(INFO, f"{len(self.voters)} masters hold the partition table and count in a majority")
        self.begin_starts()
        if self.is_majority(self.held):
            self.table_held(self.proposed_table)
        self.try_run()
        self.check_stable()
        self.check_pack()

    def begin_starts(self) -> None:
        """Begin the reign at the storages, if masters hold what they must hold before.

        A choice stands when every master that is there has it: none of them lets what was given up come back.
        """
        if self.starts and self.proposed is not None:
            holders = {master for master, _ in self.held}
            if self.is_majority(self.held) if self.chosen is None else holders >= set(self.promises):
                self.send_starts()

    def is_majority(self, who: Iterable[tuple[NodeId, bytes]]) -> bool:
        """Whether those masters, with those memories, are more than half of the voters. Never without a quorum."""
        voters = {v.node: v.memory for v in self.voters}
        count = sum(1 for node, memory in who if voters.get(node) == memory)
        return self.is_quorum and bool(voters) and 2 * count > len(voters)

    # ------------------------------------------------------------------------------------------ covers

    def rows_to_cover(self) -> frozenset[frozenset[NodeId]]:
        """Return the different sets of nodes that are readable in a row, in the stable table or in the newest."""
        key = (self.stable_pt.version, self.pt.version)
        if self.rows_key != key:
            stable, newest = self.stable_pt, self.pt
            is_same = stable.version == newest.version or not stable.partitions
            self.rows_key = key
            self.rows_found = frozenset(
                frozenset(newest.readable(p)) | (frozenset() if is_same else frozenset(stable.readable(p)))
                for p in map(Partition, range(newest.partitions))
            )
        return self.rows_found

    def is_row_in(self, storages: Iterable[NodeId]) -> bool:
        """Whether every readable cell of some row is on one of those."""
        there = set(storages)
        return any(row <= there for row in self.rows_to_cover())

    def is_covered(self) -> bool:
        """Whether nobody can come to power without meeting the newest table."""
        if not self.is_quorum or self.is_row_in(self.pt_have):
            return True
        return self.proposed_table.version == self.pt.version and self.is_majority(self.held)

    def is_lease_covered(self) -> bool:
        """Whether nobody can come to power without waiting for the end of a lease that this primary holds."""
        now = self.now.monotonic
        if not self.is_quorum or now < self.covered_until:
            return True
        self.covered_until = self.lease_cover_end()
        return now < self.covered_until

    def lease_cover_end(self) -> Seconds:
        """Return until when leases are a cover: of a majority of the voters, or of every readable cell of some row."""
        voters = {v.node: v.memory for v in self.voters}
        ends = [Seconds(self.now.monotonic + self.settings.lease_s)] if self.counts(self.me, voters) else []
        ends += [until for m, until in self.master_leases.items() if self.counts(m, voters)]
        needed = len(voters) // 2 + 1
        by_masters = sorted(ends, reverse=True)[needed - 1] if voters and len(ends) >= needed else Seconds(0.0)
        by_rows = [min(self.lease_until.get(n, Seconds(0.0)) for n in row) for row in self.rows_to_cover() if row]
        return max([by_masters, *by_rows])

    def counts(self, master: NodeId, voters: dict[NodeId, bytes]) -> bool:
        """Whether that master hears us, and is the voter of that name."""
        promise = self.promises.get(master)
        return promise is not None and voters.get(master) == promise.memory


def is_newer(one: Register, other: Register) -> bool:
    """Whether the first register was put forward after the second."""
    return (one.epoch, one.number) > (other.epoch, other.number)
