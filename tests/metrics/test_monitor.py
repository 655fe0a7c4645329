"""What one node shows: metrics as they are, health, and readiness with its reasons."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio
from prometheus_client.core import Metric

from dfs.config import Metrics
from dfs.errors import Failure
from dfs.metrics.families import counter
from dfs.metrics.monitor import Monitor
from dfs.runtime import Env
from tests.conftest import ExpectedLogs
from tests.metrics.scraping import get, scrape
from tests.rpc.stage import Stage

LIMITS = Metrics(cache_s=0.0, loop_probe_s=0.01)


class Asked:
    """Counts how often it was asked."""

    def __init__(self) -> None:
        self.times = 0
        self.broken = False

    def collect(self) -> Iterator[Metric]:
        if self.broken:
            raise RuntimeError("a bug")
        self.times += 1
        yield counter("dfs_test_asked", "How often.", self.times)


@asynccontextmanager
async def watched(
    env: Env, asked: Asked, reasons: list[str], limits: Metrics = LIMITS
) -> AsyncIterator[str]:
    monitor = Monitor(env, "127.0.0.1:0", limits, [asked], lambda: reasons)
    async with trio.open_nursery() as nursery:
        yield await nursery.start(monitor.run)
        nursery.cancel_scope.cancel()


def test_metrics_are_those_of_the_moment(stage: Stage) -> None:
    async def main(stage: Stage) -> None:
        async with watched(stage.server, Asked(), []) as address:
            for times in (1, 2, 3):
                seen = await scrape(stage.client, address)
                assert seen.value("dfs_test_asked_total") == times
            assert (await get(stage.client, address, "/health")).json == {"alive": True}

    stage.run(main)


def test_who_asks_often_is_told_the_same_again(stage: Stage) -> None:
    async def main(stage: Stage) -> None:
        asked = Asked()
        async with watched(stage.server, asked, [], replace(LIMITS, cache_s=1000.0)) as address:
            for _ in range(5):
                seen = await scrape(stage.client, address)
                assert seen.value("dfs_test_asked_total") == 1
        assert asked.times == 1

    stage.run(main)


def test_readiness_is_decided_anew_each_time(stage: Stage) -> None:
    async def main(stage: Stage) -> None:
        reasons: list[str] = []
        async with watched(stage.server, Asked(), reasons) as address:
            answered = await get(stage.client, address, "/ready")
            assert (answered.status, answered.json) == (200, {"ready": True, "reasons": []})
            reasons.append("no leader is known")
            answered = await get(stage.client, address, "/ready")
            assert answered.status == 503
            assert answered.headers["Content-Type"] == "application/json"
            assert answered.json == {"ready": False, "reasons": ["no leader is known"]}
            assert (await get(stage.client, address, "/health")).status == 200
            reasons.clear()
            assert (await get(stage.client, address, "/ready")).status == 200

    stage.run(main)


def test_a_collector_with_a_bug_is_an_answer_too(stage: Stage, expected_logs: ExpectedLogs) -> None:
    expected_logs("metrics endpoint: answering /metrics")

    async def main(stage: Stage) -> None:
        asked = Asked()
        async with watched(stage.server, asked, []) as address:
            asked.broken = True
            assert (await get(stage.client, address, "/metrics")).status == 500
            asked.broken = False
            assert (await scrape(stage.client, address)).value("dfs_test_asked_total") == 1

    stage.run(main)


def test_the_process_tells_of_itself(stage: Stage) -> None:
    async def main(stage: Stage) -> None:
        async with watched(stage.server, Asked(), []) as address:
            lag = "dfs_process_event_loop_lag_seconds_count"
            while not (await scrape(stage.client, address)).value(lag):
                await trio.lowlevel.checkpoint()
            seen = await scrape(stage.client, address)
        assert seen.value("dfs_process_tasks") > 0

    stage.run(main)


def test_a_real_process_has_memory_and_files() -> None:
    from dfs.runtime.real import RealEnv

    env = RealEnv("node")
    usage = env.usage()
    assert 1 << 20 < usage.resident_bytes < 1 << 40
    descriptor = os.open(os.devnull, os.O_RDONLY)
    assert env.usage().open_files == usage.open_files + 1 <= usage.max_open_files
    os.close(descriptor)
    assert usage.cpu_s > 0
    assert abs(env.usage().started_s - usage.started_s) < 0.1
    assert 0 < env.clock.wall_ns() / 1e9 - usage.started_s < 7 * 86400


def test_without_an_address_nothing_listens(stage: Stage) -> None:
    async def main(stage: Stage) -> None:
        monitor = Monitor(stage.server, "", LIMITS, [], list)
        async with trio.open_nursery() as nursery:
            assert await nursery.start(monitor.run) == ""
            assert not nursery.child_tasks

    stage.run(main)


def test_a_port_in_use_ends_the_process_with_one_line(stage: Stage) -> None:
    async def main(stage: Stage) -> None:
        async with watched(stage.server, Asked(), []) as address:
            monitor = Monitor(stage.server, address, LIMITS, [], list)
            with pytest.raises(ExceptionGroup) as caught:
                await monitor.run()
        (failure,) = caught.value.exceptions
        assert isinstance(failure, Failure)
        assert "metrics_listen" in failure.message

    stage.run(main)
