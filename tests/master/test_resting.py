"""How long repair leaves a chunk alone."""

from __future__ import annotations

from dfs.config import MasterLimits
from master.repair_queue import Resting

LIMITS = MasterLimits()


def test_a_failing_chunk_rests_for_longer_and_longer() -> None:
    resting = Resting(LIMITS)
    resting.failed(1, 0.0)
    assert resting.rests(1, 0.9 * LIMITS.repair_retry_s)
    assert not resting.rests(1, 1.1 * LIMITS.repair_retry_s)
    resting.failed(1, 10.0)
    assert resting.rests(1, 10.0 + 1.9 * LIMITS.repair_retry_s)


def test_all_rests_end_when_somebody_is_back_and_go_on_doubling_in_vain() -> None:
    resting = Resting(LIMITS)
    for _ in range(3):
        resting.failed(1, 0.0)
    resting.pause(2, 100.0)
    resting.end(1.0)
    assert not resting.rests(1, 1.0)
    assert not resting.rests(2, 1.0)
    resting.failed(1, 1.0)
    assert resting.rests(1, 1.0 + 7 * LIMITS.repair_retry_s)
