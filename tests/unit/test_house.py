"""Rules of the house that no other tool checks."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = sorted((ROOT / "packages").iterdir())
SOURCES = sorted(p for package in PACKAGES for p in (package / "src").rglob("*.py"))
DAEMONS = ("neo_master", "neo_storage", "neo_admin")


def project(package: Path) -> dict[str, object]:
    """Return the [project] table of a package."""
    table = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    assert isinstance(table, dict)
    return table


def test_the_five_packages_have_one_version() -> None:
    """In pyproject.toml, in `__version__`, and where they require each other."""
    versions = {package.name: project(package)["version"] for package in PACKAGES}
    assert len(versions) == 5
    assert len(set(versions.values())) == 1, versions
    (version,) = set(versions.values())
    for package in PACKAGES:
        init = package / "src" / package.name.replace("-", "_") / "__init__.py"
        assert f'__version__ = "{version}"' in init.read_text(), init
        needs = project(package).get("dependencies", [])
        assert isinstance(needs, list)
        ours = [need for need in needs if need.startswith("neo-")]
        assert ours == ([] if package.name == "neo-common" else [f"neo-common=={version}"]), package


def test_every_package_has_types_for_others() -> None:
    for package in PACKAGES:
        assert (package / "src" / package.name.replace("-", "_") / "py.typed").exists()


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT / "packages")))
def test_every_module_says_what_it_is(path: Path) -> None:
    assert path.read_text().lstrip().startswith(('"""', 'r"""')), "a module begins with a docstring"


def test_only_main_modules_patch_the_standard_library() -> None:
    """The client lives in somebody else's process, and what is imported for a test must not change it."""
    for path in SOURCES:
        patches = re.search(r"^\s*(gevent\.)?monkey\.patch_", path.read_text(), re.MULTILINE) is not None
        assert patches == (path.name == "__main__.py" and path.parent.name in DAEMONS), path


def test_only_main_modules_read_the_environment_besides_the_choice_of_codec() -> None:
    allowed = {"__main__.py", "extension.py"}
    for path in SOURCES:
        if path.name not in allowed:
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
                    assert node.attr not in ("environ", "getenv"), f"{path}:{node.lineno}"


def test_compiled_and_generated_files_are_not_committed() -> None:
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {"*.so", "packages/*/build/", "*.egg-info/"} <= set(ignored)


def test_every_page_that_is_linked_exists() -> None:
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_ci_runs_make_test_and_nothing_cleverer() -> None:
    assert (ROOT / ".ci" / "run").read_text() == "#!/bin/sh\nexec make test\n"
