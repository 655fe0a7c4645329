"""The machine's clocks and trio's timers."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager

import trio


class RealClock:
    """Time as the kernel tells it. Negative durations count as none."""

    # Asked several times in each RPC: straight into C, without a frame of Python around it.
    monotonic = staticmethod(time.monotonic)

    def boottime(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def wall_ns(self) -> int:
        return time.time_ns()

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(max(0.0, seconds))

    def move_on_after(self, seconds: float) -> AbstractContextManager[trio.CancelScope]:
        return trio.move_on_after(max(0.0, seconds))

    def fail_after(self, seconds: float) -> AbstractContextManager[trio.CancelScope]:
        return trio.fail_after(max(0.0, seconds))

    async def wait(self, event: trio.Event, seconds: float) -> bool:
        with trio.move_on_after(max(0.0, seconds)):
            await event.wait()
        return event.is_set()
