"""One YAML file to frozen sections: every value, every error, every source."""

from dataclasses import fields, replace
from pathlib import Path
from textwrap import dedent

import pytest
import yaml

from neo_common.config import reference
from neo_common.config.keys import NODE_SECTIONS, keys_of, shown
from neo_common.config.loader import ConfigProblems, load
from neo_common.config.sections import Config, Master, Storage
from neo_common.config.values import format_bytes, format_seconds, parse_bytes, parse_seconds
from neo_common.errors import ConfigError
from neo_common.states import Role, node_id

CONFIG = Path(__file__).parents[2] / "config"
DOCS = Path(__file__).parents[2] / "docs"
SMALL = """\
cluster: {name: test}
masters:
  m1: {address: 127.0.0.1:10010}
storages:
  s1: {address: 127.0.0.1:10021}
  s2: {address: 127.0.0.1:10022}
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A small cluster that is right."""
    path = tmp_path / "cluster.yaml"
    path.write_text(SMALL)
    return path


def problems(path: Path, text: str, **environ: str) -> list[str]:
    """Return what is said of *text*, without the path of the file."""
    path.write_text(dedent(text))
    with pytest.raises(ConfigProblems) as caught:
        load(path, environ)
    return [str(p).replace(str(path), "cluster.yaml") for p in caught.value.problems]


def test_defaults_are_those_of_the_dataclasses(small: Path) -> None:
    config = load(small)
    assert config.timeouts.lease_s == 2.2
    assert config.limits == Config.__dataclass_fields__["limits"].default
    assert config.masters["m1"].node == node_id(Role.MASTER, 1)
    assert config.storages["s2"].number == 2
    assert config.master_addresses == ("127.0.0.1:10010",)
    assert [n.name for n in config.nodes] == ["m1", "s1", "s2"]


def test_paths_are_relative_to_the_file_and_those_of_a_storage_to_its_directory(small: Path) -> None:
    small.write_text(SMALL + "  s3: {address: 127.0.0.1:10023, directory: /data/s3, log: {path: ../ssd}}\n")
    config = load(small)
    folder = small.parent
    assert config.storages["s1"].directory == str(folder / "s1")
    assert config.storages["s1"].database.path == str(folder / "s1" / "neo.sqlite")
    assert config.storages["s3"].log.path == "/data/s3/../ssd"
    assert config.supervisor.directory == str(folder / "run")


def test_a_node_may_listen_elsewhere_than_where_it_is_dialled(small: Path) -> None:
    small.write_text(SMALL + "  s3: {address: 127.0.0.1:10023, listen: 127.0.0.2:10023}\n")
    config = load(small)
    assert config.storages["s3"].listens_at == "127.0.0.2:10023"
    assert config.storages["s1"].listens_at == config.storages["s1"].address
    _, problem = problems(small, SMALL + "  s3: {address: 127.0.0.1:10023, listen: everywhere}\n")
    assert "storages.s3.listen" in problem
    assert "write host:port" in problem
    (problem,) = problems(small, SMALL + "  s3: {address: 127.0.0.1:10023, listen: 0.0.0.0:10023}\n")
    assert "storages.s3.listen: 0.0.0.0:10023 is open to other machines" in problem


@pytest.mark.parametrize("name", ["neo.yaml", "one-machine.yaml", "three-machines.yaml"])
def test_the_examples_load(name: str) -> None:
    assert load(CONFIG / name).masters


def test_the_sample_has_every_key_at_its_default() -> None:
    config = load(CONFIG / "neo.yaml")
    for name, key in keys_of(Config).items():
        if name not in NODE_SECTIONS and not key.is_required:
            given = getattr(config, name)
            if name == "supervisor":
                given = replace(given, directory="run")  # loaded, it is absolute
            assert given == key.default, name
    assert (CONFIG / "neo.yaml").read_text() == reference.sample()


def test_the_page_is_the_one_that_the_sections_make() -> None:
    assert (DOCS / "configuration.md").read_text() == reference.page()


