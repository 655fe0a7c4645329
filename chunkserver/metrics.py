"""A chunkserver's metrics and its readiness, read from its parts when somebody asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client.core import Metric

from chunkserver.control import Control
from chunkserver.datadir import DataDir
from chunkserver.store import Store
from dfs.messages.chunks import CutChunk, ReadChunk, SyncChunk, WriteChunk
from dfs.metrics.families import Number, counter, gauge, histogram
from dfs.rpc.meter import Meter
from dfs.runtime import Env


@dataclass(frozen=True, slots=True)
class ScrubFigures:
    """How far the scrub of this server is. `finished_s`: how long the last whole pass took."""

    running: bool
    checked_bytes: int  # since the process began
    pass_bytes: int  # of the present pass, done
    pass_total_bytes: int
    passes: int  # finished since the process began
    finished_s: float
    damaged_blocks: int  # found since the process began


# None: there is no scrub to tell of.
Scrub = Callable[[], ScrubFigures | None]


class ChunkserverMetrics:
    """The collector of one chunkserver."""

    def __init__(self, env: Env, meter: Meter, store: Store, control: Control) -> None:
        self._env, self._meter, self._store, self._control = env, meter, store, control
        self.scrub: Scrub = lambda: None

    def collect(self) -> Iterator[Metric]:
        yield gauge(
            "dfs_chunkserver_registered",
            "1 while it is registered with a leading master.",
            int(self._control.registered),
        )
        yield from self._data()
        yield from self._replicas()
        yield from self._disks()
        yield from self._scrub()

    def _data(self) -> Iterator[Metric]:
        requests, store = self._meter.requests, self._store.meter
        yield counter(
            "dfs_chunkserver_read_bytes",
            "Data sent to readers.",
            requests[ReadChunk].sent_bytes,
        )
        yield counter(
            "dfs_chunkserver_written_bytes",
            "Data received down write chains, for each link of them.",
            requests[WriteChunk].received_bytes,
        )
        kinds: tuple[type, ...] = (WriteChunk, SyncChunk, CutChunk)
        calls = {kind.__name__: self._meter.calls[kind] for kind in kinds}
        yield histogram(
            "dfs_chunkserver_chain_duration_seconds",
            "How long the links behind this one took.",
            calls,
            "message",
        )
        yield counter(
            "dfs_chunkserver_broken_links", "Failures of the next link.", store.broken_links
        )
        yield counter(
            "dfs_chunkserver_checksum_mismatches",
            "Data that did not match its checksum: on its way here (packet), on disk (replica).",
            {"packet": store.damaged_packets, "replica": store.damaged_reads},
            ("where",),
        )

    def _replicas(self) -> Iterator[Metric]:
        store = self._store
        yield gauge("dfs_chunkserver_open_replicas", "Replica files open.", store.open_count)
        yield gauge(
            "dfs_chunkserver_unsynced_replicas",
            "Replicas written to and not synced since.",
            store.unsynced_count,
        )

    def _disks(self) -> Iterator[Metric]:
        disks = self._store.directories
        now = self._env.clock.monotonic()
        label = ("disk",)
        yield gauge(
            "dfs_chunkserver_disk_healthy",
            "0 once a disk has failed and is read-only.",
            _by_disk(disks, lambda d: int(d.writable)),
            label,
        )
        yield gauge(
            "dfs_chunkserver_disk_free_bytes",
            "Room for new data, the reserve not counted.",
            _by_disk(disks, lambda d: d.free_bytes),
            label,
        )
        yield gauge(
            "dfs_chunkserver_disk_total_bytes",
            "Size of the file system.",
            _by_disk(disks, lambda d: d.report().total_bytes),
            label,
        )
        yield gauge(
            "dfs_chunkserver_disk_replicas",
            "Replicas on the disk.",
            _by_disk(disks, lambda d: d.replicas),
            label,
        )
        yield gauge(
            "dfs_chunkserver_disk_stalled_seconds",
            "For how long the disk has owed an answer.",
            _by_disk(disks, lambda d: _since(d.lane.busy_since, now)),
            label,
        )
        yield counter(
            "dfs_chunkserver_quarantined_replicas",
            "Unreadable replica files set aside.",
            _by_disk(disks, lambda d: d.quarantined),
            label,
        )
        yield histogram(
            "dfs_chunkserver_disk_sync_duration_seconds",
            "Syncs of replicas, waiting for the disk's turn included.",
            self._store.meter.syncs,
            "disk",
        )

    def _scrub(self) -> Iterator[Metric]:
        scrub = self.scrub()
        yield gauge(
            "dfs_chunkserver_scrub_running",
            "0 while the scrub is paused.",
            None if scrub is None else int(scrub.running),
        )
        yield counter(
            "dfs_chunkserver_scrub_checked_bytes",
            "Data that the scrub has read and checked.",
            None if scrub is None else scrub.checked_bytes,
        )
        yield gauge(
            "dfs_chunkserver_scrub_pass_bytes",
            "The present pass: data checked, and all there is.",
            None if scrub is None else _progress(scrub),
            ("kind",),
        )
        yield counter(
            "dfs_chunkserver_scrub_passes",
            "Whole passes finished.",
            None if scrub is None else scrub.passes,
        )
        yield gauge(
            "dfs_chunkserver_scrub_last_pass_seconds",
            "How long the last whole pass took; 0 before the first.",
            None if scrub is None else scrub.finished_s,
        )
        yield counter(
            "dfs_chunkserver_scrub_damaged_blocks",
            "Damaged blocks that the scrub has found.",
            None if scrub is None else scrub.damaged_blocks,
        )


def reasons(store: Store, control: Control) -> list[str]:
    """Why this chunkserver cannot do its part just now; nothing when it can."""
    found = []
    if not control.registered:
        found.append("not registered with a leading master")
    if not any(directory.writable for directory in store.directories):
        problems = "; ".join(f"{d.path}: {d.problem}" for d in store.directories)
        found.append(f"no disk is healthy: {problems}")
    return found


def _by_disk(disks: list[DataDir], value: Callable[[DataDir], Number]) -> dict[str, Number]:
    return {disk.path: value(disk) for disk in disks}


def _since(busy_since: float | None, now: float) -> float:
    return 0.0 if busy_since is None else max(0.0, now - busy_since)


def _progress(scrub: ScrubFigures) -> dict[str, Number]:
    return {"checked": scrub.pass_bytes, "total": scrub.pass_total_bytes}
