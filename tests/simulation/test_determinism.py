"""One seed, one run: the same trace and words, whatever ran before, however Python hashes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.conftest import ExpectedLogs
from tests.marks import always
from tests.simulation.profiles import PROFILES
from tests.simulation.runner import Job, run_here

SECONDS = 8.0
SEED = 1


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_a_seed_is_replayed_exactly(profile: str, expected_logs: ExpectedLogs) -> None:
    expected_logs("")
    first = run_here(Job(profile, SEED, SECONDS))
    run_here(Job(profile, SEED + 1, 1.0))  # leaves nothing behind
    second = run_here(Job(profile, SEED, SECONDS))
    assert (first.trace_hash, first.line, first.reach) == (
        second.trace_hash,
        second.line,
        second.reach,
    )


@pytest.mark.parametrize("profile", always(PROFILES, "blocks", "members", "trees"))
def test_the_output_does_not_depend_on_hashing(profile: str) -> None:
    command = [sys.executable, "-m", "tests.simulation.simulate", "--seed", str(SEED)]
    command += ["--profile", profile, "--seconds", str(SECONDS), "--no-shrink"]
    printed = [
        subprocess.run(
            command,
            env={**os.environ, "PYTHONHASHSEED": hashing},
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        for hashing in ("1", "2")
    ]
    assert printed[0] == printed[1]
    assert f"{profile} {SEED} " in printed[0]
