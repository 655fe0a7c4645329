"""The steps of scripts/acceptance, in its quick form; one test for each."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
STEPS = (
    "up",
    "cp",
    "big",
    "rsync",
    "tar",
    "git",
    "sqlite",
    "save",
    "pip",
    "failover",
    "power",
    "down",
)

pytestmark = [pytest.mark.mount, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    """The step's name -> how it went."""
    report = tmp_path_factory.mktemp("acceptance") / "report.json"
    command = [sys.executable, f"{ROOT}/scripts/acceptance", "--quick", "--json", str(report)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert report.exists(), done.stdout + done.stderr
    return {result["step"]: result for result in json.loads(report.read_text())}


@pytest.mark.parametrize("step", STEPS)
def test_it_shows(step: str, results: dict[str, dict[str, object]]) -> None:
    assert step in results, "not reached"
    assert results[step]["ok"], results[step]["note"]
