"""Who may use a server: by TCP and password, with no more privileges than needed; and what is said to who may not."""

import json
import re
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from ZODB.DB import DB

from neo_common.errors import BackendLost
from neo_common.ids import Oid
from neo_common.states import Role
from neo_common.wire.schema import AskDebug
from neo_storage.backends import logical
from support.backend_contract import P0, T1, T2, commit, write
from support.cluster import Cluster
from support.door import DATABASE, HOST, PASSWORD, USER, Door
from support.raw_client import RawConnection
from support.server_kinds import EVERY

DEADLINE_S = 30.0
TABLES = ", ".join(table.name for table in logical.TABLES)


@pytest.fixture(params=EVERY)
def door(request: pytest.FixtureRequest) -> Iterator[Door]:
    door = Door(request.param)
    yield door
    door.server.end()


def test_first_start_needs_create_and_running_does_not(door: Door) -> None:
    door.allow_creation()
    backend = door.backend()
    backend.open()
    backend.apply([commit(T1, write(0, b"a"))], 0)
    backend.close()
    if door.is_mysql:
        door.admin(f"REVOKE CREATE ON {DATABASE}.* FROM {USER}@'{HOST}'")
    else:
        door.admin(f"REVOKE CREATE ON SCHEMA public FROM {USER}")
    backend = door.backend()
    backend.open()
    backend.apply([commit(T2, write(0, b"b", T1))], 1)
    assert backend.checkpoint() == 1
    assert backend.current(P0, Oid(0)) == T2
    backend.reconnect()
    backend.close()


def test_server_that_is_read_only_is_as_one_that_is_away(door: Door) -> None:
    """Failed over to a copy that follows: it is looked for until it can be written."""
    door.allow_creation()
    backend = door.backend()
    backend.open()
    backend.claim()
    backend.apply([commit(T1, write(0, b"a"))], 0)
    for is_on, said in (("1", "read-only"), ("0", "")):
        if door.is_mysql:
            door.server.execute(f"SET GLOBAL read_only = {is_on}")
        else:
            door.server.execute(f"ALTER DATABASE {DATABASE} SET default_transaction_read_only = {is_on}")
        assert backend._writing is not None
        backend._writing.close()  # PostgreSQL's counts for new sessions
        backend.reconnect()
        if said:
            with pytest.raises(BackendLost, match=said):
                backend.apply([commit(T2, write(0, b"b", T1))], 1)
    backend.apply([commit(T2, write(0, b"b", T1))], 1)
    assert backend.current(P0, Oid(0)) == T2
    backend.close()


def test_missing_privileges_are_told_with_the_grant_to_issue(door: Door) -> None:
    account = f"'{USER}'@'{HOST}'"
    if door.is_mysql:
        assert f"TO {account}" in door.refusal()  # it may not even see the database
        door.allow("SELECT, INSERT, UPDATE, DELETE")
        assert re.search(rf"CREATE command denied.*GRANT SELECT.*CREATE.* TO {account}", door.refusal())
        door.allow("CREATE")
        door.open_once()
    else:
        assert "GRANT CONNECT ON DATABASE" in door.refusal()
        door.allow("", f"CONNECT ON DATABASE {DATABASE}")
        assert "GRANT USAGE, CREATE ON SCHEMA public" in door.refusal()
        door.allow("", "CREATE ON SCHEMA public")
        door.open_once()


def test_each_privilege_that_running_needs_is_looked_for_at_the_start(door: Door) -> None:
    door.allow_creation()
    door.open_once()
    if not door.is_mysql:  # the tables may belong to somebody else
        door.admin(f"REASSIGN OWNED BY {USER} TO neo")
        door.allow("", f"SELECT, INSERT, UPDATE, DELETE ON {TABLES}")
        door.open_once()
    for missing in ("SELECT", "INSERT", "UPDATE", "DELETE"):
        if door.is_mysql:
            door.admin(f"REVOKE {missing} ON {DATABASE}.* FROM {USER}@'{HOST}'")
        else:
            door.admin(f"REVOKE {missing} ON {TABLES} FROM {USER}")
        assert "GRANT SELECT, INSERT, UPDATE, DELETE" in door.refusal(), missing
        door.allow(missing, f"{missing} ON {TABLES}")
    door.open_once()


def test_strangers_are_told_what_is_wrong(door: Door) -> None:
    wrong = door.refusal(password="guessed")
    assert "no such user, or another password" in wrong
    assert "guessed" not in wrong
    door.allow("SELECT, INSERT, UPDATE, DELETE, CREATE", f"CONNECT ON DATABASE {DATABASE}")
    if not door.is_mysql:  # MariaDB does not say what databases there are
        assert "CREATE DATABASE NAME OWNER USER" in door.refusal(database="nowhere")


@pytest.mark.parametrize("source", ["password_file", "password_variable"])
def test_password_is_in_no_command_line_log_or_answer(door: Door, source: str, tmp_path: Path) -> None:
    door.allow_creation()
    secret = tmp_path / "secret"
    secret.write_text(f"{PASSWORD}\n")
    value = str(secret) if source == "password_file" else "S1_PASSWORD"
    with Cluster(
        tmp_path / "c",
        databases=[{**door.settings(), source: value}],
        environ={"S1_PASSWORD": PASSWORD} if source == "password_variable" else {},
        settings={"logging": {"level": "DEBUG"}},
    ) as cluster:
        db = DB(cluster.open())
        with db.transaction() as connection:
            connection.root()["x"] = 1
        said = [Path(f"/proc/{p.pid}/cmdline").read_bytes().decode() for p in cluster.processes.values()]
        with closing(RawConnection(cluster.addresses["s1"], role=Role.ADMIN)) as storage:
            told = storage.ask(AskDebug()).json
        disk = json.loads(told)["storage"]["disk"]
        assert disk["database_free"].startswith("unknown, as no server tells")
        assert disk["free"] <= 1.2 * disk["log_free"]
        assert "the room left for the database is unknown" in (cluster.directory / "s1.log").read_text()
        said.append(told)
        door.server.kill()  # errors are said too
        with db.transaction() as connection:
            connection.root()["x"] = 2
        db.close()
        deadline = time.monotonic() + DEADLINE_S
        while "the database is away" not in (cluster.directory / "s1.log").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        door.server.start()
    said += [(cluster.directory / f"{name}.log").read_text() for name in cluster.names]
    assert all(said)
    assert not [text for text in said if PASSWORD in text]
