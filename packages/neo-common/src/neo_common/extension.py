"""Compiled extensions: whether to use them, and whether those found were built from the sources beside them.

The only reader of NEO_PURE_PYTHON besides setup.py.
"""

import hashlib
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Final

PURE: Final = os.environ.get("NEO_PURE_PYTHON") == "1"
"""The operator has chosen the reference implementations."""

_MEND: Final = (
    "build it with `python -m pip install -e packages/neo-common` in a checkout, or install the wheel again with "
    "`python -m pip install --force-reinstall neo-common`; NEO_PURE_PYTHON=1 chooses the slow reference instead"
)


def fingerprint(source: bytes) -> str:
    """Return what an extension built from *source* carries as `SOURCE` (setup.py computes the same)."""
    return hashlib.sha256(source).hexdigest()


class Extension:
    """Around the import of the extension *name*: an error of ours when it is missing or stale.

    Stale means that its .pyx stands beside it (an editable installation) and is not what it was built from.
    Raises: ImportError with the command that mends it.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, ImportError):
            raise ImportError(f"the compiled extension {self._name} cannot be loaded ({error}): {_MEND}") from error
        if error is None:
            self._check()

    def _check(self) -> None:
        module = sys.modules[self._name]
        assert module.__file__ is not None
        source = Path(module.__file__).with_name(f"{self._name.rpartition('.')[2]}.pyx")
        if source.exists() and fingerprint(source.read_bytes()) != module.SOURCE:
            raise ImportError(f"the compiled extension {self._name} is stale, built from another source: {_MEND}")
