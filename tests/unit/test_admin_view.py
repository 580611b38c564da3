"""What neoadmin shows of a snapshot: fixed inputs, fixed pictures."""

import io

from rich.console import Console

from neo_admin.cli import render
from neo_admin.core import view
from neo_common.ids import NO_SESSION, NO_TID, Oid, Partition, Ptid, Seconds, Tid, Ttid, Version
from neo_common.model.partition_table import EMPTY, Cell, PartitionTable
from neo_common.states import CellState, ClusterState, NodeState, Role, node_id
from neo_common.wire.schema import AnswerPackState, Metadata, Revision, Transaction
from support.fake_master import CLUSTER, EPOCH, M1, NODES, S1, S2, SINCE, TABLE, O, U, info

SNAPSHOT = view.Snapshot(CLUSTER, NODES, TABLE)
NOW = SINCE + 3725


def drawn(snapshot: view.Snapshot, width: int = 100) -> str:
    return "\n".join(view.table_lines(snapshot, width))


def test_a_table_is_a_line_per_node_and_a_letter_per_cell() -> None:
    assert drawn(SNAPSHOT) == (
        "                0          10\n"
        "S1 s1  RUNNING  uUuUuUuUuU uU\n"
        "S2 s2  RUNNING  UuUuUuUuUu Uu"
    )  # fmt: skip


def test_what_cannot_be_read_and_what_has_too_few_copies_is_marked_below() -> None:
    rows = {
        Partition(0): (Cell(S1, O), Cell(S2, CellState.CORRUPTED)),
        Partition(1): (Cell(S1, U), Cell(S2, CellState.JOINING)),
        Partition(2): (Cell(S2, U), Cell(S1, CellState.FEEDING)),
        Partition(11): (Cell(S2, U),),
    }
    snapshot = SNAPSHOT._replace(table=TABLE.changed(TABLE.version, rows))
    assert drawn(snapshot) == (
        "                0          10\n"
        "S1 s1  RUNNING  OUFUuUuUuU u.\n"
        "S2 s2  RUNNING  CJUuUuUuUu UU\n"
        "                !-          -"
    )
    assert view.table_legend(snapshot.table) == (
        "U leads, u up to date, O out of date, J joining, F feeding, C corrupted, . none"
    )


def test_a_wide_table_is_drawn_in_blocks_that_fit() -> None:
    table = PartitionTable(Version(EPOCH, Ptid(1)), 0, [(Cell(S1, U),)] * 65)
    lines = drawn(SNAPSHOT._replace(table=table), 50).splitlines()
    assert max(map(len, lines)) <= 50
    assert lines[0].split() == ["0", "10", "20"]
    assert lines[4].split() == ["30", "40", "50"]
    assert lines[8].split() == ["60"]
    assert lines[9] == "S1 s1  RUNNING  UUUUU"
    assert lines[10] == "S2 s2  RUNNING  ....."


def test_a_cluster_that_was_never_started_has_no_table_to_draw() -> None:
    assert drawn(SNAPSHOT._replace(table=EMPTY)) == "There is no partition table: the cluster was never started."


def test_a_node_of_the_table_that_nobody_knows_is_drawn_too() -> None:
    stranger = node_id(Role.STORAGE, 9)
    table = PartitionTable(Version(EPOCH, Ptid(1)), 0, [(Cell(stranger, U),)])
    assert drawn(SNAPSHOT._replace(table=table)).splitlines()[-1] == "S9     ?        U"


def test_status_of_a_healthy_cluster() -> None:
    assert view.status_rows(SNAPSHOT, NOW) == [
        ("cluster", "test (000102030405060708090a0b0c0d0e0f)"),
        ("state", "RUNNING"),
        ("primary", "M1 (m1) at 127.0.0.1:10010, epoch 3.1"),
        ("table", "3.1:5: 12 partitions, 2 copies each, all readable"),
        ("masters", "1 RUNNING"),
        ("storages", "2 RUNNING"),
        ("admins", "1 RUNNING"),
        ("clients", "4"),
        ("last tid", f"{LAST}  2023-11-14 22:14:20.000 UTC, 1h 1min ago"),
        ("last oid", "000000000000002a"),
        ("under way", "0 transactions"),
    ]
    assert view.problems(SNAPSHOT) == []


LAST = view.hex_id(CLUSTER.last_tid)


