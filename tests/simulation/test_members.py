"""The masters may all be replaced while clients and chunkservers run on old configurations."""

from __future__ import annotations

from pathlib import Path

import pytest

from dfs.client import Client
from dfs.messages.cluster import AddMaster, RemoveMaster
from tests.conftest import ExpectedLogs
from tests.simulation.cluster import SimCluster
from tests.simulation.test_whole_cluster import content, read_file, simulate, write_file

DATA = content(1, 100_000)
LEARNT_S = 30.0  # clients ask four times in the life of a session, chunkservers more often


async def exchange_all(cluster: SimCluster, operator: Client) -> None:
    """Add three masters, remove and stop the first three."""
    for number in list(cluster.masters):
        new = await cluster.start_master()
        await operator.cluster_call(AddMaster(new, cluster.masters[new]))
        await operator.cluster_call(RemoveMaster(number))
        cluster.forget_master(number)
        await cluster.world.clock.sleep(LEARNT_S)
        cluster.world.crash(f"master-{number}")
        await cluster.until_leader()


@pytest.mark.parametrize("seed", range(3))
def test_clients_and_servers_follow_masters_that_their_configuration_does_not_name(
    tmp_path: Path, seed: int, expected_logs: ExpectedLogs
) -> None:
    expected_logs("chunkserver-|operator: |master-")

    async def scenario(cluster: SimCluster) -> None:
        async with cluster.client("operator") as operator:
            await cluster.until_registered(operator, 3)
            await write_file(operator, b"before", DATA, sync=True)
            await exchange_all(cluster, operator)
            for number in cluster.chunkservers:
                cluster.world.restart(f"chunkserver-{number}")
            await cluster.until_registered(operator, 3)
            await write_file(operator, b"after", DATA, sync=True)
            for name in (b"before", b"after"):
                assert await read_file(operator, name) == DATA

    simulate(tmp_path, scenario, seed)
