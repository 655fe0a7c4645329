"""What a simulated disk loses with its power, and its faults."""

from __future__ import annotations

import errno

import hypothesis
import pytest
from hypothesis import strategies as st

from dfs.errors import Code, Failure
from dfs.runtime import Disk, WriteBatch
from dfs.runtime.sim import Media, NodeEnded, World

SEEDS = range(60)


def lose_power(world: World) -> Disk:
    """The node's disk after a power loss."""

    async def main() -> None:
        world.crash("node")

    world.run(main)
    return world.env("node").disk


def batch(key: bytes, value: bytes) -> WriteBatch:
    made = WriteBatch()
    made.put("table", key, value)
    return made


def test_synced_contents_and_names_survive() -> None:
    for seed in SEEDS:
        world = World(seed)
        disk = world.env("node").disk
        disk.make_directory("/d")
        file = disk.open("/d/file", write=True, create=True)
        file.pwrite([b"x" * 10_000], 0)
        file.datasync()
        disk.sync_directory("/d")
        disk.write_file("/d/whole", b"whole")
        after = lose_power(world)
        assert after.read_file("/d/file") == b"x" * 10_000
        assert after.read_file("/d/whole") == b"whole"


def test_unsynced_contents_are_lost_kept_or_torn() -> None:
    outcomes = {}
    for seed in SEEDS:
        world = World(seed)
        disk = world.env("node").disk
        disk.write_file("/file", b"o" * 4096)
        disk.open("/file", write=True).pwrite([b"n" * 4096], 0)
        content = lose_power(world).read_file("/file")
        assert len(content) == 4096
        kind = {b"o" * 4096: "old", b"n" * 4096: "new"}.get(content, "torn")
        outcomes[kind] = content
    assert sorted(outcomes) == ["new", "old", "torn"]


def test_the_length_of_an_unsynced_file_is_old_or_new() -> None:
    lengths = {}
    for seed in SEEDS:
        world = World(seed)
        disk = world.env("node").disk
        disk.write_file("/file", b"12345")
        disk.open("/file", write=True).pwrite([b"6" * 5000], 5)
        content = lose_power(world).read_file("/file")
        assert content[:5] == b"12345"
        lengths[len(content)] = True
    assert sorted(lengths) == [5, 5005]


def test_a_name_without_directory_sync_may_be_gone() -> None:
    found = []
    for seed in SEEDS:
        world = World(seed)
        file = world.env("node").disk.open("/file", write=True, create=True)
        file.pwrite([b"x"], 0)
        file.datasync()
        found.append(lose_power(world).exists("/file"))
    assert True in found
    assert False in found


def test_names_are_lost_as_a_suffix() -> None:
    for seed in SEEDS:
        world = World(seed)
        disk = world.env("node").disk
        for name in ("/a", "/b"):
            disk.write_file(name, name.encode())
        disk.rename("/a", "/c")
        disk.unlink("/b")
        disk.rename("/c", "/d")
        after = lose_power(world)
        assert after.list_directory("/") in (["a", "b"], ["b", "c"], ["c"], ["d"])
        assert b"/a" in [after.read_file(f"/{name}") for name in after.list_directory("/")]


def test_a_rename_before_the_sync_may_leave_garbage() -> None:
    """The bug that a store would have, which the simulation must be able to show."""
    contents = []
    for seed in SEEDS:
        world = World(seed)
        disk = world.env("node").disk
        disk.write_file("/file", b"old")
        new = disk.open("/new", write=True, create=True)
        new.pwrite([b"new"], 0)
        disk.rename("/new", "/file")
        disk.sync_directory("/")
        contents.append(lose_power(world).read_file("/file"))
    assert [c for c in contents if c != b"new"]


def test_a_killed_process_loses_nothing_that_it_wrote() -> None:
    for seed in SEEDS:
        world = World(seed)
        file = world.env("node").disk.open("/file", write=True, create=True)
        file.pwrite([b"x" * 9000], 0)
        world.crash("node", power_loss=False)
        assert world.env("node").disk.read_file("/file") == b"x" * 9000


writes = st.lists(st.tuples(st.integers(0, 12_000), st.binary(min_size=1, max_size=6000)))


@hypothesis.given(st.integers(0, 1000), writes, writes)
def test_every_surviving_byte_was_once_written_there(
    seed: int, synced: list[tuple[int, bytes]], unsynced: list[tuple[int, bytes]]
) -> None:
    world = World(seed)
    disk = world.env("node").disk
    disk.write_file("/file", b"")
    file = disk.open("/file", write=True)
    for offset, data in synced:
        file.pwrite([data], offset)
    file.datasync()
    old = disk.read_file("/file").ljust(20_000, b"\0")
    for offset, data in unsynced:
        file.pwrite([data], offset)
    new = disk.read_file("/file").ljust(20_000, b"\0")
    after = lose_power(world).read_file("/file")
    assert all(a in (o, n) for a, o, n in zip(after, old, new, strict=False))


def test_a_store_keeps_each_write_whole() -> None:
    world = World(3)
    store = world.env("node").disk.open_key_value("/store", ["table"], 1 << 20)
    store.write(batch(b"key", b"value"))
    after = lose_power(world).open_key_value("/store", ["table"], 1 << 20)
    assert after.get("table", b"key") == b"value"


