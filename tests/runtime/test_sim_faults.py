"""What can befall nodes of the simulated world: pauses, crashes between steps, silence, clocks."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest
import trio
from trio._core._run import Runner

from dfs.runtime import Env
from dfs.runtime.current import current_env
from dfs.runtime.network import send_all
from dfs.runtime.sim import World
from tests.runtime.test_sim_world import ADDRESS, joined, received

RESCHEDULE = Runner.reschedule


class Ticking:
    """A node that notes when it ticks, on the world's clock."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.ticks: list[float] = []
        self.cancelled = 0

    async def run(self, env: Env) -> None:
        try:
            while True:
                await env.clock.sleep(1.0)
                env.disk.exists("/")  # which a zombie cannot ask any more
                self.ticks.append(self._world.clock.monotonic())
        except trio.Cancelled:
            self.cancelled += 1
            raise

    def between(self, begin_s: float, end_s: float) -> int:
        return sum(begin_s < at <= end_s for at in self.ticks)


def tick(during: Callable[[World], object], *, then_s: float = 10.0) -> Ticking:
    """Ten seconds of ticks, what is to befall the node, ten more."""
    world = World(1)
    node = Ticking(world)

    async def main() -> None:
        world.spawn("node", node.run)
        await world.clock.sleep(10.5)
        during(world)
        await world.clock.sleep(then_s)

    world.run(main)
    assert Runner.reschedule is RESCHEDULE, "the hook is still in place"
    return node


def test_a_paused_node_does_nothing_and_then_goes_on() -> None:
    world = World(1)
    node = Ticking(world)

    async def main() -> None:
        world.spawn("node", node.run)
        world.spawn("other", Ticking(world).run)
        await world.clock.sleep(10.5)
        world.pause("node")
        await world.clock.sleep(10)
        assert node.between(10.5, 30) == 0
        world.resume("node")
        await world.clock.sleep(10)
        assert node.between(10.5, 30.5) in (9, 10, 11)

    world.run(main)


def test_a_run_ends_although_a_node_is_paused() -> None:
    node = tick(lambda world: world.pause("node"))
    assert node.between(10.5, 20.4) == 0
    assert node.cancelled == 1


def test_a_paused_node_can_be_crashed_and_started_again() -> None:
    def crash(world: World) -> None:
        world.pause("node")
        world.restart("node")

    node = tick(crash)
    assert node.between(10.5, 20.5) >= 8
    assert node.cancelled == 2


def test_what_is_sent_to_a_paused_node_waits_for_it() -> None:
    world = World(1)

    async def main() -> None:
        near, far = await joined(world)

        async def echo(env: Env) -> None:
            byte = bytearray(1)
            await far.wait_readable()
            far.recv_nowait(memoryview(byte))
            await send_all(far, [byte])

        world.spawn("far", echo)
        await world.clock.sleep(0.1)
        world.pause("far")
        await send_all(near, [b"x"])
        assert await received(world, near, 5.0) is None
        world.resume("far")
        assert await received(world, near, 1.0) == b"x"

    world.run(main)


def test_a_cancellation_reaches_a_paused_task_after_its_pause() -> None:
    world = World(1)
    ended: list[float] = []

    async def waits(env: Env) -> None:
        with env.clock.move_on_after(1.0):
            await trio.sleep_forever()
        ended.append(world.clock.monotonic())

    async def main() -> None:
        world.spawn("node", waits)
        await world.clock.sleep(0.5)
        world.pause("node")
        await world.clock.sleep(5.0)
        world.resume("node")
        await world.clock.sleep(0.1)

    world.run(main)
    assert ended == [pytest.approx(5.5, abs=0.01)]


@pytest.mark.parametrize("steps", [1, 4])
def test_a_crash_comes_at_that_step(steps: int) -> None:
    node = tick(lambda world: world.crash_at_step("node", steps))
    assert node.between(10.5, 20.5) == steps - 1


