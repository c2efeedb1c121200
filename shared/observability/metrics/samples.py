"""Values of metrics: counted on the hot path, read as samples, grouped for Prometheus."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple, TypeAlias

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.utils import floatToGoString

from shared.observability.metrics.names import Counter, Histogram, Metric


class Distribution(NamedTuple):
    """How many values fell into each bucket, the last beyond every bound; and their sum."""

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
"""Reads what an object has counted so far. Called in a thread: it must not wait or raise."""


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


def merged(distributions: Sequence[Distribution]) -> Distribution:
    """The distribution of all values of ``distributions``, which share their bounds."""
    counts = zip(*(each.counts for each in distributions), strict=True)
    return Distribution(tuple(map(sum, counts)), sum(each.total for each in distributions))


def families(samples: Iterable[Sample]) -> Iterable[Family]:
    """The samples as the Prometheus client writes them, one family per metric."""
    by_name: dict[str, list[Sample]] = {}
    for sample in samples:
        by_name.setdefault(sample.metric.name, []).append(sample)
    for series in by_name.values():
        yield _family(series[0].metric, series)


def _family(metric: Metric, series: Iterable[Sample]) -> Family:
    if isinstance(metric, Histogram):
        histogram = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
        bounds = (*map(floatToGoString, metric.bounds), "+Inf")
        for _, value, labels in series:
            assert isinstance(value, Distribution)  # noqa: S101 - as the metric's kind says
            buckets = list(zip(bounds, accumulate(value.counts), strict=True))
            histogram.add_metric(labels, buckets, value.total)
        return histogram
    kind = CounterMetricFamily if isinstance(metric, Counter) else GaugeMetricFamily
    family = kind(metric.name, metric.help, labels=metric.labels)
    for _, value, labels in series:
        assert not isinstance(value, Distribution)  # noqa: S101 - as the metric's kind says
        family.add_metric(labels, value)
    return family
