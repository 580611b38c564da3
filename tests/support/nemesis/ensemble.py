"""The cluster that suffers: its daemons behind proxies, on file systems of their own, with clocks that can be set."""

import contextlib
import os
import struct
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from neo_common.ids import MAX_TID, Epoch, Partition, Tid
from neo_common.model.partition_table import EMPTY, PartitionTable
from neo_common.states import CellState, ClusterState, NodeState, Role, node_id, role_of
from neo_common.wire.schema import (
    AskChange,
    AskCluster,
    AskNodes,
    AskTable,
    AskTransactions,
    ChangeKind,
    Error,
    ErrorCode,
    NodeInfo,
)
from support.cluster import Cluster
from support.nemesis.images import Image, images_work
from support.nemesis.proxy import CLIENT, Proxies
from support.nemesis.schedule import Shape
from support.ports import hold_ports
from support.raw_client import Gone, RawConnection
from support.server_kinds import KINDS
from support.servers import Managed, Server
from support.zygote import Zygote

IMAGE_MB = 96
MANAGED_IMAGE_MB = 384
MANAGED = "managed"
CELLS_PAUSES_S = (1.0, 3.0, 10.0)
"""Before what the storages hold is read again: a new primary takes over meanwhile."""


class AnotherReign(Exception):
    """The primary that was asked for the table is none any more."""


