"""Settling: real masters and fake chunkservers. Whatever happens, replicas are equal again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from dfs.config import MasterLimits
from dfs.errors import Code, Failure
from dfs.messages.chunks import ReplicaState
from dfs.messages.cluster import DeleteReplicas, ReportSuspicions, SettleChunk, Suspicion
from dfs.runtime.sim import World
from tests.conftest import ExpectedLogs
from tests.master.fake_servers import FakeCluster, FakeReplica, FakeWriter, servers_of

Sent = TypeVar("Sent")
Scenario = Callable[[FakeCluster, FakeWriter], Awaitable[None]]
SETTLED, UNSETTLED, LOST, JOINING = ReplicaState
NO_REPAIR = MasterLimits(repair_grace_s=100_000.0)


def simulate(
    directory: Path,
    scenario: Scenario,
    *,
    zones: str = "aaa",
    masters: int = 1,
    limits: MasterLimits = NO_REPAIR,
) -> None:
    world = World(1)

    async def main() -> None:
        cluster = FakeCluster(world, directory, zones, masters=masters, limits=limits)
        await cluster.start()
        async with cluster.client() as writer:
            await scenario(cluster, writer)

    world.run(main)


def orders_of(cluster: FakeCluster, kind: type[Sent]) -> list[tuple[int, Sent]]:
    return [(s.id, o) for s in cluster.servers.values() for o in s.orders if isinstance(o, kind)]


@pytest.mark.parametrize("victim", [0, 1, 2])
def test_a_dropped_replica_leaves_the_others_settled_before_the_answer(
    tmp_path: Path, victim: int, expected_logs: ExpectedLogs
) -> None:
    async def scenario(cluster: FakeCluster, writer: FakeWriter) -> None:
        (chunk,) = await writer.make()
        dead = servers_of(chunk)[victim]
        # What was on its way when the link broke: some have it, others not.
        servers = [s for s in servers_of(chunk) if s != dead]
        cluster.servers[servers[0]].replicas[chunk.handle].content += " and more"
        cluster.kill(dead)
        began = cluster.world.clock.monotonic()
        after = await writer.drop(chunk, dead)
        assert cluster.world.clock.monotonic() - began < 0.5  # C6
        assert (after.version, servers_of(after)) == (2, servers)
        assert writer.is_settled(after)
        assert len(orders_of(cluster, SettleChunk)) == 1

    simulate(tmp_path, scenario)


def test_nothing_is_settled_without_need(tmp_path: Path) -> None:
    async def scenario(cluster: FakeCluster, writer: FakeWriter) -> None:
        await writer.make(5)
        for server in cluster.servers.values():
            await server.report()
        cluster.kill(1)
        await cluster.world.clock.sleep(30)
        await cluster.back(1)
        await cluster.world.clock.sleep(30)
        assert orders_of(cluster, SettleChunk) == []

    simulate(tmp_path, scenario)


def test_after_a_kill_of_everything_the_replicas_are_made_equal(tmp_path: Path) -> None:
    async def scenario(cluster: FakeCluster, writer: FakeWriter) -> None:
        chunks = await writer.make(40)
        cluster.kill(1, 2, 3)
        for server in cluster.servers.values():
            for handle, replica in server.replicas.items():
                replica.state = UNSETTLED
                replica.content += f" tail {server.id}" if handle % 2 else ""
        await cluster.back(1, 2, 3)
        after = await writer.until_settled(timeout_s=5)
        assert [set(servers_of(c)) for c in after] == [{1, 2, 3}] * 40
        assert [c.losses for c in after] == [0] * 40
        assert all(c.version == 2 for c in after), "each is raised and settled once"
        assert [c.handle for c in after] == [c.handle for c in chunks]

    simulate(tmp_path, scenario)


def test_a_server_that_stays_away_is_not_waited_for_and_catches_up_later(
    tmp_path: Path,
) -> None:
    async def scenario(cluster: FakeCluster, writer: FakeWriter) -> None:
        (chunk,) = await writer.make()
        cluster.kill(1, 2, 3)
        for server in cluster.servers.values():
            server.replicas[chunk.handle].state = UNSETTLED
            server.replicas[chunk.handle].content += f" tail {server.id}"
        await cluster.back(1, 2)
        await cluster.until(
            lambda: all(cluster.servers[s].replicas[chunk.handle].state == SETTLED for s in (1, 2)),
            timeout_s=5,
        )
        assert cluster.servers[3].replicas[chunk.handle].version == 1
        assert 3 in servers_of(await writer.chunk()), "it has all that was acknowledged"
        await cluster.back(3)
        await writer.until_settled(timeout_s=5)

    simulate(tmp_path, scenario)


def test_replicas_that_lost_power_are_settled_from_one_that_did_not(tmp_path: Path) -> None:
    async def scenario(cluster: FakeCluster, writer: FakeWriter) -> None:
        (chunk,) = await writer.make()
        first, second, third = servers_of(chunk)
        cluster.kill(first, second)
        for server in (first, second):
            cluster.servers[server].replicas[chunk.handle] = FakeReplica(1, "torn", LOST)
        await cluster.back(first, second)
        (after,) = await writer.until_settled(timeout_s=5)
        assert servers_of(after)[0] == third
        assert after.losses == 0
        assert cluster.servers[first].replicas[chunk.handle].content.startswith("data")

    simulate(tmp_path, scenario)


def test_when_all_lost_power_the_loss_is_counted(
    tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    expected_logs("every replica lost power")

    async def scenario(cluster: FakeCluster, writer: FakeWriter) -> None:
        (chunk,) = await writer.make()
        cluster.kill(1, 2, 3)
        for server in cluster.servers.values():
            server.replicas[chunk.handle].state = LOST
        await cluster.back(1, 2, 3)
        (after,) = await writer.until_settled(timeout_s=5)
        assert (after.version, after.losses) == (2, 1)

    simulate(tmp_path, scenario)


def test_replicas_that_lost_power_wait_long_for_the_others(
    tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    expected_logs("every replica lost power|cannot reach")

    async def scenario(cluster: FakeCluster, writer: FakeWriter) -> None:
        first, second = await writer.make(2)
        cluster.kill(1, 2, 3)
        for server in (1, 2):
            for replica in cluster.servers[server].replicas.values():
                replica.state, replica.content = LOST, "torn"
        await cluster.back(1, 2)
        await cluster.world.clock.sleep(50)
        assert [c.version for c in await writer.chunks()] == [1, 1]
        await cluster.back(3)
        assert [c.losses for c in await writer.until_settled(timeout_s=5)] == [0, 0]
        assert cluster.servers[1].replicas[first.handle].content == f"data of {first.handle}"
        cluster.kill(1, 2, 3)
        cluster.servers[1].replicas[second.handle].state = LOST
        await cluster.back(1)
        await cluster.world.clock.sleep(70)
        assert [c.losses for c in await writer.chunks()] == [0, 1]

    simulate(tmp_path, scenario)


def test_a_damaged_replica_is_mended_from_a_good_one(
    tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    expected_logs("has damaged blocks")

    async def scenario(cluster: FakeCluster, writer: FakeWriter) -> None:
        (chunk,) = await writer.make()
        bad = cluster.servers[servers_of(chunk)[0]]
        bad.replicas[chunk.handle].damaged = True
        bad.replicas[chunk.handle].content = "rot"
        assert bad.connection is not None
        told = ReportSuspicions(bad.id, (Suspicion(chunk.handle, 1, damaged=True),))
        await bad.connection.call(told, timeout_s=1)
        (after,) = await writer.until_settled(timeout_s=5)
        assert bad.replicas[chunk.handle].content == f"data of {chunk.handle}"
        assert set(servers_of(after)) == {1, 2, 3}

    simulate(tmp_path, scenario)


def test_what_is_damaged_everywhere_is_said_once_and_not_tried_for_ever(
    tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    expected_logs("has damaged blocks|damaged in every replica")

    async def scenario(cluster: FakeCluster, writer: FakeWriter) -> None:
        (chunk,) = await writer.make()
        for server in cluster.servers.values():
            server.replicas[chunk.handle].damaged = True
            await server.report()
        await cluster.world.clock.sleep(200)
        assert len(orders_of(cluster, SettleChunk)) <= 3
        assert set(servers_of(await writer.chunk())) == {1, 2, 3}

    simulate(tmp_path, scenario)


def test_a_member_that_the_source_cannot_reach_leaves_the_set(
    tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    expected_logs("not settled .* cannot reach")

    async def scenario(cluster: FakeCluster, writer: FakeWriter) -> None:
        (chunk,) = await writer.make()
        first, second, third = servers_of(chunk)
        for server in (first, second):
            cluster.servers[server].unreachable.append(third)
        suspicion = ReportSuspicions(first, (Suspicion(chunk.handle, 1),))
        connection = cluster.servers[first].connection
        assert connection is not None
        await connection.call(suspicion, timeout_s=1)
        await cluster.world.clock.sleep(5)
        (after,) = await writer.until_settled(timeout_s=5)
        assert servers_of(after) == [first, second]

    simulate(tmp_path, scenario)


def test_a_set_never_gets_smaller_than_it_must_be(
    tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    expected_logs("not settled .* cannot reach")

    async def scenario(cluster: FakeCluster, writer: FakeWriter) -> None:
        (chunk,) = await writer.make()
        first, second, third = servers_of(chunk)
        cluster.kill(third)
        after = await writer.drop(chunk, third)
        assert servers_of(await writer.drop(after, second)) == [first, second]
        cluster.servers[first].unreachable.append(second)
        connection = cluster.servers[first].connection
        assert connection is not None
        suspicion = ReportSuspicions(first, (Suspicion(chunk.handle, after.version),))
        await connection.call(suspicion, timeout_s=1)
        await cluster.world.clock.sleep(20)
        last = await writer.chunk()
        assert set(servers_of(last)) == {first, second}
        serving = cluster.servers[first].replicas[chunk.handle]
        assert (serving.version, serving.state) == (last.version, SETTLED), "it can be read"
        cluster.servers[first].unreachable.clear()
        await writer.until_settled(timeout_s=40)

    simulate(tmp_path, scenario)


def test_a_member_without_its_replica_leaves_while_enough_are_there(
    tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    expected_logs("not settled .* none here")

    async def scenario(cluster: FakeCluster, writer: FakeWriter) -> None:
        (chunk,) = await writer.make()
        first, second, third = servers_of(chunk)
        del cluster.servers[second].replicas[chunk.handle]
        cluster.kill(third)
        after = await writer.drop(chunk, third)
        # Two have to be members, so the one without a replica stays; the other serves.
        assert servers_of(after) == [first, second]
        serving = cluster.servers[first].replicas[chunk.handle]
        assert (serving.version, serving.state) == (after.version, SETTLED)

    simulate(tmp_path, scenario)


def test_a_fresh_chunk_gets_its_missing_replicas(
    tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    expected_logs("not settled .* none here")

    async def scenario(cluster: FakeCluster, writer: FakeWriter) -> None:
        chunk, untouched = await writer.make(2, written=False)
        first, second, third = servers_of(chunk)
        cluster.servers[second].replicas[chunk.handle] = FakeReplica(1, "the first packet")
        cluster.kill(third)
        after = await writer.drop(chunk, third)
        assert servers_of(after) == [first, second]
        await cluster.world.clock.sleep(2)
        after = await writer.chunk()
        assert set(servers_of(after)) == {first, second}
        assert writer.is_settled(after)
        # Nobody has written to this one yet: there is nothing to settle.
        bare = await writer.drop(untouched, third)
        assert [writer.replicas(bare)] == [[None, None]]

    simulate(tmp_path, scenario)


def test_suspicions_of_an_older_version_are_ignored(tmp_path: Path) -> None:
    async def scenario(cluster: FakeCluster, writer: FakeWriter) -> None:
        (chunk,) = await writer.make()
        first, second, third = servers_of(chunk)
        connection = cluster.servers[first].connection
        assert connection is not None
        told = ReportSuspicions(first, (Suspicion(chunk.handle, 1, address="x:1"),))
        await connection.call(told, timeout_s=1)
        cluster.kill(third)
        await writer.drop(chunk, third)  # the client itself does something, as it mostly does
        await connection.call(told, timeout_s=1)
        await cluster.world.clock.sleep(10)
        assert (await writer.chunk()).version == 2
        assert len(orders_of(cluster, SettleChunk)) == 1
        again = ReportSuspicions(first, (Suspicion(chunk.handle, 2), Suspicion(99, 1)))
        await connection.call(again, timeout_s=1)
        await cluster.world.clock.sleep(10)
        assert (await writer.chunk()).version == 3  # the client died: somebody has to
        assert servers_of(await writer.chunk()) == [first, second]

    simulate(tmp_path, scenario)


def test_another_source_gets_another_version(tmp_path: Path, expected_logs: ExpectedLogs) -> None:
    expected_logs("not settled at version 2")

    async def scenario(cluster: FakeCluster, writer: FakeWriter) -> None:
        (chunk,) = await writer.make()
        first, second, third = servers_of(chunk)
        failure = Failure(Code.DISK, "its disk is gone", detail=cluster.servers[first].address)
        cluster.servers[first].failing[SettleChunk] = failure
        cluster.kill(third)
        await writer.drop(chunk, third)
        await cluster.world.clock.sleep(3)
        orders = [(s, o.version) for s, o in orders_of(cluster, SettleChunk)]
        assert (first, 2) in orders
        assert (second, 3) in orders
        assert (second, 2) not in orders
        after = await writer.chunk()
        assert servers_of(after)[0] == second
        assert writer.is_settled(after)

    simulate(tmp_path, scenario)


def test_a_new_leader_finds_out_what_is_left_to_settle(
    tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    expected_logs("not settled|settling chunk")

    async def scenario(cluster: FakeCluster, writer: FakeWriter) -> None:
        chunks = await writer.make(3)
        for server in cluster.servers.values():
            server.hanging.append(SettleChunk)
        cluster.kill(3)
        for chunk in chunks:
            await writer.drop(chunk, 3)
        for server in cluster.servers.values():
            server.hanging.clear()
        (leader,) = [n for n, s in cluster.running.items() if s.raft.is_leader()]
        cluster.world.crash(leader)
        after = await writer.until_settled(timeout_s=10)
        assert [set(servers_of(c)) for c in after] == [{1, 2}] * 3

    simulate(tmp_path, scenario, masters=3)


def test_a_replica_that_is_ahead_of_the_metadata_is_kept_and_not_served(
    tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    expected_logs("they are older than the data")

    async def scenario(cluster: FakeCluster, writer: FakeWriter) -> None:
        (chunk,) = await writer.make()
        ahead = cluster.servers[2]
        ahead.replicas[chunk.handle].version = 7
        await ahead.report()
        await cluster.world.clock.sleep(100)
        assert ahead.deletes == ()
        assert ahead.replicas[chunk.handle].version == 7
        assert 2 in servers_of(await writer.chunk())

    simulate(tmp_path, scenario)


def test_a_dropped_replica_is_deleted_after_its_grace(tmp_path: Path) -> None:
    limits = MasterLimits(repair_grace_s=100_000.0, deletion_grace_s=30.0)

    async def scenario(cluster: FakeCluster, writer: FakeWriter) -> None:
        (chunk,) = await writer.make()
        third = servers_of(chunk)[2]
        await writer.drop(chunk, third)
        server = cluster.servers[third]
        await server.report()
        assert server.deletes == (), "the state knows of it: it has a grace of its own"
        await cluster.world.clock.sleep(25)
        assert chunk.handle in server.replicas
        await cluster.until(lambda: chunk.handle not in server.replicas, timeout_s=10)
        assert [o.handles for _, o in orders_of(cluster, DeleteReplicas)] == [(chunk.handle,)]

    simulate(tmp_path, scenario, limits=limits)


def test_many_deletions_go_in_batches(tmp_path: Path) -> None:
    limits = MasterLimits(repair_grace_s=100_000.0, deletion_grace_s=5.0, reap_batch=8)

    async def scenario(cluster: FakeCluster, writer: FakeWriter) -> None:
        chunks = await writer.make(30)
        for chunk in chunks:
            await writer.drop(chunk, 2)
        server = cluster.servers[2]
        await cluster.until(lambda: not server.replicas, timeout_s=30)
        sizes = [len(o.handles) for o in server.orders if isinstance(o, DeleteReplicas)]
        assert sum(sizes) == 30
        assert max(sizes) <= 8
        await cluster.world.clock.sleep(10)
        assert cluster.leading()._janitor.deletions_waiting() == 0

    simulate(tmp_path, scenario, limits=limits)
