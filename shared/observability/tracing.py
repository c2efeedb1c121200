"""Traces: where the time of one request went, through both services, for any OpenTelemetry viewer.

Off unless ``OTEL_EXPORTER_OTLP_ENDPOINT`` names a collector; the other standard variables
(``OTEL_*``) mean what they mean everywhere. Spans bear ids, models and outcomes, and nothing about
an applicant.
"""

import asyncio
import os
import threading
import time
from collections.abc import Iterable
from random import random
from typing import TYPE_CHECKING, Final

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, StatusCode, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.contract.events import PredictionRecorded
from shared.observability.logs import get_logger
from shared.observability.metrics import UNKNOWN_ROUTE
from shared.version import VERSION

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

DEFAULT_SHARE: Final = 0.001
"""Of the requests that come without a trace of their caller's. A traced decision costs about four
times what another does: see ADR 18."""
FLUSH_S: Final = 3.0
"""How long a process that ends may take to send its last spans."""

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_SAMPLER: Final = "OTEL_TRACES_SAMPLER"
_SHARE: Final = "OTEL_TRACES_SAMPLER_ARG"
_BY_SHARE: Final = "parentbased_traceidratio"
_TRACEPARENT: Final = "traceparent"
_MARK: Final = b'"traceparent":"'
_AS_OF_HTTP: Final = TraceContextTextMapPropagator()
_log = get_logger(__name__)


class Trace:
    """The spans of one request: one around all of it, and in that one for each step."""

    def __init__(self, tracing: "Tracing", span: Span) -> None:
        self._tracer = tracing.tracer
        self._span = span
        self._inside = set_span_in_context(span, Context())
        self._step: Span | None = None

    def step(self, name: str) -> None:
        """From here on the request is at this step, and no longer at the one before."""
        self.end_step()
        self._step = self._tracer.start_span(name, context=self._inside)

    def end_step(self) -> None:
        """The step is over; the request is between two."""
        if self._step is not None:
            self._step.end()
            self._step = None

    @property
    def traceparent(self) -> str:
        """What makes another process's span a part of the present step."""
        carrier: dict[str, str] = {}
        _AS_OF_HTTP.inject(carrier, set_span_in_context(self._step or self._span, Context()))
        return carrier[_TRACEPARENT]

    def describe(self, **attributes: str) -> None:
        """Add what became known of the request."""
        self._span.set_attributes(attributes)

    def end(self, *, method: str, route: str, status: int, request_id: str) -> None:
        """The request is over; ``status`` is 0 if nothing was answered."""
        self.end_step()
        self._span.update_name(f"{method} {route}")
        self._span.set_attributes(
            {"http.request.method": method, "http.route": route, "request_id": request_id}
        )
        if status:
            self._span.set_attribute("http.response.status_code", status)
        if status >= 500 or not status:
            self._span.set_status(StatusCode.ERROR)
        self._span.end()


class Tracing:
    """Traces the requests that are to be, and sends their spans from a thread of its own.

    ``share`` of the requests that are no part of a trace may begin one; only then the provider's
    sampler is asked, which costs fifty times as much as a number at random.
    """

    def __init__(self, provider: "TracerProvider", *, share: float) -> None:
        self._provider = provider
        self._share = share
        self.tracer = provider.get_tracer("loan-predictor", VERSION)

    def begin(self, scope: Scope) -> Trace | None:
        """The trace of a request, part of its caller's if it has one; None if it has none."""
        context = _callers(scope)
        if context is None:
            if random() >= self._share:  # noqa: S311 - a sample, not a secret
                return None
            context = Context()
        span = self.tracer.start_span(scope["method"], context=context, kind=SpanKind.SERVER)
        return Trace(self, span) if span.is_recording() else None

    def committed(self, events: Iterable[bytes], *, rows: int, began_ns: int) -> None:
        """Give each event that is part of a trace the span of the transaction that stored it."""
        ended_ns = time.time_ns()
        for event in events:
            if _MARK in event:
                self._committed(event, rows=rows, began_ns=began_ns, ended_ns=ended_ns)

    def _committed(self, event: bytes, *, rows: int, began_ns: int, ended_ns: int) -> None:
        recorded = PredictionRecorded.model_validate_json(event)
        context = _parsed(recorded.traceparent)
        if context is not None:
            span = self.tracer.start_span(
                "store",
                context=context,
                kind=SpanKind.CONSUMER,
                start_time=began_ns,
                attributes={
                    "rows": rows,
                    "request_id": recorded.request_id,
                    "prediction_id": str(recorded.decision.prediction_id),
                },
            )
            span.end(ended_ns)

    async def close(self) -> None:
        """Send what is left, for at most ``FLUSH_S``: a collector that is away delays no update."""
        last = threading.Thread(target=self._provider.shutdown, name="last spans", daemon=True)
        last.start()
        await asyncio.to_thread(last.join, FLUSH_S)


