"""neoadmin's command line: words, options, help, exit status. What a command does is in `commands`."""

import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from time import time
from typing import Any, Final, TypeVar

import click
from click.shell_completion import get_completion_class
from rich.console import Console

from neo_admin import __version__, local
from neo_admin.cli import commands, moving, recovering, truncating
from neo_admin.cli.commands import EXIT_HELP, Cli
from neo_common.config.sections import Cluster
from neo_common.config.values import parse_seconds
from neo_common.errors import NeoError
from neo_common.ids import Tid
from neo_common.wire.schema import ChangeKind

_F = TypeVar("_F", bound=Callable[..., Any])
_DAY_S: Final = 86400.0


def duration(text: str | float) -> float:
    """Read a duration, as in the configuration; return seconds. Raises: click.BadParameter."""
    if isinstance(text, float):
        return text
    try:
        return parse_seconds(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} {error}") from None


def _noting(field: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    """Return a callback that notes an option in the Cli, if it was given. (Any: click's.)"""

    def note(ctx: click.Context, _: click.Parameter, value: Any) -> None:
        if value is None or value is False or value == ():
            return
        if field == "masters":
            value = tuple(address.strip() for address in value.split(","))
        setattr(ctx.ensure_object(Cli), field, value)

    return note


_Options = tuple[tuple[str, str, dict[str, Any]], ...]  # Any: what click.option takes

_OUTPUT: Final[_Options] = (("--json", "as_json", {"is_flag": True, "help": "Print JSON."}),)
_FILE: Final[_Options] = (
    ("--set", "overrides", {"multiple": True, "metavar": "KEY=VALUE", "help": "Change a key of the configuration."}),
    ("--config", "config_path", {"metavar": "FILE", "help": "The cluster's YAML file.  [env: NEO_CONFIG]"}),
)
_CONNECTION: Final[_Options] = (
    (
        "--timeout",
        "timeout_s",
        {"type": duration, "metavar": "DURATION", "help": "How long to wait for an answer.  [default: 10s]"},
    ),
    ("--admin", "admin", {"metavar": "ADDRESS", "help": "Ask this admin."}),
    ("--cluster", "cluster", {"metavar": "NAME", "help": "Name of the cluster, without a configuration."}),
    ("--masters", "masters", {"metavar": "ADDRESS,...", "help": "Ask the primary among these masters."}),
    ("--secret-file", "secret_file", {"metavar": "FILE", "help": "The cluster's secret, without a configuration."}),
    ("--tls-ca", "tls_ca", {"metavar": "FILE", "help": "The cluster's authority, without a configuration."}),
    ("--tls-certificate", "tls_certificate", {"metavar": "FILE", "help": "Our certificate; it is for an admin."}),
    ("--tls-key", "tls_key", {"metavar": "FILE", "help": "Its key."}),
)


def _shared(options: _Options) -> Callable[[_F], _F]:
    """Add options that many commands share; they may stand before or after the command."""

    def add(function: _F) -> _F:
        for flag, field, keywords in options:
            option = click.option(flag, field, expose_value=False, callback=_noting(field), is_eager=True, **keywords)
            function = option(function)
        return function

    return add


@click.group(epilog=EXIT_HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@_shared(_OUTPUT + _CONNECTION + _FILE)
@click.version_option(__version__, message="neoadmin %(version)s")
def cli() -> None:
    """Look after a NEO cluster.

    A command asks an admin or the primary of the cluster that --config (or NEO_CONFIG) describes, or the one that
    --masters and --cluster name.
    """


def command(
    group: click.Group, name: str | None = None, options: _Options = _OUTPUT + _CONNECTION + _FILE
) -> Callable[[Callable[..., int]], click.Command]:
    """Make a command of a function that takes the Cli first and returns the exit status."""

    def make(function: Callable[..., int]) -> click.Command:
        @click.pass_context
        def run(ctx: click.Context, /, **arguments: Any) -> None:  # Any: what click has parsed
            ctx.exit(function(ctx.ensure_object(Cli), **arguments))

        run.__doc__ = function.__doc__
        run.__name__ = function.__name__
        # Options were noted on `function` by the decorators below ours: click keeps them in this attribute.
        run.__click_params__ = getattr(function, "__click_params__", [])  # type: ignore[attr-defined]
        return group.command(name or function.__name__, epilog=EXIT_HELP)(_shared(options)(run))

    return make


# ------------------------------------------------------------------------------------------------ the cluster


@command(cli)
@click.option("--wait", "wait_s", type=duration, metavar="DURATION", help="Wait up to this long until all is well.")
def status(options: Cli, wait_s: float | None) -> int:
    """Show the cluster in a few lines, and what is wrong with it."""
    return commands.status(options, wait_s)


@command(cli)
def nodes(options: Cli) -> int:
    """Show every node: id, name, address, state, for how long."""
    return commands.nodes(options)


@command(cli)
def partitions(options: Cli) -> int:
    """Draw the partition table: a line per node, a letter per cell."""
    return commands.partitions(options)


@command(cli)
def replication(options: Cli) -> int:
    """Show the cells that are being copied: from where, how far, how fast, time left. Status 1 while there are any."""
    return commands.replication(options)


@cli.group()
def scrub() -> None:
    """Look for damage: values against their checksums, cells of a partition against each other."""


@command(scrub, "status")
def scrub_status(options: Cli) -> int:
    """Show how far the scrubs are and what they have found. Status 1 if something could not be rebuilt."""
    return commands.scrub(options, is_start=False)


@command(scrub, "start")
def scrub_start(options: Cli) -> int:
    """Begin a pass on every storage now."""
    return commands.scrub(options, is_start=True)


@command(cli)
def ids(options: Cli) -> int:
    """Show the last tid and oid, the ceilings, the epoch, the table's version."""
    return commands.ids(options)


@command(cli)
@click.option("--reason", default="neoadmin start", help="Why, for the log of the primary.")
def start(options: Cli, reason: str) -> int:
    """Create the cluster with the storages that are there, without waiting for the others."""
    return commands.start(options, reason)


@command(cli)
@click.option("--reason", default="neoadmin stop", help="Why, for the log of the primary and for the clients.")
def stop(options: Cli, reason: str) -> int:
    """Stop the whole cluster cleanly: what is under way ends, then every node exits."""
    return commands.stop(options, reason)


# ------------------------------------------------------------------------------------------------ where cells are

_dry_run = click.option("--dry-run", is_flag=True, help="Only show what would move, and how much that is.")
_no_wait = click.option("--no-wait", is_flag=True, help="Order it and return; see `neoadmin moves`.")
_storages = click.argument("names", metavar="STORAGE...", nargs=-1, required=True)


def _reason(command_name: str) -> Callable[[_F], _F]:
    return click.option("--reason", default=f"neoadmin {command_name}", help="Why, for the log of the primary.")


@command(cli)
@_dry_run
@_no_wait
@_reason("tweak")
@click.option("--pause", is_flag=True, help="Begin no more moves; `neoadmin tweak` goes on.")
def tweak(options: Cli, dry_run: bool, no_wait: bool, reason: str, pause: bool) -> int:
    """Make the partition table even: shares by weight, copies apart, the least data moved, while the cluster works.

    It moves leads too: they drift away from a storage that was restarted.
    """
    kind = ChangeKind.PAUSE if pause else ChangeKind.TWEAK
    return moving.change(options, kind, dry_run=dry_run, wait=not no_wait, reason=reason)


@command(cli)
@_storages
@_dry_run
@_no_wait
@_reason("add")
def add(options: Cli, names: tuple[str, ...], dry_run: bool, no_wait: bool, reason: str) -> int:
    """Give cells to storages that are there and have none, and make the table even."""
    return moving.change(options, ChangeKind.ADD, names, dry_run=dry_run, wait=not no_wait, reason=reason)


@command(cli)
@_storages
@_dry_run
@_no_wait
@_reason("drain")
def drain(options: Cli, names: tuple[str, ...], dry_run: bool, no_wait: bool, reason: str) -> int:
    """Take all cells from storages. They serve until others have the data; then `neoadmin drop` them."""
    return moving.change(options, ChangeKind.DRAIN, names, dry_run=dry_run, wait=not no_wait, reason=reason)


@command(cli)
@_storages
@_dry_run
@_no_wait
@_reason("keep")
def keep(options: Cli, names: tuple[str, ...], dry_run: bool, no_wait: bool, reason: str) -> int:
    """Let storages that are being drained stay after all."""
    return moving.change(options, ChangeKind.KEEP, names, dry_run=dry_run, wait=not no_wait, reason=reason)


@command(cli)
@click.argument("count", metavar="N", type=click.IntRange(0, 15))
@_dry_run
@_no_wait
@_reason("replicas")
def replicas(options: Cli, count: int, dry_run: bool, no_wait: bool, reason: str) -> int:
    """Have N copies of everything beyond the first. From then on `replicas` of the configuration does not count."""
    return moving.change(options, ChangeKind.REPLICAS, replicas=count, dry_run=dry_run, wait=not no_wait, reason=reason)


@command(cli)
@click.option("--wait", is_flag=True, help="Wait until nothing moves any more.")
def moves(options: Cli, wait: bool) -> int:
    """Show how far the moves are that an operator has ordered."""
    return moving.wait(options) if wait else moving.moves(options)


@command(cli)
@_storages
@click.option("--force", is_flag=True, help="Even if partitions have a copy less then. Never the only copy.")
@_reason("drop")
def drop(options: Cli, names: tuple[str, ...], force: bool, reason: str) -> int:
    """Forget storages for ever: drained ones, or those that will not come back. What they hold is erased if they do."""
    return moving.drop(options, names, force=force, reason=reason)


@command(cli)
@click.argument("tid", metavar="TID")
@click.option("--yes", is_flag=True, help="Do not ask whether that is meant.")
@_reason("truncate")
def truncate(options: Cli, tid: str, yes: bool, reason: str) -> int:
    """Cut off every transaction above TID (16 hexadecimal digits), for ever: all of them, on all storages, or none.

    The cluster recovers meanwhile, and clients begin anew. `neoadmin transactions` shows the last tids.
    """
    try:
        number = int(tid, 16)
    except ValueError:
        raise click.BadParameter(f"{tid!r} is not a tid, write 16 hexadecimal digits", param_hint="TID") from None
    if not yes:
        click.confirm(f"Every transaction above {number:016x} will be lost for ever. Go on?", abort=True)
    return truncating.truncate(options, Tid(number), reason)


@cli.group(epilog=EXIT_HELP, invoke_without_command=True)
@_shared(_OUTPUT + _CONNECTION + _FILE)
@click.pass_context
def recovery(ctx: click.Context) -> None:
    """Show what a cluster that does not recover waits for: every partition table found, and what each would lose.

    Status 1 while it waits. When it runs: the choices that were made.
    """
    if ctx.invoked_subcommand is None:
        ctx.exit(recovering.show(ctx.ensure_object(Cli)))


@command(recovery, "begin")
def recovery_begin(options: Cli) -> int:
    """Let a cluster recover that runs although not every partition can be read, so that a table can be chosen.

    Clients are sent away, and come back when it runs again.
    """
    return recovering.show(options, begin=True)


@command(recovery, "choose")
@click.argument("table", metavar="TABLE")
@click.option("--stale", is_flag=True, help="Use cells that are not up to date where there are no others.")
@click.option("--empty", is_flag=True, help="Begin partitions of which there is no cell with nothing.")
@click.option("--yes", is_flag=True, help="Do not ask whether that is meant.")
@_reason("recovery choose")
def recovery_choose(options: Cli, table: str, stale: bool, empty: bool, yes: bool, reason: str) -> int:
    """Go on with TABLE, as `neoadmin recovery` shows it, and with the storages and masters that are there.

    For when what is missing will not come back. What only others have is lost: they are not let in any more when they
    come, before `neoadmin recovery readmit`.
    """
    return recovering.choose(options, table, use_stale=stale, make_empty=empty, yes=yes, reason=reason)


@command(recovery, "readmit")
@_storages
@_reason("recovery readmit")
def recovery_readmit(options: Cli, names: tuple[str, ...], reason: str) -> int:
    """Let in storages that were left behind by a choice: what they alone have is discarded, they copy the rest."""
    return recovering.readmit(options, names, reason)


@command(cli)
@click.option("-n", "--count", default=20, show_default=True, type=click.IntRange(1, 100_000), help="How many.")
def transactions(options: Cli, count: int) -> int:
    """Show the last transactions, newest first: tid, time, number of objects, user, description."""
    return commands.transactions(options, count)


@command(cli)
@click.option("--days", type=click.FloatRange(min=0), help="Keep the history of so many days.  [default: 0]")
@click.option("--until", metavar="TIME", help="Keep the history from then on: 2026-01-31 or 2026-01-31T18:00, UTC.")
@click.option("--reason", default="neoadmin pack", help="Why, for the log of the primary.")
@click.option("--no-wait", is_flag=True, help="Order it and return; see `pack --status`.")
@click.option("--status", "only_status", is_flag=True, help="Only show how far the last pack is.")
def pack(options: Cli, days: float | None, until: str | None, reason: str, no_wait: bool, only_status: bool) -> int:
    """Remove old revisions of objects, while the cluster works.

    Garbage collection must read references inside objects, which servers never do: `db.pack()` of a ZODB program
    collects garbage and packs.
    """
    if only_status:
        return commands.pack_status(options)
    if days is not None and until is not None:
        raise click.UsageError("give --days or --until, not both")
    return commands.pack(options, _until(days or 0.0, until), reason, not no_wait)


def _until(days: float, text: str | None) -> float:
    """Return Unix time."""
    if text is None:
        return time() - days * _DAY_S
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is not a time, write 2026-01-31 or 2026-01-31T18:00", param_hint="--until"
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


@command(cli)
@click.argument("name", metavar="NODE")
@click.option("--trace", is_flag=True, help="With the last packets.")
def debug(options: Cli, name: str, trace: bool) -> int:
    """Show what NODE (s1, or S1) waits for, holds and queues: requests, locks, output. For people; it may change."""
    return commands.debug(options, name, trace)


# ------------------------------------------------------------------------------------------------ configuration


@cli.group(epilog=EXIT_HELP)
def config() -> None:
    """Check and show the configuration."""


@command(config, options=_OUTPUT + _FILE)
def check(options: Cli) -> int:
    """Explain everything that is wrong: file, line, key, and what would be right."""
    return commands.config_check(options)


@command(config, options=_OUTPUT + _FILE)
def show(options: Cli) -> int:
    """Show every key as it counts: defaults, file, environment and --set together."""
    return commands.config_show(options)


@command(config, options=())
def sample(options: Cli) -> int:
    """Print a commented file with every key at its default."""
    return commands.config_sample(options)


@command(config, options=())
def reference(options: Cli) -> int:
    """Print the documentation of every key, as Markdown."""
    return commands.config_reference(options)


# ------------------------------------------------------------------------------------------------ protection


@command(cli, options=_OUTPUT)
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path))
def secret(options: Cli, path: Path) -> int:
    """Make FILE with a new secret, for `security.secret_file` and clients' `secret-file`."""
    return commands.secret(options, path)


