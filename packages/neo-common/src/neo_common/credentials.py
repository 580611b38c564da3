"""What a process shows to its peers, and demands of them: a shared secret, certificates, or nothing."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from neo_common.config.sections import Config
from neo_common.errors import ConfigError
from neo_common.states import Role
from neo_common.tls import Channel, Tls, TlsFiles, check_private
from neo_common.wire.guard import NONCE_BYTES, Guard, Secret


@dataclass(frozen=True, slots=True)
class Credentials:
    """Every connection of a process uses the same."""

    secret: Secret | None = None
    tls: Tls | None = None

    def guard(self, role: Role) -> Guard | None:
        """Return what a new session needs to prove and check the secret."""
        return None if self.secret is None else Guard(self.secret, os.urandom(NONCE_BYTES), role)

    def channel(self, *, dialled: bool) -> Channel | None:
        """Return the TLS side of a new connection."""
        return None if self.tls is None else self.tls.channel(dialled=dialled)


NO_CREDENTIALS: Final = Credentials()


def read_secret(path: str) -> Secret:
    """Read a secret from a file. Raises: ConfigError, also when others can read it."""
    check_private(path, "the secret")
    try:
        return Secret(Path(path).read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the secret {path}: {getattr(error, 'strerror', None) or 'is not text'}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def credentials_of(config: Config, name: str, environ: Mapping[str, str]) -> Credentials:
    """Return the credentials of node *name*, or of `neoadmin`. *environ*: usually `os.environ`, from `__main__`.

    Raises: ConfigError with file, key and remedy.
    """
    security = config.security
    secret = tls = None
    try:
        if security.secret_file:
            secret = read_secret(security.secret_file)
        elif security.secret_env:
            text = environ.get(security.secret_env)
            if text is None:
                raise ConfigError(f"the variable {security.secret_env}, which security.secret_env names, is not set")
            secret = Secret(text)
        if security.tls_ca:
            certificate, key = (p.replace("{name}", name) for p in (security.tls_certificate, security.tls_key))
            tls = Tls(TlsFiles(security.tls_ca, certificate, key))
    except ConfigError as error:
        raise ConfigError(f"{config.path}: security: {error}") from error
    return Credentials(secret, tls)
