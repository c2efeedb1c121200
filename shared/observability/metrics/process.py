"""The metrics of one process, collected when Prometheus asks."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from itertools import chain
from typing import Final

from prometheus_client import ProcessCollector, generate_latest
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from shared.observability.metrics.names import BUILD_INFO, BY_NAME, HTTP_REQUEST_DURATION
from shared.observability.metrics.samples import Sample, Source, Tally, families
from shared.version import VERSION

PATH: Final = "/metrics"

AsyncSource = Callable[[], Awaitable[Iterable[Sample]]]
"""Asks another server for samples; returns soon whatever that server does, and does not raise."""


class Metrics(Collector):
    """Everything that a process exports, read from the objects that count it."""

    def __init__(self) -> None:
        self._requests: dict[tuple[str, str, int], Tally] = {}
        self._process = ProcessCollector(registry=None)
        self._sources: list[Source] = [self._process_samples, self._request_samples]
        self._async_sources: list[AsyncSource] = []

    def observe_request(self, method: str, route: str, status: int, duration_s: float) -> None:
        """Count one answered request under its route's template."""
        tally = self._requests.get((method, route, status))
        if tally is None:
            tally = self._requests[method, route, status] = Tally(HTTP_REQUEST_DURATION)
        tally.add(duration_s)

    def read_from(self, *sources: Source) -> None:
        """Export what other objects count."""
        self._sources += sources

    def read_from_servers(self, *sources: AsyncSource) -> None:
        """Export what other servers report; each scrape asks them anew."""
        self._async_sources += sources

    def samples(self) -> Iterable[Sample]:
        """Everything that this process has counted; asks no other server."""
        return chain.from_iterable(source() for source in self._sources)

    def collect(self) -> Iterable[Family]:
        """The same for the Prometheus client."""
        return families(self.samples())

    async def exposition(self) -> bytes:
        """Everything, other servers' samples included, in the text format of Prometheus."""
        reported = await asyncio.gather(*(source() for source in self._async_sources))
        return await asyncio.to_thread(self._text, chain.from_iterable(reported))

    def _text(self, reported: Iterable[Sample]) -> bytes:
        return generate_latest(_Collected(families(chain(self.samples(), reported))))

    def _request_samples(self) -> Iterable[Sample]:
        for (method, route, status), tally in list(self._requests.items()):
            yield Sample(HTTP_REQUEST_DURATION, tally.value, (method, route, str(status)))

    def _process_samples(self) -> Iterable[Sample]:
        for family in self._process.collect():
            for sample in family.samples:
                yield Sample(BY_NAME[sample.name], sample.value)


def build_info(service: str) -> Source:
    """Exports which service this is, and its version."""
    sample = Sample(BUILD_INFO, 1, (service, VERSION))
    return lambda: (sample,)


class _Collected(Collector):
    def __init__(self, collected: Iterable[Family]) -> None:
        self._collected = collected

    def collect(self) -> Iterable[Family]:
        return self._collected
