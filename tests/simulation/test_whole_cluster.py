"""A whole cluster on the virtual clock: what was acknowledged is there, whoever dies."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from dfs.client import Client
from dfs.messages.common import ROOT, Attributes
from dfs.messages.operations import Create, MakeDirectory, Rename
from dfs.runtime.sim import World
from tests.conftest import ExpectedLogs
from tests.simulation.cluster import SimCluster

Scenario = Callable[[SimCluster], Awaitable[None]]


def simulate(directory: Path, scenario: Scenario, seed: int = 1) -> World:
    """Run the scenario on a fresh cluster; the world, for its trace."""
    world = World(seed)

    async def main() -> None:
        cluster = SimCluster(world, directory)
        await cluster.start()
        await cluster.until_leader()
        await scenario(cluster)

    world.run(main)
    return world


def content(seed: int, length_bytes: int) -> bytes:
    return random.Random(seed).randbytes(length_bytes)


async def write_file(client: Client, name: bytes, data: bytes, *, sync: bool = False) -> int:
    file = await client.create_file(Create(client.root_inode, name, 0o644, False, ROOT))
    for at in range(0, len(data), 128 << 10):
        await file.write(at, data[at : at + (128 << 10)])
    if sync:
        await file.sync()
    await file.close()
    return file.inode


async def read_file(client: Client, name: bytes) -> bytes:
    attributes = await client.lookup(client.root_inode, name)
    file = await client.open_file(attributes.inode, ROOT, write=False)
    data = bytes(await file.read(0, attributes.size_bytes))
    await file.close()
    return data


async def names(client: Client) -> list[bytes]:
    page = await client.read_directory(client.root_inode, 0, 1000)
    assert page.complete
    return sorted(e.name for e in page.entries if e.name not in (b".", b".."))


def test_what_one_client_closed_another_reads(tmp_path: Path) -> None:
    async def scenario(cluster: SimCluster) -> None:
        async with cluster.client("client-1") as one, cluster.client("client-2") as two:
            await cluster.until_registered(one, 3)
            data = content(1, 3 << 20)
            await write_file(one, b"file", data)
            assert await read_file(two, b"file") == data

    simulate(tmp_path, scenario)


def test_the_same_seed_replays_the_same_run(tmp_path: Path, expected_logs: ExpectedLogs) -> None:
    expected_logs("chunkserver-")

    async def scenario(cluster: SimCluster) -> None:
        async with cluster.client() as client:
            await cluster.until_registered(client, 3)
            await write_file(client, b"file", content(2, 1 << 20))
            cluster.world.crash(cluster.leader())
            await write_file(client, b"other", content(3, 1 << 20))

    first, second = (simulate(tmp_path, scenario, seed=5).trace_hash() for _ in range(2))
    assert first == second
    assert simulate(tmp_path, scenario, seed=6).trace_hash() != first


@pytest.mark.parametrize("seed", range(3))
def test_the_leader_dies_while_files_are_created(
    tmp_path: Path, seed: int, expected_logs: ExpectedLogs
) -> None:
    expected_logs("chunkserver-")

    async def scenario(cluster: SimCluster) -> None:
        async with cluster.client() as client:
            await cluster.until_registered(client, 3)
            slowest = 0.0
            for n in range(40):
                if n == 20:
                    cluster.world.crash(cluster.leader())
                began = cluster.world.clock.monotonic()
                operation = MakeDirectory(client.root_inode, b"d%d" % n, 0o755, ROOT)
                assert isinstance(await client.perform(operation), Attributes)
                slowest = max(slowest, cluster.world.clock.monotonic() - began)
            assert len(await names(client)) == 40
            assert slowest < 3.0  # C6
            await cluster.until_agreed()

    simulate(tmp_path, scenario, seed)


@pytest.mark.parametrize("seed", range(3))
def test_a_new_leader_gives_out_no_chunk_before_the_servers_are_back(
    tmp_path: Path, seed: int, expected_logs: ExpectedLogs
) -> None:
    expected_logs("chunkserver-")

    async def scenario(cluster: SimCluster) -> None:
        async with cluster.client() as client:
            await cluster.until_registered(client, 3)
            cluster.world.crash(cluster.leader())
            inode = await write_file(client, b"file", content(6, 1 << 20))
            chunks = (await client.chunk_map(inode, 0, 1)).chunks
            assert [len(chunk.replicas) for chunk in chunks] == [3]

    simulate(tmp_path, scenario, seed)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("victim", [1, 2, 3])
def test_a_chunkserver_dies_in_the_middle_of_a_stream(
    tmp_path: Path, victim: int, seed: int, expected_logs: ExpectedLogs
) -> None:
    expected_logs("chunkserver-")

    async def scenario(cluster: SimCluster) -> None:
        async with cluster.client() as client:
            await cluster.until_registered(client, 3)
            data = content(4, 6 << 20)
            operation = Create(client.root_inode, b"stream", 0o644, False, ROOT)
            file = await client.create_file(operation)
            for at in range(0, len(data), 128 << 10):
                if at == 3 << 20:
                    cluster.world.crash(f"chunkserver-{victim}", power_loss=False)
                await file.write(at, data[at : at + (128 << 10)])
            await file.close()
            assert await read_file(client, b"stream") == data
            cluster.world.restart(f"chunkserver-{victim}")
            await cluster.until_registered(client, 3)
            async with cluster.client("client-2") as other:
                assert await read_file(other, b"stream") == data

    simulate(tmp_path, scenario, seed)


@pytest.mark.parametrize("seed", range(3))
def test_everything_synced_survives_the_kill_of_all_processes(
    tmp_path: Path, seed: int, expected_logs: ExpectedLogs
) -> None:
    expected_logs("chunkserver|master")

    async def scenario(cluster: SimCluster) -> None:
        world = cluster.world
        async with cluster.client("client-1") as client:
            await cluster.until_registered(client, 3)
            await write_file(client, b"draft", content(5, 1 << 20), sync=True)
            operation = Rename(client.root_inode, b"draft", client.root_inode, b"final", 0, ROOT)
            await client.perform(operation)
            for name in cluster.masters:
                world.crash(f"master-{name}")
            for name in cluster.chunkservers:
                world.crash(f"chunkserver-{name}", power_loss=False)
            for name in cluster.masters:
                world.restart(f"master-{name}")
            for name in cluster.chunkservers:
                world.restart(f"chunkserver-{name}")
            await cluster.until_registered(client, 3)
            assert await names(client) == [b"final"]
            assert await read_file(client, b"final") == content(5, 1 << 20)
            await cluster.until_agreed()

    simulate(tmp_path, scenario, seed)
