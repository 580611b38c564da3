"""A master on sockets: the shell around `MasterCore`. It decides nothing."""

import logging
from pathlib import Path
from random import SystemRandom
from typing import Final

from gevent.event import Event
from gevent.threadpool import ThreadPool

from neo_common.config.sections import Config
from neo_common.core import Accept, Left, Park, Refuse
from neo_common.credentials import NO_CREDENTIALS, Credentials
from neo_common.ids import NO_EPOCH, NO_VERSION
from neo_common.runtime.connection import Connection
from neo_common.runtime.limits import shell_limits_of
from neo_common.runtime.shell import Shell
from neo_common.states import Role
from neo_common.wire.schema import PROTOCOL_VERSION, Hello, HelloOk, Page
from neo_common.wire.session import Ended, SessionEvent
from neo_master.core.effects import Exit, Note, Store, Stored, Terminate
from neo_master.core.master import MasterCore
from neo_master.core.settings import Configured, MasterSettings
from neo_master.journal import Journal
from neo_master.notes import Notes

log = logging.getLogger("neo.master")
_PAGES_MAX: Final = 1000
"""Pages that wait for the disk: a quarter of an hour. Then all that was noted is forgotten, rather than part of it."""
DEBUG_CAPABILITY = "debug"
"""An admin that says so wants `AskDebug` of this very master, primary or not."""


def settings_of(config: Config) -> MasterSettings:
    """Return what the core must know of the configuration."""
    cluster, timeouts, limits = config.cluster, config.timeouts, config.limits
    return MasterSettings(
        cluster=cluster.name,
        partitions=cluster.partitions,
        replicas=cluster.replicas,
        auto_start=cluster.auto_start,
        storages=tuple(
            Configured(s.name, s.node, s.address, s.failure_domain, s.weight) for s in config.storages.values()
        ),
        lease_s=timeouts.lease_s,
        grace_s=timeouts.grace_s,
        told_s=2 * timeouts.silence_s,
        stop_s=timeouts.stop_s,
        moves_max=limits.moves,
        node_expiry_s=timeouts.node_expiry_s,
        election_wait_s=timeouts.election_s,
        takeover_s=timeouts.takeover_s,
        power_on_s=timeouts.power_on_s,
        clients_max=limits.connections,
        parked_max=limits.connections,
    )


class MasterShell(Shell):
    """One master process."""

    core: MasterCore

    def __init__(self, config: Config, name: str, credentials: Credentials = NO_CREDENTIALS) -> None:
        """Prepare the master called *name*. Raises: ConfigError if there is none, BackendError for its disk."""
        me = config.master(name)
        rng = SystemRandom()
        masters = tuple(Configured(m.name, m.node, m.address) for m in config.masters.values())
        self._journal = Journal(Path(me.directory))
        self._to_store: Store | None = None
        """The newest `Store`: it makes those before it durable too."""
        self._notes = Notes(Path(me.directory))
        if self._notes.dropped:
            log.warning("notes: %d bytes at the end cannot be read, and are dropped", self._notes.dropped)
        self._to_note: list[Page] = []
        self._is_writing = False
        self._has_to_write = Event()
        core = MasterCore(me.node, settings_of(config), masters, rng, self._journal.kept, self._notes.holding())
        us = Hello(
            PROTOCOL_VERSION,
            PROTOCOL_VERSION,
            (),
            Role.MASTER,
            name,
            config.cluster.name,
            bytes(16),
            me.node,
            rng.getrandbits(64),
            NO_EPOCH,
            me.address,
        )
        super().__init__(core, us, [me.listens_at], shell_limits_of(config), rng, credentials=credentials)

    def started(self) -> None:
        """Dial the masters that it is ours to dial; begin to write."""
        self.spawn(self._write)
        for master in self.core.wanted_masters():
            self.keep_dialled(master.node, master.address)

    def hello(self) -> Hello:
        """Return what we say: with the epoch and the cluster's id of now."""
        return self.us._replace(epoch=self.core.seen_epoch, cluster_id=self.core.known_cluster_id())

    def opened(self, hello_ok: HelloOk) -> None:
        """Take nothing from another master: the storages know the cluster's id."""

    def greet(self, connection: int, hello: Hello) -> Accept | Park | Refuse | None:
        """Let the core decide, but on who only wants to look inside."""
        if hello.role == Role.ADMIN and DEBUG_CAPABILITY in hello.capabilities:
            return Accept(connection, self.local_id(Role.ADMIN))
        return None

    def perform(self, effect: object) -> None:
        """Write down, or stop, when the core says so."""
        match effect:
            case Store():
                self._to_store = effect
                self._has_to_write.set()
            case Note(page):
                if len(self._to_note) >= _PAGES_MAX:
                    self._to_note = [Page(NO_VERSION, 0, True, (), (), ())]
                self._to_note.append(page)
                self._has_to_write.set()
            case Exit():
                self.stop(effect.status, effect.reason)
            case _:
                raise AssertionError(effect)

    def _write(self) -> None:
        """Make durable what the core orders, on a native thread. What cannot be written stops the daemon."""
        threads = ThreadPool(1)
        while True:
            self._has_to_write.wait()
            self._has_to_write.clear()
            self._is_writing = True
            order, self._to_store = self._to_store, None
            if order is not None:
                threads.apply(self._journal.write, (order.kept,))
                self.post(Stored(order.number))
            pages, self._to_note = self._to_note, []
            if pages:
                threads.apply(self._notes.write, (pages,))
            self._is_writing = False

    def close(self) -> None:
        """Say goodbye, close the journal."""
        super().close()
        if self._to_note and not self._is_writing:
            self._notes.write(self._to_note)
        self._notes.close()
        self._journal.close()

    def terminate(self, reason: str) -> None:
        """Give up leases before leaving: the next primary need not wait for them."""
        self.post(Terminate(reason))

    def connection_event(self, connection: Connection, event: SessionEvent) -> None:
        """Tell the core, too, of who hangs up before it was let in."""
        super().connection_event(connection, event)
        if isinstance(event, Ended) and connection.peer is None and not connection.dialled:
            self.post(Left(connection.handle, str(event.error)))
