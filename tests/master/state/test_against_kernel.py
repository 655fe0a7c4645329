"""The state machine against the kernel's own file system, see `kernel_oracle`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

STEPS = 300


@pytest.mark.skipif(os.geteuid() != 0, reason="acting as several users needs root")
@pytest.mark.parametrize("seed", [3, 20, 24])
def test_random_operations_do_what_the_kernel_does(tmp_path: Path, seed: int) -> None:
    """In a process of its own, because it changes its user all the time."""
    command = [sys.executable, "-m", "tests.master.state.kernel_oracle", str(tmp_path)]
    done = subprocess.run(
        [*command, str(seed), str(STEPS)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Rename ok" in done.stdout
