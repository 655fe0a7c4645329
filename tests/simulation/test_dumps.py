"""The dumps of running masters: of one moment, by the clock or on demand, and only good ones."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from dfs.client import Client
from dfs.config import Master
from dfs.errors import Code, Failure
from dfs.messages.common import ROOT
from dfs.messages.operations import MakeDirectory, RemoveDirectory
from dfs.messages.recovery import DumpFile, FetchDump, FindDump
from dfs.rpc import Reply, Request
from dfs.runtime.sim import World
from master.dump import Reader
from master.server import MasterServer
from master.state import queries
from tests.conftest import ExpectedLogs
from tests.master.state import invariants
from tests.master.state.memory_tables import MemoryTables
from tests.simulation.cluster import SimCluster
from tests.simulation.test_whole_cluster import Scenario

SNAPSHOTS = "/data/snapshots"


class Quick(SimCluster):
    """A cluster whose masters make snapshots often, and slowly."""

    def _master_config(self, n: int) -> Master:
        config = super()._master_config(n)
        limits = replace(
            config.limits,
            snapshot_interval_s=60.0,
            snapshots_kept=3,
            dump_frame_bytes=500,
            dump_bytes_per_s=20_000,
            dump_piece_bytes=300,
        )
        return replace(config, limits=limits)


def simulate_quick(directory: Path, scenario: Scenario, seed: int = 1) -> None:
    world = World(seed)

    async def main() -> None:
        cluster = Quick(world, directory)
        await cluster.start()
        await cluster.until_leader()
        await scenario(cluster)

    world.run(main)


def dump_files(cluster: SimCluster, name: str, prefix: str) -> list[str]:
    disk = cluster.world.env(name).disk
    return [n for n in disk.list_directory(SNAPSHOTS) if n.startswith(prefix)]


def read_tables(data: bytes) -> tuple[Reader, MemoryTables]:
    at = 0

    def read(length_bytes: int) -> bytes:
        nonlocal at
        at += length_bytes
        return data[at - length_bytes : at]

    reader, tables = Reader(read, "dump"), MemoryTables()
    for table, pairs in reader.batches():
        for key, value in pairs:
            tables.put(table, key, value)
    return reader, tables


async def until_ready(cluster: SimCluster, client: Client, made: DumpFile) -> DumpFile:
    while not made.ready:
        await cluster.world.clock.sleep(0.05)
        made = await client.cluster_call(FetchDump(made.name, 0))
    return made


async def ask(server: MasterServer, message: object) -> Reply:
    """Put a question to that master's own handler."""
    answer = await server.handlers()[type(message)](Request(message, b"", None))  # type: ignore[arg-type]
    return answer if isinstance(answer, Reply) else Reply(answer)


async def make_and_remove(client: Client, stop: trio.Event) -> None:
    """Two changes in turn that belong together: at any moment at most one name is there."""
    while not stop.is_set():
        await client.perform(MakeDirectory(client.root_inode, b"here", 0o755, ROOT))
        await client.perform(RemoveDirectory(client.root_inode, b"here", ROOT))


def test_a_dump_is_of_one_moment_while_changes_go_on(tmp_path: Path) -> None:
    async def scenario(cluster: SimCluster) -> None:
        async with cluster.client() as client, cluster.client("operator") as operator:
            for n in range(60):
                await client.perform(MakeDirectory(client.root_inode, b"%d" % n, 0o755, ROOT))
            stop = trio.Event()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(make_and_remove, client, stop)
                begun_at = cluster.leading().raft.applied_index
                made = await operator.cluster_call(FindDump("", True))
                again = await operator.cluster_call(FindDump("", True))
                assert again.name == made.name
                made = await until_ready(cluster, operator, made)
                ended_at = cluster.leading().raft.applied_index
                stop.set()
            assert begun_at <= made.applied_index
            assert ended_at > made.applied_index + 10
            data = cluster.world.env(cluster.leader()).disk.read_file(f"{SNAPSHOTS}/{made.name}")
            assert len(data) == made.total_bytes
            reader, tables = read_tables(data)
            assert reader.header.applied == made.applied_index
            invariants.check(tables)

    simulate_quick(tmp_path, scenario)


