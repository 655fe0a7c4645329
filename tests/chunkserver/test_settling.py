"""Settling: whatever the replicas of a chunk held, afterwards they hold the same and serve it."""

from __future__ import annotations

import errno
import random
from pathlib import Path

import pytest
import trio

from chunkserver.format import DATA_OFFSET
from chunkserver.server import ChunkServer
from dfs.errors import Code, Failure
from dfs.layout import BLOCK_BYTES
from dfs.messages.chunks import ReplicaState
from dfs.messages.cluster import FetchReplica, SettleChunk, Settled
from dfs.runtime import Env
from dfs.runtime.sim import World
from tests.chunkserver.cluster import (
    KEY,
    Cluster,
    Site,
    TestClient,
    chunkserver_config,
    cluster,
    real_site,
    simulated_site,
    start_leader,
)
from tests.conftest import ExpectedLogs

HANDLE = 0x1234
REPLICA = "/data/replicas/1/0000000000001234"


@pytest.fixture(params=["real", "simulated"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    return real_site(tmp_path) if request.param == "real" else simulated_site()


async def registered(made: Cluster, number: int) -> None:
    while number not in made.leader.registered:
        await made.leader.until_heard()


async def settle(
    made: Cluster,
    version: int,
    source: int = 1,
    *,
    chain: tuple[str, ...] | None = None,
    joining: tuple[str, ...] = (),
) -> Settled:
    """Order the source, a server's number, to settle with the others, or with `chain`."""
    own = made.chain[source - 1]
    others = tuple(a for a in made.chain if a != own) if chain is None else chain
    order = SettleChunk(HANDLE, version, others, joining)
    await registered(made, source)
    answer = await made.leader.registered[source].call(order, timeout_s=20)
    settled: Settled = answer.message
    return settled


async def put(made: Cluster, number: int, offset: int, data: bytes, version: int = 1) -> None:
    """Write to one replica alone, as an interrupted chain does."""
    await made.client.write((made.chain[number - 1],), HANDLE, offset, data, version=version)


async def contents(
    made: Cluster, version: int, numbers: tuple[int, ...] = (1, 2, 3)
) -> list[bytes]:
    chain = [made.chain[n - 1] for n in numbers]
    return [await made.client.read(a, HANDLE, 0, 4 << 20, version=version) for a in chain]


async def refusal(made: Cluster, number: int, version: int) -> Code:
    with pytest.raises(Failure) as caught:
        await made.client.read(made.chain[number - 1], HANDLE, 0, 10, version=version)
    return caught.value.code


def test_replicas_that_differ_become_equal_to_the_source_and_serve(site: Site) -> None:
    async def main(site: Site) -> None:
        async with cluster(site) as made:
            base = random.Random(1).randbytes(5 * BLOCK_BYTES + 700)
            await made.client.write(made.chain, HANDLE, 0, base)
            await put(made, 1, 3 * BLOCK_BYTES, b"first")
            await put(made, 2, 100, b"second")
            await put(made, 3, len(base), b"longer" * 30_000)
            result = await settle(made, 2)
            expected = base[: 3 * BLOCK_BYTES] + b"first" + base[3 * BLOCK_BYTES + 5 :]
            assert await contents(made, 2) == [expected] * 3
            assert len(set(await made.digests(HANDLE))) == 1
            assert result.length_bytes == len(expected)
            assert 0 < result.copied_bytes < len(expected)  # only what differed
            assert await refusal(made, 2, 1) is Code.STALE_VERSION
            await made.client.write(made.chain, HANDLE, 9, b"goes on", version=2)
            assert len(set(await made.digests(HANDLE))) == 1

    site.run(main)


@pytest.mark.parametrize("seed", range(12))
def test_any_three_histories_settle(seed: int) -> None:
    chance = random.Random(seed)

    async def main(site: Site) -> None:
        async with cluster(site) as made:
            for number in (1, 2, 3):
                for _ in range(chance.randrange(1, 5)):
                    offset = chance.choice([0, BLOCK_BYTES, chance.randrange(9 * BLOCK_BYTES)])
                    length = chance.choice([1, 5000, BLOCK_BYTES, 3 * BLOCK_BYTES + 77])
                    await put(made, number, offset, chance.randbytes(length))
            source = chance.randrange(1, 4)
            [before] = await contents(made, 1, (source,))
            await settle(made, 2, source)
            assert await contents(made, 2) == [before] * 3
            assert len(set(await made.digests(HANDLE))) == 1

    simulated_site(seed).run(main)


def test_a_server_without_a_replica_joins(site: Site) -> None:
    async def main(site: Site) -> None:
        async with cluster(site) as made:
            data = bytes(2 * BLOCK_BYTES) + b"after a hole" + bytes(BLOCK_BYTES)
            await made.client.write(
                made.chain[:2], HANDLE, 2 * BLOCK_BYTES, data[2 * BLOCK_BYTES :]
            )
            await settle(made, 2, joining=(made.chain[2],))
            assert await contents(made, 2) == [data] * 3

    site.run(main)


def test_an_order_whose_answer_was_lost_is_answered_again(site: Site) -> None:
    async def main(site: Site) -> None:
        async with cluster(site) as made:
            await made.client.write(made.chain, HANDLE, 0, b"data")
            first = await settle(made, 2)
            await made.client.write(made.chain, HANDLE, 0, b"DATA", version=2)
            again = await settle(made, 2)
            assert again.length_bytes == first.length_bytes
            assert await contents(made, 2) == [b"DATA"] * 3

    site.run(main)


def test_an_older_order_is_refused_and_does_no_harm(site: Site) -> None:
    async def main(site: Site) -> None:
        async with cluster(site) as made:
            await made.client.write(made.chain, HANDLE, 0, b"data")
            await settle(made, 5)
            with pytest.raises(Failure) as caught:
                await settle(made, 4, source=2)
            assert caught.value.code is Code.STALE_VERSION
            assert await contents(made, 5) == [b"data"] * 3

    site.run(main)


def test_a_dead_peer_is_named_and_the_rest_settle_without_it(expected_logs: ExpectedLogs) -> None:
    expected_logs("heartbeat")

    async def main(site: Site) -> None:
        assert site.world is not None
        async with cluster(site) as made:
            await made.client.write(made.chain, HANDLE, 0, b"data")
            await put(made, 1, 0, b"DATA")
            site.world.partition("cs3", "*")
            with pytest.raises(Failure) as caught:
                await settle(made, 2)
            assert (caught.value.code, caught.value.detail) == (Code.CHAIN_BROKEN, made.chain[2])
            assert await refusal(made, 1, 2) is Code.STALE_VERSION  # fenced
            await settle(made, 3, chain=made.chain[1:2])
            assert await contents(made, 3, (1, 2)) == [b"DATA"] * 2

    simulated_site().run(main)


# -- damage


def _flip(site: Site, name: str, block: int) -> None:
    assert site.world is not None
    site.world.disk(name).flip_bit(REPLICA, DATA_OFFSET + block * BLOCK_BYTES + 9)


async def _find_damage(made: Cluster, number: int, block: int) -> None:
    """Have the server notice it, by a read of a piece of the block."""
    with pytest.raises(Failure) as caught:
        await made.client.read(made.chain[number - 1], HANDLE, block * BLOCK_BYTES + 1, 100)
    assert caught.value.code is Code.CORRUPT


@pytest.mark.parametrize("number", [1, 2])
def test_a_damaged_block_is_replaced_from_a_good_copy(
    number: int, expected_logs: ExpectedLogs
) -> None:
    """On the source, and on another replica."""
    expected_logs("block 1 is damaged|set aside")

    async def main(site: Site) -> None:
        async with cluster(site) as made:
            data = random.Random(2).randbytes(3 * BLOCK_BYTES)
            await made.client.write(made.chain, HANDLE, 0, data)
            _flip(site, f"cs{number}", 1)
            await _find_damage(made, number, 1)
            await settle(made, 2)
            assert await contents(made, 2) == [data] * 3

    simulated_site().run(main)


def test_damage_of_the_source_found_while_sending_is_cured_by_the_next_attempt(
    expected_logs: ExpectedLogs,
) -> None:
    expected_logs("block 1 is damaged|set aside")

    async def main(site: Site) -> None:
        async with cluster(site) as made:
            data = random.Random(2).randbytes(3 * BLOCK_BYTES)
            await made.client.write(made.chain[:2], HANDLE, 0, data)
            _flip(site, "cs1", 1)
            with pytest.raises(Failure) as caught:
                await settle(made, 2, joining=(made.chain[2],))
            assert caught.value.code is Code.CORRUPT
            await settle(made, 3, joining=(made.chain[2],))
            assert await contents(made, 3) == [data] * 3

    simulated_site().run(main)


def test_a_block_that_nobody_has_whole_is_refused_everywhere_and_the_rest_is_served(
    expected_logs: ExpectedLogs,
) -> None:
    expected_logs("block 1 is damaged|set aside")

    async def main(site: Site) -> None:
        async with cluster(site) as made:
            data = random.Random(2).randbytes(3 * BLOCK_BYTES)
            await made.client.write(made.chain[:2], HANDLE, 0, data)
            for number in (1, 2):
                _flip(site, f"cs{number}", 1)
                await _find_damage(made, number, 1)
            result = await settle(made, 2, joining=(made.chain[2],))
            assert int.from_bytes(result.damaged, "big") == 0b10
            for address in made.chain:
                with pytest.raises(Failure) as caught:
                    await made.client.read(address, HANDLE, BLOCK_BYTES, 10, version=2)
                assert caught.value.code is Code.CORRUPT
                for block in (0, 2):
                    found = await made.client.read(
                        address, HANDLE, block * BLOCK_BYTES, BLOCK_BYTES, version=2
                    )
                    assert found == data[block * BLOCK_BYTES :][:BLOCK_BYTES]

    simulated_site().run(main)


# -- who tells the leader


async def until_suspected(made: Cluster, version: int, address: str) -> None:
    while not any(
        (s.version, s.address, s.damaged) == (version, address, False)
        for _, s in made.leader.suspicions
    ):
        await made.leader.until_heard()


def test_a_link_that_applied_what_the_next_one_did_not_tells_the_leader(
    expected_logs: ExpectedLogs,
) -> None:
    """The client that wrote may be dead."""
    expected_logs("heartbeat|chain broken")

    async def main(site: Site) -> None:
        assert site.world is not None
        async with cluster(site) as made:
            await made.client.write(made.chain, HANDLE, 0, b"data")
            site.world.partition("cs3", "cs2")
            with pytest.raises(Failure) as caught:
                await made.client.write(made.chain, HANDLE, 0, b"DATA")
            assert caught.value.code is Code.CHAIN_BROKEN
            await until_suspected(made, 1, made.chain[2])
            assert {s.handle for _, s in made.leader.suspicions} == {HANDLE}
            site.world.heal()
            await settle(made, 2)
            assert await contents(made, 2) == [b"DATA"] * 3
            count = len(made.leader.suspicions)
            await made.leader.until_heartbeats(100)
            assert len(made.leader.suspicions) == count  # the version has moved on

    simulated_site().run(main)


def test_a_replica_that_could_not_take_a_change_does_not_serve_until_it_is_settled(
    expected_logs: ExpectedLogs,
) -> None:
    expected_logs("No space|space left|settled after")

    async def main(site: Site) -> None:
        assert site.world is not None
        async with cluster(site) as made:
            data = random.Random(1).randbytes(3 * BLOCK_BYTES)
            await made.client.write(made.chain, HANDLE, 0, data)
            media = site.world.disk("cs2")
            media.fail(REPLICA, errno.ENOSPC, "write")
            with pytest.raises(Failure) as caught:
                await made.client.write(made.chain, HANDLE, 0, b"n" * 2 * BLOCK_BYTES)
            assert caught.value.errno == errno.ENOSPC
            media.repair()
            await until_suspected(made, 1, made.chain[1])
            assert await refusal(made, 2, 1) is Code.STALE_VERSION
            await settle(made, 2, source=3)
            [first, *others] = await contents(made, 2)
            assert others == [first] * 2

    simulated_site().run(main)


# -- copies


async def fetch(made: Cluster, number: int, sources: tuple[str, ...], rate: int = 0) -> None:
    order = FetchReplica(HANDLE, 1, sources, rate)
    await registered(made, number)
    await made.leader.registered[number].call(order, timeout_s=60)


def test_a_copy_made_while_others_write_is_brought_up_to_date_and_joins(site: Site) -> None:
    async def main(site: Site) -> None:
        async with cluster(site) as made:
            pair = made.chain[:2]
            data = random.Random(3).randbytes(40 * BLOCK_BYTES)
            await made.client.write(pair, HANDLE, 0, data)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fetch, made, 3, pair)
                for i in range(20):
                    await made.client.write(pair, HANDLE, i * 2 * BLOCK_BYTES, b"%4d" % i)
            assert (await made.client.inspect(made.chain[2], HANDLE)).state == ReplicaState.JOINING
            assert await refusal(made, 3, 1) is Code.STALE_VERSION
            await settle(made, 2, joining=(made.chain[2],))
            [first, *others] = await contents(made, 2)
            assert others == [first] * 2
            assert first[: 2 * BLOCK_BYTES] == b"   0" + data[4 : 2 * BLOCK_BYTES]

    site.run(main)


def test_an_old_replica_is_caught_up_by_what_differs() -> None:
    async def main(site: Site) -> None:
        async with cluster(site) as made:
            data = random.Random(4).randbytes(40 * BLOCK_BYTES)
            await made.client.write(made.chain, HANDLE, 0, data)
            pair = made.chain[:2]
            await settle(made, 2, chain=pair[1:])
            await made.client.write(pair, HANDLE, 0, b"newer", version=2)
            result = await settle(made, 3, joining=(made.chain[2],))
            assert result.copied_bytes == BLOCK_BYTES
            assert await contents(made, 3) == [b"newer" + data[5:]] * 3

    simulated_site().run(main)


def test_a_copy_is_paced() -> None:
    async def main(site: Site) -> None:
        async with cluster(site, settle_packet_bytes=4 * BLOCK_BYTES) as made:
            await made.client.write(made.chain[:1], HANDLE, 0, bytes([1]) * 20 * BLOCK_BYTES)
            began = trio.current_time()
            await fetch(made, 3, made.chain[:1], rate=BLOCK_BYTES)
            assert 20 <= trio.current_time() - began < 25

    simulated_site().run(main)


def test_a_copy_goes_on_from_the_next_source_with_what_it_has(expected_logs: ExpectedLogs) -> None:
    expected_logs("copy not made|heartbeat")

    async def main(site: Site) -> None:
        assert site.world is not None
        async with cluster(site) as made:
            data = random.Random(5).randbytes(10 * BLOCK_BYTES)
            await made.client.write(made.chain[:2], HANDLE, 0, data)
            site.world.partition("cs1", "*")
            await fetch(made, 3, made.chain[:2])
            await settle(made, 2, 2, chain=made.chain[2:], joining=made.chain[2:])
            assert await contents(made, 2, (2, 3)) == [data] * 2

    simulated_site().run(main)


def test_a_replica_that_counts_is_never_made_one_that_does_not(
    expected_logs: ExpectedLogs,
) -> None:
    expected_logs("copy not made")

    async def main(site: Site) -> None:
        async with cluster(site) as made:
            await made.client.write(made.chain, HANDLE, 0, b"data")
            with pytest.raises(Failure) as caught:
                await fetch(made, 3, made.chain[:1])
            assert caught.value.code is Code.STALE_VERSION
            assert await contents(made, 1) == [b"data"] * 3

    simulated_site().run(main)


# -- restarts


class Lonely:
    """One chunkserver as a node of the world, which can be killed and started again."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.config = chunkserver_config(1, "cs1:1", ("/data",), "master:1")
        self.stop = trio.Event()

    async def begin(self, nursery: trio.Nursery) -> None:
        self.leader = await start_leader(nursery, self.world.env("master"), "master:1")
        self.client = TestClient(self.world.env("client"), nursery)
        await self.world.start("cs1", self._run)
        await self.leader.until_heartbeats(1)

    async def _run(
        self, env: Env, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED
    ) -> None:
        self.stop = trio.Event()
        await ChunkServer(env, self.config, KEY).run(self.stop, task_status=task_status)

    async def start_again(self) -> dict[int, int]:
        """The states that it reports then, by chunk."""
        self.leader.reports.clear()
        self.world.restart("cs1")
        await self.leader.until_heartbeats(2)
        return {r.handle: r.state for page in self.leader.reports for r in page.replicas}


@pytest.mark.parametrize(
    ("power_loss", "state"), [(False, ReplicaState.UNSETTLED), (True, ReplicaState.LOST)]
)
def test_after_a_crash_a_replica_says_so_and_serves_nobody_before_it_is_settled(
    power_loss: bool, state: ReplicaState, expected_logs: ExpectedLogs
) -> None:
    expected_logs("heartbeat")

    async def main(site: Site) -> None:
        assert site.world is not None
        lonely = Lonely(site.world)
        async with trio.open_nursery() as nursery:
            await lonely.begin(nursery)
            await lonely.client.write(("cs1:1",), HANDLE, 0, b"data", sync=True)
            site.world.crash("cs1", power_loss=power_loss)
            assert await lonely.start_again() == {HANDLE: state}
            with pytest.raises(Failure) as caught:
                await lonely.client.read("cs1:1", HANDLE, 0, 4)
            assert caught.value.code is Code.STALE_VERSION
            order = SettleChunk(HANDLE, 2, ())
            await lonely.leader.registered[1].call(order, timeout_s=5)
            assert await lonely.client.read("cs1:1", HANDLE, 0, 4, version=2) == b"data"
            nursery.cancel_scope.cancel()

    simulated_site().run(main)


def test_after_an_orderly_stop_a_replica_serves_at_once(expected_logs: ExpectedLogs) -> None:
    expected_logs("heartbeat")

    async def main(site: Site) -> None:
        assert site.world is not None
        lonely = Lonely(site.world)
        async with trio.open_nursery() as nursery:
            await lonely.begin(nursery)
            await lonely.client.write(("cs1:1",), HANDLE, 0, b"data")
            lonely.stop.set()
            await site.world.clock.sleep(1)
            site.world.crash("cs1", power_loss=False)
            assert await lonely.start_again() == {HANDLE: ReplicaState.SETTLED}
            assert await lonely.client.read("cs1:1", HANDLE, 0, 4) == b"data"
            nursery.cancel_scope.cancel()

    simulated_site().run(main)
