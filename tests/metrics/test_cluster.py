"""What happens in a cluster shows in its metrics, and who cannot work says why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from dfs.errors import Code, Failure
from dfs.messages.chunks import ReadChunk, WriteChunk
from dfs.messages.cluster import RepairClass, RepairStatus
from dfs.messages.common import ROOT
from dfs.messages.operations import Create, Unlink
from tests.conftest import ExpectedLogs
from tests.metrics.cluster import WatchedCluster, watch
from tests.simulation.test_whole_cluster import content, read_file, write_file

SIZE = 1 << 20
CHUNKSERVERS = tuple(f"chunkserver-{n}" for n in (1, 2, 3))


def test_what_a_client_writes_and_reads_is_counted_everywhere(tmp_path: Path) -> None:
    async def scenario(cluster: WatchedCluster) -> None:
        async with cluster.watched_client() as client:
            await cluster.until_registered(client, 3)
            await write_file(client, b"file", content(1, SIZE), sync=True)
            assert await read_file(client, b"file") == content(1, SIZE)
            at_client = await cluster.scrape("client")
            servers = [await cluster.scrape(name) for name in CHUNKSERVERS]
        assert at_client.value("dfs_client_written_bytes_total") == SIZE
        assert at_client.value("dfs_client_read_bytes_total") == SIZE
        assert at_client.value("dfs_client_dirty_bytes") == 0
        assert at_client.value("dfs_client_in_flight_bytes") == 0
        assert at_client.value("dfs_client_in_flight_packets") == 0
        assert at_client.value("dfs_client_cache_hits_total") > 0
        assert at_client.value("dfs_client_session") == 1
        operations = "dfs_client_operation_duration_seconds_count"
        assert at_client.value(operations, operation="Create") == 1
        # One reads from one replica; a packet goes down a chain of three.
        assert sum(s.value("dfs_chunkserver_read_bytes_total") for s in servers) == SIZE
        assert [s.value("dfs_chunkserver_written_bytes_total") for s in servers] == [SIZE] * 3
        syncs = [s.total("dfs_chunkserver_disk_sync_duration_seconds_count") for s in servers]
        assert min(syncs) >= 1
        chains = "dfs_chunkserver_chain_duration_seconds_count"
        packets = SIZE // (256 << 10)
        assert sum(s.value(chains, message="WriteChunk") for s in servers) == 2 * packets
        requests = "dfs_rpc_request_duration_seconds_count"
        assert [s.value(requests, message="WriteChunk") for s in servers] == [packets] * 3
        assert all(s.total("dfs_chunkserver_disk_replicas") == 1 for s in servers)

    watch(tmp_path, scenario)


def test_the_masters_tell_of_raft_and_of_the_state(tmp_path: Path) -> None:
    async def scenario(cluster: WatchedCluster) -> None:
        async with cluster.watched_client() as client:
            await cluster.until_registered(client, 3)
            leader = cluster.leader()
            before = await cluster.scrape(leader)
            await write_file(client, b"file", content(1, SIZE))
            await client.perform(Unlink(client.root_inode, b"file", ROOT))
            await client.create_file(Create(client.root_inode, b"other", 0o644, False, ROOT))
            await cluster.until_agreed()
            after = await cluster.scrape(leader)
            others = [await cluster.scrape(n) for n in cluster.running if n != leader]
        rises = ("dfs_raft_commit_index", "dfs_raft_applied_index", "dfs_raft_last_index")
        for name in rises:
            assert after.value(name) > before.value(name) > 0
        assert after.value("dfs_raft_term") >= 1
        assert after.value("dfs_raft_role", role="leader") == 1
        assert after.value("dfs_raft_leaderships_total") == 1
        assert after.value("dfs_raft_elections_total") >= 1
        assert after.value("dfs_raft_flush_duration_seconds_count") > 0
        assert after.value("dfs_raft_log_entries") > 0
        assert after.value("dfs_master_sessions") == 1
        assert after.value("dfs_master_chunkservers", state="alive") == 3
        assert after.value("dfs_master_chunkservers", state="missing") == 0
        assert after.value("dfs_master_operations_total", operation="Create") == 2
        assert after.value("dfs_master_operations_total", operation="Unlink") == 1
        assert after.value("dfs_master_under_replicated_chunks") == 0
        lags = "dfs_raft_follower_lag_entries"
        peers = [n for n in cluster.masters if f"master-{n}" != leader]
        assert all(0 <= after.value(lags, follower=str(n)) < 100 for n in peers)
        for other in others:
            assert other.value("dfs_raft_role", role="follower") == 1
            assert other.value("dfs_raft_leader_silence_seconds") < 1.0
            assert not other.has("dfs_master_under_replicated_chunks")  # the leader's to tell
            assert other.value("dfs_master_inodes") == after.value("dfs_master_inodes")

    watch(tmp_path, scenario)


def test_a_refused_operation_is_counted_as_refused(tmp_path: Path) -> None:
    async def scenario(cluster: WatchedCluster) -> None:
        async with cluster.watched_client() as client:
            await cluster.until_registered(client, 3)
            await client.perform(Create(client.root_inode, b"name", 0o644, True, ROOT))
            with pytest.raises(Failure, match="exists already"):
                await client.perform(Create(client.root_inode, b"name", 0o644, True, ROOT))
            after = await cluster.scrape(cluster.leader())
        assert after.value("dfs_master_operations_total", operation="Create") == 1
        assert after.value("dfs_master_refused_operations_total", operation="Create") == 1

    watch(tmp_path, scenario)


def test_a_follower_that_is_away_lags(tmp_path: Path, expected_logs: ExpectedLogs) -> None:
    expected_logs("has gone silent")
    expected_logs("chunkserver-")

    async def scenario(cluster: WatchedCluster) -> None:
        async with cluster.watched_client() as client:
            await cluster.until_registered(client, 3)
            leader = cluster.leader()
            away = next(n for n in cluster.masters if f"master-{n}" != leader)
            cluster.world.crash(f"master-{away}")
            for i in range(20):
                await client.perform(Create(client.root_inode, b"%d" % i, 0o644, True, ROOT))
            lag = (await cluster.scrape(leader)).value
            assert lag("dfs_raft_follower_lag_entries", follower=str(away)) >= 20
            cluster.world.restart(f"master-{away}")
            while (await cluster.scrape(leader)).value(
                "dfs_raft_follower_lag_entries", follower=str(away)
            ):
                await cluster.world.clock.sleep(0.1)

    watch(tmp_path, scenario)


def test_masters_without_a_majority_are_not_ready(
    tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    expected_logs("gone silent|heartbeat|not kept alive|session not closed")

    async def scenario(cluster: WatchedCluster) -> None:
        async with cluster.watched_client() as client:
            await cluster.until_registered(client, 3)
            leader = cluster.leader()
            last = next(name for name in cluster.running if name != leader)
            for name in (*cluster.running, *CHUNKSERVERS, "client"):
                await cluster.until_ready(name)
            gone = [name for name in cluster.running if name not in (leader, last)]
            cluster.world.crash(gone[0])
            for name in (leader, last):
                await cluster.until_ready(name)
            cluster.world.crash(last)
            await cluster.until_unready(leader, "majority")
            cluster.world.restart(last)
            await cluster.until_ready(leader)
            await cluster.until_ready(last)

    watch(tmp_path, scenario)


def test_without_a_leader_nobody_is_ready(tmp_path: Path, expected_logs: ExpectedLogs) -> None:
    expected_logs("gone silent|heartbeat|not kept alive|session not closed|has expired")

    async def scenario(cluster: WatchedCluster) -> None:
        async with cluster.watched_client() as client:
            await cluster.until_registered(client, 3)
            leader = cluster.leader()
            follower = next(name for name in cluster.running if name != leader)
            for name in cluster.running:
                if name != follower:
                    cluster.world.crash(name)
            await cluster.until_unready(follower, "leader")
            for name in CHUNKSERVERS:
                await cluster.until_unready(name, "not registered")
            await cluster.until_unready("client", "no leading master has answered")
            seen = await cluster.scrape("client")
            assert seen.value("dfs_client_unanswered_seconds") > 3
            assert seen.value("dfs_client_retries_total", what="master") > 0
            for name in cluster.running:
                if name != follower:
                    cluster.world.restart(name)
            for name in (*cluster.running, *CHUNKSERVERS, "client"):
                await cluster.until_ready(name)

    watch(tmp_path, scenario)


def test_a_chunkserver_with_failed_disks_is_not_ready(
    tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    expected_logs("disk|chunkserver-1|not synced")

    async def scenario(cluster: WatchedCluster) -> None:
        async with cluster.watched_client() as client:
            await cluster.until_registered(client, 3)
            for directory in cluster.storing["chunkserver-1"].store.directories:
                directory.failure(OSError(5, "Input/output error"))
            await cluster.until_unready("chunkserver-1", "no disk is healthy: /disk-a: Input")
            healthy = (await cluster.scrape("chunkserver-1")).value
            assert healthy("dfs_chunkserver_disk_healthy", disk="/disk-a") == 0
            await cluster.until_ready("chunkserver-2")

    watch(tmp_path, scenario)


def test_a_lost_session_shows(tmp_path: Path, expected_logs: ExpectedLogs) -> None:
    expected_logs("has expired|not kept alive|time to live|session not closed")

    async def scenario(cluster: WatchedCluster) -> None:
        async with cluster.watched_client() as client:
            await cluster.until_registered(client, 3)
            assert (await cluster.scrape("client")).value("dfs_client_lost_sessions_total") == 0
            for name in cluster.running:
                cluster.world.partition("client", name)
            await cluster.world.clock.sleep(3 * cluster.knobs.session_ttl_s)
            await cluster.until_unready("client", "no leading master has answered")
            cluster.world.heal(reset=True)
            await cluster.until_ready("client")
            while not (await cluster.scrape("client")).value("dfs_client_lost_sessions_total"):
                await cluster.world.clock.sleep(0.1)

    watch(tmp_path, scenario)


def test_damage_on_disk_and_on_the_way_is_counted(
    tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    expected_logs("not read|damaged|set aside")

    async def scenario(cluster: WatchedCluster) -> None:
        async with cluster.watched_client() as client:
            await cluster.until_registered(client, 3)
            inode = await write_file(client, b"file", content(1, SIZE), sync=True)
            (chunk,) = (await client.chunk_map(inode, 0, 1)).chunks
            first = chunk.replicas[0]
            cluster.damage(f"chunkserver-{first.server}", chunk.handle)
            packet = WriteChunk(chunk.handle, chunk.version, 0, 0, bytes(8), ())
            part = ReadChunk(chunk.handle, chunk.version, 100, 10)
            for message, payload in ((packet, [b"data"]), (part, [])):
                with pytest.raises(Failure) as caught:
                    await client.services.pool.call(first.address, message, payload, timeout_s=5.0)
                assert caught.value.code is Code.CORRUPT
            seen = await cluster.scrape(f"chunkserver-{first.server}")
        mismatches = "dfs_chunkserver_checksum_mismatches_total"
        assert seen.value(mismatches, where="packet") == 1
        assert seen.value(mismatches, where="replica") == 1
        assert seen.value("dfs_rpc_request_errors_total", code="CORRUPT") == 2

    watch(tmp_path, scenario)


def test_a_reader_counts_what_it_passed_over(tmp_path: Path, expected_logs: ExpectedLogs) -> None:
    expected_logs("not read|unreadable|damaged|not mended|not settled")

    async def scenario(cluster: WatchedCluster) -> None:
        async with cluster.watched_client() as client:
            await cluster.until_registered(client, 3)
            inode = await write_file(client, b"file", content(1, SIZE), sync=True)
            (chunk,) = (await client.chunk_map(inode, 0, 1)).chunks
            for name in CHUNKSERVERS:
                cluster.damage(name, chunk.handle)
            with pytest.raises(Failure, match="is unreadable"):
                await read_file(client, b"file")
            seen = await cluster.scrape("client")
        assert seen.value("dfs_client_checksum_mismatches_total") >= 3
        assert seen.value("dfs_client_retries_total", what="read") >= 3

    watch(tmp_path, scenario)


def test_a_watched_cluster_replays_from_its_seed(tmp_path: Path) -> None:
    async def scenario(cluster: WatchedCluster) -> None:
        async with cluster.watched_client() as client:
            await cluster.until_registered(client, 3)
            await write_file(client, b"file", content(1, SIZE))
            for name in (*cluster.running, *CHUNKSERVERS, "client"):
                cluster.world.trace("scrape", (await cluster.scrape(name)).names())

    assert watch(tmp_path, scenario).trace_hash() == watch(tmp_path, scenario).trace_hash()


@dataclass(frozen=True)
class Pass:
    began_ns: int = 0
    ended_ns: int = 0
    bytes: int = 0
    found: int = 0


@dataclass(frozen=True)
class DiskScrub:
    path: str
    state: str
    current: Pass = Pass(0, 0, 4096)
    last: Pass = Pass(1_000_000_000, 61_000_000_000, 8192, 3)
    fraction: float = 0.5
    bytes_per_s: float = 100.0
    damaged_blocks: int = 2
    read_errors: int = 5
    quarantined_blocks: int = 7
    quarantined_replicas: int = 1
    quarantined_bytes: int = 65_536


def test_a_chunkserver_tells_of_its_scrub(tmp_path: Path) -> None:
    async def scenario(cluster: WatchedCluster) -> None:
        disks = (DiskScrub("/disk-a", "running"), DiskScrub("/disk-b", "paused"))
        cluster.storing["chunkserver-1"].metrics.scrub = lambda: disks
        seen = (await cluster.scrape("chunkserver-1")).value
        states = "dfs_chunkserver_scrub_state"
        assert seen(states, disk="/disk-a", state="running") == 1
        assert seen(states, disk="/disk-b", state="running") == 0
        assert seen(states, disk="/disk-b", state="paused") == 1
        assert seen("dfs_chunkserver_scrub_pass_bytes", disk="/disk-a") == 4096
        assert seen("dfs_chunkserver_scrub_last_pass_seconds", disk="/disk-a") == 60
        ended = "dfs_chunkserver_scrub_last_pass_end_timestamp_seconds"
        assert seen(ended, disk="/disk-a") == 61
        assert seen("dfs_chunkserver_damaged_blocks", disk="/disk-b") == 2
        assert seen("dfs_chunkserver_disk_read_errors_total", disk="/disk-a") == 5
        files = "dfs_chunkserver_quarantined_files"
        assert seen(files, disk="/disk-a", kind="block") == 7
        assert seen(files, disk="/disk-a", kind="replica") == 1

    watch(tmp_path, scenario)


def test_the_leader_tells_of_the_repair_queue(tmp_path: Path) -> None:
    async def scenario(cluster: WatchedCluster) -> None:
        classes = (RepairClass("endangered", 7, 2, 4096), RepairClass("surplus", 1, 0, 0))
        status = RepairStatus(classes, (), 10.0, 2048, 3.0, 512, 1)
        leader = cluster.leader()
        for server in cluster.running.values():
            server.metrics.repair = lambda: status
        seen = await cluster.scrape(leader)
        assert seen.value("dfs_master_repair_chunks", **{"class": "endangered"}) == 7
        assert seen.value("dfs_master_repair_running", **{"class": "endangered"}) == 2
        assert seen.value("dfs_master_repair_bytes", **{"class": "endangered"}) == 4096
        assert seen.value("dfs_master_repair_copied_bytes_total") == 512
        assert seen.value("dfs_master_unreadable_chunks") == 1
        other = next(name for name in cluster.running if name != leader)
        assert not (await cluster.scrape(other)).has("dfs_master_unreadable_chunks")

    watch(tmp_path, scenario)
