"""What is said of a service's health, at the moment and over time."""

import asyncio
from collections.abc import Sequence

import httpx
import pytest
from fastapi import FastAPI, Request

from shared.observability.logs import silent
from shared.observability.metrics import Metrics
from shared.web import health
from shared.web.conventions import install_conventions
from shared.web.health import Check, health_router
from tests.serving import served


class Switch:
    """Something to depend on that is up or down as a test wants it."""

    def __init__(self, *, up: bool) -> None:
        self.up = up

    async def ping(self) -> str:
        """Answer, or do not."""
        if not self.up:
            raise ConnectionRefusedError(111, "refused")
        return "fine"


def _app(*checks: Check, tolerated_outage_s: float = health.TOLERATED_OUTAGE_S) -> FastAPI:
    app = FastAPI()
    install_conventions(app, log_access=silent, metrics=Metrics())

    def checks_of(_: Request) -> Sequence[Check]:
        return checks

    app.include_router(
        health_router(
            service="test", version="1", checks=checks_of, tolerated_outage_s=tolerated_outage_s
        )
    )
    return app


async def _ready(client: httpx.AsyncClient) -> bool:
    return (await client.get("/readyz")).status_code == 200


async def _status(client: httpx.AsyncClient) -> str:
    status: str = (await client.get("/health")).json()["status"]
    return status


async def test_degraded_without_an_optional_dependency() -> None:
    """The service stays ready, and says what is missing."""
    checks = Check("a", Switch(up=True).ping), Check("b", Switch(up=False).ping, required=False)
    async with served(_app(*checks)) as client:
        found = (await client.get("/health")).json()
        assert found["status"] == "degraded"
        assert found["checks"]["a"] == {"status": "up", "required": True, "detail": "fine"}
        assert found["checks"]["b"]["status"] == "down"
        assert await _ready(client)


async def test_stuck_dependency_is_one_that_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer waits for it only as long as its limit; the process itself is alive."""

    async def stuck() -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(health, "CHECK_TIMEOUT_S", 0.05)
    async with served(_app(Check("a", stuck))) as client:
        assert not await _ready(client)
        assert await _status(client) == "down"
        assert (await client.get("/livez")).status_code == 200


async def test_not_ready_before_the_first_success() -> None:
    """No patience with what has never worked; then ready without a restart."""
    switch = Switch(up=False)
    async with served(_app(Check("a", switch.ping))) as client:
        assert not await _ready(client)
        assert not await _ready(client)
        switch.up = True
        assert await _ready(client)


async def test_one_slow_ping_does_not_make_a_service_unready() -> None:
    """Readiness outlives a moment; health reports it."""
    switch = Switch(up=True)
    async with served(_app(Check("a", switch.ping), tolerated_outage_s=60)) as client:
        assert await _ready(client)
        switch.up = False
        for _ in range(5):
            assert await _ready(client)
            assert await _status(client) == "down"
        switch.up = True
        assert await _status(client) == "ok"


async def test_not_ready_once_an_outage_has_lasted() -> None:
    """The second failure in a row counts if it comes late enough after the first."""
    switch = Switch(up=True)
    async with served(_app(Check("a", switch.ping), tolerated_outage_s=0.05)) as client:
        assert await _ready(client)
        switch.up = False
        assert await _ready(client)
        await asyncio.sleep(0.1)
        assert not await _ready(client)
        switch.up = True
        assert await _ready(client)


async def test_an_outage_that_is_not_tolerated_counts_at_once() -> None:
    other = Switch(up=True)
    async with served(_app(Check("other", other.ping, tolerant=False))) as client:
        assert await _ready(client)
        other.up = False
        assert not await _ready(client)
        other.up = True
        assert await _ready(client)


async def test_success_between_two_failures_starts_the_patience_anew() -> None:
    """Two slow pings far apart are no outage."""
    switch = Switch(up=True)
    async with served(_app(Check("a", switch.ping), tolerated_outage_s=0.05)) as client:
        for _ in range(3):
            switch.up = True
            assert await _ready(client)
            switch.up = False
            assert await _ready(client)
            await asyncio.sleep(0.1)
