"""What each command of neoadmin does; `main` says how it is called. Each returns the exit status."""

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import time
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from neo_admin import local, supervise
from neo_admin.cli import render
from neo_admin.core import view
from neo_admin.core.programs import nodes_of_host
from neo_admin.link import Deadline, Link, find_primary, first_answering
from neo_admin.shell import AdminShell, admin_hello
from neo_admin.supervise import Supervisord, SupervisorError, SupervisorGone
from neo_common.config import reference
from neo_common.config.keys import shown
from neo_common.config.loader import ConfigProblems, load
from neo_common.config.sections import Config
from neo_common.credentials import NO_CREDENTIALS, Credentials, credentials_of, read_secret
from neo_common.errors import ConfigError, DeadlinePassed, HandshakeRefused, NeoError, NotReady, PeerLost
from neo_common.ids import MAX_TID, NO_TID, Epoch, NodeId, Partition, tid_from_time
from neo_common.model.partition_table import EMPTY
from neo_common.runtime import daemon
from neo_common.states import NodeState, Role, node_text
from neo_common.tls import Tls, TlsFiles
from neo_common.wire.guard import Identity
from neo_common.wire.schema import (
    AnswerCluster,
    AnswerDebug,
    AnswerNodes,
    AnswerPack,
    AnswerPackState,
    AnswerReplication,
    AnswerScrub,
    AnswerStart,
    AnswerStop,
    AnswerTable,
    AnswerTransactions,
    AskCluster,
    AskDebug,
    AskNodes,
    AskPack,
    AskPackState,
    AskReplication,
    AskScrub,
    AskStart,
    AskStop,
    AskTable,
    AskTransactions,
    NodeInfo,
    Transaction,
)

OK: Final = 0
PROBLEM: Final = 1
"""The cluster or a node is not as it should be, or refuses."""
USAGE: Final = 2
"""The command line or the configuration is wrong."""
UNREACHABLE: Final = 3
"""Nobody answers."""
TIME_OUT: Final = 4
"""What was waited for has not come in time."""

EXIT_HELP: Final = """\
Exit status: 0 all is well; 1 the cluster or a node is not as it should be, or refuses; 2 the command line or the \
configuration is wrong; 3 nobody answers; 4 what was waited for has not come in time."""
CREDENTIALS_NAME: Final = "neoadmin"
"""What stands for `{name}` in the paths of certificates, on a command line."""
_ADMIN_S: Final = 2.0
"""For an admin to let us in, before the masters are asked."""
_AGAIN_S: Final = 1.0
"""Between two looks while waiting, when the primary tells of no change."""
_PACK_LOOK_S: Final = 0.3
"""Between two looks at a pack under way: its progress is not broadcast."""


@dataclass
class Cli:
    """What the options say that all commands share."""

    environ: Mapping[str, str] = field(default_factory=dict)
    config_path: str = ""
    overrides: tuple[str, ...] = ()
    masters: tuple[str, ...] = ()
    cluster: str = ""
    admin: str = ""
    secret_file: str = ""
    tls_ca: str = ""
    tls_certificate: str = ""
    tls_key: str = ""
    timeout_s: float = 10.0
    as_json: bool = False
    out: Console = field(default_factory=Console)
    err: Console = field(default_factory=lambda: Console(stderr=True))
    _config: Config | None = None
    _credentials: Credentials | None = None

    @property
    def deadline(self) -> Deadline:
        """Return a deadline that begins now."""
        return Deadline(self.timeout_s)

    def config(self) -> Config:
        """Return the configuration. Raises: ConfigError, also if none is named."""
        if self._config is None:
            if not self.config_path:
                raise ConfigError(
                    "say which cluster: --config FILE, or NEO_CONFIG, or --cluster NAME --masters HOST:PORT"
                )
            self._config = load(self.config_path, self.environ, self.overrides)
        return self._config

    @property
    def cluster_name(self) -> str:
        """The name of the cluster. Raises: ConfigError."""
        return self.cluster or self.config().cluster.name

    @property
    def credentials(self) -> Credentials:
        """What we show: the options, or what the configuration says for `neoadmin`. Raises: ConfigError."""
        if self._credentials is None:
            files = TlsFiles(self.tls_ca, self.tls_certificate, self.tls_key)
            if self.config_path and not (self.secret_file or any(files)):
                self._credentials = credentials_of(self.config(), CREDENTIALS_NAME, self.environ)
            else:
                self._credentials = Credentials(
                    read_secret(self.secret_file) if self.secret_file else None, Tls(files) if any(files) else None
                )
        return self._credentials

    def link(self, address: str) -> Link:
        """Return a connection to the node at *address*. Raises: NeoError."""
        return Link(address, admin_hello(self.cluster_name, "neoadmin"), self.deadline, self.credentials)

    def connect(self) -> Link:
        """Return a connection to who can answer: the admin or masters named, or those of the configuration.

        Raises: NeoError with what each of them said.
        """
        name = self.cluster_name
        if self.admin:
            return self.link(self.admin)
        if not self.masters:
            admins = [admin.address for admin in self.config().admins.values()]
            try:
                return first_answering(admins, name, Deadline(min(self.timeout_s, _ADMIN_S)), self.credentials)
            except NotReady:
                pass  # the masters know more, and say better why not
        masters = self.masters or self.config().master_addresses
        return find_primary(masters, name, self.deadline, self.credentials)

    def show(self, value: Any, for_people: Callable[[], None]) -> None:
        """Print *value* as JSON if that was asked for, else call *for_people*. (Any: what JSON can hold.)"""
        if self.as_json:
            render.print_json(self.out, value)
        else:
            for_people()


