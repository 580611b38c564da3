"""Small parts of the client: routing, the spool, options, URIs, errors, sets of oids."""

import random
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import ZConfig
from transaction.interfaces import TransientError
from ZODB.POSException import POSKeyError, ReadOnlyError, StorageError

from neo_client.commit import Commit
from neo_client.core.cache import Cache
from neo_client.core.routing import PENALTY_S, Router
from neo_client.errors import ClusterUnavailable, NoSpaceError, TooLargeError, of_code, translated
from neo_client.gc import OidSet
from neo_client.options import Options, parse_bool, parse_seconds, parse_size, split_address
from neo_client.spool import Spool
from neo_client.zodburi import parse_uri
from neo_common.errors import ConfigError, DataCorrupted, DeadlinePassed, NotReady, PeerLost, RequestFailed
from neo_common.ids import Epoch, NodeId, Oid, Partition, Ptid, Seconds, Tid, Version
from neo_common.model.partition_table import Cell, PartitionTable
from neo_common.states import CellState, NodeState, Role, node_id
from neo_common.wire.schema import Compression, Data, ErrorCode, NodeInfo, Write

S1, S2, S3 = (node_id(Role.STORAGE, n) for n in (1, 2, 3))
UP, OUT = CellState.UP_TO_DATE, CellState.OUT_OF_DATE
TABLE = PartitionTable(
    Version(Epoch(1), Ptid(1)),
    1,
    [(Cell(S1, UP), Cell(S2, UP)), (Cell(S2, UP), Cell(S1, UP)), (Cell(S3, UP), Cell(S1, OUT))],
)
P0, P1, P2 = Partition(0), Partition(1), Partition(2)
T0 = Seconds(100.0)
GOOD = {"masters": ("m:1",), "name": "shop"}


def nodes(**addresses: str) -> dict[NodeId, NodeInfo]:
    """S1=..., S2=...: those that serve, and where."""
    return {
        node_id(Role.STORAGE, int(name[1:])): NodeInfo(
            node_id(Role.STORAGE, int(name[1:])), name, address, NodeState.RUNNING, 0, Seconds(0.0), ""
        )
        for name, address in addresses.items()
    }


ALL = nodes(S1="far:1", S2="far:2", S3="far:3")


def test_only_readable_cells_of_serving_nodes_are_asked() -> None:
    router = Router((), 0)
    assert set(router.cells(TABLE, ALL, P0, (), T0)) == {S1, S2}
    assert router.cells(TABLE, ALL, P2, (), T0) == [S3]
    assert router.cells(TABLE, nodes(S1="far:1"), P0, (), T0) == [S1]
    assert router.cells(TABLE, nodes(S1="far:1"), P2, (), T0) == []


def test_same_host_comes_first_then_who_is_connected() -> None:
    near = nodes(S1="far:1", S2="here:2")
    assert Router(("here",), 0).cells(TABLE, near, P0, (S1,), T0) == [S2, S1]
    for salt in range(4):
        assert Router((), salt).cells(TABLE, ALL, P0, (S2,), T0)[0] == S2


def test_who_has_failed_is_asked_last_for_a_while() -> None:
    router = Router(("here",), 0)
    near = nodes(S1="far:1", S2="here:2")
    router.failed(S2, T0)
    assert router.cells(TABLE, near, P0, (S2,), T0) == [S1, S2]
    assert router.cells(TABLE, near, P0, (S2,), Seconds(T0 + PENALTY_S))[0] == S2


def test_much_quicker_node_is_preferred_and_slightly_quicker_is_not() -> None:
    router = Router((), 0)
    for _ in range(50):
        router.answered(S1, 0.010)
        router.answered(S2, 0.001)
    assert router.cells(TABLE, ALL, P0, (S1, S2), T0)[0] == S2
    assert router.cells(TABLE, ALL, P1, (S1, S2), T0)[0] == S2


def test_clients_spread_over_equal_replicas() -> None:
    first = {Router((), salt).cells(TABLE, ALL, P0, (S1, S2), T0)[0] for salt in range(2)}
    assert first == {S1, S2}


def test_cover_asks_for_each_partition_once() -> None:
    cover = Router((), 0).cover(TABLE, nodes(S1="far:1", S2="far:2"), (P0, P1, P2), (), T0)
    assert cover[None] == (P2,)
    assert sorted(p for ps in cover.values() for p in ps) == [P0, P1, P2]


def test_spool_gives_back_what_it_took_from_memory_and_file() -> None:
    rng, spool = random.Random(3), Spool(memory_bytes=1000)
    values = [rng.randbytes(rng.randrange(600)) for _ in range(30)]
    numbers = [spool.add(value) for value in values]
    for number, value in zip(numbers, values, strict=True):
        assert spool.read(number) == value
        start, size = rng.randrange(700), rng.randrange(700)
        assert spool.read(number, start, size) == value[start : start + size]
    spool.drop(numbers[0])
    with pytest.raises(KeyError):
        spool.read(numbers[0])
    spool.close()
    spool.close()


