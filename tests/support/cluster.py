"""A real cluster in a directory: its daemons as processes, started and killed at will.

It does not use supervisord (that is tested through `neoadmin up`): a test must be able to leave a process dead.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

import yaml

import neo_client
from neo_admin.certificates import Authority, write_secret
from neo_common.states import Role
from neo_common.wire.guard import Identity
from support.ports import hold_ports

PROGRAMS = Path(sys.executable).parent
START_DEADLINE_S = 60.0
STOP_DEADLINE_S = 20.0


class Cluster:
    """Masters m1.., storages s1.., admins a1.., all on loopback. As a context manager: started inside, stopped after.

    `settings` is merged into the configuration: {"limits": {"object": "1MB"}}. `protection`: "tls", "secret" or "".
    `unix`: nodes listen at sockets in *directory*.
    `environ` is added to the environment of the daemons.
    """

    def __init__(
        self,
        directory: Path,
        *,
        masters: int = 1,
        storages: int = 1,
        replicas: int = 0,
        partitions: int = 12,
        admins: int = 0,
        protection: str = "",
        unix: bool = False,
        environ: Mapping[str, str] | None = None,
        settings: Mapping[str, Mapping[str, Any]] | None = None,
        databases: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self.directory = directory
        self.environ = {**os.environ, **(environ or {})}
        directory.mkdir(parents=True, exist_ok=True)
        ports = iter(hold_ports(masters + storages + admins))
        self.masters = [f"m{n + 1}" for n in range(masters)]
        self.storages = [f"s{n + 1}" for n in range(storages)]
        self.admins = [f"a{n + 1}" for n in range(admins)]
        self.addresses = {
            name: f"unix:{directory / name}.socket" if unix else f"127.0.0.1:{next(ports)}" for name in self.names
        }
        config: dict[str, Any] = {
            "cluster": {"name": "test", "partitions": partitions, "replicas": replicas},
            "masters": {name: {"address": self.addresses[name]} for name in self.masters},
            "storages": {
                name: {"address": self.addresses[name], "disk_reserve": "16MB", "log": {"segment": "4MB"}}
                for name in self.storages
            },
        }
        if admins:
            config["admins"] = {name: {"address": self.addresses[name]} for name in self.admins}
        self.protection: dict[str, str] = {}
        """What a client needs to be let in: options of zodburi."""
        if protection:
            config["security"] = self._protect(protection)
        for name, database in zip(self.storages, databases, strict=False):
            config["storages"][name]["database"] = dict(database)
        for section, values in (settings or {}).items():
            config.setdefault(section, {}).update(values)
        self.config = directory / "cluster.yaml"
        self.config.write_text(yaml.safe_dump(config))
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._started_at: dict[str, int] = {}
        """Where in its log the present run of a daemon begins."""

    def _protect(self, how: str) -> dict[str, str]:
        """Make a secret or certificates; return the section of the configuration."""
        if how == "secret":
            write_secret(self.directory / "secret")
            self.protection = {"secret_file": str(self.directory / "secret")}
            return {"secret_file": "secret"}
        folder = self.directory / "tls"
        authority = Authority(folder, "test")
        roles = {"m": Role.MASTER, "s": Role.STORAGE, "a": Role.ADMIN}
        for name in self.names:
            authority.issue(name, Identity("test", roles[name[0]], name), 1)
        authority.issue("neoadmin", Identity("test", Role.ADMIN), 1)
        authority.issue("client", Identity("test", Role.CLIENT), 1)
        files = {"tls_ca": "ca.crt", "tls_certificate": "client.crt", "tls_key": "client.key"}
        self.protection = {key: str(folder / file) for key, file in files.items()}
        return {key: f"tls/{file.replace('client', '{name}')}" for key, file in files.items()}

    @property
    def names(self) -> list[str]:
        """Every node: masters first."""
        return self.masters + self.storages + self.admins

    @property
    def uri(self) -> str:
        """How zodburi opens it."""
        masters = ",".join(self.addresses[name].replace("/", "%2F") for name in self.masters)
        return f"neo://test@{masters}" + (f"?{urlencode(self.protection)}" if self.protection else "")

    def zconfig_section(self, **options: str) -> str:
        """Return the section that opens it."""
        lines = ["name test", *(f"master {self.addresses[name]}" for name in self.masters)]
        options = {**self.protection, **options}
        lines += [f"{key.replace('_', '-')} {value}" for key, value in options.items()]
        return "<neostorage>\n" + "\n".join(lines) + "\n</neostorage>"

    def open(self, **options: Any) -> Any:
        """Return a new client."""
        return neo_client.open(self.uri, **options)

    def __enter__(self) -> Self:
        for name in self.names:
            self.start(name)
        try:
            self.wait_running()
        except BaseException:
            self.kill_all()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.stop()
        else:
            self.kill_all()

    def start(self, name: str) -> None:
        """Start a daemon."""
        assert name not in self.processes, f"{name} runs already"
        programs = {"m": ["neomaster"], "s": ["neostorage"], "a": ["neoadmin", "serve"]}
        program, *words = programs[name[0]]
        command = [str(PROGRAMS / program), *words, "--config", str(self.config), "--name", name]
        with (self.directory / f"{name}.log").open("ab") as log:
            self._started_at[name] = log.tell()
            self.processes[name] = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.directory, env=self.environ
            )

    def kill(self, name: str) -> None:
        """kill -9."""
        process = self.processes.pop(name)
        assert process.poll() is None, f"{name} had ended with {process.returncode}:\n{self.log(name)}"
        process.kill()
        process.wait(STOP_DEADLINE_S)

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal."""
        self.processes[name].send_signal(number)

    def wait_running(self) -> None:
        """Wait until a client can do something."""
        deadline = time.monotonic() + START_DEADLINE_S
        while True:
            self.check_alive()
            try:
                self.open(wait_timeout=2).close()
            except Exception as error:
                if time.monotonic() < deadline:
                    continue
                raise AssertionError(f"the cluster does not start:\n{self.logs()}") from error
            return

    def wait_listening(self, name: str) -> None:
        """Wait until a daemon that was started has got as far as to listen: before, it knows nothing of SIGTERM."""
        deadline = time.monotonic() + START_DEADLINE_S
        while b"listens at" not in (self.directory / f"{name}.log").read_bytes()[self._started_at[name] :]:
            self.check_alive()
            assert time.monotonic() < deadline, f"{name} does not start:\n{self.log(name)}"
            time.sleep(0.05)

    def check_alive(self) -> None:
        """Fail if a daemon has ended by itself."""
        for name, process in self.processes.items():
            assert process.poll() is None, f"{name} has ended with {process.returncode}:\n{self.log(name)}"

    def stop(self) -> None:
        """SIGTERM to all, storages first; each must end with status 0."""
        for name in self.processes:
            self.wait_listening(name)
        for name in reversed(self.names):
            if name in self.processes:
                self.processes[name].terminate()
        for name in reversed(self.names):
            if name in self.processes:
                try:
                    status = self.processes[name].wait(STOP_DEADLINE_S)
                except subprocess.TimeoutExpired:
                    self.kill_all()
                    raise AssertionError(f"{name} does not stop on SIGTERM:\n{self.log(name)}") from None
                assert status == 0, f"{name} ended with {status}:\n{self.log(name)}"
        self.processes.clear()
        self.check_logs()

    def check_logs(self) -> None:
        """A traceback in a log is a bug, whatever became of the process."""
        for name in self.names:
            text = (self.directory / f"{name}.log").read_text(errors="replace")
            _, found, after = text.partition("Traceback (most recent call last)")
            assert not found, f"{name}: {found}{after[:3000]}"

    def kill_all(self) -> None:
        """kill -9 whatever runs."""
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait(STOP_DEADLINE_S)
        self.processes.clear()

    def log_lines(self, name: str) -> int:
        """Return how many lines a daemon has logged since the cluster was made."""
        return (self.directory / f"{name}.log").read_bytes().count(b"\n")

    def log(self, name: str) -> str:
        """Return the end of what a daemon has said."""
        return (self.directory / f"{name}.log").read_text(errors="replace")[-3000:]

    def logs(self) -> str:
        """Return the ends of all logs."""
        return "\n".join(f"--- {name}\n{self.log(name)}" for name in self.names)

    def memory_kb(self, name: str) -> int:
        """Return the resident memory of a daemon (Linux)."""
        pages = int(Path(f"/proc/{self.processes[name].pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") // 1024
