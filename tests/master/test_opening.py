"""A master's state on a real disk that is damaged, foreign or unusable: one clear line each."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dfs.config import Master
from dfs.errors import Code, Failure
from dfs.runtime import WriteBatch
from dfs.runtime.real import RealEnv
from master import tables as names
from master.opening import open_store
from master.raft import formats
from master.store import META, Store
from tests.master.test_dump import many_inodes

PAGE_BYTES = 4096
ID = 7


@pytest.fixture
def config(tmp_path: Path) -> Master:
    """Of a master whose state holds some thousand inodes."""
    (tmp_path / "key").write_text("0123456789abcdef")
    masters = {str(ID): "127.0.0.1:1"}
    made = Master("c", ID, "127.0.0.1:0", str(tmp_path / "data"), str(tmp_path / "key"), masters)
    (tmp_path / "data").mkdir()
    store = Store.open(RealEnv("t"), state_of(made), made.raft)
    store.write_now(many_inodes(1, 5000))
    store.write_now(WriteBatch({META: {b"format": formats.FORMAT, b"nonce": b"n" * 16}}))
    store.close()
    return made


def state_of(config: Master) -> str:
    return f"{config.data_dir}/state.mdb"


def edit(config: Master, change: Callable[[bytearray], None]) -> None:
    path = Path(state_of(config))
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)


def opened(config: Master) -> Store:
    env = RealEnv("t")
    try:
        return open_store(env, config)
    finally:
        env.disk.unlock_all()


def cut(data: bytearray) -> None:
    del data[len(data) // 2 :]


def cut_in_meta_page(data: bytearray) -> None:
    del data[50:]


def zero_page(data: bytearray) -> None:
    """One in the middle; whatever it is, it is part of a tree that is walked."""
    at = len(data) // 2 // PAGE_BYTES * PAGE_BYTES
    data[at : at + PAGE_BYTES] = bytes(PAGE_BYTES)


def garble_page(data: bytearray) -> None:
    at = len(data) // 2 // PAGE_BYTES * PAGE_BYTES
    data[at : at + PAGE_BYTES] = b"\xa5" * PAGE_BYTES


def garble_head(data: bytearray) -> None:
    data[: 2 * PAGE_BYTES] = b"\xa5" * 2 * PAGE_BYTES


def replace_by_text(data: bytearray) -> None:
    data[:] = b"this is a letter" * 1000


DAMAGE = [
    (cut, "is truncated or damaged"),
    (cut_in_meta_page, "is truncated within its meta pages"),
    (zero_page, "is truncated or damaged"),
    (garble_page, "is truncated or damaged"),
    (garble_head, "is not a store of this program, or its head is damaged"),
    (replace_by_text, "is not a store of this program, or its head is damaged"),
]


@pytest.mark.parametrize(("harm", "told"), DAMAGE, ids=[h.__name__ for h, _ in DAMAGE])
def test_damage_is_named_with_what_to_do(
    config: Master, harm: Callable[[bytearray], None], told: str
) -> None:
    edit(config, harm)
    with pytest.raises(Failure, match=told) as caught:
        opened(config)
    message = caught.value.message
    assert caught.value.code is Code.DISK
    assert state_of(config) in message
    assert f"dfs master remove {ID}" in message
    assert "docs/operations-metadata.md" in message
    assert "\n" not in message


def test_a_sound_state_opens(config: Master) -> None:
    store = opened(config)
    assert sum(1 for _ in store.scan(names.INODES)) == 5000
    store.close()


def test_a_large_state_is_not_read_at_every_start(config: Master) -> None:
    edit(config, zero_page)
    raft = replace(config.raft, verify_below_bytes=1 << 10)
    opened(replace(config, raft=raft)).close()


@pytest.mark.parametrize(
    ("stored", "told"),
    [
        (b"DFSM\0\x09", r"of format b'DFSM\\x00\\t', this program knows b'DFSM\\x00\\x01'"),
        (None, "was not made by this program"),
    ],
)
def test_another_format_is_refused(config: Master, stored: bytes | None, told: str) -> None:
    store = Store.open(RealEnv("t"), state_of(config), config.raft)
    store.write_now(WriteBatch({META: {b"format": stored}}))
    store.close()
    with pytest.raises(Failure, match=told) as caught:
        opened(config)
    assert caught.value.code is Code.DISK


def test_a_directory_in_use_is_no_damage(config: Master) -> None:
    holder = RealEnv("holder")
    holder.disk.lock(f"{config.data_dir}/lock")
    with pytest.raises(Failure, match="in use by another process") as caught:
        opened(config)
    assert caught.value.code is Code.CONFIG
    holder.disk.unlock_all()


def test_damage_met_later_ends_the_master(config: Master) -> None:
    store = opened(config)
    told: list[Failure] = []
    store.on_damage = told.append
    damaged = Failure(Code.DISK, "page 7 is bad")

    def fail(table: str, key: bytes) -> bytes:
        raise damaged

    store._key_value.get = fail  # type: ignore[method-assign]
    with pytest.raises(Failure):
        store.get(names.INODES, b"x")
    assert told == [damaged]
    store.close()


# -- as a process


def run_master(tmp_path: Path, config: Master) -> subprocess.CompletedProcess[str]:
    """`dfs master run`, which is to end by itself."""
    path = tmp_path / "master.toml"
    path.write_text(
        f'cluster = "c"\nid = {ID}\nlisten = "127.0.0.1:0"\ndata_dir = "{config.data_dir}"\n'
        f'key_file = "{config.key_file}"\nmasters = {{ {ID} = "127.0.0.1:1" }}\n'
    )
    words = [sys.executable, "-m", "dfs.cli.main", "master", "run", "--config", str(path)]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(("harm", "told"), DAMAGE, ids=[h.__name__ for h, _ in DAMAGE])
def test_a_master_does_not_start_on_it(
    tmp_path: Path, config: Master, harm: Callable[[bytearray], None], told: str
) -> None:
    edit(config, harm)
    done = run_master(tmp_path, config)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("dfs: the store ") or line.startswith(f"dfs: {state_of(config)} ")
    assert told in line


@pytest.fixture
def read_only(config: Master) -> Iterator[Master]:
    """Its data directory on a file system that is mounted read-only."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    where = config.data_dir
    subprocess.run(["mount", "--bind", where, where], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", where], check=True)
    yield config
    subprocess.run(["umount", where], check=True)


@pytest.mark.mount
def test_a_read_only_directory_is_told(tmp_path: Path, read_only: Master) -> None:
    done = run_master(tmp_path, read_only)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    told = f"dfs: master {ID} cannot use {read_only.data_dir}: Read-only file system"
    assert line.startswith(told)
    assert line.endswith("nothing is lost")


@pytest.fixture
def read_only_file(config: Master) -> Iterator[Master]:
    """Only the state file is on a read-only file system."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    where = state_of(config)
    subprocess.run(["mount", "--bind", where, where], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", where], check=True)
    yield config
    subprocess.run(["umount", where], check=True)


@pytest.mark.mount
def test_a_read_only_state_file_is_told(tmp_path: Path, read_only_file: Master) -> None:
    done = run_master(tmp_path, read_only_file)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "Read-only file system" in line
    assert line.endswith("nothing is lost")