def exit_status(error: NeoError) -> int:
    """Return the exit status for a command that ended with *error*."""
    match error:
        case ConfigError():
            return USAGE
        case PeerLost() | HandshakeRefused() | NotReady() | SupervisorGone():
            return UNREACHABLE
        case DeadlinePassed():
            return TIME_OUT
        case _:
            return PROBLEM


# ------------------------------------------------------------------------------------------------ the cluster


def snapshot_of(link: Link, deadline: Deadline) -> view.Snapshot:
    """Ask for everything there is to show."""
    cluster = link.ask(AskCluster(), AnswerCluster, deadline)
    nodes = link.ask(AskNodes(), AnswerNodes, deadline).nodes
    table = link.ask(AskTable(), AnswerTable, deadline).table
    return view.Snapshot(cluster, nodes, table.apply(EMPTY))


def status(cli: Cli, wait_s: float | None) -> int:
    """Show the cluster in a few lines; with *wait_s*, wait until all is well."""
    if wait_s is None:
        with cli.connect() as link:
            snapshot = snapshot_of(link, cli.deadline)
    else:
        masters = cli.masters or cli.config().master_addresses
        storages = 0 if cli.masters else len(cli.config().storages)
        snapshot = wait_well(masters, cli.cluster_name, storages, Deadline(wait_s), cli.credentials)
    found = view.problems(snapshot)

    def for_people() -> None:
        render.print_pairs(cli.out, view.status_rows(snapshot, time()))
        render.print_problems(cli.out, found)

    cli.show(view.status_json(snapshot), for_people)
    return PROBLEM if found else OK


def wait_well(
    masters: Sequence[str],
    cluster: str,
    storages: int,
    deadline: Deadline,
    credentials: Credentials = NO_CREDENTIALS,
) -> view.Snapshot:
    """Wait until there is no problem and at least *storages* storages are in service; return what is then.

    Raises: DeadlinePassed with what is wrong at the end.
    """
    why = ""
    while not deadline.is_past:
        try:
            with find_primary(masters, cluster, deadline, credentials) as link:
                while not deadline.is_past:
                    snapshot = snapshot_of(link, deadline)
                    found = view.problems(snapshot)
                    running = sum(n.state is NodeState.RUNNING and n.node >> 24 == Role.STORAGE for n in snapshot.nodes)
                    if not found and running >= storages:
                        return snapshot
                    why = "; ".join(found) or f"{running} of {storages} storages are in service"
                    link.told(Deadline(min(_AGAIN_S, deadline.left_s)))
        except (PeerLost, NotReady, DeadlinePassed) as error:
            why = why or str(error)
    raise DeadlinePassed(f"after {deadline.timeout_s:g} s: {why}")