def test_a_dump_has_everything_that_was_acknowledged_before(tmp_path: Path) -> None:
    async def scenario(cluster: SimCluster) -> None:
        async with cluster.client() as client, cluster.client("operator") as operator:
            for n in range(5):
                await client.perform(MakeDirectory(client.root_inode, b"%d" % n, 0o755, ROOT))
            digest = queries.state_digest(cluster.leading().tables)
            made = await until_ready(
                cluster, operator, await operator.cluster_call(FindDump("", True))
            )
            data = cluster.world.env(cluster.leader()).disk.read_file(f"{SNAPSHOTS}/{made.name}")
            reader, _ = read_tables(data)
            assert reader.end is not None
            assert reader.end.digest == digest

    simulate_quick(tmp_path, scenario)


def test_every_master_keeps_the_newest_snapshots_by_itself(tmp_path: Path) -> None:
    async def scenario(cluster: SimCluster) -> None:
        await cluster.world.clock.sleep(500.0)
        for n in cluster.masters:
            kept = dump_files(cluster, f"master-{n}", "snapshot-")
            assert len(kept) == 3
            disk = cluster.world.env(f"master-{n}").disk
            for name in kept:
                reader, _ = read_tables(disk.read_file(f"{SNAPSHOTS}/{name}"))
                assert reader.header.master == n
        leftovers = dump_files(cluster, "master-1", "copying")
        assert leftovers == []

    simulate_quick(tmp_path, scenario)


def test_snapshots_are_listed_and_fetched_in_pieces_from_any_master(tmp_path: Path) -> None:
    async def scenario(cluster: SimCluster) -> None:
        await cluster.world.clock.sleep(200.0)
        follower = next(
            s for name, s in sorted(cluster.running.items()) if name != cluster.leader()
        )
        names, after = [], ""
        while found := (await ask(follower, FindDump(after))).message.name:
            names.append(found)
            after = found
        assert names == dump_files(cluster, follower.raft._env.name, "snapshot-")
        data, about = b"", DumpFile("")
        while len(data) < max(about.total_bytes, 1):
            piece = await ask(follower, FetchDump(names[0], len(data)))
            data, about = data + bytes(piece.payload[0]), piece.message
        reader, _ = read_tables(data)
        assert reader.header.applied == about.applied_index
        for name in ("", "../state.mdb", "snapshot-none.dump"):
            with pytest.raises(Failure, match="has no dump") as caught:
                await ask(follower, FetchDump(name, 0))
            assert caught.value.code is Code.CONFIG

    simulate_quick(tmp_path, scenario)


def damage_writes(cluster: SimCluster, leader: str) -> None:
    cluster.world.disk(leader).fail(SNAPSHOTS, errno.EIO, "write")


def fill_disk(cluster: SimCluster, leader: str) -> None:
    cluster.world.disk(leader).capacity_bytes = 1 << 20


@pytest.mark.parametrize(
    ("harm", "told"), [(damage_writes, "refused a dump"), (fill_disk, "bytes free")]
)
def test_a_dump_that_cannot_be_made_is_told_and_harms_nobody(
    tmp_path: Path,
    harm: Callable[[SimCluster, str], None],
    told: str,
    expected_logs: ExpectedLogs,
) -> None:
    expected_logs("no asked-|no snapshot-")

    async def scenario(cluster: SimCluster) -> None:
        async with cluster.client() as client:
            harm(cluster, cluster.leader())
            made = await client.cluster_call(FindDump("", True))
            with pytest.raises(Failure, match=told) as caught:
                await until_ready(cluster, client, made)
            assert caught.value.code is Code.DISK
            await client.perform(MakeDirectory(client.root_inode, b"goes on", 0o755, ROOT))
            cluster.world.disk(cluster.leader()).repair()
            cluster.world.disk(cluster.leader()).capacity_bytes = 1 << 40
            made = await client.cluster_call(FindDump("", True))
            assert (await until_ready(cluster, client, made)).ready

    simulate_quick(tmp_path, scenario)


def test_a_master_that_dies_while_dumping_leaves_nothing_behind(
    tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    expected_logs("chunkserver-")

    async def scenario(cluster: SimCluster) -> None:
        async with cluster.client() as client:
            for n in range(60):
                await client.perform(MakeDirectory(client.root_inode, b"%d" % n, 0o755, ROOT))
            leader = cluster.leader()
            await client.cluster_call(FindDump("", True))
            while not any(n.endswith(".new") for n in dump_files(cluster, leader, "asked-")):
                await cluster.world.clock.sleep(0.01)
            cluster.world.crash(leader)
            cluster.world.restart(leader)
            while dump_files(cluster, leader, "asked-") or dump_files(cluster, leader, "copying"):
                await cluster.world.clock.sleep(0.1)

    simulate_quick(tmp_path, scenario)
