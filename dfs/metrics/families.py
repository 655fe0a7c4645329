"""Plain numbers as the metric families that prometheus_client writes out.

Names follow its conventions: base units, `_total` for counters (which the library appends).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from dfs.metrics.instruments import BOUNDS_S, Timings

_BOUNDS = (*map(str, BOUNDS_S), "+Inf")

Number = int | float
# One value, or by the values of the labels (a lone label's without a tuple around it). None: not
# known here, so there is no sample.
Values = (
    Number
    | Mapping[str, Number]
    | Mapping[tuple[str, str], Number]
    | Mapping[tuple[str, ...], Number]
    | None
)
Histograms = Timings | Mapping[str, Timings]


class Collector(Protocol):
    """Tells the metrics of one subject, as they are when it is asked."""

    def collect(self) -> Iterable[Metric]: ...


def gauge(name: str, about: str, values: Values, labels: tuple[str, ...] = ()) -> Metric:
    """What may go up and down."""
    family = GaugeMetricFamily(name, about, labels=labels)
    for key, value in _items(values):
        family.add_metric(key, value)
    return family


def counter(name: str, about: str, values: Values, labels: tuple[str, ...] = ()) -> Metric:
    """What only goes up while the process lives."""
    family = CounterMetricFamily(name, about, labels=labels)
    for key, value in _items(values):
        family.add_metric(key, value)
    return family


def histogram(name: str, about: str, timings: Histograms, label: str = "") -> Metric:
    """One histogram, or one for each value of the label."""
    family = HistogramMetricFamily(name, about, labels=(label,) if label else ())
    found = {"": timings} if isinstance(timings, Timings) else timings
    for value, each in sorted(found.items()):
        family.add_metric((value,) if label else (), list(_cumulative(each)), each.sum_s)
    return family


def _items(values: Values) -> Iterator[tuple[tuple[str, ...], Number]]:
    if isinstance(values, int | float):
        yield (), values
    elif values is not None:
        for key, value in values.items():
            yield (key,) if isinstance(key, str) else key, value


def _cumulative(timings: Timings) -> Iterator[tuple[str, float]]:
    count = 0
    for bound, more in zip(_BOUNDS, timings.buckets, strict=True):
        count += more
        yield bound, count
