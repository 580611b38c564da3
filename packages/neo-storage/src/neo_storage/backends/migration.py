"""From an older format to the present one, step by step. Pure.

A step may be repeated: a process killed within it does it again at the next start. The format is written when all its
steps are done, so a database says of itself how far it is. No other program opens it meanwhile: it is ours alone.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from neo_storage.backends import logical
from neo_storage.backends.database import Database
from neo_storage.backends.kept import check_format

Step = Callable[[Database], None]


class Migration(NamedTuple):
    """From one format to the next. `minimum_reader`: the lowest FORMAT of a program that reads what comes out."""

    minimum_reader: int
    steps: tuple[Step, ...]


MIGRATIONS: Mapping[int, Migration] = {}
"""By the format that they begin with. There is only one format so far."""


def migrate(db: Database, what: str, migrations: Mapping[int, Migration] = MIGRATIONS) -> None:
    """Bring the database *what* to the present format, if it is older.

    Raises: BackendError when it is for newer programs, or so old that nothing leads here from it; DataCorrupted.
    """
    config = db.config()
    check_format(config, what)
    written = config["format"]
    assert isinstance(written, int), "it was checked"
    while written in migrations:
        migration = migrations[written]
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
    assert written >= logical.FORMAT or migrations is not MIGRATIONS, "every older format has a migration"
