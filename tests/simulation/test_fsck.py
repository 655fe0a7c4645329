"""`dfs fsck` on a whole cluster: what is planted is found, and a live cluster raises no alarm."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from chunkserver.format import DATA_OFFSET
from chunkserver.replica import Replica
from chunkserver.store import Store
from dfs.cli.checks import Checked, Checks
from dfs.client import Client
from dfs.errors import Code, Failure
from dfs.layout import BLOCK_BYTES, CHUNK_BYTES
from dfs.messages.checking import FollowCheck, Severity, StartCheck
from dfs.messages.chunks import ReplicaState
from dfs.messages.common import ROOT
from dfs.messages.operations import MakeDirectory, Unlink
from master import tables as names
from master.check.findings import Kind
from master.state import queries, records
from master.state.records import Inode, key
from tests.conftest import ExpectedLogs
from tests.simulation.cluster import SimCluster
from tests.simulation.test_whole_cluster import content, simulate, write_file

Work = Callable[[SimCluster, Client], Awaitable[None]]
FILE_BYTES = 1 << 20


def kinds(checked: Checked) -> list[str]:
    assert checked.progress.problem == ""
    return sorted(f.kind for f in checked.findings)


def with_client(directory: Path, work: Work, *, servers: int = 3) -> None:
    """A cluster with three files."""

    async def scenario(cluster: SimCluster) -> None:
        for n in range(4, servers + 1):
            cluster.chunkservers[n] = f"chunkserver-{n}:7000"
            await cluster.start_chunkserver(n)
        async with cluster.client() as client:
            await cluster.until_registered(client, servers)
            for n in range(3):
                await write_file(client, b"file-%d" % n, content(n, FILE_BYTES), sync=True)
            await work(cluster, client)

    simulate(directory, scenario)


async def handle_of(client: Client, name: bytes) -> tuple[int, tuple[int, ...]]:
    """The file's only chunk, and its servers."""
    found = await client.lookup(client.root_inode, name)
    (chunk,) = (await client.chunk_map(found.inode, 0, 1)).chunks
    return chunk.handle, tuple(r.server for r in chunk.replicas)


def store_of(cluster: SimCluster, server: int) -> Store:
    return cluster.storing[f"chunkserver-{server}"].store


async def in_turn(store: Store, handle: int, work: Callable[[], Awaitable[object]]) -> None:
    turn = store.turns.enter(handle)
    await turn.wait()
    try:
        await work()
    finally:
        turn.leave()


async def lose_replica(cluster: SimCluster, server: int, handle: int) -> None:
    store = store_of(cluster, server)
    await in_turn(store, handle, lambda: store.delete(handle))


async def make_replica(cluster: SimCluster, server: int, handle: int) -> None:
    store = store_of(cluster, server)
    await in_turn(store, handle, lambda: store.create(handle, 1, 0))


# -- replicas


def test_a_quiet_cluster_is_sound(tmp_path: Path) -> None:
    async def work(cluster: SimCluster, client: Client) -> None:
        for deep in (False, True):
            checked = await cluster.fsck(client, deep=deep)
            assert kinds(checked) == []
            assert checked.severity is Severity.NOTE
            progress = checked.progress
            assert (progress.inodes, progress.chunks, progress.replicas) == (4, 3, 9)

    with_client(tmp_path, work)


def test_a_lost_replica_is_found_with_its_file(tmp_path: Path) -> None:
    async def work(cluster: SimCluster, client: Client) -> None:
        handle, servers = await handle_of(client, b"file-1")
        await lose_replica(cluster, servers[1], handle)
        checked = await cluster.fsck(client)
        (finding,) = checked.findings
        assert (finding.kind, finding.path) == (Kind.MISSING_REPLICA, b"/file-1")
        assert (finding.server, finding.handle) == (servers[1], handle)
        assert (finding.offset, finding.length_bytes) == (0, CHUNK_BYTES)
        assert checked.severity is Severity.REDUNDANCY

    with_client(tmp_path, work)


async def mend(cluster: SimCluster, client: Client, checked: Checked) -> list[str]:
    """Have everything mended that can be; what was refused."""
    checks = Checks(cluster.world.env("fsck"), client)
    return [f.text for f in await checks.mend(checked, checked.mendable, lambda _: None)]


async def until_settled(cluster: SimCluster, client: Client, kind: Kind) -> list[str]:
    """Check until nothing of that kind is left; what is left instead."""
    for _ in range(10):
        found = kinds(await cluster.fsck(client))
        if kind not in found:
            return found
        await cluster.world.clock.sleep(3.0)
    raise AssertionError(f"never mended: {found}")


