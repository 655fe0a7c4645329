"""Emptying single disks: those that operators drain, and those that have failed.

The master does not know which disk of a server a replica lies on, so it asks the server, page by
page, and has repair move those chunks away from the server (`Repair.move_away`). A failed disk,
which takes no more writes, is emptied as if it were drained: as long as it can be read, that is
the gentlest way. A walk that repair cannot take more of goes on where it stopped; one that came to
the end begins anew as long as replicas are left.
"""

from __future__ import annotations

import logging

from dfs.config import MasterLimits
from dfs.errors import Failure
from dfs.messages.chunks import ListReplicas, ReplicaPage
from dfs.messages.cluster import ServerMode
from dfs.rpc import Pool
from dfs.runtime import Env
from master.chunkservers import Chunkservers
from master.fleet import FleetWatch
from master.raft import RaftNode
from master.repair import Repair

log = logging.getLogger(__name__)

LIST_TIMEOUT_S = 5.0


class DiskDrain:
    """One task of the leader."""

    def __init__(
        self,
        env: Env,
        raft: RaftNode,
        chunkservers: Chunkservers,
        fleet: FleetWatch,
        repair: Repair,
        limits: MasterLimits,
    ) -> None:
        self._env, self._raft, self._chunkservers = env, raft, chunkservers
        self._fleet, self._repair, self._limits = fleet, repair, limits
        self._after: dict[int, int] = {}  # server -> the handle seen last

    async def run(self, pool: Pool) -> None:
        """Work for as long as this master lives."""
        while True:
            await self._env.clock.sleep(self._limits.repair_retry_s)
            if not self._raft.may_read():
                self._after.clear()
                continue
            for server, disks in self._to_empty().items():
                try:
                    await self._step(pool, server, disks)
                except Failure as error:
                    text = "%s: the replicas of chunkserver %d are not known: %s"
                    log.info(text, self._env.name, server, error.message)

    def _to_empty(self) -> dict[int, list[str]]:
        """The disks that should be empty and are not, by server."""
        modes, found = self._fleet.modes(), dict[int, list[str]]()
        for live in self._chunkservers.alive():
            for disk in live.disks:
                mode = modes.get((live.id, disk.path))
                drained = mode is not None and mode.mode == ServerMode.DRAINING
                if disk.replicas and (drained or not disk.healthy):
                    found.setdefault(live.id, []).append(disk.path)
        return found

    async def _step(self, pool: Pool, server: int, disks: list[str]) -> None:
        live = self._chunkservers.connected(server)
        if live is None:
            return
        message = ListReplicas(self._after.get(server, 0), self._limits.drain_page)
        page: ReplicaPage = (
            await pool.call(live.address, message, timeout_s=LIST_TIMEOUT_S)
        ).message
        for replica in page.replicas:
            on_it = replica.disk in disks
            if on_it and not self._repair.move_away(replica.handle, (server,)):
                return
            self._after[server] = replica.handle
        if page.complete:
            self._after.pop(server, None)
