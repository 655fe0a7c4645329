"""Random faults on a virtual clock: nothing acknowledged is lost or doubled, no read is stale.

Each seed takes a random subset of the faults and random limits, so that rare combinations are
reached (a batch of a few commands, a log of a few entries). The monitors of `cluster` watch all
the while; `DFS_SEEDS` runs more seeds.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections import Counter

import pytest
import trio

from dfs.config import Raft
from dfs.errors import Failure
from master.raft import RaftNode
from tests.conftest import ExpectedLogs
from tests.master.raft.cluster import Broken, Cluster, address_of, name_of
from tests.master.raft.ledger import Add

SEEDS = range(int(os.environ.get("DFS_SEEDS", "16")))
FAULTY_S = 12.0
FAULTS = (
    "crash",
    "crash_at_sync",
    "partition",
    "one_way",
    "reset",
    "slow_disk",
    "transfer",
    "members",
)


class Storm:
    """Clients and faults on one cluster."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(f"storm {seed}")
        self.count = 5 if seed % 4 == 3 else 3
        self.cluster = Cluster(seed, self.count, self._limits())
        self.world = self.cluster.world
        self.faults = [f for f in FAULTS if self.chance.random() < 0.6] or ["crash"]
        self.acknowledged: Counter[bytes] = Counter()  # the newest value of each counter
        self.done: dict[int, int] = {}  # client -> numbers acknowledged
        self.over = False

    def _limits(self) -> Raft:
        chance = self.chance
        compact = chance.choice([40, 400, 20_000])
        return Raft(
            inline_flush_below_s=0.0,
            compact_entries=compact,
            keep_entries=compact // chance.choice([2, 8]),
            max_commands_per_batch=chance.choice([1, 3, 1024]),
            batch_bytes=chance.choice([2 << 10, 4 << 20]),
            max_command_bytes=1 << 10,
            window_bytes=chance.choice([3 << 10, 16 << 20]),
            overlay_bytes=chance.choice([4 << 10, 32 << 20]),
            apply_flush_s=chance.choice([0.0, 0.25, 5.0]),
            max_batches_in_flight=chance.choice([1, 2, 8]),
        )

    async def client(self, id: int) -> None:
        number, counter = 0, b"c%d" % (id % 2)
        while not self.over:
            number += 1
            value = await self._acknowledged(Add(id, number, counter, 1))
            self.acknowledged[counter] = max(self.acknowledged[counter], value)
            self.done[id] = number
            self._check_reads()
            await self.world.clock.sleep(self.chance.choice([0.0, 0.02, 0.2]))

    async def _acknowledged(self, add: Add) -> int:
        while True:
            ids = self.cluster.alive()
            self.chance.shuffle(ids)
            for id in ids:
                value = await self.cluster.try_add(id, add)
                if value is not None:
                    return value
            await self.world.clock.sleep(0.01)

    def _check_reads(self) -> None:
        """No node that may answer reads lacks anything acknowledged."""
        for id in self.cluster.serving():
            for counter, value in self.acknowledged.items():
                if self.cluster.ledgers[id].value(counter) < value:
                    raise Broken(f"master {id} would answer a stale read of {counter!r}")

    async def watch(self) -> None:
        while not self.over:
            if len(self.cluster.serving()) > 1:
                raise Broken(f"leases of {self.cluster.serving()} at a time")
            self._check_reads()
            await self.world.clock.sleep(0.013)

    async def faulty(self) -> None:
        ends = self.world.clock.monotonic() + FAULTY_S
        while self.world.clock.monotonic() < ends:
            await self.world.clock.sleep(self.chance.uniform(0.05, 1.5))
            await getattr(self, f"_{self.chance.choice(self.faults)}")()
            await self._revive()

    async def _revive(self) -> None:
        for id in self.cluster.ids:
            if not self.world.is_alive(name_of(id)) and self.chance.random() < 0.6:
                await self.cluster.restart(id)
        if self.chance.random() < 0.4:
            self.world.heal(reset=self.chance.random() < 0.5)

    def _some(self) -> str:
        return name_of(self.chance.choice(self.cluster.ids))

    async def _crash(self) -> None:
        victims = self.chance.choice([1, 1, 1, 2, len(self.cluster.ids)])
        for _ in range(victims):
            self.world.crash(self._some(), power_loss=self.chance.random() < 0.7)

    async def _crash_at_sync(self) -> None:
        disk = self.world.disk(self._some())
        disk.crash_at_sync(self.chance.randrange(1, 6), after=self.chance.random() < 0.5)

    async def _partition(self) -> None:
        self.world.isolate(self._some())

    async def _one_way(self) -> None:
        a, b = self._some(), self._some()
        if a != b:
            self.world.partition(a, b, one_way=True)

    async def _reset(self) -> None:
        a, b = self._some(), self._some()
        if a != b:
            self.world.reset_links(a, b)

    async def _slow_disk(self) -> None:
        self.world.disk(self._some()).sync_delay_s = self.chance.choice([0.0, 0.02, 0.3])

    async def _transfer(self) -> None:
        for id in self.cluster.serving():
            with contextlib.suppress(Failure):  # nobody there to take over, or a fault meanwhile
                await self.cluster.nodes[id].transfer(0)

    async def _members(self) -> None:
        """Add one, or take one out; it may come to nothing, or be done by half."""
        for id in self.cluster.serving():
            leader = self.cluster.nodes[id]
            with contextlib.suppress(Failure), self.world.clock.move_on_after(3.0):
                if len(leader.members()) > self.count:
                    victim = self.chance.choice(sorted(leader.members()))
                    await leader.remove_master(victim)
                else:
                    await self._add_master(leader)

    async def _add_master(self, leader: RaftNode) -> None:
        id = max(self.cluster.ids) + 1
        self.cluster.ids.append(id)
        await self.cluster.start(id)
        await leader.add_master(id, address_of(id))

    async def calm(self) -> None:
        self.world.heal()
        for id in self.cluster.ids:
            disk = self.world.disk(name_of(id))
            disk.crash_at_sync(0)
            disk.sync_delay_s = 0.0
            if not self.world.is_alive(name_of(id)):
                await self.cluster.restart(id)

    async def run(self) -> None:
        await self.cluster.start()
        with trio.CancelScope() as watching:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.watch)
                for id in range(4):
                    nursery.start_soon(self.client, id)
                await self.faulty()
                await self.calm()
                await self.cluster.leader()
                await self.world.clock.sleep(2.0)
                self.over = True
            watching.cancel()
        leader = await self.cluster.leader()
        members = sorted(leader.members())
        await self.cluster.settled(*members)
        self.check(members)

    def check(self, members: list[int]) -> None:
        cluster = self.cluster
        assert len({cluster.digest(id) for id in members}) == 1
        ledger, store = cluster.ledgers[members[0]], cluster.stores[members[0]]
        for counter, value in self.acknowledged.items():
            assert ledger.value(counter) >= value, f"{counter!r}: lost"
        for client, numbers in self.done.items():
            for number in range(1, numbers + 1):
                made = store.get("settings", b"%d/%d" % (client, number))
                assert made == b"1", f"addition {number} of client {client} made {made!r} times"


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_acknowledged_is_lost_or_doubled(seed: int, expected_logs: ExpectedLogs) -> None:
    expected_logs("no snapshot")  # the source dies in the middle: the next attempt succeeds
    expected_logs("has gone silent")
    expected_logs("handshake")
    storm = Storm(seed)
    storm.cluster.run(storm.run, limit_s=400.0)
    assert sum(storm.done.values()) > 20
