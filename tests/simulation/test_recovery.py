"""A cluster that lost its masters: founded anew from one of them or from a dump, files readable."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
import trio

from dfs.client import Client
from dfs.errors import Code, Failure
from dfs.messages.cluster import AddMaster
from dfs.messages.common import ROOT
from dfs.messages.metadata import Numbered, Submit
from dfs.messages.operations import MakeDirectory, Unlink
from dfs.messages.recovery import DumpFile, FetchDump, FindDump, GetRecovery, RecoveryStatus
from dfs.rpc import Request
from master import meta_work, refounding, survivor
from master.state import queries
from master.state.recovery import JUMP
from tests.conftest import ExpectedLogs
from tests.simulation.cluster import SimCluster
from tests.simulation.test_whole_cluster import content, names, read_file, simulate, write_file

DUMP = "/data-of-the-operator/dump"


async def make_dump(cluster: SimCluster) -> bytes:
    """A dump of the leader's state."""
    async with cluster.client("operator") as operator:
        made: DumpFile = await operator.cluster_call(FindDump("", True))
        while not made.ready:
            made = await operator.cluster_call(FetchDump(made.name, 0))
            await cluster.world.clock.sleep(0.05)
    leader = cluster.leader()
    return cluster.world.env(leader).disk.read_file(f"/data/snapshots/{made.name}")


async def lose_masters(cluster: SimCluster, *numbers: int, disks: bool) -> None:
    for n in numbers:
        cluster.world.crash(f"master-{n}")
        cluster.running.pop(f"master-{n}", None)
        if disks:
            cluster.world.disk(f"master-{n}").wipe()


async def found_anew(
    cluster: SimCluster, n: int, work: Callable[..., Awaitable[refounding.Founded]], *arguments: str
) -> refounding.Founded:
    """Run an offline command on a stopped master's disk, then start it."""
    env = cluster.world.env(f"master-{n}")
    config = cluster._master_config(n)
    if work is refounding.recover:
        await survivor.check_alone(env, config)
    founded = await work(env, config, *arguments)
    await start_master(cluster, n)
    await cluster.until_leader()
    return founded


async def start_master(cluster: SimCluster, n: int) -> None:
    cluster.world.crash(f"master-{n}", power_loss=False)
    await cluster.world.start(f"master-{n}", partial(cluster._run_master, n))


async def load(cluster: SimCluster, n: int, dump: bytes) -> refounding.Founded:
    disk = cluster.world.env(f"master-{n}").disk
    disk.make_directory("/data-of-the-operator")
    disk.write_file(DUMP, dump)
    return await found_anew(cluster, n, refounding.load, DUMP)


async def recovery(client: Client, *, finish: bool = False) -> RecoveryStatus:
    status: RecoveryStatus = await client.cluster_call(GetRecovery(finish))
    return status


async def until_reported(cluster: SimCluster, client: Client, count: int) -> RecoveryStatus:
    while True:
        status = await recovery(client)
        if sum(row[1] for row in status.servers) >= count:
            return status
        await cluster.world.clock.sleep(0.1)


async def grow(cluster: SimCluster, client: Client, *numbers: int) -> None:
    """Bring the group to more masters, on empty disks."""
    for n in numbers:
        cluster.world.disk(f"master-{n}").wipe()
        await start_master(cluster, n)
        await client.cluster_call(AddMaster(n, cluster.masters[n]))


def the_noise_of_lost_masters(expected_logs: ExpectedLogs) -> None:
    expected_logs("chunkserver")
    expected_logs("during the handshake")
    expected_logs("recovery is ended by an operator")
    expected_logs("session .* ended")