def test_problems_are_told_worst_first() -> None:
    cluster = CLUSTER._replace(state=ClusterState.RECOVERING, reason="waits for S2", rows_not_ready=1)
    table = TABLE.changed(TABLE.version, {Partition(0): (Cell(S1, O),), Partition(1): (Cell(S1, U),)})
    nodes = (NODES[0], NODES[1], info(S2, "s2", 1, NodeState.UNAVAILABLE, "silent for 6.0 s"))
    client = info(node_id(Role.CLIENT, 1), "", 1, NodeState.UNAVAILABLE)
    assert view.problems(view.Snapshot(cluster, (*nodes, client), table)) == [
        "the cluster is RECOVERING: waits for S2",
        "1 of 12 partitions have no readable cell",
        "2 of 12 partitions have fewer copies than wanted",
        "S2 (s2) is UNAVAILABLE: silent for 6.0 s",
    ]


def test_nodes_tell_who_is_primary_and_who_has_cells() -> None:
    assert view.nodes_rows(SNAPSHOT, NOW)[:2] == [
        ("M1", "m1", "127.0.0.1:10010", "RUNNING", "1h 2min", "primary"),
        ("S1", "s1", "127.0.0.1:10021", "RUNNING", "1h 2min", "12 cells"),
    ]


def test_the_table_for_scripts_has_rows_and_leads() -> None:
    table = PartitionTable(Version(EPOCH, Ptid(1)), 1, [(Cell(S2, U), Cell(S1, O)), ()])
    assert view.table_json(table) == {
        "version": "3.1:1",
        "replicas": 1,
        "rows": [[{"node": "S2", "state": "UP_TO_DATE"}, {"node": "S1", "state": "OUT_OF_DATE"}], []],
        "leads": ["S2", None],
    }


def transaction(tid: int, *oids: int, description: bytes = b"") -> Transaction:
    revisions = tuple(Revision(Oid(oid), Tid(tid), NO_TID, None) for oid in oids)
    metadata = Metadata(b"joe\xff", description, b"")
    return Transaction(Tid(tid), Ttid(NO_SESSION, 1), metadata, (Partition(0), Partition(1)), revisions)


def test_what_several_storages_tell_of_one_transaction_is_one_transaction() -> None:
    first = [transaction(9, 4, 6), transaction(5, 2)]
    second = [transaction(9, 1), transaction(7, 3)]
    merged = view.merged([first, second], 2)
    assert [t.tid for t in merged] == [9, 7]
    assert [r.oid for r in merged[0].revisions] == [1, 4, 6]
    assert view.merged([], 5) == ()


def test_transactions_of_any_bytes_are_shown() -> None:
    told = view.Transactions((transaction(int(CLUSTER.last_tid), 1, 2, description=b"two\nlines"),), (Partition(3),))
    row = (LAST, "2023-11-14 22:14:20.000", "2", "joe\\xff", "two lines")
    assert view.transactions_rows(told) == [row]
    assert view.transactions_json(told)["missing_partitions"] == [3]


def test_a_pack_is_told_in_a_sentence() -> None:
    state = AnswerPackState(3, CLUSTER.last_tid, Seconds(SINCE), 5, 24, 1000, 3 * 2**20)
    to = "2023-11-14 22:14:20.000 UTC"
    assert view.pack_text(state) == f"Packing to {to}: 5 of 24 cells, 1000 revisions and 3.0 MB removed."
    assert view.pack_text(state._replace(cells_done=24)).startswith(f"Packed to {to}: 24 cells")
    assert view.pack_json(state)["is_done"] is False
    assert view.pack_text(state._replace(tid=NO_TID)) == "There was nothing to pack: no transaction is old enough."


def test_output_that_is_not_a_terminal_has_no_colours_and_cuts_nothing() -> None:
    out = io.StringIO()
    console = Console(file=out, width=20)
    rows = [("S1", "a name that is longer than twenty columns", "RUNNING")]
    render.print_table(console, ("node", "name", "state"), rows)
    render.print_pairs(console, [("state", "RUNNING " * 5)])
    assert out.getvalue().splitlines()[1].split() == ["S1", *rows[0][1].split(), "RUNNING"]
    assert out.getvalue().splitlines()[2] == "state  " + "RUNNING " * 5
    assert "\x1b" not in out.getvalue()


def test_the_primary_that_left_is_still_named() -> None:
    rows = dict(view.status_rows(SNAPSHOT._replace(nodes=()), NOW))
    assert rows["primary"] == "M1, epoch 3.1"
    assert node_id(Role.MASTER, 1) == M1
