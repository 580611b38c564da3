"""How the servers walk, at size: never a whole table, never a sort, whatever their statistics say.

With no statistics, with those of an almost empty table, and with true ones; and what a load and the work of a commit
touch is the same for a thousand objects as for a hundred thousand.
"""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from neo_common.ids import NO_TID, Oid, Partition, Tid
from neo_storage.backends.dialect import Many, Scan, Statement
from neo_storage.backends.mysql.connection import MysqlDatabase
from neo_storage.backends.mysql.queries import QUERIES as MYSQL
from neo_storage.backends.postgresql.connection import COPY_REVISIONS, COPY_VALUES
from neo_storage.backends.server import ServerBackend, ServerDatabase
from neo_storage.backends.statements import Statements
from support.backend_contract import commit, write
from support.large_tables import PARTITIONS, TID, analyze, fill
from support.server_kinds import EVERY
from support.servers import MariaDB, Server, backend_on

SMALL, LARGE = 1_000, 100_000
STATES = ("none", "stale", "true")
HEADS = ("heads_up", "heads_down")
"""These take an array: they have a test of their own."""
WHOLE = {"config", "decisions", "tombstones", "drop_tombstones", "forget_decisions", "drop_decisions_above"}
"""These read, or empty, a small table."""


def opened(server: Server, database: str) -> ServerBackend:
    backend = backend_on(server, database)
    assert isinstance(backend, ServerBackend)
    backend.open()
    return backend


@pytest.fixture(scope="module", params=EVERY, ids=lambda kind: kind.kind)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    # Nothing makes statistics behind the test's back.
    options = {
        "mariadb": {"innodb-stats-auto-recalc": "0", "use-stat-tables": "preferably"},
        "mysql": {"innodb-stats-auto-recalc": "0"},
        "postgresql": {"autovacuum": "off"},
    }
    made: Server = request.param(options[request.param.kind])
    yield made
    made.end()


@pytest.fixture(scope="module", params=STATES)
def large(server: Server, request: pytest.FixtureRequest) -> Iterator[ServerDatabase]:
    """A connection to a database of LARGE objects."""
    database = server.new_database()
    opened(server, database).close()
    if request.param == "stale":
        fill(server, database, 0, 10)
        analyze(server, database)
        fill(server, database, 10, LARGE)
    else:
        fill(server, database, 0, LARGE)
    if request.param == "true":
        analyze(server, database)
    backend = opened(server, database)
    db = backend.database()
    with db.errors("plans"):
        yield db
    db.close()
    backend.close()


def arguments_of(statement: Statement) -> tuple[object, ...]:
    """Return numbers that fit: partition 0, then one object in the middle, then ends and limits."""
    middle = LARGE // 2 // PARTITIONS * PARTITIONS
    count = 1 + max(statement.order, default=-1)
    return (0, middle, 2**62, 1000, 0)[:count]


