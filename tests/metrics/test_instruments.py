"""Plain counters and histograms, and what Prometheus is told of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric

from dfs.metrics.families import counter, gauge, histogram
from dfs.metrics.instruments import BOUNDS_S, CountsByName, Timings, TimingsByName
from tests.metrics.scraping import Scrape


class Told:
    def __init__(self, *families: Metric) -> None:
        self._families = families

    def collect(self) -> tuple[Metric, ...]:
        return self._families


def told(*families: Metric) -> Scrape:
    registry = CollectorRegistry()
    registry.register(Told(*families))
    return Scrape(generate_latest(registry).decode())


@given(st.lists(st.floats(0, 100)))
def test_a_histogram_counts_each_duration_once_under_every_bound_above_it(
    durations: list[float],
) -> None:
    timings = Timings()
    for seconds in durations:
        timings.observe(seconds)
    scrape = told(histogram("x_seconds", "X.", timings))
    assert scrape.value("x_seconds_count") == timings.count == len(durations)
    assert abs(scrape.value("x_seconds_sum") - sum(durations)) < 1e-6
    for bound in BOUNDS_S:
        below = sum(seconds <= bound for seconds in durations)
        assert scrape.value("x_seconds_bucket", le=str(bound)) == below
    assert scrape.value("x_seconds_bucket", le="+Inf") == len(durations)


def test_histograms_by_name_begin_when_first_asked_for() -> None:
    timings = TimingsByName()
    timings["Create"].observe(0.5)
    timings["Create"].observe(0.5)
    scrape = told(histogram("x_seconds", "X.", timings, "operation"))
    assert scrape.value("x_seconds_count", operation="Create") == 2
    assert not scrape.has("x_seconds_count", operation="Unlink")


def test_counters_end_in_total_and_what_is_not_known_has_no_sample() -> None:
    counts = CountsByName()
    counts["ENOENT"] += 2
    pairs = {("a", "b"): 3}
    scrape = told(
        counter("x_errors", "X.", counts, ("errno",)),
        gauge("x_pairs", "X.", pairs, ("one", "two")),
        gauge("x_unknown", "X.", None),
    )
    assert scrape.value("x_errors_total", errno="ENOENT") == 2
    assert scrape.value("x_pairs", one="a", two="b") == 3
    assert scrape.names() == ["x_errors_total", "x_pairs", "x_unknown"]
    assert not scrape.has("x_unknown")
