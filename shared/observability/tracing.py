"""Traces: where the time of one request went, through both services, for any OpenTelemetry viewer.

Off unless ``OTEL_EXPORTER_OTLP_ENDPOINT`` names a collector; the other standard variables
(``OTEL_*``) have their usual meaning. Spans bear ids, models and outcomes, and nothing about an
applicant. ``shared.web.tracing`` begins and ends the trace of each HTTP request.
"""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterable
from random import random
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from opentelemetry.context import Context
from opentelemetry.trace import (
    Span,
    SpanKind,
    StatusCode,
    Tracer,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from shared.contract.events import PredictionRecorded
from shared.observability.logs import get_logger
from shared.version import VERSION

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

DEFAULT_SHARE: Final = 0.001
"""Of the requests without a caller's trace. A traced decision costs about four times what another
does: see ADR 18."""
FLUSH_S: Final = 3.0
"""How long a process that ends may take to send its last spans."""

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_SAMPLER: Final = "OTEL_TRACES_SAMPLER"
_SHARE: Final = "OTEL_TRACES_SAMPLER_ARG"
_BY_SHARE: Final = "parentbased_traceidratio"
TRACEPARENT: Final = "traceparent"
_MARK: Final = b'"traceparent":"'
_W3C: Final = TraceContextTextMapPropagator()
_log = get_logger(__name__)


class Trace:
    """The spans of one request. This base is the trace of a request that is not traced: no spans.

    Callers need not know which they have, and what they report to this one costs next to nothing.
    """

    __slots__ = ()

    @property
    def event_member(self) -> bytes:
        """The ``traceparent`` member of an event and its comma, by which others join this trace."""
        return b""

    def step(self, name: str) -> None:
        """From here on the request is at this step, and no longer at the one before."""

    def end_step(self) -> None:
        """The step is over; the request is between two."""

    def describe(self, **attributes: str) -> None:
        """Add what became known of the request."""

    def end(self, *, method: str, route: str, status: int, request_id: str) -> None:
        """The request is over; ``status`` is 0 if nothing was answered."""


NO_TRACE: Final = Trace()


class SpanTrace(Trace):
    """One span around the whole request, and inside it one for each step."""

    __slots__ = ("_inside", "_span", "_step", "_tracer")

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer = tracer
        self._span = span
        self._inside = set_span_in_context(span, Context())
        self._step: Span | None = None

    @property
    def event_member(self) -> bytes:
        """Makes another process's span a part of the present step."""
        carrier: dict[str, str] = {}
        _W3C.inject(carrier, set_span_in_context(self._step or self._span, Context()))
        return _MARK + carrier[TRACEPARENT].encode() + b'",'

    def step(self, name: str) -> None:
        """Begin the span of this step, inside the request's."""
        self.end_step()
        self._step = self._tracer.start_span(name, context=self._inside)

    def end_step(self) -> None:
        """End the span of the step, if one is open."""
        if self._step is not None:
            self._step.end()
            self._step = None

    def describe(self, **attributes: str) -> None:
        """Set attributes of the request's span."""
        self._span.set_attributes(attributes)

    def end(self, *, method: str, route: str, status: int, request_id: str) -> None:
        """Name the request's span after the route, mark it as failed if it did, and end it."""
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
    """Traces the requests of a process. This base, for want of a collector, traces none."""

    def begin(self, method: str, traceparent: str | None) -> Trace:  # noqa: ARG002  of no use here
        """The trace of a request, part of its caller's if ``traceparent`` names one."""
        return NO_TRACE

    def committed(self, events: Iterable[bytes], *, rows: int, began_ns: int) -> None:
        """Give each event that is part of a trace the span of the transaction that stored it."""

    async def close(self) -> None:
        """Send what is left."""


NO_TRACING: Final = Tracing()


class SpanTracing(Tracing):
    """Sends the spans of the chosen requests from a thread of its own.

    ``share`` is the share of the requests without a caller's trace that may begin one. Only for
    those is the provider's sampler asked, which costs fifty times as much as a random number.
    """

    def __init__(self, provider: "TracerProvider", *, share: float) -> None:
        self._provider = provider
        self._share = share
        self._tracer = provider.get_tracer("loan-predictor", VERSION)

    def begin(self, method: str, traceparent: str | None) -> Trace:
        """Begin a trace, or join the caller's; ``NO_TRACE`` if this request is left out."""
        context = _parsed(traceparent)
        if context is None:
            if random() >= self._share:  # noqa: S311 - a sample, not a secret
                return NO_TRACE
            context = Context()
        span = self._tracer.start_span(method, context=context, kind=SpanKind.SERVER)
        return SpanTrace(self._tracer, span) if span.is_recording() else NO_TRACE

    def committed(self, events: Iterable[bytes], *, rows: int, began_ns: int) -> None:
        """Add a span ``store``, from ``began_ns`` to now, to the trace of each event."""
        ended_ns = time.time_ns()
        for event in events:
            if _MARK in event:
                self._committed(event, rows=rows, began_ns=began_ns, ended_ns=ended_ns)

    def _committed(self, event: bytes, *, rows: int, began_ns: int, ended_ns: int) -> None:
        recorded = PredictionRecorded.model_validate_json(event)
        context = _parsed(recorded.traceparent)
        if context is not None:
            span = self._tracer.start_span(
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


def start_tracing(service: str) -> Tracing:
    """Tracing under the name ``service`` as the environment asks; ``NO_TRACING`` if it does not.

    Raises ``SystemExit``, with the reason in the log, when it asks for what cannot be done.
    """
    if not any(os.environ.get(name) for name in _ENDPOINTS):
        return NO_TRACING
    if faults := tracing_faults():
        reason = "; ".join(faults)
    else:
        try:
            return _start(service)
        except ImportError as error:
            reason = f'OTEL_EXPORTER_OTLP_ENDPOINT needs the extra "tracing": {error}'
    _log.critical("traces cannot be sent", reason=reason)
    raise SystemExit(1)


def tracing_faults() -> list[str]:
    """A line for each variable about traces that cannot be used; none while there are no traces."""
    endpoints = [name for name in _ENDPOINTS if os.environ.get(name)]
    checks: dict[str, Callable[[str], object]] = dict.fromkeys(endpoints, http_address)
    if endpoints and _by_share() and os.environ.get(_SHARE):
        checks[_SHARE] = _parse_share
    faults = []
    for name, check in checks.items():
        try:
            check(os.environ[name])
        except ValueError as error:
            faults.append(f"{name}: {error}")
    return faults


def http_address(value: str) -> str:
    """``value`` unchanged; raises ``ValueError`` if it is no address of an HTTP service."""
    url = urlsplit(value)
    if url.scheme not in ("http", "https") or not url.hostname or url.port == 0:
        raise ValueError("must be an address such as http://127.0.0.1:8001")
    return value


def _start(service: str) -> SpanTracing:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    from opentelemetry.sdk.trace.sampling import DEFAULT_ON  # noqa: PLC0415

    provider = TracerProvider(
        # The share has already decided. Any other sampler is left to the library.
        sampler=DEFAULT_ON if _by_share() else None,
        resource=_resource(service),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return SpanTracing(provider, share=_share() if _by_share() else 1.0)


def _by_share() -> bool:
    return (os.environ.get(_SAMPLER) or _BY_SHARE) == _BY_SHARE


def _share() -> float:
    """The share that is set; 1, as the standard says, where only the sampler is; else our own."""
    if text := os.environ.get(_SHARE):
        return _parse_share(text)
    return 1.0 if os.environ.get(_SAMPLER) else DEFAULT_SHARE


def _parse_share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise ValueError("must be a number from 0 to 1")
    return share


def _resource(service: str) -> "Resource":
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415

    ours = {"service.name": service, "service.namespace": "loan-predictor"}
    # What the environment sets takes precedence.
    return Resource.create({**ours, "service.version": VERSION}).merge(
        OTELResourceDetector().detect()
    )


def _parsed(traceparent: str | None) -> Context | None:
    if traceparent is None:
        return None
    context = _W3C.extract({TRACEPARENT: traceparent}, Context())
    return context if get_current_span(context).get_span_context().is_valid else None
