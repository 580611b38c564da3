"""Who a peer is, as far as it can show: a secret that both sides know, or the role in a certificate. Pure.

Neither travels: a side proves that it knows the secret by an HMAC-SHA256 of both nonces, the role of who was dialled
and the whole Hello (role, name, cluster, versions, ids), with a label of its own, so that no proof can be sent back or
used again. Who dials proves first: to a stranger we show nothing that could be searched for a weak secret.
"""

import hmac
from typing import Final, NamedTuple
from urllib.parse import quote, unquote

from neo_common.errors import ConfigError
from neo_common.states import Role
from neo_common.wire.codec import frame
from neo_common.wire.schema import Hello

NONCE_BYTES: Final = 16
SECRET_MIN: Final = 16
"""Shortest secret, in characters: who listens to a handshake may try words as fast as he can compute."""
_SCHEME: Final = "neo://"
_DIALS: Final = b"NEO secret, who dials      "
_IS_DIALLED: Final = b"NEO secret, who is dialled "


class Secret:
    """A shared secret: usable, but never shown."""

    __slots__ = ("_key",)

    def __init__(self, text: str) -> None:
        """Take the secret without the blanks around it. Raises: ConfigError if it is too short."""
        text = text.strip()
        if len(text) < SECRET_MIN:
            raise ConfigError(
                f"the secret has {len(text)} characters, it needs {SECRET_MIN}: `neoadmin secret FILE` makes one"
            )
        self._key = text.encode()

    def __repr__(self) -> str:
        return "<Secret>"

    def __reduce__(self) -> str:
        raise TypeError("a secret is not pickled")

    def sign(self, message: bytes) -> bytes:
        """Return the HMAC-SHA256 of *message*."""
        return hmac.digest(self._key, message, "sha256")


class Guard(NamedTuple):
    """What a session needs to prove and to check a secret; `nonce` is new for each session, from the shell."""

    secret: Secret
    nonce: bytes
    role: Role
    """Ours."""


def proof(guard: Guard, *, of_dialler: bool, dialler: bytes, dialled: bytes, dialled_role: Role, hello: Hello) -> bytes:
    """Return what shows that a side knows the secret. *dialler* and *dialled* are the two nonces."""
    label = _DIALS if of_dialler else _IS_DIALLED
    return guard.secret.sign(label + dialler + dialled + bytes((dialled_role,)) + frame(hello))


def is_proof(expected: bytes, given: bytes) -> bool:
    """Compare in a time that tells nothing."""
    return hmac.compare_digest(expected, given)


class Identity(NamedTuple):
    """What a certificate says of its owner, in a SAN of type URI: `neo://CLUSTER/ROLE` or `neo://CLUSTER/ROLE/NAME`."""

    cluster: str
    role: Role
    name: str = ""
    """Empty: any name."""

    def __str__(self) -> str:
        name = f"/{quote(self.name, safe='')}" if self.name else ""
        return f"{_SCHEME}{quote(self.cluster, safe='')}/{self.role.name.lower()}{name}"

    def contradicts(self, cluster: str, role: Role, name: str) -> str:
        """Return how a peer that calls itself so differs from its certificate; empty if it does not."""
        said = Identity(cluster, role, name)
        same = said if self.name else said._replace(name="")
        return "" if same == self else f"the certificate is for {self}, it says it is {said}"


def identity_of(uri: str) -> Identity | None:
    """Read the URI of a certificate; None if it is none of ours.

    >>> identity_of("neo://my%20site/storage/s1")
    Identity(cluster='my site', role=<Role.STORAGE: 1>, name='s1')
    >>> str(identity_of("neo://shop/client"))
    'neo://shop/client'
    """
    if not uri.startswith(_SCHEME):
        return None
    cluster, _, rest = uri.removeprefix(_SCHEME).partition("/")
    word, slash, name = rest.partition("/")
    roles = {role.name.lower(): role for role in Role}
    if not cluster or word not in roles or "/" in name or bool(slash) != bool(name):
        return None
    return Identity(unquote(cluster), roles[word], unquote(name))
