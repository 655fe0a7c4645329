"""`dfs status` and `dfs info`, on a cluster that is well."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Dfs

pytestmark = pytest.mark.mount


def test_a_healthy_cluster_is_safe(dfs: Dfs) -> None:
    status = dfs.json("status")
    assert (status["state"], status["problems"]) == ("safe", [])
    assert len(status["leader"]["servers"]) == 3
    assert dfs.ok("status")[0] == "cluster local: SAFE, every chunk has all its copies"
    assert dfs("status", "--check") == 0


def test_the_digest_of_the_state_is_shown_when_asked(dfs: Dfs) -> None:
    assert dfs.json("status")["masters"][0]["status"]["state_digest"] == ""
    assert dfs.json("status", "--digest")["masters"][0]["status"]["state_digest"]


def test_a_cluster_that_is_not_there_is_unavailable_in_one_line(
    dfs: Dfs, cluster: Path, tmp_path: Path
) -> None:
    config = tmp_path / "client.toml"
    config.write_text(
        f'cluster = "x"\nkey_file = "{cluster}/cluster.key"\nmasters = ["127.0.0.1:1"]\n'
    )
    assert dfs("status", "--config", config) == 3
    assert (
        dfs.out.decode().splitlines()[0] == "cluster x: UNAVAILABLE, nothing can be read or changed"
    )
    assert dfs("ls", "--config", config, "--timeout", "0.5") == 3
    assert len(dfs.err.splitlines()) == 1


def test_a_wrong_key_is_told(dfs: Dfs, cluster: Path, tmp_path: Path) -> None:
    config = tmp_path / "client.toml"
    (tmp_path / "key").write_text("not the cluster's key at all\n")
    text = (cluster / "client.toml").read_text()
    config.write_text(text.replace(str(cluster / "cluster.key"), str(tmp_path / "key")))
    assert dfs("ls", "--config", config, "--timeout", "0.5") == 3
    assert len(dfs.err.splitlines()) == 1


def test_servers_and_disks_are_listed_and_what_cannot_be_done_is_told(dfs: Dfs) -> None:
    servers = dfs.json("node", "list")
    assert [(s["id"], s["alive"], s["mode"]) for s in servers] == [
        (id, True, "in-service") for id in (1, 2, 3)
    ]
    assert [(d["server"], d["healthy"]) for d in dfs.json("disk", "list", 2)] == [(2, True)]
    for id, why in ((1, "is alive"), (9, "no chunkserver has the id 9; there are: 1, 2, 3")):
        assert dfs("node", "remove", id, "--yes") == 2
        assert why in dfs.err
        assert len(dfs.err.splitlines()) == 1


def test_the_replicas_of_a_file_agree(dfs: Dfs) -> None:
    dfs.write(":/file", b"some data" * 100_000)
    (info,) = dfs.json("info", ":/file")
    (chunk,) = info["chunks"]
    assert len(chunk["replicas"]) == 3
    assert len({replica["checksum"] for replica in chunk["replicas"]}) == 1
    assert {replica["length_bytes"] for replica in chunk["replicas"]} == {900_000}
    assert chunk["problems"] == []


def test_a_tree_is_added_up(dfs: Dfs) -> None:
    dfs.ok("mkdir", "-p", ":/a/b")
    dfs.write(":/a/b/file", b"x" * 1000)
    dfs.write(":/a/file", b"x" * 500)
    sums = {entry["path"]: entry["bytes"] for entry in dfs.json("du", "--apparent-size", ":/a")}
    below, top = sums[dfs.path(":/a/b")], sums[dfs.path(":/a")]
    assert below >= 1000
    assert top >= below + 500
    assert len(dfs.ok("du", "-s", "-h", ":/a")) == 1
