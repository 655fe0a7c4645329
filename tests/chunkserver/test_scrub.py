"""The scrub on simulated disks: what it finds, how fast it goes, where it goes on."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable

import pytest
import trio

from chunkserver import scrub_state
from chunkserver.fencing import Fencing
from chunkserver.format import DATA_OFFSET, SLOT_BYTES, SLOTS, TABLE_OFFSET
from chunkserver.scrub import Walk
from chunkserver.store import Store
from dfs.errors import Code, Failure
from dfs.layout import BLOCK_BYTES
from dfs.messages.chunks import ReplicaState
from dfs.messages.cluster import Suspicion
from dfs.messages.scrubbing import ScrubAction
from dfs.runtime.sim import World
from tests.chunkserver.stores import get, put, store_on
from tests.conftest import ExpectedLogs

MIB = 1 << 20
PATH = "/a/replicas/0/{:016x}"


class Scrubbed:
    """A simulated server's store and the walk of its disk `/a`."""

    def __init__(self, world: World, **limits: float) -> None:
        self.world = world
        self.env = world.env("node")
        self.media = world.disk("node")
        quick: dict[str, float] = {"scrub_first_s": 0, "scrub_bytes_per_s": 100 * MIB}
        self.limits = quick | limits
        self.store: Store
        self.walk: Walk

    async def start(self) -> None:
        self.store = store_on(self.env, "/a", number=1, **self.limits)
        await self.store.start()
        self.walk = self.new_walk()
        await self.walk.load()

    def new_walk(self) -> Walk:
        return Walk(self.env, self.store, self.store.directories[0], self.store._limits)

    async def restart(self, *, power_loss: bool = False) -> None:
        self.world.crash("node", power_loss=power_loss)
        self.env = self.world.env("node")
        await self.start()

    async def fill(self, handles: int, size: int = 3 * BLOCK_BYTES + 100) -> None:
        for handle in range(handles):
            await put(self.store, handle, 0, bytes([handle + 1]) * size)
            await self.store.syncing.sync(handle, clean=True)

    async def pass_through(self) -> None:
        """One whole pass."""
        before = self.walk.state.last
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.walk.run)
            with self.env.clock.fail_after(3600):
                while self.walk.state.last is before:
                    await self.env.clock.sleep(0.05)
            nursery.cancel_scope.cancel()

    def due(self) -> list[Suspicion]:
        return self.store.damage.take(1000, self.store.version_of)

    def quarantined(self) -> list[tuple[int, int]]:
        page = self.store.directories[0].quarantine.page("", 100)
        return [(file.handle, file.block) for file in page]


Main = Callable[[Scrubbed], Awaitable[None]]


def simulated(main: Main, seed: int = 1, **limits: float) -> None:
    world = World(seed)
    scrubbed = Scrubbed(world, **limits)

    async def started() -> None:
        await scrubbed.start()
        await main(scrubbed)

    world.run(started)


def test_sound_replicas_pass_and_are_counted() -> None:
    async def main(s: Scrubbed) -> None:
        await s.fill(5)
        await s.pass_through()
        last = s.walk.state.last
        assert last is not None
        assert (last.replicas, last.found) == (5, 0)
        assert last.bytes == 5 * (DATA_OFFSET + 3 * BLOCK_BYTES + 100)
        assert last.ended_ns > last.began_ns
        assert s.due() == []

    simulated(main)


@pytest.mark.parametrize("block", [0, 2, 3])
def test_rot_under_the_page_cache_is_found_and_reported(
    block: int, expected_logs: ExpectedLogs
) -> None:
    expected_logs(f"block {block} is damaged: checksum mismatch")

    async def main(s: Scrubbed) -> None:
        await s.fill(4)
        place = DATA_OFFSET + block * BLOCK_BYTES + 50
        s.media.flip_bit(PATH.format(2), place, cached=False)
        assert await get(s.store, 2, 0, 4 * BLOCK_BYTES) == b"\3" * (3 * BLOCK_BYTES + 100)
        await s.pass_through()
        assert s.store.find(2).damaged == 1 << block
        assert s.due() == [Suspicion(2, 1, damaged=True)]
        assert s.store.disk_reports()[0].damaged_blocks == 1
        assert s.store.reports()[2].damaged
        assert s.walk.status().last.found == 1
        assert s.store.disk_reports()[0].scrubbed_ns == s.walk.status().last.ended_ns
        with pytest.raises(Failure) as caught:
            await get(s.store, 2, block * BLOCK_BYTES, 10)
        assert caught.value.code is Code.CORRUPT
        good = (block + 1) % 3 * BLOCK_BYTES
        assert await get(s.store, 2, good, BLOCK_BYTES) == b"\3" * BLOCK_BYTES

    simulated(main)


