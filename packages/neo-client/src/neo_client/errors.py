"""Our errors as ZODB's: one table, at one edge.

What may succeed when it is tried again is a `transaction.interfaces.TransientError`, so that transaction managers and
publishers do try again. A text names the node, and what to do.
"""

from typing import Final

from transaction.interfaces import TransientError
from ZODB.POSException import POSKeyError, ReadOnlyError, StorageError, StorageTransactionError, UndoError
from ZODB.utils import p64

from neo_common.errors import (
    ConfigError,
    DataCorrupted,
    DeadlinePassed,
    HandshakeRefused,
    NeoError,
    NotReady,
    PeerLost,
    RequestFailed,
)
from neo_common.ids import Oid
from neo_common.wire.schema import ErrorCode

__all__ = [
    "ClusterUnavailable",
    "CommittedByRecoveryError",
    "ConfigError",
    "CorruptedError",
    "NoSpaceError",
    "POSKeyError",
    "ReadOnlyError",
    "StorageClosedError",
    "StorageError",
    "StorageTransactionError",
    "TooLargeError",
    "UndoError",
    "of_code",
    "translated",
]


class ClusterUnavailable(StorageError, TransientError):  # type: ignore[misc]
    """The cluster, or a part of it, did not answer within wait-timeout. The same may work later."""


class NoSpaceError(StorageError, TransientError):  # type: ignore[misc]
    """A storage has no room left: free some, or add storages. Reads go on."""


class TooLargeError(StorageError):  # type: ignore[misc]
    """An object or a transaction is above a limit of the cluster."""


class CorruptedError(StorageError):  # type: ignore[misc]
    """Every copy that could be asked has failed its checksum."""


class StorageClosedError(StorageError):  # type: ignore[misc]
    """The storage was closed."""


class CommittedByRecoveryError(StorageError):  # type: ignore[misc]
    """tpc_abort came too late: a recovery of the cluster has committed the transaction, as it does with all that is
    voted.

    With several databases in one transaction, set `two-phase`: then this cannot happen.
    """


_CODES: Final[dict[ErrorCode, type[StorageError]]] = {
    ErrorCode.NOT_FOUND: POSKeyError,
    ErrorCode.DELETED: POSKeyError,
    ErrorCode.NOT_READABLE: ClusterUnavailable,
    ErrorCode.NOT_READY: ClusterUnavailable,
    ErrorCode.ILLEGAL: StorageError,
    ErrorCode.PARTITION: StorageError,
    ErrorCode.READ_ONLY: ReadOnlyError,
    ErrorCode.NO_SPACE: NoSpaceError,
    ErrorCode.TOO_LARGE: TooLargeError,
    ErrorCode.CORRUPTED: CorruptedError,
    ErrorCode.EPOCH: ClusterUnavailable,
    ErrorCode.INTERNAL: StorageError,
}


def of_code(code: int, text: str, oid: Oid | None = None) -> Exception:
    """Return ZODB's error for an error code of the protocol. `oid`: what was asked for, if that was an object."""
    cls = _CODES[ErrorCode(code)]
    if cls is POSKeyError and oid is not None:
        return POSKeyError(p64(oid))  # type: ignore[no-any-return]
    return cls(text)  # type: ignore[no-any-return]


def translated(error: NeoError) -> Exception:
    """Return ZODB's error for one of ours; raise it `from` ours."""
    match error:
        case RequestFailed(code=code):
            return of_code(code, str(error))
        case NotReady() | PeerLost() | DeadlinePassed() | HandshakeRefused():
            return ClusterUnavailable(str(error))
        case DataCorrupted():
            return CorruptedError(str(error))
        case ConfigError():
            return error
        case _:
            return StorageError(f"{type(error).__name__}: {error}")  # type: ignore[no-any-return]
