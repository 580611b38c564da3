"""ZODB's suites on a cluster that is never left alone: one of its two storages is killed, again and again.

Each has everything: the other one serves meanwhile. The next one is killed when both have everything again: that is
as much as one copy beyond the first promises to survive.
"""

import contextlib
import itertools
import random
import signal
import threading
import time

from neo_common.model.partition_table import EMPTY
from neo_common.states import CellState, Role
from neo_common.wire.schema import AskTable
from support.raw_client import Gone, RawConnection
from support.zodb_clusters import POOLS, Pool, QuickCluster, Shape
from support.zygote import Zygote

CALM_S = (0.0, 0.1)
"""Between the moment when all is well and a kill."""
DOWN_S = (0.02, 0.3)


class DisturbedCluster(QuickCluster):
    """Kills and restarts its storages from the moment it is taken."""

    kills = 0
    ended = 0
    """Of all of them."""

    def __init__(self, shape: Shape, zygote: Zygote, seed: int) -> None:
        super().__init__(shape, zygote)
        self._rng = random.Random(seed)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._disturb, name="disturbance", daemon=True)
        self._problem = ""

    def taken(self) -> None:
        """The test begins: with a cluster that is well, so that the first kill hits the test and not its set-up."""
        self._wait_well()
        self._thread.start()

    def end(self) -> str:
        """Stop killing; then as ever."""
        self._done.set()
        if self._thread.ident is not None:
            self._thread.join()
            DisturbedCluster.ended += 1
        return self._problem + super().end()

    def _disturb(self) -> None:
        while self._wait_well() and not self._done.wait(self._rng.uniform(*CALM_S)):
            index = self.names.index(self._rng.choice(self.storages))
            daemon = self.daemons[index]
            if daemon.poll() is not None:
                return  # it has ended by itself: `end` will say so
            daemon.send_signal(signal.SIGKILL)
            while daemon.poll() is None:
                time.sleep(0.002)
            DisturbedCluster.kills += 1
            self._done.wait(self._rng.uniform(*DOWN_S))
            self.daemons[index] = self.start_daemon(self.names[index])

    def _wait_well(self) -> bool:
        """Wait until all cells are up to date; False when the test is over."""
        while not self._done.wait(0.02):
            with contextlib.suppress(Gone, OSError, AssertionError):
                address = self.addresses[self.masters[0]]
                with contextlib.closing(RawConnection(address, role=Role.ADMIN, deadline_s=2)) as master:
                    while not self._done.wait(0.02):
                        rows = master.ask(AskTable()).table.apply(EMPTY).rows
                        if rows and all(len(r) == 2 and all(s == CellState.UP_TO_DATE for _, s in r) for r in rows):
                            return True
        return False


DISTURBED = Shape(2, 1, "disturbed")
_seeds = itertools.count(1)
POOLS[DISTURBED] = Pool(DISTURBED, lambda shape, zygote: DisturbedCluster(shape, zygote, next(_seeds)))
