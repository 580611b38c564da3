"""Every error of NEO, drawn as a tree. Pure.

    NeoError
    ├── ConfigError              the operator must edit a file
    ├── IllegalTransition        a state was about to change in a way that does not exist: our bug
    ├── ProtocolError
    │   ├── LocalProtocolError   we were about to say something illegal: our bug
    │   └── RemoteProtocolError  the peer said something illegal: close, do not retry
    ├── HandshakeRefused         the peer does not want us: wrong cluster, wrong version, not the primary
    ├── PeerLost                 the connection died: try another cell, or again
    ├── DeadlinePassed           nobody answered in time; names the peer and the packet
    ├── RequestFailed            the peer answered with an error code
    ├── NotReady                 cluster or cell not serving yet: try later
    └── BackendError
        ├── BackendLost          the database went away: reconnect
        ├── DiskFull             votes are refused, reads go on
        └── DataCorrupted        a checksum or an invariant failed: stop serving the cell

A class exists when a caller acts differently on it.
"""


class NeoError(Exception):
    """Base of every error that NEO raises on purpose."""


class ConfigError(NeoError):
    """The configuration is wrong. The text names file, line, key and remedy."""


class IllegalTransition(NeoError):
    """A node, cell or cluster state was asked to change in a way that is not defined."""


class ProtocolError(NeoError):
    """Something that the protocol does not allow."""


class LocalProtocolError(ProtocolError):
    """We were about to send something illegal."""


class RemoteProtocolError(ProtocolError):
    """The peer has sent something illegal: its connection is closed, nothing else suffers."""


class HandshakeRefused(NeoError):
    """The peer has refused the handshake. `code` is a `schema.RefusalCode` value."""

    def __init__(self, code: int, text: str, primary: str = "") -> None:
        super().__init__(text)
        self.code = code
        self.primary = primary


class PeerLost(NeoError):
    """The connection to a peer is gone, with this reason. `is_ended`: the peer has closed it, or its process died."""

    def __init__(self, text: str, *, is_ended: bool = False) -> None:
        super().__init__(text)
        self.is_ended = is_ended


class DeadlinePassed(NeoError):
    """A request was not answered in time. The text names peer, packet and waiting time."""


class RequestFailed(NeoError):
    """The peer answered a request with an error. `code` is a `schema.ErrorCode` value."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class NotReady(NeoError):
    """The cluster, or a cell, does not serve yet: the same request may work later."""


class BackendError(NeoError):
    """A database, or the vote log, has failed."""


class BackendLost(BackendError):
    """The database went away: reconnect."""


class DiskFull(BackendError):
    """No room: votes are refused until there is some, reads go on."""


class DataCorrupted(BackendError):
    """A checksum or an invariant of stored data does not hold."""