def plan_of(db: ServerDatabase, text: str, arguments: tuple[object, ...]) -> list[dict[str, Any]]:
    """Return what EXPLAIN says, by the names of its columns in small letters."""
    is_mysql = isinstance(db, MysqlDatabase) and not db._flavour.is_mariadb  # it draws trees, since 9
    cursor = db.execute(f"EXPLAIN {'FORMAT=TRADITIONAL ' if is_mysql else ''}{text}", arguments or None)
    names = [column[0].lower() for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def faults(db: ServerDatabase, text: str, arguments: tuple[object, ...]) -> list[str]:
    """Return what is wrong with the plan of a statement."""
    plan = plan_of(db, text, arguments)
    if db.statements is MYSQL:
        whole = [row for row in plan if row["type"] == "ALL" and row["table"] and not row["table"].startswith("<")]
        extra = [str(row["extra"]) for row in plan]
        return [f"{row['table']}: ALL" for row in whole] + [x for x in extra if "filesort" in x or "temporary" in x]
    lines = [row["query plan"] for row in plan]
    return [line.strip() for line in lines if re.search(r"Seq Scan|Sort|Bitmap|Hash|Materialize", line)]


def named(queries: Statements) -> Iterator[tuple[str, Statement]]:
    """Yield the statements that read or remove."""
    for name, value in vars(queries).items():
        if name in WHOLE or name in HEADS or name == "dialect":
            continue
        match value:
            case Statement():
                yield name, value
            case Scan():
                yield f"{name}.rows", value.rows
                yield f"{name}.page", value.page
            case tuple():
                yield from ((f"{name}.{at}", one) for at, one in enumerate(value) if isinstance(one, Statement))


def test_no_statement_walks_a_table_or_sorts(large: ServerDatabase) -> None:
    found = {}
    for name, statement in named(large.statements):
        arguments = arguments_of(statement)
        if wrong := faults(large, statement.text, tuple(arguments[at] for at in statement.order)):
            found[name] = wrong
    assert found == {}


def test_an_iteration_walks_indexes(large: ServerDatabase) -> None:
    if large.statements is MYSQL:
        return  # it has none of its own: those of everybody are looked at above
    middle, array = LARGE // 2 << TID, "{" + ",".join(map(str, range(PARTITIONS))) + "}"
    found = {}
    for name in HEADS:
        statement: Statement = getattr(large.statements, name)
        given = (middle, 2**62, array, 1000)
        if wrong := faults(large, statement.text, tuple(given[at] for at in statement.order)):
            found[name] = wrong
    for name, text, bound in (
        ("revisions", COPY_REVISIONS, (array, middle, 2**62, 2000)),
        ("values", COPY_VALUES, (f"{{{LARGE // 2}}}", f"{{{LARGE // 2 + 1000}}}")),
    ):
        query = re.fullmatch(r"\s*COPY \((.*)\) TO STDOUT.*", text, re.DOTALL)
        assert query is not None
        if wrong := faults(large, query[1], bound):
            found[name] = wrong
    assert found == {}


def test_removals_and_reads_of_many_walk_an_index(large: ServerDatabase) -> None:
    found = {}
    queries = large.statements
    rows: dict[str, list[tuple[object, ...]]] = {
        "currents": [(n, n % PARTITIONS, n) for n in range(0, LARGE, LARGE // 100)],
        "drop_obj": [(n % PARTITIONS, n, (n + 1) << TID) for n in range(100)],
        "drop_trans": [(n % PARTITIONS, (n + 1) << TID) for n in range(100)],
        "drop_empty_trans": [(n % PARTITIONS, (n + 1) << TID) for n in range(100)],
    }
    for name, values in rows.items():
        many = getattr(queries, name)
        assert isinstance(many, Many)
        text = many.head + many.between.join([many.row] * len(values)) + many.tail
        wrong = faults(large, text, tuple(value for row in values for value in row))
        if wrong := [w for w in wrong if "*VALUES*" not in w]:
            found[name] = wrong
    assert found == {}


def touched(server: Server, db: ServerDatabase, work: Any) -> int:
    """Return how many rows (MariaDB) or pages (PostgreSQL) *work* touches."""
    if isinstance(server, MariaDB):
        where = "information_schema" if server.kind == "mariadb" else "performance_schema"
        text = f"SELECT sum(variable_value) FROM {where}.session_status WHERE variable_name LIKE 'handler_read%'"

        def told() -> int:
            return int(db.execute(text.replace("%", "%%"), ()).fetchone()[0])

        first, before = told(), told()  # asking touches rows, too
        work()
        return told() - before - (before - first)
    raise AssertionError("PostgreSQL says it by EXPLAIN")


def cost(server: Server, database: str, count: int) -> dict[str, int]:
    """Return what single reads touch in a database of *count* objects."""
    backend = opened(server, database)
    db = backend.database()
    oid = count // 2 // PARTITIONS * PARTITIONS
    found = {}
    with db.errors("cost"):
        for name in ("current", "load", "piece", "trans", "revisions", "history"):
            statement: Statement = getattr(db.statements, name)
            third = (oid + 1) << TID
            given = [0, oid, third if name == "piece" else 2**62, 0, 0]
            if name in ("trans", "revisions"):
                given[1] = third
            bound = tuple(given[at] for at in statement.order)
            if isinstance(server, MariaDB):
                found[name] = touched(server, db, lambda s=statement, b=bound: db.execute(s.text, b).fetchall())
            else:
                lines = db.execute(f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF) {statement.text}", bound).fetchall()
                line = next(line for (line,) in lines if "Buffers" in line)
                found[name] = sum(int(n) for n in re.findall(r"(?:hit|read)=(\d+)", line))
    db.close()
    backend.close()
    return found


def test_what_a_read_touches_does_not_grow(server: Server) -> None:
    database = server.new_database()
    opened(server, database).close()
    fill(server, database, 0, SMALL)
    small = cost(server, database, SMALL)
    fill(server, database, SMALL, LARGE)
    large = cost(server, database, LARGE)
    assert set(small) == set(large)
    # PostgreSQL counts pages: a level of each index more, for two or three walks.
    slack = 0 if isinstance(server, MariaDB) else 6
    assert {name: count for name, count in large.items() if count > small[name] + slack} == {}, (small, large)
    assert max(large.values()) < 30


def test_commits_are_written_to_large_tables_and_read_back(server: Server) -> None:
    """The tables that `fill` makes are those of a back end: it goes on with them."""
    database = server.new_database()
    opened(server, database).close()
    fill(server, database, 0, SMALL)
    backend = opened(server, database)
    before = backend.current(Partition(5), Oid(5))
    assert before == 6 << TID
    tid = Tid((SMALL + 7) << TID)
    backend.apply([commit(tid, write(5, b"new", before), np=PARTITIONS)], 0)
    assert backend.current(Partition(5), Oid(5)) == tid
    stored = backend.load(Partition(5), Oid(5), tid)
    assert stored is not None
    assert (stored.tid, stored.end, stored.data.value) == (before, tid, b"x" * 128)
    assert backend.current(Partition(3), Oid(SMALL * PARTITIONS + 3)) == NO_TID
    backend.close()
