"""The errors that reach a caller.

ServiceError              500
├── InvalidInput          400  (carries every fault at once)
│   └── MalformedRequest  400  (closes the connection, as do 408, 413 and 431)
├── NotFound              404
│   └── UnknownModel
├── RequestTimeout        408
├── StillInProgress       409  (try again after 1 s)
├── AnswerErased          410
├── BodyTooLarge          413
│   └── TooManyApplications
├── UnsupportedMediaType  415
├── IdempotencyKeyReused  422
├── HeadTooLarge          431
└── TryAgain              503  (after 1 s)
    └── NotRecorded

The class name is the machine-readable code, the status is on the class, and the message is the
one sentence that says what to do. ``shared.web.conventions`` turns each into a problem document
and its headers.
"""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Final

from pydantic import BaseModel, ConfigDict, Field

from shared.contract.lenient import VISIBLE

MAX_FAULTS: Final = 50
"""Most faults that are listed: each takes time to word, and no person reads more at once."""
MAX_NAME_LENGTH: Final = 64
"""Most characters of an unknown name that are looked at and given back."""


NO_CONTROLS: Final = r"^[^\x00-\x1f\x7f-\x9f]+$"
"""The pattern of a text of a person's own words."""
_MESSAGES: Final = {
    "missing": "is required",
    "extra_forbidden": "is not a known field",
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "finite_number": "must be a finite number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "is too large",
    "int_from_float": "must be a whole number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "literal_error": "must be {expected}",
    "string_type": "must be a text",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must match {pattern}",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
    "list_type": "must be a JSON array",
    "tuple_type": "must be a JSON array",
    "dict_type": "must be a JSON object",
    "model_type": "must be a JSON object",
    "model_attributes_type": "must be a JSON object",
    "json_invalid": "is not valid JSON: {error}",
    "date_type": "must be a date such as 2026-01-31",
    "date_parsing": "must be a date such as 2026-01-31",
    "date_from_datetime_parsing": "must be a date such as 2026-01-31",
    "datetime_type": "must be a datetime such as 2026-01-31T12:00:00Z",
    "datetime_parsing": "must be a datetime such as 2026-01-31T12:00:00Z",
    "datetime_from_date_parsing": "must be a datetime such as 2026-01-31T12:00:00Z",
    "timezone_aware": "must have a timezone, such as Z",
    "uuid_type": "must be a UUID",
    "uuid_parsing": "must be a UUID",
}
_PATTERNS: Final = {
    NO_CONTROLS: "must be visible characters and spaces, on one line",
    VISIBLE: "must be visible characters, without spaces",
}


def message_of(fault: Mapping[str, Any]) -> str:
    """What Pydantic found wrong, worded as all other faults are."""
    known = _MESSAGES.get(fault["type"])
    if known is None:
        return str(fault["msg"]).removeprefix("Value error, ")
    context = fault.get("ctx", {})
    return _PATTERNS.get(context.get("pattern")) or known.format(**context)


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
    retry_after_s: int | None = None
    """After how long the same request may succeed; None if waiting does not help."""
    closes_connection: ClassVar[bool] = False
    """Whether the connection ends with this, because the rest of the request is not read."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    def members(self) -> dict[str, object]:
        """Extra members of the problem document (RFC 9457, section 3.2)."""
        return {}


class InvalidInput(ServiceError):
    """The input is wrong; ``faults`` lists everything that is, not only the first."""

    status = 400
    title = "Invalid input"

    def __init__(self, faults: list[Fault]) -> None:
        fields = ", ".join(dict.fromkeys(fault.field for fault in faults))
        count, them = ("1 fault", "it") if len(faults) == 1 else (f"{len(faults)} faults", "them")
        super().__init__(f"{count} in: {fields}. Correct {them} and send the request again.")
        self.faults = faults

    def members(self) -> dict[str, object]:
        """Name every fault with its field, its message and the value as received."""
        return {"error": "Validation failed", "validation_errors": self.faults}


class NotFound(ServiceError):
    """What the path names does not exist."""

    status = 404
    title = "Not found"


class UnknownModel(NotFound):
    """No model of that name is served."""

    title = "Unknown model"

    def __init__(self, name: str, served: Iterable[str]) -> None:
        super().__init__(f"There is no model {name!r}; there are: {', '.join(served)}.")


class MalformedRequest(InvalidInput):
    """What came is not HTTP, names no host, or has a path that no route can have."""

    title = "Malformed request"
    closes_connection = True

    def __init__(self, detail: str, *, field: str = "request") -> None:
        super().__init__([Fault(field=field, message=detail)])
        self.detail = detail


class RequestTimeout(ServiceError):
    """The request did not arrive whole in time."""

    status = 408
    title = "Request timeout"
    closes_connection = True

    def __init__(self, limit_s: float) -> None:
        super().__init__(f"A request has to be here within {limit_s:g} s; send it again.")


class StillInProgress(ServiceError):
    """A request with the same Idempotency-Key is being decided at this moment."""

    status = 409
    title = "Still in progress"
    retry_after_s = 1

    def __init__(self) -> None:
        super().__init__("The first request with this Idempotency-Key is not answered yet.")


class AnswerErased(ServiceError):
    """The request was answered before, and the answer has been erased since."""

    status = 410
    title = "Answer erased"

    def __init__(self) -> None:
        super().__init__(
            "The answer to the request with this Idempotency-Key has been erased;"
            " to have the application decided again, send it with another key."
        )


class BodyTooLarge(ServiceError):
    """The request's body is larger than any that this service reads."""

    status = 413
    title = "Body too large"
    closes_connection = True

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"The body may have at most {limit_bytes} bytes.")


class TooManyApplications(BodyTooLarge):
    """One request holds more applications than are decided while the caller waits."""

    title = "Too many applications"

    def __init__(self, limit: int, limit_bytes: int) -> None:
        super().__init__(limit_bytes)
        self.detail = (
            f"At most {limit} applications, in {limit_bytes} bytes, are decided in one request;"
            " send as many as you like as a file to POST /batches."
        )


class UnsupportedMediaType(ServiceError):
    """The body is said to be of a kind that this route does not read."""

    status = 415
    title = "Unsupported media type"

    def __init__(self, expected: str) -> None:
        super().__init__(f"Send the body as {expected} in UTF-8, without a content encoding.")


class IdempotencyKeyReused(ServiceError):
    """The key was used for another request body or for other parameters."""

    status = 422
    title = "Idempotency-Key reused"

    def __init__(self) -> None:
        super().__init__(
            "This Idempotency-Key was sent with another body or other parameters; use a new key."
        )


class HeadTooLarge(ServiceError):
    """The request line and headers are larger than any that this service reads."""

    status = 431
    title = "Request header fields too large"
    closes_connection = True

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"Path and headers together may have at most {limit_bytes} bytes.")


class TryAgain(ServiceError):
    """Something that the service needs is away; the same request succeeds once it is back."""

    status = 503
    title = "Try again"
    retry_after_s = 1


class NotRecorded(TryAgain):
    """The decision could not be recorded, so it is not answered."""

    title = "Decision not recorded"
