"""The only reader of time. Everything else is told."""

import time

from neo_common.ids import Instant, Seconds


class Clock:
    """The clocks of this machine."""

    def monotonic(self) -> Seconds:
        """Return a moment that never goes back; only differences mean something."""
        return Seconds(time.monotonic())

    def now(self) -> Instant:
        """Return what a core is told of time."""
        return Instant(Seconds(time.monotonic()), Seconds(time.time()))
