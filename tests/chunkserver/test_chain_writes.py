"""Writes down a chain of three real servers, on loopback and on the simulated world."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import trio

from dfs.checksums import piece_checksums
from dfs.errors import Code, Failure
from dfs.layout import BLOCK_BYTES, CHUNK_BYTES
from dfs.messages.chunks import WriteChunk
from dfs.messages.cluster import DeleteReplicas, SettleChunk
from tests.chunkserver.cluster import Cluster, Site, cluster, real_site, simulated_site
from tests.conftest import ExpectedLogs

HANDLE = 0x1234


@pytest.fixture(params=["real", "simulated"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    return real_site(tmp_path) if request.param == "real" else simulated_site()


def test_write_reaches_every_replica_and_reads_back_from_each(site: Site) -> None:
    async def main(site: Site) -> None:
        async with cluster(site) as made:
            data = bytes(range(256)) * 1000
            await made.client.write(made.chain, HANDLE, 100, data)
            await made.client.sync(made.chain, HANDLE)
            for address in made.chain:
                found = await made.client.read(address, HANDLE, 0, CHUNK_BYTES // 16)
                assert found == bytes(100) + data
            assert len(set(await made.digests(HANDLE))) == 1

    site.run(main)


def test_concurrent_writers_leave_equal_replicas(site: Site) -> None:
    async def main(site: Site) -> None:
        async with cluster(site) as made:
            await made.client.write(made.chain, HANDLE, 0, b"x")
            async with trio.open_nursery() as nursery:
                for i in range(48):
                    data = bytes([i + 1]) * (40_000 + 700 * i)
                    offset = (i % 5) * 21_000
                    nursery.start_soon(made.client.write, made.chain, HANDLE, offset, data)
            assert len(set(await made.digests(HANDLE))) == 1
            contents = [await made.client.read(a, HANDLE, 0, 1 << 20) for a in made.chain]
            assert contents[0] == contents[1] == contents[2]

    site.run(main)


def test_writes_of_one_client_apply_in_the_order_they_were_sent(site: Site) -> None:
    async def main(site: Site) -> None:
        async with cluster(site) as made:
            connection = await made.client.pool.get(made.chain[0])
            order: list[int] = []

            async def send(i: int) -> None:
                data = bytes([i]) * 5000
                sums = piece_checksums(data, 0)
                message = WriteChunk(HANDLE, 1, 0, 0, sums, made.chain[1:], create=True)
                order.append(i)
                await connection.call(message, (data,), timeout_s=5)

            async with trio.open_nursery() as nursery:
                for i in range(1, 30):
                    nursery.start_soon(send, i)
            for address in made.chain:
                assert await made.client.read(address, HANDLE, 0, 5) == bytes([order[-1]]) * 5

    site.run(main)


def test_cut_applies_on_every_link_once(site: Site) -> None:
    async def main(site: Site) -> None:
        async with cluster(site) as made:
            await made.client.write(made.chain, HANDLE, 0, b"abcdef" * 20_000)
            await made.client.cut(made.chain, HANDLE, 1, 5)
            await made.client.write(made.chain, HANDLE, 5, b"XYZ", generation=1)
            await made.client.cut(made.chain, HANDLE, 1, 5)
            for address in made.chain:
                assert await made.client.read(address, HANDLE, 0, 100) == b"abcdeXYZ"

    site.run(main)


async def _refusal(made: Cluster, **request: int) -> Failure:
    with pytest.raises(Failure) as caught:
        await made.client.write(made.chain, HANDLE, 0, b"new", **request)  # type: ignore[arg-type]
    return caught.value


def test_stale_versions_and_generations_are_refused_and_change_nothing(site: Site) -> None:
    async def main(site: Site) -> None:
        async with cluster(site) as made:
            await made.client.write(made.chain, HANDLE, 0, b"old")
            before = await made.digests(HANDLE)
            for request in ({"version": 0}, {"version": 2}, {"generation": 1}):
                failure = await _refusal(made, **request)
                assert (failure.code, failure.detail) == (Code.STALE_VERSION, made.chain[0])
            with pytest.raises(Failure) as caught:
                await made.client.read(made.chain[1], HANDLE, 0, 3, version=2)
            assert caught.value.code is Code.STALE_VERSION
            assert await made.digests(HANDLE) == before

    site.run(main)


def test_stale_middle_link_is_named(site: Site, expected_logs: ExpectedLogs) -> None:
    expected_logs("has version 7 here")

    async def main(site: Site) -> None:
        async with cluster(site) as made:
            await made.client.write(made.chain, HANDLE, 0, b"old")
            await _raise_version(made, 2, 7)
            failure = await _refusal(made)
            assert (failure.code, failure.detail) == (Code.STALE_VERSION, made.chain[1])

    site.run(main)


async def _raise_version(made: Cluster, server: int, version: int) -> None:
    while server not in made.leader.registered:
        await made.leader.until_heard()
    order = SettleChunk(HANDLE, version, ())  # with nobody else
    await made.leader.registered[server].call(order, timeout_s=5)


def test_missing_replica_is_not_made_unless_asked(site: Site) -> None:
    async def main(site: Site) -> None:
        async with cluster(site) as made:
            failure = await _refusal(made, create=False)
            assert failure.code is Code.NO_REPLICA

    site.run(main)


def test_the_leader_orders_a_replica_to_be_deleted(site: Site) -> None:
    async def main(site: Site) -> None:
        async with cluster(site) as made:
            await made.client.write(made.chain, HANDLE, 0, b"data")
            while 1 not in made.leader.registered:
                await made.leader.until_heard()
            order = DeleteReplicas((HANDLE, 99))
            await made.leader.registered[1].call(order, timeout_s=5)
            with pytest.raises(Failure) as caught:
                await made.client.inspect(made.chain[0], HANDLE)
            assert caught.value.code is Code.NO_REPLICA

    site.run(main)


@pytest.mark.parametrize("dead", [1, 2])
def test_dead_link_breaks_the_chain_and_is_named(
    site: Site, dead: int, expected_logs: ExpectedLogs
) -> None:
    expected_logs("chain broken at")

    async def main(site: Site) -> None:
        async with cluster(site) as made:
            chain = list(made.chain)
            chain[dead] = site.address("nobody")
            with pytest.raises(Failure) as caught:
                await made.client.write(tuple(chain), HANDLE, 0, b"data")
            failure = caught.value
            assert (failure.code, failure.detail) == (Code.CHAIN_BROKEN, chain[dead])

    site.run(main)


def test_silent_link_is_named_within_the_clients_patience(expected_logs: ExpectedLogs) -> None:
    expected_logs("chain broken at")
    expected_logs("heartbeat|refused cs3|lost")

    async def main(site: Site) -> None:
        async with cluster(site) as made:
            await made.client.write(made.chain, HANDLE, 0, b"data")
            assert site.world is not None
            site.world.isolate("cs3")
            started = site.world.clock.monotonic()
            with pytest.raises(Failure) as caught:
                await made.client.write(made.chain, HANDLE, 0, b"more")
            failure = caught.value
            assert (failure.code, failure.detail) == (Code.CHAIN_BROKEN, made.chain[2])
            assert site.world.clock.monotonic() - started < 3
            site.world.heal()

    simulated_site().run(main)


def test_damaged_packet_is_refused_before_it_is_applied(site: Site) -> None:
    async def main(site: Site) -> None:
        async with cluster(site) as made:
            sums = piece_checksums(b"what was meant", 0)
            message = WriteChunk(HANDLE, 1, 0, 0, sums, made.chain[1:], create=True)
            with pytest.raises(Failure) as caught:
                await made.client.pool.call(made.chain[0], message, (b"what arrived",), timeout_s=5)
            assert (caught.value.code, caught.value.detail) == (Code.CORRUPT, made.chain[0])
            with pytest.raises(Failure) as caught:
                await made.client.inspect(made.chain[0], HANDLE)
            assert caught.value.code is Code.NO_REPLICA

    site.run(main)


@pytest.mark.parametrize(("offset", "size"), [(-1, 5), (CHUNK_BYTES - 1, 2), (0, 0)])
def test_impossible_range_is_refused(site: Site, offset: int, size: int) -> None:
    async def main(site: Site) -> None:
        async with cluster(site, ("cs1",)) as made:
            message = WriteChunk(HANDLE, 1, 0, offset, b"", (), create=True)
            with pytest.raises(Failure) as caught:
                await made.client.pool.call(made.chain[0], message, (bytes(size),), timeout_s=5)
            assert caught.value.code is Code.BAD_MESSAGE

    site.run(main)


def test_replicas_survive_a_restart(site: Site) -> None:
    async def main(site: Site) -> None:
        data = b"kept" * BLOCK_BYTES
        async with cluster(site) as made:
            await made.client.write(made.chain, HANDLE, 0, data, sync=True)
            before = await made.digests(HANDLE)
        site.end_processes("cs1", "cs2", "cs3", "master")
        async with cluster(site) as made:
            assert await made.digests(HANDLE) == before
            assert await made.client.read(made.chain[2], HANDLE, 0, len(data)) == data

    site.run(main)


def test_more_replicas_than_may_be_open(site: Site) -> None:
    async def main(site: Site) -> None:
        async with cluster(site, ("cs1",), max_open_replicas=4) as made:
            for handle in range(30):
                await made.client.write(made.chain, handle, 0, b"%d" % handle)
            store = made.servers["cs1"].store
            assert len(store._open) <= 4
            for handle in range(30):
                assert await made.client.read(made.chain[0], handle, 0, 9) == b"%d" % handle
                await made.client.write(made.chain, handle, 1, b"!", sync=True)

    site.run(main)


def test_failing_disk_goes_read_only_and_still_serves_reads(expected_logs: ExpectedLogs) -> None:
    expected_logs("goes read-only|not synced")

    async def main(site: Site) -> None:
        async with cluster(site, ("cs1",)) as made:
            assert site.world is not None
            for handle in (HANDLE, HANDLE + 1):
                await made.client.write(made.chain, handle, 0, b"before")
            site.world.disk("cs1").fail("/data/replicas", errno.EIO, "write")
            for handle, code in ((HANDLE, errno.EIO), (HANDLE + 1, errno.EROFS)):
                with pytest.raises(Failure) as caught:
                    await made.client.write(made.chain, handle, 0, b"after")
                assert (caught.value.code, caught.value.errno) == (Code.DISK, code)
                assert caught.value.detail == made.chain[0]
            assert await made.client.read(made.chain[0], HANDLE + 1, 0, 9) == b"before"
            with pytest.raises(Failure) as caught:  # nobody knows what the failed write left
                await made.client.read(made.chain[0], HANDLE, 0, 9)
            assert caught.value.code is Code.STALE_VERSION
            beats = await made.leader.until_heartbeats(60)
            assert not beats[-1].disks[0].healthy
            assert beats[-1].disks[0].problem

    simulated_site().run(main)


def test_full_disk_is_enospc_and_recovers_when_space_is_freed() -> None:
    async def main(site: Site) -> None:
        assert site.world is not None
        media = site.world.disk("cs1")
        media.capacity_bytes = 1 << 20
        async with cluster(site, ("cs1",), reserve_bytes=64 << 10) as made:
            await made.client.write(made.chain, HANDLE, 0, b"a" * 300_000)
            with pytest.raises(Failure) as caught:
                await made.client.write(made.chain, HANDLE, 300_000, b"b" * 900_000)
            failure = caught.value
            assert (failure.code, failure.errno) == (Code.DISK, errno.ENOSPC)
            found = await made.client.read(made.chain[0], HANDLE, 0, CHUNK_BYTES // 16)
            assert found == b"a" * 300_000
            media.capacity_bytes = 4 << 20
            await made.client.write(made.chain, HANDLE, 300_000, b"b" * 900_000)

    simulated_site().run(main)
