"""What every test run does: name the codec in use, refuse a stale extension, and fail on skips when asked to."""

import gc
from pathlib import Path

import pytest

from neo_common.wire.codec import frame

_CROWDED = ("race", "Thread", "gevent")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--no-skips`: what `make check` and `make test` promise was then really run."""
    parser.addoption("--fuzz-seconds", type=float, default=20.0, help="how long hostile peers attack, per cluster")
    parser.addoption("--fuzz-seed", type=int, default=1, help="which attacks they make")
    parser.addoption("--no-skips", action="store_true", help="fail when a test was skipped")


def pytest_configure(config: pytest.Config) -> None:
    """Name the mark of what takes hours; collect cycles less often, which makes simulations 6 % faster."""
    gc.set_threshold(20_000, 20, 20)
    config.addinivalue_line("markers", "soak: an hour or more; run by `make soak` or `pytest -m soak`, else left out")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark as slow what needs real daemons: `make check` leaves it out, `make test` runs it.

    A few processes run these (`--dist loadgroup`). The tests of one file of `integration` share its clusters, and so a
    process; tests with dozens of threads or greenlets, each a client, are never two at once: what fails then is the
    clock.
    """
    for item in items:
        parts = Path(item.nodeid.partition("::")[0]).parts
        if {"integration", "nemesis", "zodb"} & set(parts):
            item.add_marker(pytest.mark.slow)
        if "integration" in parts:
            item.add_marker(pytest.mark.xdist_group(parts[-1]))
        elif "nemesis" in parts or ("zodb" in parts and any(word in item.name for word in _CROWDED)):
            item.add_marker(pytest.mark.xdist_group("crowds"))
    if "soak" not in config.option.markexpr:
        long = [item for item in items if item.get_closest_marker("soak")]
        if long:
            config.hook.pytest_deselected(items=long)
            items[:] = [item for item in items if item not in long]


def pytest_report_header() -> str:
    """Name the codec: figures and failures mean something else under the other one.

    A missing or stale extension has raised its ImportError by now, with the command that mends it.
    """
    return f"neo codec: {frame.__module__}"


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Turn skips into a failure under `--no-skips`."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or not session.config.getoption("--no-skips"):
        return
    skipped = reporter.stats.get("skipped", [])
    if skipped and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        reporter.write_line(f"--no-skips: {len(skipped)} tests were skipped", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
