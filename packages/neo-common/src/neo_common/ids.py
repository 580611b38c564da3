"""Identifiers, as integers with a type of their own. Pure.

Eight-byte strings exist only at the edge towards ZODB. A tid is a ZODB time stamp: minutes since 1900 (months of
31 days) in the high half, the fraction of the minute scaled to 2**32 in the low half.
"""

from typing import NamedTuple, NewType

Oid = NewType("Oid", int)
"""Object id, 64 bits unsigned. `oid % partition count` is its partition."""
Tid = NewType("Tid", int)
"""Id of a committed transaction, 63 bits, grows for ever. The serial of a revision is the tid that wrote it."""
Partition = NewType("Partition", int)
"""Number of a partition, from 0."""
Ptid = NewType("Ptid", int)
"""Version number of the partition table within an epoch; grows over epochs too."""
Epoch = NewType("Epoch", int)
"""A reign: `number << 24 | number of the master`, strictly increasing. 0: none yet."""
Session = NewType("Session", int)
"""A client as a primary knows it: `epoch number << 32 | counter`. 0: none yet. Never given twice, over all reigns."""
NodeId = NewType("NodeId", int)
"""`role << 24 | number`. 0: not known yet."""
Seconds = NewType("Seconds", float)
"""A duration or a moment, in seconds."""

NO_TID = Tid(0)
MAX_TID = Tid(2**63 - 1)
MAX_OID = Oid(2**63 - 1)
NO_NODE = NodeId(0)
NO_EPOCH = Epoch(0)
NO_SESSION = Session(0)


class Ttid(NamedTuple):
    """Name of a transaction until it has a tid, made by the client: no message, unique for ever."""

    session: Session
    counter: int

    def __str__(self) -> str:
        return f"{self.session:x}.{self.counter}"

    @property
    def is_storable(self) -> bool:
        """Whether a database can keep it: what has the highest bit set was made by nobody who means well."""
        return self.session <= MAX_TID and self.counter <= MAX_TID


class Version(NamedTuple):
    """Version of a partition table; compared epoch first."""

    epoch: Epoch
    ptid: Ptid

    def __str__(self) -> str:
        return f"{self.epoch >> 24}.{self.epoch & 0xFFFFFF}:{self.ptid}"


NO_VERSION = Version(NO_EPOCH, Ptid(0))


class Instant(NamedTuple):
    """What a core is told of time: it never looks itself."""

    monotonic: Seconds
    """Never goes back; only differences mean something."""
    wall: Seconds
    """Unix time; may step."""


def make_epoch(number: int, master: NodeId) -> Epoch:
    """Return the epoch *number* of *master*.

    >>> hex(make_epoch(3, NodeId(0x02000001)))
    '0x3000001'
    """
    return Epoch(number << 24 | (master & 0xFFFFFF))


def tid_from_time(unix_s: float) -> Tid:
    """Return the smallest tid of that moment.

    >>> hex(tid_from_time(0))
    '0x23c2b0000000000'
    >>> time_from_tid(tid_from_time(1700000000.5))
    1700000000.5
    """
    days, seconds = divmod(unix_s, 86400)
    year, month, day = _civil(int(days))
    minutes = (((year - 1900) * 12 + month - 1) * 31 + day - 1) * 1440 + int(seconds // 60)
    return Tid(minutes << 32 | int((seconds % 60) * 2**32 / 60))


def time_from_tid(tid: Tid) -> float:
    """Return the Unix time of *tid*, in seconds."""
    minutes, fraction = tid >> 32, tid & 0xFFFFFFFF
    days, minute = divmod(minutes, 1440)
    months, day = divmod(days, 31)
    year, month = divmod(months, 12)
    return _days(year + 1900, month + 1, day + 1) * 86400 + minute * 60 + fraction * 60 / 2**32


def _civil(days: int) -> tuple[int, int, int]:
    """Days since 1970-01-01 to (year, month, day), proleptic Gregorian (the era of 400 years is 146,097 days)."""
    days += 719468
    era, of_era = divmod(days, 146097)
    year_of_era = (of_era - of_era // 1460 + of_era // 36524 - of_era // 146096) // 365
    day_of_year = of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted = (5 * day_of_year + 2) // 153
    month = shifted + 3 if shifted < 10 else shifted - 9
    return year_of_era + era * 400 + (month <= 2), month, day_of_year - (153 * shifted + 2) // 5 + 1


def _days(year: int, month: int, day: int) -> int:
    """(year, month, day) to days since 1970-01-01: the inverse of `_civil`."""
    year -= month <= 2
    era, year_of_era = divmod(year, 400)
    day_of_year = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5 + day - 1
    return era * 146097 + year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year - 719468
