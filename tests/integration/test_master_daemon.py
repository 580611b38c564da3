"""neomaster as a process: starts, elects, sends away, stops; with the real socket, clock and signals."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import SystemRandom

import pytest
import yaml

from neo_admin.link import Deadline, Link
from neo_common.errors import HandshakeRefused, NeoError
from neo_common.ids import NO_EPOCH, NO_NODE
from neo_common.states import ClusterState, Role
from neo_common.wire import schema as s
from support.ports import hold_ports

PROGRAM = Path(sys.executable).parent / "neomaster"
WAIT_S = 15.0


class Masters:
    """Masters m1.. of one configuration, without storages."""

    def __init__(self, directory: Path, count: int) -> None:
        ports = hold_ports(count + 1)
        self.addresses = {f"m{n + 1}": f"127.0.0.1:{ports[n]}" for n in range(count)}
        self.config = directory / "cluster.yaml"
        self.config.write_text(
            yaml.safe_dump(
                {
                    "cluster": {"name": "test"},
                    "masters": {name: {"address": address} for name, address in self.addresses.items()},
                    "storages": {"s1": {"address": f"127.0.0.1:{ports[-1]}"}},
                }
            )
        )
        self.processes: dict[str, subprocess.Popen[str]] = {}

    def start(self, *names: str) -> None:
        """Start masters."""
        for name in names or self.addresses:
            command = [str(PROGRAM), "--config", str(self.config), "--name", name]
            self.processes[name] = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    def kill(self, name: str) -> None:
        """kill -9."""
        process = self.processes.pop(name)
        process.kill()
        process.communicate(timeout=WAIT_S)

    def end(self) -> None:
        """Leave nothing behind."""
        for name in list(self.processes):
            self.kill(name)

    def ask(self, name: str, question: s.Packet, answer: type, *, cluster: str = "test") -> s.Packet:
        """Ask a master, as an admin. Raises: NeoError."""
        hello = s.Hello(
            1, 1, (), Role.ADMIN, "test", cluster, bytes(16), NO_NODE, SystemRandom().getrandbits(64), NO_EPOCH, ""
        )
        with Link(self.addresses[name], hello, Deadline(5.0)) as link:
            told = link.ask(question, answer, Deadline(5.0))
            assert isinstance(told, tuple)
            return told

    def cluster(self, name: str) -> s.AnswerCluster:
        """Return what a master says of the cluster, once it is there and primary."""
        until = time.monotonic() + WAIT_S
        while True:
            try:
                told = self.ask(name, s.AskCluster(), s.AnswerCluster)
            except (NeoError, OSError):
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)  # for a process to come up there is no event
                continue
            assert isinstance(told, s.AnswerCluster)
            return told

    def refusal(self, name: str) -> HandshakeRefused:
        """Return how a master sends an admin away, once it is there."""
        until = time.monotonic() + WAIT_S
        while True:
            try:
                self.ask(name, s.AskCluster(), s.AnswerCluster)
            except HandshakeRefused as error:
                return error
            except (NeoError, OSError):
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)  # as above


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return an empty directory."""
    return tmp_path


@pytest.fixture
def one(directory: Path) -> Iterator[Masters]:
    """One master, running."""
    masters = Masters(directory, 1)
    masters.start()
    yield masters
    masters.end()


@pytest.fixture
def two(directory: Path) -> Iterator[Masters]:
    """Two masters, running."""
    masters = Masters(directory, 2)
    masters.start()
    yield masters
    masters.end()


def test_single_master_says_what_it_waits_for(one: Masters) -> None:
    told = one.cluster("m1")
    assert told.state is ClusterState.RECOVERING
    assert "s1" in told.reason


def test_sigterm_ends_it_cleanly(one: Masters) -> None:
    one.cluster("m1")
    process = one.processes["m1"]
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0, log
    assert "Traceback" not in log


def test_stop_order_ends_it(one: Masters) -> None:
    one.cluster("m1")
    one.ask("m1", s.AskStop("maintenance"), s.AnswerStop)
    process = one.processes["m1"]
    _, log = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0, log
    assert "maintenance" in log


def test_other_cluster_is_refused(one: Masters) -> None:
    one.cluster("m1")
    with pytest.raises(HandshakeRefused, match="'test'"):
        one.ask("m1", s.AskCluster(), s.AnswerCluster, cluster="other")


def test_first_of_two_is_primary_and_the_other_says_so(two: Masters) -> None:
    assert two.cluster("m1").state is ClusterState.RECOVERING
    with pytest.raises(HandshakeRefused) as refusal:
        two.ask("m2", s.AskCluster(), s.AnswerCluster)
    assert refusal.value.code == s.RefusalCode.NOT_PRIMARY
    assert refusal.value.primary == two.addresses["m1"]


def test_second_takes_over_when_the_first_is_killed(two: Masters) -> None:
    epoch = two.cluster("m1").epoch
    two.kill("m1")
    assert two.cluster("m2").epoch > epoch


def test_first_follows_when_it_comes_back(two: Masters) -> None:
    two.cluster("m1")
    two.kill("m1")
    two.cluster("m2")
    two.start("m1")
    refusal = two.refusal("m1")
    assert (refusal.code, refusal.primary) == (s.RefusalCode.NOT_PRIMARY, two.addresses["m2"])


def test_unknown_name_is_an_error_that_names_the_nodes(directory: Path) -> None:
    masters = Masters(directory, 1)
    command = [str(PROGRAM), "--config", str(masters.config), "--name", "m9"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert done.returncode == 2
    assert "m1" in done.stderr
    assert "Traceback" not in done.stderr


def test_bad_configuration_is_an_error_with_file_and_key(directory: Path) -> None:
    path = directory / "bad.yaml"
    path.write_text("cluster: {name: test, partitons: 12}\n")
    command = [str(PROGRAM), "--config", str(path), "--name", "m1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert done.returncode == 2
    assert "bad.yaml:1" in done.stderr
    assert "partitons" in done.stderr
