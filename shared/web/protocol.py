"""uvicorn's HTTP protocol, bounded in size and time.

The parser buffers the head of a request until it is complete, however large or slow it is, and an
app cannot refuse what it has not received. ``shared.web.server`` serves with this class.
"""

import asyncio
import re
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from ipaddress import IPv6Address
from secrets import token_hex
from typing import Any, ClassVar, Final

from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from shared.contract.errors import HeadTooLarge, MalformedRequest, RequestTimeout, ServiceError
from shared.observability.logs import get_logger
from shared.web.conventions import REQUEST_ID_HEADER, service_error_response
from shared.web.headers import NO_STORE, security_headers
from shared.web.settings import REQUEST_TIMEOUT_S

MAX_HEAD_BYTES: Final = 32 * 1024
"""Request line and headers together; up to twice as much can pass when it comes in one piece."""
MAX_HALF_OPEN: Final = 1000
"""Connections that may wait for the rest of a request; beyond that the oldest is closed."""
LAST_REQUEST_S: Final = 0.5
"""How long an idle connection stays open during shutdown: a request may be on its way."""

_HOST: Final = re.compile(
    rb"(?:[a-z0-9._~!$&'()*+,;=%-]*|\[(?P<v6>[0-9a-f:.]+)\])(?::[0-9]{0,5})?", re.IGNORECASE
)
_CONTROL_CHARACTER: Final = re.compile(rb"%(?:[01][0-9A-F]|7F|C2%[89][0-9A-F])", re.IGNORECASE)
_log = get_logger(__name__)


class BoundedHttpProtocol(HttpToolsProtocol):
    """Refuses a request that is too large (431), too slow (408) or malformed (400).

    A request that arrives whole, as nearly all do, costs one comparison and sets no timer. The head
    of an answer is sent together with the first piece of its body. Memory is bounded, too: an idle
    connection keeps nothing of its last request.
    """

    _half_open: ClassVar[dict["BoundedHttpProtocol", None]] = {}
    """The connections of this process whose request is not complete, the oldest first."""

    request_timeout_s: ClassVar[float] = REQUEST_TIMEOUT_S

    _timer: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _upgraded = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Give the connection its time limit for a first request."""
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        self._stop_timer()
        super().connection_lost(exc)

    def on_headers_complete(self) -> None:
        """Start a request, or refuse what a gateway may read in another way.

        That is a path with a control character (``$`` in a pattern also matches before a last line
        break) and any but one valid ``Host``, which RFC 9112, section 3.2, requires.
        """
        if b"%" in self.url and _CONTROL_CHARACTER.search(self.url.partition(b"?")[0]):
            self._refuse(MalformedRequest("The path has a control character.", field="path"))
            raise ValueError("control character")  # ends the parsing
        hosts = [value for name, value in self.headers if name == b"host"]
        if len(hosts) != 1 and (hosts or self.parser.get_http_version() != "1.0"):
            self._refuse(MalformedRequest("Send one Host header.", field="host"))
            raise ValueError("not one host")
        if hosts and not _is_host(hosts[0]):
            self._refuse(MalformedRequest("The Host header names no host.", field="host"))
            raise ValueError("malformed host")
        super().on_headers_complete()
        cycle = self._latest_cycle()
        # An answer to HEAD ends without a second write, and 100 Continue is no head to wait with.
        if (
            cycle is not None
            and cycle.scope is self.scope
            and self.scope["method"] != "HEAD"
            and not cycle.waiting_for_100_continue
        ):
            cycle.transport = _HeadWithBody(self.transport)

    def on_response_complete(self) -> None:
        """End a request; its head is not needed while the connection is idle."""
        cycle = self._latest_cycle()
        if cycle is not None and cycle.response_complete and cycle.scope is self.scope:
            self.headers = []
            self.scope = cycle.scope = {}  # type: ignore[typeddict-item]  # unread from here on
        super().on_response_complete()

    def data_received(self, data: bytes) -> None:
        """Pass the data on in pieces small enough for the head's limit."""
        for start in range(0, len(data), MAX_HEAD_BYTES):
            if self.transport.is_closing():
                return
            self._take(
                data if len(data) <= MAX_HEAD_BYTES else data[start : start + MAX_HEAD_BYTES]
            )

    def shutdown(self) -> None:
        """Close the connection after a request that is in progress or on its way."""
        cycle = self._latest_cycle()
        if cycle is None or cycle.response_complete:
            # Closed at once, it could lose a request that its client has sent already.
            self._stop_timer()
            self._timer = self.loop.call_later(LAST_REQUEST_S, self._on_too_slow)
        else:
            super().shutdown()

    def handle_websocket_upgrade(self) -> None:
        """Pass the connection to the websocket protocol, which has no time limit."""
        super().handle_websocket_upgrade()
        self._upgraded = True
        self._stop_timer()

    def send_400_response(self, msg: str) -> None:
        """Answer a malformed request."""
        self._refuse(MalformedRequest(msg))

    def _take(self, piece: bytes) -> None:
        super().data_received(piece)
        if self._upgraded:
            return
        cycle = self._latest_cycle()
        if cycle is None or cycle.scope is not self.scope:
            self._head_bytes += len(piece)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(HeadTooLarge(MAX_HEAD_BYTES))
                return
        else:
            self._head_bytes = 0
            if not cycle.more_body:
                self._stop_timer()
                return
        if self._timer is None:
            self._start_timer()

    # Both are None at first, which uvicorn's annotations omit.
    def _latest_scope(self) -> Mapping[str, Any] | None:
        return self.scope

    def _latest_cycle(self) -> RequestResponseCycle | None:
        return self.cycle

    def _start_timer(self) -> None:
        self._timer = self.loop.call_later(self.request_timeout_s, self._on_too_slow)
        if len(self._half_open) >= MAX_HALF_OPEN:
            oldest = next(iter(self._half_open))
            oldest._stop_timer()  # noqa: SLF001 - of the same class
            oldest._on_too_slow()  # noqa: SLF001
        self._half_open[self] = None

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._half_open.pop(self, None)

    def _on_too_slow(self) -> None:
        cycle = self._latest_cycle()
        scope = self._latest_scope()
        if scope is None or (
            cycle is not None and cycle.scope is scope and cycle.response_complete
        ):
            self.transport.close()  # there is no request to answer
        else:
            self._refuse(RequestTimeout(self.request_timeout_s))

    def _refuse(self, error: ServiceError) -> None:
        """Answer ``error`` unless an answer has started, and close the connection.

        If the request before is whole and not answered yet, only its answer is sent: ``error``
        would be taken for it.
        """
        if self.transport.is_closing():
            return
        cycle = self._latest_cycle()
        if cycle is not None and not cycle.response_complete and not cycle.more_body:
            cycle.keep_alive = False
            self.flow.pause_reading()
            return
        if cycle is None or cycle.response_complete or not cycle.response_started:
            self.transport.write(_answer(error, self._latest_scope() or {}))
        self.transport.close()


