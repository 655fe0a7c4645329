"""What `dfs local` remembers, and the lock that keeps two of them apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from dfs.errors import Code, Failure
from dfs.local import state
from dfs.local.layout import MOUNT, Member, Root, default_root
from dfs.local.state import CHUNKSERVERS_MAX, MASTERS_MAX, MOUNTS_MAX, PORTS, State


def test_state_is_read_back_as_it_was(tmp_path: Path) -> None:
    root, made = Root(str(tmp_path)), State("local", 20_000, 3, 4, {2: "/mnt/größer"})
    state.save(root, made)
    assert state.load(root) == made


def test_no_cluster_is_told_from_a_damaged_state(tmp_path: Path) -> None:
    root = Root(str(tmp_path))
    assert state.load(root) is None
    with pytest.raises(Failure, match="no cluster in") as failure:
        state.must_load(root)
    assert failure.value.code is Code.CONFIG
    for text in ("", "[]", "{}", '{"magic": "dfs-local", "version": 99}'):
        (tmp_path / "cluster.json").write_text(text)
        with pytest.raises(Failure, match="is damaged"):
            state.load(root)


def test_a_mount_keeps_its_number() -> None:
    made = State("local", 20_000, 3, 3)
    assert made.mount_at("/a") == Member(MOUNT, 1)
    assert made.mount_at("/b") == Member(MOUNT, 2)
    assert made.mount_at("/a") == Member(MOUNT, 1)


def test_no_two_servers_share_a_port() -> None:
    made = State("local", 20_000, MASTERS_MAX, CHUNKSERVERS_MAX)
    assert len(set(made.ports())) == MASTERS_MAX + CHUNKSERVERS_MAX
    assert made.address(Member("master", 1)) == "127.0.0.1:20000"


def test_metrics_have_ports_of_their_own() -> None:
    made = State("local", 0, MASTERS_MAX, CHUNKSERVERS_MAX)
    made.take_ports(20_000)
    made.mounts = {number: f"/{number}" for number in range(1, MOUNTS_MAX + 2)}
    mounts = [made.metrics_address(member) for member in made.mount_members()]
    assert mounts.pop() == ""  # one mount too many
    ports = made.ports() + [int(address.rpartition(":")[2]) for address in mounts]
    assert len(set(ports)) == 2 * (MASTERS_MAX + CHUNKSERVERS_MAX) + MOUNTS_MAX
    assert max(ports) < 20_000 + PORTS


def test_a_cluster_of_an_older_program_shows_no_metrics(tmp_path: Path) -> None:
    root = Root(str(tmp_path))
    made = State("local", 20_000, 3, 4, {1: "/mnt"})
    state.save(root, made)
    path = tmp_path / "cluster.json"
    path.write_text(path.read_text().replace('"metrics_port": 0', '"other": 0'))
    assert "metrics_port" not in path.read_text()
    read = state.must_load(root)
    assert [read.metrics_address(member) for member in read.members()] == [""] * 7


def test_the_lock_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    root = Root(str(tmp_path))
    with (
        state.locked(root),
        pytest.raises(Failure, match="another `dfs local`"),
        state.locked(root),
    ):
        pytest.fail("both have it")
    with state.locked(root):
        pass


def test_the_lock_of_no_root_is_no_cluster(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="no cluster in"), state.locked(Root(str(tmp_path / "none"))):
        pytest.fail("locked what is not there")


def test_the_default_root_is_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/someone")
    assert default_root() == "/home/someone/.local/share/dfs"
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert default_root() == "/data/dfs"
