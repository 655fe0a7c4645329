"""Metrics of the process: memory, files, processor time, tasks, how late its event loop runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn

import trio
from prometheus_client.core import Metric

from dfs.metrics.families import counter, gauge, histogram
from dfs.metrics.instruments import Timings
from dfs.runtime import Env


class Process:
    """One node's process, under the names that Prometheus clients in all languages use."""

    def __init__(self, env: Env, probe_s: float) -> None:
        self._env, self._probe_s = env, probe_s
        self._lag = Timings()

    async def watch_loop(self) -> NoReturn:
        """Measure, time and again, how much later than asked for this loop runs a task."""
        clock = self._env.clock
        while True:
            due_at = clock.monotonic() + self._probe_s
            await clock.sleep(self._probe_s)
            self._lag.observe(max(0.0, clock.monotonic() - due_at))

    def collect(self) -> Iterator[Metric]:
        usage = self._env.usage()
        yield gauge(
            "process_resident_memory_bytes", "Memory in use, resident.", usage.resident_bytes
        )
        yield gauge("process_open_fds", "Open file descriptors.", usage.open_files)
        yield gauge("process_max_fds", "Most file descriptors allowed.", usage.max_open_files)
        yield counter("process_cpu_seconds", "Processor time used.", usage.cpu_s)
        yield gauge("process_start_time_seconds", "Start, in seconds since 1970.", usage.started_s)
        tasks = trio.lowlevel.current_statistics().tasks_living
        yield gauge("dfs_process_tasks", "Tasks of the event loop.", tasks)
        yield histogram(
            "dfs_process_event_loop_lag_seconds",
            "How much later than asked for the event loop ran a task, probed regularly.",
            self._lag,
        )
