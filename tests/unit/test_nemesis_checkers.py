"""The nemesis's checkers pass true histories and see damaged ones."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.nemesis.append import Append
from support.nemesis.bank import Bank
from support.nemesis.copies import compare
from support.nemesis.counter import Counter
from support.nemesis.graph import Edge, forbidden_cycle
from support.nemesis.history import Facts, Journal, Operation, Outcome, read
from support.nemesis.journal import check_errors, check_notes, check_order
from support.nemesis.skew import Skew
from support.nemesis.snapshot import Snapshot
from support.nemesis.unique import Unique
from support.nemesis.workload import Workload


def op(session: str, number: int, asked: Any, seen: Any = None, *, at: float, lasts: float = 0.5) -> Operation:
    """An acknowledged operation of a client that bears the first part of the session's name."""
    client, _, workload = session.partition(".")
    return Operation(client, session, number, workload, asked, at, at + lasts, Outcome.OK, seen)


def facts(*history: Operation, final: Any, lost: tuple[str, ...] = ()) -> Facts:
    """All that change something are in the database, in the order given, but for those that are lost."""
    changing = [o for o in history if o.asked[0] not in ("read", "twice", "past", "look")]
    notes = [o.note for o in changing if o.note not in lost and o.outcome is not Outcome.FAILED]
    return Facts(tuple(sorted(history, key=lambda o: o.start)), {n: i + 1 for i, n in enumerate(notes)}, final)


def bank(*changes: tuple[int, int]) -> list[int]:
    balances = [100] * 8
    for account, change in changes:
        balances[account] += change
    return balances


MOVE = op("c1.bank", 1, ["move", 0, 1, 5], [100, 100], at=0)
BACK = op("c2.bank", 1, ["move", 1, 0, 2], [105, 95], at=1)
LOOK = op("c1.bank", 2, ["read"], bank((0, -5), (1, 5)), at=1)
ADD = op("c1.counter", 1, ["add", 0, 2], at=0)
COUNT = op("c1.counter", 2, ["read", 0], 2, at=1)
ELEMENT = op("c1.unique", 1, ["add", 1001], at=0)
ELEMENTS = op("c1.unique", 2, ["read", 0], [[1001, 1001]], at=1)
TAKE = op("c1.skew", 1, ["take", 0, 0], [1, 0], at=0)
GIVE = op("c2.skew", 1, ["give", 0, 1], [0, 0], at=1)
TWICE = op("c1.snapshot", 1, ["twice", 0.1], [bank(), bank()], at=0)
FIRST = op("c1.append", 1, [["a", "x", "1"]], [[]], at=0)
SECOND = op("c2.append", 1, [["a", "x", "2"], ["r", "y"]], [["1"], []], at=1)
LISTS = {"x": ["1", "2"], "y": []}
PAIRS = [[0, 1], [1, 0], [1, 0]]

TRUE: list[tuple[Workload, Facts]] = [
    (Bank(), facts(MOVE, BACK, LOOK, final=bank((0, -3), (1, 3)))),
    (Counter(), facts(ADD, COUNT, final=[2, 0])),
    (Unique(), facts(ELEMENT, ELEMENTS, final=[[1001, 1001]])),
    (Skew(), facts(TAKE, GIVE, final=PAIRS)),
    (Snapshot(), facts(TWICE, final=None)),
    (Append(), facts(FIRST, SECOND, final=LISTS)),
]