@command(cli, options=_OUTPUT + _FILE)
@click.option(
    "--directory",
    default="tls",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder of the certificates.",
)
@click.option("--days", default=825.0, show_default=True, type=click.FloatRange(min=0.01), help="How long they last.")
@click.option(
    "--client", "clients", multiple=True, default=("client",), show_default=True, help="A certificate for clients."
)
@click.option("--renew", is_flag=True, help="Also those that are there and have not expired.")
def certs(options: Cli, directory: Path, days: float, clients: tuple[str, ...], renew: bool) -> int:
    """Make the cluster's own authority, and certificates for its nodes, for neoadmin and for clients.

    What is there already is kept. Running nodes and clients take new files by themselves.
    """
    return commands.certs(options, directory.absolute(), days, clients, renew)


# ------------------------------------------------------------------------------------------------ this host


@command(cli, options=_OUTPUT + _FILE)
@click.option("--host", default="", help="Only the nodes with this `host:` label.  [default: all nodes]")
@click.option("--start", "run", is_flag=True, help="Start supervisord too.")
def supervisor(options: Cli, host: str, run: bool) -> int:
    """Write the configuration of supervisord for the nodes of this host."""
    return commands.supervisor(options, host, run)


@cli.group(epilog=EXIT_HELP)
def node() -> None:
    """Start, stop and show the nodes of this host, through supervisord."""


