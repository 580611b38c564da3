"""What our statements call exists in MariaDB and in MySQL, old and new: MySQL 9 has no md5() any more, for one."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import neo_storage
from support.mysql_texts import built
from support.sql_lint import functions

SOURCES = Path(neo_storage.__file__).parent / "backends"
BOTH_HAVE = {
    *("coalesce", "concat", "count", "greatest", "left", "max", "min", "sum"),
    *("connection_id", "database", "get_lock", "is_used_lock", "sha2"),
}
"""Tried with MariaDB 10.11 and MySQL 8.0, 8.4 and 9.7."""
SYNTAX = {"values", "varbinary", "varchar"}


def written(source: str) -> Iterator[str]:
    """Yield every text in a source but those for people: docstrings, errors."""
    tree = ast.parse(source)
    for_people = {
        id(text)
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        for text in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in for_people:
            yield node.value


def test_built_statements_call_what_both_servers_have() -> None:
    found = {name for text in built() for name in functions(text)}
    assert "coalesce" in found
    assert found - SYNTAX - BOTH_HAVE == set()


def test_statements_in_sources_call_what_both_servers_have() -> None:
    found = {
        (path.name, name)
        for path in [*SOURCES.glob("*.py"), *(SOURCES / "mysql").glob("*.py")]
        for text in written(path.read_text(encoding="utf-8"))
        for name in functions(text)
    }
    assert ("backend.py", "get_lock") in found
    assert {(path, name) for path, name in found if name not in SYNTAX | BOTH_HAVE} == set()


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ('db.execute("SELECT get_lock(md5(database()), 0)")', {"get_lock", "md5", "database"}),
        ("name = f'{x} SHA1(y)'", {"sha1"}),
        ("def f():\n    'Call md5(x).'\n    raise ValueError('md5(x)')", set()),
    ],
)
def test_a_function_is_seen_in_a_source(source: str, found: set[str]) -> None:
    assert {name for text in written(source) for name in functions(text)} == found
