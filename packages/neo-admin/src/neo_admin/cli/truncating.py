"""`neoadmin truncate`: order it, and see that it was done. Returns the exit status."""

from typing import Final

from neo_admin.cli import render
from neo_admin.cli.commands import OK, PROBLEM, Cli, snapshot_of
from neo_admin.core import view
from neo_admin.link import Deadline
from neo_common.errors import DeadlinePassed, NotReady, PeerLost
from neo_common.ids import Tid
from neo_common.model.partition_table import PartitionTable
from neo_common.states import ClusterState
from neo_common.wire.schema import AnswerTruncate, AskTruncate

_LOOK_S: Final = 0.3


def truncate(cli: Cli, tid: Tid, reason: str) -> int:
    """Truncate, wait until the cluster runs, and say whether it was done. An order may be lost with its primary."""
    with cli.connect() as link:
        former = snapshot_of(link, cli.deadline).table
        text = link.ask(AskTruncate(tid, reason), AnswerTruncate, cli.deadline).text
    if not cli.as_json:
        render.print_lines(cli.err, [text])
    table = wait_running(cli, former)
    is_done = table.orders.cut == tid and table.orders.cut_at > former.version
    said = f"Every transaction above {view.hex_id(tid)} is cut off."
    if not is_done:
        said = "Nothing was cut off: the primary was lost before any storage had heard of it. Order it again."
    cli.show({"truncated": is_done, "tid": view.hex_id(tid)}, lambda: render.print_lines(cli.out, [said]))
    return OK if is_done else PROBLEM


def wait_running(cli: Cli, former: PartitionTable) -> PartitionTable:
    """Wait until the cluster is RUNNING under another reign than *former*'s; return its table.

    Raises: DeadlinePassed with what it waits for.
    """
    deadline = Deadline(6 * cli.timeout_s)
    why = "it has not begun"
    while not deadline.is_past:
        try:
            with cli.connect() as link:
                while not deadline.is_past:
                    snapshot = snapshot_of(link, cli.deadline)
                    is_new = snapshot.table.version.epoch > former.version.epoch
                    if snapshot.cluster.state is ClusterState.RUNNING and is_new:
                        return snapshot.table
                    why = f"the cluster is {snapshot.cluster.state.name}: {snapshot.cluster.reason}"
                    link.told(Deadline(_LOOK_S))
        except (PeerLost, NotReady, DeadlinePassed) as error:
            why = str(error)
    raise DeadlinePassed(f"after {deadline.timeout_s:g} s: {why}")
