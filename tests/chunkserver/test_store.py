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
from dfs.checksums import piece_checksums, verify
from dfs.config import ChunkserverLimits
from dfs.errors import Code, Failure
from dfs.layout import BLOCK_BYTES
from dfs.runtime import Env
from dfs.runtime.real import RealEnv
from dfs.runtime.sim import World
from tests.chunkserver.cluster import chunkserver_config
from tests.conftest import ExpectedLogs


def store_on(env: Env, *directories: Path | str, number: int = 1, **limits: float) -> Store:
    paths = tuple(str(d) for d in directories)
    config = chunkserver_config(number, "here:1", paths, "master:1", **limits)
    return Store(env, config, "here:1")


async def put(store: Store, handle: int, offset: int, data: bytes) -> None:
    turn = store.turns.enter(handle)
    await turn.wait()
    entry = store.find(handle) if store.has(handle) else await store.create(handle, 1, 0)
    try:
        await store.write(entry, offset, memoryview(data), piece_checksums(data, offset))
    finally:
        turn.leave()


async def get(store: Store, handle: int, offset: int, length_bytes: int) -> bytes:
    answer = await store.run(store.find(handle), lambda r: r.read(offset, length_bytes))
    assert answer is not None
    verify(answer[0], offset, answer[1], "read")
    return bytes(answer[0])


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


def test_replicas_go_where_there_is_room() -> None:
    world = World(1)
    env = world.env("node")

    async def main() -> None:
        store = store_on(env, "/a", "/b")
        await store.start()
        for handle in range(8):
            await put(store, handle, 0, bytes(100_000))
        assert [d.replicas for d in store.directories] == [4, 4]

    world.run(main)


def test_one_failing_disk_leaves_the_others_working(expected_logs: ExpectedLogs) -> None:
    expected_logs("disk /a goes read-only")
    world = World(1)
    env = world.env("node")

    async def main() -> None:
        world.disk("node").fail("/a/replicas", errno.EIO, "write")
        store = store_on(env, "/a", "/b")
        await store.start()
        failures = 0
        for handle in range(8):
            try:
                await put(store, handle, 0, b"data")
            except Failure as error:
                assert (error.code, error.errno) == (Code.DISK, errno.EIO)
                failures += 1
        assert failures == 1
        assert [r.healthy for r in store.disk_reports()] == [False, True]

    world.run(main)


def test_failed_sync_makes_the_disk_read_only(expected_logs: ExpectedLogs) -> None:
    expected_logs("goes read-only")
    world = World(1)
    env = world.env("node")

    async def main() -> None:
        store = store_on(env, "/a")
        await store.start()
        await put(store, 1, 0, b"data")
        world.disk("node").fail("/a/replicas", errno.EIO, "sync")
        with pytest.raises(Failure) as caught:
            await store.sync(1)
        assert (caught.value.code, caught.value.errno) == (Code.DISK, errno.EIO)
        world.disk("node").repair()
        with pytest.raises(Failure) as caught:  # what the page cache has lost nobody knows
            await store.sync(1)
        assert caught.value.errno == errno.EROFS
        assert await get(store, 1, 0, 9) == b"data"

    world.run(main)


def test_synced_data_survives_power_loss_with_its_name() -> None:
    for seed in range(20):
        world = World(seed)

        async def main(world: World = world) -> None:
            store = store_on(world.env("node"), "/a")
            await store.start()
            await put(store, 1, 0, b"d" * 200_000)
            await store.sync(1)
            world.crash("node")
            again = store_on(world.env("node"), "/a")
            await again.start()
            assert await get(again, 1, 0, 1 << 20) == b"d" * 200_000

        world.run(main)


def test_killed_process_leaves_readable_replicas() -> None:
    world = World(1)

    async def main() -> None:
        store = store_on(world.env("node"), "/a")
        await store.start()
        for handle in range(20):
            await put(store, handle, handle * 1000, b"d" * 100_000)
        world.crash("node", power_loss=False)
        again = store_on(world.env("node"), "/a")
        await again.start()
        assert [r.length_bytes for r in again.reports()] == [h * 1000 + 100_000 for h in range(20)]
        for handle in range(20):
            assert await get(again, handle, handle * 1000, 100_000) == b"d" * 100_000

    world.run(main)


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


def test_written_data_is_synced_in_the_background() -> None:
    world = World(1)
    env = world.env("node")

    async def main() -> None:
        store = store_on(env, "/a", settle_after_s=30)
        await store.start()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.settle)
            await put(store, 1, 0, b"data")
            await world.clock.sleep(32)
            assert not store._unsynced
            replica = store.find(1).replica
            assert replica is not None
            assert not replica.dirty
            nursery.cancel_scope.cancel()

    world.run(main)


def test_writes_go_on_during_a_sync() -> None:
    world = World(1)
    env = world.env("node")
    world.disk("node").sync_delay_s = 5

    async def main() -> None:
        store = store_on(env, "/a")
        await store.start()
        await put(store, 1, 0, b"a" * 100)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.sync, 1)
            await world.clock.sleep(1)
            with env.clock.fail_after(1):
                await put(store, 1, 50, b"b" * BLOCK_BYTES)
                assert await get(store, 1, 49, 2) == b"ab"
        replica = store.find(1).replica
        assert replica is not None
        assert replica.dirty  # what came in between is not covered
        await store.sync(1)
        assert not replica.dirty

    world.run(main)


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
    run(["umount", str(mountpoint)])


def test_full_file_system_is_enospc_and_recovers(small_disk: Path) -> None:
    async def main() -> None:
        store = store_on(RealEnv("one"), small_disk, reserve_bytes=0)
        await store.start()
        whole = 0
        with pytest.raises(Failure) as caught:
            while True:
                await put(store, whole // 64, whole % 64 * BLOCK_BYTES, b"d" * BLOCK_BYTES)
                whole += 1
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
        assert ChunkserverLimits().reserve_bytes > 0

    trio.run(main)
