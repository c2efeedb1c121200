"""What can go wrong with a call.

CallFailed
├── ServiceUnreachable    nobody answered, or no answer came in time
├── UnreadableAnswer      an answer came that is none of this service's, or of a newer one
└── ApiError              a service answered with a problem document
    ├── InvalidRequest    400, 413, 422  (``validation_errors`` lists every fault)
    ├── AccessDenied      401, 403
    ├── MissingResource   404
    ├── RateLimited       429  (``retry_after_s``)
    └── Unavailable       409, 5xx  (``retry_after_s``)

Whatever is worth another attempt has had it when one of these is raised.
"""

from typing import Final

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from loan_predictor_client.models import Fault


class CallFailed(Exception):
    """The call has no answer that could be used."""


class ServiceUnreachable(CallFailed):
    """Nobody answered; ``__cause__`` is the transport's own error."""


class UnreadableAnswer(CallFailed):
    """What was answered is not what the contract says."""


class ApiError(CallFailed):
    """A service answered that it did not do what was asked."""

    def __init__(
        self,
        detail: str,
        *,
        status: int,
        code: str,
        request_id: str | None = None,
        retry_after_s: float | None = None,
        validation_errors: tuple[Fault, ...] = (),
    ) -> None:
        super().__init__(f"{detail} ({status} {code})")
        self.detail = detail
        """What to do, in a sentence."""
        self.status = status
        self.code = code
        """Machine-readable name of the error; stable."""
        self.request_id = request_id
        """Under which the services' logs tell more."""
        self.retry_after_s = retry_after_s
        self.validation_errors = validation_errors


class InvalidRequest(ApiError):
    """What was sent cannot be right, however often it is sent."""


class AccessDenied(ApiError):
    """The key is missing, unknown, or may not do this."""


class MissingResource(ApiError):
    """There is no such model, record or picture."""


class RateLimited(ApiError):
    """The caller has asked too often."""


class Unavailable(ApiError):
    """The service cannot do it now."""


_BY_STATUS: Final[dict[int, type[ApiError]]] = {
    400: InvalidRequest,
    401: AccessDenied,
    403: AccessDenied,
    404: MissingResource,
    409: Unavailable,
    413: InvalidRequest,
    422: InvalidRequest,
    429: RateLimited,
}


class _Problem(BaseModel):
    model_config = ConfigDict(extra="ignore")

    code: str
    detail: str
    request_id: str | None = None
    validation_errors: tuple[Fault, ...] = ()


def error_of(response: httpx.Response) -> ApiError:
    """The error that a response of status 400 or above, already read, stands for."""
    status = response.status_code
    try:
        problem = _Problem.model_validate_json(response.content)
    except ValidationError:
        # Something between here and the service answered in its place.
        phrase = response.reason_phrase or "Error"
        problem = _Problem(code="NoProblemDocument", detail=f"{response.url.host} says: {phrase}.")
    kind = _BY_STATUS.get(status, Unavailable if status >= 500 else ApiError)
    return kind(
        problem.detail,
        status=status,
        code=problem.code,
        request_id=problem.request_id or response.headers.get("x-request-id"),
        retry_after_s=_retry_after_s(response),
        validation_errors=problem.validation_errors,
    )


def _retry_after_s(response: httpx.Response) -> float | None:
    # The services say seconds; the date that RFC 9110 also allows is taken for saying nothing.
    try:
        return max(0.0, float(response.headers.get("retry-after", "")))
    except ValueError:
        return None
