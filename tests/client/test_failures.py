"""Masters and chunkservers that fail under the client: stalls, never errors, while any is left."""

from __future__ import annotations

import errno

import pytest
import trio

from dfs.client import OpenFile
from dfs.config import ClientLimits
from dfs.errors import Code, Failure
from dfs.layout import CHUNK_BYTES
from dfs.messages.chunks import CheckBlocks, ReadChunk, SyncChunk, WriteChunk
from dfs.messages.common import ROOT, Attributes
from dfs.messages.operations import Create, SetAttributes, Unlink
from tests.client.fake_cluster import Scene, create, pattern, play
from tests.conftest import ExpectedLogs

MIB = 1 << 20


async def stream(file: OpenFile, data: bytes, step: int = 256 << 10) -> None:
    for at in range(0, len(data), step):
        await file.write(at, data[at : at + step])


async def content(s: Scene, inode: int, name: str = "reader") -> bytes:
    """The file as another client reads it."""
    got = b""
    async with s.client(name) as client:
        file = await client.open_file(inode, ROOT, write=False)
        while part := await file.read(len(got), MIB):
            got += part
        await file.close()
    return got


# -- masters


def test_a_new_leader_is_found_and_told_what_is_open(key_file: str) -> None:
    async def scene(s: Scene) -> None:
        async with s.client() as client:
            file = await create(client)
            await file.write(0, b"before")
            s.masters.change_leader(2)
            await file.write(6, b" after")
            await file.flush()
            assert (file.inode,) in s.masters.registered
            assert s.masters.opens[client.session] == {file.inode}
            s.masters.change_leader(1)
            await file.close()
        assert await content(s, file.inode) == b"before after"

    play(key_file, scene)


def test_no_leader_for_a_while_is_only_a_stall(key_file: str) -> None:
    async def scene(s: Scene) -> None:
        async with s.client() as client, trio.open_nursery() as nursery:
            s.masters.change_leader(-1)
            begun = s.world.clock.monotonic()

            async def elect() -> None:
                await s.world.clock.sleep(2)
                s.masters.change_leader(1)

            nursery.start_soon(elect)
            file = await create(client)
            assert 2 <= s.world.clock.monotonic() - begun < 3.5
            await file.close()

    play(key_file, scene)


@pytest.mark.parametrize("spoiled", [Failure(Code.OUTCOME_UNKNOWN, "stepped down"), "drop"])
def test_a_change_whose_answer_is_lost_happens_once(key_file: str, spoiled: Failure | str) -> None:
    async def scene(s: Scene) -> None:
        async with s.client() as client:
            exclusive = Create(client.root_inode, b"lock", 0o644, True, ROOT)
            s.masters.after.append(spoiled)
            file = await client.create_file(exclusive)  # no EEXIST
            await file.close()
            s.masters.after.append(spoiled)
            await client.perform(Unlink(client.root_inode, b"lock", ROOT))  # no ENOENT

    play(key_file, scene)


def test_masters_that_name_each_other_are_not_asked_in_a_tight_loop(key_file: str) -> None:
    limits = ClientLimits(retry_for_s=3)

    async def scene(s: Scene) -> None:
        async with s.client(limits=limits) as client:
            first, second, third = s.masters.addresses
            s.masters.rumours = {0: second, 1: third, 2: first}
            s.masters.change_leader(-1)
            with pytest.raises(Failure) as caught:
                await client.attributes(client.root_inode)
            assert caught.value.errno == errno.EIO
            assert s.masters.refusals < 100
            s.masters.change_leader(0)

    play(key_file, scene)


def test_a_refusal_for_now_is_only_a_stall(key_file: str) -> None:
    async def scene(s: Scene) -> None:
        async with s.client() as client, trio.open_nursery() as nursery:
            s.masters.unplaceable = True

            async def recover() -> None:
                await s.world.clock.sleep(3)
                s.masters.unplaceable = False

            nursery.start_soon(recover)
            file = await create(client)
            await file.write(0, b"data")
            assert (await client.attributes(file.inode)).size_bytes == 4  # others do not wait
            await file.close()
            numbers = client._services.session._numbers
            assert numbers.answered_below() == numbers.following
        assert await content(s, file.inode) == b"data"

    play(key_file, scene)


def test_a_silent_leader_is_left(key_file: str) -> None:
    async def scene(s: Scene) -> None:
        async with s.client() as client:
            await client.attributes(client.root_inode)
            s.world.partition("client-1", "master-1")
            s.masters.change_leader(1)
            begun = s.world.clock.monotonic()
            await client.attributes(client.root_inode)
            assert s.world.clock.monotonic() - begun < 3
            s.world.heal()

    play(key_file, scene)


