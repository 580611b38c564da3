"""Values are never formatted into SQL: they are bound, in every statement of every dialect.

Three nets: the texts that are built; what the sources put into texts; and, in the suites of the back ends, the texts
that are run (`said` in `test_backend_contract.py` and `test_server_contract.py`).
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

import neo_storage
from neo_storage.backends import logical
from neo_storage.backends.dialect import Dialect, Many, Scan, Statement
from neo_storage.backends.mysql import schema as mysql
from neo_storage.backends.mysql.queries import EXECUTE as MYSQL_EXECUTE
from neo_storage.backends.mysql.queries import PREPARE as MYSQL_PREPARE
from neo_storage.backends.mysql.queries import QUERIES as MYSQL
from neo_storage.backends.postgresql import schema as postgresql
from neo_storage.backends.postgresql.queries import PREPARE
from neo_storage.backends.postgresql.queries import QUERIES as POSTGRESQL
from neo_storage.backends.sqlite import schema as sqlite
from neo_storage.backends.sqlite.queries import QUERIES as SQLITE
from neo_storage.backends.statements import Statements
from support.sql_lint import formatted, unbound

SOURCES = Path(neo_storage.__file__).parent
QUERIES = {"sqlite": SQLITE, "mysql": MYSQL, "postgresql": POSTGRESQL}
DIALECTS: dict[str, Dialect] = {
    "sqlite": sqlite.DIALECT,
    "mysql": mysql.DIALECT,
    "postgresql": postgresql.DIALECT,
    "prepared": postgresql.PreparedDialect(),
}
ALL = [pytest.param(q, id=name) for name, q in QUERIES.items()]

FORMATTED = {
    # Names and constants of the schema, put together once, when the module is imported.
    "backends/statements.py",
    "backends/dialect.py",
    "backends/sqlite/schema.py",
    "backends/sqlite/queries.py",
    "backends/mysql/schema.py",
    "backends/mysql/queries.py",
    "backends/postgresql/schema.py",
    "backends/postgresql/queries.py",
}
EXPRESSIONS = {
    # Elsewhere: each with the reason why it is no value.
    ("backends/server.py", "marks"): "as many marks as there are ids",
    ("backends/server.py", "name"): "one of our own tables: what others are there was refused",
    ("backends/server.py", "key"): "a column of the schema",
    ("backends/server.py", "table.name"): "a table of the schema",
    ("backends/server.py", "self.schema"): "how the dialect calls the schema of a connection: a function of SQL",
    ("backends/server.py", "doing"): "what an error says",
    ("backends/mysql/connection.py", "account"): "what an error advises; nobody runs it here",
    ("backends/mysql/connection.py", "grant"): "the same",
    ("backends/mysql/connection.py", "name"): "the database of a managed server: a constant of ours",
    ("backends/mysql/backend.py", "LOCK"): "a constant",
    ("backends/mysql/backend.py", "', '.join(('@@' + name for name in _SETTINGS))"): "constants above it",
    ("backends/mysql/flavour.py", "settings"): "names and numbers of ours, which SET takes as no parameters",
    ("backends/postgresql/backend.py", "_LOCK"): "a constant",
    ("backends/sqlite/connection.py", "name"): "a setting of ours",
    ("backends/sqlite/connection.py", "value"): "its value, a number (:d); a pragma takes no parameter",
    ("backends/sqlite/backend.py", "self._page_bytes"): "a number (:d); a pragma takes no parameter",
    ("backends/sqlite/backend.py", "schema.APPLICATION_ID"): "a constant; a pragma takes no parameter",
    ("backends/sqlite/backend.py", "cache"): "a number (:d) that SQLite has said; a pragma takes no parameter",
}


def texts(queries: Statements) -> Iterator[tuple[str, str]]:
    """Yield the name and text of every statement."""

    def of(name: str, value: object) -> Iterator[tuple[str, str]]:
        match value:
            case Statement(text, _):
                yield name, text
            case Many():
                yield name, value.single
                yield name, value.head + value.between.join([value.row] * 3) + value.tail
            case Scan(rows, page, _):
                yield from of(name, rows)
                yield from of(name, page)
            case tuple():
                for one in value:
                    yield from of(name, one)
            case None:
                return
            case _:
                raise AssertionError(f"{name} is a {type(value).__name__}, which is not looked at")

    for name, value in vars(queries).items():
        if name != "dialect":
            yield from of(name, value)


@pytest.mark.parametrize("queries", ALL)
def test_statements_have_no_literal_but_constants(queries: Statements) -> None:
    assert {name: found for name, text in texts(queries) if (found := unbound(text))} == {}


@pytest.mark.parametrize("queries", ALL)
def test_there_is_a_mark_for_each_argument(queries: Statements) -> None:
    for name, value in vars(queries).items():
        if isinstance(value, Statement) and value.order:
            assert value.text.replace("%%", "").count("%s") == len(value.order), name
            assert set(value.order) == set(range(1 + max(value.order))), name


def test_prepared_statements_have_no_literal_but_constants() -> None:
    assert [found for text in (*PREPARE, *MYSQL_PREPARE) if (found := unbound(text))] == []
    assert unbound("PREPARE neo_x FROM 'SELECT tid FROM obj WHERE oid = 77'") == ["77"]
    for plain, execute in MYSQL_EXECUTE.items():
        assert execute.count("%s") == plain.replace("%%", "").count("%s")
    assert [found for _, text in texts(Statements(DIALECTS["prepared"])) if (found := unbound(text))] == []


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
def test_writes_of_every_table_bind_every_column(dialect: Dialect) -> None:
    for table in logical.TABLES:
        for many in (dialect.insert(table), dialect.replace(table), dialect.add(table)):
            columns = many.head[many.head.index("(") + 1 : many.head.index(")")].split(",")
            assert many.row.count("?") + many.row.count("%s") == len(columns), many
            assert unbound(many.single) == []
        many = dialect.delete(table, table.key)
        assert many.row.count("?") + many.row.count("%s") == len(table.key)
        assert unbound(many.single) == []


def test_sources_put_nothing_into_sql_but_what_was_looked_at() -> None:
    found = {
        (str(path.relative_to(SOURCES)), expression)
        for path in sorted(SOURCES.rglob("*.py"))
        if str(path.relative_to(SOURCES)) not in FORMATTED
        for _, expression in formatted(path)
    }
    assert found - set(EXPRESSIONS) == set(), "bind it, or say in EXPRESSIONS why it is no value"
    assert set(EXPRESSIONS) - found == set(), "these are gone"


def test_what_builds_statements_at_import_sees_no_values() -> None:
    """The files of FORMATTED hold no function that is called later, with values: only dialects and constants."""
    for name in sorted(FORMATTED):
        functions = {function for function, _ in formatted(SOURCES / name)}
        later = {f for f in functions if f and not f.partition(".")[0].endswith(("Dialect", "Statements"))}
        assert later <= {"_prepare", "quoted", "listed"}, f"{name}: {later}"


def test_only_connections_speak_to_drivers() -> None:
    """All texts pass one edge of each back end, where the suites of the back ends listen."""
    for path in SOURCES.rglob("*.py"):
        name = str(path.relative_to(SOURCES))
        if name not in {"backends/server.py", "backends/sqlite/backend.py"} and not name.endswith("/connection.py"):
            assert ".cursor(" not in path.read_text(encoding="utf-8"), name
            assert ".execute(" not in path.read_text(encoding="utf-8") or name in EXECUTES, name


EXECUTES = {"backends/mysql/backend.py", "backends/postgresql/backend.py", "backends/migration.py"}
"""These call ServerDatabase.execute, or a migration's own."""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("SELECT tid FROM obj WHERE oid = 12", ["12"]),
        ("INSERT INTO data (id, value) VALUES (?, X'00')", ["'00'"]),
        ('SELECT max(tid) FROM obj WHERE "partition" = ?1 AND oid = %s AND tid = $3 LIMIT 1', []),
        ("UPDATE config SET value = 'a' WHERE name = 'owner'", ["'a'"]),
    ],
)
def test_lint_sees_a_value_in_a_text(text: str, found: list[str]) -> None:
    assert unbound(text) == found


def test_lint_sees_what_a_source_formats(tmp_path: Path) -> None:
    source = tmp_path / "x.py"
    source.write_text(
        "def load(db, oid):\n"
        "    db.one(f'SELECT tid FROM obj WHERE oid = {oid}')\n"
        "    db.one('SELECT tid FROM obj WHERE oid = %d' % oid)\n"
        "    db.one('SELECT tid FROM obj WHERE oid = ' + str(oid))\n"
        "    db.one('DELETE FROM obj WHERE oid = {}'.format(oid))\n"
        "    raise ValueError(f'SELECT {oid} is only said')\n"
    )
    assert list(formatted(source)) == [("load", "oid"), ("load", "oid"), ("load", "str(oid)"), ("load", "oid")]
