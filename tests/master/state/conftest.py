"""Fixtures of the state machine's tests."""

from __future__ import annotations

import pytest

from tests.master.state.machine_driver import Driver


@pytest.fixture
def machine() -> Driver:
    """A fresh state machine with one session."""
    return Driver()
