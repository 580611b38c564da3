"""What a master orders, and hears, beside what every core shares; what it has on disk. Pure."""

from typing import Final, NamedTuple

from neo_common.core import Accept, Disconnect, Log, Park, Refuse, Send
from neo_common.ids import NO_EPOCH, NO_TID, Epoch, Oid
from neo_common.model.partition_table import EMPTY, whole
from neo_common.wire.schema import Ceilings, Page, Register

DEBUG: Final = 10
INFO: Final = 20
WARNING: Final = 30
ERROR: Final = 40
NO_ID: Final = bytes(16)


class Exit(NamedTuple):
    """Stop the process with that status, once all output is written."""

    status: int
    reason: str


class Kept(NamedTuple):
    """What a master has on disk."""

    memory: bytes
    """16 bytes, made by chance when there was nothing: who has lost its disk is not taken for who remembers."""
    promised: Epoch
    """It hears no epoch below this one."""
    register: Register
    """What it holds for the next primary."""


NOTHING_HELD: Final = Register(NO_EPOCH, 0, NO_ID, whole(EMPTY), (), (), Ceilings(NO_TID, Oid(0)), NO_TID, NO_TID)


class Store(NamedTuple):
    """Make `kept` durable, instead of what was; then `Stored(number)`. In order: the last one is enough."""

    number: int
    kept: Kept


class Stored(NamedTuple):
    """Event: what that `Store`, and every one before it, has said is durable."""

    number: int


class Note(NamedTuple):
    """Write that page behind those before it, at leisure: nothing waits for it."""

    page: Page


class Terminate(NamedTuple):
    """Event: this process is asked to end (SIGTERM)."""

    reason: str


Effect = Send | Disconnect | Accept | Park | Refuse | Log | Store | Note | Exit
