"""What fsync promises, and that no write error is dropped on the way to whoever must hear of it."""

from __future__ import annotations

import errno
from collections.abc import Awaitable

import pytest
import trio
import trio.testing

from dfs.client import Client, OpenFile
from dfs.client.uncommitted import FOLD, Uncommitted
from dfs.config import ClientLimits
from dfs.errors import Code, Failure
from dfs.layout import CHUNK_BYTES
from dfs.messages.chunks import CutChunk, SyncChunk, WriteChunk
from dfs.messages.common import ROOT
from dfs.messages.operations import AllocateChunks, SetAttributes
from tests.client.fake_cluster import Scene, create, pattern, play
from tests.conftest import ExpectedLogs

KIB = 1 << 10


async def fails(call: Awaitable[object], expected: int = errno.EIO) -> None:
    with pytest.raises(Failure) as caught:
        await call
    assert caught.value.errno == expected


def break_disks(s: Scene, *kinds: type, number: int = errno.EIO) -> None:
    """Every server refuses these requests; without any, none does any more."""

    def fault(message: object) -> Failure | None:
        if not isinstance(message, kinds):
            return None
        return Failure(Code.DISK, "the disk is broken", errno=number)

    for server in s.servers:
        server.fault = fault


def count(s: Scene, kind: type) -> int:
    return sum(isinstance(m, kind) for server in s.servers for m in server.requests)


def is_synced(s: Scene, *contents: bytes) -> bool:
    return all(
        sorted(bytes(r.synced) for r in server.replicas.values()) == sorted(contents)
        for server in s.servers
    )


QUICK = ClientLimits(retry_for_s=2)


# -- what a sync covers


def test_fsync_covers_what_another_client_wrote(key_file: str) -> None:
    async def scene(s: Scene) -> None:
        async with s.client("client-1") as one, s.client("client-2") as two:
            file = await create(one, exclusive=True)
            await file.write(0, b"theirs")
            await file.write(2 * CHUNK_BYTES, b"more")
            await file.close()
            assert is_synced(s, b"", b"")
            again = await two.open_file(file.inode, ROOT, write=False)
            await again.sync()
            assert is_synced(s, b"theirs", b"more")
            asked = count(s, SyncChunk)
            await again.sync()
            await again.close()
            again = await two.open_file(file.inode, ROOT, write=True)
            await again.write(0, b"x")
            await again.sync()
            assert count(s, SyncChunk) == asked  # what is known to be durable is left alone
            await again.close()

    play(key_file, scene)


def test_fsync_covers_what_was_written_elsewhere_between_two_looks(key_file: str) -> None:
    async def scene(s: Scene) -> None:
        async with s.client("client-1") as one, s.client("client-2") as two:
            file = await create(one)
            await file.write(0, b"mine")
            await file.sync()
            theirs = await two.open_file(file.inode, ROOT, write=True)
            await theirs.write(4, b" theirs")
            await theirs.close()
            assert (await one.attributes(file.inode)).size_bytes == 11
            await file.sync()
            assert is_synced(s, b"mine theirs")
            await file.close()

    play(key_file, scene)


def test_fsync_skips_a_chunk_that_nobody_wrote(key_file: str) -> None:
    """It has no replicas yet, which is no loss."""

    async def scene(s: Scene) -> None:
        async with s.client("client-1") as one, s.client("client-2") as two:
            file = await create(one)
            await one.set_attributes(SetAttributes(file.inode, ROOT, size_bytes=100))
            await one.perform(AllocateChunks(file.inode, 0, 1))
            again = await two.open_file(file.inode, ROOT, write=True)
            await again.sync()
            await again.close()
            assert len((await two.chunk_map(file.inode, 0, 1)).chunks[0].replicas) == 3
            await file.close()

    play(key_file, scene)


def test_a_failed_sync_leaves_the_chunk_unsynced(
    key_file: str, expected_logs: ExpectedLogs
) -> None:
    expected_logs("inode .* chunk")

    async def scene(s: Scene) -> None:
        async with s.client(limits=QUICK) as client:
            file = await create(client)
            await file.write(0, b"data")
            await file.flush()
            break_disks(s, SyncChunk)
            await fails(file.sync())
            break_disks(s)
            await file.sync()
            handle = (await client.chunk_map(file.inode, 0, 1)).chunks[0]
            for replica in handle.replicas:
                found = s.masters.servers[replica.server].replicas[handle.handle]
                assert found.synced == b"data"
            await file.close()

    play(key_file, scene)


def test_a_sync_that_succeeds_where_one_has_failed_is_not_believed(
    key_file: str, expected_logs: ExpectedLogs
) -> None:
    """A kernel reports a page that it could not write once, and then forgets it."""
    expected_logs("inode .* chunk")

    async def scene(s: Scene) -> None:
        async with s.client() as client:
            file = await create(client)
            await file.write(0, b"data")
            await file.flush()
            failed: list[tuple[str, ...]] = []

            def once(message: object) -> Failure | None:
                if not isinstance(message, SyncChunk) or message.chain in failed:
                    return None
                failed.append(message.chain)  # once each, as the chain gets shorter
                return Failure(Code.DISK, "EIO", errno=errno.EIO)

            for server in s.servers:
                server.fault = once
            await fails(file.sync())
            await file.sync()
            await file.close()

    play(key_file, scene)


