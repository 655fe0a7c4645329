"""The same seed gives the same run, whatever the process."""

from __future__ import annotations

import os
import subprocess
import sys

import hypothesis
import pytest
from hypothesis import strategies as st

from dfs.runtime.sim import World
from tests.house import ROOT
from tests.runtime.echo_cluster import play, serve, trace_of


def test_a_seed_repeats_its_run() -> None:
    assert trace_of(7) == trace_of(7)


def test_seeds_differ() -> None:
    assert len(dict.fromkeys(trace_of(seed) for seed in range(4))) == 4


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_another_process_with_another_hash_seed_repeats_the_run(hash_seed: str) -> None:
    other = subprocess.run(
        [sys.executable, "-m", "tests.runtime.echo_cluster", "7"],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert other.stdout.strip() == trace_of(7)


@hypothesis.settings(max_examples=15)
@hypothesis.given(st.integers(0, 10**6))
def test_what_was_acknowledged_survives_crashes_and_partitions(seed: int) -> None:
    world = World(seed)
    acknowledged = world.run(lambda: play(world))
    store = world.env("server").disk.open_key_value("/data/store", ["seen"], 1 << 30)
    assert [key for key in acknowledged if store.get("seen", key) is None] == []


def test_an_idle_hour_passes_in_a_moment() -> None:
    world = World(1)

    async def main() -> None:
        await world.start("server", serve)
        await world.clock.sleep(3000)

    world.run(main)
    assert world.timeline.now_s >= 3000
