"""What every workload offers: a generator, the transaction itself, and a checker."""

import random
from typing import Any, Protocol

from support.nemesis.history import Facts


class Workload(Protocol):
    """One kind of transaction, as one session makes it.

    `asked` and `seen` are JSON values. `apply` runs in a transaction of its own, which is committed after it if
    `changes(asked)`. Generator and checker are pure.
    """

    name: str

    def set_up(self, root: Any) -> None:
        """Put what it needs into an empty database."""

    def next(self, rng: random.Random, session: str, number: int) -> Any:
        """Return what to do."""

    def changes(self, asked: Any) -> bool:
        """Whether *asked* is a transaction that stores something."""

    def apply(self, connection: Any, asked: Any) -> Any:
        """Do it; return what was seen."""

    def final(self, root: Any) -> Any:
        """Read what there is at the end."""

    def check(self, facts: Facts) -> list[str]:
        """Return what is wrong."""
