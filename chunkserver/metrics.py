"""A chunkserver's metrics and its readiness, read from its parts when somebody asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from prometheus_client.core import Metric

from chunkserver.control import Control
from chunkserver.datadir import DataDir
from chunkserver.store import Store
from dfs.messages.chunks import CutChunk, ReadChunk, SyncChunk, WriteChunk
from dfs.metrics.families import Number, counter, gauge, histogram
from dfs.rpc.meter import Meter
from dfs.runtime import Env

SCRUB_STATES = ("running", "waiting", "paused", "off", "failed")


class PassFigures(Protocol):
    """One reading of a whole disk; all zeros where there was none. Times since 1970."""

    @property
    def began_ns(self) -> int: ...
    @property
    def ended_ns(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    @property
    def found(self) -> int:
        """Damaged blocks, and replicas that could not be read."""
        ...


class ScrubFigures(Protocol):
    """One disk's scrub, damage and quarantine. `state` is one of `SCRUB_STATES`."""

    @property
    def path(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def current(self) -> PassFigures: ...
    @property
    def last(self) -> PassFigures: ...
    @property
    def fraction(self) -> float: ...
    @property
    def bytes_per_s(self) -> float: ...
    @property
    def damaged_blocks(self) -> int: ...
    @property
    def read_errors(self) -> int: ...
    @property
    def quarantined_blocks(self) -> int: ...
    @property
    def quarantined_replicas(self) -> int: ...
    @property
    def quarantined_bytes(self) -> int: ...


Scrub = Callable[[], Sequence[ScrubFigures]]


class ChunkserverMetrics:
    """The collector of one chunkserver. `scrub` tells how far it is, one entry for each disk."""

    def __init__(self, env: Env, meter: Meter, store: Store) -> None:
        self._env, self._meter, self._store = env, meter, store
        self.control: Control | None = None  # none before the server serves
        self.scrub: Scrub = tuple

    def reasons(self) -> list[str]:
        """Why this chunkserver cannot do its part just now; nothing when it can."""
        if self.control is None:
            return ["starting"]
        found = [] if self.control.registered else ["not registered with a leading master"]
        disks = self._store.directories
        if not any(disk.writable for disk in disks):
            problems = "; ".join(f"{disk.path}: {disk.problem}" for disk in disks)
            found.append(f"no disk is healthy: {problems}")
        return found

    def collect(self) -> Iterator[Metric]:
        yield gauge(
            "dfs_chunkserver_registered",
            "1 while it is registered with a leading master.",
            int(self.control is not None and self.control.registered),
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
            len(store.syncing),
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
        yield histogram(
            "dfs_chunkserver_disk_sync_duration_seconds",
            "Syncs of replicas, waiting for the disk's turn included.",
            self._store.meter.syncs,
            "disk",
        )

    def _scrub(self) -> Iterator[Metric]:
        disks = self.scrub()

        def of_disks(name: str, about: str, value: Callable[[ScrubFigures], Number]) -> Metric:
            return gauge(name, about, {d.path: value(d) for d in disks}, ("disk",))

        yield gauge(
            "dfs_chunkserver_scrub_state",
            "1 for what the scrub of the disk does just now.",
            {(d.path, state): int(d.state == state) for d in disks for state in SCRUB_STATES},
            ("disk", "state"),
        )
        yield of_disks(
            "dfs_chunkserver_scrub_pass_bytes",
            "Read and checked in the present pass.",
            lambda d: d.current.bytes,
        )
        yield of_disks(
            "dfs_chunkserver_scrub_pass_ratio",
            "How much of the present pass is done, 0 to 1.",
            lambda d: d.fraction,
        )
        yield of_disks(
            "dfs_chunkserver_scrub_rate_bytes_per_second", "Lately.", lambda d: d.bytes_per_s
        )
        yield of_disks(
            "dfs_chunkserver_scrub_last_pass_end_timestamp_seconds",
            "When the last whole pass ended, since 1970; 0: there was none.",
            lambda d: d.last.ended_ns / 1e9,
        )
        yield of_disks(
            "dfs_chunkserver_scrub_last_pass_seconds",
            "How long it took.",
            lambda d: (d.last.ended_ns - d.last.began_ns) / 1e9,
        )
        yield of_disks(
            "dfs_chunkserver_scrub_last_pass_found_blocks",
            "Damaged blocks that it found.",
            lambda d: d.last.found,
        )
        yield of_disks(
            "dfs_chunkserver_damaged_blocks",
            "Blocks known to be damaged and not mended yet.",
            lambda d: d.damaged_blocks,
        )
        yield counter(
            "dfs_chunkserver_disk_read_errors",
            "Blocks that the disk could not read.",
            {d.path: d.read_errors for d in disks},
            ("disk",),
        )
        yield gauge(
            "dfs_chunkserver_quarantined_files",
            "Damaged blocks and unreadable replicas that are set aside.",
            {
                (d.path, kind): count
                for d in disks
                for kind, count in (
                    ("block", d.quarantined_blocks),
                    ("replica", d.quarantined_replicas),
                )
            },
            ("disk", "kind"),
        )
        yield of_disks(
            "dfs_chunkserver_quarantined_bytes", "Their size.", lambda d: d.quarantined_bytes
        )


def _by_disk(disks: list[DataDir], value: Callable[[DataDir], Number]) -> dict[str, Number]:
    return {disk.path: value(disk) for disk in disks}


def _since(busy_since: float | None, now: float) -> float:
    return 0.0 if busy_since is None else max(0.0, now - busy_since)
