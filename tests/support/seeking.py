"""A process that looks for the primary master, with the real state machine, and stays connected to it."""

from __future__ import annotations

import random

from neo_common.ids import NodeId, Seconds
from neo_common.model.bootstrap import Bootstrap
from neo_common.states import Role, role_of
from neo_common.wire.schema import HelloNo
from support.world import Process


class Seeker(Process):
    """The shell of a storage or client: what they have in common towards masters."""

    def make_bootstrap(self) -> None:
        """Begin the search; a subclass calls it when its core is made."""
        masters = [p.address() for p in self.world.of_role(Role.MASTER)]
        self._bootstrap = Bootstrap(masters, random.Random(self.world.rng.random()), Seconds(self.world.now))
        self._is_seeking = False
        self._primary_node: NodeId | None = None

    def seek(self) -> None:
        """Dial who is next, unless connected or on the way."""
        if self._bootstrap.is_connected or self._is_seeking:
            return
        attempt = self._bootstrap.next()
        self._is_seeking = True
        delay = max(0.0, attempt.not_before - self.world.now)
        self.world.schedule(delay, self._seek, attempt.address, self.incarnation)

    def _seek(self, address: str, incarnation: int) -> None:
        if self.alive and self.incarnation == incarnation:
            target = next(p for p in self.world.of_role(Role.MASTER) if p.address() == address)
            self.dial(target)

    def dial_failed(self, target: Process, refusal: HelloNo | None) -> None:
        if target.role is not Role.MASTER:
            self.storage_dial_failed(target)
            return
        self._is_seeking = False
        now = Seconds(self.world.now)
        if refusal is None:
            self._bootstrap.failed(target.address(), "cannot be reached", now)
        else:
            self._bootstrap.refused(target.address(), refusal.code, refusal.reason, refusal.primary, now)
        self.seek()

    def storage_dial_failed(self, target: Process) -> None:
        """A storage could not be reached: it is dialled again after the next event."""

    def dial_waits(self, target: Process, reason: str) -> None:
        if target.role is Role.MASTER:
            self._bootstrap.waiting(target.address(), reason)

    def dial_succeeded(self, target: Process) -> None:
        if target.role is Role.MASTER:
            self._is_seeking = False
            self._primary_node = target.node
            self._bootstrap.connected(target.address(), Seconds(self.world.now))

    def connection_lost(self, peer: NodeId, reason: str) -> None:
        if role_of(peer) is Role.MASTER and self._bootstrap.is_connected and peer == self._primary_node:
            self._bootstrap.lost(reason, Seconds(self.world.now))
