"""The shell of a storage: vote log, back end, threads and peers around one StorageCore. It decides nothing."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Final

from gevent.event import Event

from neo_common.config.sections import Config, Storage
from neo_common.core import Accept, Durable, Park, Refuse, Send
from neo_common.credentials import NO_CREDENTIALS, Credentials
from neo_common.errors import BackendError
from neo_common.ids import NO_NODE, NodeId, Partition
from neo_common.runtime.clock import Clock
from neo_common.runtime.connection import Connection
from neo_common.runtime.exclusive import ExclusiveLock
from neo_common.runtime.limits import shell_limits_of
from neo_common.runtime.shell import DEFAULT_SHELL_LIMITS, EXIT_CRASH, EXIT_OK, Shell, ShellLimits
from neo_common.states import Role, role_of
from neo_common.wire.schema import (
    PROTOCOL_VERSION,
    ErrorCode,
    Hello,
    HelloOk,
    NodeInfo,
    Nodes,
    Packet,
    PullNo,
    RefusalCode,
)
from neo_common.wire.session import Asked, Notified, SessionEvent
from neo_storage.applier import Applier, ApplierSettings
from neo_storage.backends.base import Backend
from neo_storage.core.events import (
    Append,
    Applied,
    Apply,
    CopiedIn,
    CopyIn,
    DiskUsage,
    EraseCells,
    Erased,
    Exit,
    Named,
    PackCells,
    Packed,
    ReadOwn,
    ReadPoints,
    ReadRange,
)
from neo_storage.core.node import StorageCore
from neo_storage.core.settings import StorageSettings
from neo_storage.flusher import Flusher
from neo_storage.log_files import OsLogFiles
from neo_storage.native import Worker
from neo_storage.opening import open_storage
from neo_storage.points import PointReads, point_reads
from neo_storage.ranges import RangeReads
from neo_storage.vote_log import VoteLog

_DISK_S: Final = 1.0
"""Between two looks at the disk."""
_THREAD_S: Final = 10.0
"""For a native thread to end what it does."""
_UNKNOWN: Final = (
    "unknown, as no server tells: watch its disk; or, if that is on this machine, name its folder in"
    " database.server_directory"
)

log = logging.getLogger("neo.storage")


class StorageShell(Shell):
    """A storage daemon. Make it with `make_shell`, then `run`."""

    core: StorageCore

    def __init__(
        self,
        core: StorageCore,
        us: Hello,
        listen: str,
        masters: tuple[str, ...],
        backend: Backend,
        vote_log: VoteLog,
        lock: ExclusiveLock,
        log_directory: Path,
        *,
        flush_s: float,
        applier: ApplierSettings,
        readers: int = 4,
        limits: ShellLimits = DEFAULT_SHELL_LIMITS,
        rng: Random | None = None,
        credentials: Credentials = NO_CREDENTIALS,
    ) -> None:
        """Take over *backend*, *vote_log* and *lock*, open; they are closed with it."""
        super().__init__(core, us, [listen], limits, rng, credentials=credentials)
        self._masters = masters
        self._backend = backend
        self._log = vote_log
        self._lock = lock
        self._log_directory = log_directory
        self._appends: list[Append] = []
        """Of the event at hand, not written yet."""
        self._no_room: dict[str, str] = {}
        """What has no room, log or database, and why."""
        self._addresses: dict[NodeId, str] = {}
        self._state: tuple[object, ...] = ()
        self._is_finishing = False
        self._sync_worker = Worker(self.call_from_thread)
        self._flusher = Flusher(
            vote_log, self._sync_worker, self.soon, self._durable, self._failed, self._log_full, flush_s
        )
        self._applier = Applier(backend, self, applier)
        self._ranges = RangeReads(
            backend, self.call_from_thread, self._applier.hurry, self._answered, self.post, self._disk
        )
        self._ranges.applied(core.image.position)
        self._points: PointReads | None = None
        if not backend.at_once:
            self._points = point_reads(backend, self.call_from_thread, self.spawn, self.post, readers)

    # -------------------------------------------------------------------------------------- life

    def started(self) -> None:
        """Apply, look for the primary, watch the disk."""
        self._applier.start(self.core.image.position)
        if not self._backend.at_once:
            self._ranges.warm()
        self._flusher.make_spares()
        self.follow_primary(self._masters)
        self.spawn(self._watch_disk)
        if self._backend.disk()[1] is None:
            log.warning("the room left for the database is %s", _UNKNOWN)

    def terminate(self, reason: str) -> None:
        """Stop when what is written is durable."""
        self._finish(EXIT_OK, reason)

    def close(self) -> None:
        """Say goodbye, end the threads, close log and back end."""
        super().close()
        self._flusher.close()
        self._applier.stop()
        self._ranges.close(_THREAD_S)
        if self._points is not None:
            self._points.close(_THREAD_S)
        ended = self._applier.wait(_THREAD_S) and self._sync_worker.stop(_THREAD_S)
        if not ended:
            log.error("a thread does not end: log and database are left open to the end of the process")
            return
        try:
            self._backend.close()
        except BackendError as error:
            log.error("%s", error)
        self._log.close()
        self._lock.release()

    def _finish(self, status: int, reason: str) -> None:
        """Stop with *status* when the log is flushed; `close` lets the applier end."""
        if self._is_finishing:
            return
        self._is_finishing = True
        try:
            self._log.flush_job().run()
        except BackendError as error:
            self.stop(EXIT_CRASH, str(error))
            return
        self.stop(status, reason)

    # -------------------------------------------------------------------------------------- effects

    def perform(self, effect: object) -> None:
        """Perform what the core orders."""
        match effect:
            case Append():
                self._appends.append(effect)
            case Apply(position, ops):
                self._applier.put(position, ops)
            case CopyIn():
                self._applier.copy(effect)
            case ReadRange() | ReadOwn():
                self._ranges.ask(effect, self.core.image.table.partitions)
            case ReadPoints():
                assert self._points is not None, "a back end that is asked at once is not asked so"
                self._points.ask(effect)
            case PackCells():
                self._applier.pack(effect)
            case EraseCells():
                self._applier.erase(effect)
            case Exit(status, reason):
                self.performed()  # what was appended before it is flushed with the rest
                self._finish(status, reason)
            case _:
                super().perform(effect)

    def performed(self) -> None:
        """Write what the core has appended to its log, in one write."""
        appends = self._appends
        if not appends:
            return
        try:
            self._log.extend(appends[0].position, [append.record for append in appends])
        except BackendError as error:
            self._failed(str(error))
        else:
            self._flusher.appended(urgent=any(append.urgent for append in appends))
        appends.clear()

    def _durable(self, position: int) -> None:
        self.post(Durable(position))

    def _answered(self, read: ReadRange, packet: Packet) -> None:
        if not self.core.giving.may_say(read):
            return
        packet = self.core.reading.said(read.packet, packet)
        if isinstance(packet, PullNo):
            log.error("peer=%s partition=%s cannot be given: %s", read.peer, packet.partition, packet.text)
        if read.request:
            self._send(Send(read.peer, packet, read.request))
        elif (connection := self.by_node.get(read.peer)) is not None:
            connection.notify(packet)

    # -------------------------------------------------------------------------------------- from the applier's thread

    def applied(self, position: int) -> None:
        """The back end has everything up to *position*."""
        self.call_from_thread(self._on_applied, position)

    def checkpointed(self, position: int) -> None:
        """It has it durably: the log may let go."""
        self.call_from_thread(self._on_checkpointed, position)

    def copied_in(self, number: int) -> None:
        """It has what was copied up to that number."""
        self.call_from_thread(self._ranges.changed)
        self.post_from_thread(CopiedIn(number))

    def packed(self, order: int, partition: Partition, revisions: int, size: int) -> None:
        """A cell is packed."""
        self.call_from_thread(self._ranges.changed)
        self.post_from_thread(Packed(order, partition, revisions, size))

    def erased(self, partition: Partition) -> None:
        """A dropped cell is erased."""
        self.post_from_thread(Erased(partition))

    def no_room(self, text: str) -> None:
        """The database has no room."""
        self.call_from_thread(self._full, "database", text)

    def lost(self, text: str) -> None:
        """The database is away."""
        self.call_from_thread(self._database_lost, text)

    def found(self) -> None:
        """It is back, and complete."""
        self.call_from_thread(self._database_found)

    def room(self) -> None:
        """It has room again."""
        self.call_from_thread(self._has_room, "database")

    def failed(self, text: str) -> None:
        """The applier has stopped, for good."""
        self.call_from_thread(self._failed, text)

    # -------------------------------------------------------------------------------------- what becomes of it

    def _on_applied(self, position: int) -> None:
        self.post(Applied(position))
        self._ranges.applied(position)

    def _on_checkpointed(self, position: int) -> None:
        self._log.release(self.core.needed_from(position))
        self._flusher.make_spares()
        self._tell_disk()

    def _failed(self, text: str) -> None:
        """What is not durable, or cannot be applied, must not be built upon: the next start replays."""
        if not self._is_finishing:
            self._is_finishing = True
            log.critical("%s", text)
            self.stop(EXIT_CRASH, text)

    def _log_full(self, text: str) -> None:
        self._full("log", text)

    def _full(self, part: str, text: str) -> None:
        if part not in self._no_room:
            log.error("no votes are taken: no room for the %s: %s", part, text)
        self._no_room[part] = text
        if part == "database":
            self._ranges.stuck(ErrorCode.NO_SPACE, text)
        self._tell_disk()

    def _database_lost(self, text: str) -> None:
        log.error("the database is away, what is committed waits in the log: %s", text)
        self._ranges.stuck(ErrorCode.NOT_READY, text)  # who asks may wait for it, or ask another storage

    def _database_found(self) -> None:
        log.warning("the database is back")
        self._ranges.go_on()

    def _has_room(self, part: str) -> None:
        if self._no_room.pop(part, None) is not None:
            log.warning("there is room for the %s again", part)
            if part == "database":
                self._ranges.go_on()
            self._tell_disk()

    # -------------------------------------------------------------------------------------- the disk

    def _disk(self) -> tuple[int, int]:
        """Return (bytes used by database and log, bytes free on the tighter of their disks, as far as is known)."""
        used, free = self._backend.disk()
        log_free = self._log_free()
        return used + self._log.disk_bytes(), log_free if free is None else min(free, log_free)

    def _log_free(self) -> int:
        status = os.statvfs(self._log_directory)
        return status.f_bavail * status.f_frsize

    def _tell_disk(self) -> None:
        used, free = self._disk()
        self.post(DiskUsage(used, 0 if self._no_room else free))

    def _watch_disk(self) -> None:
        never = Event()
        while True:
            for text in self._backend.news():
                log.warning("%s", text)
            self._tell_disk()
            never.wait(_DISK_S)
            self._flusher.make_spares()
            if self._log.has_spare:
                self._has_room("log")
            self._advance_mark()

    def _advance_mark(self) -> None:
        """Tell the back end of records that mean nothing to it (votes withdrawn), so that the log may let them go."""
        ground = self.core.ground
        if self._log.segment_count > 2 and ground.applied >= ground.last_op and ground.durable > ground.applied:
            self._applier.put(ground.durable, ())

    # -------------------------------------------------------------------------------------- peers

    def hello(self) -> Hello:
        """Return what we say when we dial: what we are now."""
        image = self.core.image
        return self.us._replace(epoch=image.epoch, node=self.core.me, cluster_id=image.cluster_id or bytes(16))

    def opened(self, hello_ok: HelloOk) -> None:
        """Take the id that a master has given us."""
        if self.core.me == NO_NODE and hello_ok.role == Role.MASTER:
            self.us = self.us._replace(node=hello_ok.you)
            self.post(Named(hello_ok.you))
        super().opened(hello_ok)

    def greet(self, connection: int, hello: Hello) -> Accept | Park | Refuse | None:
        """Let in who has an id, and any admin."""
        if self.core.me == NO_NODE:
            return Park(connection, "this storage has no id yet: no primary has taken it in")
        node = hello.node
        if hello.role == Role.ADMIN and node == NO_NODE:
            return Accept(connection, self.local_id(Role.ADMIN))
        if hello.role == Role.MASTER:
            return Refuse(connection, RefusalCode.ROLE, "storages dial masters, not the other way round")
        if node == NO_NODE or role_of(node) != hello.role or node == self.core.me:
            text = "ask the primary for an id first" if node == NO_NODE else f"{node:#x} cannot be your id"
            return Refuse(connection, RefusalCode.IDENTITY, text)
        return Accept(connection, node)

    def connection_event(self, connection: Connection, event: SessionEvent) -> None:
        """Take an event of a connection; then note what we are now, and dial whom the core wants."""
        if type(event) is Notified and type(event.packet) is Nodes:
            self._learn(event.packet.nodes)
        super().connection_event(connection, event)
        if type(event) is Asked:
            self._flusher.asked()
            return  # a question changes nothing
        core = self.core
        state = (core.serving, core.image.table, core.me, core.image.cluster_id)
        if state != self._state:
            self._state = state
            self.us = self.hello()  # who dials us is compared with it
            self._dial()

    def _learn(self, nodes: tuple[NodeInfo, ...]) -> None:
        for info in nodes:
            if role_of(info.node) == Role.STORAGE and info.address:
                self._addresses[info.node] = info.address
        self._state = ()

    def _dial(self) -> None:
        if not self.core.serving:
            return  # between two reigns: dialling anew would cut a connection that the next one goes on with
        wanted = self.core.wanted_peers()
        for node in set(self.dialled) - wanted:
            self.let_go(node)
        for node in sorted(wanted):
            address = self._addresses.get(node)
            if address is not None:
                self.keep_dialled(node, address)

    # -------------------------------------------------------------------------------------- for people

    def debug(self) -> dict[str, object]:
        """Return what this node waits for, holds and queues."""
        used, free = self._disk()
        database_free = self._backend.disk()[1]
        mine: dict[str, object] = {
            "vote_log": repr(self._log),
            "flush_mean_us": round(self._flusher.mean_s * 1e6),
            "flushes": self._flusher.count,
            "long_reads": len(self._ranges),
            "point_reads": 0 if self._points is None else len(self._points),
            "disk": {
                "used": used,
                "free": free,
                "log_free": self._log_free(),
                "database_free": _UNKNOWN if database_free is None else database_free,
                "no_room": self._no_room,
            },
        }
        return {**super().debug(), "storage": mine}


def settings_of(config: Config, storage: Storage) -> StorageSettings:
    """Return what the configuration says to the core."""
    timeouts, limits = config.timeouts, config.limits
    return StorageSettings(
        lease_s=timeouts.lease_s,
        lock_s=timeouts.lock_s,
        overdue_s=timeouts.overdue_s,
        transaction_age_s=limits.transaction_age_s,
        object_bytes=limits.object_bytes,
        transaction_bytes=limits.transaction_bytes,
        undecided_bytes=limits.undecided_bytes,
        overlay_bytes=limits.overlay_bytes,
        disk_reserve_bytes=storage.disk_reserve_bytes,
        values_bytes=storage.database.values_bytes,
        copy_floor=min(config.replication.floor_bytes, config.replication.ceiling_bytes),
        copy_ceiling=config.replication.ceiling_bytes,
        copy_parallel=config.replication.parallel,
        domain=storage.failure_domain,
        weight=storage.weight,
        scrub_rate=config.scrub.rate_bytes,
        scrub_every_s=config.scrub.every_s,
    )


def make_shell(
    config: Config,
    name: str,
    make_backend: Callable[[Storage], Backend],
    credentials: Credentials = NO_CREDENTIALS,
) -> StorageShell:
    """Open the storage *name* of *config* and return its shell, not yet running.

    Raises: ConfigError, BackendError.
    """
    storage = config.storage(name)
    directory = Path(storage.log.path)
    backend = make_backend(storage)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BackendError(f"cannot make {directory}: {error}") from error
    lock = ExclusiveLock(directory / "lock", f"vote log {directory}")
    vote_log = VoteLog(
        OsLogFiles(directory),
        segment_bytes=storage.log.segment_bytes,
        spare_segments=storage.log.spare_segments,
        new_salt=lambda: int.from_bytes(os.urandom(8), "big"),
    )
    try:
        image = open_storage(backend, vote_log)
        core = StorageCore(image.node, image, backend, settings_of(config, storage), Clock().now())
        us = Hello(
            PROTOCOL_VERSION,
            PROTOCOL_VERSION,
            (),
            Role.STORAGE,
            name,
            config.cluster.name,
            image.cluster_id or bytes(16),
            image.node,
            int.from_bytes(os.urandom(8), "big"),
            image.epoch,
            str(storage.address),
        )
        return StorageShell(
            core,
            us,
            storage.listens_at,
            tuple(map(str, config.master_addresses)),
            backend,
            vote_log,
            lock,
            directory,
            flush_s=config.timeouts.commit_flush_s,
            applier=ApplierSettings(checkpoint_bytes=storage.database.checkpoint_bytes),
            readers=storage.database.readers,
            limits=shell_limits_of(config),
            credentials=credentials,
        )
    except BaseException:
        backend.close()
        vote_log.close()
        lock.release()
        raise
