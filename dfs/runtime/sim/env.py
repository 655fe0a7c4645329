"""One incarnation of a simulated node.

A crash marks it dead, once and for all; a restart makes a new one on the same disk. Code of a dead
incarnation that still runs (`finally`, shielded scopes) is a zombie: whatever it asks of its disk,
network or `run_blocking` raises `NodeEnded`, which is no `Exception`, so that no handler takes it
for an error of the disk and nobody logs it.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NoReturn, TypeVar

import outcome
import trio

from dfs.runtime.env import Usage
from dfs.runtime.sim.timeline import NodeClock, Timeline

if TYPE_CHECKING:
    from dfs.runtime.sim.disk import SimDisk
    from dfs.runtime.sim.network import SimNetwork

log = logging.getLogger(__name__)

T = TypeVar("T")

LANE_LIMIT = 8
_BLOCKING_MIN_S = 20e-6
_BLOCKING_MAX_S = 300e-6


class NodeEnded(BaseException):
    """Unwinds the code of a node that has crashed."""


class SimRandom:
    """Seeded by the world's seed and the node's name."""

    def __init__(self, seed: str) -> None:
        self._source = random.Random(seed)

    def random(self) -> float:
        return self._source.random()

    def uniform(self, low: float, high: float) -> float:
        return self._source.uniform(low, high)

    def randrange(self, stop: int) -> int:
        return self._source.randrange(stop)

    def shuffled(self, items: list[T]) -> list[T]:
        copy = list(items)
        self._source.shuffle(copy)
        return copy

    def token(self, length_bytes: int) -> bytes:
        return self._source.randbytes(length_bytes)


class SimEnv:
    """A node's world for the time between a start and a crash."""

    def __init__(
        self,
        name: str,
        clock: NodeClock,
        timeline: Timeline,
        seed: str,
        end: Callable[[SimEnv, str, bool], None],
    ) -> None:
        self.dead = False
        self.scopes: list[trio.CancelScope] = []  # of the node's tasks, cancelled by a crash
        self._name = name
        self._clock = clock
        self._timeline = timeline
        self._end = end
        self._random = SimRandom(seed)
        self._chance = random.Random(f"{seed}/blocking")  # apart from what the node draws
        self._lanes: dict[str, trio.CapacityLimiter] = {}
        self._blocking_cost_s: float | None = None  # of the inline call that runs just now
        self._network: SimNetwork
        self._disk: SimDisk

    def attach(self, network: SimNetwork, disk: SimDisk) -> None:
        """Give it its network and disk, which need it themselves."""
        self._network, self._disk = network, disk

    @property
    def name(self) -> str:
        return self._name

    @property
    def clock(self) -> NodeClock:
        return self._clock

    @property
    def network(self) -> SimNetwork:
        return self._network

    @property
    def disk(self) -> SimDisk:
        return self._disk

    @property
    def random(self) -> SimRandom:
        return self._random

    def check_alive(self) -> None:
        if self.dead:
            raise NodeEnded(self._name)

    def crash(self, reason: str, *, power_loss: bool = True) -> NoReturn:
        """End in the middle of what this node does just now."""
        self._end(self, reason, power_loss)
        raise NodeEnded(self._name)

    def charge(self, seconds: float, at_most_s: float = math.inf) -> None:
        """The call that runs just now takes this long, all in all `at_most_s` because of this."""
        if self._blocking_cost_s is None:
            self._clock.charge(seconds)
        else:
            cost_s = min(self._blocking_cost_s + seconds, at_most_s)
            self._blocking_cost_s = max(self._blocking_cost_s, cost_s)

    async def run_blocking(self, work: Callable[[], T], lane: str = "") -> T:
        """Inline, between a random virtual delay and the time that its syncs take."""
        self.check_alive()
        if lane not in self._lanes:
            self._lanes[lane] = trio.CapacityLimiter(LANE_LIMIT)
        async with self._lanes[lane]:
            with trio.CancelScope(shield=True):
                await self._timeline.sleep(self._chance.uniform(_BLOCKING_MIN_S, _BLOCKING_MAX_S))
                self.check_alive()
                result, cost_s = self._inline(work)
                if cost_s > 0:
                    await self._timeline.sleep(cost_s)
            self.check_alive()
            return result.unwrap()

    def _inline(self, work: Callable[[], T]) -> tuple[outcome.Maybe[T], float]:
        if self._blocking_cost_s is not None:
            raise RuntimeError("blocking work does not nest")
        self._blocking_cost_s = 0.0
        try:
            return outcome.capture(work), self._blocking_cost_s
        finally:
            self._blocking_cost_s = None

    async def run_beside(self, task: Callable[[], Awaitable[None]]) -> None:
        self.check_alive()
        await task()

    def usage(self) -> Usage:
        return Usage()

    def fatal(self, reason: str) -> NoReturn:
        """Like SIGKILL at this point: the page cache survives."""
        log.critical("%s ends at once: %s", self._name, reason)
        self._end(self, f"fatal: {reason}", False)
        raise NodeEnded(self._name)
