"""Fetching MySQL for the tests never fails and never hangs; without it one line says so, once a day."""

import os
import subprocess
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "support/install_mysql.sh"


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder of programs that are found first. The `mysqld` there is MariaDB's."""
    folder = tmp_path / "programs"
    folder.mkdir()
    put(folder, "mysqld", "echo 'mysqld  Ver 10.11.6-MariaDB'")
    put(folder, "dpkg-deb", "exit 1")
    return folder


def put(folder: Path, name: str, text: str) -> None:
    """Make a program."""
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def install(programs: Path, target: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the script."""
    path = os.pathsep.join([str(programs), os.environ["PATH"]])
    command, all_of_it = [str(SCRIPT), str(target)], {**os.environ, "PATH": path, **environ}
    return subprocess.run(command, env=all_of_it, capture_output=True, text=True, timeout=60, check=True)


def test_without_packages_one_line_says_so_once(programs: Path, tmp_path: Path) -> None:
    put(programs, "apt-get", "exit 100")
    target = tmp_path / "servers"
    said = install(programs, target).stderr
    assert said.startswith("MySQL itself is not tested here: no package of it could be fetched (")
    assert said.count("\n") == 1
    assert sorted(path.name for path in target.iterdir()) == ["mysql.missing", "mysql.missing.log"]
    assert install(programs, target).stderr == ""
    yesterday = time.time() - 2 * 86_400
    os.utime(target / "mysql.missing", (yesterday, yesterday))
    assert install(programs, target).stderr == said


def test_network_that_hangs_is_given_up(programs: Path, tmp_path: Path) -> None:
    put(programs, "apt-get", "exec sleep 50")
    said = install(programs, tmp_path / "servers", LIMIT_S="1").stderr
    assert said == "MySQL itself is not tested here: its packages did not come within 1 s\n"


def test_a_mysql_that_is_there_is_used(programs: Path, tmp_path: Path) -> None:
    put(programs, "apt-get", "exit 100")
    put(programs, "mysqld", "echo '/usr/sbin/mysqld  Ver 8.0.44 for Linux on x86_64 (MySQL Community Server - GPL)'")
    assert install(programs, tmp_path / "servers").stderr == ""
    assert not (tmp_path / "servers").exists()