def nodes(cli: Cli) -> int:
    """Show every node."""
    with cli.connect() as link:
        snapshot = snapshot_of(link, cli.deadline)
    columns = ("node", "name", "address", "state", "since", "")
    cli.show(
        view.nodes_json(snapshot.nodes),
        lambda: render.print_table(cli.out, columns, view.nodes_rows(snapshot, time())),
    )
    return OK


def partitions(cli: Cli) -> int:
    """Show the partition table."""
    with cli.connect() as link:
        snapshot = snapshot_of(link, cli.deadline)

    def for_people() -> None:
        render.print_lines(cli.out, view.table_lines(snapshot, cli.out.width))
        if snapshot.table.partitions:
            render.print_lines(cli.out, ["", view.table_legend(snapshot.table)])

    cli.show(view.table_json(snapshot.table), for_people)
    return PROBLEM if snapshot.cluster.rows_not_ready else OK


def replication(cli: Cli) -> int:
    """Show the cells that are being copied."""
    with cli.connect() as link:
        told = link.ask(AskReplication(), AnswerReplication, cli.deadline)
    columns = ("partition", "to", "from", "done", "copied", "speed", "left")

    def for_people() -> None:
        if told.copies:
            render.print_table(cli.out, columns, view.replication_rows(told))
        render.print_lines(cli.out, view.replication_text(told))

    cli.show(view.replication_json(told), for_people)
    return PROBLEM if told.copies or told.waiting else OK


def scrub(cli: Cli, *, is_start: bool) -> int:
    """Show how far the scrubs are and what they have found; with *is_start*, begin them now."""
    with cli.connect() as link:
        told = link.ask(AskScrub(is_start), AnswerScrub, cli.deadline)
    found = view.scrub_findings(told)

    def for_people() -> None:
        if is_start:
            render.print_lines(cli.out, ["Every storage begins to scrub: see `neoadmin scrub status`."])
        elif not told.storages:
            render.print_lines(cli.out, ["No storage has scrubbed since this primary reigns."])
        else:
            columns = ("storage", "pass", "revisions", "read", "last ended")
            render.print_table(cli.out, columns, view.scrub_rows(told, time()))
        if found:
            render.print_lines(cli.out, ["", *found])

    cli.show(view.scrub_json(told), for_people)
    return PROBLEM if any(not finding.is_rebuilt for finding in told.findings) else OK


def ids(cli: Cli) -> int:
    """Show the ids that the cluster has given."""
    with cli.connect() as link:
        cluster = link.ask(AskCluster(), AnswerCluster, cli.deadline)
    cli.show(view.cluster_json(cluster), lambda: render.print_pairs(cli.out, view.ids_rows(cluster, time())))
    return OK


def start(cli: Cli, reason: str) -> int:
    """Start the cluster with the storages that are there."""
    with cli.connect() as link:
        text = link.ask(AskStart(reason), AnswerStart, cli.deadline).text
    cli.show({"text": text}, lambda: render.print_lines(cli.out, [text]))
    return OK


def stop(cli: Cli, reason: str) -> int:
    """Stop the cluster cleanly: what is under way ends, then every node exits with status 0."""
    with cli.connect() as link:
        text = link.ask(AskStop(reason), AnswerStop, cli.deadline).text
    cli.show({"text": text}, lambda: render.print_lines(cli.out, [text]))
    return OK


def transactions(cli: Cli, count: int) -> int:
    """Show the last transactions, newest first: asked from one readable storage per partition, and merged."""
    with cli.connect() as link:
        snapshot = snapshot_of(link, cli.deadline)
    told = ask_transactions(cli, snapshot, count)
    columns = ("tid", "time (UTC)", "objects", "user", "description")

    def for_people() -> None:
        render.print_table(cli.out, columns, view.transactions_rows(told))
        if told.missing:
            render.print_problems(cli.out, [f"{len(told.missing)} partitions could not be asked"])

    cli.show(view.transactions_json(told), for_people)
    return PROBLEM if told.missing else OK


