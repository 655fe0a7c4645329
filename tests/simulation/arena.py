"""Where faults are fought out: whom a strike may hit, together with which others, and the way back.

Faults may overlap, but never so that what the system promises cannot be kept: what takes data away
from a chunkserver (its power, its disk) strikes one server at a time, with every chunk whole
before, and no other chunkserver in trouble until it is whole again (`harming`). All other faults of
chunkservers may come several at a time (`disturbing`); masters bear anything, since they
acknowledge nothing that is not on their disks.

Nodes that died, by a strike or by themselves, are started again after a while (`supervise`).
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from dfs.client import Client, open_client
from dfs.client.session import Session
from dfs.errors import Failure
from dfs.messages.cluster import ClusterStatus, GetClusterStatus
from dfs.messages.metadata import Submit
from dfs.messages.scrubbing import (
    ControlScrub,
    DiskScrub,
    GetScrubStatus,
    ScrubAction,
    ScrubStatus,
)
from dfs.runtime.sim.disk import CAPACITY_BYTES
from tests.simulation.stage import Stage
from tests.simulation.taps import Taps

WHOLE_WAIT_S = 15.0  # for chunks to be whole before data is harmed; else the strike is left out
MENDED_WAIT_S = 90.0
SCRUB_LOOKS, SCRUB_LOOK_S = 20, 1.0
NOTICE_S = 1.0
RESTART_MAX_S = 4.0
LOOK_S = 0.25
SUBMITS_KEPT = 100


class Skipped(Exception):
    """The strike found nobody that it may hit."""


class Arena:
    """The nodes of one run as targets."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.world, self.cluster = stage, stage.world, stage.cluster
        self.clients = tuple(f"client-{n + 1}" for n in range(stage.plan.clients))
        self.unattended: set[str] = set()  # not to be started again for now
        self._operator = trio.Lock()
        self.submitted: deque[Submit] = deque(maxlen=SUBMITS_KEPT)  # the latest of all clients
        self.members_rest_until_s = 0.0  # no change of the masters before
        self._disturbed = 0
        self._harm = trio.Lock()
        self._chance = stage.chance("arena")
        self._dead_since: dict[str, float] = {}

    def attach(self, taps: Taps) -> None:
        """Overhear what the clients submit."""

        def numbered(original: Callable[..., Submit], *arguments: object) -> Submit:
            self.submitted.append(original(*arguments))
            return self.submitted[-1]

        taps.around(Session, "_numbered", numbered)

    # -- who is there

    @property
    def masters(self) -> list[str]:
        return [f"master-{n}" for n in self.cluster.masters]

    @property
    def chunkservers(self) -> list[str]:
        return [f"chunkserver-{n}" for n in self.cluster.chunkservers]

    def nodes(self) -> tuple[str, ...]:
        return (*self.masters, *self.chunkservers, *self.clients)

    def leader(self) -> str:
        return self.cluster.leader() or self.masters[0]

    def follower(self, chance: random.Random) -> str:
        leader = self.leader()
        return chance.choice([name for name in self.masters if name != leader])

    def master(self, chance: random.Random) -> str:
        """The leader half of the time, for its faults matter most."""
        return self.leader() if chance.random() < 0.5 else self.follower(chance)

    def chunkserver(self, chance: random.Random) -> str:
        return chance.choice(self.chunkservers)

    def client(self, chance: random.Random) -> str:
        return chance.choice(self.clients)

    def now_s(self) -> float:
        return self.stage.now_s()

    async def pass_time(self, seconds: float) -> None:
        await self.world.clock.sleep(seconds)

    # -- what may come together

    @asynccontextmanager
    async def disturbing(self) -> AsyncIterator[None]:
        """Around a fault of a chunkserver that takes no data away."""
        async with self._harm:
            self._disturbed += 1
        try:
            yield
        finally:
            self._disturbed -= 1

    @asynccontextmanager
    async def operating(self) -> AsyncIterator[None]:
        """Around what an operator does, who does one thing at a time."""
        if self._operator.locked():
            raise Skipped
        async with self._operator:
            yield

    @asynccontextmanager
    async def harming(self) -> AsyncIterator[None]:
        """Around one that does: alone, and over only when every chunk is whole again."""
        async with self._harm:
            if self.stage.now_s() > self.stage.until_s or not await self._is_calm():
                raise Skipped
            yield
            await self._until_noticed()
            await self.cluster.until_redundant(4 * WHOLE_WAIT_S)

    async def until_verified(self, name: str) -> None:
        """Have a chunkserver read all it has, until none of it is damaged any more."""
        until_s = self.stage.now_s() + MENDED_WAIT_S
        env, config = self.world.env("verifier"), self.cluster.client_config()
        async with open_client(env, config, "verifier") as verifier:
            while not await self._scrub(verifier, name):
                if self.stage.now_s() > until_s:
                    text = f"{name} has damaged replicas after {MENDED_WAIT_S:g} s"
                    self.stage.broken("repair converges", text)

    async def _scrub(self, verifier: Client, name: str) -> bool:
        """A pass over all its disks; whether nothing was damaged and all is whole."""
        try:
            before = await self._ask(verifier, name, ControlScrub(ScrubAction.START))
            for _ in range(SCRUB_LOOKS):
                await self.pass_time(SCRUB_LOOK_S)
                status = await self._ask(verifier, name, GetScrubStatus())
                pairs = zip(before, status, strict=True)
                if all(new.last != old.last or new.state == "failed" for old, new in pairs):
                    break
        except Failure as failure:
            self.world.trace("no scrub", failure.message)
            await self.pass_time(SCRUB_LOOK_S)
            return False
        self.stage.reach["arena.scrubs"] += 1
        if any(disk.state == "failed" for disk in status):
            self.world.crash(name, power_loss=False)  # as operators do, once they have seen to it
            return False
        damaged = sum(disk.damaged_blocks for disk in status)
        return not damaged and await self.cluster.until_redundant(WHOLE_WAIT_S)

    async def _ask(self, verifier: Client, name: str, message: object) -> tuple[DiskScrub, ...]:
        """What a chunkserver says of the scrub of its disks."""
        address = self.cluster.chunkservers[int(name.rpartition("-")[2])]
        answer = await verifier._services.pool.call(address, message, timeout_s=2.0)
        assert isinstance(answer.message, ScrubStatus)
        return answer.message.disks

    async def _until_noticed(self) -> None:
        """All servers live, and the leader has seen who did not: before, all looks whole."""
        while not all(map(self.world.is_alive, self.chunkservers)):
            await self.pass_time(LOOK_S)
        await self.pass_time(NOTICE_S)

    async def _is_calm(self) -> bool:
        until_s = self.stage.now_s() + WHOLE_WAIT_S
        while self._disturbed and self.stage.now_s() < until_s:
            await self.pass_time(LOOK_S)
        return not self._disturbed and await self.cluster.until_redundant(WHOLE_WAIT_S)

    # -- the way back

    async def supervise(self) -> None:
        """Start dead nodes again, each a random while after its death."""
        while True:
            for name in self.nodes():
                self._look_after(name)
            await self.pass_time(LOOK_S)

    def _look_after(self, name: str) -> None:
        if self.world.is_alive(name) or name in self.unattended:
            self._dead_since.pop(name, None)
            return
        now_s = self.stage.now_s()
        due_s = self._dead_since.setdefault(name, now_s + self._chance.uniform(0.1, RESTART_MAX_S))
        if now_s >= due_s:
            self.world.restart(name)

    def calm(self) -> None:
        """End everything that strikes may have left: the world is in order again."""
        self.world.heal()
        self.unattended.clear()
        for name in self.nodes():
            self.world.resume(name)
            self.world.crash_at_step(name, 0)
            self.world.set_rate(name, 1.0)
            media = self.world.disk(name)
            media.repair()
            media.crash_at_sync(0)
            media.crash_at_operation(0)
            media.sync_delay_s = media.read_delay_s = 0.0
            media.capacity_bytes = CAPACITY_BYTES

    async def order(self, message: object, name: str = "operator") -> object:
        """Have an operator say it; None when it could not be carried out in a while."""
        env, config = self.world.env(name), self.cluster.client_config()
        answer: object = None
        with self.world.clock.move_on_after(20.0):
            try:
                async with open_client(env, config, name) as operator:
                    answer = await operator.cluster_call(message)
            except Failure as failure:
                self.world.trace("order failed", failure.message)
        return answer

    async def insist(self, message: object) -> None:
        """Repeat an order until it is answered."""
        while await self.order(message) is None:
            await self.pass_time(1.0)

    async def members(self) -> dict[int, str]:
        """The masters that the leader knows."""
        while True:
            status = await self.order(GetClusterStatus())
            if isinstance(status, ClusterStatus):
                return {master.id: master.address for master in status.masters}
            await self.pass_time(1.0)
