"""How long repair leaves a chunk alone."""

from __future__ import annotations

from math import inf

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


def test_a_rest_until_settled_ends_then_and_other_rests_do_not() -> None:
    resting = Resting(LIMITS)
    resting.until_settled(1, 10.0)
    resting.until_settled(2, 10.0)
    resting.hurry(2)
    resting.pause(3, 10.0)
    assert all(resting.rests(handle, 0.0) for handle in (1, 2, 3))
    assert [resting.settled(handle, 1.0) for handle in (1, 2, 3)] == [False, True, False]
    assert [resting.rests(handle, 1.0) for handle in (1, 2, 3)] == [False, False, True]
    assert resting.next_recall() == inf


def test_who_is_in_a_hurry_is_recalled_once_as_soon_as_it_has_rested() -> None:
    resting = Resting(LIMITS)
    assert resting.next_recall() == inf
    resting.pause(1, 2.0)
    resting.pause(2, 1.0)
    resting.pause(3, 0.5)
    resting.hurry(1)
    resting.hurry(2)
    assert resting.next_recall() == 1.0
    assert resting.recall(0.9) == []
    assert resting.recall(1.0) == [2]
    assert resting.recall(1.0) == []
    assert resting.next_recall() == 2.0
