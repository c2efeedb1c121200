"""The consumer's metrics, and the server that exposes them to Prometheus."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from socket import getaddrinfo
from socketserver import ThreadingMixIn
from threading import BoundedSemaphore, Thread
from typing import Any, Final, get_args
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from services.history.database import FailureReason, reason_of
from services.history.settings import HistorySettings
from shared.observability.metrics import Metrics, Sample, Tally, build_info
from shared.observability.metrics.names import (
    CONSUMER_BATCH,
    CONSUMER_COMMIT,
    CONSUMER_DATABASE_FAILURES,
    CONSUMER_DEAD_LETTERS,
    CONSUMER_LAST_COMMIT,
    CONSUMER_ROWS,
    CONSUMER_TAKEN_OVER,
)

CONNECTIONS: Final = 8
"""Most connections to the metrics at one time, a thread each."""


class ConsumerMetrics:
    """Counts of one consumer since it started."""

    def __init__(self) -> None:
        self.rows = 0
        self.dead_letters = 0
        self.taken_over = 0
        self._batches = Tally(CONSUMER_BATCH)
        self._commits = Tally(CONSUMER_COMMIT)
        self._failures: dict[FailureReason, int] = dict.fromkeys(get_args(FailureReason), 0)
        self._last_commit_at_s = 0.0

    def committed(self, *, batch: int, new: int, took_s: float) -> None:
        """Count a transaction of ``batch`` decisions, ``new`` of them not stored before."""
        self.rows += new
        self._batches.add(batch)
        self._commits.add(took_s)
        self._last_commit_at_s = time.time()

    def failed(self, error: Exception) -> None:
        """Count a transaction that failed."""
        self._failures[reason_of(error)] += 1

    def samples(self) -> Iterable[Sample]:
        """The metrics so far."""
        yield Sample(CONSUMER_ROWS, self.rows)
        yield Sample(CONSUMER_BATCH, self._batches.value)
        yield Sample(CONSUMER_COMMIT, self._commits.value)
        for reason, failures in self._failures.items():
            yield Sample(CONSUMER_DATABASE_FAILURES, failures, (reason,))
        yield Sample(CONSUMER_DEAD_LETTERS, self.dead_letters)
        yield Sample(CONSUMER_TAKEN_OVER, self.taken_over)
        yield Sample(CONSUMER_LAST_COMMIT, self._last_commit_at_s)


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
        """Nothing: a connection that broke or was silent is no fault of the consumer."""


@contextmanager
def metrics_server(counts: ConsumerMetrics, settings: HistorySettings) -> Iterator[None]:
    """Serve the metrics at METRICS_PORT, from a thread, during the block; not without that setting.

    Raises ``SystemExit`` with one line if the port cannot be used.
    """
    host, port = settings.metrics_host, settings.metrics_port
    if port is None:
        yield
        return
    metrics = Metrics()
    metrics.read_from(build_info("consumer"), counts.samples)
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
