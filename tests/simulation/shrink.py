"""Makes a failing run shorter: fewer strikes, one client less, less time, while it fails likewise.

Greedy, and bounded in the number of runs. What counts is that the same rule is broken; the
smaller run may break it at another place.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from tests.simulation import report
from tests.simulation.plan import Plan
from tests.simulation.runner import Job, run_plan

RUNS_MAX = 24


def shrink(job: Job) -> list[str]:
    """The smallest failing plan that was found, and its story; for printing."""
    plan = job.plan()
    outcome = run_plan(plan, job.mutant)
    wanted, runs = report.rule(outcome), 1
    while runs < RUNS_MAX:
        for smaller in candidates(plan):
            runs += 1
            tried = run_plan(smaller, job.mutant)
            if report.rule(tried) == wanted:
                plan, outcome = smaller, tried
                break
            if runs >= RUNS_MAX:
                break
        else:
            break
    if plan == job.plan():
        return [f"not shrunk in {runs} runs"]
    return [f"shrunk in {runs} runs:", *report.failure(outcome)]


def candidates(plan: Plan) -> Iterator[Plan]:
    """Smaller plans, the boldest first."""
    strikes = plan.strikes
    half = len(strikes) // 2
    if half:
        yield dataclasses.replace(plan, strikes=strikes[half:])
        yield dataclasses.replace(plan, strikes=strikes[:half])
    if plan.seconds > 5.0:
        shorter = plan.seconds / 2
        kept = tuple(s for s in strikes if s.at_s < shorter)
        yield dataclasses.replace(plan, seconds=shorter, strikes=kept)
    if plan.clients > 1:
        yield dataclasses.replace(plan, clients=plan.clients - 1)
    for left_out in range(len(strikes)):
        kept = strikes[:left_out] + strikes[left_out + 1 :]
        yield dataclasses.replace(plan, strikes=kept)
