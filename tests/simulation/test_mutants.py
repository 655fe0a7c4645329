"""Every planted fault is found, within the number of seeds stated and by the rule it breaks.

The quick ones run each time, the others with the long tests (`scripts/test --long`).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import ExpectedLogs
from tests.marks import always
from tests.simulation.mutants import CATALOGUE, Mutant
from tests.simulation.mutants.table import table
from tests.simulation.runner import Job, Result, run_here

DOCUMENT = Path(__file__).parents[2] / "docs" / "simulation.md"
AT_LEAST = 25
# Found by seed 0 within a few virtual seconds, each by another rule or another workload.
QUICK = (
    "acknowledge_before_the_tail",
    "announce_nothing",
    "apply_out_of_order",
    "ask_the_clock_while_applying",
    "choose_ones_own_primary",
    "count_votes_twice",
    "count_what_was_sent",
    "end_sessions_too_early",
    "forget_the_vote",
    "ignore_exclusive",
    "lease_three_times_as_long",
    "never_commit",
    "send_before_flush",
    "sync_nothing",
    "truncate_what_matches",
    "truncate_without_a_cut",
)


def test_the_catalogue_is_as_large_as_was_promised() -> None:
    assert len(CATALOGUE) >= AT_LEAST


def test_the_table_in_the_documentation_is_that_of_the_catalogue() -> None:
    """`python -m tests.simulation.mutants.table` prints it."""
    assert table() in DOCUMENT.read_text()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", always(CATALOGUE, *QUICK))
def test_a_mutant_is_found(name: str, expected_logs: ExpectedLogs) -> None:
    expected_logs("")  # it is broken, and says so
    mutant = CATALOGUE[name]
    told: list[str] = []
    for seed in range(mutant.seeds):
        told.append(_run(mutant, seed).rule)
        if mutant.is_found(told[-1]):
            return
    pytest.fail(f"not found by any of {mutant.found_by}: {told}")


def _run(mutant: Mutant, seed: int) -> Result:
    return run_here(Job(mutant.profile, seed, mutant.seconds, mutant.name))
