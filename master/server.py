"""One master, put together: store, state machine, Raft node, handlers, background duties.

`run` works on any `Env`, real or simulated, until it is cancelled or `stop` is set; then it hands
over leadership before it goes.
"""

from __future__ import annotations

import logging
from functools import partial

import trio

from dfs.config import Master, load_key
from dfs.metrics.monitor import Monitor
from dfs.metrics.rpc import Rpc
from dfs.rpc import Endpoint, Handlers, Identity, Pool, serve
from dfs.runtime import Env
from master.checking import Checking
from master.chunkservers import Chunkservers
from master.clients import Clients
from master.dumps import Dumps
from master.janitor import Janitor
from master.meter import MasterMeter
from master.metrics import MasterMetrics, reasons
from master.opening import open_store
from master.operators import Operators
from master.raft import RaftNode
from master.replica_care import ReplicaCare
from master.sessions import LiveSessions
from master.state import StateMachine, queries
from master.tables import Tables
from master.upkeep import Upkeep

log = logging.getLogger(__name__)


class MasterServer:
    """All parts of one master."""

    def __init__(self, env: Env, config: Master, key: bytes) -> None:
        address = config.advertise or config.listen
        self._env, self._config = env, config
        self._endpoint = Endpoint(env, key, Identity("master", config.id, address), config.rpc)
        self._store = open_store(env, config)
        self.tables: Tables = self._store
        self.raft = RaftNode(env, self._endpoint, config, self._store, StateMachine(self.tables))
        self._sessions = LiveSessions(config.limits.session_ttl_s)
        self.chunkservers = Chunkservers(env, self.raft, self.tables, config.cluster, config.limits)
        self.care = ReplicaCare(env, self.raft, self.tables, self.chunkservers, config.limits)
        self._janitor = Janitor(
            env,
            self.raft,
            self.tables,
            self._sessions,
            self.chunkservers,
            self.care.notes,
            config.limits,
        )
        self._dumps = Dumps(env, self.raft, self._store, config)
        self.checking = Checking(
            env, self._endpoint, config, self.raft, self._store, self.chunkservers
        )
        self._upkeep = Upkeep(
            env,
            self.raft,
            self.tables,
            self.chunkservers,
            self.care,
            self._janitor,
            config.limits,
        )
        self.raft.on_leadership = self._leadership_changed
        self._meter = MasterMeter()
        self.metrics = MasterMetrics(
            env, config, self.raft, self._store, self.chunkservers, self._meter
        )
        self.metrics.repair = self._upkeep.status
        self._monitor = Monitor(
            env,
            config.metrics_listen,
            config.metrics,
            (Rpc(self._endpoint.meter), self.metrics),
            partial(reasons, self.raft),
            (self.metrics.watch_disk,),
        )

    def handlers(self) -> Handlers:
        config, env, raft = self._config, self._env, self.raft
        clients = Clients(
            env,
            raft,
            self.tables,
            self._sessions,
            self.chunkservers,
            self.care.settling,
            self.care.repair,
            self._janitor,
            config.cluster,
            config.limits,
            self._meter,
        )
        operators = Operators(env, raft, self.tables, self.chunkservers, config.cluster)
        self.checking.reports = self.care.handlers()
        recovery = self.chunkservers.recovery
        return {
            **self.checking.handlers(),
            **raft.handlers(),
            **self._upkeep.handlers(),
            **recovery.guarding(clients.handlers()),
            **recovery.handlers(),
            **self._dumps.handlers(),
            **self.chunkservers.handlers(),
            **self.care.handlers(),
            **operators.handlers(),
        }

    def _leadership_changed(self, leads: bool) -> None:
        """Volatile knowledge belongs to one leadership; the next one learns its own."""
        self.chunkservers.forget_all()
        self.checking.forget_all()
        self.care.restart()
        if leads:
            now = self._env.clock.boottime()
            self._sessions.restart(queries.sessions(self.tables), now)
            self._janitor.restart()

    async def run(
        self,
        stop: trio.Event,
        *,
        task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until `stop` is set; then stop in order: leadership goes to another first."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._monitor.run)
            listening = partial(serve, self._endpoint, self._config.listen, self.handlers())
            address: str = await nursery.start(listening)
            await nursery.start(self.raft.run)
            nursery.start_soon(self._janitor.run)
            nursery.start_soon(self.checking.run)
            self.care.start(nursery, Pool(self._endpoint, nursery))
            nursery.start_soon(self._dumps.run)
            log.info("%s: serving on %s", self._env.name, address)
            task_status.started(address)
            await stop.wait()
            await self.raft.stop()
            nursery.cancel_scope.cancel()
        self._store.close()


async def run(
    env: Env,
    config: Master,
    stop: trio.Event,
    *,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run one master until `stop` is set. Raises Failure when it cannot start."""
    server = MasterServer(env, config, load_key(config.key_file))
    await server.run(stop, task_status=task_status)
