"""What the running system tells Prometheus, held against what is documented."""

import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from redis import Redis

from shared.contract.application import EXAMPLE
from shared.observability.metrics.names import EXPORTED, OF_RECENT_DECISIONS, PROCESS
from shared.version import VERSION
from tests.harness import System, running_batches, running_dashboard, running_system
from tests.prometheus import Exposition
from tests.waiting import until

pytestmark = pytest.mark.system

_LIMIT = 2


@pytest.fixture
def limited(database_url: str, redis_url: str, tmp_path: Path) -> Iterator[System]:
    """The shipped processes, with every figure on that a setting can put on."""
    settings = {
        "DATABASE_BUDGET_BYTES": "1000000000",
        "RATE_LIMIT_OTHER": f"{_LIMIT}/hour",
    }
    with (
        Redis.from_url(redis_url) as redis,
        running_system(
            database_url=database_url,
            redis_url=redis_url,
            logs=tmp_path / "logs",
            settings=settings,
        ) as running,
    ):
        redis.config_set("maxmemory", "384mb")
        yield running
        redis.config_set("maxmemory", "0")


def test_every_process_exports_exactly_what_is_documented(limited: System, tmp_path: Path) -> None:
    """Every name of ``metrics.names``, and none besides; each says who it is."""
    logs = tmp_path / "logs"
    with (
        running_dashboard(limited, logs=logs) as dashboard_url,
        running_batches(limited, logs=logs) as (batch_url, worker_url),
    ):
        for url in (limited.inference_url, limited.history_url, batch_url):
            statuses = [httpx.get(url).status_code for _ in range(_LIMIT + 1)]
            # All services count a caller together, so a later one may refuse from the first on.
            assert statuses[-1] == 429
        urls = {
            "inference": limited.inference_url,
            "history": limited.history_url,
            "consumer": limited.consumer_url,
            "batch": batch_url,
            "batch-worker": worker_url,
            "dashboard": dashboard_url,
        }
        assert urls.keys() == EXPORTED.keys()
        for service, url in urls.items():
            httpx.get(f"{url}/livez")
            told = _told(url)
            expected = {metric.name for metric in EXPORTED[service]}
            if sys.platform != "linux":
                expected -= {metric.name for metric in PROCESS}
            of_none = {metric.name for metric in OF_RECENT_DECISIONS}
            assert told.names - of_none == expected - of_none
            assert told.sum_of("build_info", service=service, version=VERSION) == 1


def test_a_decision_is_seen_on_its_way_by_each_process(system: System) -> None:
    """Decided and handed over once, stored once, and nothing left on the stream."""

    def counted() -> tuple[float, float, float]:
        inference, consumer = _told(system.inference_url), _told(system.consumer_url)
        return (
            inference.sum_of("decisions_total", outcome="approved"),
            inference.sum_of("publish_decisions_total"),
            consumer.sum_of("consumer_rows_total"),
        )

    before = counted()
    headers = {"x-api-key": system.api_key}
    for _ in range(3):
        httpx.post(f"{system.inference_url}/predict", json=EXAMPLE, headers=headers)
    until(lambda: _told(system.history_url).sum_of("stream_entries") == 0)
    until(lambda: counted() == tuple(count + 3 for count in before))
    history = _told(system.history_url)
    assert history.sum_of("stream_up") == history.sum_of("database_up") == 1
    assert history.sum_of("stream_consumers") == 1


def _told(url: str) -> Exposition:
    return Exposition(httpx.get(f"{url}/metrics").text)
