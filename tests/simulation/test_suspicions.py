"""Races that random runs seldom hit, each set up on purpose."""

from __future__ import annotations

from pathlib import Path

import pytest

from dfs.client import Client, OpenFile
from dfs.errors import Code, Failure
from dfs.messages.cluster import GetClusterStatus
from dfs.messages.common import ROOT, Attributes
from dfs.messages.metadata import ChunkMap
from dfs.messages.operations import AllocateChunks, Create, SetAttributes, Unlink
from tests.conftest import ExpectedLogs
from tests.simulation.cluster import SimCluster
from tests.simulation.test_whole_cluster import content, read_file, simulate, write_file


async def open_named(client: Client, name: bytes) -> OpenFile:
    found = await client.lookup(client.root_inode, name)
    return await client.open_file(found.inode, ROOT, write=True)


async def truncate(client: Client, inode: int, size_bytes: int) -> None:
    await client.set_attributes(SetAttributes(inode, ROOT, size_bytes=size_bytes))


@pytest.mark.parametrize("with_cut", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_a_chunk_that_a_dead_client_only_allocated_can_be_read_and_written(
    tmp_path: Path, seed: int, with_cut: bool
) -> None:
    async def scenario(cluster: SimCluster) -> None:
        async with cluster.client("client-1") as one, cluster.client("client-2") as two:
            await cluster.until_registered(one, 3)
            operation = Create(one.root_inode, b"file", 0o644, True, ROOT)
            made = await one.perform(operation)
            assert isinstance(made, Attributes)
            await truncate(one, made.inode, 2000 if with_cut else 1000)
            await one.perform(AllocateChunks(made.inode, 0, 1))
            if with_cut:
                await truncate(one, made.inode, 500)
            await truncate(one, made.inode, 1000)
            file = await open_named(two, b"file")
            assert bytes(await file.read(0, 5000)) == bytes(1000)
            await file.write(100, b"data")
            await file.close()
            assert await read_file(one, b"file") == bytes(100) + b"data" + bytes(896)
            assert await cluster.check_replicas(one, made.inode, 1) == 1

    simulate(tmp_path, scenario, seed)


def test_a_file_does_not_shrink_when_a_background_flush_is_followed_by_a_write(
    tmp_path: Path,
) -> None:
    """The size that a commit behind the writer's back had made was forgotten by the next write."""

    async def scenario(cluster: SimCluster) -> None:
        async with cluster.client() as client:
            await cluster.until_registered(client, 3)
            operation = Create(client.root_inode, b"file", 0o644, True, ROOT)
            file = await client.create_file(operation)
            await file.write(0, content(1, 200_000))
            await cluster.world.clock.sleep(5)  # written behind
            await file.write(0, b"new")
            assert bytes(await file.read(199_999, 10)) == content(1, 200_000)[-1:]
            await file.close()

    simulate(tmp_path, scenario)


@pytest.mark.parametrize("seed", range(2))
def test_what_is_written_after_anothers_truncate_is_kept(
    tmp_path: Path, seed: int, expected_logs: ExpectedLogs
) -> None:
    """A writer with an old chunk map does not know of the pending cut."""
    expected_logs("generation")

    async def scenario(cluster: SimCluster) -> None:
        async with cluster.client("client-1") as one, cluster.client("client-2") as two:
            await cluster.until_registered(one, 3)
            inode = await write_file(one, b"file", content(1, 100_000))
            file = await open_named(one, b"file")
            await file.write(0, b"x")  # so that it knows the chunk
            await file.flush()
            await truncate(two, inode, 50_000)
            await file.write(80_000, b"after")
            await file.close()
            expected = b"x" + content(1, 100_000)[1:50_000] + bytes(30_000) + b"after"
            assert await read_file(two, b"file") == expected

    simulate(tmp_path, scenario, seed)


def test_a_close_lost_with_its_connection_does_not_keep_the_file_for_ever(
    tmp_path: Path,
) -> None:
    async def scenario(cluster: SimCluster) -> None:
        world = cluster.world
        async with cluster.client("client-1") as one, cluster.client("client-2") as two:
            await cluster.until_registered(one, 3)
            await write_file(one, b"file", content(1, 1000))
            file = await open_named(one, b"file")
            leader = cluster.leader()
            world.partition("client-1", leader)
            await file.close()
            world.reset_links("client-1", leader)
            world.heal()
            await two.perform(Unlink(two.root_inode, b"file", ROOT))
            await cluster.until_clean(timeout_s=60)

    simulate(tmp_path, scenario)


def test_a_partition_of_one_server_from_the_master_does_not_delay_another_ones_loss(
    tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    """The version change cannot be told to the one server; the writer must not wait for that."""
    expected_logs("chunkserver|client")

    async def scenario(cluster: SimCluster) -> None:
        world = cluster.world
        async with cluster.client("client-1") as one:
            await cluster.until_registered(one, 3)
            await write_file(one, b"file", content(1, 100_000))
            file = await open_named(one, b"file")
            world.partition("chunkserver-2", cluster.leader())
            world.crash("chunkserver-3", power_loss=False)
            began = world.clock.monotonic()
            await file.write(0, content(2, 100_000))
            await file.close()
            assert world.clock.monotonic() - began < 6.0
            assert await read_file(one, b"file") == content(2, 100_000)

    simulate(tmp_path, scenario)


@pytest.mark.parametrize("seed", range(2))
def test_an_open_file_unlinked_by_another_survives_failovers(
    tmp_path: Path, seed: int, expected_logs: ExpectedLogs
) -> None:
    async def scenario(cluster: SimCluster) -> None:
        world = cluster.world
        async with cluster.client("client-1") as one, cluster.client("client-2") as two:
            await cluster.until_registered(one, 3)
            await write_file(one, b"file", content(1, 100_000))
            file = await open_named(one, b"file")
            await two.perform(Unlink(two.root_inode, b"file", ROOT))
            for _ in range(3):
                leader = await cluster.until_leader()
                world.crash(leader)
                await world.clock.sleep(4)
                world.restart(leader)
                await world.clock.sleep(2)
                assert bytes(await file.read(0, 100_000)) == content(1, 100_000)
            await file.close()
            await cluster.until_clean()

    simulate(tmp_path, scenario, seed)


@pytest.mark.parametrize("seed", range(2))
def test_a_session_that_expired_is_replaced_and_its_handles_are_stale(
    tmp_path: Path, seed: int, expected_logs: ExpectedLogs
) -> None:
    expected_logs("session|silent|housekeeping|sign of life")

    async def scenario(cluster: SimCluster) -> None:
        world = cluster.world
        async with cluster.client("client-1") as one, cluster.client("client-2") as two:
            await cluster.until_registered(one, 3)
            await write_file(one, b"file", content(1, 100_000))
            file = await open_named(one, b"file")
            for name in cluster.masters:
                world.partition("client-1", f"master-{name}")
            await two.perform(Unlink(two.root_inode, b"file", ROOT))
            await write_file(two, b"file", content(2, 100_000))
            await world.clock.sleep(15)
            world.heal(reset=bool(seed % 2))
            await world.clock.sleep(5)
            for attempt in (file.read(0, 100), file.write(0, b"lost"), file.flush()):
                with pytest.raises(Failure) as caught:
                    await attempt
                assert caught.value.code is Code.NO_SESSION
            assert await read_file(one, b"file") == content(2, 100_000)
            again = await open_named(one, b"file")
            await again.write(0, b"new")
            await again.close()
            assert (await read_file(two, b"file"))[:4] == b"new" + content(2, 100_000)[3:4]
            await cluster.until_clean()

    simulate(tmp_path, scenario, seed)


@pytest.mark.parametrize("seed", range(2))
def test_a_server_that_left_a_chunk_and_returns_is_neither_read_nor_kept(
    tmp_path: Path, seed: int, expected_logs: ExpectedLogs
) -> None:
    expected_logs("chunkserver|client-1")

    async def scenario(cluster: SimCluster) -> None:
        world = cluster.world
        async with cluster.client("client-1") as one, cluster.client("client-2") as two:
            await cluster.until_registered(one, 3)
            inode = await write_file(one, b"file", content(1, 200_000))
            reader = await open_named(two, b"file")
            assert bytes(await reader.read(0, 10)) == content(1, 200_000)[:10]
            await reader.close()
            for name in ("client-1", "master-1", "master-2", "master-3"):
                world.partition("chunkserver-1", name)
            for n in (2, 3):
                world.partition("chunkserver-1", f"chunkserver-{n}")
            file = await open_named(one, b"file")
            await file.write(0, content(2, 200_000))
            await file.close()  # client-2 could still reach the server that left
            assert await read_file(two, b"file") == content(2, 200_000)
            world.heal(reset=bool(seed % 2))
            await cluster.until_registered(one, 3)
            assert await read_file(two, b"file") == content(2, 200_000)
            await cluster.until_clean()
            assert await cluster.check_replicas(one, inode, 1) == 1

    simulate(tmp_path, scenario, seed)


@pytest.mark.parametrize("seed", range(2))
def test_a_version_that_could_not_be_told_is_told_later(
    tmp_path: Path, seed: int, expected_logs: ExpectedLogs
) -> None:
    expected_logs("chunkserver|client-1")

    async def scenario(cluster: SimCluster) -> None:
        world = cluster.world
        async with cluster.client("client-1") as one:
            await cluster.until_registered(one, 3)
            inode = await write_file(one, b"file", content(1, 200_000))
            leader = cluster.leader()
            world.partition(leader, "chunkserver-2", one_way=True)
            world.crash("chunkserver-3", power_loss=False)
            file = await open_named(one, b"file")
            await file.write(0, content(2, 200_000))
            with_timeout = world.clock.monotonic() + 1.5
            while world.clock.monotonic() < with_timeout:
                await world.clock.sleep(0.1)
            world.heal()
            began = world.clock.monotonic()
            await file.close()
            assert world.clock.monotonic() - began < 5.0
            assert await read_file(one, b"file") == content(2, 200_000)
            await cluster.check_replicas(one, inode, 1)

    simulate(tmp_path, scenario, seed)


@pytest.mark.parametrize("seed", range(2))
def test_a_leader_change_in_the_middle_of_allocations_loses_no_chunk(
    tmp_path: Path, seed: int, expected_logs: ExpectedLogs
) -> None:
    expected_logs("chunkserver|client")

    async def scenario(cluster: SimCluster) -> None:
        world = cluster.world
        async with cluster.client("client-1") as one:
            await cluster.until_registered(one, 3)
            operation = Create(one.root_inode, b"file", 0o644, True, ROOT)
            file = await one.create_file(operation)
            for index in range(12):
                await file.write(index << 26, b"chunk %d" % index)
                if index % 4 == seed:
                    leader = cluster.leader()
                    if leader:
                        world.crash(leader)
                        world.restart(leader)
            await file.close()
            file = await open_named(one, b"file")
            for index in range(12):
                assert bytes(await file.read(index << 26, 7))[:7] == (b"chunk %d" % index)[:7]
            await file.close()
            assert await cluster.check_replicas(one, file.inode, 12) == 12
            status = await one.cluster_call(GetClusterStatus())
            assert status.chunks == 12

    simulate(tmp_path, scenario, seed)


def test_servers_to_be_avoided_are_used_when_there_are_no_others(tmp_path: Path) -> None:
    """The client's opinion stays in the operation over all its retries."""

    async def scenario(cluster: SimCluster) -> None:
        async with cluster.client("client-1") as one:
            await cluster.until_registered(one, 3)
            made = await one.perform(Create(one.root_inode, b"file", 0o644, True, ROOT))
            assert isinstance(made, Attributes)
            answer = await one.perform(AllocateChunks(made.inode, 0, 1, avoid=(1, 2)))
            assert isinstance(answer, ChunkMap)
            servers = [replica.server for replica in answer.chunks[0].replicas]
            assert servers[0] == 3
            assert len(servers) == 2

    simulate(tmp_path, scenario)


def test_a_replica_made_by_a_packet_that_came_late_is_deleted(
    tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    """Its chunk was gone by then, and the master had been told that nothing is there."""
    expected_logs("chain broken|did not answer|no replica|does not know")

    async def scenario(cluster: SimCluster) -> None:
        world = cluster.world
        async with cluster.client("client-1") as one:
            await cluster.until_registered(one, 3)
            for n in range(6):  # connect all servers with each other
                await write_file(one, b"%d" % n, b"data")
            file = await one.create_file(Create(one.root_inode, b"file", 0o644, True, ROOT))
            answer = await one.perform(AllocateChunks(file.inode, 0, 1))
            assert isinstance(answer, ChunkMap)
            [chunk] = answer.chunks
            _, middle, last = (f"chunkserver-{r.server}" for r in chunk.replicas)
            world.partition(middle, last, one_way=True)
            await file.write(0, b"data")
            await file.close()
            await one.perform(Unlink(one.root_inode, b"file", ROOT))
            await cluster.until_clean()
            world.heal()
            while chunk.handle not in cluster.replicas(chunk.replicas[2].server):
                await world.clock.sleep(0.01)
            await cluster.until_clean()

    simulate(tmp_path, scenario)


@pytest.mark.parametrize("seed", range(2))
def test_synced_data_survives_the_power_loss_of_everything(
    tmp_path: Path, seed: int, expected_logs: ExpectedLogs
) -> None:
    """What was written after the sync may be old or new, block by block, and never an error."""
    expected_logs("chunkserver|master|client")

    async def scenario(cluster: SimCluster) -> None:
        world = cluster.world
        async with cluster.client("client-1") as one:
            await cluster.until_registered(one, 3)
            data, later = content(1, 300_000), content(2, 300_000)
            await write_file(one, b"synced", data, sync=True)
            await write_file(one, b"changed", data, sync=True)
            file = await open_named(one, b"changed")
            await file.write(0, later)
            await file.close()
            nodes = [f"master-{n}" for n in cluster.masters]
            nodes += [f"chunkserver-{n}" for n in cluster.chunkservers]
            for name in nodes:
                world.crash(name, power_loss=True)
            for name in nodes:
                world.restart(name)
            await cluster.until_registered(one, 3)
            assert await read_file(one, b"synced") == data
            async with cluster.client("client-2") as two:
                found = await read_file(two, b"changed")
                assert len(found) == len(data)
                for at in range(0, len(data), 512):
                    sector = found[at : at + 512]
                    assert sector in (data[at : at + 512], later[at : at + 512])
            await cluster.until_agreed()
            cluster.check_invariants()

    simulate(tmp_path, scenario, seed)
