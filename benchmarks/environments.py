"""Virtual environments of their own for peers that must not share ours, in `.venv/peers/`.

They are made when they are first wanted, and again when what goes into them has changed. NEO/py 1.12 is made for Python
2.7: it is looked for as NEOPY_PYTHON says, as `python2.7`, and where pyenv keeps it.
"""

import glob
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(sys.prefix) / "peers"
INSTALL_S = 900.0


class Unavailable(Exception):
    """A peer cannot be measured here; says why."""


class Environment(NamedTuple):
    """What to install, in this order: each group must be there before the next is built."""

    name: str
    groups: tuple[tuple[str, ...], ...]
    is_python2: bool = False


RELSTORAGE = Environment("relstorage", (("RelStorage>=4", "psycopg2-binary>=2.9.9"),))
NEOPY = Environment(
    "neopy",
    (
        # persistent is built with cffi, of which the newest source does not compile for 2.7; six is not declared.
        ("cffi<1.16", "six", "python-dateutil<2.9"),
        # ZODB before 5.6, as it was when this NEO/py was made; mysqlclient 1.4 is the last for 2.7.
        ("neoppod==1.12.0", "ZODB3>=3.11", "ZODB<5.6", "ZEO<6", "mysqlclient<2"),
    ),
    is_python2=True,
)


def python_of(environment: Environment) -> Path:
    """Return the interpreter of *environment*, made first if need be. Raises: Unavailable."""
    folder = FOLDER / environment.name
    mark = folder / "made-of"
    wanted = repr(environment.groups)
    python = folder / "bin" / "python"
    if mark.exists() and mark.read_text() == wanted:
        return python
    sys.stderr.write(f"installing {environment.name} in {folder}\n")
    shutil.rmtree(folder, ignore_errors=True)
    if environment.is_python2:
        _make_python2(folder)
    else:
        _run([sys.executable, "-m", "venv", str(folder)])
    for group in environment.groups:
        _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *group])
    mark.write_text(wanted)
    return python


def _make_python2(folder: Path) -> None:
    """Make an environment of Python 2.7, with the last virtualenv that can."""
    found = _python2()
    tools = FOLDER / "tools"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, "--upgrade", "--target", str(tools), "virtualenv<20.22"])
    command = [sys.executable, "-m", "virtualenv", "--quiet", "--no-periodic-update", "-p", found, str(folder)]
    _run(command, {"PYTHONPATH": str(tools)})


def _python2() -> str:
    """Return a Python 2.7 that runs. Raises: Unavailable."""
    pyenv = os.environ.get("PYENV_ROOT", str(Path.home() / ".pyenv"))
    found = sorted(glob.glob(f"{pyenv}/versions/2.7*/bin/python2.7"), reverse=True)
    for program in filter(None, (os.environ.get("NEOPY_PYTHON"), shutil.which("python2.7"), *found)):
        check = [program, "-c", "import sys; assert sys.version_info[:2] == (2, 7)"]
        if subprocess.run(check, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0:
            return program
    raise Unavailable("it needs Python 2.7, and there is none here; NEOPY_PYTHON may name one")


def _run(command: list[str], environ: dict[str, str] | None = None) -> None:
    """Run a program to its end. Raises: Unavailable with the end of what it has said."""
    try:
        done = subprocess.run(
            command,
            check=False,
            timeout=INSTALL_S,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environ or {})},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{' '.join(command)}: {error}") from error
    if done.returncode:
        said = done.stdout.decode(errors="replace").strip().splitlines()
        raise Unavailable(f"{' '.join(command)} has failed:\n    " + "\n    ".join(said[-8:]))
