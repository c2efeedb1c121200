"""The trace of each HTTP request, from its arrival to the end of its answer."""

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.observability.metrics import UNKNOWN_ROUTE
from shared.observability.tracing import NO_TRACE, TRACEPARENT, Trace, Tracing

_TRACEPARENT: Final = TRACEPARENT.encode()


class TracingMiddleware:
    """Traces requests, for ``trace_of`` to find; a process that traces nothing does without it."""

    def __init__(self, app: ASGIApp, *, tracing: Tracing) -> None:
        self.app = app
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, which has its id."""
        trace = self._begin(scope) if scope["type"] == "http" else NO_TRACE
        if trace is NO_TRACE:
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

    def _begin(self, scope: Scope) -> Trace:
        callers = (value for name, value in scope["headers"] if name == _TRACEPARENT)
        traceparent = next(callers, None)
        text = None if traceparent is None else traceparent.decode("latin-1")
        return self._tracing.begin(scope["method"], text)


def trace_of(scope: Scope) -> Trace:
    """The trace of this request."""
    trace: Trace = scope["state"].get("trace", NO_TRACE)
    return trace
