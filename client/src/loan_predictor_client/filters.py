"""Which records of the history are meant."""

from dataclasses import dataclass, fields
from datetime import datetime

from shared.contract.events import ModelName, Prediction


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Each filter narrows what the others leave; None filters nothing. Times must be aware."""

    prediction: Prediction | None = None
    model: ModelName | None = None
    since: datetime | None = None
    """Decided then or later."""
    until: datetime | None = None
    """Decided before then."""
    min_confidence: float | None = None
    max_confidence: float | None = None
    had_warnings: bool | None = None
    loan_id: str | None = None

    def parameters(self) -> dict[str, str]:
        """The query parameters that say so."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: _text(value) for name, value in values.items() if value is not None}


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.isoformat() if isinstance(value, datetime) else str(value)