def test_every_field_is_a_key_or_says_that_it_is_not() -> None:
    for cls in (Config, Storage, Master):
        not_keys = {f.name for f in fields(cls)} - {k.field for k in keys_of(cls).values()}
        assert not_keys <= {"name", "path"}


def test_all_errors_come_at_once_with_line_key_and_remedy(small: Path) -> None:
    text = """\
        cluster:
          nam: test
          partitions: many
          replicas: 99
        masters:
          m1: {adress: 127.0.0.1:10010}
          boss: {address: 127.0.0.1:10011}
        storages:
          s1: {address: nowhere}
          9s: {address: 127.0.0.1:10022}
        timeouts:
          lease: 3 parsecs
          lock:
          lock: 5s
        limits: 7
        logging: {level: LOUD, format: [text]}
        weather: red
    """
    assert problems(small, text) == [
        "cluster.yaml:1: cluster.name: is missing: name of the cluster; a node refuses to talk to one of another name",
        "cluster.yaml:2: cluster.nam: is not a key here, did you mean name?",
        "cluster.yaml:3: cluster.partitions: 'many' is not a whole number, write for instance 12",
        "cluster.yaml:4: cluster.replicas: '99' is too large, the most is 15",
        "cluster.yaml:6: masters.m1.adress: is not a key here, did you mean address?",
        "cluster.yaml:6: masters.m1.address: is missing: where it listens and others dial it: host:port, [v6]:port or "
        "unix:/path",
        "cluster.yaml:7: masters.boss: has no number: add `number: 1`, or end its name with digits",
        "cluster.yaml:9: storages.s1.address: 'nowhere' is not an address, write host:port, [v6 address]:port or "
        "unix:/path",
        "cluster.yaml:10: storages.9s: cannot be the name of a node, use letters, digits, - and _, a letter first",
        "cluster.yaml:12: timeouts.lease: '3 parsecs' is not a duration, write for instance 3s, 500ms, 2min or 1h",
        "cluster.yaml:13: timeouts.lock: has no value: give one, or remove the line",
        "cluster.yaml:14: timeouts.lock: is given twice, first in line 13: remove one",
        "cluster.yaml:15: limits: is '7', but must be a mapping of keys",
        "cluster.yaml:16: logging.format: is a list, but a mapping or a single value belongs here",
        "cluster.yaml:16: logging.level: 'LOUD' is unknown, write DEBUG or INFO or WARNING or ERROR",
        "cluster.yaml:17: weather: is not a key here; there are cluster, masters, storages, admins, security, "
        "timeouts, limits, replication, scrub, logging, supervisor",
    ]


def test_rules_between_keys_name_the_line_of_the_key(small: Path) -> None:
    text = """\
        cluster: {name: test, replicas: 2}
        masters:
          m1: {address: 127.0.0.1:10010}
        storages:
          s1: {address: 127.0.0.1:10010}
          s-1: {address: 127.0.0.1:10012, directory: s1}
        timeouts:
          heartbeat: 1min
        supervisor: {stop: 5s}
    """
    assert problems(small, text) == [
        "cluster.yaml:1: cluster.replicas: 2 means 3 copies of everything, but there are 2 storages: name 3 of them or "
        "lower it to 1",
        "cluster.yaml:5: storages.s1: has the same address as masters.m1 (127.0.0.1:10010): give each its own port",
        "cluster.yaml:6: storages.s-1: has the same number as storages.s1 (1): give one another `number:`, or another "
        "name",
        f"cluster.yaml:6: storages.s-1: has the same path as storages.s1 ({small.parent}/s1/log): give each its own "
        "directory",
        f"cluster.yaml:6: storages.s-1: has the same path as storages.s1 ({small.parent}/s1/neo.sqlite): give each its "
        "own directory",
        "cluster.yaml:8: timeouts.heartbeat: 1min is above timeouts.silence (5.5s): it must not be",
        "cluster.yaml:9: supervisor.stop: 5s is below timeouts.stop (30s): supervisord would kill a node that is "
        "stopping cleanly",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty; config/neo.yaml in the source has every key"),
        ("- a\n", "is a list, but a mapping or a single value belongs here"),
        ("a: [1\n", "is not YAML: expected ',' or ']', but got '<stream end>'"),
        ("a: \x07\n", "is not YAML"),
        ("? [a]\n: b\n", "has a key that is not a word"),
    ],
)
def test_what_is_not_a_configuration_at_all_is_said(small: Path, text: str, said: str) -> None:
    assert said in problems(small, text)[0]