def ask_transactions(cli: Cli, snapshot: view.Snapshot, count: int) -> view.Transactions:
    """Ask the storages for the last *count* transactions."""
    running = {n.node: n for n in snapshot.nodes if n.state in (NodeState.RUNNING, NodeState.LEAVING)}
    table = snapshot.table
    by_node: dict[NodeId, list[Partition]] = {}
    missing: list[Partition] = []
    for number in range(table.partitions):
        partition = Partition(number)
        node = next((n for n in table.readable(partition) if n in running), None)
        if node is None:
            missing.append(partition)
        else:
            by_node.setdefault(node, []).append(partition)
    parts: list[list[Transaction]] = []
    for node, mine in sorted(by_node.items()):
        with cli.link(running[node].address) as storage:
            parts.append(_last_of(storage, snapshot.cluster.epoch, tuple(mine), count, cli.deadline))
    return view.Transactions(view.merged(parts, count), tuple(missing))


def _last_of(
    storage: Link, epoch: Epoch, mine: tuple[Partition, ...], count: int, deadline: Deadline
) -> list[Transaction]:
    found: list[Transaction] = []
    stop = MAX_TID
    while len(found) < count:
        asked = AskTransactions(epoch, mine, NO_TID, stop, True, True, False, count - len(found))
        answer = storage.ask(asked, AnswerTransactions, deadline)
        found += answer.transactions
        if not answer.next:
            break
        stop = answer.next
    return found


def pack(cli: Cli, until: float, reason: str, wait: bool) -> int:
    """Pack history up to the Unix time *until*; show progress while it goes on."""
    with cli.connect() as link:
        order = link.ask(AskPack(tid_from_time(until), reason), AnswerPack, cli.deadline).order
        state = link.ask(AskPackState(), AnswerPackState, cli.deadline)
        if wait:
            state = _follow_pack(cli, link, state)
    if state.order != order:
        raise NotReady(f"pack {order} is no longer the last one: another was ordered meanwhile")
    cli.show(view.pack_json(state), lambda: render.print_lines(cli.out, [view.pack_text(state)]))
    return OK


def _follow_pack(cli: Cli, link: Link, state: AnswerPackState) -> AnswerPackState:
    """Show a bar until the pack of *state* has ended."""
    columns = TextColumn("packing"), BarColumn(), MofNCompleteColumn(), TextColumn("cells"), TimeElapsedColumn()
    order = state.order
    with Progress(*columns, console=cli.err, transient=True, disable=cli.as_json or not cli.err.is_terminal) as bar:
        task = bar.add_task("", total=None)
        while state.order == order and (not state.cells_total or state.cells_done < state.cells_total):
            bar.update(task, total=state.cells_total or None, completed=state.cells_done)
            look = Deadline(_PACK_LOOK_S)
            while link.told(look) is not None:
                pass  # changes of nodes or table: not what is waited for
            state = link.ask(AskPackState(), AnswerPackState, cli.deadline)
        bar.update(task, total=state.cells_total, completed=state.cells_done)
    return state


def pack_status(cli: Cli) -> int:
    """Show how far the last pack is."""
    with cli.connect() as link:
        state = link.ask(AskPackState(), AnswerPackState, cli.deadline)
    cli.show(view.pack_json(state), lambda: render.print_lines(cli.out, [view.pack_text(state)]))
    return OK


def debug(cli: Cli, name: str, trace: bool) -> int:
    """Show what a node waits for, holds and queues. *name*: its name, or its id as in `S2`."""
    address = _address(cli, name)
    with cli.link(address) as link:
        told = link.ask(AskDebug(), AnswerDebug, cli.deadline).json
    value = daemon_json(told)
    if not trace:
        value.pop("trace", None)
    cli.show(value, lambda: render.print_yaml(cli.out, value))
    return OK


def daemon_json(text: str) -> dict[str, Any]:
    """Read a node's JSON. (Any: its shape may change.)"""
    value = json.loads(text)
    assert isinstance(value, dict)
    return value


def _address(cli: Cli, name: str) -> str:
    """Return where node *name* listens: from the configuration, so that it works without a primary, or from that."""
    if cli.config_path:
        for node in cli.config().nodes:
            if name in (node.name, node_text(node.node)):
                return node.address
    with cli.connect() as link:
        found: tuple[NodeInfo, ...] = link.ask(AskNodes(), AnswerNodes, cli.deadline).nodes
    for info in found:
        if name in (info.name, node_text(info.node)) and info.address:
            return info.address
    known = ", ".join(view.node_label(n) for n in found if n.address)
    raise ConfigError(f"there is no node {name!r} that listens; there are {known}")