# -- who hears of an error


def test_write_flush_and_fsync_each_tell_of_an_error(
    key_file: str, expected_logs: ExpectedLogs
) -> None:
    expected_logs("inode .* chunk")

    async def scene(s: Scene) -> None:
        async with s.client() as client:
            file = await create(client)
            break_disks(s, WriteChunk, number=errno.ENOSPC)
            await file.write(0, b"lost")
            await s.world.clock.sleep(5)  # written behind, in vain
            break_disks(s)
            await fails(file.write(4, b"not taken"), errno.ENOSPC)
            await file.write(4, b"taken")
            await fails(file.flush(), errno.ENOSPC)  # one descriptor of several is closed
            await fails(file.flush(), errno.ENOSPC)  # another one
            await fails(file.sync(), errno.ENOSPC)
            await file.flush()
            await file.sync()
            await file.close()

    play(key_file, scene)


def test_close_tells_of_an_error_that_nothing_else_has_told(
    key_file: str, expected_logs: ExpectedLogs
) -> None:
    expected_logs("inode .* chunk")

    async def scene(s: Scene) -> None:
        async with s.client() as client:
            file = await create(client)
            second = await client.open_file(file.inode, ROOT, write=True)
            reader = await client.open_file(file.inode, ROOT, write=False)
            break_disks(s, WriteChunk, number=errno.ENOSPC)
            await file.write(0, b"lost")
            await fails(second.sync(), errno.ENOSPC)
            await second.close()
            await fails(file.close(), errno.ENOSPC)
            await fails(reader.sync(), errno.ENOSPC)
            await reader.sync()
            await reader.close()

    play(key_file, scene)


def test_an_fsync_that_fails_tells_a_reader(key_file: str, expected_logs: ExpectedLogs) -> None:
    expected_logs("inode .* chunk")

    async def scene(s: Scene) -> None:
        async with s.client(limits=QUICK) as client:
            file = await create(client)
            await file.write(0, b"data")
            await file.close()
            reader = await client.open_file(file.inode, ROOT, write=False)
            break_disks(s, SyncChunk)
            await fails(reader.sync())
            break_disks(s)
            await reader.sync()
            await reader.close()

    play(key_file, scene)


def test_an_error_after_the_last_close_is_left_to_the_next_fsync(
    key_file: str, expected_logs: ExpectedLogs
) -> None:
    expected_logs("inode .* chunk")

    async def scene(s: Scene) -> None:
        async with s.client() as client:
            file = await create(client)
            await file.write(0, b"lost")
            break_disks(s, WriteChunk, number=errno.ENOSPC)
            with trio.CancelScope() as scope:
                scope.cancel()
                await file.close()
            await s.world.clock.sleep(5)
            assert not client.is_open(file.inode)
            break_disks(s)
            await rewrite(client, file.inode)  # another program, which does not ask
            again = await client.open_file(file.inode, ROOT, write=True)
            await fails(again.sync(), errno.ENOSPC)
            await again.close()
            again = await client.open_file(file.inode, ROOT, write=True)
            await again.sync()
            await again.close()

    play(key_file, scene)


async def rewrite(client: Client, inode: int) -> None:
    file = await client.open_file(inode, ROOT, write=True)
    await file.write(0, b"again")
    await file.flush()
    await file.close()


def test_a_cancelled_flush_loses_neither_data_nor_error(
    key_file: str, expected_logs: ExpectedLogs
) -> None:
    expected_logs("inode .* chunk")

    async def scene(s: Scene) -> None:
        async with s.client() as client:
            file = await create(client)
            await file.write(0, b"data")
            s.world.delay_link("client-1", "master-1", 0.5)
            with s.world.clock.move_on_after(0.6):
                await file.sync()
            await file.sync()
            assert is_synced(s, b"data")
            assert (await client.attributes(file.inode)).size_bytes == 4
            break_disks(s, WriteChunk, number=errno.ENOSPC)
            await file.write(4, b"lost")
            with trio.CancelScope() as scope:
                scope.cancel()
                await file.flush()
            await fails(file.sync(), errno.ENOSPC)
            await file.close()

    play(key_file, scene)


# -- power losses of all replicas


async def written(client: Client, data: bytes = b"data") -> OpenFile:
    file = await create(client)
    await file.write(0, data)
    await file.flush()
    return file


LOST = "lost power|inode .* chunk"


def test_what_was_not_synced_before_a_loss_is_an_error_once(
    key_file: str, expected_logs: ExpectedLogs
) -> None:
    expected_logs(LOST)

    async def scene(s: Scene) -> None:
        async with s.client() as client:
            file = await written(client)
            s.masters.lose_power()
            await fails(file.sync())
            await file.write(0, b"anew")
            await file.sync()
            assert is_synced(s, b"anew")
            await file.close()

    play(key_file, scene)