@lru_cache(maxsize=64)
def _is_host(value: bytes) -> bool:
    """Whether ``value`` is a host by RFC 3986, section 3.2.2, with or without a port."""
    host = _HOST.fullmatch(value)
    if host is None:
        return False
    with suppress(ValueError):
        return host["v6"] is None or IPv6Address(host["v6"].decode()) is not None
    return False


class _HeadWithBody(asyncio.Transport):
    """Holds back the head of an answer until the first piece of its body.

    uvicorn writes the two separately, each in a system call and a packet of its own.
    """

    __slots__ = ("_head", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head: bytes | None = b""

    def write(self, data: bytes) -> None:  # type: ignore[override]  # uvicorn writes bytes alone
        """Hold the first piece back, send it with the second, and send all others at once."""
        head = self._head
        if head is None:
            self._transport.write(data)
        elif head:
            self._head = None
            self._transport.write(head + data)
        else:
            self._head = data

    def is_closing(self) -> bool:
        """Whether the connection is being closed."""
        return self._transport.is_closing()

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()


def _answer(error: ServiceError, scope: Mapping[str, Any]) -> bytes:
    """The whole answer to a request whose path may be unknown yet."""
    request_id = token_hex(16)
    path = scope.get("path", "/")
    _log.warning(
        "request refused before its end",
        request_id=request_id,
        status=error.status,
        code=type(error).__name__,
    )
    response = service_error_response({"path": path, "state": {"request_id": request_id}}, error)
    headers = (
        *response.raw_headers,
        (REQUEST_ID_HEADER, request_id.encode()),
        *security_headers(path),
        NO_STORE,
    )
    lines = b"".join(b"%b: %b\r\n" % header for header in headers)
    return b"%b%b\r\n%b" % (STATUS_LINE[error.status], lines, bytes(response.body))
