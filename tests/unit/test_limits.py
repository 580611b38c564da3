"""Every key of `limits` reaches what enforces it. That each is enforced is tested where it is: see `ENFORCED`."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from neo_common.config.keys import keys_of
from neo_common.config.loader import load
from neo_common.config.sections import Limits
from neo_common.runtime.limits import shell_limits_of
from neo_master.shell import settings_of as master_settings
from neo_storage.shell import settings_of as storage_settings

TESTS = Path(__file__).parents[1]
MB = 2**20
CONFIG = """\
cluster: {name: test}
masters: {m1: {address: 127.0.0.1:1}}
storages: {s1: {address: 127.0.0.1:2, disk_reserve: 7MB}}
limits:
  object: 1MB
  transaction: 2MB
  transaction_age: 13s
  connections: 14
  strangers: 5
  hello: 5000
  requests: 16
  output: 17MB
  undecided: 18MB
  overlay: 19MB
  moves: 20
"""
ENFORCED = {
    "object": "test_storage_votes.py::test_wrong_value_is_refused_for_good",
    "transaction": "test_storage_votes.py::test_transaction_above_the_limit_is_refused",
    "transaction_age": "test_storage_locks.py::test_vote_above_the_age_is_reported_though_nobody_waits",
    "connections": "test_runtime.py::test_too_many_are_told_so",
    "strangers": "test_strangers.py::test_one_more_stranger_cuts_off_the_oldest",
    "hello": "test_strangers.py::test_what_is_kept_of_a_stranger_is_bounded",
    "requests": "test_session.py::test_requests_without_answer_are_bounded_on_both_sides",
    "output": "test_runtime.py::test_output_beyond_its_bound_cuts_the_connection",
    "undecided": "test_storage_votes.py::test_too_many_undecided_bytes_are_refused",
    "overlay": "test_storage_votes.py::test_votes_wait_while_the_applier_is_behind",
    "moves": "test_master_moves.py::test_no_storage_copies_more_cells_at_a_time_than_allowed",
}


def test_every_limit_of_the_configuration_reaches_its_place(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(CONFIG)
    config = load(path)
    assert all(getattr(config.limits, f.name) != f.default for f in fields(Limits)), "the test sets every key"
    shell = shell_limits_of(config)
    assert (shell.connections_max, shell.strangers_max, shell.connection.output_max) == (14, 5, 17 * MB)
    session = shell.connection.session
    assert (session.hello_max, session.pending_max) == (5000, 16)
    storage = storage_settings(config, config.storage("s1"))
    assert (storage.object_bytes, storage.transaction_bytes, storage.transaction_age_s) == (MB, 2 * MB, 13.0)
    assert (storage.undecided_bytes, storage.overlay_bytes, storage.disk_reserve_bytes) == (18 * MB, 19 * MB, 7 * MB)
    master = master_settings(config)
    assert (master.clients_max, master.parked_max, master.moves_max) == (14, 14, 20)


@pytest.mark.parametrize("key", keys_of(Limits))
def test_every_limit_has_a_test(key: str) -> None:
    """A list, so that a new key without a test is noticed; and so that the tests that are named are there."""
    file, _, name = ENFORCED[key].partition("::")
    (path,) = TESTS.rglob(file)
    assert re.search(rf"^def {name}\(", path.read_text(), re.MULTILINE), f"{file} has no {name}"
