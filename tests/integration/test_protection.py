"""TLS and the shared secret, against real daemons: who may come in, and as what; large values; new certificates."""

import os
import random
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ZODB
from ZODB.Connection import TransactionMetaData
from ZODB.utils import p64, z64

import neo_client
from neo_admin.certificates import Authority
from neo_client.errors import ClusterUnavailable
from neo_common.errors import ConfigError, NeoError
from neo_common.ids import NO_EPOCH, NO_NODE, Seconds
from neo_common.states import Role, node_id
from neo_common.tls import Tls, TlsFiles
from neo_common.wire import schema
from neo_common.wire.guard import Guard, Identity, Secret
from neo_common.wire.session import Ended, Greeting, Opened, Session
from support.cluster import PROGRAMS, Cluster

pytestmark = pytest.mark.timeout(300)
HELLO = schema.Hello(1, 1, (), Role.CLIENT, "somebody", "test", bytes(16), NO_NODE, 99, NO_EPOCH, "")
PORTS = ["m1", "s1", "a1"]


@pytest.fixture(scope="module")
def with_tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("tls"), storages=2, replicas=1, admins=1, protection="tls") as cluster:
        yield cluster


@pytest.fixture(scope="module")
def with_secret(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("secret"), storages=2, replicas=1, admins=1, protection="secret") as cluster:
        yield cluster


@pytest.fixture(params=["tls", "secret"])
def cluster(request: pytest.FixtureRequest) -> Cluster:
    found = request.getfixturevalue(f"with_{request.param}")
    assert isinstance(found, Cluster)
    return found


def connect(cluster: Cluster, name: str) -> socket.socket:
    host, port = cluster.addresses[name].rsplit(":", 1)
    return socket.create_connection((host, int(port)), 10)


def shake_hands(cluster: Cluster, name: str, hello: schema.Hello, tls: Tls | None, guard: Guard | None) -> Session:
    """Return an open session with *name*. Raises: why it is not."""
    session = Session(hello, True, now=Seconds(0.0), guard=guard)
    channel = tls.channel(dialled=True) if tls else None
    with connect(cluster, name) as peer:
        peer.settimeout(20)
        while True:
            out = session.take_output()
            peer.sendall(b"".join(channel.wrap(out) if channel else out))
            try:
                data = peer.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                raise session.error or ConnectionError("closed")
            if channel:
                data = channel.unwrap(data)
                session.identity = channel.identity
            for event in session.receive(data, Seconds(0.0)):
                if isinstance(event, Opened):
                    return session
                if isinstance(event, Ended):
                    raise event.error


def tls_of(cluster: Cluster, stem: str) -> Tls:
    folder = cluster.directory / "tls"
    return Tls(TlsFiles(str(folder / "ca.crt"), str(folder / f"{stem}.crt"), str(folder / f"{stem}.key")))


def commit(storage: object, oid: int, value: bytes, serial: bytes = z64) -> bytes:
    txn = TransactionMetaData()
    storage.tpc_begin(txn)  # type: ignore[attr-defined]
    storage.store(p64(oid), serial, value, "", txn)  # type: ignore[attr-defined]
    storage.tpc_vote(txn)  # type: ignore[attr-defined]
    tid = storage.tpc_finish(txn)  # type: ignore[attr-defined]
    assert isinstance(tid, bytes)
    return tid


