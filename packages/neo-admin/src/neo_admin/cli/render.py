"""How neoadmin prints: tables and sentences for people, JSON for programs."""

import json
from collections.abc import Sequence
from typing import Any, Final

import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

_COLOURS: Final = {
    "RUNNING": "green",
    "STARTING": "yellow",
    "STOPPING": "yellow",
    "PENDING": "yellow",
    "LEAVING": "yellow",
    "BACKOFF": "red",
    "UNKNOWN": "red",
    "UNAVAILABLE": "red",
    "FATAL": "red",
    "EXITED": "red",
}
"""What the eye should find among states."""


def print_json(console: Console, value: Any) -> None:
    """Print *value* as JSON: indented, in the order in which it was made. (Any: what JSON can hold.)"""
    console.file.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def print_yaml(console: Console, value: Any) -> None:
    """Print *value* as YAML, for people. (Any: what YAML can hold.)"""
    console.file.write(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120))


def print_pairs(console: Console, rows: Sequence[tuple[str, str]]) -> None:
    """Print a word and what there is to say of it, one pair per line."""
    width = max(len(name) for name, _ in rows) + 2
    for name, value in rows:
        console.print(Text(f"{name:{width}}", "bold").append(Text(value, _COLOURS.get(value, ""))), soft_wrap=True)


def print_table(console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under their columns, states in colour; nothing is cut when the output is not a terminal."""
    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for column in columns:
        right = column in ("objects", "pid")
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell, _COLOURS.get(cell, "")) for cell in row))
    if not console.is_terminal:
        console = Console(file=console.file, width=500)
    console.print(table)


def print_lines(console: Console, lines: Sequence[str]) -> None:
    """Print lines as they are."""
    for line in lines:
        console.print(Text(line), soft_wrap=True)


def print_problems(console: Console, problems: Sequence[str]) -> None:
    """Print what is wrong, if anything is."""
    for problem in problems:
        console.print(Text(f"! {problem}", "red"), soft_wrap=True)