def test_an_expired_session_loses_its_files_and_nothing_else(
    key_file: str, expected_logs: ExpectedLogs
) -> None:
    expected_logs("has expired")

    async def scene(s: Scene) -> None:
        async with s.client() as client:
            old = await create(client)
            await old.write(0, b"unflushed")
            first = client.session
            s.masters.expire(first)
            file = await create(client, b"new")  # sent again under the new session
            assert client.session != first
            await file.write(0, b"fine")
            for attempt in (old.read(0, 1), old.write(0, b"x"), old.flush(), old.sync()):
                with pytest.raises(Failure) as caught:
                    await attempt
                assert caught.value.errno == errno.ESTALE
            with pytest.raises(Failure):
                await old.close()
            await file.close()
            again = await client.open_file(old.inode, ROOT, write=True)
            await again.write(0, b"again")
            await again.close()
            assert client._services.dirty_budget.taken_bytes == 0

    play(key_file, scene)


def test_the_session_outlives_idle_times(key_file: str) -> None:
    async def scene(s: Scene) -> None:
        async with s.client() as client:
            file = await create(client)
            session = client.session
            registered = len(s.masters.registered)
            await s.world.clock.sleep(100)
            assert client.session == session
            assert len(s.masters.registered) - registered >= 10
            await file.close()

    play(key_file, scene)


# -- chunkservers while writing


@pytest.mark.parametrize("victim", [0, 1, 2])
@pytest.mark.parametrize("how", ["crash", "hang", "partition"])
def test_a_server_that_dies_in_a_stream_costs_a_stall_only(
    key_file: str, expected_logs: ExpectedLogs, victim: int, how: str
) -> None:
    expected_logs("inode .* chunk")
    data = pattern(12 * MIB)

    async def scene(s: Scene) -> None:
        async with s.client() as client:
            file = await create(client)
            await stream(file, data[: 6 * MIB])
            begun = s.world.clock.monotonic()
            server = s.servers[victim]
            if how == "crash":
                s.world.crash(f"chunkserver-{server.server}", power_loss=False)
            elif how == "hang":
                server.hang = True
            else:
                s.world.isolate(f"chunkserver-{server.server}")
            for at in range(6 * MIB, 12 * MIB, MIB):
                await file.write(at, data[at : at + MIB])
            await file.close()
            assert s.world.clock.monotonic() - begun < 4
        left = [x for x in s.servers if x is not server]
        for x in left:
            assert [bytes(r.data) for r in x.replicas.values()] == [data]
        assert await content(s, file.inode) == data
        s.world.heal()

    play(key_file, scene)


def test_a_new_chunk_whose_server_is_dead_is_written_to_the_others(
    key_file: str, expected_logs: ExpectedLogs
) -> None:
    expected_logs("inode .* chunk")

    async def scene(s: Scene) -> None:
        s.world.crash("chunkserver-1")
        async with s.client() as client:
            file = await create(client)
            await file.write(0, b"data")
            await file.sync()
            await file.close()
        assert await content(s, file.inode) == b"data"

    play(key_file, scene)


def test_a_server_that_returns_is_found_again_when_it_was_the_last(
    key_file: str, expected_logs: ExpectedLogs
) -> None:
    expected_logs("inode .* chunk")

    async def scene(s: Scene) -> None:
        async with s.client() as client, trio.open_nursery() as nursery:
            file = await create(client)
            await file.write(0, b"data")
            await file.flush()
            for i in (1, 2, 3):
                s.world.crash(f"chunkserver-{i}")

            async def bring_back() -> None:
                await s.world.clock.sleep(10)
                for i in (1, 2, 3):
                    s.world.restart(f"chunkserver-{i}")

            nursery.start_soon(bring_back)
            await file.write(4, b" more")
            await file.close()
        assert await content(s, file.inode) == b"data more"

    play(key_file, scene)


