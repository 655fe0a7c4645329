"""With every fsync slowed to 20 ms: no election, fast leased reads, punctual heartbeats."""

from __future__ import annotations

from pathlib import Path

import trio

from dfs.client import Client
from dfs.config import MasterLimits
from dfs.messages.common import ROOT
from dfs.messages.operations import MakeDirectory
from dfs.runtime.sim import World
from tests.simulation.cluster import SimCluster
from tests.simulation.test_whole_cluster import content, write_file

SYNC_DELAY_S = 0.02
DIRECTORIES = 100
READS = 2000


def slow_down(cluster: SimCluster) -> None:
    for n in cluster.masters:
        cluster.world.disk(f"master-{n}").sync_delay_s = SYNC_DELAY_S
    for n in cluster.chunkservers:
        cluster.world.disk(f"chunkserver-{n}").sync_delay_s = SYNC_DELAY_S


async def timed_reads(cluster: SimCluster, client: Client) -> list[float]:
    """Seconds that each of many leased reads took, the shortest first."""
    clock, taken = cluster.world.clock, []
    for _ in range(READS):
        began = clock.monotonic()
        await client.attributes(client.root_inode)
        taken.append(clock.monotonic() - began)
    return sorted(taken)


async def make_directories(client: Client) -> None:
    for n in range(DIRECTORIES):
        await client.perform(MakeDirectory(client.root_inode, b"d%d" % n, 0o755, ROOT))


def test_slow_disks_slow_down_writes_and_nothing_else(tmp_path: Path) -> None:
    world = World(seed=3)

    async def main() -> None:
        cluster = SimCluster(world, tmp_path)
        await cluster.start()
        await cluster.until_leader()
        async with cluster.client("writer") as writer, cluster.client("reader") as reader:
            await cluster.until_registered(writer, 3)
            slow_down(cluster)
            leader = cluster.running[cluster.leader()]
            term, began = leader.raft.term, world.clock.monotonic()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(make_directories, writer)
                nursery.start_soon(write_file, writer, b"big", content(1, 4 << 20))
                taken = await timed_reads(cluster, reader)
            assert world.clock.monotonic() - began > DIRECTORIES * SYNC_DELAY_S
            assert taken[int(READS * 0.99)] < 0.005
            assert leader.raft.is_leader()
            assert leader.raft.term == term
            silence = leader.chunkservers.longest_silence_s
            assert silence < 2 * MasterLimits().heartbeat_s

    world.run(main)