def test_a_missing_file_says_how_to_name_another(tmp_path: Path) -> None:
    with pytest.raises(ConfigProblems, match=r"none.yaml: cannot be read: No such file.*--config or NEO_CONFIG"):
        load(tmp_path / "none.yaml")


def test_later_sources_win(small: Path) -> None:
    environ = {"NEO_TIMEOUTS_LEASE": "5s", "NEO_TIMEOUTS_LOCK": "7s", "NEO_STORAGES_S1_LOG_PATH": "/ssd", "HOME": "/"}
    config = load(small, environ, ["timeouts.lease=6s", "masters.m2.address=[::1]:10"])
    assert (config.timeouts.lease_s, config.timeouts.lock_s) == (6.0, 7.0)
    assert config.storages["s1"].log.path == "/ssd"
    assert config.masters["m2"].address == "[::1]:10"


def test_errors_in_other_sources_name_them(small: Path) -> None:
    environ = {"NEO_TIMEOUTS_LEASE": "soon", "NEO_CLUSTER_NAMEE": "x", "NEO_PURE_PYTHON": "1", "NEO_CONFIG": "y"}
    with pytest.raises(ConfigProblems) as caught:
        load(small, environ, ["timeouts.lokc=1", "nonsense", "cluster.name.x=3"])
    assert [str(p) for p in caught.value.problems] == [
        "--set nonsense: write --set section.key=value",
        "--set cluster.name.x=3: cluster.name.x: name is a single value, it has no keys",
        "environment NEO_CLUSTER_NAMEE: is not the name of a key, did you mean NEO_CLUSTER_NAME?",
        "--set timeouts.lokc=1: timeouts.lokc: is not a key here, did you mean lock?",
        "environment NEO_TIMEOUTS_LEASE: timeouts.lease: 'soon' is not a duration, write for instance 3s, 500ms, 2min "
        "or 1h",
    ]


def test_base_sixty_and_other_guesses_of_yaml_do_not_reach_us(small: Path) -> None:
    """YAML 1.1 reads 12:30 as 750 and `on` as true; here the key decides."""
    small.write_text(SMALL.replace("{name: test}", "{name: on}").replace("127.0.0.1:10010", "localhost:10010"))
    assert load(small).cluster.name == "on"


def test_unknown_nodes_and_wrong_kinds_are_said(small: Path) -> None:
    config = load(small)
    assert config.node("s1") is config.storage("s1")
    with pytest.raises(ConfigError, match="there is no node 's9'; there are m1, s1, s2"):
        config.node("s9")
    with pytest.raises(ConfigError, match="s1 is a storage, not a master"):
        config.master("s1")


def test_what_is_shown_loads_as_the_same(small: Path, tmp_path: Path) -> None:
    config = load(small, overrides=["limits.overlay=3MB", "supervisor.log=1000", "timeouts.grace=1.25s"])
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(shown(config)))
    assert shown(load(again)) == shown(config)


@pytest.mark.parametrize("value", [0, 1, 1000, 1024, 5 * 2**20, 2**30 + 1, 3 * 2**40])
def test_sizes_are_written_as_they_are_read(value: int) -> None:
    assert parse_bytes(format_bytes(value)) == value


@pytest.mark.parametrize("value", [0.0, 0.01, 0.0005, 1.25, 90.0, 3600.0, 86400.0, 12345.678])
def test_durations_are_written_as_they_are_read(value: float) -> None:
    assert parse_seconds(format_seconds(value)) == value
