"""The five distributions as a user gets them: wheels, installed with pip into an empty environment."""

import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

PACKAGES = Path(__file__).parents[2] / "packages"
NAMES = ("neo-common", "neo-master", "neo-storage", "neo-client", "neo-admin")
pytestmark = pytest.mark.timeout(600)


def run(*command: object) -> str:
    """Run a program that must succeed; return what it says."""
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, f"{command}:\n{done.stdout[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheels of all five, built from a copy: building leaves files behind."""
    folder = tmp_path_factory.mktemp("wheels")
    generated = shutil.ignore_patterns("build", "*.egg-info", "*.so", "*.c", "__pycache__")
    for name in NAMES:
        source = shutil.copytree(PACKAGES / name, folder / "source" / name, ignore=generated)
        run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, source)
    return folder


def test_only_the_common_package_is_tied_to_a_platform(wheels: Path) -> None:
    tied = {w.name.split("-")[0] for w in wheels.glob("*.whl") if not w.name.endswith("-none-any.whl")}
    assert len(list(wheels.glob("*.whl"))) == len(NAMES)
    assert tied == {"neo_common"}


def test_the_client_installs_and_runs_without_the_servers(wheels: Path, tmp_path: Path) -> None:
    """It opens far enough to say whom it has asked in vain."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--find-links", wheels, "neo-client")
    listed = run(python, "-m", "pip", "list", "--format", "freeze").lower()
    assert "neo-client==" in listed
    assert "neo-common==" in listed
    assert not [name for name in ("neo-master", "neo-storage", "neo-admin", "supervisor") if f"{name}==" in listed]
    program = (
        "import neo_client\n"
        "try: neo_client.open('neo://none@127.0.0.1:1', wait_timeout=0.5)\n"
        "except neo_client.errors.ClusterUnavailable as error: print(error)\n"
    )
    assert "127.0.0.1:1: Connection refused" in run(python, "-c", program)
