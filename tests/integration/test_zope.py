"""A real Zope on a real cluster: two instances, through HTTP, see each other's changes; undo, history, pack."""

import re
from html import unescape
from pathlib import Path

import pytest

from support.cluster import Cluster
from support.ports import hold_ports
from support.zope import Zope


def create(zope: Zope, name: str) -> None:
    zope.post(
        "/manage_addProduct/OFSP/manage_addDTMLMethod", [("id", name), ("title", "first title"), ("submit", "Add")]
    )


def edit(zope: Zope, name: str, text: str) -> None:
    zope.post(f"/{name}/manage_edit", [("title", "a note"), ("data:text", text)])


def undoable(zope: Zope) -> list[str]:
    """Return what the undo form offers, newest first."""
    page = zope.get("/Control_Panel/Database/main/manage_UndoForm")
    return [unescape(value) for value in re.findall(r'name="transaction_info:list"[^>]*value="([^"]*)"', page)]


def revisions(zope: Zope, name: str) -> list[str]:
    """Return the keys of the object's history, newest first."""
    return re.findall(r'value="([^"]*)" name="keys:list"', zope.get(f"/{name}/manage_change_history_page"))


def use(one: Zope, other: Zope) -> None:
    """What a site manager does, on two instances of one database."""
    create(one, "note")
    edit(one, "note", "version one")
    assert one.get("/note").strip() == "version one"
    assert other.get("/note").strip() == "version one", "the other instance does not see what was created"
    edit(other, "note", "version two")
    assert one.get("/note").strip() == "version two", "an instance does not see the change of the other one"

    last = undoable(one)[0]
    assert "manage_edit" in last
    one.post("/Control_Panel/Database/main/manage_undo_transactions", [("transaction_info:list", last)])
    assert other.get("/note").strip() == "version one"

    edit(other, "note", "version three")
    keys = revisions(one, "note")
    assert len(keys) == 5, "created, edited, edited, undone, edited"
    assert "version two" in one.get(f"/note/HistoricalRevisions/{keys[2]}/manage_main")

    one.post("/Control_Panel/Database/main/manage_pack", [("days:float", "0")])
    assert len(revisions(other, "note")) == 1, "packing has left old revisions"
    assert one.get("/note").strip() == other.get("/note").strip() == "version three"


@pytest.mark.timeout(180)
def test_two_zopes_share_a_cluster(tmp_path: Path) -> None:
    with Cluster(tmp_path / "cluster", storages=2, replicas=1) as cluster:
        section = cluster.zconfig_section()
        with (
            Zope(tmp_path / "one", section, hold_ports(1)[0]) as one,
            Zope(tmp_path / "other", section, hold_ports(1)[0]) as other,
        ):
            use(one, other)
