"""Seeds in every test run: a fixed set, one that changes with the date, those that found bugs.

The set of the date is printed with the failure: `scripts/simulate --profile P --seed S` runs it
again, on any day.
"""

from __future__ import annotations

import datetime
from collections import Counter

import pytest

from tests.conftest import ExpectedLogs
from tests.simulation import report
from tests.simulation.faults import KINDS
from tests.simulation.profiles import PROFILES, draw
from tests.simulation.regressions import REGRESSIONS, Regression
from tests.simulation.runner import Job, run_here, run_plan

FIXED, DATED = 3, 3  # seeds of each profile
SECONDS = 30.0
TODAY = int(f"{datetime.datetime.now(datetime.UTC):%Y%m%d}") * 1000


def _hold(job: Job) -> None:
    result = run_here(job)
    assert not result.failure, "\n".join(result.failure)
    assert result.reach


@pytest.mark.parametrize("seed", range(FIXED))
@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_a_fixed_seed_holds(profile: str, seed: int, expected_logs: ExpectedLogs) -> None:
    expected_logs("")  # the monitor of logs is stricter
    _hold(Job(profile, seed, SECONDS))


@pytest.mark.parametrize("number", range(DATED))
@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_a_seed_of_the_day_holds(profile: str, number: int, expected_logs: ExpectedLogs) -> None:
    expected_logs("")
    _hold(Job(profile, TODAY + number, SECONDS))


@pytest.mark.parametrize("regression", REGRESSIONS, ids=lambda r: r.name)
def test_a_plan_that_once_failed_holds(regression: Regression, expected_logs: ExpectedLogs) -> None:
    expected_logs("")
    outcome = run_plan(regression.plan)
    assert outcome.failure is None, "\n".join(report.failure(outcome))


def test_the_fixed_seeds_plan_every_kind_of_fault() -> None:
    planned: Counter[str] = Counter()
    for profile in PROFILES:
        for seed in range(100):
            planned.update(strike.kind for strike in draw(profile, seed).strikes)
    assert not [kind for kind in KINDS if not planned[kind]]
