"""In which thread a disk is waited for, and for how long it has made no progress.

A write into the page cache takes some hundred microseconds and a hand-over to a thread costs as
much again (`scripts/bench/chain.py` has the figures), so work runs in the event loop as long as
the disk is fast. Once a piece took longer than `inline_below_s`, and while any work is in a
thread, this disk is waited for in threads, until it was fast for `slow_memory_s`: one slow piece
can hold up other disks once, not time and again. Syncs, and whatever else is expected to wait,
always go to a thread. Heartbeats have an event loop of their own and are never held up.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from dfs.runtime import Env

log = logging.getLogger(__name__)

T = TypeVar("T")


class Lane:
    """The way to one disk."""

    def __init__(self, env: Env, path: str, inline_below_s: float, slow_memory_s: float) -> None:
        self._env, self._path = env, path
        self._inline_below_s, self._slow_memory_s = inline_below_s, slow_memory_s
        self._threads_until = -1.0
        self._active = 0
        self._in_threads = 0
        # Since when the disk owes progress; read by the heartbeats' thread.
        self.busy_since: float | None = None
        self._busy_s, self._busy_from = 0.0, 0.0  # in all, and since it last was not

    @property
    def is_fast(self) -> bool:
        """Whether short work may run in the event loop just now."""
        return (
            not self._in_threads
            and self._inline_below_s > 0
            and self._env.clock.monotonic() >= self._threads_until
        )

    async def run(self, work: Callable[[], T], *, waits: bool = False) -> T:
        """Run work that touches this disk; `waits` when it is likely to wait for it."""
        if not waits and self.is_fast:
            return self.run_inline(work)
        started = self._begin()
        self._in_threads += not waits
        try:
            return await self._env.run_blocking(work, self._path)
        finally:
            self._in_threads -= not waits
            self._end(started, judged=not waits)

    def run_inline(self, work: Callable[[], T]) -> T:
        """Run work in the event loop; the caller has asked `is_fast`."""
        started = self._begin()
        try:
            return work()
        finally:
            self._end(started, judged=True)

    @property
    def busy_s(self) -> float:
        """For how long in all there was work on this disk."""
        running_s = self._env.clock.monotonic() - self._busy_from if self._active else 0.0
        return self._busy_s + running_s

    def _begin(self) -> float:
        now = self._env.clock.monotonic()
        if not self._active:
            self._busy_from = now
        self._active += 1
        if self.busy_since is None:
            self.busy_since = now
        return now

    def _end(self, started: float, *, judged: bool) -> None:
        now = self._env.clock.monotonic()
        self._active -= 1
        if not self._active:
            self._busy_s += now - self._busy_from
        self.busy_since = now if self._active else None
        if judged and now - started > self._inline_below_s:
            if now > self._threads_until:
                took_ms = (now - started) * 1000
                log.info("%s: disk %s took %.0f ms", self._env.name, self._path, took_ms)
            self._threads_until = now + self._slow_memory_s
