"""Names by the conventions, counting as the Prometheus client counts, and quantiles."""

import random
import re
from collections import Counter as Count

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client import Histogram as TheirHistogram

from shared.observability.metrics import Metrics, Sample, Tally, names
from shared.observability.metrics.names import BY_NAME, EXPORTED, Counter, Histogram, Metric
from shared.observability.metrics.samples import Distribution, merged
from shared.web.performance import performance_of, quantile

_DECLARED = [value for value in vars(names).values() if isinstance(value, Metric)]


@pytest.mark.parametrize("metric", _DECLARED, ids=lambda metric: metric.name)
def test_name_follows_the_conventions(metric: Metric) -> None:
    """What promtool's lint would say, and a label never says what only one request has."""
    assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)+", metric.name)
    assert metric.name.endswith("_total") == isinstance(metric, Counter)
    assert not re.search(
        r"(milli|micro|nano|kilo|mega)|_(ms|us|minutes|hours|mib|kb)\b", metric.name
    )
    assert metric.help.endswith(".")
    for label in metric.labels:
        assert re.fullmatch(r"[a-z]+", label)
        assert label not in ("le", "quantile", "id", "client", "path", "request", "user")
        # The help text explains every label that is not obvious.
        assert label in ("method", "model") or f"{label}:" in metric.help
    if isinstance(metric, Histogram):
        assert list(metric.bounds) == sorted(set(metric.bounds))
        assert metric.bounds[0] > 0


def test_each_metric_is_declared_once_and_exported_by_some_process() -> None:
    """A duplicate or unused name would mislead the author of a panel."""
    assert Count(metric.name for metric in _DECLARED).most_common(1)[0][1] == 1
    assert {metric.name for metric in _DECLARED} == BY_NAME.keys()
    assert set(EXPORTED) == {
        *("inference", "history", "consumer", "batch", "batch-worker", "dashboard"),
    }


def test_tally_counts_as_the_prometheus_client_does() -> None:
    """Also a value that is a bound itself, and one beyond the last."""
    metric = names.DECISION_STAGE
    registry = CollectorRegistry()
    theirs = TheirHistogram(
        metric.name, metric.help, metric.labels, buckets=metric.bounds, registry=registry
    ).labels("model")
    ours = Tally(metric)
    rng = random.Random(1)  # noqa: S311 - test data, not a secret
    for value in (*metric.bounds, 100.0, *(rng.expovariate(1000) for _ in range(500))):
        theirs.observe(value)
        ours.add(value)
    metrics = Metrics()
    metrics.read_from(lambda: [Sample(metric, ours.value, ("model",))])

    def lines(text: bytes) -> list[str]:
        return sorted(
            line
            for line in text.decode().splitlines()
            if line.startswith("decision_stage_seconds_")
        )

    their_lines = [line for line in lines(generate_latest(registry)) if "_created" not in line]
    assert lines(generate_latest(metrics)) == their_lines


def test_merged_distribution_is_that_of_all_values() -> None:
    """So the statuses of one route make one set of quantiles."""
    few, many = Distribution((1, 0, 2), 150.0), Distribution((2, 1, 0), 4.0)
    assert merged([few, many]) == Distribution((3, 1, 2), 154.0)


def test_quantiles_are_as_prometheus_estimates_them() -> None:
    """Evenly within a bucket; beyond the last bound nothing is known but that bound."""
    bounds = (1.0, 2.0, 4.0)
    assert quantile(Distribution((0, 10, 0, 0), 15.0), bounds, 0.5) == 1.5
    assert quantile(Distribution((4, 4, 2, 0), 15.0), bounds, 0.9) == 3.0
    assert quantile(Distribution((4, 0, 4, 0), 15.0), bounds, 0.5) == 1.0
    assert quantile(Distribution((1, 0, 0, 99), 990.0), bounds, 0.99) == 4.0


def test_estimated_quantiles_are_within_their_bucket_of_the_true_ones() -> None:
    """The document says at most 1.67 times; and the mean is exact."""
    rng = random.Random(2)  # noqa: S311 - test data, not a secret
    durations = sorted(rng.lognormvariate(-6, 1) for _ in range(10_000))
    metrics = Metrics()
    for number, duration_s in enumerate(durations):
        status = 200 if number % 3 else 503
        metrics.observe_request("GET", "/r", status, duration_s)
    [found] = performance_of(metrics.samples()).routes
    assert (found.method, found.route, found.requests) == ("GET", "/r", 10_000)
    assert found.mean_ms == pytest.approx(sum(durations) / 10)
    for estimated, share in ((found.median_ms, 0.5), (found.p95_ms, 0.95), (found.p99_ms, 0.99)):
        true_ms = durations[int(share * 10_000) - 1] * 1000
        assert 1 / 1.67 < estimated / true_ms < 1.67
