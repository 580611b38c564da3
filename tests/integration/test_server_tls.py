"""TLS to the database: the server is who it should be, or nothing is said to it; and what is told to who is wrong."""

import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ZODB.DB import DB

from neo_admin.certificates import Authority
from neo_common.errors import BackendError
from neo_common.ids import Oid
from neo_common.states import Role
from neo_common.wire.guard import Identity
from neo_storage.backends.mysql.backend import MysqlBackend
from neo_storage.backends.tls import ServerTls, TlsMode
from support.backend_contract import P0, T1, commit, write
from support.cluster import Cluster
from support.door import DATABASE, HOST, PASSWORD, USER, Door
from support.server_kinds import EVERY
from support.servers import MariaDB, Server
from support.stripped_mysql import StrippedMysql

CERTIFIED = "certified"
"""A user who needs a certificate, beside a password."""
pytestmark = pytest.mark.timeout(300)


class Certified(Door):
    """A server with a certificate for HOST, which lets nobody in without TLS."""

    def __init__(self, kind: type[Server]) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="neo-tls-", dir="/tmp"))
        self.folder.chmod(0o755)
        self.authority = Authority(self.folder / "authority", "databases")
        self.wear(HOST)
        files = [str(self.folder / name) for name in ("ca.crt", "own.crt", "own.key")]
        if issubclass(kind, MariaDB):
            options = dict(zip(("ssl-ca", "ssl-cert", "ssl-key"), files, strict=True))
        else:
            options = dict(zip(("ssl_ca_file", "ssl_cert_file", "ssl_key_file"), files, strict=True), ssl="on")
        super().__init__(kind, options)
        if self.is_mysql:
            self.admin(f"ALTER USER {USER}@'{HOST}' REQUIRE SSL")
            self.admin(f"CREATE USER {CERTIFIED}@'{HOST}' IDENTIFIED BY '{PASSWORD}' REQUIRE X509")
            self.admin(f"GRANT ALL ON {DATABASE}.* TO {CERTIFIED}@'{HOST}'")
        else:
            rules = ["local all all trust", f"hostssl all {CERTIFIED} {HOST}/32 scram-sha-256 clientcert=verify-ca"]
            rules += [f"hostssl all all {HOST}/32 scram-sha-256", ""]
            (self.server.data / "pg_hba.conf").write_text("\n".join(rules))
            self.admin("SELECT pg_reload_conf()")
            self.admin(f"CREATE ROLE {CERTIFIED} LOGIN PASSWORD '{PASSWORD}'")
            self.admin(f"GRANT ALL ON DATABASE {DATABASE} TO {CERTIFIED}")
            self.admin(f"GRANT ALL ON SCHEMA public TO {CERTIFIED}")
        self.allow_creation()

    def issue(self, name: str) -> tuple[Path, Path]:
        """Return a certificate and its key."""
        self.authority.issue(name, Identity("databases", Role.STORAGE, name), 10)
        return self.authority.paths(name)

    def wear(self, name: str) -> None:
        """Give the server a certificate for *name*, from now on."""
        files = (*self.issue(name), self.authority.paths("ca")[0])
        for source, target in zip(files, ("own.crt", "own.key", "ca.crt"), strict=True):
            path = self.folder / target
            shutil.copyfile(source, path)
            path.chmod(0o600 if target == "own.key" else 0o644)
            if os.geteuid() == 0:
                nobody = pwd.getpwnam("nobody")
                os.chown(path, nobody.pw_uid, nobody.pw_gid)

    def take(self) -> None:
        """Have the server read its certificate again."""
        self.admin(self.server.reload_tls)

    def tls(self, mode: TlsMode = TlsMode.VERIFY, *files: Path) -> ServerTls:
        """Return what a storage is told; *files*: its certificate and key."""
        ca = str(self.folder / "ca.crt") if mode is TlsMode.VERIFY else ""
        return ServerTls(mode, ca, *map(str, files))

    def end(self) -> None:
        """Remove all."""
        self.server.end()
        shutil.rmtree(self.folder)