def test_rot_in_the_checksums_is_found(expected_logs: ExpectedLogs) -> None:
    expected_logs("checksum of block 1 had rotted")
    expected_logs("block 1 is damaged")

    async def main(s: Scrubbed) -> None:
        await s.fill(3)
        s.media.flip_bit(PATH.format(1), TABLE_OFFSET + 8 + 3)
        await s.pass_through()  # the replica is open: the server knows better
        assert s.due() == []
        await s.store.syncing.sync(1)
        s.media.flip_bit(PATH.format(1), TABLE_OFFSET + 8 + 3)
        await s.store.stop()
        await s.restart()
        await s.pass_through()
        assert s.due() == [Suspicion(1, 1, damaged=True)]

    simulated(main, scrub_interval_s=0.001)


def test_rotten_header_slots_of_an_open_replica_are_written_again(
    expected_logs: ExpectedLogs,
) -> None:
    expected_logs("header slots .* had rotted")

    async def main(s: Scrubbed) -> None:
        await s.fill(2)
        for slot in range(SLOTS):
            s.media.flip_bit(PATH.format(1), slot * SLOT_BYTES + 30)
        await s.pass_through()
        assert s.due() == []
        await s.store.stop()
        await s.restart()
        assert await get(s.store, 1, 0, 10) == b"\2" * 10

    simulated(main)


def test_an_unreadable_replica_is_set_aside_and_reported(expected_logs: ExpectedLogs) -> None:
    expected_logs("no valid header")

    async def main(s: Scrubbed) -> None:
        await s.fill(3)
        await s.store.stop()
        s.store._close(s.store.find(1))
        for slot in range(SLOTS):
            s.media.flip_bit(PATH.format(1), slot * SLOT_BYTES + 30)
        await s.pass_through()
        assert not s.store.has(1)
        assert s.due() == [Suspicion(1, 1, damaged=True)]
        assert s.quarantined() == [(1, -1)]
        assert s.store.directories[0].replicas == 2
        await put(s.store, 1, 0, b"a new one")  # as a copy that the leader has made
        assert s.due() == []

    simulated(main)


def test_an_unreadable_replica_found_at_the_start_is_set_aside_and_reported(
    expected_logs: ExpectedLogs,
) -> None:
    expected_logs("no valid header")

    async def main(s: Scrubbed) -> None:
        await s.fill(3)
        await s.store.stop()
        for slot in range(SLOTS):
            s.media.flip_bit(PATH.format(1), slot * SLOT_BYTES + 30)
        await s.restart()
        assert [report.handle for report in s.store.reports()] == [0, 2]
        assert s.due() == [Suspicion(1, 0, damaged=True)]
        assert s.quarantined() == [(1, -1)]

    simulated(main)


@pytest.mark.parametrize("is_open", [True, False])
def test_a_vanished_file_is_noticed(is_open: bool, expected_logs: ExpectedLogs) -> None:
    expected_logs("has vanished")

    async def main(s: Scrubbed) -> None:
        await s.fill(3)
        if not is_open:
            await s.store.stop()
            s.store._close(s.store.find(1))
        s.media.unlink(PATH.format(1))
        await s.pass_through()
        assert not s.store.has(1)
        assert s.due() == [Suspicion(1, 1, damaged=True)]
        assert s.quarantined() == []

    simulated(main)


