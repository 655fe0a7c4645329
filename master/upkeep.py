"""What operators say of servers and disks, and what they are told of the repair.

Handlers only: modes are replicated state, the queue is `repair`'s, settling's and the janitor's.
"""

from __future__ import annotations

import logging

from dfs.config import MasterLimits
from dfs.errors import Code, Failure
from dfs.messages.cluster import (
    GetRepairStatus,
    RemoveServer,
    RepairClass,
    RepairStatus,
    ServerMode,
    ServerRepair,
    SetServerMode,
)
from dfs.messages.common import Done, Refused
from dfs.rpc import Handlers, Request
from dfs.runtime import Env
from master import repair_plan
from master.chunkservers import Chunkservers
from master.commands import SetMode, StrikeServer
from master.fleet import Fleet
from master.janitor import Janitor
from master.raft import RaftNode
from master.repair_plan import used_fraction
from master.repair_queue import Assessment
from master.replica_care import ReplicaCare
from master.state import queries
from master.tables import Tables

log = logging.getLogger(__name__)

NS = 1_000_000_000
Kind = repair_plan.RepairClass


class Upkeep:
    """The handlers of `dfs node`, `dfs disk` and of the repair in `dfs status`."""

    def __init__(
        self,
        env: Env,
        raft: RaftNode,
        tables: Tables,
        chunkservers: Chunkservers,
        care: ReplicaCare,
        janitor: Janitor,
        limits: MasterLimits,
    ) -> None:
        self._env, self._raft, self._tables = env, raft, tables
        self._chunkservers = chunkservers
        self._settling, self._repair = care.settling, care.repair
        self._fleet, self._janitor, self._limits = care.fleet, janitor, limits

    def handlers(self) -> Handlers:
        return {
            SetServerMode: self._set_mode,
            RemoveServer: self._remove,
            GetRepairStatus: self._status,
        }

    # -- modes

    async def _set_mode(self, request: Request) -> Done:
        message: SetServerMode = request.message
        self._chunkservers.must_lead()
        self._check(message)
        until_ns = 0
        if message.seconds > 0 and message.mode != ServerMode.IN_SERVICE:
            until_ns = self._env.clock.wall_ns() + int(message.seconds * NS)
        await self._propose(SetMode(message.server, message.disk, message.mode, until_ns))
        log.info(
            "%s: chunkserver %d %s is %s",
            self._env.name,
            message.server,
            message.disk,
            ServerMode(message.mode).name.lower(),
        )
        self._repair.wake()
        return Done()

    def _check(self, message: SetServerMode) -> None:
        if queries.server_entry(self._tables, message.server) is None:
            raise Failure(Code.CONFIG, f"there is no chunkserver {message.server}")
        if message.mode not in tuple(ServerMode) or not 0 <= message.seconds < 1e9:
            raise Failure(Code.CONFIG, f"mode {message.mode} for {message.seconds} s cannot be")
        if not message.disk:
            return
        if message.mode == ServerMode.MAINTENANCE:
            raise Failure(Code.CONFIG, "maintenance is of a whole server")
        if (message.server, message.disk) in queries.modes(self._tables):
            return
        live = self._chunkservers.find(message.server)
        disks = [d.path for d in live.disks] if live is not None else []
        if message.disk not in disks:
            text = f"chunkserver {message.server} has no disk {message.disk!r} just now"
            raise Failure(Code.CONFIG, f"{text}; it has {', '.join(disks) or 'none, it is away'}")

    async def _remove(self, request: Request) -> Done:
        message: RemoveServer = request.message
        self._chunkservers.must_lead()
        server = message.server
        if queries.server_entry(self._tables, server) is None:
            raise Failure(Code.CONFIG, f"there is no chunkserver {server}")
        if self._chunkservers.connected(server) is not None:
            text = f"chunkserver {server} is alive: stop it first"
            raise Failure(Code.CONFIG, text)
        sets = queries.replica_sets(self._tables)
        chunks = sum(count for _, servers, count in sets if server in servers)
        if chunks:
            text = f"{chunks} chunks have a replica on chunkserver {server}: drain it first"
            raise Failure(Code.CONFIG, text)
        await self._propose(StrikeServer(server))
        self._chunkservers.forget(server)
        log.info("%s: chunkserver %d is struck from the registry", self._env.name, server)
        return Done()

    async def _propose(self, command: object) -> None:
        answer = await self._raft.propose(command)
        if isinstance(answer, Refused):
            raise Failure(Code.CONFIG, answer.message)

    # -- status

    def _status(self, request: Request) -> RepairStatus:
        self._chunkservers.must_lead()
        return self.status()

    def status(self) -> RepairStatus:
        """As this master knows it, which must lead."""
        fleet, pace = self._repair.views(), self._repair.pace
        now = self._env.clock.boottime()
        classes = self._classes(fleet)
        return RepairStatus(
            classes,
            self._servers(),
            bytes_per_s=pace.rate(now),
            cap_bytes_per_s=pace.allowed(),
            eta_s=pace.eta_s(now, sum(c.bytes for c in classes)),
            copied_bytes=pace.copied_bytes + self._settling.copied_bytes,
            unreadable=self._repair.assessment.unreadable,
            stuck=why_stuck(self._repair.assessment, bool(self._repair.running), fleet),
        )

    def _classes(self, fleet: Fleet) -> tuple[RepairClass, ...]:
        settling, settling_now = self._settling.counts()
        deletions = self._janitor.deletions_waiting()
        return (
            RepairClass("settling", settling, settling_now, 0),
            *(self._class(kind, fleet) for kind in Kind),
            RepairClass("deletions", deletions, 0, 0),
        )

    def _class(self, kind: Kind, fleet: Fleet) -> RepairClass:
        running = sum(job.kind == kind for job in self._repair.running.values())
        mean = self._repair.mean_size_bytes()
        chunks = self._repair.assessment.counts.get(kind, 0)
        if kind == Kind.REBALANCING:
            chunks = max(running, excess_bytes(fleet, self._limits.rebalance_band) // mean)
        elif kind == Kind.DRAINING:
            chunks += self._repair.leaving()
        size = 0 if kind == Kind.SURPLUS else chunks * mean
        return RepairClass(kind.label, chunks, running, size)

    def _servers(self) -> tuple[ServerRepair, ...]:
        modes, found = self._fleet.modes(), []
        replicas, now_ns = self._repair.assessment.replicas, self._env.clock.wall_ns()
        for server, _, _ in queries.servers(self._tables):
            dead_s = self._chunkservers.dead_for_s(server)
            mode = modes.pop((server, ""), None)
            if mode is None and dead_s == 0:
                continue
            kind = ServerMode.IN_SERVICE if mode is None else mode.mode
            left_s = (mode.until_ns - now_ns) / NS if mode is not None and mode.until_ns else 0.0
            grace_s = max(0.0, self._limits.repair_grace_s - dead_s) if dead_s else 0.0
            count = replicas.get(server, 0)
            found.append(ServerRepair(server, "", kind, count, left_s, dead_s, grace_s))
        for (server, disk), mode in modes.items():
            found.append(ServerRepair(server, disk, mode.mode, self._on_disk(server, disk)))
        return tuple(found)

    def _on_disk(self, server: int, path: str) -> int:
        live = self._chunkservers.find(server)
        disks = live.disks if live is not None else ()
        return sum(d.replicas for d in disks if d.path == path)


def why_stuck(assessment: Assessment, working: bool, fleet: Fleet) -> str:
    """Why nothing can be done for any chunk that waits; "" when something can."""
    waiting = sum(assessment.counts.values())
    if not waiting or assessment.possible or working:
        return ""
    takers = sum(view.takes for view in fleet.values())
    return (
        f"{waiting} chunks wait, and no further chunkserver can take them:"
        f" {takers} of {len(fleet)} take new replicas"
    )


def excess_bytes(fleet: Fleet, band: float) -> int:
    """About how much has to move until all servers' use is within the band; 0 when it is."""
    views = [v for v in fleet.values() if v.ready and v.total_bytes]
    used = [used_fraction(v) for v in views]
    if len(views) < 2 or max(used) - min(used) <= band:
        return 0
    total = sum(v.total_bytes for v in views)
    mean = sum(used_fraction(v) * v.total_bytes for v in views) / total
    excess = [(u - mean - band / 2) * v.total_bytes for u, v in zip(used, views, strict=True)]
    return int(sum(e for e in excess if e > 0))
