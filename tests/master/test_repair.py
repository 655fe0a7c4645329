"""Repair: real masters and fake chunkservers, on the virtual clock."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from dfs.config import MasterLimits
from dfs.errors import Failure
from dfs.layout import CHUNK_BYTES
from dfs.messages.chunks import ReplicaState
from dfs.messages.cluster import (
    DeleteReplicas,
    FetchReplica,
    GetRepairStatus,
    RemoveServer,
    RepairClass,
    RepairStatus,
    ServerMode,
    SetServerMode,
)
from dfs.messages.metadata import ChunkLocation
from dfs.runtime.sim import World
from tests.conftest import ExpectedLogs
from tests.master.fake_servers import FakeCluster, FakeWriter, servers_of

Scenario = Callable[[FakeCluster, FakeWriter], Awaitable[None]]
LIMITS = MasterLimits(repair_grace_s=30.0, deletion_grace_s=20.0)
DRAINING, MAINTENANCE, IN_SERVICE = (
    int(m) for m in (ServerMode.DRAINING, ServerMode.MAINTENANCE, ServerMode.IN_SERVICE)
)


def simulate(
    directory: Path, scenario: Scenario, zones: str, limits: MasterLimits = LIMITS
) -> None:
    world = World(1)

    async def main() -> None:
        cluster = FakeCluster(world, directory, zones, limits=limits)
        await cluster.start()
        async with cluster.client() as writer:
            await scenario(cluster, writer)

    world.run(main)


def fetches(cluster: FakeCluster) -> list[tuple[int, FetchReplica]]:
    return [
        (s.id, o) for s in cluster.servers.values() for o in s.orders if isinstance(o, FetchReplica)
    ]


async def status(writer: FakeWriter) -> RepairStatus:
    found: RepairStatus = await writer.client.cluster_call(GetRepairStatus())
    return found


async def class_of(writer: FakeWriter, name: str) -> RepairClass:
    return next(c for c in (await status(writer)).classes if c.name == name)


async def set_mode(
    writer: FakeWriter, server: int, mode: int, disk: str = "", seconds: float = 0.0
) -> None:
    await writer.client.cluster_call(SetServerMode(server, mode, disk, seconds))


async def until_sets(
    writer: FakeWriter, good: Callable[[ChunkLocation], bool], timeout_s: float = 200.0
) -> list[ChunkLocation]:
    """Wait until every chunk's set is good and its replicas are settled and equal."""
    clock = writer.cluster.world.clock
    until_s = clock.monotonic() + timeout_s
    while True:
        chunks = await writer.chunks()
        if all(good(c) and writer.is_settled(c) for c in chunks):
            return chunks
        assert clock.monotonic() < until_s, [servers_of(c) for c in chunks]
        await clock.sleep(0.2)


def on(*servers: int) -> Callable[[ChunkLocation], bool]:
    return lambda chunk: set(servers_of(chunk)) == set(servers)


def three_without(server: int) -> Callable[[ChunkLocation], bool]:
    return lambda chunk: len(servers_of(chunk)) == 3 and server not in servers_of(chunk)


def test_a_dead_server_is_replaced_after_its_grace(tmp_path: Path) -> None:
    async def scenario(cluster: FakeCluster, writer: FakeWriter) -> None:
        await writer.make(30)
        dead = servers_of(await writer.chunk())[1]
        cluster.kill(dead)
        await cluster.world.clock.sleep(34)
        assert fetches(cluster) == [], "it may come back"
        await until_sets(writer, three_without(dead))
        copies = len(fetches(cluster))
        assert copies <= 30, "each chunk is copied once, and only those it had"
        await cluster.back(dead)
        await cluster.until(lambda: not cluster.servers[dead].replicas, timeout_s=60)
        assert len(fetches(cluster)) == copies

    simulate(tmp_path, scenario, "aaaa")