def test_a_lost_replica_is_left_to_the_repair(tmp_path: Path, expected_logs: ExpectedLogs) -> None:
    expected_logs("WARNING")

    async def work(cluster: SimCluster, client: Client) -> None:
        handle, servers = await handle_of(client, b"file-1")
        await lose_replica(cluster, servers[1], handle)
        checked = await cluster.fsck(client)
        assert [f.mend for f in checked.findings] == ["have the chunk's replicas settled"]
        assert await mend(cluster, client, checked) == []
        # A settling goes on without it; to make another copy is the repair's business.
        left = await until_settled(cluster, client, Kind.MISSING_REPLICA)
        assert set(left) <= {Kind.TOO_FEW_COPIES}

    with_client(tmp_path, work)


def test_a_replica_that_nobody_settles_is_settled_when_that_is_asked(tmp_path: Path) -> None:
    async def work(cluster: SimCluster, client: Client) -> None:
        handle, servers = await handle_of(client, b"file-1")
        store = store_of(cluster, servers[2])
        entry = store.find(handle)

        def fence(replica: Replica) -> None:
            replica.fence(entry.version, ReplicaState.UNSETTLED)

        await cluster.world.clock.sleep(5.0)  # the new replicas have been reported by then
        await in_turn(store, handle, lambda: store.change(entry, fence))
        checked = await cluster.fsck(client)
        assert kinds(checked) == [Kind.UNSETTLED_REPLICA]
        assert await mend(cluster, client, checked) == []
        assert await until_settled(cluster, client, Kind.UNSETTLED_REPLICA) == []

    with_client(tmp_path, work)


def test_a_chunk_without_any_replica_is_lost(tmp_path: Path) -> None:
    async def work(cluster: SimCluster, client: Client) -> None:
        handle, servers = await handle_of(client, b"file-0")
        for server in servers:
            await lose_replica(cluster, server, handle)
        checked = await cluster.fsck(client)
        assert kinds(checked) == [Kind.LOST_CHUNK, *[Kind.MISSING_REPLICA] * 3]
        assert checked.severity is Severity.DATA

    with_client(tmp_path, work)


def test_what_is_beside_a_path_is_not_told(tmp_path: Path) -> None:
    async def work(cluster: SimCluster, client: Client) -> None:
        handle, servers = await handle_of(client, b"file-0")
        await lose_replica(cluster, servers[0], handle)
        beside = await client.lookup(client.root_inode, b"file-1")
        assert kinds(await cluster.fsck(client, inode=beside.inode)) == []
        concerned = await client.lookup(client.root_inode, b"file-0")
        expected = [Kind.MISSING_REPLICA]
        assert kinds(await cluster.fsck(client, inode=concerned.inode)) == expected
        assert kinds(await cluster.fsck(client, inode=client.root_inode)) == expected

    with_client(tmp_path, work)