def test_a_disarmed_crash_does_not_come() -> None:
    def arm_and_disarm(world: World) -> None:
        world.crash_at_step("node", 3)
        world.crash_at_step("node", 0)

    assert tick(arm_and_disarm).between(10.5, 20.5) >= 9


def test_a_silent_node_takes_connections_and_does_not_answer() -> None:
    world = World(1)

    async def main() -> None:
        near, far = await joined(world)
        world.silence("far")
        another = await world.env("near").network.connect(ADDRESS)
        await send_all(another, [b"x"])
        await send_all(near, [b"x"])
        assert await received(world, far, 1.0) == b"x"
        await send_all(far, [b"y"])
        assert await received(world, near, 10.0) is None
        world.heal()
        assert await received(world, near, 1.0) == b"y"

    world.run(main)


def test_a_wall_clock_jumps_and_stays_there_over_restarts() -> None:
    world = World(1)

    async def main() -> None:
        before_ns = world.env("node").clock.wall_ns()
        monotonic_s = world.env("node").clock.monotonic()
        world.jump_wall("node", -3600)
        assert world.env("node").clock.wall_ns() - before_ns == -3600 * 10**9
        assert world.env("node").clock.monotonic() == pytest.approx(monotonic_s)
        world.crash("node")
        assert world.env("node").clock.wall_ns() - before_ns == -3600 * 10**9

    world.run(main)


def test_a_clock_changes_its_rate_without_a_jump() -> None:
    world = World(1, drift=0.0)

    async def main() -> None:
        clock = world.env("node").clock
        await world.clock.sleep(100)
        before_s = clock.monotonic()
        world.set_rate("node", 1.05)
        assert clock.monotonic() == pytest.approx(before_s)
        await world.clock.sleep(100)
        assert clock.monotonic() - before_s == pytest.approx(105)

    world.run(main)


@pytest.mark.parametrize("power_loss", [False, True])
def test_a_node_ends_before_an_operation_of_its_disk(power_loss: bool) -> None:
    world = World(1)
    done: list[int] = []

    async def writes(env: Env) -> None:
        file = env.disk.open("/file", write=True, create=True)
        for number in range(10):
            file.pwrite([b"%d" % number], number)
            done.append(number)
            await trio.lowlevel.checkpoint()

    async def main() -> None:
        world.disk("node").crash_at_operation(4, power_loss=power_loss)  # the open is the first
        world.spawn("node", writes)
        await world.clock.sleep(1)
        assert not world.is_alive("node")

    world.run(main)
    assert done == [0, 1]
    assert world.disk("node").exists("/file") or power_loss
    if not power_loss:
        assert world.env("node").disk.read_file("/file") == b"01"


def test_slow_reads_take_their_time() -> None:
    world = World(1, drift=0.0)

    async def main() -> None:
        env = world.env("node")
        env.disk.write_file("/file", b"data")
        world.disk("node").read_delay_s = 0.5
        began_s = world.clock.monotonic()
        file = env.disk.open("/file")
        await env.run_blocking(lambda: file.pread_into(memoryview(bytearray(4)), 0))
        assert world.clock.monotonic() - began_s >= 0.5

    world.run(main)


def test_a_failed_disk_says_so() -> None:
    world = World(1)
    disk = world.env("node").disk
    world.disk("node").fail("/", errno.EIO, "write")
    with pytest.raises(OSError, match="Input/output error"):
        disk.open("/file", write=True, create=True)


def test_who_watches_is_not_held_back_by_a_node_named_in_the_context_around() -> None:
    """As by a test that ran before in this process, and made itself a node."""
    world = World(1)
    token = current_env.set(World(2).env("node"))

    async def main() -> float:
        world.spawn("node", Ticking(world).run)
        world.pause("node")
        await world.clock.sleep(1.0)
        world.resume("node")
        return world.clock.monotonic()

    try:
        assert world.run(main) == pytest.approx(1.0)
    finally:
        current_env.reset(token)
