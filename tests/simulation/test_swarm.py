"""A handful of seeds of random clients and faults. `scripts/simulate` runs as many as one likes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import ExpectedLogs
from tests.simulation.swarm import run_seed


@pytest.mark.parametrize("seed", range(4))
def test_random_clients_find_what_they_wrote_whatever_fails(
    tmp_path: Path, seed: int, expected_logs: ExpectedLogs
) -> None:
    expected_logs("^WARNING")  # ERROR lines fail the run
    outcome = run_seed(seed, tmp_path, seconds=8.0)
    assert outcome.steps > 50
    assert outcome.struck


def test_a_seed_is_replayed_exactly(tmp_path: Path, expected_logs: ExpectedLogs) -> None:
    expected_logs("^WARNING")
    first, second = (run_seed(3, tmp_path, seconds=4.0) for _ in range(2))
    assert first.trace_hash == second.trace_hash