DAMAGED: dict[str, tuple[Workload, Facts]] = {
    "bank: half of a move": (Bank(), facts(MOVE, replace(LOOK, seen=bank((0, -5))), final=bank((0, -5), (1, 5)))),
    "bank: money vanishes at the end": (Bank(), facts(MOVE, final=bank((0, -5)))),
    "bank: a lost update": (
        Bank(),
        facts(MOVE, replace(BACK, seen=[100, 100]), final=bank((0, 2), (1, -2))),
    ),
    "bank: an account is missing": (Bank(), facts(replace(LOOK, seen=[100] * 7, asked=["read"]), final=bank())),
    "counter: an increment is lost": (Counter(), facts(ADD, final=[0, 0])),
    "counter: an increment counts twice": (Counter(), facts(ADD, final=[4, 0])),
    "counter: an own increment is not seen": (Counter(), facts(ADD, replace(COUNT, seen=0), final=[2, 0])),
    "counter: the future is seen": (Counter(), facts(ADD, replace(COUNT, seen=3), final=[2, 0])),
    "counter: time goes back": (
        Counter(),
        facts(
            replace(ADD, client="c9"),
            COUNT,
            replace(COUNT, number=3, seen=0, start=2, end=3),
            final=[2, 0],
        ),
    ),
    "counter: a synced client misses what was acknowledged": (
        Counter(),
        facts(replace(ADD, client="c9"), replace(COUNT, seen=0, is_synced=True), final=[2, 0]),
    ),
    "unique: an element is lost": (Unique(), facts(ELEMENT, final=[])),
    "unique: an element is another one": (Unique(), facts(ELEMENT, final=[[1001, 2001]])),
    "unique: an element comes from nowhere": (Unique(), facts(ELEMENT, final=[[1001, 1001], [5, 5]])),
    "unique: an element is there twice": (Unique(), facts(ELEMENT, final=[[1001, 1001], [1001, 1001]])),
    "unique: an own element is not seen": (
        Unique(),
        facts(ELEMENT, replace(ELEMENTS, seen=[]), final=[[1001, 1001]]),
    ),
    "unique: an element is seen that was never committed": (
        Unique(),
        facts(ELEMENT, ELEMENTS, final=[], lost=("c1.unique/1",)),
    ),
    "skew: both halves are taken": (
        Skew(),
        facts(TAKE, op("c2.skew", 1, ["take", 0, 1], [1, 0], at=0), final=[[0, -1], [1, 0], [1, 0]]),
    ),
    "skew: a pair in debt is seen": (
        Skew(),
        facts(TAKE, op("c2.skew", 1, ["read", 0], [0, -1], at=2), final=[[0, 0], [1, 0], [1, 0]]),
    ),
    "snapshot: it moves": (Snapshot(), facts(replace(TWICE, seen=[bank(), bank((0, 1), (1, -1))]), final=None)),
    "snapshot: it is a mixture": (Snapshot(), facts(replace(TWICE, seen=[bank((0, 1))] * 2), final=None)),
    "append: a value is lost": (Append(), facts(FIRST, SECOND, final={"x": ["1"], "y": []})),
    "append: a value is there twice": (Append(), facts(FIRST, SECOND, final={"x": ["1", "2", "1"], "y": []})),
    "append: values change places": (Append(), facts(FIRST, SECOND, final={"x": ["2", "1"], "y": []})),
    "append: what failed is seen": (
        Append(),
        facts(
            replace(FIRST, outcome=Outcome.FAILED, seen=None),
            op("c2.append", 1, [["r", "x"]], [["1"]], at=0),
            final={},
        ),
    ),
    "append: read skew": (
        # It sees the second append to x of a transaction, and not what the same has appended to y.
        Append(),
        facts(
            FIRST,
            op("c2.append", 1, [["a", "x", "2"], ["a", "y", "3"]], [["1"], []], at=1),
            op("c3.append", 1, [["r", "x"], ["r", "y"]], [["1", "2"], []], at=1),
            final={"x": ["1", "2"], "y": ["3"]},
        ),
    ),
    "append: a long fork": (
        # Two readers see two transactions in different orders.
        Append(),
        facts(
            op("c1.append", 1, [["a", "x", "1"]], [[]], at=0),
            op("c2.append", 1, [["a", "y", "2"]], [[]], at=0),
            op("c3.append", 1, [["r", "x"], ["r", "y"]], [["1"], []], at=0),
            op("c4.append", 1, [["r", "x"], ["r", "y"]], [[], ["2"]], at=0),
            final={"x": ["1"], "y": ["2"]},
        ),
    ),
    "append: a session forgets what it wrote": (
        Append(),
        facts(FIRST, op("c1.append", 2, [["r", "x"]], [[]], at=1), final={"x": ["1"]}),
    ),
}


@pytest.mark.parametrize(("workload", "true"), TRUE, ids=[w.name for w, _ in TRUE])
def test_a_true_history_passes(workload: Workload, true: Facts) -> None:
    assert workload.check(true) == []


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_history_is_seen(name: str) -> None:
    workload, damaged = DAMAGED[name]
    assert workload.check(damaged)


def test_write_skew_without_read_current_is_allowed() -> None:
    """Two rw edges in a row: snapshot isolation allows it, and ZODB promises no more."""
    history = facts(
        op("c1.append", 1, [["r", "x"], ["a", "y", "1"]], [[], []], at=0),
        op("c2.append", 1, [["r", "y"], ["a", "x", "2"]], [[], []], at=0),
        final={"x": ["2"], "y": ["1"]},
    )
    assert Append().check(history) == []


