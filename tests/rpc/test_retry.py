"""How long to wait before trying again."""

from __future__ import annotations

import pytest

from dfs.rpc import Backoff
from tests.rpc.stage import Stage, limits, simulated_stage

LIMITS = limits(retry_first_s=0.1, retry_max_s=0.5)


def test_waits_double_up_to_the_bound_with_jitter() -> None:
    ceilings = [0.1, 0.2, 0.4, 0.5, 0.5, 0.5]
    series = []
    for seed in range(20):
        backoff = Backoff(simulated_stage(seed).client, LIMITS)
        waits = [backoff.next_s() for _ in ceilings]
        for wait, ceiling in zip(waits, ceilings, strict=True):
            assert ceiling / 2 <= wait <= ceiling
        series.append(tuple(waits))
    assert len(set(series)) == 20


def test_a_success_begins_anew() -> None:
    backoff = Backoff(simulated_stage().client, LIMITS)
    for _ in range(5):
        backoff.next_s()
    backoff.reset()
    assert backoff.next_s() <= 0.1


def test_waiting_takes_that_long() -> None:
    async def main(stage: Stage) -> None:
        begun = stage.client.clock.monotonic()
        await Backoff(stage.client, LIMITS).wait()
        took = stage.client.clock.monotonic() - begun
        assert 0.05 <= took <= 0.1 or took == pytest.approx(0.1)

    simulated_stage().run(main)