def _node_command(action: str, text: str) -> None:
    def act(options: Cli, names: tuple[str, ...]) -> int:
        return commands.node(options, action, names)

    act.__doc__ = text
    command(node, action, _OUTPUT + _FILE)(click.argument("names", metavar="[NODE]...", nargs=-1)(act))


_node_command("start", "Start nodes of this host; all of them if none is named.")
_node_command("stop", "Stop nodes of this host cleanly; all of them if none is named.")
_node_command("restart", "Stop, then start nodes of this host; all of them if none is named.")
_node_command("status", "Show the nodes of this host as supervisord sees them.")

_directory = click.option(
    "--directory",
    default="neo-cluster",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder of the cluster.",
)


def _partitions_default() -> int:
    """The default stands in the sections, and only there."""
    default = Cluster.__dataclass_fields__["partitions"].default
    assert isinstance(default, int)
    return default


@command(cli, options=_OUTPUT)
@_directory
@click.option("--name", default="neo", show_default=True, help="Name of the cluster.")
@click.option("--masters", "master_count", default=1, show_default=True, type=click.IntRange(1, 99))
@click.option("--storages", "storage_count", default=2, show_default=True, type=click.IntRange(1, 999))
@click.option("--replicas", default=0, show_default=True, type=click.IntRange(0))
@click.option("--partitions", default=_partitions_default(), show_default=True, type=click.IntRange(1))
@click.option("--admins", "admin_count", default=1, show_default=True, type=click.IntRange(0, 99))
@click.option(
    "--wait", "wait_s", default="30s", show_default=True, type=duration, metavar="DURATION", help="Until it must run."
)
def up(
    options: Cli,
    directory: Path,
    name: str,
    master_count: int,
    storage_count: int,
    replicas: int,
    partitions: int,
    admin_count: int,
    wait_s: float,
) -> int:
    """Start a cluster on this machine, under supervisord, on free ports; say how to open and stop it.

    Its files are those of any cluster: `cluster.yaml`, and what `neoadmin supervisor` writes from it. What was stopped
    by `down` starts again with its data.
    """
    shape = local.Shape(name, master_count, storage_count, admin_count, partitions, replicas)
    return commands.up(options, directory, shape, wait_s)