def test_the_packet_that_carries_the_sync_finds_the_loss_too(
    key_file: str, expected_logs: ExpectedLogs
) -> None:
    expected_logs(LOST)

    async def scene(s: Scene) -> None:
        async with s.client() as client:
            file = await written(client)
            s.masters.lose_power()
            await file.write(4, b" more")
            await fails(file.sync())
            assert count(s, SyncChunk) == 0
            await file.write(0, b"data")
            await file.sync()
            await file.close()

    play(key_file, scene)


def test_a_write_after_the_loss_does_not_cover_it_up(
    key_file: str, expected_logs: ExpectedLogs
) -> None:
    expected_logs(LOST)

    async def scene(s: Scene) -> None:
        async with s.client() as client:
            file = await written(client)
            s.masters.lose_power()
            await file.write(4, b" more")
            await file.flush()
            await file.close()
            again = await client.open_file(file.inode, ROOT, write=True)
            await fails(again.sync())
            await again.sync()
            await again.close()

    play(key_file, scene)


def test_a_loss_of_what_was_synced_is_none(key_file: str, expected_logs: ExpectedLogs) -> None:
    expected_logs("inode .* chunk")

    async def scene(s: Scene) -> None:
        async with s.client() as client:
            file = await written(client)
            await file.sync()
            s.masters.lose_power()
            await file.write(4, b" more")
            await file.sync()
            assert is_synced(s, b"data more")
            await file.close()

    play(key_file, scene)


def test_a_cut_is_durable_before_the_master_forgets_it(
    key_file: str, expected_logs: ExpectedLogs
) -> None:
    expected_logs("inode .* chunk")

    async def scene(s: Scene) -> None:
        async with s.client() as client:
            file = await written(client, pattern(100 * KIB))
            await file.sync()
            await client.set_attributes(SetAttributes(file.inode, ROOT, size_bytes=1000))
            await file.write(50 * KIB, b"x")
            await file.flush()
            s.masters.lose_power()
            again = await client.open_file(file.inode, ROOT, write=False)
            found = bytes(await again.read(0, 50 * KIB))
            assert found == pattern(1000) + bytes(50 * KIB - 1000)
            await again.close()
            await fails(file.sync())
            await file.close()

    play(key_file, scene)


def test_a_cut_carried_out_before_a_loss_is_carried_out_again(
    key_file: str, expected_logs: ExpectedLogs
) -> None:
    expected_logs("inode .* chunk")

    async def scene(s: Scene) -> None:
        async with s.client() as client:
            file = await written(client, pattern(100 * KIB))
            await client.set_attributes(SetAttributes(file.inode, ROOT, size_bytes=1000))
            cuts = count(s, CutChunk)
            assert cuts
            s.masters.lose_power()  # the master does not know yet that the cut is done
            await file.write(50 * KIB, b"x")
            await file.flush()
            assert count(s, CutChunk) > cuts
            await fails(file.sync())
            await file.close()

    play(key_file, scene)


# -- the order of what survives


def test_a_commit_does_not_run_ahead_of_an_unfinished_write(
    key_file: str, expected_logs: ExpectedLogs
) -> None:
    """Were the client to die now, the file would have a hole where its second write was."""
    expected_logs("inode .* chunk")
    step = 64 * KIB
    limits = ClientLimits(packet_bytes=step)

    async def scene(s: Scene) -> None:
        async with s.client("client-1", limits) as client, s.client("client-2") as other:
            file = await create(client)
            await file.write(0, b"x")
            await file.flush()
            held = [0, step]
            refused: list[int] = []

            def fault(message: object) -> Failure | None:
                if not isinstance(message, WriteChunk) or message.offset not in held:
                    return None
                refused.append(message.offset)
                if message.offset == 0 and refused.count(0) == 3:
                    held.remove(0)
                return Failure(Code.UNAVAILABLE, "not now")

            for server in s.servers:
                server.fault = fault
            async with trio.open_nursery() as nursery:
                await file.write(0, pattern(step))
                nursery.start_soon(file.flush)
                await trio.testing.wait_all_tasks_blocked()
                await file.write(step, pattern(step))
                await file.write(2 * step, pattern(step))
                while 0 in held:
                    await s.world.clock.sleep(0.01)
                await s.world.clock.sleep(0.2)
                assert (await other.attributes(file.inode)).size_bytes == step
                held.clear()
            await file.close()
            assert (await other.attributes(file.inode)).size_bytes == 3 * step

    play(key_file, scene)


def test_packets_without_number_are_folded() -> None:
    oldest = 1
    packets = Uncommitted(lambda: oldest)
    for number in range(1, 10 * FOLD):
        packets.add(number, number * 100)
        oldest = number + 1
        assert len(packets._packets) < 2 * FOLD
    assert packets.end() == (10 * FOLD - 1) * 100
    oldest = 5
    packets.clear()
    packets.add(7, 700)
    packets.add(3, 300)
    assert packets.take() == 300
    assert packets.take() is None
    assert packets
