"""What a failed disk does to the replicas of a whole cluster."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from chunkserver.format import DATA_OFFSET
from dfs.messages.common import ROOT
from tests.conftest import ExpectedLogs
from tests.simulation.cluster import SimCluster
from tests.simulation.test_whole_cluster import content, simulate, write_file

SIZE = 200_000
DISKS = ("/disk-a", "/disk-b")


async def until_whole(cluster: SimCluster) -> None:
    await cluster.world.clock.sleep(3)  # until the leader has noticed what happened
    assert await cluster.until_redundant(100)


def data_on(cluster: SimCluster, name: str) -> bytes:
    """The data of the only replica on a node."""
    media = cluster.world.disk(name)
    (path,) = [path for disk in DISKS for path in media.files(f"{disk}/replicas/")]
    return media.inode(path).read_all()[DATA_OFFSET:]


@pytest.mark.parametrize("seed", [0, 1, 3, 13])
def test_what_a_failed_sync_lost_is_not_taken_for_durable_after_a_restart(
    tmp_path: Path, seed: int, expected_logs: ExpectedLogs
) -> None:
    """It was in the page cache, where all looked well until the power failed."""
    expected_logs("")

    async def scenario(cluster: SimCluster) -> None:
        world = cluster.world
        async with cluster.client() as client:
            await cluster.until_registered(client, 3)
            inode = await write_file(client, b"file", content(1, SIZE), sync=True)
            await until_whole(cluster)
            file = await client.open_file(inode, ROOT, write=True)
            await file.write(0, content(2, SIZE))
            await file.flush()
            media = world.disk("chunkserver-1")
            for disk in DISKS:
                media.fail(disk, errno.EIO, "sync")
            await file.sync()
            media.repair()
            world.crash("chunkserver-1", power_loss=False)
            world.restart("chunkserver-1")
            await until_whole(cluster)
            await file.sync()
            await file.close()
            await world.clock.sleep(100)  # all is at rest
            world.crash("chunkserver-1")
            world.restart("chunkserver-1")
            await until_whole(cluster)
            assert await cluster.check_replicas(client, inode, 1) == 1
            for name in cluster.storing:
                assert data_on(cluster, name)[:SIZE] == content(2, SIZE)

    simulate(tmp_path, scenario, seed)


def test_a_master_that_starts_on_a_disk_that_refuses_ends_and_says_so(
    tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    expected_logs("refuses|the disk of|cannot be tidied|the Raft log|not vacant|lost")

    async def scenario(cluster: SimCluster) -> None:
        world, name = cluster.world, "master-1"
        world.disk(name).fail("/data", errno.EIO, "write")
        world.restart(name)
        while world.is_alive(name):
            await world.clock.sleep(0.2)
        assert world.endings[-1] == (name, world.endings[-1][1])
        assert world.endings[-1][1].startswith("fatal")
        world.disk(name).repair()
        world.restart(name)
        await cluster.until_agreed()

    simulate(tmp_path, scenario)
