"""The errors a call can raise.

CallFailed
├── UnsendableCall        no request can be made of what was given; nothing was sent
├── ServiceUnreachable    no connection, or no answer in time
├── UnreadableAnswer      the answer does not follow the contract
└── ApiError              a service answered with a problem document
    ├── InvalidRequest    400, 413, 422  (``validation_errors`` lists every fault)
    ├── AccessDenied      401, 403
    ├── MissingResource   404
    ├── RateLimited       429  (``retry_after_s``)
    └── Unavailable       409, 5xx  (``retry_after_s``)

Each is raised at once if sending again cannot help, else after every retry that the policy allows.
"""

from typing import Final

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from loan_predictor_client.models import Fault


class CallFailed(Exception):
    """Base of every error: the call has no usable answer."""


class UnsendableCall(CallFailed):
    """The address, the key or a value cannot be sent; no message or cause of it holds the key."""


class ServiceUnreachable(CallFailed):
    """The service did not answer; ``__cause__`` is the transport's own error."""


class UnreadableAnswer(CallFailed):
    """The answer does not follow the contract: another version, or another server."""


class ApiError(CallFailed):
    """The service refused the call or failed, and answered with a problem document."""

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
        """Find the request in the services' logs by it."""
        self.retry_after_s = retry_after_s
        self.validation_errors = validation_errors


class InvalidRequest(ApiError):
    """The request is invalid; sending it again does not help."""


class AccessDenied(ApiError):
    """The key is missing, unknown, or lacks the scope."""


class MissingResource(ApiError):
    """The model, record or picture does not exist, or has been erased."""


class RateLimited(ApiError):
    """The caller's rate limit is used up."""


class Unavailable(ApiError):
    """The service cannot answer now; try again later."""


_BY_STATUS: Final[dict[int, type[ApiError]]] = {
    400: InvalidRequest,
    401: AccessDenied,
    403: AccessDenied,
    404: MissingResource,
    409: Unavailable,
    410: MissingResource,
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
    """The error for a response of status 400 or above, already read."""
    status = response.status_code
    try:
        problem = _Problem.model_validate_json(response.content)
    except ValidationError:
        # A proxy between here and the service answered in its place.
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
    # The services send seconds; the date that RFC 9110 also allows is ignored.
    try:
        return max(0.0, float(response.headers.get("retry-after", "")))
    except ValueError:
        return None
