"""`python -m support.formats`: write the golden files of the present formats, those that are not there."""

# ruff: noqa: T201 - a program that prints

import argparse
import shutil
from pathlib import Path

from support.formats import golden, servers


def make_databases(folder: Path) -> None:
    """Write a database of each kind."""
    golden.make_database(folder)
    servers.make_dumps(folder)


def main() -> None:
    """Write what is missing."""
    parser = argparse.ArgumentParser(prog="python -m support.formats", description=__doc__)
    parser.add_argument(
        "--again", action="store_true", help="write those of the present formats again: only if no release wrote them"
    )
    is_again = parser.parse_args().again
    for folder, make in (
        (golden.database_folder(), make_databases),
        (golden.log_folder(), golden.make_log),
        (golden.journal_folder(), golden.make_journal),
        (golden.notes_folder(), golden.make_notes),
    ):
        if folder.exists() and is_again:
            shutil.rmtree(folder)
        if folder.exists():
            print(f"{folder} is there")
        else:
            make(folder)
            print(f"{folder} written")


if __name__ == "__main__":
    main()
