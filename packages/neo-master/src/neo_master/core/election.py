"""Which master is in charge, under which epoch, and as long as it holds a lease. Pure.

The election only avoids duels. Safety comes from epochs, fencing and leases: a primary starts with the word of every
node that is readable, or of a majority of the masters, and decides only while they hear nobody else (docs/masters.md).
So the rule may be simple: whoever is primary stays; else the first one in the order of the configuration, among those
that talk to each other once all are there or some time has passed.
"""

from neo_common.ids import NO_NODE, NodeId, Seconds, make_epoch
from neo_common.states import ClusterState, Role, node_text, role_of
from neo_common.wire.schema import MHello, Renew, Renewed, Resign
from neo_master.core.effects import INFO, WARNING
from neo_master.core.register import RegisterHolder
from neo_master.core.settings import Configured
from neo_master.core.underway import Place

_SAFETY = 0.95
"""The part of a lease that the primary relies on: the clocks of two machines do not run equally fast."""


class Election(RegisterHolder):
    """Be primary or not; leases."""

    # ------------------------------------------------------------------------------------------ who

    def wanted_masters(self) -> tuple[Configured, ...]:
        """Return the masters that this one dials: those before it, so that two never dial each other."""
        return tuple(m for m in self.masters if m.node < self.me)

    def order(self, node: NodeId) -> int:
        """Return the place of a master in the configuration."""
        return next(i for i, m in enumerate(self.masters) if m.node == node)

    def address_of(self, node: NodeId) -> str:
        """Return where a master listens, empty if unknown."""
        return next((m.address for m in self.masters if m.node == node), "")

    def start_election(self) -> None:
        """Look for a primary."""
        self.place = Place.ELECTING
        self.primary = NO_NODE
        self.election_deadline = Seconds(self.now.monotonic + self.settings.election_wait_s)
        self.elect()

    def elect(self) -> None:
        """Choose, if that can be done now."""
        if self.place is not Place.ELECTING:
            return
        leaders = [n for n in sorted(self.heard_of(), key=self.order) if self.said[n].is_primary]
        if leaders:
            self.follow(leaders[0])
        elif self.are_enough() or self.now.monotonic >= self.election_deadline:
            first = min([self.me, *self.heard_of()], key=self.order)
            if first == self.me and self.lease_holder() == NO_NODE:
                self.candidate()
        self.tell_masters()

    def are_enough(self) -> bool:
        """Whether nobody need be waited for: all are there, or a majority is and the former primary is gone."""
        there = len(self.heard_of()) + 1
        return there == len(self.masters) or (self.is_failover and 2 * there > len(self.masters))

    def follow(self, node: NodeId) -> None:
        """Be secondary to *node*."""
        self.is_failover = True
        self.primary_seen = self.now.monotonic
        self.place = Place.SECONDARY
        self.primary = node
        self.log(INFO, f"secondary: {node_text(node)} is primary")
        self.admit_parked()
        for peer in sorted(self.connected):
            if role_of(peer) != Role.MASTER:
                self.cut(peer, f"{node_text(node)} is primary")

    def candidate(self) -> None:
        """Become primary: begin a reign."""
        self.place = Place.PRIMARY
        self.primary = self.me
        self.forget_reign()
        self.raise_epoch()
        self.log(INFO, f"primary: epoch {self.epoch >> 24}")
        self.begin_roster()
        self.tell_masters()
        self.begin_reign()
        self.admit_parked()

    def raise_epoch(self) -> None:
        """Reign under an epoch above every one heard of.

        The number alone is above: sessions are made of it, and must be unique over all reigns.
        """
        self.epoch = make_epoch((max(self.seen_epoch, self.epoch, self.promised) >> 24) + 1, self.me)
        self.seen_epoch = self.epoch
        self.claim()

    def step_down(self, reason: str) -> None:
        """Be primary no more: it has no lease, or a higher epoch exists. It forgets what it knew, but its last tids."""
        if self.is_running:
            self.own_past = self.epoch, tuple(self.undurable)
        self.log(WARNING, f"steps down from epoch {self.epoch >> 24}: {reason}")
        for peer in sorted({*self.obeying, *self.promises}):
            self.send(peer, Resign(self.epoch))
        self.lease_to = NO_NODE
        self.place = Place.ELECTING
        for peer in sorted(self.connected):
            if role_of(peer) != Role.MASTER:
                self.cut(peer, reason)
        self.forget_reign()
        self.start_election()

    # ------------------------------------------------------------------------------------------ other masters

    def master_connected(self, node: NodeId) -> None:
        """Say what this master is."""
        self.send(node, self.my_hello())
        if self.is_primary:
            self.claim_from(node)

    def watch_primary(self) -> None:
        """Look for another primary when this one has not renewed its lease: it hangs, or cannot be reached."""
        if (
            self.place is Place.SECONDARY
            and self.lease_to == self.primary
            and self.lease_holder() == NO_NODE
            and self.now.monotonic >= self.primary_seen + self.settings.lease_s
        ):
            self.log(WARNING, f"the primary {node_text(self.primary)} has not renewed its lease: election")
            self.silent.add(self.primary)
            self.start_election()

    def heard_of(self) -> list[NodeId]:
        """Return the other masters that talk to this one."""
        return sorted(n for n in self.said if n not in self.silent)

    def is_heard(self, node: NodeId) -> None:
        """A master that was silent says something."""
        if node in self.silent:
            self.silent.discard(node)
            self.elect()

    def master_lost(self, node: NodeId) -> None:
        """Another master is gone; perhaps it was primary."""
        self.said.pop(node, None)
        self.silent.discard(node)
        if self.place is Place.SECONDARY and self.primary == node:
            self.log(WARNING, f"the primary {node_text(node)} is lost: election")
            self.start_election()
        else:
            self.elect()

    def on_master_hello(self, node: NodeId, packet: MHello) -> None:
        """Hear what another master is."""
        self.said[node] = packet
        self.seen_epoch = max(self.seen_epoch, packet.epoch)
        if self.place is Place.ELECTING:
            self.elect()
        elif self.place is Place.SECONDARY and self.primary == node and not packet.is_primary:
            self.start_election()
        elif self.is_primary and packet.is_primary and self.yields_to(node):
            self.step_down(f"{node_text(node)} is primary too")

    def yields_to(self, node: NodeId) -> bool:
        """Whether this primary gives way to another that says it is one.

        One that is RUNNING never does: the storages know whom they obey. One that is not yet may do so in any case.
        """
        return not self.is_running and self.start_need is None

    def my_hello(self) -> MHello:
        """Return what this master is now."""
        return MHello(self.seen_epoch, self.primary, self.is_primary, self.address_of(self.me))

    def tell_masters(self) -> None:
        """Say what this master is, if that has changed."""
        hello = self.my_hello()
        if hello != self.told_masters:
            self.told_masters = hello
            for node in self.peers(Role.MASTER):
                self.send(node, hello)

    # ------------------------------------------------------------------------------------------ leases

    def lease_given(self, storage: NodeId, since: Seconds) -> None:
        """*storage* hears nobody else for `lease_s` after it has handled what was sent at *since*."""
        until = Seconds(since + self.settings.lease_s * _SAFETY)
        self.lease_until[storage] = max(until, self.lease_until.get(storage, until))

    def valid_lease(self) -> bool:
        """Whether a node readable in the stable table has promised to hear nobody else, for now at least."""
        now = self.now.monotonic
        is_obeyed = any(until > now and n in self.stable_readable for n, until in self.lease_until.items())
        return is_obeyed and self.is_lease_covered()

    def renew_leases(self) -> None:
        """Ask for longer leases, three times per lease."""
        now = self.now.monotonic
        if now < self.renew_at:
            return
        self.renew_at = Seconds(now + self.settings.lease_s / 3)
        self.renew_number += 1
        self.renews[self.renew_number] = now
        for number in [n for n in self.renews if n <= self.renew_number - 16]:
            del self.renews[number]
        for peer in sorted({*self.obeying, *self.promises} - {self.me}):
            self.send(peer, Renew(self.epoch, self.renew_number))

    def on_renewed(self, storage: NodeId, packet: Renewed) -> None:
        """A lease is longer: counted from when its Renew was sent, which is never too late."""
        since = self.renews.get(packet.number)
        if role_of(storage) == Role.MASTER:
            self.on_master_renewed(storage, packet)
        elif packet.epoch == self.epoch and since is not None and storage in self.obeying:
            self.lease_given(storage, since)
            self.disk_told(storage, packet.position)

    def check_lease(self) -> None:
        """Step down when there has been no lease for as long as one lasts.

        Without a lease nothing is decided, at once (`commit` asks). Stepping down can wait: a storage that restarts is
        back in a moment, and goes on under the same epoch.
        """
        now = self.now.monotonic
        if self.valid_lease():
            self.lease_seen = now
        elif now > self.lease_seen + self.settings.lease_s and self.state is not ClusterState.STOPPING:
            self.step_down("no storage, or no majority of the masters, has confirmed its lease in time")
