"""Two of a chunk's three disks fail while it is written: another takes their place at once."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from dfs.client import Client
from dfs.client.open_file import OpenFile
from dfs.messages.common import ROOT
from tests.conftest import ExpectedLogs
from tests.simulation.cluster import SimCluster
from tests.simulation.test_repair import located, simulate
from tests.simulation.test_whole_cluster import content, read_file, write_file

STALL_MAX_S = 2.0  # of virtual time: what failed says so at once, there is nothing to wait for
SEEDS = range(1, 5)


async def write_and_sync(cluster: SimCluster, file: OpenFile, offset: int, data: bytes) -> float:
    """How long it took, in seconds."""
    clock = cluster.world.clock
    began = clock.monotonic()
    await file.write(offset, data)
    await file.sync()
    return clock.monotonic() - began


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("operation", "code"),
    [("read", errno.EIO), ("write", errno.EIO), ("sync", errno.EIO), ("write", errno.EROFS)],
)
def test_a_writer_goes_on_before_long(
    tmp_path: Path, expected_logs: ExpectedLogs, seed: int, operation: str, code: int
) -> None:
    expected_logs("dfs.client|chunkserver|not settled|repair of chunk|has damaged blocks")
    data, new = content(1, 3 << 20), content(2, 4096)

    async def scenario(cluster: SimCluster, client: Client) -> None:
        inode = await write_file(client, b"file", data, sync=True)
        (chunk,) = await located(client, [inode])
        for replica in chunk.replicas[:2]:
            cluster.world.disk(f"chunkserver-{replica.server}").fail("/", code, operation)
        file = await client.open_file(inode, ROOT, write=True)
        expected = bytearray(data)
        for number in range(8):
            at = number * 300_000
            assert await write_and_sync(cluster, file, at, new) < STALL_MAX_S
            expected[at : at + len(new)] = new
        await file.close()
        assert await read_file(client, b"file") == expected

    simulate(tmp_path, 4, scenario, seed)
