"""Hostile peers on every port, while somebody else goes on committing: see `support.fuzz`.

pytest tests/integration/test_fuzz.py --fuzz-seconds 3600 --fuzz-seed 7        for hours, with other attacks
"""

from pathlib import Path

import pytest

from support.cluster import Cluster
from support.fuzz import fuzz


@pytest.mark.timeout(0)
def test_hostile_peers_harm_nobody(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """Every daemon lives, with bounded memory and no traceback; the honest client gets on; its data is as it left it,
    in memory and on disk.
    """
    seconds, seed = pytestconfig.getoption("--fuzz-seconds"), pytestconfig.getoption("--fuzz-seed")
    with Cluster(tmp_path / "cluster", storages=2, replicas=1, admins=1) as cluster:
        fuzzer = fuzz(cluster, seconds, seed)
    for name in ("m1", "s1", "s2", "a1"):
        for way in ("garbage", "early", "packets of a ADMIN"):
            assert fuzzer.tried[f"{name} {way}"], (name, way, fuzzer.tried)
    for name in ("m1", "s1", "s2"):
        for way in ("replay", "packets of a CLIENT", "packets of a STORAGE"):
            assert fuzzer.tried[f"{name} {way}"], (name, way, fuzzer.tried)


@pytest.mark.timeout(0)
def test_who_is_taken_for_a_master_harms_nobody_while_another_reigns(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """Two masters of three run, and the attacker says that he is the third. Both have their journals afterwards."""
    seconds, seed = pytestconfig.getoption("--fuzz-seconds"), pytestconfig.getoption("--fuzz-seed")
    with Cluster(tmp_path / "cluster", masters=3, storages=2, replicas=1) as cluster:
        cluster.kill("m3")
        fuzzer = fuzz(cluster, seconds, seed)
        cluster.start("m3")
        cluster.kill("m1")
        cluster.open(wait_timeout=60).close()
    for name in ("m1", "m2"):
        for way in ("garbage", "early", "packets of a MASTER"):
            assert fuzzer.tried[f"{name} {way}"], (name, way, fuzzer.tried)
    for role in ("CLIENT", "STORAGE"):  # only who reigns lets them in
        assert fuzzer.tried[f"m1 packets of a {role}"] + fuzzer.tried[f"m2 packets of a {role}"], fuzzer.tried


@pytest.mark.timeout(0)
@pytest.mark.parametrize("protection", ["tls", "secret"])
def test_strangers_get_nowhere(tmp_path: Path, pytestconfig: pytest.Config, protection: str) -> None:
    """The same attacks by who has neither certificate nor secret: nobody is let in, in whatever role."""
    seconds, seed = pytestconfig.getoption("--fuzz-seconds") / 2, pytestconfig.getoption("--fuzz-seed")
    with Cluster(tmp_path / "cluster", storages=2, replicas=1, admins=1, protection=protection) as cluster:
        fuzzer = fuzz(cluster, seconds, seed)
        assert all("not let in" in how for how in fuzzer.tried if "packets" in how), fuzzer.tried
        for name in cluster.names:
            said = (cluster.directory / f"{name}.log").read_text(errors="replace")
            assert "name=hostile" not in said
            assert "name=s77" not in said
