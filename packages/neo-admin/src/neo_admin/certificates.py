"""Certificates for a cluster: an authority of its own, and one certificate per node, role and program.

Any other authority will do as well: what counts is the name of type URI in each certificate (docs/security.md).
"""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from secrets import token_urlsafe
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from neo_common.errors import ConfigError
from neo_common.wire.guard import Identity

AUTHORITY: Final = "ca"
_EARLIER: Final = timedelta(minutes=10)
"""Clocks of other hosts may be behind."""
_AUTHORITY_DAYS: Final = 3650


class Authority:
    """Who signs the certificates of one cluster: `ca.crt` and `ca.key` in a folder, made if they are not there."""

    def __init__(self, directory: Path, cluster: str) -> None:
        """Read or make it. Raises: ConfigError when what is there is not the authority of *cluster*, or unreadable."""
        self._directory = directory
        crt, key = self.paths(AUTHORITY)
        self.is_new = not (crt.exists() or key.exists())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"NEO {cluster}"[:64])])
        if self.is_new:
            self._key = ec.generate_private_key(ec.SECP256R1())
            basic = x509.BasicConstraints(ca=True, path_length=0)
            public = self._key.public_key()
            builder = _builder(subject, subject, public, public, _AUTHORITY_DAYS).add_extension(basic, critical=True)
            usage = _usage(is_authority=True)
            self._certificate = builder.add_extension(usage, critical=True).sign(self._key, hashes.SHA256())
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write(crt, self._certificate, key, self._key)
            return
        try:
            self._certificate = x509.load_pem_x509_certificate(crt.read_bytes())
            loaded = serialization.load_pem_private_key(key.read_bytes(), None)
        except (OSError, ValueError, TypeError) as error:
            text = f"the authority in {directory} cannot be used, both ca.crt and ca.key must be there: {error}"
            raise ConfigError(text) from error
        if not isinstance(loaded, ec.EllipticCurvePrivateKey) or loaded.public_key() != self._certificate.public_key():
            raise ConfigError(f"{key} is not the key of {crt}")
        if self._certificate.subject != subject:
            other = self._certificate.subject.rfc4514_string()
            raise ConfigError(f"{crt} is the authority of another cluster: {other}")
        self._key = loaded

    def paths(self, stem: str) -> tuple[Path, Path]:
        """Return where certificate and key of *stem* are."""
        return self._directory / f"{stem}.crt", self._directory / f"{stem}.key"

    def has(self, stem: str) -> bool:
        """Whether *stem* has a certificate of this authority already, not expired."""
        crt, key = self.paths(stem)
        if not (crt.exists() and key.exists()):
            return False
        certificate = x509.load_pem_x509_certificate(crt.read_bytes())
        try:
            certificate.verify_directly_issued_by(self._certificate)
        except (ValueError, TypeError, InvalidSignature):
            return False
        return certificate.not_valid_after_utc > datetime.now(UTC)

    def issue(self, stem: str, identity: Identity, days: float) -> None:
        """Make key and certificate of *identity*, in place of those of *stem* if there are any."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, stem[:64])])
        name = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(identity))])
        uses = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        certificate = (
            _builder(subject, self._certificate.subject, key.public_key(), self._key.public_key(), days)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(is_authority=False), critical=True)
            .add_extension(uses, critical=False)
            .add_extension(name, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        crt_path, key_path = self.paths(stem)
        _write(crt_path, certificate, key_path, key)


def write_secret(path: Path) -> None:
    """Make a file with a new secret of 256 bits, readable by its owner only. Raises: ConfigError if it exists."""
    try:
        _write_private(path, (token_urlsafe(32) + "\n").encode(), os.O_EXCL)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    signer: ec.EllipticCurvePublicKey,
    days: float,
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    # Identifiers of keys tell authorities of the same name apart, when one takes over from another.
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, now + timedelta(days=days)) - _EARLIER)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), critical=False)
    )


def _usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write(crt_path: Path, certificate: x509.Certificate, key_path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    """Write both, each in one step: who reads them meanwhile finds the old or the new one."""
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    new_key, new_crt = key_path.with_suffix(".key.new"), crt_path.with_suffix(".crt.new")
    _write_private(new_key, pem, os.O_TRUNC)
    new_crt.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    new_key.replace(key_path)
    new_crt.replace(crt_path)


def _write_private(path: Path, data: bytes, flag: int) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | flag, 0o600), "wb") as file:
        file.write(data)
