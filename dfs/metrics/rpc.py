"""Metrics of a node's connections, from what `dfs.rpc.meter` has counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import Metric

from dfs.metrics.families import counter, histogram
from dfs.rpc.meter import Kind, Kinds, Meter


class Rpc:
    """One endpoint's calls and requests. The label `message` is the class of the request."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def collect(self) -> Iterator[Metric]:
        meter = self._meter
        yield histogram(
            "dfs_rpc_request_duration_seconds",
            "Requests handled here: from their arrival to their answer.",
            _by_name(meter.requests),
            "message",
        )
        yield histogram(
            "dfs_rpc_call_duration_seconds",
            "Requests made to others: from their sending to the answer, or to giving up.",
            _by_name(meter.calls),
            "message",
        )
        yield from self._payloads()
        yield counter(
            "dfs_rpc_request_errors",
            "Requests handled here and answered with an error.",
            {code.name: count for code, count in meter.refusals.items()},
            ("code",),
        )
        yield counter(
            "dfs_rpc_call_errors",
            "Requests made to others and answered with an error, or not at all.",
            {code.name: count for code, count in meter.failed_calls.items()},
            ("code",),
        )
        yield counter(
            "dfs_rpc_refused_connections",
            "Connections of peers that did not prove the cluster key.",
            meter.strangers,
        )

    def _payloads(self) -> Iterator[Metric]:
        both = (("request", self._meter.requests), ("call", self._meter.calls))
        yield counter(
            "dfs_rpc_received_payload_bytes",
            "Payloads received: with requests handled here, with answers to calls made.",
            _payloads(both, lambda kind: kind.received_bytes),
            ("side", "message"),
        )
        yield counter(
            "dfs_rpc_sent_payload_bytes",
            "Payloads sent: with answers to requests handled here, with calls made.",
            _payloads(both, lambda kind: kind.sent_bytes),
            ("side", "message"),
        )


def _by_name(kinds: Kinds) -> dict[str, Kind]:
    return {message.__name__: kind for message, kind in kinds.items()}


def _payloads(
    both: tuple[tuple[str, Kinds], ...], count: Callable[[Kind], int]
) -> dict[tuple[str, ...], int]:
    """Those kinds that have payloads at all."""
    found = {
        (side, name): count(kind)
        for side, kinds in both
        for name, kind in sorted(_by_name(kinds).items())
    }
    return {key: value for key, value in found.items() if value}
