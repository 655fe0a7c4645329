"""All that looks after chunks' replicas, put together: reports, settling, repair, drains, census.

Volatile knowledge of one leadership throughout; what is replicated are the sets themselves, what is
to be deleted, and what operators have said.
"""

from __future__ import annotations

from array import array

import trio

from dfs.config import MasterLimits
from dfs.rpc import Handlers, Pool
from dfs.runtime import Env
from master.census import Census
from master.chunkservers import Chunkservers
from master.disk_drain import DiskDrain
from master.fleet import FleetWatch
from master.raft import RaftNode
from master.repair import Repair
from master.repair_steps import RepairSteps
from master.replica_notes import ReplicaNotes
from master.reports import Reports
from master.settling import Settling
from master.tables import Tables


class ReplicaCare:
    """The parts, and how they tell each other what happens."""

    def __init__(
        self,
        env: Env,
        raft: RaftNode,
        tables: Tables,
        chunkservers: Chunkservers,
        limits: MasterLimits,
    ) -> None:
        self._env = env
        self.notes = ReplicaNotes()
        self.settling = Settling(env, raft, tables, chunkservers, self.notes, limits)
        self.fleet = FleetWatch(env, tables, chunkservers, limits)
        steps = RepairSteps(env, raft, tables, chunkservers, self.notes, self.settling, limits)
        self.repair = Repair(
            env, raft, tables, self.notes, self.settling, steps, self.fleet, limits
        )
        self._drain = DiskDrain(env, raft, chunkservers, self.fleet, self.repair, limits)
        self._census = Census(
            env, raft, tables, chunkservers, self.notes, self.settling, self.repair, limits
        )
        self._reports = Reports(env, tables, chunkservers, self.notes, self.settling)
        self._reports.on_reported = self._reported
        chunkservers.on_heartbeat = self._heard
        chunkservers.on_returned = self._returned

    def handlers(self) -> Handlers:
        """Of what chunkservers report."""
        return self._reports.handlers()

    def restart(self) -> None:
        """A leadership begins or ends."""
        self.settling.forget_all()
        self.repair.restart()
        self._census.restart()

    def start(self, nursery: trio.Nursery, pool: Pool) -> None:
        """Start the background work, which sleeps while this master does not lead."""
        nursery.start_soon(self.settling.run)
        nursery.start_soon(self.repair.run)
        nursery.start_soon(self._drain.run, pool)
        nursery.start_soon(self._census.run, pool)

    def _reported(self, server: int, handles: array[int]) -> None:
        self.settling.server_reported(server)
        self.repair.wake()
        self._census.reported(server, handles)

    def _returned(self, server: int) -> None:
        self.settling.server_returned(server)
        self.repair.wake()

    def _heard(self, server: int, client_bytes: int) -> None:
        self.repair.pace.heard(server, self._env.clock.boottime(), client_bytes)
