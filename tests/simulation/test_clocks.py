"""Wall clocks that are set: what has to happen after a while happens all the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from dfs.messages.common import ROOT
from dfs.messages.operations import Unlink
from tests.conftest import ExpectedLogs
from tests.simulation.cluster import SimCluster
from tests.simulation.test_whole_cluster import content, simulate, write_file

DAY_S = 86_400.0


def set_clocks(cluster: SimCluster, seconds: float) -> None:
    for name in (*cluster.running, *cluster.storing):
        cluster.world.jump_wall(name, seconds)


@pytest.mark.parametrize("back_s", [0.0, -DAY_S])
def test_what_was_deleted_before_the_clocks_were_set_back_goes(
    tmp_path: Path, back_s: float
) -> None:
    """It was noted at a time that came a day later."""

    async def scenario(cluster: SimCluster) -> None:
        async with cluster.client() as client:
            await cluster.until_registered(client, 3)
            await write_file(client, b"file", content(1, 100_000), sync=True)
            await client.perform(Unlink(client.root_inode, b"file", ROOT))
            await cluster.world.clock.sleep(1.5)  # reaped, and not yet deleted
            set_clocks(cluster, back_s)
            await cluster.until_clean(timeout_s=30)

    simulate(tmp_path, scenario)


def test_a_server_that_was_dropped_before_the_clocks_were_set_back_is_taken_back(
    tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    """A moment ago, as it seemed for a whole day."""
    expected_logs("refused")

    async def scenario(cluster: SimCluster) -> None:
        async with cluster.client() as client:
            await cluster.until_registered(client, 3)
            await write_file(client, b"file", content(1, 100_000), sync=True)
            cluster.world.crash("chunkserver-1", power_loss=False)
            found = await client.lookup(client.root_inode, b"file")
            file = await client.open_file(found.inode, ROOT, write=True)
            await file.write(0, b"without it")
            await file.close()
            set_clocks(cluster, -DAY_S)
            cluster.world.restart("chunkserver-1")
            assert await cluster.until_redundant(60)

    simulate(tmp_path, scenario)
