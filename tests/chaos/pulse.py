"""How long a service takes to answer a liveness check, sampled continuously."""

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from typing import Final
from urllib.parse import urlsplit

INTERVAL_S: Final = 0.05
_TIMEOUT_S: Final = 5.0


@dataclass
class Pulse:
    """The times of the answers, and how often the service was absent."""

    times_s: list[float] = field(default_factory=list)
    absences: int = 0


@contextmanager
def pulse(urls: Sequence[str]) -> Iterator[Pulse]:
    """Request each address every 50 ms until exit; the result is complete only then.

    Times count from when a request was due, so that a stall shows in every request it delays.
    """
    found = Pulse()
    stop = threading.Event()
    with ThreadPoolExecutor(len(urls)) as asking:
        for url in urls:
            asking.submit(_ask, url, found, stop)
        try:
            yield found
        finally:
            stop.set()


def _ask(url: str, found: Pulse, stop: threading.Event) -> None:
    address = urlsplit(url)
    connection = HTTPConnection(address.netloc, timeout=_TIMEOUT_S)
    due_s = time.monotonic()
    while not stop.is_set():
        try:
            connection.request("GET", address.path)
            answer = connection.getresponse()
            answer.read()
            if answer.status != HTTPStatus.OK:
                raise HTTPException(answer.status)
        except TimeoutError:
            connection.close()
            found.times_s.append(time.monotonic() - due_s)
        except (OSError, HTTPException):
            connection.close()
            found.absences += 1
            due_s = time.monotonic()
        else:
            found.times_s.append(time.monotonic() - due_s)
        due_s += INTERVAL_S
        stop.wait(max(0.0, due_s - time.monotonic()))
    connection.close()
