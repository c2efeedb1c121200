"""The server that exposes the metrics of a process that answers no other requests."""

from collections.abc import Iterator
from contextlib import contextmanager
from socket import getaddrinfo
from socketserver import ThreadingMixIn
from threading import BoundedSemaphore, Thread
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from shared.observability.metrics.process import Metrics

CONNECTIONS: Final = 8
"""Most connections to the metrics at one time, a thread each."""


class _Handler(WSGIRequestHandler):
    timeout = 5.0
    """Seconds of silence after which a connection is closed."""

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - its name there
        """Log nothing."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[WSGIRequestHandler]) -> None:
        self._free = BoundedSemaphore(CONNECTIONS)
        self.address_family = getaddrinfo(*address)[0][0]
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread of its own; close the connection if all of them are in use."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer one request."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: a connection that broke or was silent is no fault of the process."""


@contextmanager
def metrics_server(metrics: Metrics, *, host: str, port: int | None) -> Iterator[None]:
    """Serve the metrics at ``port``, from a thread, during the block; not without one.

    Raises ``SystemExit`` with one line if the port cannot be used.
    """
    if port is None:
        yield
        return
    registry = CollectorRegistry()
    registry.register(metrics)
    try:
        server = make_server(host, port, make_wsgi_app(registry), _Server, _Handler)
    except OSError as error:
        raise SystemExit(
            f"Port {port} on {host} cannot be used ({error.strerror}):"
            " choose another with METRICS_PORT, or another address with METRICS_HOST."
        ) from None
    thread = Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
