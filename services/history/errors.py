"""The errors that the history service reports to a caller."""

from datetime import datetime
from uuid import UUID

from shared.contract.errors import NotFound, ServiceError, TryAgain


class StoreUnavailable(TryAgain):
    """The database cannot be reached or cannot serve just now; a retry may help."""

    title = "Records unavailable"


class NotErased(TryAgain):
    """A copy may be left; the same request again completes the erasure."""

    title = "Not erased"


def unknown(prediction_id: UUID) -> NotFound:
    """The error for a decision that is not stored, or not yet."""
    return NotFound(f"No decision {prediction_id} is recorded here (yet).")


class AnotherDecision(ServiceError):
    """What was sent is not the refusal that is recorded under its number."""

    status = 409
    title = "Another decision"

    def __init__(self, prediction_id: UUID) -> None:
        super().__init__(
            f"What is recorded under {prediction_id} is not this refusal: send the record as"
            " GET /history/{id} gives it."
        )


class Erased(ServiceError):
    """The decision was recorded and its values have been erased."""

    status = 410
    title = "Erased"

    def __init__(self, prediction_id: UUID, erased_at: datetime) -> None:
        super().__init__(f"The values of decision {prediction_id} were erased.")
        self.erased_at = erased_at

    def members(self) -> dict[str, object]:
        """The time of the erasure."""
        return {"erased_at": self.erased_at}
