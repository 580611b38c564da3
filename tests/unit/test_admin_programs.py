"""supervisord's configuration for a host, and what the admin's core does with what it is told."""

import configparser
import shlex
from pathlib import Path

import pytest
import yaml

from neo_admin import local
from neo_admin.core.programs import Paths, nodes_of_host, supervisord_conf
from neo_admin.core.watch import AdminCore, Relay, Relayed
from neo_admin.shell import admin_hello
from neo_client.zodburi import parse_uri
from neo_common.config.loader import load
from neo_common.core import Connected, Log, Lost, Received, Send, Tick
from neo_common.errors import ConfigError, DeadlinePassed, RequestFailed
from neo_common.ids import NodeId, Partition, Version
from neo_common.model.partition_table import Cell, difference, whole
from neo_common.states import CellState, ClusterState, NodeState, Role, node_id
from neo_common.wire.schema import (
    AnswerNodes,
    AskDebug,
    AskNodes,
    Cluster,
    Error,
    ErrorCode,
    NewPT,
    Nodes,
)
from support.fake_master import A1, M1, NODES, S1, S2, TABLE, info

CONFIG = Path(__file__).parents[2] / "config"
PATHS = Paths("/run/neo it's", "/run/neo it's/supervisord.sock")


def programs(host: str) -> configparser.ConfigParser:
    """Return what supervisord is told for *host*, as it reads it."""
    config = load(CONFIG / "three-machines.yaml")
    parser = configparser.ConfigParser(inline_comment_prefixes=(";",))
    parser.read_string(supervisord_conf(config, nodes_of_host(config, host), PATHS, "/opt/neo/bin"))
    return parser


def test_a_host_runs_its_nodes_masters_first() -> None:
    parser = programs("db1")
    sections = [s for s in parser.sections() if s.startswith("program:")]
    assert sections == ["program:m1", "program:s1", "program:a1"]
    priorities = [int(parser[s]["priority"]) for s in sections]
    assert priorities == sorted(priorities)
    words = shlex.split(parser["program:a1"]["command"])
    assert words == [
        "/opt/neo/bin/neoadmin", "serve", "--config", str(CONFIG / "three-machines.yaml"), "--name", "a1",
    ]  # fmt: skip
    assert parser["program:m1"]["stdout_logfile"] == "/run/neo it's/m1.log"
    assert parser["program:m1"]["stopwaitsecs"] == "40"


def test_without_a_label_every_node_is_chosen_and_a_wrong_label_is_explained() -> None:
    config = load(CONFIG / "three-machines.yaml")
    assert [n.name for n in nodes_of_host(config, "")] == ["m1", "m2", "m3", "s1", "s2", "s3", "a1"]
    with pytest.raises(ConfigError, match="no node is on host 'db9'; the labels are db1, db2, db3"):
        nodes_of_host(config, "db9")
    with pytest.raises(ConfigError, match="no node has a `host:`"):
        nodes_of_host(load(CONFIG / "one-machine.yaml"), "db1")


def test_paths_that_supervisord_cannot_read_back_are_refused() -> None:
    config = load(CONFIG / "one-machine.yaml")
    for path in ("/run ;x", "/100%", "/run\nx"):
        with pytest.raises(ConfigError, match="supervisord cannot take"):
            supervisord_conf(config, config.nodes, Paths(path, "/s"), "/bin")


# ------------------------------------------------------------------------------------------------ the core

CLI = node_id(Role.ADMIN, 77)
HELLO = admin_hello("test", "x")


def following() -> AdminCore:
    """Return an admin that follows M1."""
    core = AdminCore()
    core.handle(Connected(M1, HELLO))
    return core


def test_a_question_is_relayed_to_the_primary_and_its_answer_back() -> None:
    core = following()
    assert core.handle(Received(CLI, AskNodes(), 5)) == [Relay(CLI, 5, M1, AskNodes())]
    answer = AnswerNodes(NODES)
    assert core.handle(Relayed(CLI, 5, answer)) == [Send(CLI, answer, 5)]


def test_without_a_primary_a_question_is_answered_at_once() -> None:
    core = following()
    core.handle(Lost(M1, "silent for 6.0 s"))
    [answer] = core.handle(Received(CLI, AskNodes(), 5))
    assert answer == Send(CLI, Error(ErrorCode.NOT_READY, "this admin has no primary: silent for 6.0 s"), 5)


