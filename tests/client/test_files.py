"""Reading and writing through the client, nothing going wrong."""

from __future__ import annotations

import errno

import pytest
import trio

from dfs.config import ClientLimits
from dfs.errors import Failure
from dfs.layout import CHUNK_BYTES
from dfs.messages.chunks import SyncChunk, WriteChunk
from dfs.messages.common import ROOT
from dfs.messages.metadata import OpenInode, Submit
from dfs.messages.operations import SetAttributes, Unlink
from tests.client.fake_cluster import Scene, create, pattern, play


def test_what_was_written_is_read_back(key_file: str) -> None:
    async def scene(s: Scene) -> None:
        async with s.client() as client:
            file = await create(client)
            await file.write(0, b"hello")
            assert bytes(await file.read(0, 100)) == b"hello"  # unflushed
            await file.write(5, b" world")
            await file.flush()
            assert bytes(await file.read(3, 5)) == b"lo wo"
            await file.close()
            found = await client.lookup(client.root_inode, b"file")
            assert found.size_bytes == 11
        for server in s.servers:
            assert [bytes(r.data) for r in server.replicas.values()] == [b"hello world"]

    play(key_file, scene)


def test_another_client_reads_what_was_closed(key_file: str) -> None:
    data = pattern(3 * 1024 * 1024 + 17)

    async def scene(s: Scene) -> None:
        async with s.client("client-1") as writer, s.client("client-2") as reader:
            file = await create(writer)
            for at in range(0, len(data), 128 * 1024):
                await file.write(at, data[at : at + 128 * 1024])
            await file.close()
            opened = await reader.open_file(file.inode, ROOT, write=False)
            assert opened.attributes.size_bytes == len(data)
            got = b""
            while part := await opened.read(len(got), 100_000):
                got += part
            assert got == data
            await opened.close()

    play(key_file, scene)


def test_a_file_over_chunk_borders(key_file: str) -> None:
    async def scene(s: Scene) -> None:
        async with s.client() as client:
            file = await create(client)
            start = CHUNK_BYTES - 1000
            await file.write(start, pattern(5000))
            await file.write(3 * CHUNK_BYTES, b"end")
            await file.flush()
            assert await file.read(0, 10) == bytes(10)
            assert bytes(await file.read(start - 5, 5010)) == bytes(5) + pattern(5000) + bytes(5)
            assert await file.read(2 * CHUNK_BYTES + 5, 10) == bytes(10)
            assert bytes(await file.read(3 * CHUNK_BYTES - 2, 100)) == b"\0\0end"
            await file.close()
            chunks = await client.chunk_map(file.inode, 0, 10)
            assert [c.index for c in chunks.chunks] == [0, 1, 3]

    play(key_file, scene)


def test_a_small_new_file_costs_four_round_trips(key_file: str) -> None:
    async def scene(s: Scene) -> None:
        async with s.client() as client:
            before = len(s.masters.requests)
            file = await create(client)
            await file.write(0, b"small")
            await file.close()
            asked = s.masters.requests[before:]
            assert [type(m) for m in asked] == [Submit, Submit, Submit]
            writes = [m for m in s.servers[0].requests if isinstance(m, WriteChunk)]
            assert len(writes) == 1

    play(key_file, scene)


def test_sync_of_one_packet_is_one_round_trip_down_the_chain(key_file: str) -> None:
    async def scene(s: Scene) -> None:
        async with s.client() as client:
            file = await create(client)
            await file.write(0, b"durable")
            await file.sync()
            for server in s.servers:
                assert [r.synced for r in server.replicas.values()] == [b"durable"]
                assert not any(isinstance(m, SyncChunk) for m in server.requests)
            await file.close()

    play(key_file, scene)


def test_sync_covers_what_an_earlier_handle_wrote(key_file: str) -> None:
    async def scene(s: Scene) -> None:
        async with s.client() as client:
            file = await create(client)
            await file.write(0, b"first")
            await file.close()
            assert all(not r.synced for r in s.servers[0].replicas.values())
            again = await client.open_file(file.inode, ROOT, write=True)
            await again.sync()
            for server in s.servers:
                assert [r.synced for r in server.replicas.values()] == [b"first"]
            await again.close()

    play(key_file, scene)


def test_many_packets_are_synced_on_every_replica(key_file: str) -> None:
    data = pattern(5 * 1024 * 1024)

    async def scene(s: Scene) -> None:
        async with s.client() as client:
            file = await create(client)
            await file.write(0, data)
            await file.sync()
            for server in s.servers:
                assert [r.synced for r in server.replicas.values()] == [data]
            await file.close()

    play(key_file, scene)


def test_attributes_show_the_size_of_unflushed_writes(key_file: str) -> None:
    async def scene(s: Scene) -> None:
        async with s.client("client-1") as client, s.client("client-2") as other:
            file = await create(client)
            await file.write(0, b"x" * 1000)
            assert (await client.attributes(file.inode)).size_bytes == 1000
            assert (await client.lookup(client.root_inode, b"file")).size_bytes == 1000
            assert (await other.attributes(file.inode)).size_bytes == 0
            await file.flush()
            assert (await other.attributes(file.inode)).size_bytes == 1000
            assert (await client.attributes(file.inode)).size_bytes == 1000
            await file.close()

    play(key_file, scene)


def test_written_data_goes_out_without_a_flush_after_a_while(key_file: str) -> None:
    async def scene(s: Scene) -> None:
        async with s.client("client-1") as client, s.client("client-2") as other:
            file = await create(client)
            await file.write(0, b"log line\n")
            await s.world.clock.sleep(5)
            assert (await other.attributes(file.inode)).size_bytes == 9
            await file.close()

    play(key_file, scene)


