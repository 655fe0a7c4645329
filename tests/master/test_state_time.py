"""Time as the state notes it, when the wall clock does not go along."""

from __future__ import annotations

import pytest

from dfs.runtime.sim import World
from master import tables as names
from master.state.records import COUNTERS_KEY, Counters
from master.state_time import CATCH_UP_PACE, NS, StateTime

AHEAD_S = 86_400


class OneRecord:
    """Tables with nothing but the counters."""

    def __init__(self) -> None:
        self.changed_ns = 0

    def get(self, table: str, key: bytes) -> bytes | None:
        assert (table, key) == (names.COUNTERS, COUNTERS_KEY)
        return Counters(1, 1, self.changed_ns, 0, 0, 0).encode() if self.changed_ns else None


def test_it_is_the_wall_clocks_while_that_is_ahead() -> None:
    env, tables = World(1, drift=0.0).env("master"), OneRecord()
    time = StateTime(env, tables)  # type: ignore[arg-type]
    assert time.now_ns() == env.clock.wall_ns()
    tables.changed_ns = env.clock.wall_ns() - NS
    assert time.now_ns() == env.clock.wall_ns()


def test_it_goes_on_from_the_last_change_when_the_wall_clock_was_set_back() -> None:
    world = World(1, drift=0.0)
    env, tables = world.env("master"), OneRecord()
    time = StateTime(env, tables)  # type: ignore[arg-type]

    async def main() -> None:
        tables.changed_ns = changed_ns = env.clock.wall_ns() + AHEAD_S * NS
        assert time.now_ns() - changed_ns < NS
        await world.clock.sleep(100)
        assert time.now_ns() - changed_ns == pytest.approx(100 * CATCH_UP_PACE * NS, rel=1e-6)
        tables.changed_ns = changed_ns = time.now_ns()  # a change that it was the time of
        assert 0 <= time.now_ns() - changed_ns < NS
        await world.clock.sleep(2 * AHEAD_S)
        assert time.now_ns() == env.clock.wall_ns()

    world.run(main, limit_s=10 * AHEAD_S)