def test_oid_set_is_a_set() -> None:
    rng = random.Random(5)
    ours, theirs = OidSet(), OidSet()
    plain, other = set[int](), set[int]()
    for _ in range(3000):
        oid = Oid(rng.choice((rng.randrange(2000), rng.randrange(2**40), 2**63 - 1)))
        assert ours.add(oid) == (oid not in plain)
        plain.add(oid)
        if rng.random() < 0.5:
            theirs.add(oid)
            other.add(oid)
    assert list(ours) == sorted(plain)
    assert len(ours) == len(plain)
    assert list(ours.minus(theirs)) == sorted(plain - other)
    assert all((Oid(n) in ours) == (n in plain) for n in range(2000))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"masters": ()}, "master: no address"),
        ({"masters": ("nowhere",)}, "'nowhere' is no address; expected host:port"),
        ({"masters": ("host:99999",)}, "host:99999"),
        ({"name": ""}, "name: the cluster has a name"),
        ({"compress": "lzma"}, "compress: 'lzma' is not one of none, zlib, zstd"),
        ({"wait_timeout_s": 0}, "wait-timeout"),
        ({"cache_size_bytes": -1}, "cache-size"),
        ({"blob_dir": "/blobs"}, "blob-dir: this version of neo-client stores no blobs yet"),
    ],
)
def test_wrong_option_names_key_and_remedy(change: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Options(**{**GOOD, **change})  # type: ignore[arg-type]


def test_addresses_sizes_durations_and_booleans_are_read_as_people_write_them() -> None:
    assert [split_address(a) for a in ("h:1", "[fe80::1]:2", "unix:/run/neo")] == [
        ("h", 1),
        ("fe80::1", 2),
        ("/run/neo", -1),
    ]
    assert [parse_size(s) for s in ("5", "5B", "2KB", "3mb", "1GB", "7k")] == [5, 5, 2048, 3 * 2**20, 2**30, 7168]
    assert [parse_seconds(s) for s in ("5", "250ms", "2m", "1.5s")] == [5.0, 0.25, 120.0, 1.5]
    assert [parse_bool(s) for s in ("on", "FALSE", "y", "0")] == [True, False, True, False]
    for parse, text in ((parse_size, "5 apples"), (parse_seconds, "soon"), (parse_bool, "maybe")):
        with pytest.raises(ConfigError, match=text):
            parse(text)


def test_uri_keeps_what_is_the_databases() -> None:
    found, rest = parse_uri("neo://my%20shop@a:1,[::1]:2?wait_timeout=5s&compress=off&connection_pool_size=3")
    assert found == {"name": "my shop", "masters": ("a:1", "[::1]:2"), "wait_timeout_s": 5.0, "compress": "none"}
    assert rest == {"connection_pool_size": "3"}
    assert parse_uri("neo://shop@unix:%2Frun%2Fm1.sock,b:2")[0]["masters"] == ("unix:/run/m1.sock", "b:2")
    for wrong in ("neo://a:1", "neo://shop@", "zeo://shop@a:1", "neo://shop@a:1?cache_size=big"):
        with pytest.raises(ConfigError):
            parse_uri(wrong)


def test_section_has_the_defaults_of_the_options() -> None:
    schema = ZConfig.loadSchema(str(Path(__file__).parents[1] / "support" / "storage_schema.xml"))
    text = "%import neo_client\n<neostorage>\nmaster a:1 b:2\nmaster c:3\nname shop\n</neostorage>\n"
    config, _ = ZConfig.loadConfigFile(schema, StringIO(text))
    from neo_client.zodbconfig import options_of  # noqa: PLC0415 - what the section names, imported by ZConfig

    assert options_of(config.storage.config) == Options(masters=("a:1", "b:2", "c:3"), name="shop")


def test_every_error_code_has_its_zodb_error() -> None:
    for code in ErrorCode:
        assert isinstance(of_code(code, "text"), (StorageError, POSKeyError)), code
    transient = {c for c in ErrorCode if isinstance(of_code(c, ""), TransientError)}
    assert transient == {ErrorCode.NOT_READABLE, ErrorCode.NOT_READY, ErrorCode.NO_SPACE, ErrorCode.EPOCH}
    assert isinstance(of_code(ErrorCode.READ_ONLY, ""), ReadOnlyError)
    assert isinstance(of_code(ErrorCode.NO_SPACE, ""), NoSpaceError)
    assert isinstance(of_code(ErrorCode.TOO_LARGE, ""), TooLargeError)
    assert of_code(ErrorCode.NOT_FOUND, "", Oid(7)).args == (b"\0" * 7 + b"\7",)


def test_what_may_work_later_is_transient() -> None:
    for error in (NotReady("x"), PeerLost("x"), DeadlinePassed("x"), RequestFailed(ErrorCode.NOT_READY, "x")):
        assert isinstance(translated(error), ClusterUnavailable)
    assert not isinstance(translated(DataCorrupted("x")), TransientError)


@pytest.mark.parametrize("is_last", [True, False])
def test_what_was_committed_is_cached_as_current_only_if_it_is(is_last: bool) -> None:
    cache = Cache(10**6)
    told: list[Tid] = []
    write = Write(Oid(1), Tid(0), Tid(0), Data(Compression.NONE, bytes(16), 5, b"value"))
    commit = SimpleNamespace(shell=SimpleNamespace(cache=cache), writes={Oid(1): write}, plain={Oid(1): b"value"})
    Commit._on_finish(cast("Commit", commit), Tid(7), is_last, told.append)
    assert told == [7]
    assert (cache.get(Oid(1), Tid(100)) is not None) is is_last
