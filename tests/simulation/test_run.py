"""A run ends, whatever becomes of what it simulates."""

from __future__ import annotations

import pytest

from tests.simulation.run import Endless, bounded


def forever() -> None:
    while True:
        pass


def test_what_goes_on_and_on_is_ended() -> None:
    with pytest.raises(Endless), bounded(0.05):
        forever()
