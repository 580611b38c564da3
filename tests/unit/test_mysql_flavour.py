"""MariaDB or MySQL: what is chosen for each by what the server says of itself."""

import pytest

from neo_storage.backends.mysql.flavour import Flavour, flavour_of, unsafe
from neo_storage.backends.mysql.queries import QUERIES
from support.sql_lint import unbound

IDENTITIES = {
    "10.11.6-MariaDB-0+deb12u1": Flavour(True, (10, 11, 6)),
    "11.8.2-MariaDB-ubu2404-log": Flavour(True, (11, 8, 2)),
    "8.0.36-0ubuntu0.22.04.1": Flavour(False, (8, 0, 36)),
    "8.0.36-28": Flavour(False, (8, 0, 36)),  # Percona's
    "8.4.3": Flavour(False, (8, 4, 3)),
    "5.7.44-log": Flavour(False, (5, 7, 44)),
}
MARIADB, MYSQL, OLD = (flavour_of(version) for version in ("10.11.6-MariaDB", "8.4.3", "5.7.44-log"))
UPSERTS = ("set_config", "add_decisions", "add_tombstones", "set_pack")
SAFE = {
    "innodb_flush_log_at_trx_commit": 1,
    "log_bin": 1,
    "sync_binlog": 1,
    "innodb_doublewrite": "ON",
    "innodb_flush_method": "O_DIRECT",
}


@pytest.mark.parametrize("version", IDENTITIES)
def test_server_is_known_by_its_version(version: str) -> None:
    assert flavour_of(version) == IDENTITIES[version]


def test_new_rows_have_a_name_where_the_function_values_is_to_go() -> None:
    """MySQL since 8.0.20 warns of VALUES(column), and MariaDB knows nothing else."""
    for name in UPSERTS:
        many = getattr(QUERIES, name)
        assert MARIADB.form(many) is OLD.form(many) is many
        assert "VALUES(" in many.tail
        theirs = MYSQL.form(many)
        assert (theirs.head, theirs.row) == (many.head, many.row)
        assert theirs.tail.startswith(" AS new ON DUPLICATE KEY UPDATE ")
        assert "VALUES(" not in theirs.tail
        assert theirs.tail.count("new.") == many.tail.count("VALUES(")
        assert unbound(theirs.single) == []
    assert MYSQL.form(QUERIES.add_tombstones).tail == (
        ' AS new ON DUPLICATE KEY UPDATE "attempt" = greatest(tombstones."attempt", new."attempt")'
    )


def test_other_statements_are_the_same_for_both() -> None:
    for name in ("add_trans", "add_obj", "add_data", "drop_data", "drop_obj", "drop_empty_trans"):
        many = getattr(QUERIES, name)
        assert MYSQL.form(many) is many


def test_connection_begins_with_what_the_server_knows() -> None:
    isolation = "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ"
    for flavour in (MARIADB, MYSQL, OLD):
        first, second = flavour.session
        assert first == isolation
        assert "SESSION wait_timeout = 31536000" in second
        assert ("max_statement_time" in second) == flavour.is_mariadb
        assert ("max_execution_time" in second) != flavour.is_mariadb
        assert ("information_schema_stats_expiry" in second) == (flavour is MYSQL)


def test_only_mariadb_prepares_by_sql() -> None:
    assert (MARIADB.can_prepare, MYSQL.can_prepare) == (True, False)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ""),
        ({"innodb_doublewrite": "DETECT_AND_RECOVER"}, ""),
        ({"log_bin": 0, "sync_binlog": 0}, ""),
        ({"Innodb_redo_log_enabled": "ON"}, ""),
        ({"innodb_flush_log_at_trx_commit": 2}, "innodb_flush_log_at_trx_commit is 2, must be 1"),
        ({"sync_binlog": 0}, "sync_binlog is 0, must be 1"),
        ({"innodb_doublewrite": "DETECT_ONLY"}, "innodb_doublewrite is DETECT_ONLY, must be on"),
        ({"innodb_doublewrite": 0}, "innodb_doublewrite is off, must be on"),
        ({"innodb_flush_method": "nosync"}, "innodb_flush_method is nosync"),
        ({"Innodb_redo_log_enabled": "OFF"}, "its redo log is off: ALTER INSTANCE ENABLE"),
    ],
)
def test_unsafe_settings_of_both_are_named(changes: dict[str, object], said: str) -> None:
    found = unsafe({**SAFE, **changes})
    assert len(found) == bool(said)
    assert said in "".join(found)
