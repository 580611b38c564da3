"""`make demo`: start a cluster on this machine and do a real ZODB job on it.

Ends with status 0 only if everything that was read back is what was written.
"""

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table
from ZODB.DB import DB
from ZODB.FileStorage import FileStorage

from demo import job
from demo.source import make_data_fs

NEOADMIN = str(Path(sys.executable).parent / "neoadmin")
console = Console()


def main() -> int:
    """Run the demo; return its exit status."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument(
        "--directory", type=Path, default=Path(".demo"), help="where the cluster and the sample live (default: .demo)"
    )
    parser.add_argument("--source", type=Path, help="a Data.fs to copy (default: one that Zope makes)")
    parser.add_argument("--stop", action="store_true", help="stop the cluster at the end instead of leaving it running")
    arguments = parser.parse_args()
    directory = arguments.directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)

    source = arguments.source
    if source is None:
        with step("Zope makes a Data.fs from the sources of Python"):
            source = make_data_fs(directory)
    cluster = directory / "cluster"
    with step("A cluster starts: 1 master, 2 storages with 1 replica, 1 admin, under supervisord"):
        neoadmin("down", "--directory", str(cluster), "--erase", check=False)
        up = json.loads(
            neoadmin(
                "up",
                "--directory",
                str(cluster),
                "--name",
                "demo",
                "--masters",
                "1",
                "--storages",
                "2",
                "--replicas",
                "1",
                "--admins",
                "1",
                "--json",
            )
        )
    try:
        run(source, up["uri"])
    except job.Different as error:
        console.print(f"[red bold]DIFFERENT[/]: {error}")
        return 1
    console.rule("The cluster")
    subprocess.run([NEOADMIN, "--config", up["config"], "status"], check=True)
    subprocess.run([NEOADMIN, "--config", up["config"], "partitions"], check=True)
    if arguments.stop:
        neoadmin("down", "--directory", str(cluster))
        console.print("The cluster is stopped.")
    else:
        console.rule("It is yours")
        config = shlex.quote(up["config"])
        console.print(
            f"From Python:    import neo_client, ZODB; db = ZODB.DB(neo_client.open({up['uri']!r}))", highlight=False
        )
        console.print(f"As a URI:       {up['uri']}", highlight=False)
        console.print("In zope.conf:", highlight=False)
        console.print(up["zconfig"], highlight=False, markup=False)
        console.print(f"Look at it:     {NEOADMIN} --config {config} status", highlight=False)
        console.print(f"Stop it:        {NEOADMIN} down --directory {shlex.quote(str(cluster))}", highlight=False)
    return 0


def run(source: Path, uri: str) -> None:
    """The job itself, step by step. Raises: job.Different."""
    origin = FileStorage(str(source), read_only=True)
    size = origin.getSize()
    target = job.open_storage(uri)
    console.print(f"Source: {source}, {size / 2**20:.1f} MB", highlight=False)
    with bar("copying", size) as advance:
        amount = job.copy(origin, target, advance)
    console.print(f"copied    {amount}")
    with bar("comparing", size) as advance:
        amount = job.compare(origin, target, advance)
    console.print(f"compared  {amount}: all the same")
    origin.close()
    db = DB(target)
    table = Table("question", "answer", title="Queries")
    for row in job.query(db):
        table.add_row(*row)
    console.print(table)
    with step(f"{job.EDITORS} processes edit the same objects at once"):
        done, seconds = job.edit_from_processes(db, uri)
    retries = sum(e.retries for e in done)
    commits = sum(e.commits for e in done)
    console.print(f"edited    {commits} commits in {seconds:.1f} s with process start, {retries} retried, none lost")
    console.print(f"undone    {job.undo_last(db)!r}")
    with step("Packing, with garbage collection"):
        packed = job.pack(db)
    console.print(
        f"packed    {packed.before} revisions to {packed.after} in {packed.seconds:.1f} s; nothing is missing"
    )
    db.close()


def neoadmin(*words: str, check: bool = True) -> str:
    """Run neoadmin and return what it printed; its errors are shown and end the demo."""
    done = subprocess.run([NEOADMIN, *words], stdout=subprocess.PIPE, text=True, timeout=120, check=False)
    if check and done.returncode:
        raise SystemExit(f"neoadmin {words[0]} ended with status {done.returncode}")
    return done.stdout


@contextmanager
def step(text: str) -> Iterator[None]:
    """Say what is being done, and how long it took."""
    began = time.monotonic()
    console.print(f"{text} ...", highlight=False)
    yield
    console.print(f"  {time.monotonic() - began:.1f} s")


@contextmanager
def bar(text: str, total: int) -> Iterator[job.Advance]:
    """A progress bar over *total* bytes; full at the end, whatever the overhead of the file."""
    columns = (
        TextColumn("{task.description:10}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(text, total=total)
        yield lambda amount: progress.advance(task, amount)
        progress.update(task, completed=total)


if __name__ == "__main__":
    sys.exit(main())
