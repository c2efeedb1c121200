"""The dashboard in this process, before the shipped services."""

import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import httpx
import pytest
from fastapi import FastAPI
from nicegui.testing import User
from nicegui.testing.general import nicegui_reset_globals
from redis import Redis

from services.dashboard.main import create_app
from services.dashboard.settings import DashboardSettings
from services.local import servers
from services.local.servers import Server
from tests.harness import HOST, System, free_port, running_system

Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture(scope="module")
def standing(
    postgres_server: Server,
    redis_server: Server,
    migrated_database: str,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[System]:
    """One system for a whole module: its tests only add decisions, or bring back what they stop."""
    name = f"standing_{request.module.__name__.rpartition('.')[2]}"
    servers.run_sql(postgres_server.url, f"CREATE DATABASE {name} TEMPLATE {migrated_database}")
    with Redis.from_url(redis_server.url) as client:
        client.flushall()
    with running_system(
        database_url=postgres_server.url.replace("/postgres?", f"/{name}?"),
        redis_url=redis_server.url,
        logs=tmp_path_factory.mktemp("logs"),
    ) as system:
        yield system


def settings_of(system: System, **changes: object) -> DashboardSettings:
    """Settings of a dashboard before ``system``."""
    return DashboardSettings.model_validate(
        {
            "inference_url": system.inference_url,
            "history_url": system.history_url,
            "dashboard_api_key": system.api_key,
        }
        | changes
    )


def settings_of_nothing(**changes: object) -> DashboardSettings:
    """Settings of a dashboard whose services are away."""
    url = f"http://{HOST}:{free_port()}"
    return DashboardSettings.model_validate({"inference_url": url, "history_url": url} | changes)


@asynccontextmanager
async def started(settings: DashboardSettings) -> AsyncIterator[FastAPI]:
    """The dashboard as it ships, running on this event loop."""
    # NiceGUI keeps its pages in globals of its own; clearing them also unloads the modules that
    # registered pages, which other tests still hold.
    modules = dict(sys.modules)
    try:
        with nicegui_reset_globals():
            app = create_app(settings)
            async with app.router.lifespan_context(app):
                yield app
    finally:
        sys.modules.update(modules)


def client_of(
    app: FastAPI, *, address: str = HOST, host: str = f"{HOST}:8002"
) -> httpx.AsyncClient:
    """A client at ``address`` that calls the dashboard by the name ``host``."""
    transport = httpx.ASGITransport(app, client=(address, 50000))
    return httpx.AsyncClient(transport=transport, base_url=f"http://{host}")


@pytest.fixture
async def user(standing: System) -> AsyncIterator[User]:
    """Somebody at this machine, with a page to open."""
    async with started(settings_of(standing)) as app, client_of(app) as http:
        yield User(http)
