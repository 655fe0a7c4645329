"""Nodes, crashes and the network's faults in the simulated world."""

from __future__ import annotations

import errno

import pytest
import trio

from dfs.runtime import Env, Stream
from dfs.runtime.current import current_env
from dfs.runtime.network import recv_exactly, send_all
from dfs.runtime.sim import Deadlock, NodeEnded, World, timeline
from tests.conftest import ExpectedLogs

ADDRESS = "127.0.0.1:9"


async def joined(world: World, near: str = "near", far: str = "far") -> tuple[Stream, Stream]:
    """Both ends of a stream between two nodes."""
    listener = await world.env(far).network.listen(ADDRESS)
    stream = await world.env(near).network.connect(ADDRESS)
    return stream, await listener.accept()


async def received(world: World, stream: Stream, seconds: float) -> bytes | None:
    """The next byte, or None when none comes in that time."""
    byte = bytearray(1)
    with world.clock.move_on_after(seconds):
        await recv_exactly(stream, memoryview(byte))
        return bytes(byte)
    return None


def test_the_result_and_the_error_of_main_come_out() -> None:
    async def good() -> int:
        return 42

    async def bad() -> int:
        raise LookupError("main")

    assert World(1).run(good) == 42
    with pytest.raises(LookupError, match="main"):
        World(1).run(bad)


def test_an_error_of_a_node_fails_the_run() -> None:
    world = World(1)

    async def node(env: Env) -> None:
        await env.clock.sleep(1)
        raise LookupError("node")

    async def main() -> None:
        world.spawn("node", node)
        await world.clock.sleep(10)

    with pytest.raises(LookupError, match="node"):
        world.run(main)


def test_a_deadlock_is_reported() -> None:
    with pytest.raises(Deadlock):
        World(1).run(trio.Event().wait)


def test_a_run_without_end_is_reported() -> None:
    world = World(1)

    async def main() -> None:
        while True:
            await world.clock.sleep(1)

    with pytest.raises(TimeoutError, match="100"):
        world.run(main, limit_s=100)


def test_nodes_disagree_about_the_time_but_not_by_much() -> None:
    world = World(1, drift=0.01)

    async def main() -> None:
        clocks = [world.env(name).clock for name in ("a", "b")]
        before = [clock.monotonic() for clock in clocks]
        await world.clock.sleep(1000)
        passed = [clock.monotonic() - b for clock, b in zip(clocks, before, strict=True)]
        assert before[0] != before[1]
        assert passed[0] != passed[1]
        assert all(990 <= p <= 1010 for p in passed)

    world.run(main)


def test_a_nodes_tasks_and_their_children_know_their_env() -> None:
    world = World(1)
    seen: list[tuple[str, str]] = []

    async def node(env: Env) -> None:
        async def child() -> None:
            await env.clock.sleep(1)
            seen.append((env.name, current_env.get().name))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)

    async def main() -> None:
        world.spawn("a", node)
        world.spawn("b", node)
        await world.clock.sleep(2)

    world.run(main)
    assert sorted(seen) == [("a", "a"), ("b", "b")]


def test_a_crash_cancels_tasks_and_resets_streams() -> None:
    world = World(1)
    ended: list[str] = []

    async def node(env: Env) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(env.name)

    async def main() -> None:
        world.spawn("far", node)
        near, _ = await joined(world)
        world.crash("far")
        with pytest.raises(ConnectionResetError):
            await received(world, near, 10)
        with pytest.raises(ConnectionRefusedError):
            await world.env("near").network.connect(ADDRESS)

    world.run(main)
    assert ended == ["far"]
    assert world.endings == [("far", "crash")]


def test_a_zombie_reaches_nothing() -> None:
    world = World(1)
    env = world.env("node")
    file = env.disk.open("/file", write=True, create=True)

    async def main() -> None:
        near, far = await joined(world, "node", "other")
        world.crash("node", power_loss=False)
        for act in (
            lambda: file.pwrite([b"late"], 0),
            lambda: env.disk.open("/file"),
            file.datasync,
        ):
            with pytest.raises(NodeEnded):
                act()
        with pytest.raises(NodeEnded):
            await env.run_blocking(lambda: None)
        with pytest.raises(OSError, match="closed"):
            near.send_nowait([b"late"])
        with pytest.raises(ConnectionResetError):
            await received(world, far, 10)

    world.run(main)
    assert world.env("node").disk.read_file("/file") == b""


