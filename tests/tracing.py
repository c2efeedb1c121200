"""Traces to be looked at: kept in this process, or sent to a collector here."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import DEFAULT_ON

from shared.observability.tracing import SpanTracing, Tracing
from tests.harness import HOST

TRACE: str = f"{0xABC:032x}"
CALLER: str = f"{0xDEF:016x}"
TRACEPARENT: str = f"00-{TRACE}-{CALLER}-01"
"""What a caller sends whose own system traces the request."""


@contextmanager
def traces(*, share: float) -> Iterator[tuple[Tracing, InMemorySpanExporter]]:
    """A tracing that keeps its spans, and where they are kept."""
    kept = InMemorySpanExporter()
    provider = TracerProvider(sampler=DEFAULT_ON, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    yield SpanTracing(provider, share=share), kept
    provider.shutdown()


class Received(NamedTuple):
    """A span as a collector knows it."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, str]


@contextmanager
def collector() -> Iterator[tuple[str, list[Received]]]:
    """The address of a collector that takes OTLP over HTTP, and what it received so far."""
    received: list[Received] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            received.extend(_read(ExportTraceServiceRequest.FromString(body)))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer((HOST, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://{HOST}:{server.server_port}", received
        finally:
            server.shutdown()
            thread.join()


def _read(request: ExportTraceServiceRequest) -> Iterator[Received]:
    for group in request.resource_spans:
        resource = _texts(group.resource.attributes)
        for scope in group.scope_spans:
            for span in scope.spans:
                yield Received(
                    service=resource["service.name"],
                    name=span.name,
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    attributes=_texts(span.attributes),
                )


def _texts(attributes: Iterable[KeyValue]) -> dict[str, str]:
    return {pair.key: pair.value.string_value for pair in attributes}


def trace_id(span: ReadableSpan) -> str:
    """The trace that the span is part of."""
    return f"{span.context.trace_id:032x}"


def span_id(span: ReadableSpan) -> str:
    """The span's own id."""
    return f"{span.context.span_id:016x}"


def parent_id(span: ReadableSpan) -> str | None:
    """The id of the span that it stands in; None at the top."""
    return None if span.parent is None else f"{span.parent.span_id:016x}"
