"""Runs jobs: in this process, or many in a pool of processes, their results in order.

A worker process runs one seed after the other; nothing may leak from one into the next, which
`test_determinism` shows. Results are plain data, so that they travel between processes.
"""

from __future__ import annotations

import gc
import logging
import multiprocessing
import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.simulation import report
from tests.simulation.mutants import CATALOGUE
from tests.simulation.plan import Plan
from tests.simulation.profiles import draw
from tests.simulation.run import Outcome, run

SEEDS_PER_PROCESS = 50


@dataclass(frozen=True)
class Job:
    """One seed to run. `seconds` None: as long as its profile says."""

    profile: str
    seed: int
    seconds: float | None = None
    mutant: str = ""

    def plan(self) -> Plan:
        planted = CATALOGUE.get(self.mutant)
        faults = planted.faults if planted is not None else ()
        plan = draw(self.profile, self.seed, seconds=self.seconds, faults=faults)
        return plan if planted is None else planted.shaped(plan)


@dataclass(frozen=True)
class Result:
    """What came of it. `failure`: its story, a line each; none when all held."""

    job: Job
    line: str
    failure: list[str]
    virtual_s: float
    wall_s: float
    trace_hash: str
    rule: str = ""
    reach: Counter[str] = field(default_factory=Counter)


def run_plan(plan: Plan, mutant: str = "") -> Outcome:
    """Run a plan in a directory of its own."""
    if not logging.getLogger().handlers:
        logging.getLogger().addHandler(logging.NullHandler())
    with tempfile.TemporaryDirectory(prefix="dfs-simulate-") as directory:
        return run(plan, Path(directory), mutant=CATALOGUE[mutant] if mutant else None)


def run_here(job: Job) -> Result:
    """Run a job in this process."""
    began = time.monotonic()
    gc.disable()  # a run makes little that is cyclic; collected between runs
    try:
        outcome = run_plan(job.plan(), job.mutant)
    finally:
        gc.enable()
        gc.collect()
    told = report.failure(outcome) if outcome.failure is not None else []
    return Result(
        job,
        report.line(outcome),
        told,
        outcome.virtual_s,
        time.monotonic() - began,
        outcome.trace_hash,
        report.rule(outcome),
        outcome.reach,
    )


def run_all(jobs: Iterator[Job], processes: int, minutes: float | None) -> Iterator[Result]:
    """Run them in that many processes, for `minutes` at most; results in the order of jobs."""
    until = None if minutes is None else time.monotonic() + 60 * minutes
    waiting: deque[Future[Result]] = deque()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        processes, mp_context=context, max_tasks_per_child=SEEDS_PER_PROCESS
    ) as pool:
        for job in jobs:
            if until is not None and time.monotonic() > until:
                break
            waiting.append(pool.submit(run_here, job))
            if len(waiting) >= 2 * processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