class TracingMiddleware:
    """Traces requests, to be found by ``trace_of``; a process that traces nothing has it not."""

    def __init__(self, app: ASGIApp, *, tracing: Tracing) -> None:
        self.app = app
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, which has its id."""
        trace = self._tracing.begin(scope) if scope["type"] == "http" else None
        if trace is None:
            await self.app(scope, receive, send)
            return
        scope["state"]["trace"] = trace
        status = 0

        async def send_noting_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, send_noting_status)
        finally:
            trace.end(
                method=scope["method"],
                route=getattr(scope.get("route"), "path", UNKNOWN_ROUTE),
                status=status,
                request_id=scope["state"]["request_id"],
            )


def trace_of(scope: Scope) -> Trace | None:
    """The trace of this request, None if it is not traced."""
    trace: Trace | None = scope["state"].get("trace")
    return trace


def start_tracing(service: str) -> Tracing | None:
    """Traces under the name ``service``, as the environment says; None if it says nothing.

    Raises ``SystemExit``, with the reason in the log, when it says what cannot be done.
    """
    if not any(os.environ.get(name) for name in _ENDPOINTS):
        return None
    try:
        return _start(service)
    except ImportError as error:
        reason = f'OTEL_EXPORTER_OTLP_ENDPOINT needs the extra "tracing": {error}'
    except ValueError as error:
        reason = str(error)
    _log.critical("traces cannot be sent", reason=reason)
    raise SystemExit(1)


def _start(service: str) -> Tracing:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    from opentelemetry.sdk.trace.sampling import DEFAULT_ON  # noqa: PLC0415

    by_share = (os.environ.get(_SAMPLER) or _BY_SHARE) == _BY_SHARE
    provider = TracerProvider(
        # Whoever is not left out by the share is traced. Any other sampler is the library's affair.
        sampler=DEFAULT_ON if by_share else None,
        resource=_resource(service),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider, share=_share() if by_share else 1.0)


def _share() -> float:
    """As the standard says, 1 where the sampler is named without a share; ours where nothing is."""
    text = os.environ.get(_SHARE) or ("1" if os.environ.get(_SAMPLER) else str(DEFAULT_SHARE))
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise ValueError(f"{_SHARE} must be a number from 0 to 1")
    return share


def _resource(service: str) -> "Resource":
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415

    ours = {"service.name": service, "service.namespace": "loan-predictor"}
    # What the environment says stands above it.
    return Resource.create({**ours, "service.version": VERSION}).merge(
        OTELResourceDetector().detect()
    )


def _callers(scope: Scope) -> Context | None:
    """The caller's trace, if the request is part of one."""
    for name, value in scope["headers"]:
        if name == b"traceparent":
            return _parsed(value.decode("latin-1"))
    return None


def _parsed(traceparent: str | None) -> Context | None:
    if traceparent is None:
        return None
    context = _AS_OF_HTTP.extract({_TRACEPARENT: traceparent}, Context())
    return context if get_current_span(context).get_span_context().is_valid else None
