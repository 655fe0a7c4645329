"""Faults drawn from a seed: which kinds a run has at all (swarm), and when each strikes.

At most one fault of the masters and one of the chunkservers is there at a time, so the system must
come through without an error. A fault of the chunkservers strikes another one than the last only
once every chunk has all its replicas again: until then it would be a second one at a time.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable

from dfs.errors import Failure
from dfs.messages.cluster import CreateSnapshot, TransferLeadership
from tests.simulation.cluster import SimCluster

log = logging.getLogger(__name__)

Strike = Callable[[], Awaitable[None]]
SLOW_SYNC_S = 0.02
VICTIM_WAIT_S = 15.0  # for chunks to be whole; else the same server is struck again


class Faults:
    """The faults of one run, against a cluster with these clients."""

    def __init__(self, cluster: SimCluster, seed: int, clients: list[str]) -> None:
        self.cluster, self.world, self.clients = cluster, cluster.world, clients
        self._random = random.Random(f"{seed}/faults")
        self.struck: dict[str, int] = {}  # how often each kind has
        self.victims = 0  # how often one was chosen
        self.overlapped = False  # whether there was one of each at a time
        self._active = 0
        of_masters: list[Strike] = [
            self._kill_leader,
            self._kill_follower,
            self._isolate_leader,
            self._isolate_follower,
            self._cut_masters_one_way,
            self._cut_client_from_master,
            self._reset_master,
            self._slow_masters,
            self._transfer,
            self._snapshot,
            self._kill_all,
        ]
        of_chunkservers: list[Strike] = [
            self._kill_chunkserver,
            self._isolate_chunkserver,
            self._cut_chunkserver_from_master,
            self._cut_client_from_chunkserver,
            self._cut_chain,
            self._reset_chunkserver,
            self._slow_chunkserver,
        ]
        self._of_masters = self._some(of_masters)
        self._of_chunkservers = self._some(of_chunkservers)
        self.victim = f"chunkserver-{self._random.choice(list(cluster.chunkservers))}"

    def _some(self, strikes: list[Strike]) -> list[Strike]:
        return self._random.sample(strikes, self._random.randint(1, 3))

    @property
    def kinds(self) -> list[str]:
        """The kinds of this run."""
        return [s.__name__.lstrip("_") for s in self._of_masters + self._of_chunkservers]

    async def harass_masters(self, until_s: float) -> None:
        await self._harass(self._of_masters, until_s)

    async def harass_chunkservers(self, until_s: float) -> None:
        await self._harass(self._of_chunkservers, until_s, self._choose_victim)

    async def _choose_victim(self) -> None:
        if await self.cluster.until_redundant(VICTIM_WAIT_S):
            servers = [f"chunkserver-{n}" for n in self.cluster.chunkservers]
            self.victims += 1
            self.victim = self._random.choice(servers)

    async def _harass(
        self, strikes: list[Strike], until_s: float, prepare: Strike | None = None
    ) -> None:
        clock = self.world.clock
        while True:
            await clock.sleep(self._random.uniform(0.5, 5.0))
            if clock.monotonic() > until_s:
                return
            if prepare is not None:
                await prepare()
            strike = self._random.choice(strikes)
            name = strike.__name__.lstrip("_")
            self.struck[name] = self.struck.get(name, 0) + 1
            self.world.trace("fault", name)
            log.debug("%.3f s: %s strikes (victim %s)", clock.monotonic(), name, self.victim)
            self._active += 1
            self.overlapped = self.overlapped or self._active > 1
            await strike()
            self._active -= 1
            log.debug("%.3f s: %s is over", clock.monotonic(), name)

    async def _last(self, longest_s: float = 6.0) -> None:
        await self.world.clock.sleep(self._random.uniform(0.05, longest_s))

    # -- masters

    def _leader(self) -> str:
        return self.cluster.leader() or "master-1"

    def _follower(self) -> str:
        leader = self._leader()
        names = [f"master-{n}" for n in self.cluster.masters]
        return self._random.choice([name for name in names if name != leader])

    async def _kill(self, name: str, *, power_loss: bool) -> None:
        self.world.crash(name, power_loss=power_loss)
        await self._last()
        self.world.restart(name)
        await self.world.clock.sleep(2.0)

    async def _kill_leader(self) -> None:
        await self._kill(self._leader(), power_loss=self._random.random() < 0.5)

    async def _kill_follower(self) -> None:
        await self._kill(self._follower(), power_loss=self._random.random() < 0.5)

    async def _isolate(self, name: str) -> None:
        self.world.partition(name, "*")
        await self._last(8.0)
        self._heal(name, "*")
        await self.world.clock.sleep(2.0)

    async def _isolate_leader(self) -> None:
        await self._isolate(self._leader())

    async def _isolate_follower(self) -> None:
        await self._isolate(self._follower())

    async def _cut(self, a: str, b: str, *, one_way: bool) -> None:
        self.world.partition(a, b, one_way=one_way)
        await self._last()
        self._heal(a, b)
        await self.world.clock.sleep(1.0)

    def _heal(self, a: str, b: str) -> None:
        """Let what was held back arrive, or end those streams."""
        if b != "*" and self._random.random() < 0.5:
            self.world.reset_links(a, b)
        self.world.heal_between(a, b)

    async def _cut_masters_one_way(self) -> None:
        pair = [self._leader(), self._follower()]
        self._random.shuffle(pair)
        await self._cut(pair[0], pair[1], one_way=True)

    async def _cut_client_from_master(self) -> None:
        pair = [self._random.choice(self.clients), self._leader()]
        self._random.shuffle(pair)
        await self._cut(pair[0], pair[1], one_way=self._random.random() < 0.5)

    async def _reset_master(self) -> None:
        names = [*self.clients, *(f"chunkserver-{n}" for n in self.cluster.chunkservers)]
        self.world.reset_links(self._leader(), self._random.choice(names))

    async def _slow_masters(self) -> None:
        for n in self.cluster.masters:
            self.world.disk(f"master-{n}").sync_delay_s = SLOW_SYNC_S
        await self._last()
        for n in self.cluster.masters:
            self.world.disk(f"master-{n}").sync_delay_s = 0.0

    async def _transfer(self) -> None:
        await self._operate(TransferLeadership(0))

    async def _snapshot(self) -> None:
        await self._operate(CreateSnapshot())

    async def _operate(self, order: object) -> None:
        """Have an operator's client say it; orders may fail, they are not the workload's."""
        try:
            async with self.cluster.client("operator") as operator:
                await operator.cluster_call(order)
        except Failure as failure:
            self.world.trace("order failed", failure.message)

    async def _kill_all(self) -> None:
        """All processes at once; but for the clients, which try again."""
        masters = [f"master-{n}" for n in self.cluster.masters]
        servers = [f"chunkserver-{n}" for n in self.cluster.chunkservers]
        power_loss = self._random.random() < 0.5
        for name in masters:
            self.world.crash(name, power_loss=power_loss)
        for name in servers:
            self.world.crash(name, power_loss=False)
        await self._last(3.0)
        for name in masters + servers:
            self.world.restart(name)
        await self.world.clock.sleep(3.0)

    # -- chunkservers

    async def _kill_chunkserver(self) -> None:
        await self._kill(self.victim, power_loss=self._random.random() < 0.5)

    async def _isolate_chunkserver(self) -> None:
        await self._isolate(self.victim)

    async def _cut_chunkserver_from_master(self) -> None:
        await self._cut(self.victim, self._leader(), one_way=self._random.random() < 0.5)

    async def _cut_client_from_chunkserver(self) -> None:
        pair = [self._random.choice(self.clients), self.victim]
        self._random.shuffle(pair)
        await self._cut(pair[0], pair[1], one_way=self._random.random() < 0.5)

    async def _cut_chain(self) -> None:
        others = [f"chunkserver-{n}" for n in self.cluster.chunkservers]
        others.remove(self.victim)
        pair = [self._random.choice(others), self.victim]
        self._random.shuffle(pair)
        await self._cut(pair[0], pair[1], one_way=self._random.random() < 0.5)

    async def _reset_chunkserver(self) -> None:
        self.world.reset_links(self.victim, self._random.choice([*self.clients, self._leader()]))

    async def _slow_chunkserver(self) -> None:
        self.world.disk(self.victim).sync_delay_s = 10 * SLOW_SYNC_S
        await self._last()
        self.world.disk(self.victim).sync_delay_s = 0.0
