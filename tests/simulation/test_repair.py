"""Repair on whole clusters: real masters, chunkservers and clients, on the virtual clock."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from dfs.client import Client
from dfs.messages.cluster import (
    GetRepairStatus,
    RemoveServer,
    RepairStatus,
    ServerMode,
    SetServerMode,
)
from dfs.messages.common import ROOT
from dfs.messages.metadata import ChunkLocation
from dfs.messages.operations import AllocateChunks, Create, DropReplicas, Unlink
from dfs.runtime.sim import World
from master.state import queries
from tests.conftest import ExpectedLogs
from tests.simulation.cluster import Knobs, SimCluster
from tests.simulation.test_whole_cluster import content, read_file, write_file

Scenario = Callable[[SimCluster, Client], Awaitable[None]]
NOISE = "chunkserver-|dfs.client|not settled|repair of chunk|did not delete"


def simulate(
    directory: Path, servers: int, scenario: Scenario, seed: int = 1, knobs: Knobs | None = None
) -> None:
    world = World(seed)

    async def main() -> None:
        cluster = SimCluster(world, directory, chunkservers=servers, knobs=knobs)
        await cluster.start()
        await cluster.until_leader()
        async with cluster.client() as client:
            await cluster.until_registered(client, servers)
            await scenario(cluster, client)
            cluster.check_invariants()

    world.run(main)


async def located(client: Client, inodes: list[int]) -> list[ChunkLocation]:
    return [c for i in inodes for c in (await client.chunk_map(i, 0, 8)).chunks]


def servers_of(chunk: ChunkLocation) -> set[int]:
    return {r.server for r in chunk.replicas}


async def until_all(
    cluster: SimCluster,
    client: Client,
    inodes: list[int],
    good: Callable[[ChunkLocation], bool],
    timeout_s: float = 120.0,
) -> None:
    until_s = cluster.world.clock.monotonic() + timeout_s
    while not all(map(good, chunks := await located(client, inodes))):
        assert cluster.world.clock.monotonic() < until_s, chunks
        await cluster.world.clock.sleep(0.5)
    # The last change of a set may still be on its way to being settled.
    await cluster.world.clock.sleep(2)
    for inode in inodes:
        await cluster.check_replicas(client, inode, 8)


@pytest.mark.parametrize("seed", range(2))
def test_the_chunks_of_a_dead_server_are_copied_while_a_client_writes(
    tmp_path: Path, seed: int, expected_logs: ExpectedLogs
) -> None:
    expected_logs(NOISE)

    async def scenario(cluster: SimCluster, client: Client) -> None:
        inodes = [await write_file(client, b"f%d" % n, content(n, 300_000)) for n in range(6)]
        dead = min(servers_of((await located(client, inodes))[0]))
        cluster.world.crash(f"chunkserver-{dead}")
        file = await client.create_file(Create(client.root_inode, b"busy", 0o644, False, ROOT))
        data = content(99, 64 << 10)
        slowest, writes = 0.0, 0
        while any(dead in servers_of(c) for c in await located(client, inodes)):
            began = cluster.world.clock.monotonic()
            await file.write((writes * 7919) % (1 << 20), data)
            await file.sync()
            writes += 1
            slowest = max(slowest, cluster.world.clock.monotonic() - began)
            await cluster.world.clock.sleep(0.2)
        await file.close()
        assert slowest < 3.0  # C6
        await until_all(
            cluster, client, [*inodes, file.inode], lambda c: len(servers_of(c) - {dead}) == 3
        )
        for n in range(6):
            assert await read_file(client, b"f%d" % n) == content(n, 300_000)

    simulate(tmp_path, 5, scenario, seed)


def test_a_server_that_returns_with_old_replicas_is_brought_up_to_date(
    tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    expected_logs(NOISE)

    async def scenario(cluster: SimCluster, client: Client) -> None:
        inode = await write_file(client, b"file", content(1, 2 << 20))
        cluster.world.crash("chunkserver-2", power_loss=False)
        attributes = await client.lookup(client.root_inode, b"file")
        file = await client.open_file(attributes.inode, ROOT, write=True)
        await file.write(1 << 20, content(2, 100_000))  # 2 leaves the set
        await file.close()
        assert all(2 not in servers_of(c) for c in await located(client, [inode]))
        cluster.world.restart("chunkserver-2")
        await until_all(cluster, client, [inode], lambda c: servers_of(c) == {1, 2, 3})
        expected = bytearray(content(1, 2 << 20))
        expected[1 << 20 : (1 << 20) + 100_000] = content(2, 100_000)
        cluster.world.crash("chunkserver-1")
        cluster.world.crash("chunkserver-3")
        await cluster.world.clock.sleep(10)
        async with cluster.client("client-2") as other:
            assert await read_file(other, b"file") == bytes(expected)

    # Long enough for the deletion to be cancelled.
    simulate(tmp_path, 3, scenario, knobs=Knobs(deletion_grace_s=30.0))


def test_a_server_is_drained_under_load_and_removed(
    tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    expected_logs(NOISE)

    async def scenario(cluster: SimCluster, client: Client) -> None:
        inodes = [await write_file(client, b"f%d" % n, content(n, 200_000)) for n in range(10)]
        await client.cluster_call(SetServerMode(1, int(ServerMode.DRAINING)))
        more = 0
        while any(1 in servers_of(c) for c in await located(client, inodes)):
            assert all(len(servers_of(c)) >= 3 for c in await located(client, inodes))
            await write_file(client, b"new%d" % more, content(more, 50_000))
            more += 1
        await until_all(cluster, client, inodes, lambda c: len(servers_of(c)) == 3)
        await cluster.until_clean()
        assert not cluster.replicas(1)
        cluster.world.crash("chunkserver-1")
        await cluster.world.clock.sleep(3)
        await client.cluster_call(RemoveServer(1))
        status: RepairStatus = await client.cluster_call(GetRepairStatus())
        assert [c.chunks for c in status.classes] == [0] * 8
        assert status.copied_bytes > 0
        assert status.servers == ()
        for n in range(10):
            assert await read_file(client, b"f%d" % n) == content(n, 200_000)

    simulate(tmp_path, 4, scenario)


@pytest.mark.parametrize("raised", [False, True])
def test_a_chunk_that_nobody_wrote_yet_gets_its_members_back(
    tmp_path: Path, raised: bool, expected_logs: ExpectedLogs
) -> None:
    """There is nothing to be copied; a writer that comes later finds all of its replicas."""
    expected_logs(NOISE)

    async def scenario(cluster: SimCluster, client: Client) -> None:
        file = await client.create_file(Create(client.root_inode, b"file", 0o644, True, ROOT))
        await client.perform(AllocateChunks(file.inode, 0, 1))
        (chunk,) = await located(client, [file.inode])
        dead = min(servers_of(chunk))
        if raised:  # as by a client that could not reach it
            await client.perform(DropReplicas(file.inode, 0, chunk.handle, chunk.version, (dead,)))
        cluster.world.crash(f"chunkserver-{dead}")
        while len(servers_of((await located(client, [file.inode]))[0]) - {dead}) < 3:
            await cluster.world.clock.sleep(1.0)
        await file.write(0, content(1, 100_000))
        await file.close()
        await until_all(cluster, client, [file.inode], lambda c: len(servers_of(c) - {dead}) == 3)
        assert await read_file(client, b"file") == content(1, 100_000)

    simulate(tmp_path, 4, scenario)


@pytest.mark.parametrize("jump_s", [-86_400.0, 86_400.0])
def test_wall_clocks_that_are_set_neither_hasten_nor_hinder_deletion_and_repair(
    tmp_path: Path, jump_s: float, expected_logs: ExpectedLogs
) -> None:
    expected_logs(NOISE)
    grace_s = 20.0

    async def scenario(cluster: SimCluster, client: Client) -> None:
        world = cluster.world
        inode = await write_file(client, b"file", content(1, 100_000))
        (chunk,) = await located(client, [inode])
        await client.perform(Unlink(client.root_inode, b"file", ROOT))
        while not queries.deletions(cluster.leading().tables, chunk.replicas[0].server, 1):
            await world.clock.sleep(0.2)
        began_s = world.clock.monotonic()
        for name in cluster.running:
            world.jump_wall(name, jump_s)
        while chunk.handle in cluster.replicas(chunk.replicas[0].server):
            await world.clock.sleep(0.2)
        assert grace_s - 2 < world.clock.monotonic() - began_s < 3 * grace_s
        cluster.world.crash("chunkserver-1", power_loss=False)
        other = await write_file(client, b"other", content(2, 100_000))  # 1 leaves the set
        for name in cluster.running:
            world.jump_wall(name, -jump_s)
        cluster.world.restart("chunkserver-1")
        await until_all(cluster, client, [other], lambda c: len(servers_of(c)) == 3)

    simulate(tmp_path, 3, scenario, knobs=Knobs(deletion_grace_s=grace_s))
