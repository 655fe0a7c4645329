"""From damage found, by whomever, to the leader that is told of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from chunkserver.damage import LOST_REPORTS, Damage
from dfs.errors import Code, Failure
from dfs.layout import BLOCK_BYTES
from dfs.messages.chunks import CheckBlocks
from dfs.messages.cluster import Suspicion
from dfs.messages.scrubbing import (
    ClearQuarantine,
    ControlScrub,
    GetScrubStatus,
    ListQuarantine,
    QuarantineCleared,
    QuarantinePage,
    ScrubAction,
    ScrubStatus,
)
from dfs.runtime.sim import World
from tests.chunkserver.cluster import Cluster, Site, cluster, real_site, simulated_site
from tests.conftest import ExpectedLogs

DATA_OFFSET = 65536


@pytest.fixture(params=["real", "simulated"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    return real_site(tmp_path) if request.param == "real" else simulated_site()


def damage_on_disk(made: Cluster, name: str, handle: int, offset: int) -> None:
    """Flip a bit of a replica's data, whatever the world."""
    directory = made.servers[name].store.directories[0]
    file = directory._env.disk.open(directory.replica_path(handle), write=True)
    byte = bytearray(1)
    file.pread_into(memoryview(byte), DATA_OFFSET + offset)
    byte[0] ^= 1
    file.pwrite([byte], DATA_OFFSET + offset)
    file.datasync()
    file.close()


async def until_told(made: Cluster, count: int = 1) -> list[tuple[int, Suspicion]]:
    while len(made.leader.suspicions) < count:
        await made.leader.until_heard()
    return made.leader.suspicions


def test_a_readers_complaint_is_looked_into_and_the_leader_told(
    site: Site, expected_logs: ExpectedLogs
) -> None:
    expected_logs("block 1 is damaged")

    async def main(site: Site) -> None:
        async with cluster(site, ("cs1", "cs2")) as made:
            data = b"d" * (3 * BLOCK_BYTES)
            await made.client.write(made.chain, 5, 0, data, sync=True)
            damage_on_disk(made, "cs2", 5, BLOCK_BYTES + 9)
            with pytest.raises(Failure) as caught:  # whole blocks are the reader's to verify
                await made.client.read(made.chain[1], 5, 0, len(data))
            assert caught.value.code is Code.CORRUPT
            for address in made.chain:  # also of a server that is well
                connection = await made.client.pool.get(address)
                connection.notify(CheckBlocks(5, 1, 0, len(data)))
            assert await until_told(made) == [(2, Suspicion(5, 1, damaged=True))]
            assert made.servers["cs2"].store.find(5).damaged == 0b10
            assert made.servers["cs1"].store.damage.known() == {}
            told = 0
            while not told:  # by the heartbeat after the next measuring of the disks
                (beat,) = await made.leader.until_heartbeats(1)
                told = beat.disks[0].damaged_blocks
            assert told == 1

    site.run(main)


def test_a_write_that_meets_damage_has_it_reported(site: Site, expected_logs: ExpectedLogs) -> None:
    expected_logs("block 0 is damaged")
    expected_logs("block 0")

    async def main(site: Site) -> None:
        async with cluster(site, ("cs1",)) as made:
            await made.client.write(made.chain, 5, 0, b"d" * BLOCK_BYTES, sync=True)
            damage_on_disk(made, "cs1", 5, 100)
            with pytest.raises(Failure) as caught:
                await made.client.write(made.chain, 5, 7, b"new", create=False)
            assert caught.value.code is Code.CORRUPT
            assert await until_told(made) == [(1, Suspicion(5, 1, damaged=True))]

    site.run(main)


def test_complaints_are_bounded_and_checked() -> None:
    site = simulated_site()

    async def main(site: Site) -> None:
        async with cluster(site, ("cs1",), max_checks=3) as made:
            for handle in range(10):
                await made.client.write(made.chain, handle, 0, b"d" * 100)
            connection = await made.client.pool.get(made.chain[0])
            for handle in range(10):
                connection.notify(CheckBlocks(handle, 1, 0, 100))
                connection.notify(CheckBlocks(handle, 2, 0, 100))
                connection.notify(CheckBlocks(handle, 1, -1, 100))
                connection.notify(CheckBlocks(handle, 1, 0, 1 << 40))
            assert await made.client.read(made.chain[0], 3, 0, 100) == b"d" * 100
            assert made.leader.suspicions == []

    site.run(main)