class Ensemble(Cluster):
    """A Cluster whose nodes are dialled through proxies only."""

    processes: dict[str, Any]

    def __init__(self, directory: Path, shape: Shape, zygote: Zygote, *, wants_images: bool = True) -> None:
        super().__init__(
            directory,
            masters=shape.masters,
            storages=shape.storages,
            replicas=shape.replicas,
            settings={"logging": {"level": "INFO"}},
        )
        self.shape = shape
        self._zygote = zygote
        made = {kind: KINDS[kind]() for kind in sorted(set(shape.servers) - {MANAGED})}
        self.servers: dict[str, Server | Managed] = {}
        """Who keeps the database of each storage, if that is not SQLite. Only managed ones lose their disk with it."""
        behind = hold_ports(len(self.names))
        self.direct = {name: f"127.0.0.1:{port}" for name, port in zip(self.names, behind, strict=True)}
        """Where nodes really listen."""
        self.images: dict[str, Image] = {}
        config = yaml.safe_load(self.config.read_text())
        for section in ("masters", "storages"):
            for name, node in config[section].items():
                node["listen"] = self.direct[name]
        has_images = wants_images and images_work(directory)
        for name, kind in zip(self.storages, cycle(shape.servers or ("",)), strict=False):
            if has_images:
                size_mb = IMAGE_MB if kind != MANAGED else MANAGED_IMAGE_MB
                self.images[name] = Image(directory / f"disk-{name}", size_mb)
                config["storages"][name]["directory"] = f"disk-{name}/files"
            config["storages"][name]["log"] = {"segment": "1MB"}
            if kind:
                server = made.get(kind) or Managed(directory / (f"disk-{name}" if has_images else name))
                self.servers[name] = server
                config["storages"][name]["database"] = server.settings(server.new_database())
        self.config.write_text(yaml.safe_dump(config))
        for name in self.names:
            self.set_clock(name, 0.0)
        self.proxies = Proxies({name: (_port(self.addresses[name]), _port(self.direct[name])) for name in self.names})

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            super().__exit__(kind, value, trace)
        finally:
            self._close()

    def __enter__(self) -> Self:
        try:
            return super().__enter__()
        except BaseException:
            self._close()
            raise

    def _close(self) -> None:
        self.proxies.close()
        for server in self.servers.values():
            server.end()
        for image in self.images.values():
            image.close()

    def start(self, name: str) -> None:
        """Start a daemon; it is forked from one that has imported everything."""
        assert name not in self.processes, f"{name} runs already"
        log = self.directory / f"{name}.log"
        self._started_at[name] = log.stat().st_size if log.exists() else 0
        self.processes[name] = self._zygote.start(
            "neomaster" if name in self.masters else "neostorage",
            ["--config", str(self.config), "--name", name],
            self.directory,
            log,
            clock=self._clock(name),
        )

    def _clock(self, name: str) -> Path:
        return self.directory / f"{name}.clock"

    def set_clock(self, name: str, offset_s: float) -> None:
        """Set a node's wall clock so far from the true one. Its monotonic clock runs on."""
        temporary = self._clock(name).with_suffix(".new")
        temporary.write_bytes(struct.pack("d", offset_s))
        temporary.replace(self._clock(name))

    def links_of(self, name: str) -> list[tuple[str, str]]:
        """Return both directions of all links of a node."""
        others = [n for n in (*self.names, CLIENT) if n != name]
        return [(name, n) for n in others] + [(n, name) for n in others]

    # ------------------------------------------------------------------------------------------ what it is like

    def snapshot(self) -> tuple[Any, tuple[NodeInfo, ...], PartitionTable, Epoch]:
        """Return AnswerCluster, the nodes, the table, the epoch. Raises: Gone when no primary answers."""
        reason: Exception = Gone("no master")
        for name in self.masters:
            try:
                with contextlib.closing(RawConnection(self.direct[name], role=Role.ADMIN, deadline_s=5)) as master:
                    cluster = master.ask(AskCluster())
                    nodes = master.ask(AskNodes()).nodes
                    return cluster, nodes, master.ask(AskTable()).table.apply(EMPTY), cluster.epoch
            except (Gone, OSError, AssertionError) as error:
                reason = error
        raise Gone(reason)

    def order(self, kind: ChangeKind, name: str = "") -> bool:
        """Be an operator who wants cells elsewhere; return whether a primary has taken the order."""
        for master in self.masters:
            with (
                contextlib.suppress(Gone, OSError, AssertionError),
                contextlib.closing(RawConnection(self.direct[master], role=Role.ADMIN, deadline_s=2)) as link,
            ):
                nodes = (node_id(Role.STORAGE, int(name[1:])),) if name else ()
                return not isinstance(link.ask(AskChange(kind, nodes, 0, False, "nemesis"), 10), Error)
        return False

    def trouble(self) -> str:
        """Return what is not well; empty when everybody is there and all cells are up to date."""
        try:
            cluster, nodes, table, _ = self.snapshot()
        except Gone as error:
            return f"no primary: {error}"
        if cluster.state is not ClusterState.RUNNING:
            return f"the cluster is {cluster.state.name}: {cluster.reason}"
        states = {info.name: info.state for info in nodes if role_of(info.node) in (Role.MASTER, Role.STORAGE)}
        away = [f"{n} is {states.get(n)}" for n in self.names if states.get(n) is not NodeState.RUNNING]
        if away:
            return ", ".join(away)
        for p in range(table.partitions):
            cells = table.rows[p]
            if len(cells) != self.shape.replicas + 1 or any(state != CellState.UP_TO_DATE for _, state in cells):
                return f"partition {p} has {cells}"
        return ""

    def cells(self) -> dict[str, dict[int, list[Any]]]:
        """Return what each storage holds of each of its partitions: its transactions, with all revisions and values.

        After hours that takes minutes: when another reign begins meanwhile, it is read again.
        """
        for pause_s in CELLS_PAUSES_S:
            try:
                return self._cells()
            except AnotherReign:
                time.sleep(pause_s)
        return self._cells()

    def _cells(self) -> dict[str, dict[int, list[Any]]]:
        _, nodes, table, epoch = self.snapshot()
        found: dict[str, dict[int, list[Any]]] = {}
        for name in self.storages:
            node = next(info.node for info in nodes if info.name == name and role_of(info.node) is Role.STORAGE)
            found[name] = {p: self._cell(name, epoch, p) for p in table.partitions_of(node)}
        return found

    def _cell(self, name: str, epoch: Epoch, partition: Partition) -> list[Any]:
        # A connection for each: after long runs there is so much to keep that heartbeats come late.
        with contextlib.closing(RawConnection(self.direct[name], role=Role.ADMIN, deadline_s=60)) as storage:
            return list(_transactions(storage, epoch, partition))

    def resources(self) -> dict[str, tuple[int, int]]:
        """Return resident memory in kB and open files of every daemon."""
        return {
            name: (self.memory_kb(name), len(os.listdir(f"/proc/{process.pid}/fd")))
            for name, process in self.processes.items()
        }


def _port(address: str) -> int:
    return int(address.rsplit(":", 1)[1])


def _transactions(storage: RawConnection, epoch: Epoch, partition: Partition) -> Iterator[Any]:
    start = Tid(0)
    while True:
        answer = storage.ask(AskTransactions(epoch, (partition,), start, MAX_TID, False, True, True, 1000), 60)
        if isinstance(answer, Error) and answer.code == ErrorCode.EPOCH:
            raise AnotherReign(answer.text)
        assert not isinstance(answer, Error), answer
        yield from answer.transactions
        if not answer.next:
            return
        start = answer.next
