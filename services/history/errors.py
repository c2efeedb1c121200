"""The errors of the history service that a caller can be told about."""

from datetime import datetime
from uuid import UUID

from shared.contract.errors import NotFound, ServiceError, TryAgain


class StoreUnavailable(TryAgain):
    """The database cannot be reached or does not take part just now; asking again may help."""

    title = "Records unavailable"


class NotErased(TryAgain):
    """It is not certain that every copy is gone; the same request again, and it will be."""

    title = "Not erased"


def unknown(prediction_id: UUID) -> NotFound:
    """The error for a decision that is not stored; it may still be on its way."""
    return NotFound(f"No decision {prediction_id} is recorded here (yet).")


class Erased(ServiceError):
    """The decision was recorded here, and its values were erased since."""

    status = 410
    title = "Erased"

    def __init__(self, prediction_id: UUID, erased_at: datetime) -> None:
        super().__init__(f"The values of decision {prediction_id} were erased.")
        self.erased_at = erased_at

    def members(self) -> dict[str, object]:
        """Say when."""
        return {"erased_at": self.erased_at}
