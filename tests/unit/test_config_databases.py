"""The `database:` section of storages: what each kind needs, where the password comes from, what is never shown."""

from pathlib import Path

import pytest

from neo_common.config.loader import ConfigProblems, load
from neo_common.config.sections import Config
from neo_common.errors import ConfigError
from neo_storage.backends.tls import NO_TLS, ServerTls, TlsMode
from neo_storage.making import password_of, tls_of

HEAD = "cluster: {name: c}\nmasters: {m1: {address: 127.0.0.1:1}}\nstorages:\n"


def config(tmp_path: Path, *databases: str) -> Config:
    lines = [f"  s{n}: {{address: 127.0.0.1:{n + 1}, database: {d}}}\n" for n, d in enumerate(databases, 1)]
    path = tmp_path / "c.yaml"
    path.write_text(HEAD + "".join(lines))
    return load(path)


def problems(tmp_path: Path, *databases: str) -> str:
    with pytest.raises(ConfigProblems) as raised:
        config(tmp_path, *databases)
    return str(raised.value)


def test_paths_stand_beside_the_file_and_those_of_files_of_the_storage_below_its_directory(tmp_path: Path) -> None:
    read = config(tmp_path, "{type: mysql, name: n, user: u, socket: run/my.sock, password_file: secret}")
    database = read.storage("s1").database
    assert database.socket == str(tmp_path / "run/my.sock")
    assert database.password_file == str(tmp_path / "secret")
    assert database.server_directory == ""


def test_server_needs_name_user_and_one_place(tmp_path: Path) -> None:
    text = problems(tmp_path, "{type: postgresql}")
    assert "database.name: is missing" in text
    assert "database.user: is missing" in text
    assert "database.socket: or else `server`" in text
    both = problems(tmp_path, "{type: mysql, name: n, user: u, socket: s, server: h, tls: off}")
    assert "database.socket: or else `server`" in both


def test_two_storages_cannot_name_one_database(tmp_path: Path) -> None:
    one = "{type: mysql, name: n, user: u, server: h, tls: off}"
    assert "is the database of storages.s1" in problems(tmp_path, one, one)
    config(tmp_path, one, "{type: mysql, name: other, user: u, server: h, tls: off}")
    config(tmp_path, one, "{type: postgresql, name: n, user: u, server: h, tls: off}")


def test_password_comes_from_the_first_line_of_a_file_or_from_a_variable(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hush hush \nnot this\n")
    server = "type: postgresql, name: n, user: u, server: h, tls: off"
    from_file = config(tmp_path, f"{{{server}, password_file: secret}}").storage("s1")
    assert password_of("s1", from_file.database, {}) == "hush hush "
    from_variable = config(tmp_path, f"{{{server}, password_variable: NEO_DB}}").storage("s1")
    assert password_of("s1", from_variable.database, {"NEO_DB": "hush"}) == "hush"
    assert "hush" not in repr(from_file) + repr(from_variable)
    with pytest.raises(ConfigError, match="the environment has no NEO_DB"):
        password_of("s1", from_variable.database, {})
    missing = config(tmp_path, f"{{{server}, password_file: nothing}}").storage("s1")
    with pytest.raises(ConfigError, match="password_file cannot be read"):
        password_of("s1", missing.database, {})


def test_there_is_no_key_for_a_password(tmp_path: Path) -> None:
    assert "password: " in problems(tmp_path, "{type: mysql, name: n, user: u, server: h, tls: off, password: hush}")


def test_managed_server_lies_below_its_storage_and_takes_no_other_keys(tmp_path: Path) -> None:
    database = config(tmp_path, "{type: mysql, managed: true}").storage("s1").database
    assert database.server_directory == str(tmp_path / "s1/mariadb")
    elsewhere = config(tmp_path, "{type: mysql, managed: true, server_directory: big}").storage("s1").database
    assert elsewhere.server_directory == str(tmp_path / "big")
    assert "is for type: mysql, not sqlite" in problems(tmp_path, "{managed: true}")
    text = problems(tmp_path, "{type: mysql, managed: true, user: u, socket: s, port: 7}")
    for key in ("user", "socket", "port"):
        assert f"database.{key}: is chosen by a managed server itself" in text
    shared = "{type: mysql, managed: true, server_directory: big}"
    assert "has the same path as storages.s1" in problems(tmp_path, shared, shared)


def test_server_of_another_host_is_verified_unless_told_otherwise(tmp_path: Path) -> None:
    there = "type: postgresql, name: n, user: u, server: db1"
    assert "database.tls_ca: is missing: what goes to db1 could be read" in problems(tmp_path, f"{{{there}}}")
    for tls in ("tls_ca: ca.crt", "tls: unverified", "tls: off", "tls_ca: ca, tls_certificate: c, tls_key: k"):
        config(tmp_path, f"{{{there}, {tls}}}")
    for host in ("127.0.0.1", "localhost", "::1"):
        config(tmp_path, f'{{type: postgresql, name: n, user: u, server: "{host}"}}')
    assert config(tmp_path, f"{{{there}, tls_ca: ca.crt}}").storage("s1").database.tls_ca == str(tmp_path / "ca.crt")


@pytest.mark.parametrize(
    ("database", "problem"),
    [
        ("server: db1, tls_ca: ca, tls: off", "database.tls_ca: is given, and tls: off"),
        ("server: db1, tls_ca: ca, tls: unverified", "database.tls_ca: is given, and tls: unverified"),
        ("server: db1, tls_ca: ca, tls_key: k", "database.tls_certificate: is missing"),
        ("server: 127.0.0.1, tls_certificate: c, tls_key: k", "database.tls_ca: is missing"),
        ("socket: /run/s, tls_ca: ca", "database.tls_ca: is for `server`"),
        ("server: localhost", "database.server: localhost is a Unix socket"),
    ],
)
def test_keys_of_tls_that_do_not_go_together_are_told(tmp_path: Path, database: str, problem: str) -> None:
    assert problem in problems(tmp_path, f"{{type: mysql, name: n, user: u, {database}}}")


def test_files_of_tls_are_looked_for_before_a_driver_does(tmp_path: Path) -> None:
    server = "type: postgresql, name: n, user: u, server: db1"
    assert tls_of("s1", config(tmp_path, f"{{{server}, tls: off}}").storage("s1").database).mode is TlsMode.OFF
    database = config(tmp_path, f"{{{server}, tls_ca: ca.crt}}").storage("s1").database
    with pytest.raises(ConfigError, match=r"storage s1: database.tls_ca cannot be read"):
        tls_of("s1", database)
    (tmp_path / "ca.crt").write_text("x")
    assert tls_of("s1", database) == ServerTls(TlsMode.VERIFY, str(tmp_path / "ca.crt"))
    assert tls_of("s1", config(tmp_path, "{type: mysql, name: n, user: u, socket: s}").storage("s1").database) == NO_TLS
