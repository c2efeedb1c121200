"""The batch service's API, composed: the one place where its objects are built.

``python -m shared.web.server services.batch.main:create_app``
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from anyio import CapacityLimiter
from fastapi import FastAPI, Request

from services.batch import routes
from services.batch.database import open_pool, ping
from services.batch.deps import Resources, resources_of
from services.batch.intake import served_manifest
from services.batch.settings import BatchSettings, webhook_faults
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
from shared.redis import check_writable, connect
from shared.settings import read_settings_or_exit, redis_faults
from shared.version import VERSION
from shared.web.conventions import documented_app, install_conventions
from shared.web.health import Check, health_router

_CONNECTIONS: Final = 5
TITLE = "Loan predictor: batches"
DESCRIPTION = """
Files of applications, decided in the background. A batch is worked off by the worker, a chunk at a
time: whatever is killed or restarted meanwhile, every good row is decided and recorded exactly
once, and every faulty one is named by its line.
"""


def create_app(settings: BatchSettings | None = None, *, tracing: Tracing | None = None) -> FastAPI:
    """The service; it starts without its servers and is ready once they run.

    Without ``tracing``, the environment says where traces are sent.
    """
    settings = settings or read_settings_or_exit(BatchSettings, redis_faults, webhook_faults)
    log_access = configure_logging(settings)
    tracing = tracing or start_tracing("batch")
    rate_limits = RateLimits(KEY_BUCKET, "other")
    metrics = Metrics()
    metrics.read_from(build_info("batch"), rate_limits.samples)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Resources]]:
        async with (
            open_pool(settings, name="batch", size=_CONNECTIONS) as pool,
            connect(settings.redis_url) as redis,
            rate_limits.shared_through(redis),
        ):
            yield {
                "resources": Resources(
                    settings=settings,
                    pool=pool,
                    redis=redis,
                    store=settings.open_store(),
                    metrics=metrics,
                    checking=CapacityLimiter(1),
                )
            }
        await tracing.close()

    health = health_router(service="batch", version=VERSION, checks=_checks)
    app = documented_app(
        title=TITLE,
        description=DESCRIPTION,
        lifespan=lifespan,
        routers=(routes.batches, routes.about, health),
    )
    # The one added last is the outermost.
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
    )
    document_access(app, anonymous=anonymous())
    return app


def _checks(request: Request) -> Sequence[Check]:
    resources = resources_of(request.scope)

    async def bundle() -> dict[str, str]:
        manifest = await served_manifest(resources.settings, resources.store, resources.redis)
        return {"version": manifest.version, "champion": manifest.champion}

    # Without Redis limits are counted alone, and decisions wait or are handed over by HTTP.
    return (
        Check("postgres", lambda: ping(resources.pool)),
        Check("bundle", bundle),
        Check("redis", lambda: check_writable(resources.redis), required=False),
    )
