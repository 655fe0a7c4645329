"""One chunkserver, put together: store, data path, conversation with the master.

`run` works on any `Env`, real or simulated, until it is cancelled or `stop` is set; then it stops
answering, syncs what it can in a bounded time, and goes.
"""

from __future__ import annotations

import logging
from functools import partial

import trio

from chunkserver.control import Control
from chunkserver.fencing import Fencing
from chunkserver.fetching import Fetcher
from chunkserver.listing import Listing
from chunkserver.metrics import ChunkserverMetrics
from chunkserver.scrub_service import Scrub
from chunkserver.service import Service
from chunkserver.settling import Settler
from chunkserver.store import Store
from dfs.config import Chunkserver, load_key
from dfs.errors import Code, Failure
from dfs.messages.cluster import FetchReplica, SettleChunk
from dfs.metrics.monitor import Monitor
from dfs.metrics.rpc import Rpc
from dfs.rpc import Endpoint, Handlers, Identity, Pool, serve
from dfs.runtime import Env

log = logging.getLogger(__name__)


class ChunkServer:
    """All parts of one chunkserver."""

    def __init__(self, env: Env, config: Chunkserver, key: bytes) -> None:
        self._env, self._config = env, config
        self._address = config.advertise or config.listen
        identity = Identity("chunkserver", config.id, self._address)
        self._endpoint = Endpoint(env, key, identity, config.rpc)
        self.store = Store(env, config, self._address)
        self.metrics = ChunkserverMetrics(env, self._endpoint.meter, self.store)
        self._monitor = Monitor(
            env,
            config.metrics_listen,
            config.metrics,
            (Rpc(self._endpoint.meter), self.metrics),
            self.metrics.reasons,
        )

    async def run(
        self,
        stop: trio.Event,
        *,
        task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until `stop` is set; starts with the address that is listened on."""
        await self.store.start()
        async with trio.open_nursery() as nursery:
            await nursery.start(self._monitor.run)
            pool = Pool(self._endpoint, nursery)
            fencing = Fencing(self.store, self._address)
            service = Service(self._env, self._config, self.store, pool, self._address)
            scrub = Scrub(self._env, self._config, self.store)
            await scrub.load()
            listing = Listing(self._env, self._config.limits, self.store)
            handlers = {
                **service.handlers(),
                **fencing.handlers(),
                **scrub.handlers(),
                **listing.handlers(),
            }
            address = await self._listen(nursery, handlers)
            settler = Settler(self._env, self._config, self.store, fencing, pool, self._address)
            fetcher = Fetcher(self._env, self._config, self.store, fencing, pool)
            control = Control(
                self._env,
                self._endpoint,
                self._config,
                self.store,
                self._address,
                {SettleChunk: settler.handle, FetchReplica: fetcher.handle},
                fetcher.busy,
            )
            self.metrics.control = control
            self.metrics.scrub = lambda: [walk.status() for walk in scrub.walks]
            nursery.start_soon(control.run)
            nursery.start_soon(self.store.syncing.run)
            nursery.start_soon(scrub.run)
            log.info("%s: serving on %s", self._env.name, address)
            task_status.started(address)
            await stop.wait()
            nursery.cancel_scope.cancel()
        await scrub.stop()
        await self.store.stop()

    async def _listen(self, nursery: trio.Nursery, handlers: Handlers) -> str:
        listening = partial(serve, self._endpoint, self._config.listen, handlers)
        try:
            address: str = await nursery.start(listening)
        except OSError as error:
            text = f"cannot listen on {self._config.listen}: {error.strerror or error}"
            raise Failure(Code.CONFIG, text) from None
        return address


async def run(
    env: Env,
    config: Chunkserver,
    stop: trio.Event,
    *,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run one chunkserver until `stop` is set. Raises Failure when it cannot start."""
    if not config.data_dirs or not config.masters:
        raise Failure(Code.CONFIG, "a chunkserver needs data_dirs and masters")
    server = ChunkServer(env, config, load_key(config.key_file))
    await server.run(stop, task_status=task_status)
