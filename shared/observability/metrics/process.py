"""The metrics of one process, or of all workers that serve one port together."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Final

from prometheus_client import ProcessCollector, generate_latest
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from shared.observability.metrics.names import BUILD_INFO, BY_NAME, HTTP_REQUEST_DURATION
from shared.observability.metrics.samples import (
    Sample,
    Snapshot,
    Source,
    Tally,
    families,
    snapshot,
    together,
)
from shared.observability.metrics.workers import FOLDER_VARIABLE, Place, take_place
from shared.version import VERSION

PATH: Final = "/metrics"

_WRITE_EVERY_S: Final = 1.0

Asked = Callable[[], Awaitable[Iterable[Sample]]]
"""Asks another server; it must answer soon whatever that server does, and not raise."""


class Metrics(Collector):
    """Everything that a process exports.

    It reads from the objects that count, whenever somebody asks; nothing is kept twice.
    """

    def __init__(self) -> None:
        self._requests: dict[tuple[str, str, int], Tally] = {}
        self._process = ProcessCollector(registry=None)
        self._sources: list[Source] = [self._process_samples, self._request_samples]
        self._asked: list[Asked] = []
        self._place: Place | None = None

    def observe_request(self, method: str, route: str, status: int, duration_s: float) -> None:
        """Count one answered request under its route's template."""
        tally = self._requests.get((method, route, status))
        if tally is None:
            tally = self._requests[method, route, status] = Tally(HTTP_REQUEST_DURATION)
        tally.add(duration_s)

    def read_from(self, *sources: Source) -> None:
        """Add what other objects count."""
        self._sources += sources

    def ask(self, asked: Asked) -> None:
        """Add what other servers tell, each time anew; every worker would tell the same."""
        self._asked.append(asked)

    async def counted(self) -> Snapshot:
        """What this process and every other worker of its service have counted."""
        return await asyncio.to_thread(self._counted)

    async def exposition(self) -> bytes:
        """Everything, in the text format of Prometheus (``CONTENT_TYPE_LATEST``)."""
        told = await asyncio.gather(*(asked() for asked in self._asked))
        return await asyncio.to_thread(self._text, snapshot(chain.from_iterable(told)))

    def collect(self) -> Iterable[Family]:
        """What this process has counted, for the Prometheus client; asks no other server."""
        return families(self._own())

    @asynccontextmanager
    async def shared_with_workers(self) -> AsyncIterator[None]:
        """While the block runs, let the other workers of this service know what is counted here.

        Nothing is done where there is but one.
        """
        folder = os.environ.get(FOLDER_VARIABLE)
        if folder is None:
            yield
            return
        place = self._place = await asyncio.to_thread(take_place, Path(folder))
        leaving = asyncio.Event()
        writing = asyncio.create_task(self._keep_writing(place, leaving))
        try:
            yield
        finally:
            leaving.set()
            await writing
            place.leave()

    async def _keep_writing(self, place: Place, leaving: asyncio.Event) -> None:
        while not leaving.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(leaving.wait(), _WRITE_EVERY_S)
            await asyncio.to_thread(place.write, self._own)

    def _text(self, told: Snapshot) -> bytes:
        return generate_latest(_Collected({**self._counted(), **told}))

    def _counted(self) -> Snapshot:
        """Reads files."""
        if self._place is None:
            return self._own()
        # What is told is written down first: whatever dies afterwards, no counter goes back.
        return together(self._place.write(self._own), self._place.others())

    def _own(self) -> Snapshot:
        return snapshot(sample for source in self._sources for sample in source())

    def _request_samples(self) -> Iterable[Sample]:
        for (method, route, status), tally in list(self._requests.items()):
            yield Sample(HTTP_REQUEST_DURATION, tally.value, (method, route, str(status)))

    def _process_samples(self) -> Iterable[Sample]:
        for family in self._process.collect():
            for sample in family.samples:
                yield Sample(BY_NAME[sample.name], sample.value)


def build_info(service: str) -> Source:
    """Says which service this is, and of which version."""
    sample = Sample(BUILD_INFO, 1, (service, VERSION))
    return lambda: (sample,)


class _Collected(Collector):
    def __init__(self, counted: Snapshot) -> None:
        self._counted = counted

    def collect(self) -> Iterable[Family]:
        return families(self._counted)