def test_a_file_cut_short_is_damaged_where_it_lacks_data(expected_logs: ExpectedLogs) -> None:
    expected_logs("the file ends before it")

    async def main(s: Scrubbed) -> None:
        await s.fill(2)
        s.media.inode(PATH.format(1)).truncate(DATA_OFFSET + BLOCK_BYTES)
        await s.pass_through()
        assert s.store.find(1).damaged == 0b1110
        assert await get(s.store, 1, 0, BLOCK_BYTES) == b"\2" * BLOCK_BYTES
        assert s.due() == [Suspicion(1, 1, damaged=True)]

    simulated(main)


def test_a_bad_sector_damages_a_block_and_many_fail_the_disk(expected_logs: ExpectedLogs) -> None:
    expected_logs("the disk cannot read it")
    expected_logs("goes read-only: .* 4 blocks cannot be read")

    async def main(s: Scrubbed) -> None:
        await s.fill(6)
        for handle in range(3):
            s.media.spoil(PATH.format(handle), DATA_OFFSET + handle * BLOCK_BYTES + 700, 1)
        await s.pass_through()
        directory = s.store.directories[0]
        assert directory.writable
        assert [s.store.find(h).damaged for h in range(4)] == [1, 2, 4, 0]
        assert len(s.due()) == 3
        await put(s.store, 0, 0, b"n" * BLOCK_BYTES)  # written over, the sector is a good one
        assert await get(s.store, 0, 0, 10) == b"n" * 10
        s.media.spoil(PATH.format(4), DATA_OFFSET + 5, 1)
        with pytest.raises(Failure) as caught:
            await get(s.store, 4, 1, 10)
        assert caught.value.code is Code.CORRUPT
        assert not directory.writable
        assert await get(s.store, 5, 0, 10) == b"\6" * 10  # what can be read is served

    simulated(main, read_errors_max=4)


def test_a_header_that_the_disk_cannot_read_is_one_read_error(expected_logs: ExpectedLogs) -> None:
    expected_logs("the disk cannot read its header")

    async def main(s: Scrubbed) -> None:
        await s.fill(2)
        await s.store.stop()
        s.store._close(s.store.find(1))
        s.media.spoil(PATH.format(1), 0, SLOTS * SLOT_BYTES)
        for _ in range(3):
            with pytest.raises(Failure) as caught:
                await get(s.store, 1, 0, 10)
            assert (caught.value.code, caught.value.errno) == (Code.DISK, errno.EIO)
        assert s.store.directories[0].read_errors == 1
        assert s.store.has(1)
        assert s.due() == [Suspicion(1, 1, damaged=True)]
        assert [report.damaged for report in s.store.reports()] == [False, True]
        s.media.repair()  # it can, after all
        assert await get(s.store, 1, 0, 10) == b"\2" * 10
        assert s.due() == []

    simulated(main)


def test_a_copy_takes_the_place_of_a_replica_with_an_unreadable_header(
    expected_logs: ExpectedLogs,
) -> None:
    """No copy could be made on that server, and with three servers there is no other."""
    expected_logs("the disk cannot read its header")

    async def main(s: Scrubbed) -> None:
        await s.fill(2)
        s.store._close(s.store.find(1))
        s.media.spoil(PATH.format(1), 0, SLOTS * SLOT_BYTES)
        await Fencing(s.store, "node:1").fence(1, 2, joining=True)
        assert s.store.version_of(1) == 2
        assert s.store.find(1).state is ReplicaState.JOINING
        assert s.quarantined() == [(1, -1)]
        assert s.store.directories[0].writable

    simulated(main)


def test_a_bad_sector_in_a_block_that_was_being_written_is_no_failed_disk(
    expected_logs: ExpectedLogs,
) -> None:
    """The whole disk went read-only, at every new start again."""
    expected_logs("block 1 is damaged: the disk cannot read it")

    async def main(s: Scrubbed) -> None:
        await s.fill(1)
        await put(s.store, 0, 0, b"new" * BLOCK_BYTES)
        s.media.spoil(PATH.format(0), DATA_OFFSET + BLOCK_BYTES + 700, 1)
        await s.restart()
        assert await get(s.store, 0, 0, 10) == b"newnewnewn"
        with pytest.raises(Failure) as caught:
            await get(s.store, 0, BLOCK_BYTES, 10)
        assert caught.value.code is Code.CORRUPT
        assert s.store.directories[0].writable
        assert s.store.directories[0].read_errors == 1
        assert [suspicion.damaged for suspicion in s.due()] == [True]

    simulated(main)