def test_a_dump_brings_back_a_cluster_whose_masters_are_all_gone(
    tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    the_noise_of_lost_masters(expected_logs)

    async def scenario(cluster: SimCluster) -> None:
        world = cluster.world
        before, after = content(1, 1 << 20), content(2, 1 << 20)
        async with cluster.client("client-1") as client:
            await cluster.until_registered(client, 3)
            await write_file(client, b"kept", before, sync=True)
            await write_file(client, b"changed", before, sync=True)
            dump = await make_dump(cluster)
            world.crash("chunkserver-3", power_loss=False)
            await write_file(client, b"changed", after, sync=True)  # a new version, without 3
            await write_file(client, b"made later", after, sync=True)
            await cluster.until_agreed()
        await lose_masters(cluster, 1, 2, 3, disks=True)
        world.restart("chunkserver-3")
        world.crash("chunkserver-2", power_loss=False)
        await load(cluster, 1, dump)
        async with cluster.client("client-2") as client:
            await until_reported(cluster, client, 2)
            world.restart("chunkserver-2")
            status = await until_reported(cluster, client, 3)
            changed = await client.lookup(client.root_inode, b"changed")
            (chunk,) = (await client.chunk_map(changed.inode, 0, 1)).chunks
            assert sorted(replica.server for replica in chunk.replicas) == [1, 2]
            assert status.under_way
            assert status.adopted == 1
            assert status.missing_chunks == 0
            unknown = {row[0]: row[3] for row in status.servers}
            assert unknown == {1: 1, 2: 1, 3: 0}
            assert await names(client) == [b"changed", b"kept"]
            assert await read_file(client, b"kept") == before
            assert await read_file(client, b"changed") == after
            await refused(cluster, client)
            assert not (await recovery(client, finish=True)).under_way
            await cluster.until_registered(client, 3)
            await write_file(client, b"new", after)
            assert await read_file(client, b"new") == after
            await grow(cluster, client, 2, 3)
            await cluster.until_agreed()
            await cluster.until_clean()
            cluster.check_invariants()
            assert await read_file(client, b"changed") == after

    simulate(tmp_path, scenario)


async def refused(cluster: SimCluster, client: Client) -> None:
    """Nothing can be changed while the cluster recovers."""
    leading = cluster.leading()
    session = client.session
    operation = MakeDirectory(client.root_inode, b"not now", 0o755, ROOT)
    message = Submit(session, 1, (Numbered(1, operation),))
    handler = leading.handlers()[Submit]
    with pytest.raises(Failure, match="dfs meta recovered") as caught:
        handler(Request(message, b"", None))  # type: ignore[arg-type]
    assert caught.value.code is Code.UNAVAILABLE


def test_what_was_made_after_the_dump_is_never_taken_for_something_new(
    tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    the_noise_of_lost_masters(expected_logs)

    async def scenario(cluster: SimCluster) -> None:
        async with cluster.client("client-1") as client:
            await cluster.until_registered(client, 3)
            inode = await write_file(client, b"grows", b"x" * 1000, sync=True)
            dump = await make_dump(cluster)
            file = await client.open_file(inode, ROOT, write=True)
            await file.write(1000, b"y" * 1000)  # within the same chunk, beyond the dump's size
            await file.sync()
            await file.close()
            lost = await write_file(client, b"lost", b"z" * 1000, sync=True)
        await lose_masters(cluster, 1, 2, 3, disks=True)
        await load(cluster, 1, dump)
        async with cluster.client("client-2") as client:
            await until_reported(cluster, client, 3)
            await recovery(client, finish=True)
            await cluster.until_registered(client, 3)
            file = await client.open_file(inode, ROOT, write=True)
            await file.write(3000, b"w")
            await file.sync()
            await file.close()
            wanted = b"x" * 1000 + bytes(2000) + b"w"
            assert await read_file(client, b"grows") == wanted
            new = await write_file(client, b"new", b"n" * 1000)
            assert new >= JUMP
            assert lost < JUMP
            chunks = (await client.chunk_map(new, 0, 1)).chunks
            assert chunks[0].handle >= JUMP
            await cluster.until_clean()
            cluster.check_invariants()

    simulate(tmp_path, scenario)


@pytest.mark.parametrize("seed", range(2))
def test_one_surviving_master_is_made_a_cluster_again(
    tmp_path: Path, seed: int, expected_logs: ExpectedLogs
) -> None:
    the_noise_of_lost_masters(expected_logs)
    expected_logs("replaced by one founded anew")

    async def scenario(cluster: SimCluster) -> None:
        world, data = cluster.world, content(3, 1 << 20)
        async with cluster.client("client-1") as client:
            await cluster.until_registered(client, 3)
            await write_file(client, b"file", data, sync=True)
            await cluster.until_agreed()
        last = int(cluster.leader()[-1])
        others = [n for n in cluster.masters if n != last]
        world.crash(f"master-{last}")
        with pytest.raises(Failure, match="is alive"):
            await survivor.check_alone(world.env(f"master-{last}"), cluster._master_config(last))
        await lose_masters(cluster, last, *others, disks=False)
        founded = await found_anew(cluster, last, refounding.recover)
        assert founded.inodes == 2
        assert world.env(f"master-{last}").disk.exists(founded.replaced)
        async with cluster.client("client-2") as client:
            status = await until_reported(cluster, client, 3)
            assert (status.adopted, status.missing_chunks) == (0, 0)
            assert {row[3] for row in status.servers} == {0}
            await recovery(client, finish=True)
            await cluster.until_registered(client, 3)
            assert await read_file(client, b"file") == data
            # The old ones come back, and are told that their time is over.
            for n in others:
                await start_master(cluster, n)
            while any(world.is_alive(f"master-{n}") for n in others):
                await world.clock.sleep(0.1)
            told = [reason for name, reason in world.endings if name != f"master-{last}"]
            assert sum("replaced by one founded anew" in reason for reason in told) == 2
            assert cluster.leader() == f"master-{last}"
            await grow(cluster, client, *others)
            await write_file(client, b"more", data)
            await cluster.until_agreed()
            await cluster.until_clean()
            cluster.check_invariants()

    simulate(tmp_path, scenario, seed)


def test_chunkservers_obey_the_new_group_even_where_the_old_one_has_a_majority(
    tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    the_noise_of_lost_masters(expected_logs)

    async def scenario(cluster: SimCluster) -> None:
        world, data = cluster.world, content(4, 1 << 20)
        async with cluster.client("client-1") as client:
            await cluster.until_registered(client, 3)
            await write_file(client, b"file", data, sync=True)
            await cluster.until_agreed()
        for n in cluster.masters:
            world.crash(f"master-{n}")
        await found_anew(cluster, 1, refounding.recover)
        async with cluster.client("client-2") as client:
            await until_reported(cluster, client, 3)
            await recovery(client, finish=True)
            await cluster.until_registered(client, 3)
            await write_file(client, b"new", data)
        # Now master 1 is away, and the two others lead again, as they did before.
        world.crash("master-1")
        cluster.running.pop("master-1")
        for n in (2, 3):
            await start_master(cluster, n)
        old = cluster.running[await cluster.until_leader()]
        for n in cluster.chunkservers:
            world.restart(f"chunkserver-{n}")
        await world.clock.sleep(20.0)
        assert old.chunkservers.alive() == []
        assert all(len(cluster.replicas(n)) == 2 for n in cluster.chunkservers)
        assert queries.counts(old.tables).chunks == 1  # it would have had the new one deleted

    simulate(tmp_path, scenario)


def test_a_load_needs_an_empty_directory_and_the_right_cluster(tmp_path: Path) -> None:
    async def scenario(cluster: SimCluster) -> None:
        world = cluster.world
        dump = await make_dump(cluster)
        disk = world.env("elsewhere").disk
        disk.make_directory("/data-of-the-operator")
        disk.write_file(DUMP, dump)
        config = cluster._master_config(1)
        await refounding.load(world.env("elsewhere"), config, DUMP)
        world.crash("elsewhere")
        with pytest.raises(Failure, match="holds a master's state already") as caught:
            await refounding.load(world.env("elsewhere"), config, DUMP)
        assert caught.value.code is Code.CONFIG

    simulate(tmp_path, scenario)


async def unlink(client: Client, name: bytes) -> None:
    await client.perform(Unlink(client.root_inode, name, ROOT))


def test_what_was_deleted_after_the_dump_is_listed_as_missing(
    tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    the_noise_of_lost_masters(expected_logs)

    async def scenario(cluster: SimCluster) -> None:
        async with cluster.client("client-1") as client:
            await cluster.until_registered(client, 3)
            inode = await write_file(client, b"deleted later", content(1, 1 << 20), sync=True)
            await write_file(client, b"kept", content(2, 1 << 20), sync=True)
            (chunk,) = (await client.chunk_map(inode, 0, 1)).chunks
            dump = await make_dump(cluster)
            await unlink(client, b"deleted later")
            while any(chunk.handle in cluster.replicas(n) for n in cluster.chunkservers):
                await cluster.world.clock.sleep(0.5)
        await lose_masters(cluster, 1, 2, 3, disks=True)
        await load(cluster, 1, dump)
        async with cluster.client("client-2") as client:
            status = await until_reported(cluster, client, 3)
            assert (status.chunks, status.missing_chunks) == (2, 1)
            assert status.missing == ((inode, 0, chunk.handle),)
            report = "\n".join(meta_work.recovery_report(status))
            assert f"inode {inode} chunk 0 (handle {chunk.handle:x})" in report
            assert await read_file(client, b"kept") == content(2, 1 << 20)

    simulate(tmp_path, scenario)


def test_file_data_waits_for_the_last_chunkserver(
    tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    the_noise_of_lost_masters(expected_logs)

    async def scenario(cluster: SimCluster) -> None:
        world = cluster.world
        async with cluster.client("client-1") as client:
            await cluster.until_registered(client, 3)
            await write_file(client, b"file", b"old" * 1000, sync=True)
            dump = await make_dump(cluster)
            world.crash("chunkserver-3", power_loss=False)
            await write_file(client, b"file", b"new" * 1000, sync=True)
            await world.clock.sleep(40)  # the replicas come to rest: a stop leaves no doubts
        await lose_masters(cluster, 1, 2, 3, disks=True)
        # Only the server that was left behind is there, and its version is the map's.
        for n in (1, 2):
            world.crash(f"chunkserver-{n}", power_loss=False)
        world.restart("chunkserver-3")
        await load(cluster, 1, dump)
        async with cluster.client("client-2") as client:
            status = await until_reported(cluster, client, 1)
            assert meta_work.unreported(status) == [1, 2]
            with trio.move_on_after(5):
                await read_file(client, b"file")
                raise AssertionError("what was left behind has been read")
            for n in (1, 2):
                world.restart(f"chunkserver-{n}")
            await until_reported(cluster, client, 3)
            assert await read_file(client, b"file") == b"new" * 1000

    simulate(tmp_path, scenario)


def test_a_recovery_goes_on_after_a_restart_and_holds_all_deletions(
    tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    the_noise_of_lost_masters(expected_logs)

    async def scenario(cluster: SimCluster) -> None:
        world = cluster.world
        async with cluster.client("client-1") as client:
            await cluster.until_registered(client, 3)
            inode = await write_file(client, b"open", content(1, 1 << 20), sync=True)
            file = await client.open_file(inode, ROOT, write=False)
            await unlink(client, b"open")  # an orphan, for as long as it is open
            dump = await make_dump(cluster)
            await file.close()
        await lose_masters(cluster, 1, 2, 3, disks=True)
        await load(cluster, 1, dump)
        async with cluster.client("client-2") as client:
            await until_reported(cluster, client, 3)
            await start_master(cluster, 1)
            await cluster.until_leader()
            await until_reported(cluster, client, 3)
            await world.clock.sleep(30.0)
            assert queries.orphans(cluster.leading().tables, 10) == (inode,)
            await recovery(client, finish=True)
            await cluster.until_registered(client, 3)
            await cluster.until_clean()
            assert queries.counts(cluster.leading().tables).chunks == 0

    simulate(tmp_path, scenario)