def test_an_endangered_chunk_is_copied_at_once(tmp_path: Path, expected_logs: ExpectedLogs) -> None:
    expected_logs("cannot reach")  # the dead ones are tried once before it is settled without

    async def scenario(cluster: FakeCluster, writer: FakeWriter) -> None:
        (chunk,) = await writer.make()
        first, second, third = servers_of(chunk)
        (spare,) = set(cluster.servers) - {first, second, third}
        cluster.kill(second, third)
        await cluster.world.clock.sleep(9)
        assert [target for target, _ in fetches(cluster)] == [spare]
        assert cluster.servers[spare].replicas[chunk.handle].state == ReplicaState.SETTLED
        await cluster.back(second, third)
        chunks = await until_sets(writer, lambda c: len(servers_of(c)) == 3)
        assert spare in servers_of(chunks[0]) or first in servers_of(chunks[0])

    simulate(tmp_path, scenario, "aaaa")


def test_a_flapping_server_starts_no_copies(tmp_path: Path) -> None:
    async def scenario(cluster: FakeCluster, writer: FakeWriter) -> None:
        await writer.make(10)
        for _ in range(6):
            cluster.kill(2)
            await cluster.world.clock.sleep(25)
            await cluster.back(2)
            await cluster.world.clock.sleep(1)
        assert fetches(cluster) == []
        await until_sets(writer, lambda c: len(servers_of(c)) == 3, timeout_s=10)

    simulate(tmp_path, scenario, "aaaa")


def test_maintenance_starts_no_repair_until_its_time_is_up(tmp_path: Path) -> None:
    async def scenario(cluster: FakeCluster, writer: FakeWriter) -> None:
        await writer.make(5)
        absent = servers_of(await writer.chunk())[0]
        await set_mode(writer, absent, MAINTENANCE, seconds=300)
        cluster.kill(absent)
        await cluster.world.clock.sleep(200)
        assert fetches(cluster) == []
        (told,) = (await status(writer)).servers
        assert (told.server, told.mode) == (absent, MAINTENANCE)
        assert told.until_s == pytest.approx(100, abs=2)
        assert told.dead_for_s > 100
        await cluster.world.clock.sleep(95)
        assert fetches(cluster) == []
        await until_sets(writer, three_without(absent))

    simulate(tmp_path, scenario, "aaaa")


def test_what_a_client_dropped_during_maintenance_is_caught_up_afterwards(tmp_path: Path) -> None:
    async def scenario(cluster: FakeCluster, writer: FakeWriter) -> None:
        (chunk,) = await writer.make()
        first, second, third = servers_of(chunk)
        await set_mode(writer, third, MAINTENANCE)
        cluster.kill(third)
        await writer.drop(chunk, third)
        await cluster.world.clock.sleep(300)
        assert fetches(cluster) == []
        await cluster.back(third)
        await set_mode(writer, third, IN_SERVICE)
        await until_sets(writer, on(first, second, third), timeout_s=60)
        assert cluster.servers[third].fetched == 0

    simulate(tmp_path, scenario, "aaaa")


def test_draining_empties_a_server_without_lowering_any_chunks_copies(tmp_path: Path) -> None:
    async def scenario(cluster: FakeCluster, writer: FakeWriter) -> None:
        await writer.make(60)
        await set_mode(writer, 1, DRAINING)
        while any(1 in servers_of(c) for c in await writer.chunks()):
            for chunk in await writer.chunks():
                complete = [
                    r
                    for r in writer.replicas(chunk)
                    if r is not None and r.state != ReplicaState.JOINING and r.content
                ]
                assert len(complete) >= 3, f"{chunk} has only {len(complete)} copies"
            await cluster.world.clock.sleep(0.05)
        await until_sets(writer, three_without(1))
        with pytest.raises(Failure, match="stop it first"):
            await writer.client.cluster_call(RemoveServer(1))
        # New chunks go elsewhere, too.
        await writer.make(20)
        assert not any(1 in servers_of(c) for c in await writer.chunks())
        await cluster.until(lambda: not cluster.servers[1].replicas, timeout_s=60)
        cluster.kill(1)
        await cluster.world.clock.sleep(1)
        await writer.client.cluster_call(RemoveServer(1))
        assert [s.server for s in (await status(writer)).servers] == []

    simulate(tmp_path, scenario, "aaaaa")


