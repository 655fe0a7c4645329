"""The leading master falls silent: each call waits for its silence once, however many there are."""

from __future__ import annotations

from pathlib import Path

import trio

from dfs.messages.common import ROOT
from dfs.messages.operations import MakeDirectory
from dfs.runtime.sim import World
from tests.conftest import ExpectedLogs
from tests.simulation.cluster import SimCluster

STALL_MAX_S = 3.0


def test_calls_that_wait_for_an_introduction_do_not_wait_in_turn(
    tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    """Each of them would introduce the client to the silent master anew, one after the other."""
    expected_logs("gone silent|heartbeat to")
    world, took_s = World(seed=1), list[float]()

    async def main() -> None:
        cluster = SimCluster(world, tmp_path)
        await cluster.start()
        await cluster.until_leader()
        async with cluster.client() as client:

            async def make(name: bytes, after_s: float) -> None:
                await world.clock.sleep(after_s)
                began = world.clock.monotonic()
                await client.perform(MakeDirectory(client.root_inode, name, 0o755, ROOT))
                took_s.append(world.clock.monotonic() - began)

            await make(b"first", 0.0)
            world.silence(cluster.leader())
            client._services.leader.forget_introduction()
            async with trio.open_nursery() as nursery:
                for number in range(4):
                    nursery.start_soon(make, b"d%d" % number, 0.6 * number)
        assert len(took_s) == 5
        assert max(took_s) < STALL_MAX_S, took_s

    world.run(main)
