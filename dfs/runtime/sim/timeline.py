"""Virtual time: one timeline for the world, a clock of its own for every node.

trio's MockClock jumps to the next deadline whenever every task waits. Here it also runs a heap of
callbacks (message deliveries, wake-ups), which costs a fifth of a task or cancel scope per event.
A node's clock has an offset and a rate: nodes disagree about the time, as machines do.
"""

from __future__ import annotations

import contextlib
import heapq
import math
from collections.abc import Callable, Iterator

import trio
from trio._core._run import GLOBAL_RUN_CONTEXT
from trio.testing import MockClock

# A clock read advances at least this much, or a loop that waits for time to pass would hang.
_READ_STEP_S = 1e-9
READINGS_MAX = 1_000_000  # at one time of the world: nobody is that busy, it never ends
_WALL_BASE_NS = 1_750_000_000_000_000_000


class Standstill(Exception):
    """A loop runs on and on without letting time pass."""


class Timer:
    """One scheduled callback; `cancel` forgets it."""

    __slots__ = ("callback", "due_s")

    def __init__(self, due_s: float, callback: Callable[[], None] | None) -> None:
        self.due_s = due_s
        self.callback = callback

    def cancel(self) -> None:
        self.callback = None


class Timeline:
    """The world's time in seconds, from 0 on."""

    def __init__(self, on_stuck: Callable[[float], None]) -> None:
        """`on_stuck` is told of a next event that lies past `limit_s`, or never (infinity)."""
        self.now_s = 0.0
        self.limit_s = math.inf
        self.clock = MockClock(autojump_threshold=0)
        # MockClock is final: its instance gets our jump, and a cheaper reading of its own base.
        setattr(self.clock, "_autojump", self._jump)  # noqa: B010  mypy refuses the assignment
        setattr(self.clock, "current_time", lambda: self.now_s)  # noqa: B010
        self._heap: list[tuple[float, int, Timer]] = []
        self._sequence = 0
        self._on_stuck = on_stuck

    def call_at(self, due_s: float, callback: Callable[[], None]) -> Timer:
        """Run the callback at that time, after those scheduled for it earlier."""
        timer = Timer(max(due_s, self.now_s), callback)
        self._sequence += 1
        heapq.heappush(self._heap, (timer.due_s, self._sequence, timer))
        return timer

    def call_in(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        return self.call_at(self.now_s + delay_s, callback)

    async def sleep(self, delay_s: float) -> None:
        """Wait in world time. A delay of 0 or less is a checkpoint."""
        if delay_s <= 0:
            await trio.lowlevel.checkpoint()
            return
        park = Park()
        timer = self.call_in(delay_s, park.wake)
        try:
            await park.wait()
        finally:
            timer.cancel()

    def _jump(self) -> None:
        """Every task waits: go to the next event and let it happen. Called by trio."""
        while self._heap and self._heap[0][2].callback is None:
            heapq.heappop(self._heap)
        deadline_s = GLOBAL_RUN_CONTEXT.runner.deadlines.next_deadline()
        due_s = min(deadline_s, self._heap[0][0] if self._heap else math.inf)
        if due_s == math.inf or due_s > self.limit_s:
            self._on_stuck(due_s)
            return
        self.now_s = max(self.now_s, due_s)
        while self._heap and self._heap[0][0] <= self.now_s:
            callback = heapq.heappop(self._heap)[2].callback
            if callback is not None:
                callback()


class Park:
    """Where one task waits for one wake-up."""

    __slots__ = ("_task",)

    def __init__(self) -> None:
        self._task: trio.lowlevel.Task | None = None

    async def wait(self) -> None:
        if self._task is not None:
            raise trio.BusyResourceError("another task waits here already")
        self._task = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            self._task = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def wake(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            trio.lowlevel.reschedule(task)


class NodeClock:
    """Time as one node sees it: `offset_s + world time * rate`."""

    def __init__(self, timeline: Timeline, offset_s: float = 0.0, rate: float = 1.0) -> None:
        self._timeline = timeline
        self._offset_s = offset_s
        self._rate = rate
        self._last_s = -math.inf
        self._read_at_s = -math.inf
        self._readings = 0
        self.wall_ahead_ns = 0

    def set_rate(self, rate: float) -> None:
        """Run faster or slower from now on. What sleeps already wakes when it was due."""
        self._offset_s += self._timeline.now_s * (self._rate - rate)
        self._rate = rate

    def monotonic(self) -> float:
        now_s = self._timeline.now_s
        self._readings = self._readings + 1 if now_s == self._read_at_s else 0
        self._read_at_s = now_s
        if self._readings > READINGS_MAX:
            raise Standstill(f"its clock was read {self._readings} times at {now_s:.3f} s")
        true_s = self._offset_s + now_s * self._rate
        self._last_s = max(true_s, self._last_s + _READ_STEP_S)
        return self._last_s

    def boottime(self) -> float:
        return self.monotonic()

    def wall_ns(self) -> int:
        passed_ns = round(self._timeline.now_s * self._rate * 1e9)
        return _WALL_BASE_NS + passed_ns + self.wall_ahead_ns

    def charge(self, seconds: float) -> None:
        """An inline call took this long: readings run ahead until world time has caught up."""
        self._last_s = self.monotonic() + seconds

    async def sleep(self, seconds: float) -> None:
        if seconds == math.inf:
            await trio.sleep_forever()
        await self._timeline.sleep(seconds / self._rate)

    def move_on_after(self, seconds: float) -> trio.CancelScope:
        return trio.CancelScope(deadline=self._timeline.now_s + max(0.0, seconds) / self._rate)

    @contextlib.contextmanager
    def fail_after(self, seconds: float) -> Iterator[trio.CancelScope]:
        with self.move_on_after(seconds) as scope:
            yield scope
        if scope.cancelled_caught:
            raise trio.TooSlowError

    async def wait(self, event: trio.Event, seconds: float) -> bool:
        with self.move_on_after(seconds):
            await event.wait()
        return event.is_set()
