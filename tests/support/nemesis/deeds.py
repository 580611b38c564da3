"""What each fault does to an Ensemble: it begins, and it ends."""

import random
import signal
import subprocess
import time
from collections.abc import Callable

from neo_common.wire.schema import ChangeKind
from support.nemesis.ensemble import Ensemble
from support.nemesis.schedule import Fault
from support.servers import Managed

STORM_S = 0.25
CLOCK_STEP_S = 3600.0
SLOW_S = 0.1


class Deeds:
    """Begins and ends faults; puts everything right at the end."""

    def __init__(
        self, cluster: Ensemble, clients: "dict[str, subprocess.Popen[bytes]]", restart_client: Callable[[str], None]
    ) -> None:
        self._cluster = cluster
        self._clients = clients
        self._restart_client = restart_client
        self._stopped: set[str] = set()
        self.cuts: list[tuple[float, float]] = []
        """Spans in which everything was killed at once."""
        self.drained: set[str] = set()
        """Storages that are to have cells again, and no primary has heard it yet."""

    def begin(self, fault: Fault) -> None:
        """Do it."""
        cluster, targets = self._cluster, fault.targets
        match fault.kind:
            case "kill":
                cluster.kill(targets[0])
            case "storm":
                cluster.kill(targets[0])
                for _ in range(max(1, int(fault.seconds / STORM_S))):
                    cluster.start(targets[0])
                    time.sleep(STORM_S)  # from nothing to as far as it gets
                    cluster.kill(targets[0])
            case "kill-all" | "power":
                began = time.monotonic()
                for name in targets:
                    cluster.signal(name, signal.SIGSTOP)
                for name in targets:
                    cluster.kill(name)
                if fault.kind == "power":
                    for server in cluster.servers.values():
                        if isinstance(server, Managed):
                            server.end()
                    for image in cluster.images.values():
                        image.cut_power()
                # What was acknowledged shortly before is told to its client, perhaps, after the kill.
                self.cuts.append((began - 5.0, time.monotonic() + 5.0))
            case "pause":
                cluster.signal(targets[0], signal.SIGSTOP)
                self._stopped.add(targets[0])
            case "cut":
                cluster.proxies.block([(targets[0], targets[1]), (targets[1], targets[0])])
            case "half":
                cluster.proxies.block([(targets[0], targets[1])])
            case "isolate":
                cluster.proxies.block(cluster.links_of(targets[0]))
            case "reset":
                cluster.proxies.reset(*targets)
            case "slow":
                cluster.proxies.slow([(targets[0], targets[1]), (targets[1], targets[0])], SLOW_S)
            case "full":
                if targets[0] in cluster.images:
                    cluster.images[targets[0]].fill()
            case "server":
                cluster.servers[targets[0]].kill()
            case "clock":
                sign = random.Random(f"{fault}").choice((-1, 1))
                cluster.set_clock(targets[0], sign * CLOCK_STEP_S)
            case "drain":
                cluster.order(ChangeKind.DRAIN, targets[0])
                self.drained.add(targets[0])
            case "tweak":
                cluster.order(ChangeKind.TWEAK)
            case "kill-client":
                end_client(self._clients[targets[0]])
            case "pause-client":
                self._clients[targets[0]].send_signal(signal.SIGSTOP)
            case _:
                raise ValueError(fault.kind)

    def end(self, fault: Fault) -> None:
        """Undo it."""
        cluster, targets = self._cluster, fault.targets
        match fault.kind:
            case "kill" | "storm" | "kill-all" | "power":
                for name in targets:
                    cluster.start(name)
            case "pause":
                cluster.signal(targets[0], signal.SIGCONT)
                self._stopped.discard(targets[0])
            case "cut" | "half":
                cluster.proxies.unblock([(targets[0], targets[1]), (targets[1], targets[0])])
            case "isolate":
                cluster.proxies.unblock(cluster.links_of(targets[0]))
            case "slow":
                cluster.proxies.slow([(targets[0], targets[1]), (targets[1], targets[0])], 0.0)
            case "full":
                if targets[0] in cluster.images:
                    cluster.images[targets[0]].empty()
            case "server":
                if cluster.servers[targets[0]].process is None:  # another storage may share it
                    cluster.servers[targets[0]].start()
            case "clock":
                cluster.set_clock(targets[0], 0.0)
            case "kill-client":
                self._restart_client(targets[0])
            case "pause-client":
                self._clients[targets[0]].send_signal(signal.SIGCONT)
            case "drain":
                if cluster.order(ChangeKind.ADD, targets[0]):
                    self.drained.discard(targets[0])
            case "reset" | "tweak":
                pass  # over at once
            case _:
                raise ValueError(fault.kind)

    def keep_drained(self) -> None:
        """Give the orders that nobody could take when they were due."""
        for name in sorted(self.drained):
            if self._cluster.order(ChangeKind.ADD, name):
                self.drained.discard(name)


def end_client(client: "subprocess.Popen[bytes]") -> None:
    """kill -9, if it still runs."""
    client.kill()
    client.wait()
    assert client.stdin is not None
    client.stdin.close()