@pytest.mark.parametrize(
    ("kinds", "is_forbidden"),
    [
        (["ww", "ww"], True),
        (["ww", "wr"], True),
        (["wr", "so", "ww"], True),
        (["wr", "rw"], True),
        (["ww", "rw", "wr", "rw"], True),
        (["rw", "rw"], False),
        (["rw", "ww", "rw"], False),
    ],
)
def test_cycles_that_snapshot_isolation_forbids(kinds: list[str], is_forbidden: bool) -> None:
    ring = [Edge(str(i), kind, str((i + 1) % len(kinds))) for i, kind in enumerate(kinds)]
    around = [Edge("in", "ww", "0"), Edge("1", "wr", "out"), Edge("out", "rw", "away")]
    found = forbidden_cycle([*around, *ring])
    assert bool(found) == is_forbidden
    assert {e for e in found} <= set(ring)


def test_notes_tell_what_is_lost_doubled_undone_and_unasked() -> None:
    true = Facts((MOVE, BACK), {MOVE.note: 1, BACK.note: 2})
    notes, writes = [MOVE.note, BACK.note], frozenset((MOVE.note, BACK.note))
    assert check_notes(true, notes, writes) == []
    unknown = replace(true, history=(MOVE, replace(BACK, outcome=Outcome.UNKNOWN)))
    assert check_notes(unknown, notes, writes) == check_notes(unknown, notes[:1], writes) == []
    failed = replace(true, history=(MOVE, replace(BACK, outcome=Outcome.FAILED)))
    for history, said in (
        (true, notes[:1]),
        (true, [*notes, notes[0]]),
        (failed, notes),
        (true, [*notes, "c7.bank/1"]),
    ):
        assert check_notes(history, said, writes)


def test_tids_in_another_order_than_acknowledged_are_seen() -> None:
    assert check_order(Facts((MOVE, BACK), {MOVE.note: 1, BACK.note: 2})) == []
    turned = Facts((MOVE, BACK), {MOVE.note: 2, BACK.note: 1})
    assert check_order(turned)
    assert check_order(turned, [(0.0, 1.0)]) == [], "recovery after a power cut cannot know"
    session = replace(BACK, session=MOVE.session, number=2)
    assert check_order(Facts((MOVE, session), {MOVE.note: 2, session.note: 1}), [(0.0, 9.0)]), "but it knows sessions"


def test_an_error_that_no_retry_cures_is_seen() -> None:
    failed = replace(MOVE, outcome=Outcome.FAILED, error="KeyError: 7")
    assert check_errors(Facts((failed,), {})) == []
    assert check_errors(Facts((replace(failed, is_transient=False),), {}))


def test_journals_tell_what_happened_up_to_a_kill(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", "c1", is_synced=True)
    journal.begin("c1.bank", 1, "bank", ["read"])
    journal.end("c1.bank", 1, [1])
    journal.begin("c1.bank", 2, "bank", ["read"])
    journal.fail("c1.bank", 2, "ConflictError: x", is_transient=True)
    journal.begin("c1.bank", 3, "bank", ["read"])
    with (tmp_path / "j").open("ab") as file:
        file.write(b'{"s":"c1.bank","n":4,"w":"ba')  # cut by a kill
    one, two, three = read([tmp_path / "j"])
    assert (one.outcome, one.seen, one.is_synced, one.client) == (Outcome.OK, [1], True, "c1")
    assert (two.outcome, two.error, two.is_transient) == (Outcome.FAILED, "ConflictError: x", True)
    assert (three.outcome, three.end) == (Outcome.UNKNOWN, float("inf"))


class _Txn:
    """What `compare` looks at."""

    def __init__(self, tid: int) -> None:
        self.tid = tid

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Txn) and self.tid == other.tid

    def __hash__(self) -> int:
        return hash(self.tid)

    def __repr__(self) -> str:
        return f"transaction {self.tid}"


def test_replicas_that_differ_are_seen() -> None:
    one, two = _Txn(1), _Txn(2)
    assert compare({"s1": {0: [one, two], 1: [one]}, "s2": {0: [one, two]}, "s3": {1: [one]}}) == []
    for cell in ([one], [one, two, two], [two, one], []):
        (said,) = compare({"s1": {0: [one, two]}, "s2": {0: cell}})
        assert "partition 0" in said