def test_truncate_orders_with_unflushed_writes(key_file: str) -> None:
    async def scene(s: Scene) -> None:
        async with s.client("client-1") as client, s.client("client-2") as other:
            file = await create(client)
            await file.write(0, b"0123456789")
            cut = await client.set_attributes(SetAttributes(file.inode, ROOT, size_bytes=4))
            assert cut.size_bytes == 4
            assert bytes(await file.read(0, 100)) == b"0123"
            await client.set_attributes(SetAttributes(file.inode, ROOT, size_bytes=8))
            assert bytes(await file.read(0, 100)) == b"0123\0\0\0\0"
            seen = await other.open_file(file.inode, ROOT, write=False)
            assert bytes(await seen.read(0, 100)) == b"0123\0\0\0\0"
            await seen.close()
            await file.write(6, b"ab")
            await file.close()
            seen = await other.open_file(file.inode, ROOT, write=False)
            assert bytes(await seen.read(0, 100)) == b"0123\0\0ab"
            await seen.close()

    play(key_file, scene)


def test_times_set_after_a_write_stay(key_file: str) -> None:
    async def scene(s: Scene) -> None:
        async with s.client() as client:
            file = await create(client)
            await file.write(0, b"data")
            await client.set_attributes(SetAttributes(file.inode, ROOT, mtime_ns=12345))
            await file.close()
            assert (await client.attributes(file.inode)).mtime_ns == 12345

    play(key_file, scene)


def test_an_unlinked_open_file_stays_readable(key_file: str) -> None:
    async def scene(s: Scene) -> None:
        async with s.client() as client:
            file = await create(client)
            await file.write(0, b"kept")
            await client.perform(Unlink(client.root_inode, b"file", ROOT))
            s.masters.reap()
            await file.flush()
            assert bytes(await file.read(0, 10)) == b"kept"
            await file.close()
            await s.world.clock.sleep(1)
            with pytest.raises(Failure) as caught:
                await client.attributes(file.inode)
            assert caught.value.errno == errno.ENOENT

    play(key_file, scene)


def test_unchanged_tells_whether_somebody_else_wrote(key_file: str) -> None:
    async def scene(s: Scene) -> None:
        async with s.client("client-1") as client, s.client("client-2") as other:
            file = await create(client)
            await file.write(0, b"mine")
            await file.close()
            again = await client.open_file(file.inode, ROOT, write=False)
            assert again.unchanged  # nothing but our own commit has happened
            await again.close()
            theirs = await other.open_file(file.inode, ROOT, write=True)
            assert not theirs.unchanged
            await theirs.write(0, b"your")
            await theirs.close()
            again = await client.open_file(file.inode, ROOT, write=False)
            assert not again.unchanged
            assert bytes(await again.read(0, 10)) == b"your"
            await again.close()

    play(key_file, scene)


def test_a_handle_opened_for_reading_refuses_writes(key_file: str) -> None:
    async def scene(s: Scene) -> None:
        async with s.client() as client:
            await (await create(client)).close()
            found = await client.lookup(client.root_inode, b"file")
            file = await client.open_file(found.inode, ROOT, write=False)
            with pytest.raises(Failure) as caught:
                await file.write(0, b"x")
            assert caught.value.errno == errno.EBADF
            await file.close()
            with pytest.raises(Failure):
                await file.read(0, 1)

    play(key_file, scene)


def test_leaving_the_client_flushes_what_is_open(key_file: str) -> None:
    async def scene(s: Scene) -> None:
        async with s.client() as client:
            file = await create(client)
            await file.write(0, b"left open")
        async with s.client("client-2") as other:
            assert (await other.lookup(other.root_inode, b"file")).size_bytes == 9
        assert not any(s.masters.opens.values())

    play(key_file, scene)


def test_memory_stays_within_the_dirty_bound(key_file: str) -> None:
    limits = ClientLimits(dirty_bytes=4 << 20, write_window_bytes=2 << 20)

    async def scene(s: Scene) -> None:
        async with s.client(limits=limits) as client:
            files = [await create(client, b"%d" % i) for i in range(3)]
            budget = client._services.dirty_budget
            most = 0
            for at in range(0, 8 << 20, 64 << 10):
                for file in files:
                    await file.write(at, pattern(64 << 10, at // 64))
                    most = max(most, budget.taken_bytes)
            assert most <= budget.limit_bytes + (64 << 10)
            for file in files:
                await file.close()
            assert budget.taken_bytes == 0

    play(key_file, scene)


def test_the_master_hears_of_the_last_close(key_file: str) -> None:
    async def scene(s: Scene) -> None:
        async with s.client() as client:
            file = await create(client)
            second = await client.open_file(file.inode, ROOT, write=False)
            await file.close()
            assert s.masters.opens[client.session] == {file.inode}
            assert client.is_open(file.inode)
            await second.close()
            await s.world.clock.sleep(1)
            assert s.masters.opens[client.session] == set()
            assert not client.is_open(file.inode)
            assert sum(isinstance(m, OpenInode) for m in s.masters.requests) == 1

    play(key_file, scene)


def test_no_flush_returns_before_the_data_it_waits_for_is_committed(key_file: str) -> None:
    """Also when another handle's flush has the commit under way."""

    async def scene(s: Scene) -> None:
        async with s.client("client-1") as client, s.client("client-2") as other:
            file = await create(client)
            await file.write(0, b"data")
            s.world.delay_link("client-1", "master-1", 0.5)

            async def flush() -> None:
                await file.flush()
                assert (await other.attributes(file.inode)).size_bytes == 4

            async with trio.open_nursery() as nursery:
                for delay_s in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4):
                    nursery.start_soon(flush)
                    await s.world.clock.sleep(delay_s)
            await file.close()

    play(key_file, scene)
