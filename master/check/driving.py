"""Running a check beside a master's other work: in slices, off the event loop, with rests between.

A check is a generator that goes over records of a private copy of the state. Each slice of it runs
in a worker thread and is so short that the event loop, which shares the processor with it, is not
held up; after each, it rests so that it takes no more than its share of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from dfs.config import MasterLimits
from dfs.runtime import Env
from master.check.findings import Event, Found

LANE = "check"
_FINDINGS_PER_SLICE = 64


@dataclass(slots=True)
class Slice:
    """What one slice brought."""

    found: list[Found]
    records: int
    ended: bool


def next_slice(events: Iterator[Event], records: int) -> Slice:
    """Go on with a check for that many records, or until it has found enough for now."""
    done = Slice([], 0, ended=False)
    while done.records < records and len(done.found) < _FINDINGS_PER_SLICE:
        event = next(events, None)
        if event is None:
            done.ended = True
            break
        if isinstance(event, Found):
            done.found.append(event)
        else:
            done.records += event
    return done


class Driver:
    """Runs checks of one master."""

    def __init__(self, env: Env, limits: MasterLimits) -> None:
        self._env, self._limits = env, limits

    async def run(self, events: Iterator[Event], take: Callable[[Slice], object]) -> None:
        """Run it to its end; `take` gets each slice, in the event loop."""
        while True:
            done = await self.step(events)
            take(done)
            if done.ended:
                return

    async def step(self, events: Iterator[Event]) -> Slice:
        """One slice, and the rest after it."""
        started = self._env.clock.monotonic()
        work = partial(next_slice, events, self._limits.check_slice)
        done = await self._env.run_blocking(work, LANE)
        took_s = self._env.clock.monotonic() - started
        share = min(self._limits.check_share, 1.0)
        await self._env.clock.sleep(took_s * (1 - share) / share)
        return done
