"""The Data.fs that the demo copies: the one given, or one that Zope makes."""

import subprocess
import sys
import sysconfig
from pathlib import Path


def make_data_fs(directory: Path) -> Path:
    """Make a Zope instance in *directory*, load Python's own sources into it, and return the path of its Data.fs.

    One that is there already, complete, is used again.
    """
    instance, programs = directory / "zope", Path(sys.executable).parent
    data_fs, complete = instance / "var" / "Data.fs", instance / "complete"
    if complete.exists():
        return data_fs
    data_fs.unlink(missing_ok=True)
    run([programs / "mkwsgiinstance", "-d", instance, "-u", "admin:admin"])
    script = Path(__file__).with_name("load_sources.py")
    run([programs / "zconsole", "run", instance / "etc" / "zope.conf", script, sysconfig.get_paths()["stdlib"]])
    complete.write_text("made by the demo\n")
    return data_fs


def run(command: list[object]) -> None:
    """Run *command*; show what it printed only if it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} ended with status {done.returncode}:\n{done.stdout}{done.stderr}")
