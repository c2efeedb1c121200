"""What was counted: tallies on the hot path, samples of them, and the sum over several workers."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate
from typing import NamedTuple, TypeAlias

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.utils import floatToGoString

from shared.observability.metrics.names import BY_NAME, Counter, Gauge, Histogram, Metric


class Distribution(NamedTuple):
    """Values by the bucket they fell into, the last beyond every bound; and their sum."""

    counts: tuple[int, ...]
    total: float

    @property
    def size(self) -> int:
        """How many values there were."""
        return sum(self.counts)


Value: TypeAlias = float | Distribution
"""Of a counter or gauge, or of a histogram."""


class Sample(NamedTuple):
    """The value of one series, with one value for each of its metric's labels."""

    metric: Metric
    value: Value
    labels: tuple[str, ...] = ()


Source: TypeAlias = Callable[[], Iterable[Sample]]
"""Reads what some object has counted so far. Called in a thread: it must not wait or raise."""

Snapshot: TypeAlias = Mapping[tuple[str, tuple[str, ...]], Value]
"""Every series by its metric's name and its labels' values."""


class Tally:
    """Counts the values of one series of a histogram; 0.1 us each."""

    __slots__ = ("_bounds", "_counts", "_total")

    def __init__(self, histogram: Histogram) -> None:
        self._bounds = histogram.bounds
        self._counts = [0] * (len(histogram.bounds) + 1)
        self._total = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    @property
    def value(self) -> Distribution:
        """Everything so far."""
        return Distribution(tuple(self._counts), self._total)


def snapshot(samples: Iterable[Sample]) -> dict[tuple[str, tuple[str, ...]], Value]:
    """The samples, by their series."""
    return {(metric.name, labels): value for metric, value, labels in samples}


def together(own: Snapshot, others: Iterable[Snapshot]) -> Snapshot:
    """What all workers of a service have counted, each metric added up as it declares."""
    total = dict(own)
    for other in others:
        for series, value in other.items():
            found = total.get(series)
            total[series] = value if found is None else _both(BY_NAME[series[0]], found, value)
    return total


def number_of(counted: Snapshot, metric: Counter | Gauge) -> float:
    """The value of a metric without labels; 0 if it is not there."""
    value = counted.get((metric.name, ()), 0.0)
    assert not isinstance(value, Distribution)  # noqa: S101 - as the metric's kind says
    return value


def lasting(counted: Snapshot) -> Snapshot:
    """What outlives a worker: what only counts up."""
    return {
        series: value
        for series, value in counted.items()
        if not isinstance(BY_NAME[series[0]], Gauge)
    }


def _both(metric: Metric, one: Value, other: Value) -> Value:
    if isinstance(one, Distribution) and isinstance(other, Distribution):
        counts = (mine + theirs for mine, theirs in zip(one.counts, other.counts, strict=True))
        return Distribution(tuple(counts), one.total + other.total)
    assert not isinstance(one, Distribution)  # noqa: S101 - one metric has one kind of value
    assert not isinstance(other, Distribution)  # noqa: S101
    if isinstance(metric, Gauge) and metric.of_workers != "sum":
        return max(one, other) if metric.of_workers == "max" else one
    return one + other


def families(counted: Snapshot) -> Iterable[Family]:
    """The series in the form that the Prometheus client writes out."""
    by_name: dict[str, list[tuple[tuple[str, ...], Value]]] = {}
    for (name, labels), value in counted.items():
        by_name.setdefault(name, []).append((labels, value))
    for name, series in by_name.items():
        yield _family(BY_NAME[name], series)


def _family(metric: Metric, series: Iterable[tuple[tuple[str, ...], Value]]) -> Family:
    if isinstance(metric, Histogram):
        histogram = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
        bounds = (*map(floatToGoString, metric.bounds), "+Inf")
        for labels, value in series:
            assert isinstance(value, Distribution)  # noqa: S101 - as the metric's kind says
            buckets = list(zip(bounds, accumulate(value.counts), strict=True))
            histogram.add_metric(labels, buckets, value.total)
        return histogram
    kind = CounterMetricFamily if isinstance(metric, Counter) else GaugeMetricFamily
    family = kind(metric.name, metric.help, labels=metric.labels)
    for labels, value in series:
        assert not isinstance(value, Distribution)  # noqa: S101 - as the metric's kind says
        family.add_metric(labels, value)
    return family