@command(cli, options=_OUTPUT)
@_directory
@click.option("--erase", is_flag=True, help="Remove the folder too, with all data.")
@click.option(
    "--wait",
    "wait_s",
    default="60s",
    show_default=True,
    type=duration,
    metavar="DURATION",
    help="Until it must have stopped.",
)
def down(options: Cli, directory: Path, erase: bool, wait_s: float) -> int:
    """Stop the cluster that `up` has started."""
    return commands.down(options, directory, wait_s, erase)


@command(cli, options=_FILE)
@click.option("--name", required=True, help="The admin's name in the configuration.")
def serve(options: Cli, name: str) -> int:
    """Run an admin daemon in the foreground; it ends cleanly on SIGTERM."""
    return commands.serve(options, name)


@cli.command(epilog=EXIT_HELP)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes SHELL complete neoadmin's commands and options.

    For bash:  neoadmin completion bash > ~/.local/share/bash-completion/completions/neoadmin
    """
    cls = get_completion_class(shell)
    assert cls is not None, shell
    click.echo(cls(cli, {}, "neoadmin", "_NEOADMIN_COMPLETE").source())


# ------------------------------------------------------------------------------------------------ run


def run(words: list[str], environ: Mapping[str, str], out: Console, err: Console) -> int:
    """Run neoadmin with these words; return its exit status. Errors go to *err*, one kind of text each."""
    context = Cli(environ=environ, config_path=environ.get("NEO_CONFIG", ""), out=out, err=err)
    try:
        status = cli.main(words, "neoadmin", standalone_mode=False, obj=context)
    except click.ClickException as error:
        error.show(file=err.file)
        return error.exit_code
    except click.Abort:
        return 130
    except NeoError as error:
        err.file.write(f"neoadmin: {error}\n")
        return commands.exit_status(error)
    return int(status or 0)


def main(environ: Mapping[str, str]) -> int:
    """Run neoadmin as a program."""
    return run(sys.argv[1:], environ, Console(), Console(stderr=True))
