"""A client that reads the history continuously, whatever is broken."""

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from http import HTTPStatus
from itertools import cycle
from typing import Final

import httpx

from tests.chaos.stage import Stage

_INTERVAL_S: Final = 0.2
_TIMEOUT_S: Final = 10.0
_PATHS: Final = ("/history", "/statistics", "/history", "/analytics")


@contextmanager
def reading(stage: Stage) -> Iterator[Counter[str]]:
    """Count answers that readers must not see; the count is complete only on exit.

    Readers may see records, a 503 with Retry-After, or no answer while the service is killed.
    """
    wrong: Counter[str] = Counter()
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(_read, stage, wrong, stop)
        try:
            yield wrong
        finally:
            stop.set()
        running.result()


def _read(stage: Stage, wrong: Counter[str], stop: threading.Event) -> None:
    system = stage.system
    with httpx.Client(
        base_url=system.history_url, headers={"x-api-key": system.api_key}, timeout=_TIMEOUT_S
    ) as client:
        for path in cycle(_PATHS):
            if stop.wait(_INTERVAL_S):
                return
            # A new address each time, so that no cache has the answer.
            parameters = {"since": datetime.now(UTC).isoformat()} if path == "/history" else {}
            with suppress(httpx.TransportError):
                answer = client.get(path, params=parameters)
                if not _is_right(answer):
                    wrong[f"GET {path} {answer.status_code}"] += 1


def _is_right(answer: httpx.Response) -> bool:
    unavailable = answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE
    return answer.status_code == HTTPStatus.OK or (unavailable and "retry-after" in answer.headers)
