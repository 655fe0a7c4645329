"""How fast repair may copy, beside clients or alone, and what is honestly said of its end."""

from __future__ import annotations

import pytest

from dfs.config import MasterLimits
from master.repair_pace import Pace

MIB = 1 << 20
LIMITS = MasterLimits(
    repair_bytes_per_s=200 * MIB,
    repair_busy_bytes_per_s=4 * MIB,
    repair_share=0.25,
    repair_floor_bytes_per_s=16 * MIB,
    repair_rate_window_s=10.0,
)


def pace(client_rate: int = 0, limits: MasterLimits = LIMITS) -> Pace:
    made = Pace(limits)
    made.restart(0.0)
    for second in range(20):
        made.heard(1, float(second), second * client_rate // 2)
        made.heard(2, float(second), second * client_rate // 2)
    return made


@pytest.mark.parametrize(
    ("client_rate", "allowed"),
    [(0, 200 * MIB), (3 * MIB, 200 * MIB), (6 * MIB, 16 * MIB), (90 * MIB, 30 * MIB)],
)
def test_clients_come_first(client_rate: int, allowed: int) -> None:
    assert pace(client_rate).allowed() == pytest.approx(allowed, rel=0.01)


def test_it_never_gets_more_than_the_bound() -> None:
    assert pace(10_000 * MIB).allowed() == 200 * MIB


def test_endangered_chunks_are_not_held_back_by_clients() -> None:
    assert pace(90 * MIB).allowed(endangered=True) == 100 * MIB


def test_without_a_bound_only_clients_hold_it_back() -> None:
    limits = MasterLimits(repair_bytes_per_s=0, repair_share=0.5)
    assert pace(0, limits).allowed() == 0
    assert pace(90 * MIB, limits).allowed() == pytest.approx(90 * MIB, rel=0.01)
    assert pace(90 * MIB, limits).allowed(endangered=True) == 0


def test_a_server_that_restarts_or_goes_does_not_confuse_it() -> None:
    made = pace(90 * MIB)
    made.heard(1, 20.0, 0)
    made.heard(1, 21.0, 45 * MIB)
    made.forget(2)
    assert made.client_rate() == pytest.approx(45 * MIB, rel=0.01)


def test_the_end_is_known_only_when_something_moves() -> None:
    made = pace()
    assert made.eta_s(30.0, 0) == 0.0
    assert made.eta_s(30.0, 100) == -1.0
    for second in range(31, 41):
        made.copied(float(second), 5 * MIB)
    assert made.rate(40.0) == pytest.approx(5 * MIB, rel=0.2)
    assert made.eta_s(40.0, 50 * MIB) == pytest.approx(10.0, rel=0.2)
    assert made.eta_s(60.0, 50 * MIB) == -1.0
    assert made.copied_bytes == 50 * MIB
