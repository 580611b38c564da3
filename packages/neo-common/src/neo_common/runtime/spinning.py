"""Look for the next packet for some microseconds before the loop goes to sleep.

To be woken on a processor that has gone idle costs as much as to answer a load. Who loads one object after the other
asks again a moment after each answer: a daemon that still looks then answers sooner. Whether packets do come in that
time is found out by trying; where they do not, or others want the processor, nothing is spent.
"""

import os
from collections.abc import Callable
from time import monotonic, sleep
from typing import Final

from gevent.hub import get_hub

SPIN_S: Final = 600e-6
"""How long to look: a client comes back 50 us after a load, and a client that commits small things after some 500 us.
Shorter and longer were both slower."""
LUCK: Final = 0.3
"""Share of the last times in which a packet must have come, for it to go on."""
TRY: Final = 64
"""One of so many times is tried all the same."""
_WEIGHT: Final = 0.05
_give_way: Final[Callable[[], None]] = getattr(os, "sched_yield", lambda: sleep(0))
"""macOS has no sched_yield."""


class Spinning:
    """Keeps the loop awake for SPIN_S after the work that a packet has brought. All calls are the hub's."""

    def __init__(self) -> None:
        self._idle = get_hub().loop.idle()
        self._is_active = False
        self._is_new = False
        """The work of the last packet may still go on: time counts from the first look after it."""
        self._until = 0.0
        self._luck = 1.0
        self._skipped = 0

    def touched(self) -> None:
        """A packet came."""
        if self._is_active:
            self._luck += (1.0 - self._luck) * _WEIGHT
        elif self._is_worth_it():
            self._is_active = True
            self._idle.start(self._look)
        self._is_new = True

    def close(self) -> None:
        """Look no more."""
        self._idle.stop()
        self._idle.close()

    def _is_worth_it(self) -> bool:
        if self._luck >= LUCK:
            return True
        self._skipped += 1
        return self._skipped % TRY == 0

    def _look(self) -> None:
        """Nothing is there. The loop calls this again and again, and looks for packets in between."""
        now = monotonic()
        if self._is_new:
            self._is_new = False
            self._until = now + SPIN_S
        elif now >= self._until:
            self._is_active = False
            self._idle.stop()
            # Late: others want this processor, and had it for ms. Who sleeps is woken in time, who gives way is not.
            self._luck = 0.0 if now > self._until + SPIN_S else self._luck * (1.0 - _WEIGHT)
            return
        _give_way()