def test_a_server_in_use_is_not_removed(tmp_path: Path) -> None:
    async def scenario(cluster: FakeCluster, writer: FakeWriter) -> None:
        await writer.make(3)
        cluster.kill(1)
        with pytest.raises(Failure, match="3 chunks have a replica on chunkserver 1"):
            await writer.client.cluster_call(RemoveServer(1))
        for wrong in (
            SetServerMode(9, DRAINING),
            SetServerMode(1, 7),
            SetServerMode(2, DRAINING, "/nowhere"),
            SetServerMode(2, MAINTENANCE, "/a"),
            RemoveServer(9),
        ):
            with pytest.raises(Failure, match=r"no chunkserver|cannot be|no disk|whole server"):
                await writer.client.cluster_call(wrong)

    simulate(tmp_path, scenario, "aaa")


def test_a_drain_with_nowhere_to_go_waits_and_goes_on_when_there_is(tmp_path: Path) -> None:
    async def scenario(cluster: FakeCluster, writer: FakeWriter) -> None:
        await writer.make(4)
        cluster.kill(4)  # never had anything
        await cluster.world.clock.sleep(10)
        await set_mode(writer, 1, DRAINING)
        await cluster.world.clock.sleep(100)
        assert fetches(cluster) == []
        assert (await class_of(writer, "draining")).chunks == 5
        told = await status(writer)
        assert told.eta_s == -1
        assert told.stuck.startswith("5 chunks wait"), told.stuck
        await cluster.back(4)
        await until_sets(writer, on(2, 3, 4))
        await cluster.world.clock.sleep(2)
        assert (await class_of(writer, "draining")).chunks == 0
        assert (await status(writer)).stuck == ""

    limits = dataclasses.replace(LIMITS, chunk_replicas=3)
    world = World(1)

    async def main() -> None:
        cluster = FakeCluster(world, tmp_path, "aaaa", limits=limits)
        cluster.servers[4].disk_bytes = 0
        await cluster.start()
        async with cluster.client() as writer:
            await writer.make(1)
            cluster.servers[4].disk_bytes = 1000 * CHUNK_BYTES
            await scenario(cluster, writer)

    world.run(main)


def test_two_replicas_in_one_zone_are_parted_when_there_is_another(tmp_path: Path) -> None:
    async def scenario(cluster: FakeCluster, writer: FakeWriter) -> None:
        cluster.kill(4)
        await cluster.world.clock.sleep(6)
        await writer.make(10)
        assert all(4 not in servers_of(c) for c in await writer.chunks())
        await cluster.back(4)
        chunks = await until_sets(writer, lambda c: 4 in servers_of(c) and len(servers_of(c)) == 3)
        for chunk in chunks:
            zones = {cluster.servers[s].zone for s in servers_of(chunk)}
            assert len(zones) == 3

    simulate(tmp_path, scenario, "aabc")


def test_a_replica_that_a_client_dropped_is_caught_up_not_copied_anew(tmp_path: Path) -> None:
    async def scenario(cluster: FakeCluster, writer: FakeWriter) -> None:
        (chunk,) = await writer.make()
        first, second, third = servers_of(chunk)
        await writer.drop(chunk, third)
        await cluster.world.clock.sleep(4)
        assert fetches(cluster) == [], "whoever dropped it knew why"
        await until_sets(writer, on(first, second, third))
        assert [target for target, _ in fetches(cluster)] == [third]
        assert cluster.servers[third].fetched == 0
        await cluster.world.clock.sleep(60)
        assert chunk.handle in cluster.servers[third].replicas, "the deletion was cancelled"

    simulate(tmp_path, scenario, "aaaa")


