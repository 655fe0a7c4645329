"""A simulated cluster whose processes all show their metrics, and one client that does too."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import trio

from chunkserver.format import DATA_OFFSET
from dfs.client import Client, open_client
from dfs.client.metrics import ClientMetrics, reasons
from dfs.config import Chunkserver, Master, Metrics
from dfs.metrics.monitor import Monitor
from dfs.metrics.rpc import Rpc
from dfs.runtime.sim import World
from fuse.metrics import FuseMeter
from tests.metrics.scraping import Answered, Scrape, get, scrape
from tests.simulation.cluster import SimCluster

PORT = 9000
METRICS = Metrics(cache_s=0.0)  # tests look twice in a moment


class WatchedCluster(SimCluster):
    """Every process tells on port 9000 of its node."""

    def _master_config(self, n: int) -> Master:
        listen = f"master-{n}:{PORT}"
        made = super()._master_config(n)
        return dataclasses.replace(made, metrics_listen=listen, metrics=METRICS)

    def _chunkserver_config(self, n: int) -> Chunkserver:
        listen = f"chunkserver-{n}:{PORT}"
        made = super()._chunkserver_config(n)
        return dataclasses.replace(made, metrics_listen=listen, metrics=METRICS)

    @asynccontextmanager
    async def watched_client(self, name: str = "client") -> AsyncIterator[Client]:
        """A client that tells what a mount does."""
        env = self.world.env(name)
        async with open_client(env, self.client_config(), name) as client:
            collectors = (Rpc(client.services.pool.meter), ClientMetrics(client), FuseMeter(env))
            why = partial(reasons, client)
            monitor = Monitor(env, f"{name}:{PORT}", METRICS, collectors, why)
            async with trio.open_nursery() as nursery:
                await nursery.start(monitor.run)
                yield client
                nursery.cancel_scope.cancel()

    def damage(self, node: str, handle: int) -> None:
        """Flip a bit of the node's replica, in its first block."""
        path = self.storing[node].store.find(handle).directory.replica_path(handle)
        self.world.disk(node).flip_bit(path, DATA_OFFSET + 1000)

    async def scrape(self, node: str) -> Scrape:
        return await scrape(self.world.env("prometheus"), f"{node}:{PORT}")

    async def ready(self, node: str) -> Answered:
        return await get(self.world.env("prometheus"), f"{node}:{PORT}", "/ready")

    async def until_unready(self, node: str, reason: str) -> None:
        """Wait until the node says that it is not ready, and why."""
        while True:
            answered = await self.ready(node)
            assert answered.status in (200, 503)
            assert answered.json["ready"] is (answered.status == 200)
            if reason in " ".join(answered.json["reasons"]):
                assert answered.status == 503
                return
            await self.world.clock.sleep(0.05)

    async def until_ready(self, node: str) -> None:
        while (await self.ready(node)).status != 200:
            await self.world.clock.sleep(0.05)


Scenario = Callable[[WatchedCluster], Awaitable[None]]


def watch(directory: Path, scenario: Scenario, *, masters: int = 3, chunkservers: int = 3) -> World:
    """Run the scenario on a fresh cluster."""
    world = World(1)

    async def main() -> None:
        cluster = WatchedCluster(world, directory, masters=masters, chunkservers=chunkservers)
        await cluster.start()
        await cluster.until_leader()
        await scenario(cluster)

    world.run(main)
    return world
