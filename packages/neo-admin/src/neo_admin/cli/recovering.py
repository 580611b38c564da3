"""`neoadmin recovery`: what was found, the choice of a table, who was left behind. Each returns the exit status."""

from collections.abc import Sequence
from time import time
from typing import Final

import click

from neo_admin.cli import render
from neo_admin.cli.commands import OK, PROBLEM, Cli
from neo_admin.cli.moving import labels, storage_named
from neo_admin.cli.truncating import wait_running
from neo_admin.core import recovery as view
from neo_admin.link import Deadline
from neo_common.errors import ConfigError
from neo_common.ids import NodeId
from neo_common.model.partition_table import EMPTY
from neo_common.states import ClusterState, Role, node_id
from neo_common.wire.schema import (
    AnswerChoose,
    AnswerNodes,
    AnswerReadmit,
    AnswerRecovery,
    AskChoose,
    AskNodes,
    AskReadmit,
    AskRecovery,
    FoundTable,
    NodeInfo,
)

_LOOK_S: Final = 0.3


def show(cli: Cli, *, begin: bool = False) -> int:
    """Show which partition tables were found and what each would lose; status 1 while nobody can go on.

    With *begin* a cluster that runs, and of which not all can be read, recovers.
    """
    with cli.connect() as link:
        infos = link.ask(AskNodes(), AnswerNodes, cli.deadline).nodes
        told = link.ask(AskRecovery(begin), AnswerRecovery, cli.deadline)
        patience = cli.deadline
        while begin and told.state is not ClusterState.RUNNING and not told.storages and not patience.is_past:
            link.told(Deadline(_LOOK_S))
            told = link.ask(AskRecovery(False), AnswerRecovery, cli.deadline)
    cli.show(
        view.recovery_json(told), lambda: render.print_lines(cli.out, view.recovery_lines(told, labels(infos), time()))
    )
    return PROBLEM if told.tables else OK


def choose(cli: Cli, version: str, *, use_stale: bool, make_empty: bool, yes: bool, reason: str) -> int:
    """Go on with the table of that version, and say what was lost. Asks first, unless *yes*."""
    with cli.connect() as link:
        infos = link.ask(AskNodes(), AnswerNodes, cli.deadline).nodes
        told = link.ask(AskRecovery(False), AnswerRecovery, cli.deadline)
        table = table_of(told, version)
        lost = [*view.loss_lines(table, labels(infos), time()), *view.deaf_lines(told)]
        if not yes:
            for line in lost:
                click.echo(line, err=True)
            click.echo("What is lost now does not come back, also if storages come back that have it.", err=True)
            click.confirm(f"Go on with table {version}?", abort=True, err=True)
        order = AskChoose(table.version, told.storages, use_stale, make_empty, reason)
        answer = link.ask(order, AnswerChoose, cli.deadline)
    if not cli.as_json:
        render.print_lines(cli.err, [answer.text])
    choices = wait_running(cli, told.table.apply(EMPTY)).orders.choices
    made = next((c for c in choices if c.id == answer.choice), None)
    said = "The choice came to nothing: other storages or masters came before it stood. See `neoadmin recovery`."
    if made is not None:
        said = f"The cluster goes on with table {version}."
    value = {
        "chosen": made is not None,
        "table": version,
        "lost": view.found_json(table),
        "text": answer.text,
    }
    cli.show(value, lambda: render.print_lines(cli.out, [said]))
    return OK if made is not None else PROBLEM


def readmit(cli: Cli, names: Sequence[str], reason: str) -> int:
    """Let storages in that were left behind."""
    with cli.connect() as link:
        infos = link.ask(AskNodes(), AnswerNodes, cli.deadline).nodes
        nodes = tuple(sorted({storage_or_id(infos, name) for name in names}))
        text = link.ask(AskReadmit(nodes, reason), AnswerReadmit, cli.deadline).text
    cli.show({"text": text}, lambda: render.print_lines(cli.out, [text]))
    return OK


def table_of(told: AnswerRecovery, version: str) -> FoundTable:
    """Return the table of that version. Raises: ConfigError when there is none."""
    for table in told.tables:
        if str(table.version) == version:
            return table
    found = ", ".join(str(t.version) for t in told.tables) or f"none: the cluster is {told.state.name}"
    raise ConfigError(f"no table {version!r} was found; there are {found}")


def storage_or_id(infos: Sequence[NodeInfo], name: str) -> NodeId:
    """Return the storage called *name*, or with that id although nobody knows it (any more). Raises: ConfigError."""
    number = name.removeprefix("S")
    if number.isdecimal() and not any(i.name == name for i in infos) and 0 < int(number) < 2**24:
        return node_id(Role.STORAGE, int(number))
    return storage_named(infos, name)
