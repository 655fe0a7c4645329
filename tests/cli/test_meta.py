"""`dfs meta` on a running cluster: dumps that are whole, and what keeps them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Dfs
from tests.local.driver import Local

pytestmark = pytest.mark.mount


def test_a_dump_is_fetched_verified_and_like_the_state(dfs: Dfs, tmp_path: Path) -> None:
    dfs.write(":/file", b"some data")
    path = tmp_path / "dump"
    assert dfs("meta", "dump", path) == 0
    assert dfs.err.splitlines()[-1].startswith(f"{path}: state at ")
    assert dfs.err.splitlines()[-1].endswith(" verified")
    assert [p.name for p in tmp_path.iterdir()] == ["dump"]
    facts = dfs.json("meta", "check", path)
    status = dfs.json("status")["masters"][0]["status"]
    assert facts["cluster"] == "local"
    assert facts["records"]["inodes"] == status["inodes"]
    assert facts["members"] == [{"id": 1, "address": status["leader_address"]}]
    assert dfs.ok("meta", "check", path)[0] == f"{path} is sound."


def test_a_dump_can_go_through_a_pipe(dfs: Dfs, tmp_path: Path) -> None:
    assert dfs("meta", "dump", "-") == 0
    (tmp_path / "dump").write_bytes(dfs.out)
    assert dfs("meta", "check", tmp_path / "dump") == 0


def test_damage_is_told_in_one_line(dfs: Dfs, tmp_path: Path) -> None:
    path = tmp_path / "dump"
    assert dfs("meta", "dump", path) == 0
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert dfs("meta", "check", path) == 1
    assert len(dfs.err.splitlines()) == 1
    assert f"{path} is damaged" in dfs.err
    path.write_text("something else")
    assert dfs("meta", "check", path) == 2
    assert dfs("meta", "check", tmp_path / "nothing") == 1
    assert "No such file" in dfs.err


def test_dumps_are_listed_and_fetched_by_name(dfs: Dfs, tmp_path: Path) -> None:
    assert dfs("meta", "dump", tmp_path / "new") == 0
    (master,) = dfs.json("meta", "snapshots")
    names = [about["name"] for about in master["dumps"]]
    asked = [name for name in names if name.startswith("asked-")]
    assert len(asked) == 1
    assert dfs("meta", "dump", tmp_path / "again", "--snapshot", asked[0]) == 0
    assert (tmp_path / "again").read_bytes() == (tmp_path / "new").read_bytes()
    assert any(asked[0] in line for line in dfs.ok("meta", "snapshots"))
    assert dfs("meta", "dump", tmp_path / "none", "--snapshot", "snapshot-x.dump") == 2
    assert "has no dump" in dfs.err
    assert not (tmp_path / "none").exists()


def test_a_load_wants_an_empty_directory_and_somebody_who_says_yes(
    dfs: Dfs, cluster: Path, tmp_path: Path
) -> None:
    assert dfs("meta", "dump", tmp_path / "dump") == 0
    running = cluster / "master-1.toml"
    assert dfs("meta", "load", tmp_path / "dump", "--config", running, "--yes") == 2
    assert "stop master 1 first" in dfs.err
    text = running.read_text().replace(str(cluster / "master-1"), str(tmp_path / "data"))
    (tmp_path / "master.toml").write_text(text)
    assert dfs("meta", "load", tmp_path / "dump", "--config", tmp_path / "master.toml") == 2
    assert "--yes" in dfs.err
    assert not (tmp_path / "data").exists()


def test_what_was_loaded_can_be_dumped_without_any_master(
    dfs: Dfs, cluster: Path, tmp_path: Path
) -> None:
    assert dfs("meta", "dump", tmp_path / "dump") == 0
    text = (cluster / "master-1.toml").read_text()
    config = tmp_path / "master.toml"
    config.write_text(text.replace(str(cluster / "master-1"), str(tmp_path / "data")))
    driver = Local(tmp_path)  # processes of their own: each holds the directory's lock to its end
    loaded = driver.dfs("meta", "load", tmp_path / "dump", "--config", config, "-y")
    assert loaded.returncode == 0, loaded.stderr
    assert "dfs meta recovered" in loaded.stderr
    dumped = driver.dfs("meta", "dump", tmp_path / "second", "--offline", config)
    assert dumped.returncode == 0, dumped.stderr
    checked = driver.dfs("meta", "check", "--offline", config, "--json")
    assert checked.returncode == 0, checked.stderr
    before = dfs.json("meta", "check", tmp_path / "dump")
    after = dfs.json("meta", "check", tmp_path / "second")
    assert after["records"]["inodes"] == before["records"]["inodes"]
    assert after["lineage"] > before["lineage"] == 0
    assert json.loads(checked.stdout)["digest"] == after["digest"]


def test_without_a_recovery_there_is_nothing_to_end(dfs: Dfs) -> None:
    assert dfs.ok("meta", "recovered", "--yes") == ["no recovery is under way"]


def test_a_running_master_cannot_be_recovered(dfs: Dfs, cluster: Path) -> None:
    assert dfs("master", "recover", "--config", cluster / "master-1.toml", "--yes") == 2
    assert "stop master 1 first" in dfs.err
