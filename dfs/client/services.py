"""What the files of one client share: connections, session, budgets, and their nursery."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Protocol

import trio

from dfs.client.budget import ByteBudget
from dfs.client.grid import Grid
from dfs.client.leader import Leader
from dfs.client.meter import ClientMeter
from dfs.client.patience import Patience
from dfs.client.read_cache import ReadCache
from dfs.client.servers import Servers
from dfs.client.session import Session
from dfs.config import ClientLimits, Rpc
from dfs.rpc import Pool
from dfs.rpc.retry import Backoff
from dfs.runtime import Env


class Flushable(Protocol):
    """A file with data to be written; told apart by identity."""

    @property
    def is_clean(self) -> bool: ...

    async def flush(self) -> None: ...


class Aging:
    """Flushes written data that nobody has flushed after `delay_s`. One task for all files."""

    def __init__(self, env: Env, delay_s: float) -> None:
        self._env, self._delay_s = env, delay_s
        self._due: OrderedDict[Flushable, float] = OrderedDict()  # in the order of their times
        self._added = trio.Event()

    def add(self, file: Flushable) -> None:
        """The file has been written to; keeps the earliest time."""
        if file not in self._due:
            self._due[file] = self._env.clock.monotonic() + self._delay_s
            self._added.set()

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                if not self._due:
                    self._added = trio.Event()
                    await self._added.wait()
                file, due_at = next(iter(self._due.items()))
                await self._env.clock.sleep(max(0.0, due_at - self._env.clock.monotonic()))
                del self._due[file]
                nursery.start_soon(self._flush, file)

    async def _flush(self, file: Flushable) -> None:
        await file.flush()
        if not file.is_clean:
            self.add(file)


class Ticks:
    """Puts questions to the master and the answers to our commits in an order of their own."""

    def __init__(self) -> None:
        self._last = 0
        self.asking = 0  # questions not answered yet

    def next(self) -> int:
        self._last += 1
        return self._last


@dataclass(slots=True)
class Services:
    """One per client; every part outlives every file."""

    env: Env
    limits: ClientLimits
    rpc: Rpc
    pool: Pool
    leader: Leader
    session: Session
    servers: Servers
    patience: Patience
    dirty_budget: ByteBudget
    cache: ReadCache
    grid: Grid
    aging: Aging
    ticks: Ticks
    meter: ClientMeter
    nursery: trio.Nursery

    def backoff(self) -> Backoff:
        """The waits of a new series of attempts."""
        return Backoff(self.env, self.rpc)

    def give_up_at(self) -> float:
        """When attempts that begin now are to end, on the monotonic clock."""
        return self.env.clock.monotonic() + self.limits.retry_for_s
