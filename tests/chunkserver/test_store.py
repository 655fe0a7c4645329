"""Data directories, health and space, opening many files, what a start finds."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import trio

from chunkserver.chain import Turn
from chunkserver.format import DATA_OFFSET
from chunkserver.store import Store
from dfs.errors import Code, Failure
from dfs.layout import BLOCK_BYTES
from dfs.runtime.real import RealEnv
from tests.chunkserver.stores import get, put, store_on
from tests.conftest import ExpectedLogs


async def _refused(store: Store) -> str:
    with pytest.raises(Failure) as caught:
        await store.start()
    assert caught.value.code is Code.CONFIG
    return caught.value.message


def test_directory_of_another_server_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        await store_on(RealEnv("one"), tmp_path).start()
        (tmp_path / "lock").unlink()
        text = await _refused(store_on(RealEnv("two"), tmp_path, number=2))
        assert "belongs to chunkserver 1 of cluster 'testing'" in text

    trio.run(main)


def test_directory_in_use_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        first = RealEnv("one")
        await store_on(first, tmp_path).start()
        assert "in use" in await _refused(store_on(RealEnv("two"), tmp_path))
        first.disk.unlock_all()
        await store_on(RealEnv("three"), tmp_path).start()

    trio.run(main)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("notes.txt", "mine", "holds 'notes.txt' but no identity.json"),
        ("identity.json", "{", "cannot be read"),
        ("identity.json", "[1]", "cannot be read"),
        ("identity.json", '{"magic":"x","format":1,"cluster":"c","server":1}', "not a chunkserver"),
    ],
)
def test_foreign_directory_is_refused(tmp_path: Path, name: str, content: str, words: str) -> None:
    (tmp_path / name).write_text(content)
    assert words in trio.run(_refused, store_on(RealEnv("one"), tmp_path))


def test_newer_directory_format_is_refused(tmp_path: Path) -> None:
    env = RealEnv("one")
    trio.run(store_on(env, tmp_path).start)
    env.disk.unlock_all()
    identity = json.loads((tmp_path / "identity.json").read_text())
    (tmp_path / "identity.json").write_text(json.dumps(identity | {"format": 2}))
    assert "format 2" in trio.run(_refused, store_on(env, tmp_path))


def test_unfinished_new_file_is_no_replica_and_is_made_anew(tmp_path: Path) -> None:
    async def main() -> None:
        env = RealEnv("one")
        await store_on(env, tmp_path).start()
        directory = tmp_path / "replicas" / "0"
        directory.mkdir()
        (directory / f"{5:016x}").touch()
        env.disk.unlock_all()
        store = store_on(env, tmp_path)
        await store.start()
        assert not store.has(5)
        await put(store, 5, 0, b"data")
        assert await get(store, 5, 0, 9) == b"data"

    trio.run(main)


def test_unreadable_file_is_set_aside_and_kept(tmp_path: Path, expected_logs: ExpectedLogs) -> None:
    expected_logs("has no valid header|set aside")

    async def main() -> None:
        env = RealEnv("one")
        await store_on(env, tmp_path).start()
        directory = tmp_path / "replicas" / "0"
        directory.mkdir()
        rubbish = os.urandom(DATA_OFFSET + 100)
        (directory / f"{5:016x}").write_bytes(rubbish)
        env.disk.unlock_all()
        store = store_on(env, tmp_path)
        await store.start()
        assert not store.has(5)
        await put(store, 5, 0, b"data")
        assert (tmp_path / "quarantine" / f"{5:016x}.0").read_bytes() == rubbish

    trio.run(main)


# -- turns


def test_turns_come_in_order_and_survive_those_who_give_up() -> None:
    store = store_on(RealEnv("one"), "/nowhere")
    order: list[str] = []

    async def take(name: str, turn: Turn) -> None:
        await turn.wait()
        order.append(name)
        turn.leave()

    async def main() -> None:
        turns = {name: store.turns.enter(1) for name in "abcd"}
        turns["b"].leave()
        async with trio.open_nursery() as nursery:
            for name in "dca":
                nursery.start_soon(take, name, turns[name])
        assert order == ["a", "c", "d"]
        assert not store.turns.busy(1)

    trio.run(main)


# -- a real small file system


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """An ext4 of 16 MiB, mounted by loop device; skipped where that cannot be done."""
    image, mountpoint = tmp_path / "image", tmp_path / "mounted"
    mountpoint.mkdir()
    with image.open("wb") as file:
        file.truncate(16 << 20)
    run = partial(subprocess.run, capture_output=True, check=False)
    made = run(["mkfs.ext4", "-q", "-m", "0", str(image)]).returncode == 0
    if not made or run(["mount", "-o", "loop", str(image), str(mountpoint)]).returncode != 0:
        pytest.skip("needs root and loop devices")
    yield mountpoint
    run(["umount", "--lazy", str(mountpoint)])  # lazy: also when the test failed half-way


async def _fill_up(store: Store) -> None:
    for i in range(1 << 20):
        await put(store, i // 64, i % 64 * BLOCK_BYTES, b"d" * BLOCK_BYTES)


def test_full_file_system_is_enospc_and_recovers(small_disk: Path) -> None:
    async def main() -> None:
        env = RealEnv("one")
        store = store_on(env, small_disk, reserve_bytes=0)
        await store.start()
        with pytest.raises(Failure) as caught:
            await _fill_up(store)
        whole = sum(r.length_bytes for r in store.reports()) // BLOCK_BYTES
        assert (caught.value.code, caught.value.errno) == (Code.DISK, errno.ENOSPC)
        assert whole > 100
        for i in range(whole):
            await get(store, i // 64, i % 64 * BLOCK_BYTES, BLOCK_BYTES)
        assert store.disk_reports()[0].healthy
        turn = store.turns.enter(0)
        await store.delete(0)
        turn.leave()
        for i in range(32):
            await put(store, 99, i * BLOCK_BYTES, b"e" * BLOCK_BYTES)
        await store.stop()
        env.disk.unlock_all()

    trio.run(main)