# -- together with clients


@pytest.mark.parametrize("seed", range(4))
def test_a_block_under_concurrent_writes_is_never_called_damaged(seed: int) -> None:
    async def main(s: Scrubbed) -> None:
        await s.fill(3)
        random = s.env.random
        writing = True

        async def write() -> None:
            while writing:
                handle, offset = random.randrange(3), random.randrange(5 * BLOCK_BYTES)
                size = 1 + random.randrange(2 * BLOCK_BYTES)
                await put(s.store, handle, offset, random.token(1) * size)
                if random.random() < 0.2:
                    await s.store.syncing.sync(handle)
                await s.env.clock.sleep(random.uniform(0, 0.002))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            nursery.start_soon(write)
            for _ in range(8):
                await s.pass_through()
            writing = False
        assert s.due() == []
        assert s.walk.state.last is not None
        assert s.walk.state.last.found == 0

    simulated(main, seed, scrub_interval_s=0.001, scrub_read_bytes=BLOCK_BYTES)


def test_deletions_are_no_damage() -> None:
    async def main(s: Scrubbed) -> None:
        await s.fill(30, BLOCK_BYTES)

        async def delete() -> None:
            for handle in range(0, 30, 2):
                turn = s.store.turns.enter(handle)
                await turn.wait()
                await s.store.delete(handle)
                turn.leave()
                await s.env.clock.sleep(0.001)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(delete)
            await s.pass_through()
        assert s.due() == []
        assert s.walk.state.last is not None
        assert s.walk.state.last.found == 0

    simulated(main)


# -- pace


def test_the_rate_is_bounded() -> None:
    async def main(s: Scrubbed) -> None:
        await s.fill(8, 2 * MIB)
        size = 8 * (2 * MIB + DATA_OFFSET)
        before = s.env.clock.monotonic()
        await s.pass_through()
        took = s.env.clock.monotonic() - before
        assert took >= size / MIB - 1
        assert took <= size / MIB * 1.2

    simulated(main, scrub_bytes_per_s=MIB)


