"""The history service's API, composed: the one place where its objects are built.

``python -m shared.web.server services.history.main:create_app``
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from fastapi import FastAPI, Request
from starlette_compress import CompressMiddleware

from services.history import routes, stream
from services.history.cache import Cache
from services.history.comparing import routes as comparing_routes
from services.history.database import open_engine, ping
from services.history.deps import Resources, resources_of
from services.history.monitoring import routes as monitoring_routes
from services.history.monitoring.metrics import ModelMetrics
from services.history.outcomes import routes as outcome_routes
from services.history.retention import Retention
from services.history.rollout import routes as rollout_routes
from services.history.rollout.guard import Guard
from services.history.server_metrics import ServerMetrics
from services.history.settings import CACHE_PREFIX, HistorySettings
from shared.access.api_keys import anonymous
from shared.access.middleware import (
    KEY_BUCKET,
    AccessMiddleware,
    RateLimitBucket,
    document_access,
)
from shared.access.rate_limit import RateLimits
from shared.observability.logs import configure_logging
from shared.observability.metrics import Metrics, build_info
from shared.observability.tracing import Tracing, start_tracing
from shared.redis import check_writable, connect, connect_in_turn
from shared.settings import read_settings_or_exit, redis_faults
from shared.version import VERSION
from shared.web.conventions import documented_app, install_conventions
from shared.web.direct import DirectMiddleware
from shared.web.headers import PRINTABLE, RawHeaders, security_headers
from shared.web.health import Check, health_router

_CACHE_CONNECTIONS: Final = 16
REPORT_PATH: Final = "/monitoring/report"
TITLE = "Loan predictor: history"
DESCRIPTION = """
Every decision of the inference service, stored exactly once, and statistics over all of them.
Statistics are read from counts that are kept while decisions are stored, so their cost does not
grow with the history.
"""


def create_app(
    settings: HistorySettings | None = None, *, tracing: Tracing | None = None
) -> FastAPI:
    """The service; it starts without its servers and is ready once they run.

    Without ``tracing``, the environment says where traces are sent.
    """
    settings = settings or read_settings_or_exit(HistorySettings, redis_faults)
    log_access = configure_logging(settings)

    tracing = tracing or start_tracing("history")
    rate_limits = RateLimits(KEY_BUCKET, "other")
    retention = Retention()
    guard = Guard()
    metrics = Metrics()
    metrics.read_from(build_info("history"), rate_limits.samples, retention.samples, guard.samples)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Resources]]:
        resources = _build_resources(settings, tracing, metrics)
        servers = ServerMetrics(settings, engine=resources.engine, redis=resources.redis)
        metrics.read_from(resources.cache.samples, servers.pool)
        models = ModelMetrics(settings, engine=resources.engine)
        metrics.read_from_servers(servers.samples, models.samples)
        try:
            async with (
                rate_limits.shared_through(resources.redis),
                retention.enforced(resources.stores, settings),
                guard.watching(resources.engine, resources.redis, settings),
            ):
                yield {"resources": resources}
        finally:
            await resources.cache.aclose()
            await resources.redis.aclose()
            await resources.engine.dispose()
            await tracing.close()

    routers = (
        *(routes.records, routes.erasure, outcome_routes.outcomes),
        *(routes.reports, monitoring_routes.monitoring, routes.about),
        *(rollout_routes.queries, comparing_routes.queries),
        *(rollout_routes.admin, comparing_routes.admin),
        *(routes.internal, monitoring_routes.internal, rollout_routes.internal),
        health_router(service="history", version=VERSION, checks=_checks),
    )
    app = documented_app(title=TITLE, description=DESCRIPTION, lifespan=lifespan, routers=routers)
    # The one added last is the outermost.
    app.add_middleware(DirectMiddleware, routers=routers)
    app.add_middleware(CompressMiddleware)
    app.add_middleware(
        AccessMiddleware,
        routes=app.routes,
        keys=settings.all_keys,
        anonymous=anonymous(),
        rate_limits=rate_limits,
        other=RateLimitBucket("other", settings.rate_limit_other),
    )
    install_conventions(
        app,
        log_access=log_access,
        metrics=metrics,
        tracing=tracing,
        cors_origins=settings.cors_allow_origins,
        headers=_headers,
    )
    document_access(app, anonymous=anonymous())
    return app


def _headers(path: str) -> RawHeaders:
    return PRINTABLE if path == REPORT_PATH else security_headers(path)


def _build_resources(settings: HistorySettings, tracing: Tracing, metrics: Metrics) -> Resources:
    return Resources(
        settings=settings,
        tracing=tracing,
        metrics=metrics,
        engine=open_engine(settings, name="history", pool_size=settings.database_pool_size),
        redis=connect(settings.redis_url),
        cache=Cache(
            # Dozens of reads may look up the cache at once: those that wait a moment for a
            # connection are no reason to bypass it.
            connect_in_turn(
                settings.redis_url,
                command_timeout_s=settings.cache_deadline_s,
                max_connections=_CACHE_CONNECTIONS,
            ),
            prefix=CACHE_PREFIX,
        ),
        store=settings.open_store(),
    )


def _checks(request: Request) -> Sequence[Check]:
    resources = resources_of(request.scope)

    async def postgres() -> str:
        return await ping(resources.engine)

    async def redis() -> dict[str, int | float | None]:
        await check_writable(resources.redis)
        backlog = await stream.backlog(resources.redis)
        return {
            "waiting": backlog.entries,
            "in_hand": backlog.pending,
            "dead_letters": backlog.dead_letters,
            "consumer_seen_s_ago": min(backlog.consumers_seen_s_ago, default=None),
            "cache_failures": resources.cache.failures,
        }

    # Without Redis answers are computed afresh and events arrive by HTTP: the service is only
    # degraded, and taking it out of rotation would close the one sink that is left.
    return (
        Check("postgres", postgres),
        Check("redis", redis, required=False),
    )
