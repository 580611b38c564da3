"""What is stored one by one before a vote in a simulated run: which transactions do so, what, and how often.

Values in pieces cost time, so few runs have them; more have small ones, which are stored as often. All of it is drawn
from a stream of its own, as packs are.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from neo_common.checksum import checksum
from neo_common.ids import Oid, Ttid
from neo_common.wire.schema import PIECE_BYTES, Compression, Data

SHARE: Final = 0.03
"""Of the runs that have values in pieces."""
SMALL_SHARE: Final = 0.15
"""Of the others, those that store small values before the vote."""
_SIZES: Final = (PIECE_BYTES + 1, PIECE_BYTES + 77, 2 * PIECE_BYTES, 2 * PIECE_BYTES + 5)


def has_pieces(seed: int) -> bool:
    """Whether transactions write values in pieces in the run of that seed."""
    return random.Random(f"{seed} has pieces").random() < SHARE


def stores_small(seed: int) -> bool:
    """Whether transactions store small values before they vote, some of them again, in the run of that seed."""
    return random.Random(f"{seed} stores small").random() < SMALL_SHARE


def small_value(ttid: Ttid, oid: Oid, edition: int) -> Data:
    """Return the small value that *ttid* stores before its vote."""
    text = b"%d %d %d %d" % (ttid.session, ttid.counter, oid, edition)
    return Data(Compression.NONE, checksum(text), len(text), text)


def large_value(ttid: Ttid, oid: Oid, edition: int) -> Data:
    """Return the large value that *ttid* stores; each *edition* differs from the others in every piece, not in size."""
    head = b"%d %d %d %d " % (ttid.session, ttid.counter, oid, edition)
    size = _SIZES[(oid + ttid.counter) % len(_SIZES)]
    text = (head * (size // len(head) + 1))[:size]
    return Data(Compression.NONE, checksum(text), len(text), text)


def edition_of(value: bytes) -> int:
    """Return which edition a value is; one that was not stored before its vote has no others."""
    words = value[:100].split()
    return int(words[3]) if len(words) > 3 else 0


def is_whole(value: bytes, ttid: Ttid, oid: Oid) -> bool:
    """Whether a value in pieces is what was written, to the last byte."""
    return value == large_value(ttid, oid, edition_of(value)).value


class Storing:
    """What an application does between tpc_begin and tpc_vote: it stores some values, and some of them again."""

    def __init__(self, oids: Sequence[Oid], rng: random.Random, *, in_pieces: bool) -> None:
        self._rng = rng
        self._value = large_value if in_pieces else small_value
        self.early: tuple[Oid, ...] = tuple(oid for oid in oids if rng.random() < 0.5)
        """The objects that are stored before the vote."""
        self.editions: dict[Oid, int] = dict.fromkeys(self.early, 0)
        self.left: list[Oid] = list(self.early)
        """Those that are not stored yet."""
        self.again = rng.choice((0, 0, 1, 2)) if self.early else 0
        """How many of them are still to be stored once more."""
        self.gives_up = rng.random() < 0.1
        """Whether it aborts before it votes."""

    def value(self, ttid: Ttid, oid: Oid) -> Data:
        """Return what *ttid* stores, in the present edition."""
        return self._value(ttid, oid, self.editions[oid])

    def renew(self, oid: Oid) -> None:
        """Begin the next edition of an object."""
        self.editions[oid] += 1

    def any(self) -> Oid:
        """Return an object that is stored once more."""
        return self._rng.choice(self.early)
