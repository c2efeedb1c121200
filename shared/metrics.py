"""What a process counts about itself, for Prometheus. Every name and label stands here.

Names follow the Prometheus conventions: base units, ``_total`` for counters. No label holds an id,
a client or anything else without bound. Counts that another object keeps anyway are read from it
when Prometheus asks, so that they cost a request nothing.
"""

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response

PATH: Final = "/metrics"
UNKNOWN_ROUTE: Final = "unknown"
"""Stands for every path that is no route, or a scanner could make a series per request."""

_DURATIONS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


class Reading(NamedTuple):
    """One figure that some object keeps, read when asked for."""

    name: str
    help: str
    read: Callable[[], float]
    counts_up: bool = True


class Metrics:
    """The metrics of one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._durations = Histogram(
            "http_request_duration_seconds",
            "Time from the arrival of a request to the end of its answer.",
            ("method", "route", "status"),
            buckets=_DURATIONS_S,
            registry=self.registry,
        )

    def observe_request(self, *, method: str, route: str, status: int, duration_s: float) -> None:
        """Count one answered request under its route's template."""
        self._durations.labels(method, route, status).observe(duration_s)

    def read_from(self, readings: Iterable[Reading]) -> None:
        """Add figures that are read from elsewhere whenever Prometheus asks."""
        self.registry.register(_Readings(tuple(readings)))

    async def respond(self, _: Request) -> Response:
        """Everything, in the text format of Prometheus."""
        return Response(generate_latest(self.registry), media_type=CONTENT_TYPE_LATEST)


class _Readings:
    def __init__(self, readings: tuple[Reading, ...]) -> None:
        self._readings = readings

    def collect(self) -> Iterable[Metric]:
        for reading in self._readings:
            family = CounterMetricFamily if reading.counts_up else GaugeMetricFamily
            yield family(reading.name, reading.help, value=reading.read())
