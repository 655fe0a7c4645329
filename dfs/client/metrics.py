"""A client's metrics and its readiness, read from its parts when somebody asks."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric

from dfs.client.client import Client
from dfs.client.services import Services
from dfs.metrics.families import counter, gauge, histogram

# An election may take as long (C6) without anybody being told.
UNREADY_AFTER_S = 3.0


class ClientMetrics:
    """The collector of one client."""

    def __init__(self, client: Client) -> None:
        self._client, self._services = client, client.services

    def collect(self) -> Iterator[Metric]:
        yield from self._data()
        yield from self._dirty()
        yield from self._cache()
        yield from self._trouble()
        yield from self._masters()

    def _data(self) -> Iterator[Metric]:
        meter = self._services.meter
        yield counter("dfs_client_read_bytes", "Data given to programs.", meter.read_bytes)
        yield counter("dfs_client_written_bytes", "Data taken from programs.", meter.written_bytes)
        yield histogram(
            "dfs_client_operation_duration_seconds",
            "Changes of names and attributes, all attempts and failovers included.",
            meter.operations,
            "operation",
        )
        yield gauge("dfs_client_open_files", "Inodes open.", self._client.open_count)

    def _dirty(self) -> Iterator[Metric]:
        budget, meter = self._services.dirty_budget, self._services.meter
        about = "Written data that is not on its replicas yet, with its bookkeeping."
        yield gauge("dfs_client_dirty_bytes", about, budget.taken_bytes)
        yield gauge("dfs_client_dirty_limit_bytes", "Where writers wait.", budget.limit_bytes)
        about = "Of the dirty data, what is on its way to chunkservers."
        yield gauge("dfs_client_in_flight_bytes", about, meter.in_flight_bytes)
        yield gauge("dfs_client_in_flight_packets", "The same in packets.", meter.in_flight_packets)

    def _cache(self) -> Iterator[Metric]:
        meter, cache = self._services.meter, self._services.cache
        about = "Pieces of reads answered from read-ahead or unsent writes."
        yield counter("dfs_client_cache_hits", about, meter.cache_hits)
        about = "Pieces of reads that a chunkserver had to be asked for."
        yield counter("dfs_client_cache_misses", about, meter.cache_misses)
        yield gauge("dfs_client_cache_bytes", "Data kept of what was read.", cache.used_bytes)

    def _trouble(self) -> Iterator[Metric]:
        meter = self._services.meter
        yield counter(
            "dfs_client_checksum_mismatches",
            "Answers of chunkservers that did not match their checksums and were not used.",
            meter.checksum_mismatches,
        )
        yield counter(
            "dfs_client_retries",
            "Attempts that failed and were made anew, elsewhere or later.",
            {
                "master": meter.master_retries,
                "read": meter.failed_reads,
                "write": meter.failed_writes,
            },
            ("what",),
        )
        about = "Replicas that failed a write and were taken out of their chunk's set."
        yield counter("dfs_client_dropped_replicas", about, meter.dropped_replicas)
        about = "Writes that failed for good; programs are told by write, fsync or close."
        yield counter("dfs_client_write_errors", about, meter.write_errors)

    def _masters(self) -> Iterator[Metric]:
        services, meter = self._services, self._services.meter
        yield gauge(
            "dfs_client_session", "1 while it has a session.", int(bool(services.session.id))
        )
        about = "Sessions that expired; files that were open are lost."
        yield counter("dfs_client_lost_sessions", about, meter.lost_sessions)
        yield gauge(
            "dfs_client_unanswered_seconds",
            "For how long every request to the masters has failed; 0 when the last one did not.",
            _unanswered_s(services),
        )


def reasons(client: Client) -> list[str]:
    """Why this client cannot serve just now; nothing when it can."""
    services = client.services
    if not services.session.id:
        return ["no session with the masters"]
    silent_s = _unanswered_s(services)
    if silent_s > UNREADY_AFTER_S:
        return [f"no leading master has answered for {silent_s:.0f} s"]
    return []


def _unanswered_s(services: Services) -> float:
    since = services.meter.unanswered_since
    return 0.0 if since is None else services.env.clock.monotonic() - since