def test_a_dropped_server_that_is_dead_is_waited_for_as_long_as_its_grace(tmp_path: Path) -> None:
    async def scenario(cluster: FakeCluster, writer: FakeWriter) -> None:
        (chunk,) = await writer.make()
        first, second, third = servers_of(chunk)
        cluster.kill(third)
        await writer.drop(chunk, third)
        await cluster.world.clock.sleep(20)
        assert fetches(cluster) == []
        await cluster.back(third)
        await until_sets(writer, on(first, second, third), timeout_s=40)
        assert cluster.servers[third].fetched == 0
        cluster.kill(third)
        await writer.drop(await writer.chunk(), third)
        await until_sets(writer, three_without(third), timeout_s=100)

    simulate(tmp_path, scenario, "aaaa", dataclasses.replace(LIMITS, deletion_grace_s=100.0))


def test_where_too_few_would_be_left_the_failed_one_is_replaced_at_once(
    tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    """It beats, so the leader would not have known: the writer's word starts the repair."""
    expected_logs("cannot reach")

    async def scenario(cluster: FakeCluster, writer: FakeWriter) -> None:
        (chunk,) = await writer.make()
        first, second = servers_of(chunk)
        cluster.servers[first].unreachable.append(second)
        cluster.servers[3].unreachable.append(second)
        assert servers_of(await writer.drop(chunk, second)) == [first, second]
        await until_sets(writer, on(first, 3), timeout_s=20)

    limits = dataclasses.replace(LIMITS, chunk_replicas=2)
    world = World(1)

    async def main() -> None:
        cluster = FakeCluster(world, tmp_path, "aaa", limits=limits)
        cluster.servers[3].disk_bytes = 0
        await cluster.start()
        async with cluster.client() as writer:
            await writer.make(1)
            cluster.servers[3].disk_bytes = 1000 * CHUNK_BYTES
            await cluster.world.clock.sleep(1)
            await scenario(cluster, writer)

    world.run(main)


def test_servers_are_evened_out_within_the_band_and_then_left_alone(tmp_path: Path) -> None:
    async def scenario(cluster: FakeCluster, writer: FakeWriter) -> None:
        for server in cluster.servers.values():
            server.disk_bytes = 100 * CHUNK_BYTES
        cluster.kill(3)
        await cluster.world.clock.sleep(6)
        await writer.make(60)
        await cluster.back(3)
        for _ in range(3000):
            await cluster.world.clock.sleep(0.2)
            counts = [sum(n in servers_of(c) for c in await writer.chunks()) for n in (1, 2, 3)]
            if max(counts) - min(counts) <= 5:
                break
        assert max(counts) - min(counts) <= 5
        await cluster.world.clock.sleep(60)
        moves = len(fetches(cluster))
        assert moves <= 50  # 40 would do, if the figures were never a heartbeat old
        await cluster.world.clock.sleep(300)
        assert len(fetches(cluster)) == moves, "nothing goes back and forth"
        await until_sets(writer, lambda c: len(servers_of(c)) == 2, timeout_s=10)

    simulate(tmp_path, scenario, "aaa", dataclasses.replace(LIMITS, chunk_replicas=2))


def test_a_drained_disk_is_emptied(tmp_path: Path) -> None:
    async def scenario(cluster: FakeCluster, writer: FakeWriter) -> None:
        chunks = await writer.make(20)
        server = cluster.servers[1]
        mine = [c.handle for c in chunks if 1 in servers_of(c)]
        for handle in mine[::2]:
            server.replicas[handle].disk = "/b"
        await set_mode(writer, 1, DRAINING, "/b")
        await cluster.until(lambda: all(r.disk == "/a" for r in server.replicas.values()))
        assert sorted(server.replicas) == mine[1::2]
        await until_sets(writer, lambda c: len(servers_of(c)) == 3)
        await cluster.world.clock.sleep(1)
        (told,) = (await status(writer)).servers
        assert (told.server, told.disk, told.mode, told.replicas) == (1, "/b", DRAINING, 0)
        await set_mode(writer, 1, IN_SERVICE, "/b")
        assert (await status(writer)).servers == ()

    world = World(1)

    async def main() -> None:
        cluster = FakeCluster(world, tmp_path, "aaaa", limits=LIMITS)
        cluster.servers[1].disks = ("/a", "/b")
        await cluster.start()
        async with cluster.client() as writer:
            await scenario(cluster, writer)

    world.run(main)


def test_a_lost_replica_is_made_again(tmp_path: Path, expected_logs: ExpectedLogs) -> None:
    expected_logs("none here")

    async def scenario(cluster: FakeCluster, writer: FakeWriter) -> None:
        (chunk,) = await writer.make()
        _, second, third = servers_of(chunk)
        del cluster.servers[second].replicas[chunk.handle]
        await writer.drop(chunk, third)
        await until_sets(writer, lambda c: len(servers_of(c)) == 3)

    simulate(tmp_path, scenario, "aaa")


def test_a_disk_that_comes_back_empty_is_noticed_and_filled_again(
    tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    expected_logs("has lost its replica of chunk")

    async def scenario(cluster: FakeCluster, writer: FakeWriter) -> None:
        chunks = await writer.make(30)
        lost = cluster.servers[2]
        kept = sorted(lost.replicas)[0]
        cluster.kill(2)
        lost.replicas = {kept: lost.replicas[kept]}
        await cluster.back(2)
        await until_sets(writer, on(1, 2, 3))
        assert sorted(lost.replicas) == [c.handle for c in chunks]
        assert lost.fetched == 29

    simulate(tmp_path, scenario, "aaa")


def test_a_fresh_chunk_may_lack_replicas_and_one_made_since_is_not_lost(tmp_path: Path) -> None:
    async def scenario(cluster: FakeCluster, writer: FakeWriter) -> None:
        await writer.make(3, written=False)
        for server in cluster.servers.values():
            server.registered = False
            assert server.connection is not None
            server.connection.close()
        await cluster.until(lambda: all(s.registered for s in cluster.servers.values()))
        await cluster.world.clock.sleep(30)
        assert fetches(cluster) == []
        assert all(len(servers_of(c)) == 3 for c in await writer.chunks())

    simulate(tmp_path, scenario, "aaa")


def test_copies_are_bounded_in_number_and_rate(tmp_path: Path) -> None:
    limits = dataclasses.replace(LIMITS, repair_bytes_per_s=60 << 20, copies_per_server=2)

    async def scenario(cluster: FakeCluster, writer: FakeWriter) -> None:
        for server in cluster.servers.values():
            server.copy_delay_s = 2.0
        await writer.make(40)
        dead = servers_of(await writer.chunk())[0]
        cluster.kill(dead)
        leader = cluster.leading()
        most: dict[int, int] = {}
        for _ in range(1000):
            await cluster.world.clock.sleep(0.1)
            for number, count in leader.care.repair.copies().items():
                most[number] = max(most.get(number, 0), count)
        assert max(most.values()) == 2
        rates = {o.bytes_per_s for _, o in fetches(cluster)}
        assert len(rates) == 1
        assert rates.pop() * 4 <= 60 << 20  # four servers, two copies each, each with two ends
        await until_sets(writer, three_without(dead))

    simulate(tmp_path, scenario, "aaaaa", limits)


def test_the_status_tells_what_is_done_and_how_long_it_takes(tmp_path: Path) -> None:
    async def scenario(cluster: FakeCluster, writer: FakeWriter) -> None:
        for server in cluster.servers.values():
            server.copy_delay_s = 5.0
        await writer.make(30)
        quiet = await status(writer)
        assert [c.name for c in quiet.classes] == [
            "settling",
            "endangered",
            "under-replicated",
            "draining",
            "misplaced",
            "rebalancing",
            "surplus",
            "deletions",
        ]
        assert [c.chunks for c in quiet.classes] == [0] * 8
        assert (quiet.eta_s, quiet.unreadable, quiet.bytes_per_s) == (0, 0, 0)
        dead = servers_of(await writer.chunk())[0]
        had = sum(dead in servers_of(c) for c in await writer.chunks())
        cluster.kill(dead)
        await cluster.world.clock.sleep(10)
        (told,) = (await status(writer)).servers
        assert (told.server, told.mode, told.replicas) == (dead, IN_SERVICE, had)
        assert told.repaired_in_s == pytest.approx(25, abs=3)
        await cluster.world.clock.sleep(45)
        busy, lacking = await status(writer), await class_of(writer, "under-replicated")
        assert 0 < lacking.chunks < had
        assert lacking.running > 0
        assert busy.bytes_per_s > 0
        assert 0 < busy.eta_s < 300
        assert busy.copied_bytes > 0
        await until_sets(writer, three_without(dead))
        cluster.kill(*(s for s in cluster.servers if s != dead))
        await cluster.world.clock.sleep(10)
        assert (await status(writer)).unreadable == 30

    simulate(tmp_path, scenario, "aaaaa")


def test_a_deletion_is_not_carried_out_while_a_copy_is_made_there(tmp_path: Path) -> None:
    async def scenario(cluster: FakeCluster, writer: FakeWriter) -> None:
        (chunk,) = await writer.make()
        third = servers_of(chunk)[2]
        cluster.servers[third].copy_delay_s = 15.0
        await writer.drop(chunk, third)
        await cluster.until(lambda: bool(fetches(cluster)))
        await cluster.servers[third].report()
        assert cluster.servers[third].deletes == ()
        await until_sets(writer, on(*servers_of(chunk)))
        deleted = [o for o in cluster.servers[third].orders if isinstance(o, DeleteReplicas)]
        assert deleted == []

    simulate(tmp_path, scenario, "aaa", dataclasses.replace(LIMITS, deletion_grace_s=10.0))


def test_a_copy_survives_the_client_changing_the_set(tmp_path: Path) -> None:
    async def scenario(cluster: FakeCluster, writer: FakeWriter) -> None:
        (chunk,) = await writer.make()
        dead = servers_of(chunk)[0]
        for server in cluster.servers.values():
            server.copy_delay_s = 3.0
        cluster.kill(dead)
        await cluster.until(lambda: bool(fetches(cluster)))
        await writer.drop(chunk, dead)
        await until_sets(writer, three_without(dead))

    simulate(tmp_path, scenario, "aaaa")


def test_nothing_to_do_is_nothing_done(tmp_path: Path) -> None:
    """Chunks that cannot be repaired for want of servers cost no orders, and end nobody's sleep."""

    async def scenario(cluster: FakeCluster, writer: FakeWriter) -> None:
        await writer.make(20)
        cluster.kill(3)
        await cluster.world.clock.sleep(500)
        assert fetches(cluster) == []
        assert (await class_of(writer, "under-replicated")).chunks == 20
        assert all(len(servers_of(c)) == 3 for c in await writer.chunks())

    simulate(tmp_path, scenario, "aaa")


def test_a_failing_target_is_not_tried_for_ever(
    tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    expected_logs("repair of chunk .* failed")

    async def scenario(cluster: FakeCluster, writer: FakeWriter) -> None:
        (chunk,) = await writer.make()
        dead = servers_of(chunk)[0]
        spare, other = (s for s in cluster.servers if s not in servers_of(chunk))
        cluster.servers[spare].hanging.append(FetchReplica)
        cluster.servers[other].disk_bytes = 900 * CHUNK_BYTES  # the second choice
        cluster.kill(dead)
        chunks = await until_sets(writer, three_without(dead))
        assert other in servers_of(chunks[0])
        assert len(cluster.servers[spare].orders) == 1

    simulate(tmp_path, scenario, "aaaaa")