def test_a_sync_does_not_count_on_a_server_that_was_away(
    key_file: str, expected_logs: ExpectedLogs
) -> None:
    """It may have lost what it had only in memory, so it has to leave the set."""
    expected_logs("inode .* chunk")

    async def scene(s: Scene) -> None:
        async with s.client() as client:
            file = await create(client)
            await file.write(0, b"data")
            await file.flush()
            chunk = (await client.chunk_map(file.inode, 0, 1)).chunks[0]
            primary = chunk.replicas[0].server
            s.world.crash(f"chunkserver-{primary}")
            s.world.restart(f"chunkserver-{primary}")
            await file.sync()
            chunk = (await client.chunk_map(file.inode, 0, 1)).chunks[0]
            assert primary not in [r.server for r in chunk.replicas]
            for r in chunk.replicas:
                assert s.masters.servers[r.server].replicas[chunk.handle].synced == b"data"
            await file.close()

    play(key_file, scene)


def test_an_old_map_is_fetched_anew(key_file: str, expected_logs: ExpectedLogs) -> None:
    expected_logs("inode .* chunk")

    async def scene(s: Scene) -> None:
        async with s.client("client-1") as one, s.client("client-2") as two:
            file = await create(one)
            await file.write(0, b"0123456789")
            await file.flush()
            theirs = await two.open_file(file.inode, ROOT, write=True)
            await theirs.write(0, b"a")
            await theirs.flush()  # its map is warm
            s.world.crash("chunkserver-2", power_loss=False)
            await file.write(1, b"b")
            await file.flush()  # drops the server, raises the version
            await theirs.write(2, b"c")
            await theirs.flush()
            await theirs.close()
            await file.close()
        assert await content(s, file.inode) == b"abc3456789"

    play(key_file, scene)


def no_space(message: object) -> Failure | None:
    if isinstance(message, WriteChunk):
        return Failure(Code.DISK, "the disk is full", errno=errno.ENOSPC)
    return None


def test_one_full_server_is_left_out(key_file: str, expected_logs: ExpectedLogs) -> None:
    expected_logs("inode .* chunk")

    async def scene(s: Scene) -> None:
        s.servers[0].fault = no_space
        async with s.client() as client:
            file = await create(client)
            await file.write(0, b"data")
            await file.close()
        assert await content(s, file.inode) == b"data"

    play(key_file, scene)


def test_full_servers_give_enospc_to_each_writer_and_once_to_its_fsync(
    key_file: str, expected_logs: ExpectedLogs
) -> None:
    expected_logs("inode .* chunk")

    async def scene(s: Scene) -> None:
        async with s.client() as client:
            file = await create(client)
            await file.write(0, b"kept")
            await file.flush()
            second = await client.open_file(file.inode, ROOT, write=True)
            for server in s.servers:
                server.fault = no_space
            await file.write(4, b"lost")
            for handle in (file, second):
                with pytest.raises(Failure) as caught:
                    await handle.flush()
                assert caught.value.errno == errno.ENOSPC
                with pytest.raises(Failure):
                    await handle.sync()
                await handle.flush()
                await handle.sync()
            for server in s.servers:
                server.fault = lambda message: None
            assert (await client.attributes(file.inode)).size_bytes == 4
            await file.write(4, b" again")
            await file.close()
            await second.close()
            assert client._services.dirty_budget.taken_bytes == 0
        assert await content(s, file.inode) == b"kept again"

    play(key_file, scene)


def test_no_room_for_a_chunk_is_enospc_at_close(key_file: str) -> None:
    async def scene(s: Scene) -> None:
        s.masters.full = (1, 2)
        async with s.client() as client:
            file = await create(client)
            await file.write(0, b"data")
            with pytest.raises(Failure) as caught:
                await file.close()
            assert caught.value.errno == errno.ENOSPC
            assert not client.is_open(file.inode)

    play(key_file, scene)


def test_a_failing_disk_is_left_out_of_a_sync(key_file: str, expected_logs: ExpectedLogs) -> None:
    expected_logs("inode .* chunk")

    async def scene(s: Scene) -> None:
        victim = s.servers[1]

        def fault(message: object) -> Failure | None:
            if isinstance(message, SyncChunk) or getattr(message, "sync", False):
                return Failure(Code.DISK, "EIO", errno=errno.EIO, detail=victim.address)
            return None

        victim.fault = fault
        async with s.client() as client:
            file = await create(client)
            await file.write(0, b"data")
            await file.sync()
            chunk = (await client.chunk_map(file.inode, 0, 1)).chunks[0]
            assert victim.server not in [r.server for r in chunk.replicas]
            await file.close()

    play(key_file, scene)


