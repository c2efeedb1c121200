"""The inference service, composed: the one place where its objects are built.

``python -m shared.web.server services.inference.main:create_app``
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial

import httpx
from fastapi import FastAPI, Request
from redis.asyncio import Redis

from services.inference import model_routes, open_inference, routes
from services.inference.deps import DocumentedBundle, Resources, resources_of, serve
from services.inference.registration import registering
from services.inference.settings import InferenceSettings
from services.scoring.explain import Explainer
from services.scoring.follower import Follower
from services.scoring.idempotency import Idempotency
from services.scoring.manifest import BundleError
from services.scoring.metrics import DecisionMetrics
from services.scoring.publisher import (
    HistoryService,
    Publisher,
    http_sink,
    reasons_sink,
    redis_sink,
)
from services.scoring.registry import load_bundle
from services.scoring.replay import Bundles
from shared.access.api_keys import anonymous
from shared.access.middleware import (
    KEY_BUCKET,
    AccessMiddleware,
    RateLimitBucket,
    document_access,
)
from shared.access.rate_limit import RateLimits
from shared.observability.logs import configure_logging, get_logger
from shared.observability.metrics import Metrics, Sample, build_info
from shared.observability.metrics.names import BUNDLE_INFO
from shared.observability.tracing import Tracing, start_tracing
from shared.redis import REDIS_ERRORS, check_writable, connect, connect_in_turn
from shared.settings import read_settings_or_exit, redis_faults
from shared.version import VERSION
from shared.web.conventions import documented_app, install_conventions
from shared.web.direct import DirectMiddleware
from shared.web.health import Check, health_router

_IDEMPOTENCY_CONNECTIONS = 8
_PENDING_SLACK_S = 1.0
_log = get_logger(__name__)

TITLE = "Loan predictor: inference"
DESCRIPTION = """
Decides loan applications with scikit-learn models served by ONNX Runtime.
Every decision that is answered has been recorded first; what cannot be recorded is answered with
503. The benchmark of all models is no decision, and is not recorded. Gender and marital status are
recorded for fairness monitoring and never scored.
"""


def create_app(
    settings: InferenceSettings | None = None, *, tracing: Tracing | None = None
) -> FastAPI:
    """The service, with its models verified and loaded; nothing is connected before it starts.

    Raises ``SystemExit``, with the reason in the log, when a setting or the bundle cannot be used.
    Traces go where the environment says unless ``tracing`` is given.
    """
    settings = settings or read_settings_or_exit(InferenceSettings, redis_faults)
    log_access = configure_logging(settings)
    try:
        bundle = load_bundle(settings.bundle_root, settings.bundle_version)
    except BundleError as error:
        _log.critical("the bundle cannot be used", reason=str(error))
        raise SystemExit(1) from None

    tracing = tracing or start_tracing("inference")
    rate_limits = RateLimits(KEY_BUCKET, "predict", "benchmark", "explain", "other")
    metrics = Metrics()
    decision_metrics = DecisionMetrics()
    compose = partial(serve, decision_metrics)
    served = compose(bundle)
    served.expect()
    metrics.read_from(build_info("inference"), rate_limits.samples, decision_metrics.samples)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Resources]]:
        async with (
            httpx.AsyncClient() as history,
            connect(settings.redis_url) as redis,
            # Publishing has a connection to itself, so that nothing slow stands in its way.
            connect(
                settings.redis_url, command_timeout_s=settings.publish_redis_deadline_s
            ) as stream,
            # A repeated request waits for its own turn here, and never in the way of publishing.
            connect_in_turn(
                settings.redis_url,
                command_timeout_s=settings.idempotency_deadline_s,
                max_connections=_IDEMPOTENCY_CONNECTIONS,
            ) as answers,
            rate_limits.shared_through(redis),
            registering(
                history,
                settings.bundle_root,
                history_url=settings.history_url,
                api_key=_internal_key(settings),
            ),
        ):
            with suppress(*REDIS_ERRORS):
                # Dialled now, so that the first decision does not wait for it within its deadline.
                await stream.ping()
            publisher = _build_publisher(settings, stream, history)
            idempotency = Idempotency(
                answers,
                deadline_s=settings.idempotency_deadline_s,
                pending_s=_pending_s(settings),
                budget=settings.idempotency_budget,
            )

            def install(newer: DocumentedBundle) -> None:
                resources.served = newer

            store = settings.open_store()
            follower = Follower(
                served, kind="inference", store=store, compose=compose, install=install
            )
            resources = Resources(
                served=served,
                follower=follower,
                bundles=Bundles(store, follower.loaded),
                publisher=publisher,
                idempotency=idempotency,
                redis=redis,
                metrics=metrics,
                explainer=Explainer(),
                store_reasons=reasons_sink(history, **_history(settings)),
            )
            metrics.read_from(
                *(publisher.samples, idempotency.samples, follower.samples),
                lambda: _bundle_info(resources),
            )
            async with follower.following(
                history,
                redis,
                history_url=settings.history_url,
                api_key=_internal_key(settings),
            ):
                yield {"resources": resources}
            await publisher.drain()
            await tracing.close()

    routers = (
        *(routes.together, routes.decisions, routes.explanations),
        *(model_routes.router, routes.about, open_inference.router),
        health_router(service="inference", version=VERSION, checks=_checks),
    )
    app = documented_app(title=TITLE, description=DESCRIPTION, lifespan=lifespan, routers=routers)
    # The one added last is the outermost.
    app.add_middleware(DirectMiddleware, routers=routers)
    without_key = anonymous("predict") if settings.allow_anonymous else anonymous()
    predict = RateLimitBucket("predict", settings.rate_limit_predict)
    explain = RateLimitBucket("explain", settings.rate_limit_explain)
    app.add_middleware(
        AccessMiddleware,
        routes=app.routes,
        keys=settings.all_keys,
        anonymous=without_key,
        rate_limits=rate_limits,
        buckets={
            "/predict": predict,
            "/predict/{model}": predict,
            "/predict/many": predict,
            "/v2/models/{model}/infer": predict,
            "/v2/models/{model}/versions/{version}/infer": predict,
            "/explain": explain,
            "/explain/{model}": explain,
            "/reasons": explain,
            "/models/benchmark": RateLimitBucket("benchmark", settings.rate_limit_benchmark),
        },
        other=RateLimitBucket("other", settings.rate_limit_other),
    )
    install_conventions(
        app,
        log_access=log_access,
        metrics=metrics,
        tracing=tracing,
        cors_origins=settings.cors_allow_origins,
    )
    document_access(app, anonymous=without_key)
    return app


def _build_publisher(
    settings: InferenceSettings, stream: Redis, history: httpx.AsyncClient
) -> Publisher:
    return Publisher(
        stream=redis_sink(stream, deadline_s=settings.publish_redis_deadline_s),
        fallback=http_sink(history, **_history(settings)),
    )


def _history(settings: InferenceSettings) -> HistoryService:
    return {
        "history_url": settings.history_url,
        "api_key": _internal_key(settings),
        "deadline_s": settings.publish_http_deadline_s,
    }


def _internal_key(settings: InferenceSettings) -> str | None:
    key = settings.internal_api_key
    return key.get_secret_value() if key else None


def _pending_s(settings: InferenceSettings) -> float:
    """How long a decision may take: the group before it fails on both sinks, then its own does."""
    deadlines_s = settings.publish_redis_deadline_s + settings.publish_http_deadline_s
    return 2 * deadlines_s + _PENDING_SLACK_S


def _bundle_info(resources: Resources) -> Iterable[Sample]:
    manifest = resources.served.bundle.manifest
    yield Sample(BUNDLE_INFO, 1, (manifest.version, manifest.champion))


def _checks(request: Request) -> Sequence[Check]:
    resources = resources_of(request.scope)

    async def bundle() -> dict[str, object]:
        manifest = resources.served.bundle.manifest
        return {
            "version": manifest.version,
            "champion": manifest.champion,
            "models": sorted(manifest.models),
        }

    # Without Redis decisions are handed over by HTTP, so the service is only degraded.
    return (
        Check("bundle", bundle),
        Check("rollout", resources.follower.check, tolerant=False),
        Check("redis", lambda: check_writable(resources.redis), required=False),
    )
