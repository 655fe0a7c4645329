"""What the leader tells operators of a cluster whose servers come and go."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from dfs.client import Client
from dfs.messages.cluster import ClusterStatus, GetClusterStatus
from tests.simulation.cluster import SimCluster
from tests.simulation.test_whole_cluster import content, simulate, write_file


def has_alive(count: int, status: ClusterStatus) -> bool:
    return sum(server.alive for server in status.servers) == count


async def until(
    cluster: SimCluster, client: Client, holds: Callable[[ClusterStatus], bool]
) -> ClusterStatus:
    """Ask the leader until it says so; what it said."""
    until_s = cluster.world.clock.monotonic() + 60.0
    while True:
        status: ClusterStatus = await client.cluster_call(GetClusterStatus())
        if status.leader == status.master and holds(status):
            return status
        assert cluster.world.clock.monotonic() < until_s, status
        await cluster.world.clock.sleep(0.1)


def test_chunks_with_one_living_copy_or_none_are_counted(tmp_path: Path) -> None:
    async def scenario(cluster: SimCluster) -> None:
        async with cluster.client() as client:
            await cluster.until_registered(client, 3)
            await write_file(client, b"file", content(1, 1 << 20), sync=True)
            status = await until(cluster, client, lambda s: s.chunks == 1)
            assert (status.copies, status.under_replicated) == (3, 0)
            for n, expected in ((1, (1, 0, 0)), (2, (1, 1, 0)), (3, (1, 0, 1))):
                cluster.world.crash(f"chunkserver-{n}")
                status = await until(cluster, client, partial(has_alive, 3 - n))
                lacks = (status.under_replicated, status.endangered, status.unreadable)
                assert lacks == expected

    simulate(tmp_path, scenario)


def test_a_new_leader_awaits_the_servers_it_knows_for_a_while(tmp_path: Path) -> None:
    async def scenario(cluster: SimCluster) -> None:
        async with cluster.client() as client:
            await cluster.until_registered(client, 3)
            assert not (await until(cluster, client, lambda s: s.master > 0)).gathering
            cluster.world.crash("chunkserver-1")
            cluster.world.crash(cluster.leader())
            await cluster.until_leader()
            awaiting = await until(cluster, client, lambda s: s.gathering)
            assert not all(server.alive for server in awaiting.servers)
            given_up = await until(cluster, client, lambda s: not s.gathering)
            assert [server.alive for server in given_up.servers] == [False, True, True]

    simulate(tmp_path, scenario)