@pytest.fixture(params=EVERY)
def door(request: pytest.FixtureRequest) -> Iterator[Certified]:
    door = Certified(request.param)
    yield door
    door.end()


def stranger(path: Path) -> ServerTls:
    """What a storage is told that believes another authority."""
    Authority(path / "other", "databases")
    return ServerTls(TlsMode.VERIFY, str(path / "other/ca.crt"))


def test_storage_talks_tls_to_a_server_that_lets_nobody_else_in(door: Certified, tmp_path: Path) -> None:
    """All its connections: the applier's, those of loads (in the hub, on threads), those of long reads."""
    secret = tmp_path / "secret"
    secret.write_text(f"{PASSWORD}\n")
    database: dict[str, Any] = {**door.settings(), "password_file": str(secret), "tls_ca": str(door.folder / "ca.crt")}
    with Cluster(tmp_path / "c", databases=[database]) as cluster:
        for round_ in range(2):
            storage = cluster.open()
            db = DB(storage)
            with db.transaction() as connection:
                connection.root()[f"x{round_}"] = "x" * 20_000
            assert len(list(storage.iterator())) == 2 + round_
            db.close()
            cluster.kill("s1")
            cluster.start("s1")
        assert "ERROR" not in cluster.log("s1")


def test_only_a_certificate_of_our_authority_for_its_name_is_believed(door: Certified, tmp_path: Path) -> None:
    door.open_once(tls=door.tls())
    if door.server.kind == "mysql":
        plugins = door.server.execute("SELECT DISTINCT plugin FROM mysql.user")
        assert plugins == [("caching_sha2_password",)], "the way in that a user has by default is another one now"
    assert "tls_ca" in door.refusal(tls=stranger(tmp_path))
    door.wear("db.example")
    door.take()
    text = door.refusal(tls=door.tls())
    assert "another name" in text
    assert HOST in text
    door.open_once(tls=door.tls(TlsMode.UNVERIFIED))


def test_server_that_changes_its_certificate_for_another_name_is_left(door: Certified) -> None:
    """While a storage runs: at its next connection."""
    backend = door.backend(tls=door.tls())
    backend.open()
    backend.apply([commit(T1, write(0, b"a"))], 0)
    door.wear("db.example")
    door.take()
    with pytest.raises(BackendError, match="another name"):
        backend.reconnect()
    door.wear(HOST)
    door.take()
    backend.reconnect()
    assert backend.current(P0, Oid(0)) == T1
    backend.close()


def test_server_that_wants_tls_or_a_certificate_says_so(door: Certified) -> None:
    assert "database.tls_ca" in door.refusal(tls=ServerTls(TlsMode.OFF))
    assert "tls_certificate" in door.refusal(tls=door.tls(), user=CERTIFIED)
    door.open_once(tls=door.tls(TlsMode.VERIFY, *door.issue("s1")), user=CERTIFIED)


@pytest.mark.parametrize("kind", EVERY)
def test_server_without_tls_is_told_nothing(kind: type[Server], tmp_path: Path) -> None:
    door = Door(kind, kind.without_tls)
    try:
        door.allow_creation()
        for tls in (stranger(tmp_path), ServerTls(TlsMode.UNVERIFIED)):
            assert "has no TLS" in door.refusal(tls=tls)
        door.open_once(tls=ServerTls(TlsMode.OFF))
    finally:
        door.server.end()


@pytest.mark.parametrize("mode", [TlsMode.VERIFY, TlsMode.UNVERIFIED])
def test_password_is_not_said_in_clear_to_a_mysql_that_has_lost_its_tls(mode: TlsMode, tmp_path: Path) -> None:
    """MariaDB's driver takes a connection for encrypted as soon as that was asked for."""
    tls = stranger(tmp_path) if mode is TlsMode.VERIFY else ServerTls(mode)
    with StrippedMysql() as server:
        backend = MysqlBackend(database=DATABASE, user=USER, password=PASSWORD, host=HOST, port=server.port, tls=tls)
        with pytest.raises(BackendError, match="The server has no TLS"):
            backend.open()
        backend.close()
    assert server.visitors
    assert PASSWORD.encode() not in server.heard
