"""A migration as the next format may have one, and what it must come to: for tests of the machinery."""

from typing import Final

from neo_storage.backends import logical, migration
from neo_storage.backends.database import Database
from neo_storage.backends.logical import TRANS, Column, Index, Table
from neo_storage.backends.migration import Migration, new_column, new_table

NEXT: Final = logical.FORMAT + 1
AGES: Final = Table(
    "ages",
    (Column("partition"), Column("tid"), Column("age", is_null=True)),
    ("partition", "tid"),
    (Index("ages_age", ("age", "partition")),),
)
AGE: Final = Column("age", is_null=True)
_SLICE: Final = 3


def _fill(db: Database) -> None:
    """Give each transaction its age, a few at a time: those without one are still to be done."""
    statement = db.statements.dialect.statement
    left = statement(f'SELECT "partition", tid FROM trans WHERE age IS NULL LIMIT {_SLICE}')
    change = statement('UPDATE trans SET age = tid + 1 WHERE "partition" = ?1 AND tid = ?2')
    while True:
        with db.transaction("migration"):
            rows = db.rows(left)
            for row in rows:
                db.run(change, row)
        if not rows:
            return


def _copy(db: Database) -> None:
    """Put the ages into a table of their own."""
    with db.transaction("migration"):
        rows = db.rows(db.statements.dialect.statement('SELECT "partition", tid, age FROM trans'))
        db.run_many(db.statements.dialect.insert(AGES), rows)


STEPS: Final = (new_table(AGES), new_column(TRANS, AGE), _fill, _copy)


def install(minimum_reader: int = NEXT) -> None:
    """Make this process a program of the next format."""
    logical.FORMAT = NEXT  # type: ignore[misc]  # Final for everybody else
    migration.MIGRATIONS[NEXT - 1] = Migration(minimum_reader, STEPS)


def uninstall() -> None:
    """Make it one of the present format again."""
    logical.FORMAT = NEXT - 1  # type: ignore[misc]
    migration.MIGRATIONS.pop(NEXT - 1, None)


def check(db: Database) -> None:
    """Fail unless *db* is what comes out."""
    statement = db.statements.dialect.statement
    rows = sorted(db.rows(statement('SELECT "partition", tid, age FROM trans')))
    assert rows, "it was not empty"
    assert all(age == tid + 1 for _, tid, age in rows), rows
    assert sorted(db.rows(statement('SELECT "partition", tid, age FROM ages'))) == rows
    assert db.config()["format"] == NEXT
