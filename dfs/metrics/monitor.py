"""One node's window for operators: /metrics, /health and /ready, where it is configured.

    GET /metrics   all metrics, in Prometheus's text format
    GET /health    200 while the event loop runs
    GET /ready     200, or 503 with JSON: {"ready": false, "reasons": ["no leader is known"]}

Owns the node's registry. The metrics are collected between two steps of the event loop, so that
they fit together, written out in a thread, and kept for `cache_s`, so that nobody who asks more
often costs more. Whether the node is ready is decided anew for each request, from memory.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial

import trio
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric

from dfs import config
from dfs.metrics import http
from dfs.metrics.families import Collector
from dfs.metrics.http import Answer
from dfs.metrics.process import Process
from dfs.metrics.server import HttpServer
from dfs.runtime import Env

log = logging.getLogger(__name__)

LANE = "metrics"
TEXT_FORMAT = "text/plain; version=0.0.4; charset=utf-8"

# Why the node cannot do its work just now, each a sentence; none: it is ready.
Reasons = Callable[[], Sequence[str]]


class Monitor:
    """What one node shows. `listen` is where, "" for nowhere: then it costs nothing at all.

    `probes` run for as long as it does, and measure what cannot be read at a moment's notice.
    """

    def __init__(
        self,
        env: Env,
        listen: str,
        limits: config.Metrics,
        collectors: Iterable[Collector],
        reasons: Reasons,
        probes: Sequence[Callable[[], Awaitable[None]]] = (),
    ) -> None:
        self._env, self._listen, self._limits = env, listen, limits
        self._reasons = reasons
        self._process = Process(env, limits.loop_probe_s)
        self._probes = (self._process.watch_loop, *probes)
        self.registry = CollectorRegistry()
        for collector in (self._process, *collectors):
            self.registry.register(collector)
        self._text = b""
        self._made_at = float("-inf")
        self._making = trio.Lock()

    async def run(self, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; started with the address, "" for none. Raises Failure(CONFIG)."""
        if not self._listen:
            task_status.started("")
            return
        routes = {"/metrics": self._metrics, "/health": self._health, "/ready": self._ready}
        server = HttpServer(self._env, self._limits, routes)
        async with trio.open_nursery() as nursery:
            address: str = await nursery.start(server.run, self._listen)
            for probe in self._probes:
                nursery.start_soon(probe)
            log.info("%s: metrics on http://%s/metrics", self._env.name, address)
            task_status.started(address)

    async def _metrics(self) -> Answer:
        async with self._making:
            if self._env.clock.monotonic() - self._made_at >= self._limits.cache_s:
                families = list(self.registry.collect())
                self._text = await self._env.run_blocking(partial(_rendered, families), LANE)
                self._made_at = self._env.clock.monotonic()
            return Answer(200, self._text, TEXT_FORMAT)

    async def _health(self) -> Answer:
        return http.as_json(200, {"alive": True})

    async def _ready(self) -> Answer:
        reasons = list(self._reasons())
        return http.as_json(503 if reasons else 200, {"ready": not reasons, "reasons": reasons})


class _Collected:
    """Metrics that were collected before."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


def _rendered(families: list[Metric]) -> bytes:
    return generate_latest(_Collected(families))
