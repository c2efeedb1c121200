"""The dashboard, composed: the one place where its objects are built.

``python -m shared.web.server services.dashboard.main:create_app``. One process: pages live in its
memory.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from nicegui import app as pages_app
from nicegui import ui
from starlette.exceptions import HTTPException

from loan_predictor_client import AsyncLoanPredictorClient, RetryPolicy
from services.dashboard import theme
from services.dashboard.authentication import Authentication, page_headers
from services.dashboard.drafts import Drafts
from services.dashboard.login import Authenticator, login_router
from services.dashboard.outcomes import Uploads
from services.dashboard.pages import (
    batch,
    decide,
    history,
    models,
    monitoring,
    not_found,
    outcomes,
    papers,
    record,
    rollout,
    statistics,
    what_if,
)
from services.dashboard.sessions import Session, Sessions
from services.dashboard.settings import DashboardSettings
from services.dashboard.watch import Watch
from shared.observability.logs import configure_logging
from shared.observability.metrics import Metrics, build_info
from shared.settings import read_settings_or_exit
from shared.version import VERSION
from shared.web.conventions import NO_TELEMETRY, install_conventions
from shared.web.health import Check, health_router

_RETRY_POLICY = RetryPolicy(attempts=2, total_s=5, attempt_s=3)
"""A person is waiting, and the page tries again by itself."""


def create_app(settings: DashboardSettings | None = None) -> FastAPI:
    """The dashboard; it connects to nothing before it starts."""
    settings = settings or read_settings_or_exit(DashboardSettings)
    log_access = configure_logging(settings)
    key = settings.dashboard_api_key
    client = AsyncLoanPredictorClient(
        settings.inference_url,
        settings.history_url,
        batch_url=settings.batch_url,
        api_key=key.get_secret_value() if key else None,
        retry_policy=_RETRY_POLICY,
    )
    sessions = Sessions()
    drafts = Drafts()
    uploads = Uploads()
    watch = Watch(client)
    local = Session("this machine", client) if settings.dashboard_password is None else None

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with client, watch.watching():
            yield
            await uploads.stop()

    app = FastAPI(
        title="Loan predictor: dashboard",
        version=VERSION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        telemetry=NO_TELEMETRY,
    )
    routers = (
        health_router(service="dashboard", version=VERSION, checks=_checks(client)),
        theme.assets_router(),
        login_router(Authenticator(settings, sessions=sessions, client=client)),
        history.export_router(),
        models.pictures_router(),
        monitoring.report_router(),
        papers.papers_router(),
        batch.files_router(drafts),
        outcomes.files_router(uploads),
    )
    for router in routers:
        app.router.routes += router.routes
    app.add_middleware(
        Authentication, sessions=sessions, local=local, limits=settings.rate_limit_dashboard
    )
    metrics = Metrics()
    metrics.read_from(build_info("dashboard"))
    install_conventions(app, log_access=log_access, metrics=metrics, headers=page_headers)
    # NiceGUI's own app, which is mounted in this one, answers its errors alike.
    pages_app.add_exception_handler(HTTPException, app.exception_handlers[HTTPException])
    # Last, because the pages take every path that is left.
    for page in (decide, history, record, statistics, models, monitoring, rollout, what_if):
        page.register(watch)
    batch.register(watch, drafts)
    outcomes.register(watch, uploads)
    not_found.register(watch)
    # Quasar's loading bar has no accessible name and says nothing that the pages do not.
    pages_app.config.quasar_config["loadingBar"] = {"skipHijack": True}
    ui.run_with(
        app,
        title="Loan predictor",
        favicon=theme.FOLDER / "favicon.svg",
        language="en-US",
        tailwind=False,
        binding_refresh_interval=None,
        show_welcome_message=False,
    )
    return app


def _checks(client: AsyncLoanPredictorClient) -> Callable[[Request], Sequence[Check]]:
    # Not required: without the services the pages still say so.
    def checks(_: Request) -> Sequence[Check]:
        return (
            Check("inference", lambda: client.health("inference"), required=False),
            Check("history", lambda: client.health("history"), required=False),
        )

    return checks