def test_reports_are_repeated_and_told_to_a_new_leader(expected_logs: ExpectedLogs) -> None:
    expected_logs("block 0 is damaged")
    site = simulated_site()

    async def main(site: Site) -> None:
        assert site.world is not None
        async with cluster(site, ("cs1",), suspicion_repeat_s=5) as made:
            await made.client.write(made.chain, 5, 0, b"d" * 100, sync=True)
            damage_on_disk(made, "cs1", 5, 1)
            connection = await made.client.pool.get(made.chain[0])
            connection.notify(CheckBlocks(5, 1, 0, 100))
            await until_told(made)
            await site.world.clock.sleep(3)
            assert len(made.leader.suspicions) == 1
            await site.world.clock.sleep(3)
            assert len(made.leader.suspicions) == 2
            made.leader.registered[1].close()
            await until_told(made, 3)
            await made.client.write(made.chain, 5, 0, b"n" * 100)  # mended
            await site.world.clock.sleep(20)
            assert len(made.leader.suspicions) == 3

    site.run(main)


def test_operators_are_answered(site: Site, expected_logs: ExpectedLogs) -> None:
    expected_logs("set aside as")
    expected_logs("cleared by an operator")

    async def main(site: Site) -> None:
        async with cluster(site, ("cs1",)) as made:
            await made.client.write(made.chain, 5, 0, b"d" * 100, sync=True)

            async def ask(message: object) -> object:
                answer = await made.client.pool.call(made.chain[0], message, timeout_s=5)
                return answer.message

            status = await ask(ControlScrub(ScrubAction.PAUSE))
            assert isinstance(status, ScrubStatus)
            assert [disk.state for disk in status.disks] == ["paused"]
            disk = status.disks[0].path
            directory = made.servers["cs1"].store.directories[0]
            for block in range(3):
                directory.quarantine_block(5, block, b"bad")
            page = await ask(ListQuarantine(disk, "", 2))
            assert isinstance(page, QuarantinePage)
            assert ([file.block for file in page.files], page.complete) == ([0, 1], False)
            page = await ask(ListQuarantine(disk, page.files[-1].name, 2))
            assert isinstance(page, QuarantinePage)
            assert ([file.block for file in page.files], page.complete) == ([2], True)
            status = await ask(GetScrubStatus())
            assert isinstance(status, ScrubStatus)
            assert status.disks[0].quarantined_blocks == 3
            for wrong in (ListQuarantine("/elsewhere", "", 1), ClearQuarantine("/elsewhere")):
                with pytest.raises(Failure, match="has no disk"):
                    await ask(wrong)
            with pytest.raises(Failure, match="no scrub action"):
                await ask(ControlScrub(17))
            assert await ask(ClearQuarantine("")) == QuarantineCleared(3, 9)
            await ask(ControlScrub(ScrubAction.START))
            while True:
                status = await ask(GetScrubStatus())
                assert isinstance(status, ScrubStatus)
                if status.disks[0].last.ended_ns:
                    break
                await made.leader.until_heard()
            assert status.disks[0].last.replicas == 1

    site.run(main)


# -- what is due


def test_a_version_that_moved_on_ends_the_report_and_known_damage_does_not_come_again() -> None:
    world = World(1)
    damage, versions = Damage(world.env("node"), 10), {7: 1}

    async def main() -> None:
        damage.saw(7, 1, 0b1)
        assert damage.take(10, versions.get) == [Suspicion(7, 1, damaged=True)]
        versions[7] = 2  # the leader had the chunk settled
        assert damage.take(10, versions.get) == []
        damage.saw(7, 2, 0b1)  # nobody had this block whole
        assert damage.take(10, versions.get) == []
        damage.saw(7, 2, 0b11)  # but this is new
        assert damage.take(10, versions.get) == [Suspicion(7, 2, damaged=True)]
        damage.saw(7, 2, 0)
        assert damage.take(10, versions.get) == []
        assert damage.known() == {}

    world.run(main)


def test_a_lost_replica_is_reported_a_few_times_or_until_there_is_one_again() -> None:
    world = World(1)
    env = world.env("node")
    damage, versions = Damage(env, 10), dict[int, int]()

    async def main() -> None:
        damage.lost(7, 3)
        damage.lost(8, 0)
        for _ in range(LOST_REPORTS):
            due = damage.take(10, versions.get)
            assert due == [Suspicion(7, 3, damaged=True), Suspicion(8, 0, damaged=True)]
            damage.told(due, 30)
            assert damage.take(10, versions.get) == []
            await env.clock.sleep(40)
        assert damage.take(10, versions.get) == []
        damage.lost(7, 3)
        versions[7] = 4
        assert damage.take(10, versions.get) == []

    world.run(main)


def test_reports_are_batched_and_bounded(expected_logs: ExpectedLogs) -> None:
    expected_logs("is not reported for now")
    world = World(1)
    damage = Damage(world.env("node"), 10)

    async def main() -> None:
        for handle in range(12):
            damage.saw(handle, 1, 1)
        first = damage.take(4, lambda _: 1)
        damage.told(first, 30)
        second = damage.take(100, lambda _: 1)
        assert [s.handle for s in first + second] == list(range(10))
        assert first[0] == replace(first[0], damaged=True)

    world.run(main)
