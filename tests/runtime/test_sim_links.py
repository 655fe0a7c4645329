"""Links that swallow what they carry, and links that carry little."""

from __future__ import annotations

import math

import pytest

from dfs.runtime import Stream
from dfs.runtime.network import recv_exactly, send_all
from dfs.runtime.sim import World
from tests.runtime.test_sim_world import ADDRESS, joined, received

PIECE = bytes(100_000)


def test_a_black_hole_accepts_connections_and_never_answers() -> None:
    world = World(1)

    async def main() -> None:
        listener = await world.env("far").network.listen(ADDRESS)
        world.black_hole("near", "far")
        stream = await world.env("near").network.connect(ADDRESS)
        await send_all(stream, [b"x"])
        assert await received(world, stream, 60.0) is None
        with world.clock.move_on_after(1.0) as scope:
            await listener.accept()
        assert scope.cancelled_caught
        world.close_hole("near", "far")
        with pytest.raises(ConnectionResetError):
            await received(world, stream, 1.0)

    world.run(main)


def test_streams_over_a_black_hole_stand_still_until_it_is_gone() -> None:
    world = World(1)

    async def main() -> None:
        near, far = await joined(world)
        world.black_hole("near", "far")
        await send_all(near, [b"a"])
        await send_all(far, [b"b"])
        assert await received(world, far, 10.0) is None
        assert await received(world, near, 10.0) is None
        world.close_hole("near", "far")
        assert await received(world, far, 1.0) == b"a"
        assert await received(world, near, 1.0) == b"b"

    world.run(main)


def test_the_others_do_not_see_the_hole() -> None:
    world = World(1)

    async def main() -> None:
        listener = await world.env("far").network.listen(ADDRESS)
        world.black_hole("near", "far")
        stream = await world.env("another").network.connect(ADDRESS)
        await send_all(stream, [b"x"])
        assert await received(world, await listener.accept(), 1.0) == b"x"

    world.run(main)


def test_what_was_connected_to_a_hole_may_be_closed_before_it_ends() -> None:
    world = World(1)

    async def main() -> None:
        await world.env("far").network.listen(ADDRESS)
        world.black_hole("near", "far")
        stream = await world.env("near").network.connect(ADDRESS)
        await send_all(stream, [b"x"])
        stream.close()
        world.heal()
        again = await world.env("near").network.connect(ADDRESS)
        assert await received(world, again, 1.0) is None
        again.close()

    world.run(main)


async def transfer_s(world: World, near: Stream, far: Stream, times: int = 1) -> float:
    """How long it takes to send so many pieces and have them all."""
    began_s = world.clock.monotonic()
    for _ in range(times):
        await send_all(near, [PIECE])
    await recv_exactly(far, memoryview(bytearray(times * len(PIECE))))
    return world.clock.monotonic() - began_s


def test_a_narrow_link_lets_so_many_bytes_a_second_through() -> None:
    world = World(1)

    async def main() -> None:
        near, far = await joined(world)
        assert await transfer_s(world, near, far) < 0.1
        world.limit_link("near", "far", 50_000)
        assert await transfer_s(world, near, far, 3) == pytest.approx(6.0, abs=0.1)
        assert await transfer_s(world, far, near) < 0.1
        world.limit_link("near", "far", math.inf)
        assert await transfer_s(world, near, far) < 0.1

    world.run(main)


def test_the_streams_of_a_narrow_link_share_it() -> None:
    world = World(1)

    async def main() -> None:
        listener = await world.env("far").network.listen(ADDRESS)
        near = [await world.env("near").network.connect(ADDRESS) for _ in range(2)]
        far = [await listener.accept() for _ in range(2)]
        world.limit_link("near", "far", 100_000)
        await send_all(near[0], [PIECE])
        assert await transfer_s(world, near[1], far[1]) == pytest.approx(2.0, abs=0.1)
        assert await transfer_s(world, near[0], far[0]) < 1.1

    world.run(main)
