"""The fixture that runs a test in both worlds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runtime.worlds import Place, real_place, simulated_place


@pytest.fixture(params=["real", "simulated"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "real":
        return real_place(str(tmp_path))
    return simulated_place()
