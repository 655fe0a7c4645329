"""Counters and histograms as plain numbers, for code that runs thousands of times a second.

Whoever does the work owns the instrument and counts by plain additions, in its own event loop or
thread; a collector reads it when metrics are asked for. Knows nothing of Prometheus.
"""

from __future__ import annotations

from bisect import bisect_left

# From an RPC on one machine to the longest that anybody waits (C6: 3 s). Every histogram has these,
# so that figures of different processes can be added up.
BOUNDS_S = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    1.0,
    2.5,
    5.0,
)


class Timings:
    """A histogram of durations."""

    __slots__ = ("buckets", "sum_s")

    def __init__(self) -> None:
        self.buckets = [0] * (len(BOUNDS_S) + 1)  # the last: longer than all bounds
        self.sum_s = 0.0

    def observe(self, seconds: float) -> None:
        """Count one."""
        self.buckets[bisect_left(BOUNDS_S, seconds)] += 1
        self.sum_s += seconds

    @property
    def count(self) -> int:
        return sum(self.buckets)


class TimingsByName(dict[str, Timings]):
    """Histograms that begin when first asked for; the names must be few."""

    def __missing__(self, name: str) -> Timings:
        made = self[name] = Timings()
        return made


class CountsByName(dict[str, int]):
    """Counters that begin at 0 when first added to (`counts[name] += 1`); the names must be few."""

    def __missing__(self, name: str) -> int:
        return 0
