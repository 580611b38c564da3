"""How the way to a database server is protected. Pure."""

from enum import Enum, auto
from typing import Final, NamedTuple


class TlsMode(Enum):
    """What is wanted of TLS."""

    USUAL = auto()
    """As the driver does it: the server is on this machine."""
    OFF = auto()
    UNVERIFIED = auto()
    """Encrypted, with whoever answers."""
    VERIFY = auto()
    """The server has a certificate of our authority, in the name by which it was reached."""

    @property
    def is_wanted(self) -> bool:
        """Whether a connection without TLS must not be used."""
        return self in (TlsMode.UNVERIFIED, TlsMode.VERIFY)


class ServerTls(NamedTuple):
    """Paths of PEM files, empty for none. Drivers read them at each connection: so renewed ones are taken."""

    mode: TlsMode = TlsMode.USUAL
    ca: str = ""
    certificate: str = ""
    key: str = ""


NO_TLS: Final = ServerTls()
"""As for a server of this machine."""

_REMEDIES: Final = (
    (
        ("does not support", "is not encrypted"),
        "The server has no TLS: give it a certificate, or, in a network where nobody listens, set database.tls: off",
    ),
    (
        ("does not match host name", "Validation of SSL server certificate failed", "ostname mismatch"),
        "Its certificate is for another name than database.server: reach it by a name in the certificate, or give it"
        " one for this name",
    ),
    (
        ("alert unknown ca", "alert bad certificate", "alert certificate", "requires a valid client certificate"),
        "The server wants a certificate of ours that it believes: database.tls_certificate and tls_key, signed by an"
        " authority that it knows",
    ),
    (
        ("no certificate or crl", "root certificate file", "could not load", "private key", "certificate file"),
        "database.tls_ca, tls_certificate and tls_key are PEM files, the key readable by its owner only",
    ),
    (
        ("verify failed", "self-signed", "self signed", "issuer certificate", "has expired", "not yet valid"),
        "Its certificate is not believed: database.tls_ca has not signed it, or it has expired",
    ),
    (
        ("no encryption", "SSL off", "insecure transport"),
        "The server lets us in by TLS only: set database.tls_ca to the authority that has signed its certificate",
    ),
)
"""What the operator has to do, by what drivers and servers say (OpenSSL's words, mostly)."""


def remedy(text: str) -> str:
    """Return what is to be done about an error; empty when it is not one of TLS that somebody has to mend.

    >>> remedy("TLS/SSL error: Connection reset by peer")
    ''
    """
    for signs, what in _REMEDIES:
        if any(sign in text for sign in signs):
            return what
    return ""
