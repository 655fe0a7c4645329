"""A write that leaves a gap shows zeros there, whatever a client that died has written to it."""

from __future__ import annotations

import errno

import pytest

from dfs.client import Client, OpenFile
from dfs.config import ClientLimits
from dfs.errors import Code, Failure
from dfs.layout import CHUNK_BYTES
from dfs.messages.chunks import WriteChunk
from dfs.messages.common import ROOT
from dfs.messages.metadata import Submit
from dfs.messages.operations import AllocateChunks, SetAttributes
from tests.client.fake_cluster import Scene, create, pattern, play
from tests.conftest import ExpectedLogs

KIB = 1 << 10


async def with_garbage(s: Scene, client: Client, name: bytes = b"file") -> OpenFile:
    """An open file of 1000 bytes, whose replicas hold more."""
    file = await create(client, name)
    await file.write(0, b"x" * 1000)
    await file.close()
    for server in s.servers:
        for replica in server.replicas.values():
            replica.data.write(1000, b"garbage" * 20_000)
    return await client.open_file(file.inode, ROOT, write=True)


def growths(s: Scene) -> int:
    submits = [m for m in s.masters.requests if isinstance(m, Submit)]
    return sum(isinstance(n.operation, SetAttributes) for m in submits for n in m.operations)


def zeros(count: int) -> bytes:
    return bytes(count)


@pytest.mark.parametrize("offset", [1001, 50 * KIB, 200 * KIB, CHUNK_BYTES - 1, CHUNK_BYTES + 5])
def test_a_gap_is_zeros(key_file: str, offset: int) -> None:
    async def scene(s: Scene) -> None:
        async with s.client("client-1") as client, s.client("client-2") as other:
            file = await with_garbage(s, client)
            await file.write(offset, b"data")
            await check(file, offset)
            await file.flush()
            await check(file, offset)
            await file.close()
            file = await other.open_file(file.inode, ROOT, write=True)
            await check(file, offset)
            await file.write(offset + 4, b" more")
            await file.close()
            file = await other.open_file(file.inode, ROOT, write=False)
            await check(file, offset)
            await file.close()
            assert growths(s) == 1

    play(key_file, scene)


async def check(file: OpenFile, offset: int) -> None:
    assert bytes(await file.read(0, 1000)) == b"x" * 1000
    gap = min(300 * KIB, offset - 1000)
    assert bytes(await file.read(1000, gap)) == zeros(gap)
    assert bytes(await file.read(offset - 1, 5)) == b"\0data"


def test_a_file_made_longer_shows_zeros(key_file: str) -> None:
    async def scene(s: Scene) -> None:
        async with s.client("client-1") as client, s.client("client-2") as other:
            file = await with_garbage(s, client)
            await client.set_attributes(SetAttributes(file.inode, ROOT, size_bytes=90 * KIB))
            assert bytes(await file.read(1000, 1 << 20)) == zeros(90 * KIB - 1000)
            await file.close()
            file = await with_garbage(s, client, b"closed")
            await file.close()
            await client.set_attributes(SetAttributes(file.inode, ROOT, size_bytes=90 * KIB))
            theirs = await other.open_file(file.inode, ROOT, write=True)
            assert bytes(await theirs.read(1000, 1 << 20)) == zeros(90 * KIB - 1000)
            await theirs.write(80 * KIB, b"data")
            await theirs.flush()
            assert bytes(await theirs.read(1000, 79 * KIB - 1000)) == zeros(79 * KIB - 1000)
            await theirs.close()

    play(key_file, scene)


def test_a_chunk_wholly_beyond_the_end_is_not_used_again(key_file: str) -> None:
    """A client allocated it, wrote, and died before it committed anything."""

    async def scene(s: Scene) -> None:
        async with s.client() as client:
            file = await create(client)
            await file.write(0, b"x" * 1000)
            await file.close()
            await client.perform(AllocateChunks(file.inode, 1, 1))
            before = (await client.chunk_map(file.inode, 1, 1)).chunks[0]
            file = await client.open_file(file.inode, ROOT, write=True)
            await file.write(CHUNK_BYTES + 5000, b"data")
            await file.close()
            assert (await client.chunk_map(file.inode, 1, 1)).chunks[0].handle != before.handle

    play(key_file, scene)


def test_appends_and_later_gaps_ask_nobody(key_file: str) -> None:
    async def scene(s: Scene) -> None:
        async with s.client() as client:
            file = await with_garbage(s, client)
            for at in range(1000, 100 * KIB, 1000):
                await file.write(at, pattern(1000))
            assert growths(s) == 0
            for at in range(200 * KIB, 300 * KIB, 5000):
                await file.write(at, b"x")
            assert growths(s) == 1
            await file.close()
            sparse = await create(client, b"sparse", exclusive=True)
            await sparse.write(100 * KIB, b"nobody else can have written to it")
            await sparse.close()
            assert growths(s) == 1

    play(key_file, scene)


def test_what_a_failed_write_left_on_some_replica_does_not_reappear(
    key_file: str, expected_logs: ExpectedLogs
) -> None:
    expected_logs("inode .* chunk")
    limits = ClientLimits(retry_for_s=2)

    async def scene(s: Scene) -> None:
        async with s.client(limits=limits) as client:
            file = await create(client, b"sparse", exclusive=True)
            await file.write(0, b"x" * 1000)
            await file.sync()

            def fault(message: object) -> Failure | None:
                if isinstance(message, WriteChunk):
                    for server in s.servers:
                        server.replicas[message.handle].data.write(1000, b"garbage" * 10_000)
                    return Failure(Code.DISK, "no space", errno=errno.ENOSPC)
                return None

            for server in s.servers:
                server.fault = fault
            await file.write(1000, b"lost" * 1000)
            with pytest.raises(Failure):
                await file.sync()
            for server in s.servers:
                server.fault = lambda message: None
            await file.write(80 * KIB, b"data")
            await file.sync()
            await check(file, 80 * KIB)
            await file.close()

    play(key_file, scene)


def test_what_another_client_is_writing_there_is_spared(key_file: str) -> None:
    """It is on its replicas, its write has returned, only the commit is still to come."""

    async def scene(s: Scene) -> None:
        async with s.client("client-1") as one, s.client("client-2") as two:
            file = await create(one)
            await file.write(0, b"x" * 1000)
            await file.close()
            theirs = await two.open_file(file.inode, ROOT, write=True)
            await theirs.write(1000, pattern(3000))
            two.send_all()
            await s.world.clock.sleep(0.1)
            file = await one.open_file(file.inode, ROOT, write=True)
            assert file.attributes.size_bytes == 1000
            await file.write(8000, b"data")
            await file.close()
            await theirs.close()
            file = await one.open_file(file.inode, ROOT, write=False)
            assert bytes(await file.read(1000, 10_000)) == pattern(3000) + bytes(4000) + b"data"
            await file.close()

    play(key_file, scene)


def test_a_gap_that_somebody_else_has_filled_is_left_alone(key_file: str) -> None:
    async def scene(s: Scene) -> None:
        async with s.client("client-1") as one, s.client("client-2") as two:
            file = await create(one)
            await file.write(0, b"x" * 1000)
            await file.flush()
            theirs = await two.open_file(file.inode, ROOT, write=True)
            await theirs.write(1000, pattern(20_000))
            await theirs.close()
            await file.write(8000, b"data")  # it does not know yet
            await file.close()
            theirs = await two.open_file(file.inode, ROOT, write=False)
            found = bytes(await theirs.read(1000, 30_000))
            assert found == pattern(7000) + b"data" + pattern(20_000)[7004:]
            await theirs.close()

    play(key_file, scene)
