"""The dashboard in this process, before the shipped services."""

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import httpx
import pytest
from fastapi import FastAPI
from nicegui.testing import User
from nicegui.testing.general import nicegui_reset_globals

from services.dashboard.main import create_app
from services.dashboard.settings import DashboardSettings
from tests.harness import HOST, System, empty, free_port

Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture(scope="module")
def standing(shared_system: System) -> System:
    """A history for a whole module: its tests only add decisions, and bring back what they stop."""
    empty(shared_system)
    return shared_system


def settings_of(system: System, **changes: object) -> DashboardSettings:
    """Settings of a dashboard before ``system``."""
    return DashboardSettings.model_validate(
        {
            "inference_url": system.inference_url,
            "history_url": system.history_url,
            "batch_url": f"http://{HOST}:{free_port()}",
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