# ------------------------------------------------------------------------------------------------ configuration


def config_check(cli: Cli) -> int:
    """Say whether the configuration is right, or everything that is wrong in it."""
    try:
        config = cli.config()
    except ConfigProblems as error:
        if not cli.as_json:
            raise
        render.print_json(cli.out, {"ok": False, "problems": [p._asdict() for p in error.problems]})
        return USAGE
    said = f"{config.path} is right: {len(config.masters)} masters, {len(config.storages)} storages"
    cli.show({"ok": True, "problems": []}, lambda: render.print_lines(cli.out, [said]))
    return OK


def config_show(cli: Cli) -> int:
    """Show the whole configuration as it counts: defaults, file, environment and options together."""
    tree = shown(cli.config())
    cli.show(tree, lambda: render.print_yaml(cli.out, tree))
    return OK


def config_sample(cli: Cli) -> int:
    """Print a commented file with every key at its default."""
    cli.out.file.write(reference.sample())
    return OK


def config_reference(cli: Cli) -> int:
    """Print the page of documentation of every key."""
    cli.out.file.write(reference.page())
    return OK


# ------------------------------------------------------------------------------------------------ this host


def supervisor(cli: Cli, host: str, run: bool) -> int:
    """Write the configuration of supervisord for the nodes of *host*."""
    config = cli.config()
    chosen = nodes_of_host(config, host)
    paths = supervise.write(config, chosen)
    command = f"supervisord -c {shlex.quote(paths.configuration)}"
    if run:
        supervisord = Supervisord(paths)
        try:
            if supervisord.is_running:
                raise SupervisorError("supervisord runs already; to take what is new in its file: supervisorctl update")
            supervisord.start()
        finally:
            supervisord.close()
    value = {"configuration": paths.configuration, "nodes": [n.name for n in chosen], "command": command}
    lines = [f"{paths.configuration} runs {', '.join(n.name for n in chosen)}."]
    lines.append("supervisord is started." if run else f"Start it:  {command}")
    cli.show(value, lambda: render.print_lines(cli.out, lines))
    return OK


def node(cli: Cli, action: str, names: Sequence[str]) -> int:
    """Start, stop or restart nodes of this host through supervisord (all, if none is named), or show them."""
    config = cli.config()
    supervisord = Supervisord(supervise.paths_of(config))
    try:
        here = {process.name for process in supervisord.processes()}
        known = [n.name for n in config.nodes if n.name in here]
        for name in names:
            if name not in known:
                raise ConfigError(f"supervisord of this host has no node {name!r}; it has {', '.join(known)}")
        chosen = [name for name in known if not names or name in names]
        if action in ("stop", "restart"):
            for name in reversed(chosen):
                supervisord.stop_node(name)
        if action in ("start", "restart"):
            for name in chosen:
                supervisord.start_node(name)
        by_name = {process.name: process for process in supervisord.processes()}
        processes = [by_name[name] for name in chosen]
    finally:
        supervisord.close()
    rows = [(p.name, p.state, str(p.pid or "-"), p.description) for p in processes]
    cli.show(
        [p._asdict() for p in processes],
        lambda: render.print_table(cli.out, ("name", "state", "pid", ""), rows),
    )
    wanted = ("STOPPED", "EXITED") if action == "stop" else ("RUNNING",)
    return OK if all(p.state in wanted for p in processes) else PROBLEM


def up(cli: Cli, directory: Path, shape: local.Shape, wait_s: float) -> int:
    """Start a cluster on this machine, wait until it runs, and say how to open and stop it."""
    directory = directory.absolute()
    config = local.make(directory, shape)
    supervisord = local.start(config)
    try:
        wait_well(config.master_addresses, config.cluster.name, len(config.storages), Deadline(wait_s))
    except NeoError as error:
        told = local.excuses(config, supervisord)
        stop_it = f"It is left as it is: look, then neoadmin down --directory {shlex.quote(str(directory))}"
        raise DeadlinePassed(f"the cluster does not run {error}\n{told}\n{stop_it}") from error
    finally:
        supervisord.close()
    command = f"neoadmin down --directory {shlex.quote(str(directory))}"
    value = {
        "uri": local.uri(config),
        "config": config.path,
        "directory": str(directory),
        "zconfig": local.zconfig(config),
        "python": local.python(config),
        "stop": command,
        "nodes": {n.name: n.address for n in config.nodes},
    }

    def for_people() -> None:
        say = f"Cluster {config.cluster.name!r} runs in {directory}: {', '.join(n.name for n in config.nodes)}."
        render.print_lines(cli.out, [say, "", "URI", f"  {local.uri(config)}", "", "Python"])
        render.print_lines(cli.out, [f"  {local.python(config)}", "", "zope.conf"])
        render.print_lines(cli.out, [f"  {line}" for line in local.zconfig(config).splitlines()])
        look = f"neoadmin --config {shlex.quote(config.path)} status"
        render.print_lines(cli.out, ["", f"Look at it:  {look}", f"Stop it:     {command}"])

    cli.show(value, for_people)
    return OK


