"""Which cases of a test run every time, and which only with the long ones."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from _pytest.mark.structures import ParameterSet


def always(values: Iterable[str], *chosen: str) -> list[ParameterSet]:
    """All of them; those that are not chosen are `long`."""
    cases = list(values)
    assert set(chosen) <= set(cases), chosen
    return [
        pytest.param(case, marks=() if case in chosen else pytest.mark.long, id=case)
        for case in cases
    ]
