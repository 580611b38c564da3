"""What neoadmin's commands about cells do: tweak, add, drain, keep, replicas, drop. Each returns the exit status."""

from collections.abc import Sequence
from typing import Final

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from neo_admin.cli import render
from neo_admin.cli.commands import OK, PROBLEM, Cli
from neo_admin.core import view
from neo_admin.link import Deadline, Link
from neo_common.errors import ConfigError, DeadlinePassed, NeoError, NotReady, PeerLost
from neo_common.ids import NodeId, Partition
from neo_common.states import Role, node_text, role_of
from neo_common.wire.schema import (
    AnswerChange,
    AnswerDrop,
    AnswerMoves,
    AnswerNodes,
    AnswerSizes,
    AskChange,
    AskDrop,
    AskMoves,
    AskNodes,
    AskSizes,
    CellSize,
    ChangeKind,
    NodeInfo,
)

_LOOK_S: Final = 0.3
"""Between two looks at moves under way."""


def change(
    cli: Cli,
    kind: ChangeKind,
    names: Sequence[str] = (),
    *,
    replicas: int = 0,
    dry_run: bool = False,
    wait: bool = True,
    reason: str = "",
) -> int:
    """Order a change of where cells are; with *dry_run* show what it would move, and what that costs."""
    with cli.connect() as link:
        infos = link.ask(AskNodes(), AnswerNodes, cli.deadline).nodes
        nodes = tuple(storage_named(infos, name) for name in names)
        order = AskChange(kind, nodes, replicas, dry_run, reason or f"neoadmin {kind.name.lower()}")
        told = link.ask(order, AnswerChange, cli.deadline)
        sizes = sizes_of(cli, infos, told) if dry_run else {}
    if dry_run:
        cli.show(
            view.plan_json(told, sizes),
            lambda: render.print_lines(cli.out, view.plan_lines(told, sizes, labels(infos))),
        )
        return OK
    if kind is ChangeKind.PAUSE or not wait:
        cli.show({"text": told.text}, lambda: render.print_lines(cli.out, [told.text]))
        return OK
    if not cli.as_json:
        render.print_lines(cli.err, [told.text])
    return show_moves(cli, follow(cli), infos)


def moves(cli: Cli) -> int:
    """Show how far the moves are."""
    with cli.connect() as link:
        infos = link.ask(AskNodes(), AnswerNodes, cli.deadline).nodes
        told = link.ask(AskMoves(), AnswerMoves, cli.deadline)
    return show_moves(cli, told, infos)


def wait(cli: Cli) -> int:
    """Wait until nothing moves any more."""
    told = follow(cli)
    return show_moves(cli, told, ())


def show_moves(cli: Cli, told: AnswerMoves, infos: Sequence[NodeInfo]) -> int:
    """Show it; what does not go on is a problem."""
    cli.show(view.moves_json(told), lambda: render.print_lines(cli.out, view.moves_lines(told, labels(infos))))
    return PROBLEM if told.reason else OK


def follow(cli: Cli) -> AnswerMoves:
    """Show a bar until nothing moves any more; another primary may come meanwhile.

    Raises: DeadlinePassed when nothing was copied for a while, with the reason; NotReady when there is no primary.
    """
    columns = TextColumn("copying"), BarColumn(), MofNCompleteColumn(), TextColumn("cells"), TimeElapsedColumn()
    with Progress(*columns, console=cli.err, transient=True, disable=cli.as_json or not cli.err.is_terminal) as bar:
        task = bar.add_task("", total=None)
        lost: NeoError | None = None
        patience = cli.deadline
        while not patience.is_past:
            try:
                with cli.connect() as link:
                    while True:
                        told = link.ask(AskMoves(), AnswerMoves, cli.deadline)
                        bar.update(task, total=told.cells_total or None, completed=told.cells_total - told.cells_left)
                        if not told.is_balancing:
                            return told
                        if not told.reason:
                            patience = cli.deadline
                        elif patience.is_past:
                            raise DeadlinePassed(f"the moves do not go on: {told.reason}")
                        pause(link)
            except (PeerLost, NotReady) as error:
                lost = error
        raise NotReady(f"the moves go on, but nobody says how far they are: {lost}")


def pause(link: Link) -> None:
    """Wait a little, hearing what is told meanwhile."""
    look = Deadline(_LOOK_S)
    while link.told(look) is not None:
        pass  # changes of nodes or table: not what is waited for


def drop(cli: Cli, names: Sequence[str], *, force: bool, reason: str) -> int:
    """Forget storages."""
    with cli.connect() as link:
        infos = link.ask(AskNodes(), AnswerNodes, cli.deadline).nodes
        nodes = tuple(storage_named(infos, name) for name in names)
        text = link.ask(AskDrop(nodes, force, reason), AnswerDrop, cli.deadline).text
    cli.show({"text": text}, lambda: render.print_lines(cli.out, [text]))
    return OK


def storage_named(infos: Sequence[NodeInfo], name: str) -> NodeId:
    """Return the storage called *name*, or with that id, as in `S2`. Raises: ConfigError."""
    for info in infos:
        if role_of(info.node) is Role.STORAGE and name in (info.name, node_text(info.node)):
            return info.node
    known = ", ".join(view.node_label(n) for n in infos if role_of(n.node) is Role.STORAGE)
    raise ConfigError(f"there is no storage {name!r}; there are {known}")


def labels(infos: Sequence[NodeInfo]) -> dict[NodeId, str]:
    """Return what people call each node."""
    return {info.node: view.node_label(info) for info in infos}


def sizes_of(cli: Cli, infos: Sequence[NodeInfo], told: AnswerChange) -> dict[Partition, CellSize]:
    """Ask the storages that would be copied from how much that is. Those that do not answer are left out."""
    addresses = {info.node: info.address for info in infos}
    wanted: dict[NodeId, set[Partition]] = {}
    for move in told.moves:
        if addresses.get(move.source):
            wanted.setdefault(move.source, set()).add(move.partition)
    found: dict[Partition, CellSize] = {}
    for node, partitions in sorted(wanted.items()):
        try:
            with cli.link(addresses[node]) as storage:
                asked = AskSizes(tuple(sorted(partitions)))
                found.update({c.partition: c for c in storage.ask(asked, AnswerSizes, cli.deadline).cells})
        except NeoError as error:
            cli.err.file.write(f"neoadmin: sizes of {node_text(node)} are unknown: {error}\n")
    return found