def test_what_went_wrong_on_the_way_is_told() -> None:
    core = following()
    refused = core.handle(Relayed(CLI, 5, RequestFailed(ErrorCode.ILLEGAL, "M1: it runs already")))
    assert refused == [Send(CLI, Error(ErrorCode.ILLEGAL, "M1: it runs already"), 5)]
    late = core.handle(Relayed(CLI, 6, DeadlinePassed("M1 has not answered")))
    assert late == [Send(CLI, Error(ErrorCode.NOT_READY, "M1 has not answered"), 6)]


def test_what_an_admin_does_not_answer_is_refused() -> None:
    [answer] = following().handle(Received(CLI, AskDebug(), 5))
    assert isinstance(answer, Send)
    assert answer.packet == Error(ErrorCode.ILLEGAL, "an admin does not answer AskDebug")


def test_it_keeps_what_it_is_told_of_the_cluster() -> None:
    core = following()
    core.handle(Received(M1, NewPT(whole(TABLE))))
    core.handle(Received(M1, Nodes(True, NODES)))
    changed = TABLE.changed(
        Version(TABLE.version.epoch, type(TABLE.version.ptid)(6)), {Partition(0): (Cell(S1, CellState.UP_TO_DATE),)}
    )
    core.handle(Received(M1, NewPT(difference(TABLE, changed))))
    assert core.table == changed
    logs = core.handle(Received(M1, Nodes(False, (info(S2, "s2", 1, NodeState.UNAVAILABLE, "gone"),))))
    assert [log.text for log in logs if isinstance(log, Log)] == ["node=S2 is UNAVAILABLE: gone"]
    assert core.nodes[S2].state is NodeState.UNAVAILABLE
    logs = core.handle(Received(M1, Cluster(ClusterState.RUNNING, "")))
    assert [log.text for log in logs if isinstance(log, Log)] == ["the cluster is RUNNING"]
    assert core.debug()["nodes"] == {"S1": "RUNNING", "S2": "UNAVAILABLE", "M1": "RUNNING", "A1": "RUNNING"}


def test_a_whole_list_of_nodes_forgets_the_others() -> None:
    core = following()
    core.handle(Received(M1, Nodes(True, NODES)))
    core.handle(Received(M1, Nodes(True, NODES[:2])))
    assert sorted(core.nodes) == sorted(n.node for n in NODES[:2])


def test_a_difference_from_a_table_it_does_not_have_is_logged_not_applied() -> None:
    core = following()
    changed = TABLE.changed(TABLE.version, {Partition(0): ()})
    [log] = core.handle(Received(M1, NewPT(difference(TABLE, changed))))
    assert isinstance(log, Log)
    assert "out of date" in log.text
    assert core.table.partitions == 0


@pytest.mark.parametrize("peer", [A1, S1])
def test_only_the_primary_is_believed(peer: NodeId) -> None:
    core = following()
    assert core.handle(Received(peer, Cluster(ClusterState.STOPPING, "lies"))) == []
    assert core.state is ClusterState.RECOVERING


def test_ticks_and_other_peers_change_nothing() -> None:
    core = following()
    before = repr(core)
    for event in (Tick(), Connected(CLI, HELLO), Lost(CLI, "bye")):
        assert core.handle(event) == []
    assert repr(core) == before


@pytest.mark.parametrize("address", ["db1:10010", "[::1]:10010", "unix:/var/run/neo/m1.socket"])
def test_the_uri_that_neoadmin_prints_opens_the_cluster(tmp_path: Path, address: str) -> None:
    masters = {"m1": {"address": address}, "m2": {"address": "db2:10010"}}
    tree = {"cluster": {"name": "my shop"}, "masters": masters, "storages": {"s1": {"address": "db1:10020"}}}
    file = tmp_path / "cluster.yaml"
    file.write_text(yaml.safe_dump({**tree, "security": {"insecure": True}}))
    found, rest = parse_uri(local.uri(load(file)))
    assert (found["name"], found["masters"], rest) == ("my shop", (address, "db2:10010"), {})
