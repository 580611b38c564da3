"""TLS 1.3 around somebody else's socket: bytes of the network in, bytes of the session out, and the way back.

Who owns the socket reads and writes it as without TLS, in a greenlet or a thread; a `Channel` never touches it. Both
sides show a certificate of the cluster's own authority, and what it allows its owner to be is an `Identity` in it
(docs/security.md). Host names are not compared: addresses change, the role of a node does not.
"""

import logging
import os
import ssl
import stat
from collections.abc import Iterable
from time import monotonic
from typing import Final, NamedTuple

from neo_common.errors import ConfigError, RemoteProtocolError
from neo_common.wire.codec import frame
from neo_common.wire.guard import Identity, identity_of
from neo_common.wire.schema import MAGIC, HelloNo, RefusalCode

log = logging.getLogger("neo.tls")

LOOK_S: Final = 1.0
"""Files are looked at again when a connection is made, at most so often: new certificates need no restart."""
HANDSHAKE_MAX: Final = 256 * 2**10
"""Bytes that a peer may send before its certificate is known."""
_PIECE: Final = 256 * 2**10
_NEEDED: Final = (
    "this cluster uses TLS: set security.tls_ca, tls_certificate and tls_key in the configuration, "
    "tls-ca, tls-certificate and tls-key in a client's"
)


class TlsFiles(NamedTuple):
    """Paths of PEM files."""

    ca: str
    """The authority, or several in one file, whose certificates are believed."""
    certificate: str
    """Ours, with what is between it and the authority."""
    key: str
    """Its private key."""


class Tls:
    """The certificates of this process; read again when the files have changed."""

    def __init__(self, files: TlsFiles) -> None:
        """Read the files. Raises: ConfigError that names the one that is wrong, and the remedy."""
        self.files = files
        self._looked_at = monotonic()
        self._seen = _look(files)
        self._contexts = _contexts(files)

    def __repr__(self) -> str:
        return f"<Tls {self.files.certificate}>"

    def channel(self, *, dialled: bool) -> "Channel":
        """Return a channel for a new connection. `dialled`: we have dialled."""
        self._refresh()
        return Channel(self._contexts[dialled], dialled)

    def _refresh(self) -> None:
        now = monotonic()
        if now - self._looked_at < LOOK_S:
            return
        self._looked_at = now
        seen = _look(self.files)
        if seen == self._seen:
            return
        try:
            self._contexts = _contexts(self.files)
        except ConfigError as error:
            # Perhaps half of the files are new: those that are in use stay in use, and we look again.
            log.error("new certificates are not taken: %s", error)
            return
        self._seen = seen
        log.info("new certificates are in use: %s", self.files.certificate)