def down(cli: Cli, directory: Path, wait_s: float, erase: bool) -> int:
    """Stop the cluster that `up` has started in *directory*, cleanly; what it holds stays, unless erased."""
    directory = directory.absolute()
    if not (directory / local.FILE).exists():
        said = f"There is no cluster in {directory}."
        cli.show({"stopped": False, "erased": False}, lambda: render.print_lines(cli.out, [said]))
        return OK
    config = load(directory / local.FILE)
    stopped = local.stop(config, wait_s)
    if erase:
        local.erase(directory)
    said = "The cluster has stopped" if stopped else "The cluster was not running"
    said += f"; {directory} is removed." if erase else f"; {directory} keeps its data."
    cli.show({"stopped": stopped, "erased": erase}, lambda: render.print_lines(cli.out, [said]))
    return OK


# ------------------------------------------------------------------------------------------------ protection


def secret(cli: Cli, path: Path) -> int:
    """Make a file with a new secret."""
    # Loading cryptography takes longer than most commands.
    from neo_admin.certificates import write_secret  # noqa: PLC0415

    write_secret(path)
    said = f"{path} has a new secret: copy it to every host, and name it in the configuration: security.secret_file"
    cli.show({"file": str(path)}, lambda: render.print_lines(cli.out, [said]))
    return OK


def certs(cli: Cli, directory: Path, days: float, clients: Sequence[str], renew: bool) -> int:
    """Make the authority of the cluster, and a certificate for each node, for neoadmin and for clients."""
    from neo_admin.certificates import AUTHORITY, Authority  # noqa: PLC0415

    config = cli.config()
    cluster = config.cluster.name
    wanted = {node.name: Identity(cluster, node.role, node.name) for node in config.nodes}
    wanted[CREDENTIALS_NAME] = Identity(cluster, Role.ADMIN, CREDENTIALS_NAME)
    for client in clients:
        if client in wanted or client == AUTHORITY:
            raise ConfigError(f"--client {client}: that is another certificate's name")
        wanted[client] = Identity(cluster, Role.CLIENT)
    authority = Authority(directory, cluster)
    made = {stem: str(wanted[stem]) for stem in wanted if renew or not authority.has(stem)}
    for stem in made:
        authority.issue(stem, wanted[stem], days)

    def for_people() -> None:
        rows = [(stem, identity) for stem, identity in made.items()]
        render.print_table(cli.out, ("certificate", "is for"), rows)
        left = len(wanted) - len(made)
        lines = [f"{left} others are there already (--renew makes them anew)."] if left else []
        lines += [
            f"Each host needs {directory}/ca.crt, and certificate and key of its own nodes. Keep ca.key away from all.",
            "security:",
            f"  tls_ca: {directory}/ca.crt",
            f"  tls_certificate: {directory}/{{name}}.crt",
            f"  tls_key: {directory}/{{name}}.key",
        ]
        render.print_lines(cli.out, lines)

    cli.show({"directory": str(directory), "made": made, "authority_is_new": authority.is_new}, for_people)
    return OK


# ------------------------------------------------------------------------------------------------ the daemon


def serve(cli: Cli, name: str) -> int:
    """Run the admin daemon called *name*."""
    config = cli.config()
    logging = config.logging
    return daemon.run(
        lambda: AdminShell(config, name, credentials_of(config, name, cli.environ)),
        name=name,
        level=logging.level,
        as_json=logging.format == "json",
    )
