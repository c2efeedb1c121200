"""Errors of the inference service that a caller can be told about."""

from typing import ClassVar

from shared.contract.errors import NotFound, ServiceError


class UnknownModel(NotFound):
    """No model of that name is served."""

    title = "Unknown model"

    def __init__(self, name: str, served: tuple[str, ...]) -> None:
        super().__init__(f"There is no model {name!r}; there are: {', '.join(served)}.")


class StillInProgress(ServiceError):
    """A request with the same Idempotency-Key is being decided at this moment."""

    status = 409
    title = "Still in progress"
    retry_after_s: ClassVar[int] = 1

    def __init__(self) -> None:
        super().__init__("The first request with this Idempotency-Key is not answered yet.")

    def headers(self) -> dict[str, str]:
        """Say when to ask again."""
        return {"retry-after": str(self.retry_after_s)}


class AnswerErased(ServiceError):
    """The request was answered before, and the answer has been erased since."""

    status = 410
    title = "Answer erased"

    def __init__(self) -> None:
        super().__init__(
            "The answer to the request with this Idempotency-Key has been erased;"
            " to have the application decided again, send it with another key."
        )


class IdempotencyKeyReused(ServiceError):
    """The key was used for another request body."""

    status = 422
    title = "Idempotency-Key reused"

    def __init__(self) -> None:
        super().__init__("This Idempotency-Key was sent with another body; use a new key for it.")