class Channel:
    """One side of one TLS connection.

    Invariants:
      * nothing but TLS's own handshake leaves before the peer's certificate was checked, and no plain byte comes out;
      * `identity` is set before the first plain byte comes out.
    """

    def __init__(self, context: ssl.SSLContext, dialled: bool) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=not dialled)
        self._dialled = dialled
        self._plain = b""
        self._early: list[bytes] = []
        self._early_bytes = 0
        self._is_broken = False
        self.identity: Identity | None = None
        """What the peer's certificate says of it; None during the handshake."""
        if dialled:
            self._shake_hands()

    @property
    def has_output(self) -> bool:
        """Whether TLS has something of its own to send: `wrap(())`."""
        return self._outgoing.pending > 0

    def unwrap(self, data: bytes) -> bytes:
        """Return what the peer has said with *data*, bytes of the network in any slicing.

        Raises: RemoteProtocolError for what is no TLS, and for certificates that are not believed.
        """
        if self._is_broken:
            return b""
        if not (self._dialled or self._early_bytes) and data[:3] == MAGIC[:3]:
            # It would not understand a word of TLS: it is told in its own language.
            self._plain = MAGIC + frame(HelloNo(RefusalCode.CERTIFICATE, _NEEDED, ""))
            raise self._broken("the peer speaks NEO without TLS")
        self._incoming.write(data)
        if self.identity is None:
            self._early_bytes += len(data)
            if self._early_bytes > HANDSHAKE_MAX:
                raise self._broken(f"more than {HANDSHAKE_MAX} bytes before a certificate")
            self._shake_hands()
            if self.identity is None:
                return b""
        parts = []
        try:
            while part := self._tls.read(_PIECE):
                parts.append(part)
        except ssl.SSLWantReadError:
            pass  # all that is whole was read
        except ssl.SSLZeroReturnError:
            pass  # it says no more: the end of the connection follows
        except ssl.SSLError as error:
            raise self._broken(_said(error)) from error
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def wrap(self, chunks: Iterable[bytes]) -> list[bytes]:
        """Return what to send on the network for *chunks* of the session, with TLS's own words first."""
        if self.identity is None:
            if not self._is_broken:
                self._early += chunks
            last, self._plain = self._plain, b""
            return [last] if last else [self._outgoing.read()] if self._outgoing.pending else []
        out: list[bytes] = []
        for chunk in chunks:
            view = memoryview(chunk)
            while view:
                # In pieces: a large chunk is not once more in memory as a whole.
                view = view[self._tls.write(view[:_PIECE]) :]
                if self._outgoing.pending >= _PIECE:
                    out.append(self._outgoing.read())
        if self._outgoing.pending:
            out.append(self._outgoing.read())
        return out

    def _shake_hands(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return
        except ssl.SSLError as error:
            raise self._broken(_said(error)) from error
        certificate = self._tls.getpeercert() or {}
        names = [str(entry[1]) for entry in certificate.get("subjectAltName", ()) if entry[0] == "URI"]
        identities = [identity for name in names if (identity := identity_of(name)) is not None]
        if len(identities) != 1:
            raise self._broken(
                f"its certificate has {len(identities)} names of the form neo://CLUSTER/ROLE, it needs one: "
                "`neoadmin certs` makes such certificates"
            )
        self.identity = identities[0]
        early, self._early = self._early, []
        for chunk in early:
            self._tls.write(chunk)  # a Hello: written at once

    def _broken(self, text: str) -> RemoteProtocolError:
        self._is_broken = True
        self._early.clear()
        return RemoteProtocolError(f"TLS: {text}")


def check_private(path: str, what: str) -> None:
    """See that only its owner can read *path*; a file of root's may be read by its group.

    Raises: ConfigError with the remedy.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        raise ConfigError(f"{what} {path}: {error.strerror}") from error
    forbidden = 0o027 if status.st_uid == 0 and os.getuid() != 0 else 0o077
    if stat.S_IMODE(status.st_mode) & forbidden:
        raise ConfigError(f"{what} {path} can be read by others: chmod 600 {path}")


def _look(files: TlsFiles) -> tuple[tuple[int, int, int], ...]:
    """Return what changes when a file does; zeros for one that is not there."""
    found = []
    for path in files:
        try:
            status = os.stat(path)
        except OSError:
            found.append((0, 0, 0))
        else:
            found.append((status.st_mtime_ns, status.st_ino, status.st_size))
    return tuple(found)


def _contexts(files: TlsFiles) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return what is dialled and what dials, in that order. Raises: ConfigError."""
    check_private(files.key, "the TLS key")
    made = []
    for protocol in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT):
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False  # the role counts, not the address
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(files.ca)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"the TLS authority {files.ca}: {_why(error)}") from error
        try:
            context.load_cert_chain(files.certificate, files.key)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"the TLS certificate {files.certificate} with key {files.key}: {_why(error)}") from error
        if protocol == ssl.PROTOCOL_TLS_SERVER:
            context.num_tickets = 0  # sessions are not resumed: every connection shows its certificate
        made.append(context)
    return made[0], made[1]


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return "the key is not that of the certificate" if error.reason == "KEY_VALUES_MISMATCH" else _said(error)
    return error.strerror or str(error)


def _said(error: ssl.SSLError) -> str:
    """Say in words what OpenSSL says."""
    reason = error.reason or ""
    if reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL"):
        return "the peer does not speak TLS; this side does: give all of them the same security.tls_*"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not believed: {error.verify_message}"
    if "ALERT" in reason:
        return f"the peer does not believe our certificate ({reason.lower().replace('_', ' ')})"
    return reason.lower().replace("_", " ") or str(error)
