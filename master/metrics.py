"""A master's metrics and its readiness, read from its parts when somebody asks.

What every master knows of itself: Raft, its state file, the counters of the replicated state. What
only the leader knows (followers' lag, chunkservers, replicas that lack, the repair queue) is told
by the leader alone, so that sums over all masters are right.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import NoReturn

from prometheus_client.core import Metric

from dfs.config import Master
from dfs.messages.cluster import RepairStatus
from dfs.metrics.families import counter, gauge, histogram
from dfs.runtime import DiskSpace, Env
from master.chunkservers import Chunkservers
from master.meter import MasterMeter
from master.raft import RaftNode
from master.raft.core import Core
from master.state import queries
from master.store import Store

log = logging.getLogger(__name__)

ROLES = ("leader", "candidate", "follower", "none")


class MasterMetrics:
    """The collector of one master. `repair` tells of the repair queue while this master leads."""

    def __init__(
        self,
        env: Env,
        config: Master,
        raft: RaftNode,
        store: Store,
        chunkservers: Chunkservers,
        meter: MasterMeter,
    ) -> None:
        self._env, self._config = env, config
        self._raft, self._store = raft, store
        self._chunkservers, self._meter = chunkservers, meter
        self._disk: DiskSpace | None = None
        self.repair: Callable[[], RepairStatus | None] = lambda: None

    async def watch_disk(self) -> NoReturn:
        """Look time and again how full the disk is; one that hangs only makes the figures old."""
        space = partial(self._env.disk.space, self._config.data_dir)
        while True:
            try:
                self._disk = await self._env.run_blocking(space, "metrics")
            except OSError as error:
                log.warning("%s: %s: %s", self._env.name, self._config.data_dir, error)
            await self._env.clock.sleep(self._config.metrics.disk_probe_s)

    def collect(self) -> Iterator[Metric]:
        yield from self._raft_state()
        yield from self._log()
        yield from self._namespace()
        yield from self._servers()
        yield from self._repair()

    # -- Raft

    def _raft_state(self) -> Iterator[Metric]:
        raft, core = self._raft, self._raft.meter.core
        yield gauge("dfs_raft_term", "The current term.", raft.term)
        yield gauge("dfs_raft_commit_index", "Highest entry known committed.", raft.commit_index)
        yield gauge("dfs_raft_applied_index", "Highest entry applied here.", raft.applied_index)
        role = _role(core)
        yield gauge(
            "dfs_raft_role",
            "1 for the role that this master has just now.",
            {each: int(each == role) for each in ROLES},
            ("role",),
        )
        yield gauge("dfs_raft_leased", "1 on a leader that may answer reads.", int(raft.may_read()))
        yield gauge("dfs_raft_leader_id", "Who leads, as known here; 0: nobody.", raft.leader_id())
        yield gauge("dfs_raft_members", "Masters that are members.", len(raft.members()))
        yield gauge(
            "dfs_raft_leader_silence_seconds",
            "For how long a follower has not heard a leader; 0 on the leader.",
            0.0 if core is None or core.is_leader() else core.stickiness.silence_s(),
        )
        meter = raft.meter
        yield counter("dfs_raft_elections", "Elections that this master stood in.", meter.elections)
        yield counter("dfs_raft_leaderships", "Elections that it won.", meter.leaderships)

    def _log(self) -> Iterator[Metric]:
        core, store = self._raft.meter.core, self._store
        last = core.journal.last_index if core is not None else 0
        entries = len(core.journal) if core is not None else 0
        size_bytes = core.journal.size_bytes if core is not None else 0
        yield gauge("dfs_raft_last_index", "Highest entry in the log.", last)
        yield gauge("dfs_raft_log_entries", "Entries kept in the log.", entries)
        yield gauge("dfs_raft_log_bytes", "Their commands' size, in memory too.", size_bytes)
        yield gauge(
            "dfs_raft_follower_lag_entries",
            "On the leader: entries that a follower is not known to have.",
            _lags(core),
            ("follower",),
        )
        waiting = len(self._raft.proposals)
        yield gauge("dfs_raft_proposals", "Commands that wait to be logged.", waiting)
        yield histogram(
            "dfs_raft_flush_duration_seconds",
            "Flushes of log and state to disk, each one synced transaction.",
            store.flush_timings,
        )
        yield gauge("dfs_master_state_bytes", "Size of the state file.", store.used_bytes())
        disk = self._disk
        yield gauge(
            "dfs_master_disk_free_bytes",
            "Room on the disk of log and state; a master whose disk is full ends.",
            None if disk is None else disk.free_bytes,
        )
        yield gauge(
            "dfs_master_disk_total_bytes",
            "Size of that disk's file system.",
            None if disk is None else disk.total_bytes,
        )

    # -- the state

    def _namespace(self) -> Iterator[Metric]:
        counts = queries.counts(self._store)
        yield gauge("dfs_master_inodes", "Inodes, orphans included.", counts.inodes)
        yield gauge("dfs_master_chunks", "Chunks of all files.", counts.chunks)
        yield gauge("dfs_master_sessions", "Sessions of clients.", counts.sessions)
        about = "Operations of clients, answered by this master as leader."
        yield counter("dfs_master_operations", about, self._meter.done, ("operation",))
        yield counter(
            "dfs_master_refused_operations",
            "The same, refused (no such file, not empty, no permission, no space).",
            self._meter.refused,
            ("operation",),
        )

    def _servers(self) -> Iterator[Metric]:
        leads = self._raft.may_read()
        status = self._chunkservers.status() if leads else ()
        alive = [server.id for server in status if server.alive]
        by_state = {"alive": len(alive), "missing": len(status) - len(alive)}
        yield gauge(
            "dfs_master_chunkservers",
            "On the leader: registered chunkservers.",
            by_state if leads else None,
            ("state",),
        )
        disks = [disk for server in status for disk in server.disks]
        yield gauge(
            "dfs_master_disks",
            "On the leader: disks of the living chunkservers.",
            _by_health([disk.healthy for disk in disks]) if leads else None,
            ("state",),
        )
        total, free = self._chunkservers.space() if leads else (0, 0)
        yield gauge(
            "dfs_master_space_bytes",
            "On the leader: user data that fits, replication divided out.",
            {"total": total, "free": free} if leads else None,
            ("kind",),
        )
        lacking = queries.under_replicated(self._store, alive) if leads else None
        yield gauge(
            "dfs_master_under_replicated_chunks",
            "On the leader: chunks with fewer living replicas than wanted.",
            lacking,
        )
        yield gauge(
            "dfs_master_longest_heartbeat_gap_seconds",
            "On the leader: longest time between two heartbeats of a chunkserver.",
            self._chunkservers.longest_silence_s if leads else None,
        )

    # -- repair

    def _repair(self) -> Iterator[Metric]:
        status = self.repair() if self._raft.may_read() else None
        classes = status.classes if status is not None else ()
        yield gauge(
            "dfs_master_repair_chunks",
            "On the leader: chunks in the repair queue, running ones included.",
            {each.name: each.chunks for each in classes},
            ("class",),
        )
        yield gauge(
            "dfs_master_repair_running",
            "On the leader: repairs at work.",
            {each.name: each.running for each in classes},
            ("class",),
        )
        yield gauge(
            "dfs_master_repair_bytes",
            "On the leader: bytes yet to be copied, as far as known.",
            {each.name: each.bytes for each in classes},
            ("class",),
        )
        copied = status.copied_bytes if status is not None else None
        yield counter("dfs_master_repair_copied_bytes", "Copied since it leads.", copied)
        cap = status.cap_bytes_per_s if status is not None else None
        yield gauge(
            "dfs_master_repair_cap_bytes_per_second", "Most it may copy now; 0: no bound.", cap
        )
        unreadable = status.unreadable if status is not None else None
        yield gauge(
            "dfs_master_unreadable_chunks",
            "On the leader: chunks of which no complete replica is known.",
            unreadable,
        )


def reasons(raft: RaftNode) -> list[str]:
    """Why this master cannot do its part just now; nothing when it can."""
    core = raft.meter.core
    if core is None:
        return ["the cluster is not founded: not all of its masters have been seen yet"]
    if core.removed:
        return ["this master is no member any more"]
    if core.is_leader():
        return [] if core.has_lease() else ["leads, but has not heard from a majority lately"]
    silence_s = core.stickiness.silence_s()
    if not raft.leader_id():
        return ["no leader is known"]
    if silence_s > raft.limits.election_timeout_max_s:
        return [f"no leader has been heard for {silence_s:.1f} s"]
    if core.installing:
        return ["a snapshot is on its way from the leader"]
    behind = max(core.leader_commit, raft.commit_index) - raft.applied_index
    if behind > raft.limits.ready_lag_entries:
        return [f"{behind} committed entries are not applied here yet"]
    return []


def _role(core: Core | None) -> str:
    if core is None or core.removed:
        return "none"
    if core.is_leader():
        return "leader"
    return "candidate" if core.is_candidate() else "follower"


def _lags(core: Core | None) -> dict[str, int]:
    if core is None or not core.is_leader():
        return {}
    others = sorted(peer for peer in core.membership.present if peer != core.id)
    return {str(peer): core.journal.last_index - core.match_index(peer) for peer in others}


def _by_health(healthy: list[bool]) -> dict[str, int]:
    return {"healthy": sum(healthy), "failed": len(healthy) - sum(healthy)}
