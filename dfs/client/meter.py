"""What a client counts; read by `dfs.client.metrics`."""

from __future__ import annotations

from dataclasses import dataclass, field

from dfs.metrics.instruments import TimingsByName


@dataclass(slots=True)
class ClientMeter:
    """Of one client, since it was opened."""

    read_bytes: int = 0  # given to the caller
    written_bytes: int = 0  # taken from the caller
    cache_hits: int = 0  # pieces of reads that needed no chunkserver
    cache_misses: int = 0
    in_flight_packets: int = 0
    in_flight_bytes: int = 0
    checksum_mismatches: int = 0  # answers of chunkservers that were passed over for that
    failed_reads: int = 0  # attempts, each at one replica
    failed_writes: int = 0  # attempts, each at one chain
    dropped_replicas: int = 0  # taken out of their chunk's set because they failed a write
    write_errors: int = 0  # that callers are told of
    master_retries: int = 0
    lost_sessions: int = 0
    operations: TimingsByName = field(default_factory=TimingsByName)
    unanswered_since: float | None = None  # monotonic; since when every attempt at masters failed