def test_surplus_and_unknown_replicas_are_deleted_when_that_is_asked(
    tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    expected_logs("no replica")

    async def work(cluster: SimCluster, client: Client) -> None:
        handle, servers = await handle_of(client, b"file-0")
        (spare,) = [s for s in cluster.chunkservers if s not in servers]
        gone, _ = await handle_of(client, b"file-2")
        await client.perform(Unlink(client.root_inode, b"file-2", ROOT))
        await cluster.until_clean()
        await make_replica(cluster, spare, handle)
        await make_replica(cluster, 1, gone)
        await make_replica(cluster, 2, 1 << 40)
        checked = await cluster.fsck(client)
        assert kinds(checked) == [
            Kind.FOREIGN_REPLICA,
            Kind.SURPLUS_REPLICA,
            Kind.UNKNOWN_REPLICA,
        ]
        assert [f.kind for f in checked.mendable] == [Kind.SURPLUS_REPLICA, Kind.UNKNOWN_REPLICA]
        checks = Checks(cluster.world.env("fsck"), client)
        assert await checks.mend(checked, checked.mendable, lambda _: None) == []
        while store_of(cluster, spare).has(handle) or store_of(cluster, 1).has(gone):
            await cluster.world.clock.sleep(0.1)
        assert store_of(cluster, servers[0]).has(handle)

    with_client(tmp_path, work, servers=4)


def flip(cluster: SimCluster, server: int, handle: int, block: int) -> None:
    path = store_of(cluster, server).find(handle).directory.replica_path(handle)
    media = cluster.world.disk(f"chunkserver-{server}")
    media.flip_bit(path, DATA_OFFSET + block * BLOCK_BYTES + 5)


def test_damage_that_a_deep_check_comes_across_is_mended(
    tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    expected_logs("block 3|damaged blocks")

    async def work(cluster: SimCluster, client: Client) -> None:
        handle, servers = await handle_of(client, b"file-0")
        flip(cluster, servers[1], handle, 3)
        assert kinds(await cluster.fsck(client)) == []
        await cluster.fsck(client, deep=True)
        while kinds(checked := await cluster.fsck(client)) != [Kind.QUARANTINED]:
            await cluster.world.clock.sleep(1.0)
        assert checked.severity is Severity.NOTE
        assert kinds(await cluster.fsck(client, deep=True)) == [Kind.QUARANTINED]

    with_client(tmp_path, work)


def test_what_is_damaged_on_every_replica_is_listed_by_file_and_range(
    tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    expected_logs("block [34]|damaged blocks|damaged in every")

    async def work(cluster: SimCluster, client: Client) -> None:
        handle, servers = await handle_of(client, b"file-0")
        for server in servers:
            flip(cluster, server, handle, 3)
            flip(cluster, server, handle, 4)
        await cluster.fsck(client, deep=True)
        for deep in (False, True):
            checked = await cluster.fsck(client, deep=deep)
            (lost,) = [f for f in checked.findings if f.kind == Kind.DAMAGED_RANGE]
            assert (lost.path, lost.offset) == (b"/file-0", 3 * BLOCK_BYTES)
            assert lost.length_bytes == 2 * BLOCK_BYTES
            assert checked.severity is Severity.DATA
            assert Kind.LOST_CHUNK not in kinds(checked)

    with_client(tmp_path, work)


def test_a_dead_server_is_told_and_what_it_had(tmp_path: Path) -> None:
    async def work(cluster: SimCluster, client: Client) -> None:
        cluster.world.crash("chunkserver-2", power_loss=False)
        await cluster.world.clock.sleep(6.0)
        checked = await cluster.fsck(client)
        assert kinds(checked) == [Kind.SILENT_SERVER, *[Kind.UNREACHABLE_REPLICA] * 3]
        assert checked.severity is Severity.REDUNDANCY

    with_client(tmp_path, work)


def test_of_many_findings_of_a_kind_only_some_are_listed(tmp_path: Path) -> None:
    async def work(cluster: SimCluster, client: Client) -> None:
        for n in range(3):
            handle, servers = await handle_of(client, b"file-%d" % n)
            await lose_replica(cluster, servers[0], handle)
        leader = cluster.leading().checking
        limits = dataclasses.replace(leader._config.limits, check_findings=2, check_batch=1)
        leader._config = dataclasses.replace(leader._config, limits=limits)
        checked = await cluster.fsck(client)
        assert kinds(checked) == [Kind.MISSING_REPLICA] * 3
        assert checked.findings[-1].text == "1 more of this kind are not listed"

    with_client(tmp_path, work)


# -- metadata, through the log


def test_metadata_are_mended_on_every_master_alike(tmp_path: Path) -> None:
    async def work(cluster: SimCluster, client: Client) -> None:
        made = await client.perform(MakeDirectory(client.root_inode, b"dir", 0o755, ROOT))
        inode = made.inode  # type: ignore[union-attr]
        await cluster.until_agreed()
        for server in cluster.running.values():
            stored = server.tables.get(names.INODES, key(inode))
            assert stored is not None
            changed = dataclasses.replace(Inode.decode(inode, stored), entries=7)
            server.tables.put(names.INODES, key(inode), changed.encode())
            server.tables.put(names.XATTRS, key(999) + b"user.a", records.encode_blob(b"v"))
        checked = await cluster.fsck(client)
        assert kinds(checked) == [Kind.ENTRY_COUNT, Kind.STRAY_XATTR]
        assert checked.severity is Severity.METADATA
        checks = Checks(cluster.world.env("fsck"), client)
        assert await checks.mend(checked, checked.mendable, lambda _: None) == []
        assert kinds(await cluster.fsck(client)) == []
        await cluster.until_agreed()
        cluster.check_invariants()

    with_client(tmp_path, work)


def test_mending_what_has_changed_meanwhile_is_refused_and_told(tmp_path: Path) -> None:
    async def work(cluster: SimCluster, client: Client) -> None:
        for server in cluster.running.values():
            server.tables.put(names.XATTRS, key(999) + b"user.a", records.encode_blob(b"v"))
        checked = await cluster.fsck(client)
        for server in cluster.running.values():
            server.tables.put(names.XATTRS, key(999) + b"user.a", records.encode_blob(b"w"))
        checks = Checks(cluster.world.env("fsck"), client)
        (refused,) = await checks.mend(checked, checked.mendable, lambda _: None)
        assert refused.kind == Kind.NOT_MENDED
        assert "has changed" in refused.text

    with_client(tmp_path, work)


# -- the conversation


async def refusal_of(client: Client, number: int) -> Code | None:
    """With what a question about that check is refused."""
    try:
        await client.cluster_call(FollowCheck(number))
    except Failure as error:
        return error.code
    return None


def test_a_check_waits_for_the_one_before(tmp_path: Path) -> None:
    async def work(cluster: SimCluster, client: Client) -> None:
        handle, servers = await handle_of(client, b"file-0")
        await lose_replica(cluster, servers[0], handle)  # so that it takes its time
        await client.cluster_call(StartCheck(1))
        await client.cluster_call(StartCheck(1))  # again: the first answer might be lost
        began = cluster.world.clock.monotonic()
        assert kinds(await cluster.fsck(client)) == [Kind.MISSING_REPLICA]
        assert cluster.world.clock.monotonic() - began > 4.0  # two looks, twice
        assert await refusal_of(client, 1) is Code.NO_SESSION

    with_client(tmp_path, work)


def test_a_check_that_nobody_follows_is_given_up(
    tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    expected_logs("handshake")

    async def work(cluster: SimCluster, client: Client) -> None:
        cluster.world.delay_link(cluster.leader(), "chunkserver-1", 1000.0)  # so that it hangs
        await client.cluster_call(StartCheck(1))
        assert await refusal_of(client, 1) is None
        await cluster.world.clock.sleep(31.0)
        assert await refusal_of(client, 1) is Code.NO_SESSION
        assert not cluster.world.disk(cluster.leader()).exists("/data/check.mdb")

    with_client(tmp_path, work)


@pytest.mark.parametrize("seed", range(3))
def test_a_check_goes_on_under_another_leader(
    tmp_path: Path, seed: int, expected_logs: ExpectedLogs
) -> None:
    expected_logs("chunkserver-|has lost its replica")

    async def scenario(cluster: SimCluster) -> None:
        async with cluster.client() as client:
            await cluster.until_registered(client, 3)
            await write_file(client, b"file", content(seed, FILE_BYTES), sync=True)
            handle, servers = await handle_of(client, b"file")
            await lose_replica(cluster, servers[0], handle)
            async with trio.open_nursery() as nursery:
                results: list[Checked] = []

                async def check() -> None:
                    results.append(await cluster.fsck(client))

                nursery.start_soon(check)
                await cluster.world.clock.sleep(0.3 + seed * 0.7)
                old = cluster.leader()
                cluster.world.crash(old)
            # The new leader finds out by itself what is missing, and begins to mend it.
            (kind,) = kinds(results[0])
            assert kind in (Kind.MISSING_REPLICA, Kind.TOO_FEW_COPIES)
            cluster.world.restart(old)
            await cluster.until_agreed()
            assert not cluster.world.disk(old).exists("/data/check.mdb")

    simulate(tmp_path, scenario, seed)


# -- a live cluster


@pytest.mark.parametrize("seed", range(3))
def test_files_that_come_and_go_raise_no_alarm(
    tmp_path: Path, seed: int, expected_logs: ExpectedLogs
) -> None:
    expected_logs("no replica")

    async def scenario(cluster: SimCluster) -> None:
        async with cluster.client("client-1") as one, cluster.client("client-2") as two:
            await cluster.until_registered(one, 3)
            busy = True

            async def churn(client: Client, prefix: bytes) -> None:
                n = 0
                while busy:
                    name = prefix + b"%d" % (n % 7)
                    await write_file(client, name, content(n, 300_000), sync=n % 3 == 0)
                    if n % 2:
                        await client.perform(Unlink(client.root_inode, name, ROOT))
                    n += 1
                    await cluster.world.clock.sleep(0.05)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(churn, one, b"a-")
                nursery.start_soon(churn, two, b"b-")
                for deep in (False, True) * 3:
                    await cluster.world.clock.sleep(0.5)
                    assert kinds(await cluster.fsck(one, deep=deep)) == []
                busy = False
            counts = queries.counts(cluster.leading().tables)
            assert counts.inodes > 3

    simulate(tmp_path, scenario, seed)