def test_one_dead_server_costs_one_timeout_over_all_chunks(
    key_file: str, expected_logs: ExpectedLogs
) -> None:
    expected_logs("inode .* chunk")

    async def scene(s: Scene) -> None:
        async with s.client() as client:
            files = [await create(client, b"%d" % i) for i in range(4)]
            for file in files:
                await file.write(0, b"x" * 100)
                await file.write(CHUNK_BYTES, b"y" * 100)
                await file.flush()
            s.servers[1].hang = True
            begun = s.world.clock.monotonic()
            for file in files:
                await file.write(50, b"z")
                await file.sync()
            assert s.world.clock.monotonic() - begun < 5  # the others cost a short probe each
            for file in files:
                await file.close()

    play(key_file, scene)


@pytest.mark.parametrize("victim", [0, 1, 2])
def test_a_server_that_dies_before_a_cut_is_carried_out(
    key_file: str, expected_logs: ExpectedLogs, victim: int
) -> None:
    expected_logs("inode .* chunk")
    limits = ClientLimits(packet_bytes=64 << 10)

    async def scene(s: Scene) -> None:
        async with s.client(limits=limits) as client:
            file = await create(client)
            await file.write(0, pattern(MIB))
            await client.set_attributes(SetAttributes(file.inode, ROOT, size_bytes=1000))
            s.servers[victim].hang = True
            begun = s.world.clock.monotonic()
            for at in range(0, MIB, 128 << 10):
                await file.write(at, b"x")
            await file.flush()
            assert s.world.clock.monotonic() - begun < 3
            await file.close()
        found = await content(s, file.inode)
        assert found[:1000] == b"x" + pattern(MIB)[1:1000]
        assert found[1000 : 128 << 10] == bytes((128 << 10) - 1000)

    play(key_file, scene)


def test_a_slow_chain_is_not_taken_for_a_dead_one(key_file: str) -> None:
    """Every packet takes long to come through, but they do come through."""

    async def scene(s: Scene) -> None:
        async with s.client() as client:
            file = await create(client)
            await file.write(0, b"x")
            await file.flush()
            chunk = (await client.chunk_map(file.inode, 0, 1)).chunks[0]
            s.masters.servers[chunk.replicas[0].server].bytes_per_s = MIB
            begun = s.world.clock.monotonic()
            await stream(file, pattern(16 * MIB))
            await file.close()
            assert s.world.clock.monotonic() - begun < 20  # nothing was sent twice
            chunk = (await client.chunk_map(file.inode, 0, 1)).chunks[0]
            assert len(chunk.replicas) == 3

    play(key_file, scene)


@pytest.mark.parametrize("victim", [0, 1, 2])
def test_the_right_server_is_blamed_when_the_chain_is_too_late_to_say(
    key_file: str, expected_logs: ExpectedLogs, victim: int
) -> None:
    expected_logs("inode .* chunk")
    limits = ClientLimits(data_timeout_s=1.0)  # less than the links give each other

    async def scene(s: Scene) -> None:
        async with s.client(limits=limits) as client:
            file = await create(client)
            await file.write(0, b"before")
            await file.flush()
            s.servers[victim].hang = True
            await file.write(6, b" after")
            await file.close()
            chunk = (await client.chunk_map(file.inode, 0, 1)).chunks[0]
            left = [r.server for r in chunk.replicas]
            assert sorted([*left, s.servers[victim].server]) == [1, 2, 3]

    play(key_file, scene)


# -- chunkservers while reading


def test_a_corrupt_replica_is_never_returned(key_file: str, expected_logs: ExpectedLogs) -> None:
    expected_logs("not read: .*checksum mismatch")
    data = pattern(3 * MIB)

    async def scene(s: Scene) -> None:
        async with s.client() as client:
            file = await create(client)
            await stream(file, data)
            await file.close()
        for bad in s.servers:
            bad.corrupt_reads = True
            assert await content(s, file.inode, f"reader-{bad.server}") == data
            bad.corrupt_reads = False
        complaints = [m for bad in s.servers for m in bad.requests if isinstance(m, CheckBlocks)]
        assert complaints  # who was asked hears of it: it had taken the blocks for good
        assert all(c.length_bytes <= len(data) and c.version == 1 for c in complaints)

    play(key_file, scene)


def test_without_a_good_replica_a_read_is_eio(key_file: str, expected_logs: ExpectedLogs) -> None:
    expected_logs("not read|unreadable")

    async def scene(s: Scene) -> None:
        async with s.client() as client:
            file = await create(client)
            await file.write(0, b"data")
            await file.flush()
            for server in s.servers:
                server.corrupt_reads = True
            with pytest.raises(Failure) as caught:
                await file.read(0, 4)
            assert caught.value.errno == errno.EIO
            for server in s.servers:
                server.corrupt_reads = False
            assert bytes(await file.read(0, 4)) == b"data"
            for server in s.servers:
                server.replicas.clear()
            await file.close()
        async with s.client("client-2") as client:
            file = await client.open_file(file.inode, ROOT, write=False)
            with pytest.raises(Failure) as caught:
                await file.read(0, 4)
            assert caught.value.errno == errno.EIO
            await file.close()

    play(key_file, scene)


