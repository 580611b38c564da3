"""From keys and files to credentials: what is checked, and what is said of it."""

import os
from pathlib import Path

import pytest

from neo_admin.certificates import Authority, write_secret
from neo_client.options import Options
from neo_client.zodburi import parse_uri
from neo_common.config.loader import ConfigProblems, load
from neo_common.credentials import credentials_of, read_secret
from neo_common.errors import ConfigError
from neo_common.states import Role
from neo_common.wire.guard import Identity

OPEN = """\
cluster: {name: test}
masters: {m1: {address: 'db1:1'}, m2: {address: '127.0.0.1:2'}}
storages: {s1: {address: '[::]:3'}}
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    return path


def test_addresses_open_to_others_want_protection(tmp_path: Path) -> None:
    with pytest.raises(ConfigProblems) as caught:
        load(written(tmp_path, OPEN))
    (said,) = map(str, caught.value.problems)
    assert said.startswith(f"{tmp_path}/cluster.yaml:2: masters.m1.address: db1:1 is open to other machines, as 1 more")
    for remedy in ("security.tls_ca", "security.secret_file", "security.insecure: true", "docs/security.md"):
        assert remedy in said


@pytest.mark.parametrize(
    "security",
    [
        "{insecure: true}",
        "{secret_file: secret}",
        "{secret_env: SECRET}",
        "{tls_ca: ca, tls_certificate: c, tls_key: k}",
        "{tls_ca: ca, tls_certificate: c, tls_key: k, secret_file: secret}",
    ],
)
def test_any_protection_or_an_explicit_word_will_do(tmp_path: Path, security: str) -> None:
    assert load(written(tmp_path, OPEN + f"security: {security}\n")).security


@pytest.mark.parametrize(
    ("security", "says"),
    [
        ("{insecure: true, secret_env: X}", "security.insecure: is true, but there is a secret or TLS"),
        ("{secret_file: a, secret_env: X}", "security.secret_env: is given with security.secret_file"),
        ("{tls_ca: a, tls_key: b}", "security.tls_certificate: is missing: TLS needs"),
    ],
)
def test_halves_and_contradictions_are_errors(tmp_path: Path, security: str, says: str) -> None:
    with pytest.raises(ConfigProblems, match=says):
        load(written(tmp_path, OPEN + f"security: {security}\n"))


def test_secret_of_a_file_or_of_a_variable(tmp_path: Path) -> None:
    write_secret(tmp_path / "secret")
    assert os.stat(tmp_path / "secret").st_mode & 0o777 == 0o600
    with pytest.raises(ConfigError, match="File exists"):
        write_secret(tmp_path / "secret")
    config = load(written(tmp_path, OPEN + "security: {secret_file: secret}\n"))
    from_file = credentials_of(config, "m1", {}).guard(Role.MASTER)
    config = load(written(tmp_path, OPEN + "security: {secret_env: SITE_SECRET}\n"))
    text = (tmp_path / "secret").read_text()
    from_variable = credentials_of(config, "m1", {"SITE_SECRET": text}).guard(Role.MASTER)
    assert from_file is not None
    assert from_variable is not None
    assert from_file.secret.sign(b"x") == from_variable.secret.sign(b"x")
    assert from_file.nonce != from_variable.nonce
    with pytest.raises(ConfigError, match=r"cluster.yaml: security: the variable SITE_SECRET.*is not set"):
        credentials_of(config, "m1", {})


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644])
def test_secret_and_key_that_others_can_read_are_refused(tmp_path: Path, mode: int) -> None:
    """What root owns may be readable by its group, for who runs in it; not when we are root ourselves."""
    write_secret(tmp_path / "secret")
    os.chmod(tmp_path / "secret", mode)
    with pytest.raises(
        ConfigError, match=rf"secret {tmp_path}/secret can be read by others: chmod 600 {tmp_path}/secret"
    ):
        read_secret(str(tmp_path / "secret"))
    authority = Authority(tmp_path / "tls", "test")
    authority.issue("client", Identity("test", Role.CLIENT), 1)
    crt, key = authority.paths("client")
    os.chmod(key, mode)
    options = Options(
        masters=("h:1",), name="x", tls_ca=str(tmp_path / "tls/ca.crt"), tls_certificate=str(crt), tls_key=str(key)
    )
    with pytest.raises(ConfigError, match="chmod 600"):
        options.credentials()


def test_files_that_are_not_there_or_not_what_they_should_be_are_named(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "test")
    for stem in ("s1", "s2"):
        authority.issue(stem, Identity("test", Role.STORAGE, stem), 1)
    (tmp_path / "text").write_text("not a certificate")

    def write(ca: str, crt: str, key: str) -> Path:
        return written(tmp_path, OPEN + f"security: {{tls_ca: '{ca}', tls_certificate: '{crt}', tls_key: '{key}'}}\n")

    for ca, crt, key, says in (
        ("no.crt", "{name}.crt", "{name}.key", f"the TLS authority {tmp_path}/no.crt: No such file"),
        ("text", "{name}.crt", "{name}.key", f"the TLS authority {tmp_path}/text: no certificate or crl found"),
        ("ca.crt", "no.crt", "{name}.key", f"the TLS certificate {tmp_path}/no.crt"),
        ("ca.crt", "{name}.crt", "no.key", f"the TLS key {tmp_path}/no.key: No such file"),
        ("ca.crt", "s2.crt", "{name}.key", "the key is not that of the certificate"),
    ):
        with pytest.raises(ConfigError, match=rf"cluster.yaml: security: .*{says}"):
            credentials_of(load(write(ca, crt, key)), "s1", {})
    assert credentials_of(load(write("ca.crt", "{name}.crt", "{name}.key")), "s1", {}).tls is not None


def test_client_is_told_which_option_is_missing() -> None:
    with pytest.raises(ConfigError, match="tls-key: is missing"):
        Options(masters=("h:1",), name="x", tls_ca="a", tls_certificate="b")
    with pytest.raises(ConfigError, match="secret-file: the secret was given too"):
        Options(masters=("h:1",), name="x", secret="y" * 20, secret_file="z")
    assert "y" * 20 not in repr(Options(masters=("h:1",), name="x", secret="y" * 20))


def test_uri_names_files_but_never_a_secret() -> None:
    found, rest = parse_uri("neo://x@h:1?secret_file=/s&tls_ca=/a&tls_certificate=/b&tls_key=/c&secret=abc")
    assert (found["secret_file"], found["tls_ca"], found["tls_certificate"], found["tls_key"]) == (
        "/s",
        "/a",
        "/b",
        "/c",
    )
    assert rest == {"secret": "abc"}, "not ours: the database refuses it"


def test_certificates_are_made_once_and_renewed_on_request(tmp_path: Path) -> None:
    first = Authority(tmp_path, "test")
    assert first.is_new
    first.issue("s1", Identity("test", Role.STORAGE, "s1"), 1)
    again = Authority(tmp_path, "test")
    assert not again.is_new
    assert again.has("s1")
    assert not again.has("s2")
    again.issue("s1", Identity("test", Role.STORAGE, "s1"), -1)
    assert not again.has("s1"), "it has expired"
    with pytest.raises(ConfigError, match="authority of another cluster"):
        Authority(tmp_path, "other")
    (tmp_path / "ca.key").unlink()
    with pytest.raises(ConfigError, match=r"both ca.crt and ca.key must be there"):
        Authority(tmp_path, "test")
