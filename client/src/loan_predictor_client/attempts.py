"""When to retry: a generator without input or output, driven by both clients.

It yields the next step (send the request, or wait) and receives the outcome, so retrying is written
once for both clients and tested without a clock.
"""

import random
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import httpx

from loan_predictor_client.errors import (
    ApiError,
    CallFailed,
    ServiceUnreachable,
    UnsendableCall,
    error_of,
)

_AGAIN: Final = frozenset({429, 502, 503, 504})
_IN_FLIGHT: Final = 409


@dataclass(frozen=True)
class RetryPolicy:
    """How often to retry: at most ``attempts``, all within ``total_s``."""

    attempts: int = 8
    total_s: float = 30.0
    attempt_s: float = 10.0
    """Longest silence of the service within one attempt."""
    first_wait_s: float = 0.1
    """Upper bound of the wait before the second attempt; doubles with each one."""
    longest_wait_s: float = 5.0


@dataclass(frozen=True)
class Send:
    """Send the request now, and give up on it after ``timeout_s`` of silence."""

    timeout_s: float

    @property
    def extensions(self) -> dict[str, object]:
        """The request's extensions that set httpx's timeout."""
        return {"timeout": httpx.Timeout(self.timeout_s).as_dict()}


@dataclass(frozen=True)
class Wait:
    """Wait before the next step."""

    seconds: float


Outcome = httpx.Response | httpx.TransportError | None
"""Outcome of a step: a response, already read if it is an error; None after waiting."""

Attempts = Generator[Send | Wait, Outcome, httpx.Response]


def attempts(
    policy: RetryPolicy, *, keyed: bool, now_s: Callable[[], float] = time.monotonic
) -> Attempts:
    """Yield the steps of one call; return the response or raise ``CallFailed``.

    Every call may be repeated: reads change nothing, and a decision carries an Idempotency-Key
    (``keyed``), for which 409 means that an earlier attempt is still in progress. ``Retry-After``
    is honoured; a wait that would end after the deadline is not begun: the error is raised at once.
    """
    deadline_s = now_s() + policy.total_s
    for attempt in range(1, policy.attempts + 1):
        left_s = deadline_s - now_s()
        outcome = yield Send(timeout_s=max(0.001, min(policy.attempt_s, left_s)))
        if isinstance(outcome, httpx.Response) and outcome.status_code < 400:
            return outcome
        error = _error(outcome)
        wait_s = _wait_s(error, policy, attempt, keyed=keyed)
        if wait_s is None or attempt == policy.attempts or now_s() + wait_s > deadline_s:
            raise error
        yield Wait(wait_s)
    raise AssertionError("the last attempt returns or raises")


def _error(outcome: Outcome) -> CallFailed:
    if isinstance(outcome, httpx.Response):
        return error_of(outcome)
    if isinstance(outcome, httpx.LocalProtocolError | httpx.UnsupportedProtocol):
        # Its message may quote a header of the HTTP client that was given.
        return UnsendableCall(f"The HTTP client refuses the request: {type(outcome).__name__}.")
    return _unreachable(outcome)


def _unreachable(cause: BaseException | None) -> ServiceUnreachable:
    failure = ServiceUnreachable(f"No answer: {str(cause) or type(cause).__name__}")
    failure.__cause__ = cause
    return failure


@contextmanager
def unbroken() -> Iterator[None]:
    """Raise ``ServiceUnreachable`` if the connection breaks while the block reads a response."""
    try:
        yield
    except httpx.TransportError as error:
        raise _unreachable(error) from error


def _wait_s(error: CallFailed, policy: RetryPolicy, attempt: int, *, keyed: bool) -> float | None:
    """Seconds to wait before the next attempt; None if the error is final."""
    # Full jitter: callers that failed together must not come back together.
    ceiling_s = min(policy.longest_wait_s, policy.first_wait_s * 2.0 ** (attempt - 1))
    jitter_s = random.uniform(0, ceiling_s)  # noqa: S311 - not a secret
    if isinstance(error, ServiceUnreachable):
        return jitter_s
    if not isinstance(error, ApiError):
        return None
    if error.status in _AGAIN or (keyed and error.status == _IN_FLIGHT):
        return jitter_s + (error.retry_after_s or 0.0)
    return None
