"""What may stand in the text of a statement: words and marks for parameters, and few literals, all of them constants.

Values are bound, always. `unbound` names what in a text looks like a value; `formatted` names what a source file puts
into the text of a statement, so that each such place is looked at once.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from neo_common.wire.schema import PIECE_BYTES, Compression

_TOKENS: Final = re.compile(
    r"""
      (?P<parameter>\?\d*|\$\d+|%s|%%)
    | (?P<literal>'(?:[^']|'')*')
    | (?P<name>"[^"]*"|[A-Za-z_@][A-Za-z_0-9.@]*)
    | (?P<number>(?:0x)?\d[\d.]*)
    """,
    re.VERBOSE,
)
_LOCK: Final = 0x4E454F53
"""The name of PostgreSQL's lock."""
_NUMBERS: Final = {0, 1, PIECE_BYTES, int(Compression.ABSENT), _LOCK}
_TEXTS: Final = {
    "''", "','", "';'",  # what a digest is made of
    "'owner'", "'obj'", "', '", "'advisory'",  # names of our own, and of the server
}  # fmt: skip
_FIXED: Final = (
    "PRAGMA ",
    "CREATE ",
    "ALTER TABLE ",
    "SELECT get_lock(",
    "SELECT pg_try_advisory_lock(",
    "SELECT pid FROM pg_locks ",  # of that lock: only when a session before ours is not gone yet
)
"""Statements that take no parameters, or name lengths of columns: their texts are compared with ours instead."""
_PREPARE: Final = re.compile(r"PREPARE \w+ FROM '(.*)'", re.DOTALL)
_SQL: Final = re.compile(
    r"\b(SELECT|INSERT|UPDATE|DELETE|REPLACE|VALUES|WHERE|FROM|CREATE|ALTER|DROP|PRAGMA|PREPARE|EXECUTE|COPY|LOCK|SET"
    r"|ON CONFLICT|ON DUPLICATE|BEGIN|COMMIT|LIMIT|ORDER BY)\b"
)


def unbound(text: str) -> list[str]:
    """Return the literals in *text* that are not known constants.

    >>> unbound("SELECT tid FROM obj WHERE oid = %s AND (size < 1048576 OR 1 = 0)")
    []
    >>> unbound("SELECT tid FROM obj WHERE oid = 77 AND name = 'x''y'")
    ['77', "'x''y'"]
    """
    if text.lstrip().startswith(_FIXED):
        return []
    if quoted := _PREPARE.fullmatch(text):
        text = quoted[1].replace("''", "'")
    found = []
    for match in _TOKENS.finditer(text):
        if (match["number"] and int(match["number"], 0) not in _NUMBERS) or (
            match["literal"] and match["literal"] not in _TEXTS
        ):
            found.append(match.group())
    return found


def functions(text: str) -> set[str]:
    """Return what *text* calls, in small letters. No space stands before a bracket then: MySQL wants none.

    >>> sorted(functions("SELECT max(tid), SHA2(x, 256) FROM obj WHERE (oid IN (%s))"))
    ['max', 'sha2']
    """
    return {name.lower() for name in re.findall(r"\b([A-Za-z_]\w*)\(", text)}


def formatted(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (function, expression) for all that is formatted into a text that looks like SQL.

    f-strings, `%`, `format` and `+`: other ways to build a text are not used in the back ends.
    """
    yield from _walk(ast.parse(path.read_text(encoding="utf-8")), "")


def _walk(node: ast.AST, function: str) -> Iterator[tuple[str, str]]:
    for child in ast.iter_child_nodes(node):
        inside = function
        if isinstance(child, ast.FunctionDef | ast.ClassDef):
            inside = f"{function}.{child.name}".lstrip(".")
        elif isinstance(child, ast.Raise):
            continue  # messages for people
        for expression in _parts(child):
            yield function, ast.unparse(expression)
        yield from _walk(child, inside)


def _parts(node: ast.AST) -> list[ast.expr]:
    """Return what *node* puts into a text of SQL."""
    match node:
        case ast.JoinedStr(values):
            text = "".join(v.value for v in values if isinstance(v, ast.Constant))
            return [v.value for v in values if isinstance(v, ast.FormattedValue)] if _SQL.search(text) else []
        case ast.BinOp(ast.Constant(str() as text), ast.Mod() | ast.Add(), right) if _SQL.search(text):
            return [right]
        case ast.Call(ast.Attribute(ast.Constant(str() as text), "format"), arguments, keywords) if _SQL.search(text):
            return [*arguments, *(k.value for k in keywords)]
        case _:
            return []
