"""Stores on the simulated disk: failing, full, slow, without power."""

from __future__ import annotations

import errno

import pytest
import trio

from dfs.errors import Code, Failure
from dfs.layout import BLOCK_BYTES
from dfs.runtime.sim import World
from tests.chunkserver.stores import get, put, store_on
from tests.conftest import ExpectedLogs


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
        with pytest.raises(Failure) as caught:
            await put(store, 0, 0, b"data")
        assert (caught.value.code, caught.value.errno) == (Code.DISK, errno.EIO)
        for handle in range(8):
            await put(store, handle, 0, b"data")
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
            await store.syncing.sync(1)
        assert (caught.value.code, caught.value.errno) == (Code.DISK, errno.EIO)
        world.disk("node").repair()
        with pytest.raises(Failure) as caught:  # what the page cache has lost nobody knows
            await store.syncing.sync(1)
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
            await store.syncing.sync(1)
            await put(store, 2, 0, b"e" * 100)  # a second name in the same directory
            await store.syncing.sync(2)
            world.crash("node")
            again = store_on(world.env("node"), "/a")
            await again.start()
            assert await get(again, 1, 0, 1 << 20) == b"d" * 200_000
            assert await get(again, 2, 0, 1 << 20) == b"e" * 100

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


def test_written_data_is_synced_in_the_background() -> None:
    world = World(1)
    env = world.env("node")

    async def main() -> None:
        store = store_on(env, "/a", settle_after_s=30)
        await store.start()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.syncing.run)
            await put(store, 1, 0, b"data")
            await world.clock.sleep(32)
            assert not len(store.syncing)
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
            nursery.start_soon(store.syncing.sync, 1)
            await world.clock.sleep(1)
            with env.clock.fail_after(1):
                await put(store, 1, 50, b"b" * BLOCK_BYTES)
                assert await get(store, 1, 49, 2) == b"ab"
        replica = store.find(1).replica
        assert replica is not None
        assert replica.dirty  # what came in between is not covered
        await store.syncing.sync(1)
        assert not replica.dirty

    world.run(main)
