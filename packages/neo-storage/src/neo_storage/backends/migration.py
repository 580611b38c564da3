"""From an older format to the present one, step by step. Pure.

A step may be repeated: a process killed within it does it again at the next start. The format is written when all its
steps are done, so a database says of itself how far it is. No other program opens it meanwhile: it is ours alone.

`new_table` and `new_column` make such steps. One that rewrites rows does so in slices, a transaction each, and finds by
the rows themselves where to go on. Not every server rolls back a change of its tables (MariaDB does not): nothing else
belongs into the transaction of one.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from neo_common.errors import BackendError
from neo_storage.backends import logical
from neo_storage.backends.database import Database
from neo_storage.backends.dialect import Statement
from neo_storage.backends.kept import check_format

Step = Callable[[Database], None]


class Migration(NamedTuple):
    """From one format to the next. `minimum_reader`: the lowest FORMAT of a program that reads what comes out."""

    minimum_reader: int
    steps: tuple[Step, ...]


MIGRATIONS: dict[int, Migration] = {}
"""By the format that they begin with. There is only one format so far."""


def new_table(table: logical.Table) -> Step:
    """Return the step that makes *table*, unless it is there."""

    def step(db: Database) -> None:
        with db.transaction("migration"):
            if not db.columns(table.name):
                for text in db.statements.dialect.create(table):
                    db.run(Statement(text))

    return step


def new_column(table: logical.Table, column: logical.Column) -> Step:
    """Return the step that gives *table* one more column, without values, unless it has it."""
    assert column.is_null, "the rows that are there have no value for it"

    def step(db: Database) -> None:
        with db.transaction("migration"):
            if column.name not in db.columns(table.name):
                db.run(Statement(db.statements.dialect.add_column(table, column)))

    return step


def migrate(db: Database, what: str, migrations: Mapping[int, Migration] = MIGRATIONS) -> None:
    """Bring the database *what* to the present format, if it is older.

    One of a newer format that says that this program may read it is left as it is.
    Raises: BackendError when it is for newer programs, or so old that nothing leads here from it; DataCorrupted.
    """
    config = db.config()
    check_format(config, what)
    written = config["format"]
    assert isinstance(written, int), "it was checked"
    while written < logical.FORMAT:
        migration = migrations.get(written)
        if migration is None:
            oldest = min(migrations, default=logical.FORMAT)
            raise BackendError(
                f"{what} has format {written}, too old for this program, which reads {oldest} or above: open it with an"
                " older NEO first"
            )
        # Before the first step: an older program must not open what is half new.
        if config["minimum_reader"] != migration.minimum_reader:
            with db.transaction("migration"):
                db.set_config({"minimum_reader": migration.minimum_reader})
        for step in migration.steps:
            step(db)
        written += 1
        with db.transaction("migration"):
            db.set_config({"format": written})
        config = db.config()