def test_everything_works_behind_it(cluster: Cluster) -> None:
    """A database, by URI and by ZConfig; neoadmin by way of the admin and of the masters."""
    database = ZODB.DB(cluster.open())
    with database.transaction() as connection:
        connection.root()["x"] = list(range(1000))
    database.close()
    from_zconfig = __import__("ZODB.config").config.storageFromString(
        "%import neo_client\n" + cluster.zconfig_section(read_only="true")
    )
    assert from_zconfig.load(z64)[1] == from_zconfig.lastTransaction()
    from_zconfig.close()
    for words in (["status", "--wait", "30s"], ["nodes"], ["transactions"], ["debug", "s1"], ["debug", "m1"]):
        neoadmin = [str(PROGRAMS / "neoadmin"), "--config", str(cluster.config), *words]
        done = subprocess.run(neoadmin, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    cluster.check_alive()


def test_value_of_200_mb_passes(cluster: Cluster) -> None:
    """In pieces, against the daemons' bounds of output."""
    value = random.Random(7).randbytes(200 * 2**20)
    storage = cluster.open(cache_size=0, compress="none")
    try:
        commit(storage, 1000, value)
        assert storage.load(p64(1000))[0] == value
    finally:
        storage.close()
    cluster.check_alive()


def test_program_on_gevent_gets_in(cluster: Cluster) -> None:
    """The other driver: greenlets under monkey patching."""
    code = (
        "from gevent import monkey; monkey.patch_all()\n"
        "import neo_client, gevent\n"
        "from ZODB.utils import z64, p64\n"
        "from ZODB.Connection import TransactionMetaData\n"
        f"storage = neo_client.open({cluster.uri!r}, cache_size=0)\n"
        "def job(n):\n"
        "    for i in range(5):\n"
        "        oid = storage.new_oid(); txn = TransactionMetaData()\n"
        "        storage.tpc_begin(txn); storage.store(oid, z64, bytes([n]) * 300_000, '', txn)\n"
        "        storage.tpc_vote(txn); storage.tpc_finish(txn)\n"
        "        assert storage.load(oid)[0] == bytes([n]) * 300_000\n"
        "    return n\n"
        "assert [g.get() for g in [gevent.spawn(job, n) for n in range(5)]] == [0, 1, 2, 3, 4]\n"
        "storage.close(); print('done')\n"
    )
    done = subprocess.run(
        [str(PROGRAMS / "python"), "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout == "done\n", done.stderr


@pytest.mark.parametrize("name", PORTS)
def test_stranger_is_not_heard(cluster: Cluster, name: str) -> None:
    """Without secret or certificate: refused, or cut off, with a reason; the reason names the keys."""
    with pytest.raises(NeoError, match=r"secret|TLS"):
        shake_hands(cluster, name, HELLO, None, None)


def test_client_without_anything_says_what_is_missing(cluster: Cluster) -> None:
    uri = cluster.uri.partition("?")[0]
    with pytest.raises(ClusterUnavailable, match=r"secret-file|tls-ca"):
        neo_client.open(uri, wait_timeout=2)


@pytest.mark.parametrize("name", PORTS)
def test_another_secret_is_refused(with_secret: Cluster, name: str) -> None:
    guard = Guard(Secret("not the secret of this cluster"), os.urandom(16), Role.CLIENT)
    with pytest.raises(NeoError, match="another one"):
        shake_hands(with_secret, name, HELLO, None, guard)


def test_secret_is_in_no_log(with_secret: Cluster) -> None:
    secret = (with_secret.directory / "secret").read_text().strip()
    assert len(secret) > 30
    for path in with_secret.directory.rglob("*.log"):
        assert secret not in path.read_text(), path


@pytest.mark.parametrize("name", PORTS)
@pytest.mark.parametrize("role", [Role.STORAGE, Role.MASTER, Role.ADMIN])
def test_certificate_of_a_client_makes_no_other_node(with_tls: Cluster, name: str, role: Role) -> None:
    hello = HELLO._replace(role=role, name={Role.STORAGE: "s9", Role.MASTER: "m9", Role.ADMIN: "neoadmin"}[role])
    with pytest.raises(NeoError, match="the certificate is for neo://test/client, it says it is") as caught:
        shake_hands(with_tls, name, hello, tls_of(with_tls, "client"), None)
    assert getattr(caught.value, "code", None) == schema.RefusalCode.CERTIFICATE


def test_certificate_of_a_storage_is_for_that_storage(with_tls: Cluster) -> None:
    hello = HELLO._replace(role=Role.STORAGE, name="s2", node=node_id(Role.STORAGE, 2))
    with pytest.raises(NeoError, match="the certificate is for neo://test/storage/s1"):
        shake_hands(with_tls, "m1", hello, tls_of(with_tls, "s1"), None)


@pytest.mark.parametrize("name", PORTS)
def test_certificate_that_is_not_ours_is_not_believed(with_tls: Cluster, name: str, tmp_path: Path) -> None:
    """Of another authority; expired; of another cluster; without a role. None gets past the handshake."""
    folder = with_tls.directory / "tls"
    ours = Authority(folder, "test")
    other = Authority(tmp_path / "other", "test")
    other.issue("client", Identity("test", Role.CLIENT), 1)
    foreign = TlsFiles(str(folder / "ca.crt"), *map(str, other.paths("client")))
    ours.issue("expired", Identity("test", Role.CLIENT), -1)
    ours.issue("elsewhere", Identity("another", Role.CLIENT), 1)
    with pytest.raises(NeoError, match="does not believe our certificate"):
        shake_hands(with_tls, name, HELLO, Tls(foreign), None)
    with pytest.raises(NeoError, match="does not believe our certificate"):
        shake_hands(with_tls, name, HELLO, tls_of(with_tls, "expired"), None)
    with pytest.raises(NeoError, match="the certificate is for neo://another/client"):
        shake_hands(with_tls, name, HELLO, tls_of(with_tls, "elsewhere"), None)


def test_older_tls_is_refused(with_tls: Cluster) -> None:
    folder = with_tls.directory / "tls"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(folder / "ca.crt")
    context.load_cert_chain(folder / "client.crt", folder / "client.key")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with connect(with_tls, "s1") as peer, pytest.raises(ssl.SSLError):
        context.wrap_socket(peer)


def test_client_does_not_believe_a_server_that_is_no_master(with_tls: Cluster, tmp_path: Path) -> None:
    """A stolen client certificate on a port of a master: the client sends it nothing but its Hello."""
    tls = tls_of(with_tls, "client")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with_tls_uri = f"neo://test@{address}?" + with_tls.uri.partition("?")[2]
        storage = neo_client.open(with_tls_uri, wait=False, wait_timeout=5)
        try:
            peer, _ = server.accept()
            with peer:
                session, channel = Session(None, False), tls.channel(dialled=False)
                peer.settimeout(20)
                while data := peer.recv(65536):
                    for event in session.receive(channel.unwrap(data), Seconds(0.0)):
                        if isinstance(event, Greeting):
                            session.accept(
                                schema.HelloOk(
                                    1, (), Role.MASTER, "m1", "test", bytes(16), node_id(Role.MASTER, 1), 1, NO_EPOCH,
                                    node_id(Role.CLIENT, 1),
                                )
                            )  # fmt: skip
                    peer.sendall(b"".join(channel.wrap(session.take_output())))
                assert "certificate is for neo://test/client" in str(session.error)
        finally:
            storage.close()


def test_new_certificates_are_taken_without_a_restart(tmp_path: Path) -> None:
    """A new authority beside the old one, new certificates of it, then the old one gone: a client goes on throughout,
    and at the end the old client certificate is worth nothing.
    """
    with Cluster(tmp_path / "cluster", storages=1, protection="tls") as cluster:
        storage = cluster.open()
        folder = cluster.directory / "tls"
        serial = commit(storage, 1, b"one")
        old = {file: file.read_bytes() for file in folder.iterdir()}
        pids = {name: process.pid for name, process in cluster.processes.items()}
        new = Authority(tmp_path / "new", "test")
        roles = {"m1": Role.MASTER, "s1": Role.STORAGE}
        both = old[folder / "ca.crt"] + (tmp_path / "new" / "ca.crt").read_bytes()
        replace(folder / "ca.crt", both)
        for stem in ("m1", "s1", "client"):
            name = stem if stem in roles else ""
            new.issue(stem, Identity("test", roles.get(stem, Role.CLIENT), name), 1)
            for source in new.paths(stem):
                replace(folder / source.name, source.read_bytes(), source.stat().st_mode)
        deadline = time.monotonic() + 60
        fresh(cluster, deadline)
        replace(folder / "ca.crt", (tmp_path / "new" / "ca.crt").read_bytes())
        old_client = TlsFiles(str(folder / "ca.crt"), *(str(tmp_path / f"old.{end}") for end in ("crt", "key")))
        for end in ("crt", "key"):
            replace(tmp_path / f"old.{end}", old[folder / f"client.{end}"])
        while True:  # within seconds: files are looked at once a second at most
            try:
                shake_hands(cluster, "m1", HELLO, Tls(old_client), None)
            except NeoError as error:
                said = str(error)
                break
            assert time.monotonic() < deadline
        assert "does not believe our certificate" in said
        fresh(cluster, deadline)
        commit(storage, 1, b"two", serial)  # the connections that were there go on
        storage.close()
        assert pids == {name: process.pid for name, process in cluster.processes.items()}


def replace(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write in one step, as whoever renews certificates should."""
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(data)
    temporary.chmod(mode & 0o777)
    temporary.replace(path)


def fresh(cluster: Cluster, deadline: float) -> None:
    """A new client gets in."""
    while True:
        try:
            cluster.open(wait_timeout=5).close()
        except ClusterUnavailable:
            assert time.monotonic() < deadline
        else:
            return


def test_half_renewed_files_are_not_taken(with_tls: Cluster, tmp_path: Path) -> None:
    """A certificate that does not fit its key: what was in use stays in use."""
    folder = with_tls.directory / "tls"
    paths = [tmp_path / name for name in ("ca.crt", "client.crt", "client.key")]
    for path in paths:
        replace(path, (folder / path.name).read_bytes())
    tls = Tls(TlsFiles(*map(str, paths)))
    replace(tmp_path / "client.crt", (folder / "m1.crt").read_bytes())
    time.sleep(1.1)  # files are looked at once a second at most
    shake_hands(with_tls, "m1", HELLO, tls, None)
    with pytest.raises(ConfigError, match="the key is not that of the certificate"):
        Tls(tls.files)
