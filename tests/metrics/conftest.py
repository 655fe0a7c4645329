"""The fixture that runs a test in both worlds."""

from __future__ import annotations

import pytest

from tests.rpc.stage import Stage, real_stage, simulated_stage


@pytest.fixture(params=["real", "simulated"])
def stage(request: pytest.FixtureRequest) -> Stage:
    return real_stage() if request.param == "real" else simulated_stage()
