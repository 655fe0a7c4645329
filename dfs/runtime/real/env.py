"""`RealEnv`: the process itself as a node's world."""

from __future__ import annotations

import logging
import os
import random
import secrets
import threading
from collections.abc import Awaitable, Callable
from typing import NoReturn, TypeVar

import outcome
import trio

from dfs.runtime.env import Usage
from dfs.runtime.real.clock import RealClock
from dfs.runtime.real.disk import RealDisk
from dfs.runtime.real.network import RealNetwork
from dfs.runtime.real.usage import usage_of_this_process

log = logging.getLogger(__name__)

T = TypeVar("T")

LANE_LIMIT = 8
FATAL_EXIT_CODE = 70  # EX_SOFTWARE


class RealRandom:
    """Seeded by the operating system; `token` comes from it directly."""

    def __init__(self) -> None:
        self._source = random.Random(secrets.randbits(128))

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
        return secrets.token_bytes(length_bytes)


class RealEnv:
    """One node of one process. Made before or within the event loop, usable by several loops."""

    def __init__(
        self, name: str, *, sync_delay_s: float = 0.0, lane_limit: int = LANE_LIMIT
    ) -> None:
        self._name = name
        self._clock = RealClock()
        self._network = RealNetwork()
        self._disk = RealDisk(sync_delay_s)
        self._random = RealRandom()
        self._lane_limit = lane_limit
        # Limiters belong to one event loop, and `run_beside` makes further loops.
        self._lanes: trio.lowlevel.RunVar[dict[str, trio.CapacityLimiter]]
        self._lanes = trio.lowlevel.RunVar(f"lanes of {name}")

    @property
    def name(self) -> str:
        return self._name

    @property
    def clock(self) -> RealClock:
        return self._clock

    @property
    def network(self) -> RealNetwork:
        return self._network

    @property
    def disk(self) -> RealDisk:
        return self._disk

    @property
    def random(self) -> RealRandom:
        return self._random

    async def run_blocking(self, work: Callable[[], T], lane: str = "") -> T:
        """In a worker thread; at most `lane_limit` at a time per lane and event loop."""
        return await trio.to_thread.run_sync(work, limiter=self._limiter(lane))

    def _limiter(self, lane: str) -> trio.CapacityLimiter:
        lanes = self._lanes.get({})
        self._lanes.set(lanes)
        if lane not in lanes:
            lanes[lane] = trio.CapacityLimiter(self._lane_limit)
        return lanes[lane]

    async def run_beside(self, task: Callable[[], Awaitable[None]]) -> None:
        """In a thread with an event loop of its own."""
        await _Beside(task).run()

    def usage(self) -> Usage:
        return usage_of_this_process()

    def fatal(self, reason: str) -> NoReturn:
        log.critical("%s ends at once: %s", self._name, reason)
        logging.shutdown()
        os._exit(FATAL_EXIT_CODE)


class _Beside:
    """One event loop in a thread, and the way to cancel it from the loop that waits for it."""

    def __init__(self, task: Callable[[], Awaitable[None]]) -> None:
        self._task = task
        self._guard = threading.Lock()
        self._cancelled = False
        self._scope: trio.CancelScope | None = None
        self._token: trio.lowlevel.TrioToken | None = None

    async def run(self) -> None:
        result: outcome.Maybe[None] | None = None
        # A limiter of its own: a loop that lives as long as the process takes no lane's place.
        limiter = trio.CapacityLimiter(1)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pass_on_cancellation)
                result = await trio.to_thread.run_sync(self._thread, limiter=limiter)
                nursery.cancel_scope.cancel()
        finally:
            if result is not None:
                result.unwrap()  # its error, even when the caller was cancelled meanwhile

    def _thread(self) -> outcome.Maybe[None]:
        return outcome.capture(trio.run, self._main)

    async def _main(self) -> None:
        with trio.CancelScope() as scope:
            with self._guard:
                self._scope, self._token = scope, trio.lowlevel.current_trio_token()
                if self._cancelled:
                    scope.cancel()
            await self._task()

    async def _pass_on_cancellation(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with self._guard:
                self._cancelled = True
                if self._token is not None and self._scope is not None:
                    _call_soon(self._token, self._scope.cancel)


def _call_soon(token: trio.lowlevel.TrioToken, call: Callable[[], None]) -> None:
    try:
        token.run_sync_soon(call)
    except trio.RunFinishedError:
        log.debug("the event loop beside has ended by itself")