@pytest.mark.parametrize("after", [False, True])
def test_a_crash_can_be_aimed_at_a_sync(after: bool) -> None:
    world = World(3)
    store = world.env("node").disk.open_key_value("/store", ["table"], 1 << 20)
    world.disk("node").crash_at_sync(2, after=after)

    async def main() -> None:
        store.write(batch(b"1", b""))
        with pytest.raises(NodeEnded):
            store.write(batch(b"2", b""))

    world.run(main)
    assert not world.is_alive("node")
    reopened = world.env("node").disk.open_key_value("/store", ["table"], 1 << 20)
    assert [k for k, _ in reopened.scan("table")] == ([b"1", b"2"] if after else [b"1"])


@pytest.fixture
def node() -> tuple[Disk, Media]:
    world = World(1)
    disk = world.env("node").disk
    disk.make_directory("/d")
    disk.write_file("/d/file", b"content")
    return disk, world.disk("node")


def test_a_failing_path_answers_with_its_errno(node: tuple[Disk, Media]) -> None:
    disk, media = node
    file = disk.open("/d/file", write=True)
    media.fail("/d", errno.EIO, "sync")
    file.pwrite([b"C"], 0)
    with pytest.raises(OSError, match="/d/file") as caught:
        file.datasync()
    assert caught.value.errno == errno.EIO
    media.fail("/d/", errno.EROFS)
    with pytest.raises(OSError, match="/d/other") as caught:
        disk.open("/d/other", write=True, create=True)
    assert caught.value.errno == errno.EROFS
    media.repair()
    file.datasync()
    assert disk.read_file("/d/file") == b"Content"


def test_after_a_failed_sync_the_next_one_makes_nothing_durable() -> None:
    found = []
    for seed in SEEDS:
        world = World(seed)
        disk, media = world.env("node").disk, world.disk("node")
        disk.write_file("/file", b"o" * 4096)
        file = disk.open("/file", write=True)
        file.pwrite([b"n" * 4096], 0)
        media.fail("/file", errno.EIO, "sync")
        with pytest.raises(OSError, match="Input/output"):
            file.datasync()
        media.repair()
        file.datasync()
        assert disk.read_file("/file") == b"n" * 4096  # from the page cache
        file.forget(0, 4096)
        found.append(disk.read_file("/file"))
        assert lose_power(world).read_file("/file") == found[-1]
    assert sorted(dict.fromkeys(found)) == [b"n" * 4096, b"o" * 4096]


def test_bad_sectors_cannot_be_read_until_they_are_written_over() -> None:
    world = World(1)
    disk, media = world.env("node").disk, world.disk("node")
    disk.write_file("/file", b"x" * 20_000)
    file = disk.open("/file", write=True)
    media.spoil("/file", 9000, 1)
    buffer = memoryview(bytearray(4096))
    assert file.pread_into(buffer, 0) == 4096
    with pytest.raises(OSError, match="/file") as caught:
        file.pread_into(buffer, 8192)
    assert caught.value.errno == errno.EIO
    file.pwrite([b"y" * 4096], 8192)
    assert file.pread_into(buffer, 8192) == 4096
    assert bytes(buffer) == b"y" * 4096


def test_rot_under_the_page_cache_shows_once_the_page_is_forgotten() -> None:
    world = World(1)
    disk, media = world.env("node").disk, world.disk("node")
    disk.write_file("/file", b"x" * 8192)
    file = disk.open("/file", write=True)
    file.pwrite([b"Y"], 4096)  # this page is dirty, and stays
    for offset in (10, 5000):
        media.flip_bit("/file", offset, cached=False)
    buffer = memoryview(bytearray(8192))
    file.pread_into(buffer, 0)
    assert bytes(buffer) == b"x" * 4096 + b"Y" + b"x" * 4095
    file.forget(0, 8192)
    file.pread_into(buffer, 0)
    assert bytes(buffer) == b"x" * 10 + b"y" + b"x" * 4085 + b"Y" + b"x" * 4095


def test_a_full_disk_refuses_and_recovers(node: tuple[Disk, Media]) -> None:
    disk, media = node
    media.capacity_bytes = 100_000
    file = disk.open("/d/big", write=True, create=True)
    file.pwrite([bytes(50_000)], 0)
    with pytest.raises(OSError, match="/d/big") as caught:
        file.pwrite([bytes(60_000)], 50_000)
    assert caught.value.errno == errno.ENOSPC
    file.pwrite([b"overwriting is fine"], 100)
    assert disk.space("/d").free_bytes < 50_000
    disk.unlink("/d/big")
    disk.write_file("/d/other", bytes(60_000))


def test_a_flipped_bit_is_one_bit(node: tuple[Disk, Media]) -> None:
    disk, media = node
    media.flip_bit("/d/file", 2)
    assert disk.read_file("/d/file") == b"co" + bytes([ord("n") ^ 1]) + b"tent"


def test_a_damaged_store_is_refused(node: tuple[Disk, Media]) -> None:
    disk, media = node
    disk.open_key_value("/d/store", ["table"], 1 << 20).close()
    media.damage_store("/d/store")
    with pytest.raises(Failure, match="/d/store") as caught:
        disk.open_key_value("/d/store", ["table"], 1 << 20)
    assert caught.value.code is Code.DISK


def test_a_slow_sync_takes_its_caller_that_long_and_nobody_else() -> None:
    world = World(1)
    env = world.env("node")
    world.disk("node").sync_delay_s = 2.0
    file = env.disk.open("/file", write=True, create=True)

    async def main() -> None:
        start = env.clock.monotonic()
        await env.run_blocking(file.datasync)
        assert 1.9 < env.clock.monotonic() - start < 2.1
        start = env.clock.monotonic()
        file.datasync()  # inline: this node believes that the time has passed
        assert 1.9 < env.clock.monotonic() - start < 2.1

    world.run(main)
