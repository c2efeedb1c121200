"""When there is a trace, whose it is, and that it delays nothing."""

import json
import subprocess
import sys
import threading
from pathlib import Path
from unittest.mock import Mock

import pytest
from fastapi import FastAPI
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider

from shared.observability import tracing as module
from shared.observability.logs import silent
from shared.observability.metrics import Metrics
from shared.observability.tracing import (
    DEFAULT_SHARE,
    NO_TRACE,
    NO_TRACING,
    SpanTracing,
    Tracing,
    start_tracing,
)
from shared.web.conventions import install_conventions
from shared.web.tracing import TracingMiddleware, trace_of
from tests.serving import served
from tests.tracing import CALLER, TRACE, TRACEPARENT, parent_id, trace_id, traces

_COLLECTOR = "OTEL_EXPORTER_OTLP_ENDPOINT"
_ABSENT = "http://127.0.0.1:1"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (_COLLECTOR, "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"):
        monkeypatch.delenv(name, raising=False)


def _app(tracing: Tracing) -> FastAPI:
    app = FastAPI()

    @app.get("/things/{number}")
    async def thing(number: int) -> int:
        return 1 // number

    install_conventions(app, log_access=silent, metrics=Metrics(), tracing=tracing)
    return app


async def _spans(*paths: str, share: float, **headers: str) -> tuple[ReadableSpan, ...]:
    """What is traced of requests to these paths."""
    with traces(share=share) as (tracing, kept):
        async with served(_app(tracing)) as client:
            for path in paths:
                await client.get(path, headers=headers)
        return kept.get_finished_spans()


def test_nothing_is_traced_unless_a_collector_is_named() -> None:
    """Then a request passes no code of it at all."""
    assert start_tracing("test") is NO_TRACING
    layers: list[object] = [layer.cls for layer in _app(NO_TRACING).user_middleware]
    assert TracingMiddleware not in layers


def test_request_that_is_not_traced_has_a_trace_without_effect() -> None:
    trace = trace_of({"state": {}})
    trace.step("model")
    trace.describe(model="random_forest")
    assert trace.event_member == b""
    trace.end_step()
    trace.end(method="GET", route="/", status=200, request_id="order-66")
    assert trace is NO_TRACE


async def test_request_is_a_span_under_its_template() -> None:
    """Its path, which may name a loan, is not in it."""
    [span] = await _spans(
        "/things/7431?loan_id=7431", share=1, **{"x-request-id": "order-66", "user-agent": "7431"}
    )
    assert span.name == "GET /things/{number}"
    assert span.parent is None
    assert dict(span.attributes or {}) == {
        "http.request.method": "GET",
        "http.route": "/things/{number}",
        "http.response.status_code": 200,
        "request_id": "order-66",
    }
    assert "7431" not in span.to_json()


async def test_unexpected_error_is_marked_and_not_quoted() -> None:
    """That it failed is in the trace; what it said is in the log alone."""
    [span] = await _spans("/things/0", share=1)
    assert not span.status.is_ok
    assert "division" not in span.to_json()


@pytest.mark.parametrize(
    ("share", "traceparent", "expected"),
    [
        (0, TRACEPARENT, [(TRACE, CALLER)]),
        (1, TRACEPARENT.removesuffix("1") + "0", []),
        (0, f"00-{TRACE}-{'0' * 16}-01", []),
        (0, "order-66", []),
        (0, "\xe9", []),
    ],
)
async def test_the_callers_trace_is_taken_up_or_left_as_the_caller_says(
    share: float, traceparent: str, expected: list[tuple[str, str]]
) -> None:
    """Whatever the share; what is no trace is treated as none."""
    with traces(share=share) as (tracing, kept):
        async with served(_app(tracing)) as client:
            headers = [(b"traceparent", traceparent.encode("latin-1"))]
            await client.get("/things/7", headers=headers)
        found = [(trace_id(span), parent_id(span)) for span in kept.get_finished_spans()]
    assert found == expected


async def test_only_the_share_of_other_requests_is_traced() -> None:
    """None of them at 0, all of them at 1."""
    paths = ["/things/7"] * 20
    assert len(await _spans(*paths, share=0)) == 0
    assert len(await _spans(*paths, share=1)) == 20


@pytest.mark.parametrize(
    ("sampler", "argument", "share"),
    [
        (None, None, DEFAULT_SHARE),
        ("", "", DEFAULT_SHARE),
        (None, "0.5", 0.5),
        ("parentbased_traceidratio", "0.25", 0.25),
        ("parentbased_traceidratio", None, 1),
        # The others are the library's own, which has to see every request.
        ("always_on", "0.25", 1),
    ],
)
async def test_share_follows_the_standard_variables(
    monkeypatch: pytest.MonkeyPatch, sampler: str | None, argument: str | None, share: float
) -> None:
    """Ours is the default alone."""
    for name, value in (
        (_COLLECTOR, _ABSENT),
        ("OTEL_TRACES_SAMPLER", sampler),
        ("OTEL_TRACES_SAMPLER_ARG", argument),
    ):
        if value is not None:
            monkeypatch.setenv(name, value)
    made = Mock()
    monkeypatch.setattr(module, "SpanTracing", made)
    start_tracing("test")
    provider: TracerProvider = made.call_args.args[0]
    assert made.call_args.kwargs == {"share": share}
    assert provider.resource.attributes["service.name"] == "test"
    provider.shutdown()


_START = """
import sys
from shared.observability.logs import take_over_output
from shared.observability.tracing import start_tracing
take_over_output()
{}
start_tracing("test")
"""


@pytest.mark.system
@pytest.mark.parametrize(
    ("before", "environment", "reason"),
    [
        ("sys.modules['opentelemetry.sdk'] = None", {}, 'needs the extra "tracing"'),
        (
            "",
            {"OTEL_TRACES_SAMPLER_ARG": "often"},
            "OTEL_TRACES_SAMPLER_ARG: must be a number from 0 to 1",
        ),
        (
            "",
            {"OTEL_TRACES_SAMPLER_ARG": "1.5"},
            "OTEL_TRACES_SAMPLER_ARG: must be a number from 0 to 1",
        ),
        ("", {_COLLECTOR: "collector:4318"}, f"{_COLLECTOR}: must be an address such as http://"),
    ],
)
def test_what_cannot_be_done_stops_the_start_with_one_clear_error(
    before: str, environment: dict[str, str], reason: str
) -> None:
    """Traces that are silently not there would be missed when they are needed."""
    done = subprocess.run(
        [sys.executable, "-c", _START.format(before)],
        cwd=Path(__file__).parents[3],
        env={"PATH": "", _COLLECTOR: _ABSENT, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    event = json.loads(line)
    assert event["event"] == "traces cannot be sent"
    assert reason in event["reason"]


async def test_collector_that_hangs_does_not_keep_a_process_from_ending(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The last spans are given up when their time is over."""
    monkeypatch.setattr(module, "FLUSH_S", 0.01)
    answered = threading.Event()
    provider = Mock(shutdown=answered.wait)
    await SpanTracing(provider, share=1).close()
    [sending] = [thread for thread in threading.enumerate() if thread.name == "last spans"]
    assert sending.daemon
    answered.set()
    sending.join()
