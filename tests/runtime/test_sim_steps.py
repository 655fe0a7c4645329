"""Nodes that die at some await, or at some operation on their disk; what pauses must not break."""

from __future__ import annotations

import trio

from dfs.runtime import Disk, Env
from dfs.runtime.sim import World
from tests.runtime.echo_cluster import ask, serve

PAGE = 4096


def test_a_task_that_is_woken_and_then_cancelled_while_paused_wakes_once() -> None:
    world = World(1)
    ended: list[str] = []

    async def node(env: Env) -> None:
        with env.clock.move_on_after(2) as scope:
            await env.clock.sleep(1)  # comes true first, the deadline after
            ended.append("slept")
            await trio.lowlevel.checkpoint()
            ended.append("went on")
        ended.append(f"cancelled {scope.cancelled_caught}")

    async def main() -> None:
        world.spawn("node", node)
        await world.clock.sleep(0.5)
        world.pause("node")
        await world.clock.sleep(5)
        world.resume("node")
        await world.clock.sleep(1)

    world.run(main)
    assert ended == ["slept", "cancelled True"]


def test_a_crash_at_any_step_loses_nothing_that_was_acknowledged() -> None:
    crashes = 0
    for nth in range(1, 60):
        world = World(nth)
        acknowledged: list[bytes] = []

        async def main(
            world: World = world, into: list[bytes] = acknowledged, n: int = nth
        ) -> None:
            await world.start("server", serve)
            world.crash_at_step("server", n, power_loss=n % 2 == 0)
            async with trio.open_nursery() as nursery:

                async def client() -> None:
                    into.extend(await ask(world.env("client"), world, 10))

                nursery.start_soon(client)
                while world.is_alive("server") and nursery.child_tasks:
                    await world.clock.sleep(0.01)
                world.restart("server")

        world.run(main)
        crashes += ("server", "between two steps") in world.endings
        store = world.env("server").disk.open_key_value("/data/store", ["seen"], 1 << 30)
        assert [key for key in acknowledged if store.get("seen", key) is None] == []
    assert crashes > 30


def write_things(disk: Disk) -> None:
    disk.make_directory("/d")
    file = disk.open("/d/file", write=True, create=True)
    file.pwrite([b"x" * 4 * PAGE], 0)
    file.datasync()
    disk.rename("/d/file", "/d/other")
    disk.sync_directory("/d")
    disk.write_file("/d/whole", b"whole")
    file.truncate(PAGE)
    disk.unlink("/d/whole")


def crashed_at(nth: int, seed: int, *, power_loss: bool) -> World:
    world = World(seed)

    async def node(env: Env) -> None:
        await env.run_blocking(lambda: write_things(env.disk))

    async def main() -> None:
        world.disk("node").crash_at_operation(nth, power_loss=power_loss)
        world.spawn("node", node)
        await world.clock.sleep(1)
        world.disk("node").crash_at_operation(0)

    world.run(main)
    return world


def test_a_crash_at_each_operation_leaves_what_came_before() -> None:
    states = []
    for nth in range(1, 40):
        world = crashed_at(nth, 1, power_loss=False)
        died = bool(world.endings)
        disk = world.env("node").disk
        names = disk.list_directory("/d")
        states.append(f"{names} {len(disk.read_file('/d/other')) if 'other' in names else ''}")
        if not died:
            break
    assert states[0] == "[] "
    assert states[-1] == f"['other'] {PAGE}"
    assert 15 < len(states) < 39
    assert len(dict.fromkeys(states)) == 7


def test_a_write_that_a_kill_interrupts_is_a_prefix_of_pages() -> None:
    lengths = []
    for seed in range(40):
        world = crashed_at(2, seed, power_loss=False)
        lengths.append(len(world.env("node").disk.read_file("/d/file")))
    assert sorted(dict.fromkeys(lengths)) == [n * PAGE for n in range(5)]


def test_a_crash_at_an_operation_may_lose_power() -> None:
    found = [
        len(crashed_at(4, seed, power_loss=True).env("node").disk.list_directory("/d"))
        for seed in range(20)
    ]
    assert sorted(dict.fromkeys(found)) == [0, 1]
