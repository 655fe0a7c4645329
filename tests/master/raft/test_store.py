"""The store: writes seen at once, durable together, scans that show one moment."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from dfs.config import Raft
from dfs.runtime.sim import SimEnv, World
from master.store import Store

INODES, XATTRS = "inodes", "xattrs"
KEYS = st.binary(min_size=1, max_size=2)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), KEYS, st.binary(max_size=3)),
        st.tuples(st.just("delete"), KEYS),
        st.tuples(st.just("flush")),
        st.tuples(st.just("scan"), KEYS, st.none() | KEYS),
        st.tuples(st.just("crash")),
    ),
    max_size=60,
)


def opened(env: SimEnv, limits: Raft | None = None) -> Store:
    env.disk.make_directory("/data")
    return Store.open(env, "/data/state.mdb", limits or Raft())


@given(steps=STEPS)
def test_it_behaves_as_one_dictionary_of_which_a_crash_keeps_the_last_flush(
    steps: list[tuple[object, ...]],
) -> None:
    world = World(1)

    async def main() -> None:
        env = world.env("node")
        store = opened(env)
        model: dict[bytes, bytes] = {}
        durable: dict[bytes, bytes] = {}
        for name, *arguments in steps:
            if name == "put":
                store.put(INODES, *arguments)  # type: ignore[arg-type]
                model[arguments[0]] = arguments[1]  # type: ignore[index, assignment]
            elif name == "delete":
                store.delete(INODES, arguments[0])  # type: ignore[arg-type]
                model.pop(arguments[0], None)  # type: ignore[call-overload]
            elif name == "flush":
                await store.flush(env)
                durable = dict(model)
            elif name == "crash":
                world.crash("node")
                env = world.env("node")
                store, model = opened(env), dict(durable)
            else:
                start, end = arguments
                expected = [
                    (k, v)
                    for k, v in sorted(model.items())
                    if k >= start and (end is None or k < end)  # type: ignore[operator]
                ]
                assert list(store.scan(INODES, start, end)) == expected  # type: ignore[arg-type]
        assert all(store.get(INODES, key) == value for key, value in model.items())
        assert dict(store.scan(INODES)) == model

    world.run(main)


def test_reads_and_writes_go_on_while_a_flush_waits_for_the_disk() -> None:
    world = World(2)

    async def main() -> None:
        env = world.env("node")
        store = opened(env)
        world.disk("node").sync_delay_s = 1.0
        store.put(INODES, b"a", b"1")
        store.put(INODES, b"b", b"1")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.flush, env)
            await world.clock.sleep(0.5)
            assert not store.dirty
            store.delete(INODES, b"a")
            store.put(INODES, b"c", b"2")
            assert store.get(INODES, b"a") is None
            assert list(store.scan(INODES)) == [(b"b", b"1"), (b"c", b"2")]
        assert store.dirty
        world.crash("node")
        store = opened(world.env("node"))
        assert list(store.scan(INODES)) == [(b"a", b"1"), (b"b", b"1")]

    world.run(main)


def test_one_flush_carries_all_tables_or_none() -> None:
    for after in (False, True):
        world = World(3)

        async def main(world: World = world, after: bool = after) -> None:
            env = world.env("node")
            store = opened(env)
            store.put(INODES, b"a", b"1")
            store.put(XATTRS, b"b", b"1")
            world.disk("node").crash_at_sync(1, after=after)
            with pytest.raises(BaseException, match="node"):
                await store.flush(env)
            store = opened(world.env("node"))
            found = [store.get(INODES, b"a"), store.get(XATTRS, b"b")]
            assert found == ([b"1", b"1"] if after else [None, None])

        world.run(main)


def test_a_scan_shows_the_moment_it_was_asked_for() -> None:
    world = World(4)

    async def main() -> None:
        env = world.env("node")
        store = opened(env)
        for number in range(100):
            store.put(INODES, b"%03d" % number, b"old")
        await store.flush(env)
        store.put(INODES, b"050", b"new")
        scan = store.scan(INODES)
        assert next(scan) == (b"000", b"old")
        await store.flush(env)  # between two pages of the scan
        rest = list(scan)
        assert len(rest) == 99
        assert rest[49] == (b"050", b"new")

    world.run(main)


def test_a_slow_disk_is_written_from_a_thread_and_a_fast_one_inline() -> None:
    world = World(5)

    async def main() -> None:
        env = world.env("node")
        store = opened(env)

        async def flushes_in_the_loop() -> bool:
            """Whether a flush lets no other task run meanwhile."""
            store.put(INODES, b"a", b"1")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(store.flush, env)
                nursery.start_soon(trio.lowlevel.checkpoint)
                await trio.lowlevel.checkpoint()
                return not store._sealed

        for _ in range(30):
            await flushes_in_the_loop()
        assert await flushes_in_the_loop()
        world.disk("node").sync_delay_s = 0.02
        await flushes_in_the_loop()  # this one shows that the disk has become slow
        assert not await flushes_in_the_loop()

    world.run(main)


def test_the_overlay_is_bounded_by_a_flag_that_asks_for_a_flush() -> None:
    world = World(6)

    async def main() -> None:
        env = world.env("node")
        store = opened(env, Raft(overlay_bytes=10_000))
        while not store.full:
            store.put(INODES, b"%06d" % store._active_bytes, bytes(100))
        assert store._active_bytes < 11_000
        await store.flush(env)
        assert not store.full

    world.run(main)
