"""The storages that are compared, each started in a directory of its own with its default, durable settings."""

import importlib.util
import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Protocol

PROGRAMS = Path(sys.executable).parent


class Peer(Protocol):
    """One storage. `start` once, `open` as often as wanted, `stop` once."""

    name: str

    def start(self, directory: Path) -> None:
        """Start its servers, its data in *directory*."""

    def open(self) -> Any:
        """Return a new client with an empty cache."""

    def stop(self) -> None:
        """Stop its servers."""


class FileStoragePeer:
    """The floor: in-process, one process only."""

    name = "FileStorage (in process)"

    def start(self, directory: Path) -> None:
        self._path = str(directory / "Data.fs")

    def open(self) -> Any:
        from ZODB.FileStorage import FileStorage  # noqa: PLC0415  only the peer that is measured is imported

        return FileStorage(self._path)

    def stop(self) -> None:
        """Nothing runs."""


class ZeoPeer:
    """ZEO over a FileStorage."""

    name = "ZEO"

    def start(self, directory: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        command = [str(PROGRAMS / "runzeo"), "-a", f"127.0.0.1:{self._port}", "-f", str(directory / "Data.fs")]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self._port), 1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return
        raise SystemExit("ZEO does not start")

    def open(self) -> Any:
        from ZEO.ClientStorage import ClientStorage  # noqa: PLC0415

        return ClientStorage(("127.0.0.1", self._port), wait=True, wait_timeout=20)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(20)


class RelStoragePeer:
    """RelStorage on SQLite, history-preserving, told to be durable. Not networked: for orientation."""

    name = "RelStorage SQLite (not networked)"

    def start(self, directory: Path) -> None:
        self._directory = str(directory)

    def open(self) -> Any:
        from relstorage.adapters.sqlite.adapter import Sqlite3Adapter  # noqa: PLC0415
        from relstorage.options import Options  # noqa: PLC0415
        from relstorage.storage import RelStorage  # noqa: PLC0415

        options = Options(keep_history=True, cache_local_mb=0)
        adapter = Sqlite3Adapter(self._directory, pragmas={"synchronous": "FULL"}, options=options)
        return RelStorage(adapter, options=options)

    def stop(self) -> None:
        """Nothing runs."""


class NeoPeer:
    """This project: one master, some storages on SQLite, started as an operator would."""

    def __init__(self, storages: int, replicas: int) -> None:
        self.name = f"NEO, {storages} storage{'s' if storages > 1 else ''}, replicas {replicas}"
        self._shape = ["--masters", "1", "--admins", "0", "--storages", str(storages), "--replicas", str(replicas)]

    def start(self, directory: Path) -> None:
        self._directory = str(directory / "cluster")
        command = [
            str(PROGRAMS / "neoadmin"),
            "up",
            "--directory",
            self._directory,
            "--name",
            "bench",
            *self._shape,
            "--json",
        ]
        self._uri = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=60).stdout)["uri"]

    def open(self) -> Any:
        from neo_client.zodburi import resolve_uri  # noqa: PLC0415

        factory, _ = resolve_uri(self._uri)
        return factory()

    def stop(self) -> None:
        command = [str(PROGRAMS / "neoadmin"), "down", "--directory", self._directory]
        subprocess.run(command, check=True, timeout=60, stdout=subprocess.DEVNULL)


def peers() -> list[Peer]:
    """Return those that can run here, ours first; say which cannot."""
    found: list[Peer] = [NeoPeer(1, 0), NeoPeer(2, 0), NeoPeer(2, 1)]
    for module, peer in (("ZEO", ZeoPeer()), ("relstorage", RelStoragePeer())):
        if importlib.util.find_spec(module):
            found.append(peer)
        else:
            sys.stderr.write(f"{peer.name} is left out: pip install {module}\n")
    return [*found, FileStoragePeer()]
