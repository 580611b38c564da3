"""Values in pieces in a simulated run: which transactions have some, what is in them, and how they are stored.

They cost time, so few runs have them. All of it is drawn from a stream of its own, as packs are.
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
_SIZES: Final = (PIECE_BYTES + 1, PIECE_BYTES + 77, 2 * PIECE_BYTES, 2 * PIECE_BYTES + 5)


def has_pieces(seed: int) -> bool:
    """Whether transactions write values in pieces in the run of that seed."""
    return random.Random(f"{seed} has pieces").random() < SHARE


def large_value(ttid: Ttid, oid: Oid, edition: int) -> Data:
    """Return the large value that *ttid* stores; each *edition* differs from the others in every piece, not in size."""
    head = b"%d %d %d %d " % (ttid.session, ttid.counter, oid, edition)
    size = _SIZES[(oid + ttid.counter) % len(_SIZES)]
    text = (head * (size // len(head) + 1))[:size]
    return Data(Compression.NONE, checksum(text), len(text), text)


def edition_of(value: bytes) -> int:
    """Return which edition a value is; a small one has no others."""
    return int(value[:100].split()[3]) if len(value) > PIECE_BYTES else 0


def is_whole(value: bytes, ttid: Ttid, oid: Oid) -> bool:
    """Whether a value in pieces is what was written, to the last byte."""
    return value == large_value(ttid, oid, edition_of(value)).value


class Storing:
    """What an application does between tpc_begin and tpc_vote: it stores large values, and some of them again."""

    def __init__(self, oids: Sequence[Oid], rng: random.Random) -> None:
        self._rng = rng
        self.large: tuple[Oid, ...] = tuple(oid for oid in oids if rng.random() < 0.5)
        """The objects that get large values."""
        self.editions: dict[Oid, int] = dict.fromkeys(self.large, 0)
        self.left: list[Oid] = list(self.large)
        """Those that are not stored yet."""
        self.again = rng.choice((0, 0, 1, 2)) if self.large else 0
        """How many of them are still to be stored once more."""
        self.gives_up = rng.random() < 0.1
        """Whether it aborts before it votes."""

    def renew(self, oid: Oid) -> int:
        """Return the next edition of an object."""
        self.editions[oid] += 1
        return self.editions[oid]

    def any(self) -> Oid:
        """Return an object that is stored once more."""
        return self._rng.choice(self.large)
