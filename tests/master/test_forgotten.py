"""No chunk is lost sight of: whatever comes in between, it gets all its replicas in the end.

What is wrong with these chunks is in what their members have; their sets look whole, so the walk
through all chunks sees nothing of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from dfs.errors import Code, Failure
from dfs.messages.chunks import ReplicaInfo
from dfs.messages.cluster import FetchReplica, ReportSuspicions, SettleChunk, Suspicion
from dfs.messages.common import Done
from dfs.rpc import Request
from tests.conftest import ExpectedLogs
from tests.master.fake_servers import FakeCluster, FakeServer, FakeWriter, servers_of
from tests.master.test_repair import LIMITS, simulate

TIMEOUT_S = 100.0
NOISE = "has lost its replica|not settled|repair of chunk|cannot reach|every replica lost"
TWO_COPIES = dataclasses.replace(LIMITS, chunk_replicas=2)


async def until_whole(cluster: FakeCluster, writer: FakeWriter, copies: int) -> None:
    """Every chunk has so many replicas, all settled."""
    clock = cluster.world.clock
    until_s = clock.monotonic() + TIMEOUT_S
    while True:
        chunks = await writer.chunks()
        if all(len(servers_of(c)) == copies and writer.is_settled(c) for c in chunks):
            return
        assert clock.monotonic() < until_s, chunks
        await clock.sleep(0.5)


def lose(cluster: FakeCluster, *servers: int) -> None:
    """Their disks are empty when they come back, and take nothing."""
    for server in servers:
        cluster.kill(server)
        cluster.servers[server].replicas = {}
        cluster.servers[server].disk_bytes = 0


def at_the_first_copy(monkeypatch: pytest.MonkeyPatch, act: Callable[[FakeServer], None]) -> None:
    """Call `act` with the target when it is about to fetch; what that raises is its answer."""
    original, copies = FakeServer._fetch, 0

    async def fetch(server: FakeServer, message: FetchReplica) -> Done:
        nonlocal copies
        copies += 1
        if copies == 1:
            act(server)
        return await original(server, message)

    monkeypatch.setattr(FakeServer, "_fetch", fetch)


def test_where_two_of_three_are_empty_and_take_nothing(
    tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    expected_logs(NOISE)

    async def scenario(cluster: FakeCluster, writer: FakeWriter) -> None:
        (chunk,) = await writer.make()
        _, *others = servers_of(chunk)
        lose(cluster, *others)
        await cluster.back(*others)
        await until_whole(cluster, writer, 3)

    simulate(tmp_path, scenario, "aaaaaa")


def test_where_the_copy_cannot_join(
    tmp_path: Path, expected_logs: ExpectedLogs, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected_logs(NOISE)

    async def scenario(cluster: FakeCluster, writer: FakeWriter) -> None:
        (chunk,) = await writer.make()
        source, other = servers_of(chunk)
        lose(cluster, other)
        unreachable = cluster.servers[source].unreachable
        at_the_first_copy(monkeypatch, lambda target: unreachable.append(target.id))
        await cluster.back(other)
        await until_whole(cluster, writer, 2)

    simulate(tmp_path, scenario, "aaaaa", TWO_COPIES)


def test_where_the_source_is_away_for_a_while(
    tmp_path: Path, expected_logs: ExpectedLogs, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected_logs(NOISE)

    async def scenario(cluster: FakeCluster, writer: FakeWriter) -> None:
        (chunk,) = await writer.make()
        source, other = servers_of(chunk)
        lose(cluster, other)

        def leave(_: FakeServer) -> None:
            cluster.kill(source)
            raise Failure(Code.CONNECTION_LOST, "the source is gone")

        at_the_first_copy(monkeypatch, leave)
        await cluster.back(other)
        await cluster.world.clock.sleep(14.0)
        await cluster.back(source)
        await until_whole(cluster, writer, 2)

    simulate(tmp_path, scenario, "aaaaa", TWO_COPIES)


def test_where_more_wait_than_the_queue_takes(tmp_path: Path, expected_logs: ExpectedLogs) -> None:
    expected_logs(NOISE)

    async def scenario(cluster: FakeCluster, writer: FakeWriter) -> None:
        await writer.make(30)
        cluster.kill(2)
        cluster.servers[2].replicas = {}
        await cluster.back(2)
        await until_whole(cluster, writer, 2)

    few = dataclasses.replace(TWO_COPIES, repair_queue=4)
    simulate(tmp_path, scenario, "aaa", few)


def test_a_member_that_failed_is_tried_again_although_its_replacement_was_silent(
    tmp_path: Path, expected_logs: ExpectedLogs, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected_logs(NOISE)
    original, silent = FakeServer._ordered, list[FakeServer]()

    async def ordered(server: FakeServer, request: Request) -> object:
        message = request.message
        alone = isinstance(message, SettleChunk) and message.chain == message.joining
        if alone and message.joining and not silent:
            target = server.cluster.by_address(message.joining[0])
            silent.append(target)
            server.cluster.world.partition(target.name, "master-1")
            await server.cluster.world.clock.sleep(3.0)
        return await original(server, request)

    monkeypatch.setattr(FakeServer, "_ordered", ordered)

    async def scenario(cluster: FakeCluster, writer: FakeWriter) -> None:
        (chunk,) = await writer.make()
        first, *others = servers_of(chunk)
        source = cluster.servers[first]
        source.unreachable = list(others)
        for other in others:
            cluster.servers[other].disk_bytes = 0
        suspicion = Suspicion(chunk.handle, 1, False, "")
        assert source.connection is not None
        await source.connection.call(ReportSuspicions(first, (suspicion,)), timeout_s=1.0)
        while not silent:
            await cluster.world.clock.sleep(0.1)
        await cluster.world.clock.sleep(3.5)
        source.unreachable = []
        cluster.world.heal_between(silent[0].name, "master-1")
        await until_whole(cluster, writer, 3)

    simulate(tmp_path, scenario, "aaaaa")


def test_where_the_leader_asks_what_is_left_and_gets_no_answer(
    tmp_path: Path, expected_logs: ExpectedLogs, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected_logs(NOISE)
    original, asked = FakeServer._inspect, list[int]()

    def inspect(server: FakeServer, request: Request) -> ReplicaInfo:
        asked.append(server.id)
        if len(asked) <= 3:
            raise Failure(Code.OVERLOADED, "not now")
        return original(server, request)

    monkeypatch.setattr(FakeServer, "_inspect", inspect)

    async def scenario(cluster: FakeCluster, writer: FakeWriter) -> None:
        await writer.make(2)
        cluster.kill(2)
        cluster.servers[2].replicas = {}
        await cluster.back(2)
        await until_whole(cluster, writer, 3)
        assert cluster.servers[2].fetched == 2
        assert len(asked) > 3

    simulate(tmp_path, scenario, "aaa")