@pytest.mark.parametrize("how", ["crash", "hang"])
def test_a_reader_goes_on_when_servers_die(
    key_file: str, expected_logs: ExpectedLogs, how: str
) -> None:
    expected_logs("not read")
    data = pattern(4 * MIB)

    async def scene(s: Scene) -> None:
        async with s.client() as client:
            file = await create(client)
            await stream(file, data)
            await file.close()
        for server in s.servers[:2]:
            if how == "crash":
                s.world.crash(f"chunkserver-{server.server}", power_loss=False)
            else:
                server.hang = True
        begun = s.world.clock.monotonic()
        assert await content(s, file.inode) == data
        assert s.world.clock.monotonic() - begun < 4

    play(key_file, scene)


# -- cancellation


def test_a_cancelled_close_still_writes_and_lets_go(key_file: str) -> None:
    async def scene(s: Scene) -> None:
        async with s.client() as client:
            file = await create(client)
            await file.write(0, b"data")
            with trio.CancelScope() as scope:
                scope.cancel()
                await file.close()
            await s.world.clock.sleep(3)
            assert not client.is_open(file.inode)
            assert (await client.attributes(file.inode)).size_bytes == 4
            assert s.masters.opens[client.session] == set()

    play(key_file, scene)


def test_a_writer_cancelled_while_it_waits_for_room_leaves_no_trace(
    key_file: str, expected_logs: ExpectedLogs
) -> None:
    expected_logs("inode .* chunk")
    limits = ClientLimits(dirty_bytes=1 << 20)

    async def scene(s: Scene) -> None:
        async with s.client(limits=limits) as client:
            file = await create(client)
            for server in s.servers:
                server.hang = True
            await file.write(0, pattern(MIB - 4096))
            with s.world.clock.move_on_after(1) as scope:
                await file.write(MIB, pattern(MIB))
            assert scope.cancelled_caught
            for server in s.servers:
                server.hang = False
            await file.flush()
            assert (await client.attributes(file.inode)).size_bytes == MIB - 4096
            await file.close()
            assert client._services.dirty_budget.taken_bytes == 0

    play(key_file, scene)


def test_a_cancelled_create_is_not_left_open(key_file: str) -> None:
    async def scene(s: Scene) -> None:
        async with s.client() as client:
            with trio.CancelScope() as scope:
                scope.cancel()
                await create(client)
            s.world.delay_link("client-1", "master-1", 0.5)
            with s.world.clock.move_on_after(0.1):
                await create(client, b"sent")
            await s.world.clock.sleep(3)
            found = await client.lookup(client.root_inode, b"sent")
            assert isinstance(found, Attributes)
            assert s.masters.opens[client.session] == set()
            with pytest.raises(Failure):
                await client.lookup(client.root_inode, b"file")

    play(key_file, scene)


def test_reads_are_spread_over_the_replicas(key_file: str) -> None:
    async def scene(s: Scene) -> None:
        async with s.client() as client:
            for i in range(12):
                file = await create(client, b"%d" % i)
                await file.write(0, b"data")
                await file.close()
                again = await client.open_file(file.inode, ROOT, write=False)
                await again.read(0, 4)
                await again.close()
        for server in s.servers:
            assert any(isinstance(m, ReadChunk) for m in server.requests)

    play(key_file, scene)


def test_what_the_users_block_raises_is_not_wrapped(key_file: str) -> None:
    async def scene(s: Scene) -> None:
        async with s.client() as client:
            await client.lookup(client.root_inode, b"absent")

    with pytest.raises(Failure) as caught:
        play(key_file, scene)
    assert caught.value.errno == errno.ENOENT


def test_without_masters_opening_fails_in_time(key_file: str) -> None:
    limits = ClientLimits(retry_for_s=5)

    async def scene(s: Scene) -> None:
        s.masters.change_leader(-1)
        with pytest.raises(Failure) as caught:
            async with s.client(limits=limits):
                pytest.fail("there is no leader")
        assert caught.value.errno == errno.EIO

    play(key_file, scene)
