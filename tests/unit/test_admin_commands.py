"""neoadmin against a primary that answers from a script, over real sockets, in one process."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
from rich.console import Console

from neo_admin.cli.main import run
from neo_admin.shell import AdminShell
from neo_common.config.loader import load
from neo_common.ids import NodeId, Partition, Seconds, Session, Tid, Ttid, Version, make_epoch
from neo_common.model.orders import Choice, Orders
from neo_common.model.partition_table import Cell, whole
from neo_common.states import ClusterState, NodeState, Role, node_id
from neo_common.wire.schema import (
    AnswerMoves,
    AnswerPackState,
    AnswerRecovery,
    AnswerReplication,
    AnswerScrub,
    AskChange,
    AskChoose,
    AskPack,
    AskReadmit,
    AskScrub,
    AskStart,
    AskTruncate,
    CellCopy,
    ChangeKind,
    Cluster,
    Decision,
    Finding,
    FoundTable,
    NodeCopy,
    Nodes,
    NodeScrub,
    ScrubState,
)
from support.fake_master import A1, CLUSTER, LAST, M1, NODES, S1, S2, SINCE, TABLE, VERSION, FakeMaster, O, info


class Result:
    """What neoadmin has printed, and its exit status."""

    def __init__(self, *words: str, **environ: str) -> None:
        out, err = io.StringIO(), io.StringIO()
        self.status = run(list(words), environ, Console(file=out, width=100), Console(file=err, width=100))
        self.out, self.err = out.getvalue(), err.getvalue()

    @property
    def json(self) -> object:
        """What it has printed, as a value."""
        return json.loads(self.out)


@pytest.fixture
def master() -> Iterator[FakeMaster]:
    """A primary."""
    with FakeMaster() as master:
        yield master


def asked(master: FakeMaster, *words: str) -> Result:
    """Run neoadmin against *master*."""
    return Result(*words, "--masters", master.address, "--cluster", "test", "--timeout", "5s")


def test_status_of_a_healthy_cluster_ends_with_0(master: FakeMaster) -> None:
    result = asked(master, "status", "--json")
    assert result.status == 0, result.err
    told = result.json
    assert isinstance(told, dict)
    assert (told["name"], told["state"], told["primary"], told["epoch"]) == ("test", "RUNNING", "M1", "3.1")
    assert told["nodes"] == {"master": {"RUNNING": 1}, "storage": {"RUNNING": 2}, "admin": {"RUNNING": 1}}
    assert told["problems"] == []


def test_status_names_what_is_wrong_and_ends_with_1(master: FakeMaster) -> None:
    master.core.cluster = CLUSTER._replace(state=ClusterState.RECOVERING, reason="s2 is missing", rows_not_ready=0)
    master.core.nodes = (*NODES[:2], info(S2, "s2", 10022, NodeState.UNAVAILABLE, "connection lost"))
    result = asked(master, "status")
    assert result.status == 1
    assert "! the cluster is RECOVERING: s2 is missing\n" in result.out
    assert "! S2 (s2) is UNAVAILABLE: connection lost\n" in result.out


def test_status_waits_until_all_is_well(master: FakeMaster) -> None:
    """It is told of the change, and looks again then."""
    master.core.cluster = CLUSTER._replace(state=ClusterState.RECOVERING, reason="storages are missing")

    def recover() -> None:
        master.core.cluster = CLUSTER
        master.tell(Cluster(ClusterState.RUNNING, ""))

    gevent.spawn_later(0.2, recover)
    result = asked(master, "status", "--wait", "10s")
    assert result.status == 0, result.err


def test_status_that_waits_in_vain_says_for_what_and_ends_with_4(master: FakeMaster) -> None:
    master.core.cluster = CLUSTER._replace(state=ClusterState.RECOVERING, reason="s2 is missing")
    result = asked(master, "status", "--wait", "300ms")
    assert result.status == 4
    assert result.err == "neoadmin: after 0.3 s: the cluster is RECOVERING: s2 is missing\n"


def test_nodes(master: FakeMaster) -> None:
    rows = [line.split() for line in asked(master, "nodes").out.splitlines()]
    assert rows[0] == ["node", "name", "address", "state", "since"]
    assert rows[2][:4] == ["S1", "s1", "127.0.0.1:10021", "RUNNING"]
    assert rows[2][-2:] == ["12", "cells"]


def test_partitions_end_with_1_when_some_cannot_be_read(master: FakeMaster) -> None:
    master.core.table = TABLE.changed(TABLE.version, {Partition(3): (Cell(S2, O),)})
    master.core.cluster = CLUSTER._replace(rows_not_ready=1)
    result = asked(master, "partitions")
    assert result.status == 1
    assert "S2 s2  RUNNING  UuUOUuUuUu Uu\n" in result.out
    assert result.out.endswith("U leads, u up to date, O out of date, . none\n")


def test_ids(master: FakeMaster) -> None:
    told = asked(master, "ids", "--json").json
    assert isinstance(told, dict)
    assert told["last_oid"] == "000000000000002a"
    assert "table        3.1:5\n" in asked(master, "ids").out


def test_start_says_why_and_shows_the_answer(master: FakeMaster) -> None:
    result = asked(master, "start", "--reason", "half of the disks burnt")
    assert (result.status, result.out) == (0, "starts because of half of the disks burnt\n")
    assert master.core.asked == [AskStart("half of the disks burnt")]


def test_what_the_primary_refuses_ends_with_1(master: FakeMaster) -> None:
    master.core.refuse = "the cluster runs already"
    result = asked(master, "start")
    assert (result.status, result.err) == (1, "neoadmin: M1: the cluster runs already\n")


def test_stop(master: FakeMaster) -> None:
    assert asked(master, "stop", "--reason", "power").out == "stops because of power\n"


def test_pack_follows_its_progress_to_the_end(master: FakeMaster) -> None:
    master.core.pack = [AnswerPackState(0, Tid(0), Seconds(1.0), n, 4, 10 * n, 2048 * n) for n in (0, 2, 4)]
    result = asked(master, "pack", "--until", "2026-01-31")
    assert result.status == 0, result.err
    assert result.out == "Packed to 2026-01-31 00:00:00.000 UTC: 4 cells, 40 revisions and 8.0 kB removed.\n"
    assert [p.reason for p in master.core.asked if isinstance(p, AskPack)] == ["neoadmin pack"]


def test_pack_status_of_a_cluster_that_was_never_packed(master: FakeMaster) -> None:
    assert asked(master, "pack", "--status").out == "Nothing was packed yet.\n"


def test_a_wrong_cluster_name_is_told_by_the_master(master: FakeMaster) -> None:
    result = Result("status", "--masters", master.address, "--cluster", "other", "--timeout", "2s")
    assert result.status == 3
    assert "this is cluster 'test', not 'other'" in result.err


def test_nobody_there_ends_with_3_and_says_who_was_tried() -> None:
    result = Result("status", "--masters", "127.0.0.1:1", "--cluster", "test", "--timeout", "300ms")
    assert result.status == 3
    assert result.err.startswith(
        "neoadmin: no connection to the primary (127.0.0.1:1: 127.0.0.1:1: Connection refused)"
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["status"], "say which cluster: --config FILE"),
        (["status", "--timeout", "soon"], "'soon' is not a duration"),
        (["pack", "--days", "1", "--until", "2026-01-01", "--cluster", "x"], "give --days or --until, not both"),
        (["pack", "--until", "yesterday", "--cluster", "x"], "'yesterday' is not a time"),
        (["frobnicate"], "No such command 'frobnicate'"),
        (["config", "check", "--config", "/nowhere.yaml"], "/nowhere.yaml: cannot be read"),
    ],
)
def test_wrong_usage_ends_with_2_and_says_what_is_wrong(words: list[str], said: str) -> None:
    result = Result(*words)
    assert result.status == 2
    assert said in result.err


def test_every_command_has_help() -> None:
    for words in (["up"], ["down"], ["serve"], ["config", "show"], ["node", "start"], ["supervisor"], ["debug"]):
        result = Result(*words, "--help")
        assert (result.status, result.err) == (0, "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert Result("completion", shell).status == 0
    assert "_NEOADMIN_COMPLETE" in capsys.readouterr().out


def cluster_file(tmp_path: Path, master: str, admin: str) -> Path:
    """Return the configuration of a cluster with these addresses."""
    path = tmp_path / "cluster.yaml"
    path.write_text(
        f"cluster: {{name: test}}\nmasters: {{m1: {{address: '{master}'}}}}\n"
        f"storages: {{s1: {{address: '127.0.0.1:10021'}}}}\nadmins: {{a1: {{address: '{admin}'}}}}\n"
    )
    return path


def test_config_check_and_show(tmp_path: Path) -> None:
    path = cluster_file(tmp_path, "127.0.0.1:10010", "127.0.0.1:10000")
    assert Result("config", "check", NEO_CONFIG=str(path)).out == f"{path} is right: 1 masters, 1 storages\n"
    shown = Result("--config", str(path), "config", "show", "--json", "--set", "limits.overlay=2MB").json
    assert isinstance(shown, dict)
    assert shown["limits"]["overlay"] == "2MB"
    path.write_text("cluster: {nam: x}\n")
    wrong = Result("config", "check", "--json", "--config", str(path))
    assert wrong.status == 2
    assert isinstance(wrong.json, dict)
    assert wrong.json["problems"][0] == {
        "source": str(path),
        "line": 1,
        "key": "cluster.nam",
        "what": "is not a key here, did you mean name?",
    }


def test_sample_and_reference_are_printed() -> None:
    assert Result("config", "sample").out.startswith("# Every key")
    assert Result("config", "reference").out.startswith("# Configuration")


# ------------------------------------------------------------------------------------------------ through an admin


def test_an_admin_relays_to_the_primary_it_follows(tmp_path: Path, master: FakeMaster) -> None:
    path = cluster_file(tmp_path, master.address, "unix:" + str(tmp_path / "a1"))
    admin = AdminShell(load(path), "a1")
    admin.start()
    try:
        with gevent.Timeout(5):
            while A1 not in master.by_node or admin.core.primary is None:
                gevent.sleep(0)
        result = Result("--config", str(path), "status", "--json", "--timeout", "5s")
        assert result.status == 0, result.err
        assert isinstance(result.json, dict)
        assert result.json["cluster_id"] == CLUSTER.cluster_id.hex()
        assert list(master.by_node) == [A1], "neoadmin itself has not dialled the primary"
        refused = asked_refused(master, path)
        assert refused.err == "neoadmin: A1: M1: not now\n"
        told = Result("--config", str(path), "debug", "a1", "--json").json
        assert isinstance(told, dict)
        assert told["core"]["primary"] == "M1"
        assert "trace" not in told
    finally:
        admin.close()


def asked_refused(master: FakeMaster, path: Path) -> Result:
    """Ask for a start that the primary refuses, through the admin of *path*."""
    master.core.refuse = "not now"
    return Result("--config", str(path), "start")


def test_without_its_admin_neoadmin_asks_the_masters(tmp_path: Path, master: FakeMaster) -> None:
    path = cluster_file(tmp_path, master.address, "unix:" + str(tmp_path / "a1"))
    assert Result("--config", str(path), "ids", "--timeout", "5s").status == 0


def test_an_admin_lets_in_admins_only(tmp_path: Path, master: FakeMaster) -> None:
    address = "unix:" + str(tmp_path / "a1")
    admin = AdminShell(load(cluster_file(tmp_path, master.address, address)), "a1")
    admin.start()
    try:
        other = Result("status", "--admin", address, "--cluster", "elsewhere", "--timeout", "5s")
        assert other.status == 3
        assert "this is cluster 'test', not 'elsewhere'" in other.err
    finally:
        admin.close()


def test_a_change_is_noted_by_the_admin(tmp_path: Path, master: FakeMaster) -> None:
    admin = AdminShell(load(cluster_file(tmp_path, master.address, "unix:" + str(tmp_path / "a1"))), "a1")
    admin.start()
    try:
        with gevent.Timeout(5):
            while admin.core.primary != M1 or not admin.core.nodes:
                gevent.sleep(0)
            master.tell(Nodes(False, (info(S2, "s2", 10022, NodeState.UNAVAILABLE, "gone"),)))
            while admin.core.nodes[S2].state is not NodeState.UNAVAILABLE:
                gevent.sleep(0)
    finally:
        admin.close()


def test_replication_shows_how_far_and_how_long(master: FakeMaster) -> None:
    copy = CellCopy(Partition(3), S1, Tid(5), Tid(9), 750, 250, 30 * 2**20, 30)
    waiting = copy._replace(partition=Partition(4), source=NodeId(0))
    master.core.replication = AnswerReplication((NodeCopy(S2, copy),), (NodeCopy(S2, waiting),))
    result = asked(master, "replication")
    assert result.status == 1, result.err
    assert all(text in result.out for text in ("75 %", "1.0 MB", "S1", "S2: partitions 4 wait"))
    told = asked(master, "replication", "--json").json
    assert isinstance(told, dict)
    assert told["copies"][0]["seconds_left"] == 10.0
    assert told["waiting"] == [{"partition": 4, "node": "S2"}]


def test_replication_ends_with_0_when_nothing_is_to_be_copied(master: FakeMaster) -> None:
    result = asked(master, "replication")
    assert (result.status, result.out.strip()) == (0, "Every cell is up to date.")


# ---------------------------------------------------------------------------------------------- where cells are


def test_a_dry_run_shows_moves_and_does_not_wait(master: FakeMaster) -> None:
    result = asked(master, "add", "s2", "--dry-run", "--json")
    assert result.status == 0, result.err
    assert master.core.asked[-1] == AskChange(ChangeKind.ADD, (S2,), 0, True, "neoadmin add")
    told = result.json
    assert isinstance(told, dict)
    assert told["moves"] == [{"partition": 0, "source": "-", "target": "S2", "rows": None, "bytes": None}]
    people = asked(master, "add", "S2", "--dry-run")
    assert "to S2 (s2): 1 cells, 0 rows, 0 B, 1 of unknown size" in people.out
    assert "partition 0: nobody who is there -> S2 (s2)" in people.out


def test_a_change_is_followed_to_its_end(master: FakeMaster) -> None:
    master.core.moves = [
        AnswerMoves(True, 1, (S2,), 3, 1, 2, 1, ""),
        AnswerMoves(True, 1, (S2,), 3, 1, 1, 1, "waits for s1 (S1)"),
        AnswerMoves(False, 1, (), 0, 0, 0, 0, ""),
    ]
    result = asked(master, "drain", "s2")
    assert result.status == 0, result.err
    assert result.out == "nothing moves: every cell is where it should be\n"


def test_moves_that_do_not_go_on_end_with_4(master: FakeMaster) -> None:
    master.core.moves = [AnswerMoves(True, 1, (), 3, 1, 2, 1, "waits for s1 (S1)")]
    result = Result("tweak", "--masters", master.address, "--cluster", "test", "--timeout", "500ms")
    assert result.status == 4
    assert "the moves do not go on: waits for s1 (S1)" in result.err
    assert asked(master, "moves").status == 1


def test_replicas_and_drop_say_what_they_mean(master: FakeMaster) -> None:
    assert asked(master, "replicas", "1", "--no-wait").out == "1 cells to make\n"
    assert master.core.asked[-1] == AskChange(ChangeKind.REPLICAS, (), 1, False, "neoadmin replicas")
    assert asked(master, "drop", "s2", "--force").out == "forgotten, force=True\n"
    unknown = asked(master, "drop", "s9")
    assert unknown.status == 2
    assert "there is no storage 's9'; there are S1 (s1), S2 (s2)" in unknown.err


def test_status_tells_of_moves(master: FakeMaster) -> None:
    master.core.table = master.core.table.changed(
        master.core.table.version, {}, orders=Orders(leaving=(S2,), is_balancing=True)
    )
    result = asked(master, "status")
    assert (
        "! cells are being moved: 0 are copied, 0 on their way out, S2 is drained; see `neoadmin moves`" in result.out
    )


def test_scrub_status_tells_what_was_found(master: FakeMaster) -> None:
    state = ScrubState(3, 12, 1000, 5 * 2**20, True)
    finding = Finding(Seconds(1.7e9), Partition(5), S2, S1, "2 values do not have their checksums", True)
    master.core.scrub = AnswerScrub((NodeScrub(S1, state, Seconds(0.0)),), (finding,))
    result = asked(master, "scrub", "status")
    assert result.status == 0, result.err
    words = " ".join(result.out.split())
    assert "3 of 12 cells" in words
    assert "partition 5: the cell of S2: 2 values do not have their checksums (rebuilt)" in words
    master.core.scrub = master.core.scrub._replace(findings=(finding._replace(node=NodeId(0), is_rebuilt=False),))
    assert asked(master, "scrub", "status").status == 1
    told = asked(master, "scrub", "start", "--json").json
    assert isinstance(told, dict)
    assert told["findings"][0]["node"] is None
    assert master.core.asked[-1] == AskScrub(True)


def test_truncation_asks_first_and_says_what_became_of_it(master: FakeMaster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    words = ("--masters", master.address, "--cluster", "test", "--timeout", "2s")
    assert Result("truncate", "00000000000000ff", *words).status == 130, "nobody has said yes"
    assert Result("truncate", "now", "--yes", *words).status == 2
    former = master.core.table
    version = Version(make_epoch(99, M1), former.version.ptid)
    master.core.truncated = former.changed(version, {}, orders=Orders(cut_at=version, cut=Tid(255)))
    done = Result("truncate", "ff", "--yes", "--json", *words)
    assert (done.status, done.json) == (0, {"truncated": True, "tid": "00000000000000ff"}), done.err
    assert master.core.asked[-4] == AskTruncate(Tid(255), "neoadmin truncate")
    master.core.table, master.core.truncated = former, former.changed(version, {})
    lost = Result("truncate", "ff", "--yes", *words)
    assert lost.status == 1
    assert "Nothing was cut off" in lost.out


def found(master: FakeMaster) -> AnswerRecovery:
    """Let the cluster wait for s2, with one table found."""
    decision = Decision(Ttid(Session(5), 1), 1, LAST, (Partition(0), Partition(1), Partition(5)))
    table = FoundTable(
        version=VERSION,
        choice=0,
        is_newest=True,
        since=LAST,
        storages=(S1,),
        masters=(M1,),
        there=(S1,),
        missing=(S2,),
        behind=(),
        stale=(),
        lost=(Partition(3),),
        older=(S2,),
        last=Tid(LAST - 2**33),
        known=LAST,
        decisions=(decision,),
        votes=2,
    )
    state = ClusterState.RECOVERING
    told = AnswerRecovery(state, "waits for s2 (S2)", False, True, (S1,), (M1,), 3, (table,), whole(master.core.table))
    master.core.recovery = told
    return told


def test_recovery_shows_every_table_and_what_it_would_lose(master: FakeMaster) -> None:
    found(master)
    result = asked(master, "recovery")
    assert result.status == 1
    assert "The cluster is RECOVERING: waits for s2 (S2)" in result.out
    assert "1 of 3 masters are there." in result.out
    assert "Storages that are there: S1 (s1)." in result.out
    assert f"table {VERSION}, the newest" in result.out
    assert "readable  on S1 (s1); missing: S2 (s2)" in result.out
    assert "older     S2 (s2): there with less on disk than it had" in result.out
    assert "in partitions 0-1, 5" in result.out
    assert "gone      partitions 3: no cell is there (--empty)" in result.out
    assert "2 of 3 masters do not hear of a choice" in result.out
    told = asked(master, "recovery", "--json").json
    assert isinstance(told, dict)
    assert told["tables"][0]["lost_partitions"] == [3]
    assert told["tables"][0]["missing"] == ["S2"]
    assert told["tables"][0]["last_tid"] < told["tables"][0]["known_tid"] == f"{LAST:016x}"


def test_recovery_of_a_cluster_that_runs_shows_the_choices_that_were_made(master: FakeMaster) -> None:
    choice = Choice(77, int(SINCE), VERSION, Tid(LAST - 2**33), LAST, "s2 has burnt")
    table = master.core.table.changed(VERSION, {}, orders=Orders(choices=(choice,)))
    master.core.recovery = master.core.recovery._replace(table=whole(table))
    master.core.table = table
    result = asked(master, "recovery")
    assert result.status == 0, result.err
    assert f"table {VERSION} was chosen: s2 has burnt" in result.out
    assert f"table {VERSION} was chosen" in asked(master, "status").out


def test_a_choice_asks_first_and_says_what_became_of_it(master: FakeMaster, monkeypatch: pytest.MonkeyPatch) -> None:
    told = found(master)
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    words = ("--masters", master.address, "--cluster", "test", "--timeout", "2s")
    asked_first = Result("recovery", "choose", str(VERSION), *words)
    assert asked_first.status == 130, "nobody has said yes"
    assert not any(isinstance(packet, AskChoose) for packet in master.core.asked)
    unknown = Result("recovery", "choose", "1.1:1", "--yes", *words)
    assert unknown.status == 2
    assert f"there are {VERSION}" in unknown.err
    version = Version(make_epoch(99, M1), VERSION.ptid)
    choice = Choice(77, int(SINCE), VERSION, LAST, LAST, "s2 has burnt")
    former = master.core.table
    master.core.chosen = former.changed(version, {}, orders=Orders(choices=(choice,)))
    done = Result("recovery", "choose", str(VERSION), "--empty", "--reason", "fire", "--yes", "--json", *words)
    assert done.status == 0, done.err
    assert isinstance(done.json, dict)
    assert (done.json["chosen"], done.json["table"]) == (True, str(VERSION))
    order = AskChoose(VERSION, told.storages, False, True, "fire")
    assert order in master.core.asked
    master.core.table, master.core.chosen = former, former.changed(version, {})
    lost = Result("recovery", "choose", str(VERSION), "--yes", *words)
    assert lost.status == 1
    assert "came to nothing" in lost.out


def test_readmit_takes_names_and_ids(master: FakeMaster) -> None:
    assert asked(master, "recovery", "readmit", "s2").out == "let in again\n"
    assert master.core.asked[-1] == AskReadmit((S2,), "neoadmin recovery readmit")
    assert asked(master, "recovery", "readmit", "S9").status == 0
    assert master.core.asked[-1] == AskReadmit((node_id(Role.STORAGE, 9),), "neoadmin recovery readmit")
    assert asked(master, "recovery", "readmit", "nobody").status == 2


def test_a_cluster_that_waits_names_the_command(master: FakeMaster) -> None:
    master.core.cluster = master.core.cluster._replace(state=ClusterState.RECOVERING, reason="waits")
    assert "`neoadmin recovery` shows" in asked(master, "status").out