def test_the_scrub_makes_room_for_a_busy_disk() -> None:
    async def main(s: Scrubbed) -> None:
        await s.fill(8, 2 * MIB)
        s.media.sync_delay_s = 1.0
        took = []
        for busy in (False, True):
            async with trio.open_nursery() as nursery:

                async def sync() -> None:
                    while True:
                        await put(s.store, 0, 0, b"data")
                        await s.store.syncing.sync(0)

                if busy:
                    nursery.start_soon(sync)
                before = s.env.clock.monotonic()
                await s.pass_through()
                took.append(s.env.clock.monotonic() - before)
                nursery.cancel_scope.cancel()
        assert took[1] > 3 * took[0]

    simulated(main, scrub_bytes_per_s=MIB, scrub_min_bytes_per_s=MIB // 8, scrub_interval_s=0.001)


def test_the_next_pass_comes_when_its_time_has_come() -> None:
    async def main(s: Scrubbed) -> None:
        await s.fill(2)
        began = []
        for _ in range(3):
            await s.pass_through()
            assert s.walk.state.last is not None
            began.append(s.walk.state.last.began_ns / 1e9)
        assert began[1] - began[0] == pytest.approx(1000, abs=2)
        assert began[2] - began[1] == pytest.approx(1000, abs=2)

    simulated(main, scrub_interval_s=1000)


def test_no_rate_means_no_scrub() -> None:
    async def main(s: Scrubbed) -> None:
        await s.fill(1)
        await s.walk.run()
        assert s.walk.status().state == "off"

    simulated(main, scrub_bytes_per_s=0)


# -- going on, orders


def test_a_pass_goes_on_after_a_crash_where_it_was_saved() -> None:
    async def main(s: Scrubbed) -> None:
        await s.fill(10, MIB)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(s.walk.run)
            while s.walk.state.position < 6:
                await s.env.clock.sleep(0.1)
            nursery.cancel_scope.cancel()
        began = s.walk.state.current
        assert began is not None
        await s.restart(power_loss=True)
        assert 3 <= s.walk.state.position <= 6
        assert s.walk.status().fraction == pytest.approx((s.walk.state.position + 1) / 10)
        await s.pass_through()
        last = s.walk.state.last
        assert last is not None
        assert (last.began_ns, last.replicas) == (began.began_ns, 10)

    simulated(main, scrub_bytes_per_s=MIB, scrub_save_s=1.0)


def test_a_pause_holds_over_restarts_until_it_is_taken_back() -> None:
    async def main(s: Scrubbed) -> None:
        await s.fill(10, MIB)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(s.walk.run)
            await s.env.clock.sleep(4)
            await s.walk.order(ScrubAction.PAUSE)
            await s.env.clock.sleep(3)
            held = s.walk.state.position
            await s.env.clock.sleep(1000)
            assert s.walk.state.position == held
            assert s.walk.status().state == "paused"
            nursery.cancel_scope.cancel()
        await s.restart()
        saved = s.walk.state.position
        assert held - 1 <= saved <= held
        async with trio.open_nursery() as nursery:
            nursery.start_soon(s.walk.run)
            await s.env.clock.sleep(1000)
            assert s.walk.state.position == saved
            await s.walk.order(ScrubAction.RESUME)
            await s.env.clock.sleep(30)
            assert s.walk.state.last is not None
            assert s.walk.state.last.replicas == 10
            nursery.cancel_scope.cancel()

    simulated(main, scrub_bytes_per_s=MIB)


def test_an_operator_can_have_a_pass_begin() -> None:
    async def main(s: Scrubbed) -> None:
        await s.fill(4, MIB)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(s.walk.run)
            await s.env.clock.sleep(60)
            first = s.walk.state.last
            assert first is not None
            await s.walk.order(ScrubAction.START)
            await s.env.clock.sleep(2)
            assert s.walk.status().state == "running"
            assert 0 < s.walk.status().fraction < 1
            await s.walk.order(ScrubAction.START)  # one is under way: that is the one
            await s.env.clock.sleep(60)
            assert s.walk.state.last is not None
            assert s.walk.state.last.began_ns > first.began_ns
            assert s.walk.status().state == "waiting"
            nursery.cancel_scope.cancel()

    simulated(main, scrub_bytes_per_s=MIB)


def test_damage_that_was_known_is_verified_first_after_a_restart(
    expected_logs: ExpectedLogs,
) -> None:
    expected_logs("block 1 is damaged")

    async def main(s: Scrubbed) -> None:
        await s.fill(3)
        s.media.flip_bit(PATH.format(1), DATA_OFFSET + BLOCK_BYTES)
        await s.pass_through()
        await s.restart()
        assert s.store.find(1).damaged == 0
        await s.walk.order(ScrubAction.PAUSE)  # not even a pause keeps it from that
        async with trio.open_nursery() as nursery:
            nursery.start_soon(s.walk.run)
            await s.env.clock.sleep(1)
            nursery.cancel_scope.cancel()
        assert s.store.find(1).damaged == 0b10
        assert s.due() == [Suspicion(1, 1, damaged=True)]

    simulated(main)


def test_an_unusable_state_file_costs_a_pass(expected_logs: ExpectedLogs) -> None:
    expected_logs("the scrub begins anew")

    async def main(s: Scrubbed) -> None:
        await s.fill(3)
        s.env.disk.write_file("/a/scrub.json", b"{}")
        await s.pass_through()
        saved = scrub_state.decode(s.env.disk.read_file("/a/scrub.json"))
        assert saved.last is not None
        assert saved.last.replicas == 3

    simulated(main)


def test_a_failed_disk_is_not_scrubbed_and_the_others_are(expected_logs: ExpectedLogs) -> None:
    expected_logs("goes read-only")

    async def main(s: Scrubbed) -> None:
        await s.fill(1)
        s.media.fail("/a/replicas", errno.EIO, "sync")
        with pytest.raises(Failure):
            await put(s.store, 0, 0, b"data")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(s.walk.run)
            await s.env.clock.sleep(2000)
            assert s.walk.status().state == "failed"
            assert s.walk.state.current is None
            nursery.cancel_scope.cancel()

    simulated(main)
