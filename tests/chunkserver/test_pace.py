"""The scrub's pace: bounded, less when the disk is busy, never nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chunkserver.pace import Pace, allowed_rate, pause_s
from dfs.config import ChunkserverLimits

LIMITS = replace(ChunkserverLimits(), scrub_bytes_per_s=1000, scrub_min_bytes_per_s=100)


@pytest.mark.parametrize(
    ("busy_share", "rate"), [(0.0, 1000), (0.5, 500), (0.95, 100), (1.0, 100), (7.0, 100)]
)
def test_the_rate_falls_with_the_disks_other_work(busy_share: float, rate: float) -> None:
    assert allowed_rate(LIMITS, busy_share) == pytest.approx(rate)


def test_the_least_rate_is_never_above_the_full_one() -> None:
    slow = replace(LIMITS, scrub_bytes_per_s=10)
    assert allowed_rate(slow, 0.0) == allowed_rate(slow, 1.0) == 10


@given(st.integers(0, 1 << 20), st.floats(0, 100))
def test_a_reading_and_its_pause_keep_the_rate_and_half_of_the_time(size: int, took: float) -> None:
    whole = took + pause_s(size, took, 1000.0)
    assert size <= whole * 1000.0 * 1.000001
    assert took <= whole / 2 * 1.000001


def test_a_busy_disk_slows_the_scrub_and_a_quiet_one_lets_it_go() -> None:
    pace = Pace(LIMITS, now=0.0, busy_s=0.0)
    now, busy = 0.0, 0.0
    for _ in range(100):  # the disk is busy all the time
        step = 0.1
        now, busy = now + step, busy + step
        pause = pace.after(100, 0.0, now, busy)
    assert pause == pytest.approx(1.0)
    assert pace.bytes_per_s == pytest.approx(1000, rel=0.1)
    for _ in range(100):
        now += 0.1
        pause = pace.after(100, 0.0, now, busy)
    assert pause == pytest.approx(0.1)
