"""The errors a caller can be told about.

ServiceError              500
├── InvalidInput          400  (carries every fault at once)
├── MalformedRequest      400  (closes the connection, as do 408, 413 and 431)
├── NotFound              404
├── RequestTimeout        408
├── BodyTooLarge          413
├── UnsupportedMediaType  415
├── HeadTooLarge          431
└── NotRecorded           503  (carries Retry-After)

The class name is the machine-readable code, the status is on the class, and the message is the
one sentence that says what to do. ``shared.web.conventions`` turns each into a problem document.
"""

from typing import Any, ClassVar, Final

from pydantic import BaseModel, ConfigDict, Field

MAX_FAULTS: Final = 50
"""Most faults that are listed: each takes time to word, and no person reads more at once."""
MAX_NAME_LENGTH: Final = 64
"""Most characters of an unknown name that are looked at and given back."""


class Fault(BaseModel):
    """One fault of one input field."""

    # A faulty number is given back as it came, and JSON has no NaN: it is shown as a string.
    model_config = ConfigDict(ser_json_inf_nan="strings")

    field: str
    message: str
    value: Any = Field(default=None, description="As received.")


class ServiceError(Exception):
    """Base of every error that is answered as a problem document."""

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    def headers(self) -> dict[str, str]:
        """Extra response headers."""
        return {}

    def members(self) -> dict[str, object]:
        """Extra members of the problem document (RFC 9457, section 3.2)."""
        return {}


class InvalidInput(ServiceError):
    """The input is wrong; ``faults`` lists everything that is, not only the first."""

    status = 400
    title = "Invalid input"

    def __init__(self, faults: list[Fault]) -> None:
        fields = ", ".join(dict.fromkeys(fault.field for fault in faults))
        super().__init__(f"{len(faults)} fault(s) in: {fields}. Mend them and send it again.")
        self.faults = faults

    def members(self) -> dict[str, object]:
        """Name every fault with its field, its message and the value as received."""
        return {"error": "Validation failed", "validation_errors": self.faults}


class NotFound(ServiceError):
    """What the path names does not exist."""

    status = 404
    title = "Not found"


class _Hangup(ServiceError):
    """After this the connection is closed: the rest of the request is not going to be read."""

    def headers(self) -> dict[str, str]:
        """Say so."""
        return {"connection": "close"}


class MalformedRequest(_Hangup):
    """What came is not HTTP."""

    status = 400
    title = "Malformed request"


class RequestTimeout(_Hangup):
    """The request does not come to its end."""

    status = 408
    title = "Request timeout"

    def __init__(self, limit_s: float) -> None:
        super().__init__(f"A request has to be here within {limit_s:g} s; send it again.")


class BodyTooLarge(_Hangup):
    """The request's body is larger than anything this service is meant for."""

    status = 413
    title = "Body too large"

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"The body may have at most {limit_bytes} bytes.")


class UnsupportedMediaType(ServiceError):
    """The body is said to be of a kind that this route does not read."""

    status = 415
    title = "Unsupported media type"

    def __init__(self, expected: str) -> None:
        super().__init__(f"Send the body as {expected} in UTF-8, without a content encoding.")


class HeadTooLarge(_Hangup):
    """The request's line and headers are larger than any that is meant for this service."""

    status = 431
    title = "Request header fields too large"

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"Path and headers together may have at most {limit_bytes} bytes.")


class NotRecorded(ServiceError):
    """The decision could not be recorded, so it is not answered."""

    status = 503
    title = "Decision not recorded"
    retry_after_s: ClassVar[int] = 1

    def headers(self) -> dict[str, str]:
        """Say when to try again."""
        return {"retry-after": str(self.retry_after_s)}
