"""How long repair leaves a chunk alone, and as what one waits."""

from __future__ import annotations

from typing import cast

from dfs.config import MasterLimits
from master.repair_plan import RepairClass
from master.repair_queue import Departures, RepairQueue, Resting
from master.tables import Tables

LIMITS = MasterLimits()
URGENT, USUAL, LATER = (
    RepairClass.ENDANGERED,
    RepairClass.UNDER_REPLICATED,
    RepairClass.DRAINING,
)
NO_TABLES = cast(Tables, None)  # only the walk reads them


def test_a_failing_chunk_rests_for_longer_and_longer() -> None:
    resting = Resting(LIMITS)
    resting.failed(1, USUAL, 0.0)
    assert resting.rests(1, USUAL, 0.9 * LIMITS.repair_retry_s)
    assert not resting.rests(1, USUAL, 1.1 * LIMITS.repair_retry_s)
    resting.failed(1, USUAL, 10.0)
    assert resting.rests(1, USUAL, 10.0 + 1.9 * LIMITS.repair_retry_s)


def test_an_endangered_one_rests_for_a_shorter_time() -> None:
    resting = Resting(LIMITS)
    resting.failed(1, URGENT, 0.0, avoid=7)
    assert resting.rests(1, URGENT, 0.9 * LIMITS.repair_interval_s)
    assert not resting.rests(1, URGENT, 1.1 * LIMITS.repair_interval_s)
    assert resting.avoided(1) == (7,)


def test_one_that_has_become_endangered_does_not_rest_any_more() -> None:
    resting = Resting(LIMITS)
    resting.failed(1, LATER, 0.0)
    assert resting.rests(1, LATER, 1.0)
    assert not resting.rests(1, URGENT, 1.0)


def test_all_rests_end_when_somebody_is_back_and_go_on_doubling_in_vain() -> None:
    resting = Resting(LIMITS)
    for _ in range(3):
        resting.failed(1, USUAL, 0.0)
    resting.pause(2, USUAL, 0.0, 100.0)
    resting.end(1.0)
    assert not resting.rests(1, USUAL, 1.0)
    assert not resting.rests(2, USUAL, 1.0)
    resting.failed(1, USUAL, 1.0)
    assert resting.rests(1, USUAL, 1.0 + 7 * LIMITS.repair_retry_s)


def test_a_rest_until_settled_ends_with_a_change_and_other_rests_do_not() -> None:
    resting = Resting(LIMITS)
    resting.until_settled(1, USUAL, 0.0, 10.0)
    resting.until_settled(2, USUAL, 0.0, 10.0)
    resting.pause(2, USUAL, 0.0, 10.0)
    for handle in (1, 2, 3):
        resting.changed(handle, 1.0)
    assert [resting.rests(handle, USUAL, 1.0) for handle in (1, 2, 3)] == [False, True, False]


def test_a_chunk_waits_as_the_most_urgent_that_was_seen_of_it() -> None:
    queue = RepairQueue(NO_TABLES, limit=8)
    assert queue.add(USUAL, 1)
    assert queue.add(USUAL, 2)
    assert not queue.add(LATER, 1)
    assert queue.add(URGENT, 1)
    assert (queue.pop(URGENT), queue.pop(USUAL), queue.pop(USUAL)) == (1, 2, None)
    assert not queue
    assert queue.add(USUAL, 1)


def test_a_departure_is_known_for_a_while() -> None:
    leaving = Departures(LIMITS)
    assert leaving.note(1, (3,), 0.0, hurried=True)
    assert leaving.note(2, (3, 4), 0.0, hurried=False)
    until = LIMITS.repair_retry_max_s
    assert (leaving.of(1, until - 1), leaving.of(1, until)) == ((3,), ())
    assert [leaving.is_hurried(handle, 1.0) for handle in (1, 2, 3)] == [True, False, False]
    assert leaving.chunks() == [1, 2]
    leaving.forget(1)
    assert leaving.chunks() == [2]
