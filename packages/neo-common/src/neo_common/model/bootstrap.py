"""The search for the primary: whom to dial next, and when. Pure. Storages, clients and admins use the same.

The shell asks `next()`, dials that address not before that moment, and tells what came of it. One address at a time: a
search that dials all masters at once would find the same primary and load the others. What a master says of the primary
is tried first. Between two rounds over all masters the delay grows, with jitter, so that a thousand clients that lost
one primary do not come back in the same millisecond.
"""

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from neo_common.ids import Seconds
from neo_common.wire.schema import RefusalCode

if TYPE_CHECKING:
    from random import Random

DELAY_MIN_S: Final = 0.1
DELAY_MAX_S: Final = 2.0
"""Below the grace that a primary gives to clients (3 s): who searches is in time when a master restarts."""
HINTS_MAX: Final = 16
"""Hints followed in one round."""
_HOPELESS: Final = frozenset(
    (
        RefusalCode.VERSION,
        RefusalCode.CLUSTER,
        RefusalCode.IDENTITY,
        RefusalCode.ROLE,
        RefusalCode.SECRET,
        RefusalCode.CERTIFICATE,
    )
)
"""Refusals that an operator must mend: asked again, but at the slowest pace."""


class Attempt(NamedTuple):
    """Dial *address*, not before that moment (monotonic seconds)."""

    address: str
    not_before: Seconds


class Bootstrap:
    """Whom to dial for the primary.

    Invariants:
      * every configured master is tried once per round, unless a connection is made;
      * hints are followed at once, but never twice in a round: masters that point at each other cannot keep us running.
    """

    def __init__(self, masters: Sequence[str], rng: "Random", now: Seconds) -> None:
        """Search among *masters* (addresses, at least one) from *now* on; *rng* makes the jitter."""
        assert masters, "no master is configured"
        self._masters = tuple(dict.fromkeys(masters))
        self._rng = rng
        self._delay = DELAY_MIN_S
        self._not_before = now
        self._round: deque[str] = deque()
        self._hinted: set[str] = set()
        self._primary = ""
        self._connected_at: Seconds | None = None
        self._hopeless = False
        self._why: dict[str, str] = {}
        self._begin_round(shuffle=True)

    def __repr__(self) -> str:
        return f"<Bootstrap {self.why()}>"

    @property
    def is_connected(self) -> bool:
        """Whether the last word was `connected`."""
        return self._connected_at is not None

    def why(self) -> str:
        """Say why there is no connection, or that there is one, for people."""
        if self._connected_at is not None:
            return f"connected to {self._primary}"
        each = "; ".join(f"{address}: {reason}" for address, reason in self._why.items())
        return f"no connection to the primary ({each or 'not tried yet'})"

    def next(self) -> Attempt:
        """Return whom to dial now; the same until something is told."""
        return Attempt(self._round[0], self._not_before)

    def failed(self, address: str, reason: str, now: Seconds) -> None:
        """*address* could not be reached, or did not complete the handshake."""
        self._note(address, reason)
        if self._round and self._round[0] == address:
            self._round.popleft()
        self._end_round(now)

    def waiting(self, address: str, reason: str) -> None:
        """*address* makes us wait: it is in charge, or may become so. Stay with it."""
        self._note(address, f"waits: {reason}")

    def refused(self, address: str, code: RefusalCode, reason: str, primary: str, now: Seconds) -> None:
        """*address* does not want us; *primary* is whom it points at, or empty."""
        self._note(address, reason)
        if code in _HOPELESS:
            self._hopeless = True
        if self._round and self._round[0] == address:
            self._round.popleft()
        if primary and primary != address and primary not in self._hinted and len(self._hinted) < HINTS_MAX:
            self._hinted.add(primary)
            if primary in self._round:
                self._round.remove(primary)
            self._round.appendleft(primary)
        self._end_round(now)

    def connected(self, address: str, now: Seconds) -> None:
        """*address* is the primary and has accepted us."""
        self._primary = address
        self._connected_at = now
        self._why.clear()
        self._hopeless = False

    def lost(self, reason: str, now: Seconds) -> None:
        """The connection to the primary is gone: try the others first.

        It may hang, or be cut off: then dialling it again takes as long as noticing did. If it is well, they name it.
        """
        assert self._connected_at is not None, "it was connected"
        # A connection that did not last is no success: the delay goes on growing.
        if now - self._connected_at >= DELAY_MAX_S:
            self._delay = DELAY_MIN_S
            self._not_before = now
        else:
            self._postpone(now)
        self._connected_at = None
        self._note(self._primary, f"lost: {reason}")
        self._begin_round()
        self._round.rotate(-1)

    # ------------------------------------------------------------------------------------------ parts

    def _note(self, address: str, reason: str) -> None:
        self._why[address] = reason
        if len(self._why) > 2 * len(self._masters):  # hints may name any number of addresses
            del self._why[next(iter(self._why))]

    def _end_round(self, now: Seconds) -> None:
        if self._round:
            return
        if self._hopeless:
            self._delay = DELAY_MAX_S
        self._postpone(now)
        self._begin_round()

    def _postpone(self, now: Seconds) -> None:
        self._not_before = Seconds(now + self._delay * self._rng.uniform(0.5, 1.0))
        self._delay = min(DELAY_MAX_S, self._delay * 2)

    def _begin_round(self, shuffle: bool = False) -> None:
        order = list(self._masters)
        if shuffle:
            self._rng.shuffle(order)  # the first round of many clients should not all begin at the same master
        if self._primary:
            order = [self._primary, *(address for address in order if address != self._primary)]
        self._round = deque(order)
        self._hinted.clear()
        self._hopeless = False
