"""When a managed server hangs, and what ends it. Pure.

A server hangs when it takes connections and says nothing on them, several times in a row, for as long as a storage
waits for any answer. One that takes none is starting, repairing what a crash has left, stopping or gone: that may take
as long as it does, and is never a reason to kill it.
"""

from enum import Enum, auto
from signal import SIGKILL, SIGTERM, Signals
from typing import Final

LOOKS: Final = 3
"""Looks in vain, at least: one alone may be of a time in which this process itself, or the machine, stood still."""


class Sign(Enum):
    """What a look at the server finds."""

    ANSWER = auto()
    """It says something, be it that it refuses."""
    ABSENT = auto()
    """Nobody listens."""
    SILENCE = auto()
    """It is there, and says nothing in the time given to it."""


class Vigil:
    """One run of a server, from its beginning. Times in seconds."""

    def __init__(self, now: float, *, silence_s: float, stop_s: float, patience_s: float) -> None:
        """*silence_s*: after which it hangs. *stop_s*: from then to SIGKILL, if it goes on saying nothing.

        *patience_s*: the same when it has heard SIGTERM, and is stopping.
        """
        self._silence_s = silence_s
        self._stop_s = stop_s
        self._patience_s = patience_s
        self._heard = now
        self._looks = 0
        self._told: float | None = None
        self._is_killed = False

    @property
    def silent_since(self) -> float:
        """When it was last heard, or found absent."""
        return self._heard

    def saw(self, sign: Sign, now: float) -> Signals | None:
        """Return the signal that it gets for what a look at it has found, which ended *now*."""
        if self._told is not None:
            patience_s = self._stop_s if sign is Sign.SILENCE else self._patience_s
            if self._is_killed or now - self._told < patience_s:
                return None
            self._is_killed = True
            return SIGKILL
        if sign is not Sign.SILENCE:
            self._heard, self._looks = now, 0
            return None
        self._looks += 1
        if self._looks < LOOKS or now - self._heard < self._silence_s:
            return None
        self._told = now
        return SIGTERM