def test_errors_of_a_zombie_do_not_fail_the_run() -> None:
    world = World(1)

    async def node(env: Env) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise LookupError("too late")

    async def main() -> None:
        world.spawn("node", node)
        await world.clock.sleep(1)
        world.crash("node")
        await world.clock.sleep(1)

    world.run(main)
    assert [type(error) for error in world.afterlife] == [LookupError]


def test_a_restart_runs_the_same_on_the_surviving_disk() -> None:
    world = World(1)
    counts: list[int] = []

    async def node(env: Env) -> None:
        before = env.disk.read_file("/count") if env.disk.exists("/count") else b""
        env.disk.write_file("/count", before + b"x")
        counts.append(len(before) + 1)
        await trio.sleep_forever()

    async def main() -> None:
        world.spawn("node", node)
        for _ in range(3):
            await world.clock.sleep(1)
            world.restart("node")
        await world.clock.sleep(1)

    world.run(main)
    assert counts == [1, 2, 3, 4]


def test_fatal_ends_the_node_only(expected_logs: ExpectedLogs) -> None:
    expected_logs("node ends at once: no way on")
    world = World(1)

    async def node(env: Env) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            env.fatal("no way on")

    async def main() -> None:
        world.spawn("node", node)
        await world.clock.sleep(1)
        assert not world.is_alive("node")

    world.run(main)
    assert world.endings == [("node", "fatal: no way on")]


def test_a_locked_disk_is_free_after_a_crash() -> None:
    world = World(1)
    world.env("node").disk.lock("/lock")

    async def main() -> None:
        world.crash("node")
        world.env("node").disk.lock("/lock")

    world.run(main)


def test_a_partition_holds_messages_back_until_it_heals() -> None:
    world = World(1)

    async def main() -> None:
        near, far = await joined(world)
        world.partition("near", "far")
        await send_all(near, [b"a"])
        await send_all(near, [b"b"])
        assert await received(world, far, 100) is None
        world.heal()
        assert await received(world, far, 1) == b"a"
        assert await received(world, far, 1) == b"b"

    world.run(main)


def test_a_one_way_partition_lets_the_other_way_pass() -> None:
    world = World(1)

    async def main() -> None:
        near, far = await joined(world)
        world.partition("near", "far", one_way=True)
        await send_all(far, [b"x"])
        assert await received(world, near, 1) == b"x"
        await send_all(near, [b"y"])
        assert await received(world, far, 10) is None

    world.run(main)


def test_healing_may_reset_what_was_cut() -> None:
    world = World(1)

    async def main() -> None:
        near, far = await joined(world)
        world.isolate("near")
        await send_all(near, [b"lost"])
        world.heal(reset=True)
        for stream in (near, far):
            with pytest.raises(ConnectionResetError):
                await received(world, stream, 1)

    world.run(main)


def test_connecting_over_a_partition_waits_for_it_to_heal() -> None:
    world = World(1)

    async def main() -> None:
        await joined(world)
        world.partition("near", "far")
        with world.clock.move_on_after(30) as scope:
            await world.env("near").network.connect(ADDRESS)
        assert scope.cancelled_caught
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.env("near").network.connect, ADDRESS)
            await world.clock.sleep(5)
            world.heal()
        assert world.timeline.now_s < 36

    world.run(main)


def test_connecting_over_a_lasting_partition_times_out() -> None:
    world = World(1)

    async def main() -> None:
        await joined(world)
        world.isolate("far")
        with pytest.raises(TimeoutError) as caught:
            await world.env("near").network.connect(ADDRESS)
        assert caught.value.errno == errno.ETIMEDOUT

    world.run(main)


def test_a_delayed_link_is_slow_in_one_direction() -> None:
    world = World(1)

    async def main() -> None:
        near, far = await joined(world)
        world.delay_link("near", "far", 5)
        await send_all(near, [b"x"])
        assert await received(world, far, 4.9) is None
        assert await received(world, far, 1) == b"x"
        await send_all(far, [b"y"])
        assert await received(world, near, 0.1) == b"y"

    world.run(main)


def test_a_loop_that_lets_no_time_pass_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "READINGS_MAX", 1000)
    world = World(1)

    async def main() -> None:
        await world.clock.sleep(1.0)
        until_s = world.clock.monotonic() + 1.0
        while world.clock.monotonic() < until_s:
            await trio.lowlevel.checkpoint()

    with pytest.raises(timeline.Standstill):
        world.run(main)
