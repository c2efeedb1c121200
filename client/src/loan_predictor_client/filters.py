"""Filters of the history."""

from dataclasses import dataclass, fields
from datetime import date, datetime
from typing import Literal

Prediction = Literal["Approved", "Rejected"]
OutcomeKind = Literal["repaid", "late_90", "default", "prepaid", "withdrawn", "fraud"]
"""What became of a loan."""


@dataclass(frozen=True, kw_only=True)
class Filters:
    """A record must match every filter that is set. Times must be aware."""

    prediction: Prediction | None = None
    model: str | None = None
    since: datetime | None = None
    """Decided at this time or later."""
    until: datetime | None = None
    """Decided before this time."""
    min_confidence: float | None = None
    max_confidence: float | None = None
    had_warnings: bool | None = None
    loan_id: str | None = None
    outcome: OutcomeKind | None = None
    """The current outcome."""
    has_outcome: bool | None = None

    def parameters(self) -> dict[str, str]:
        """The query parameters of the filters that are set."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: _text(value) for name, value in values.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Cohorts:
    """Decisions by the month (UTC) they were made in, such as ``2026-01``, and by what decided."""

    since: str | None = None
    """Decided in this month or later."""
    until: str | None = None
    """Decided before this month: the one after the last."""
    model: str | None = None
    bundle: str | None = None

    def parameters(self) -> dict[str, str]:
        """The query parameters of what is set."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Decisions by the day (UTC) they were made on, and by what and for whom."""

    since: date | None = None
    """Decided on this day or later."""
    until: date | None = None
    """Decided before this day."""
    model: str | None = None
    bundle: str | None = None
    client: str | None = None
    compare: Literal["previous"] | None = None
    """Report the same number of days before ``since``, too, which must be set."""

    def parameters(self) -> dict[str, str]:
        """The query parameters of what is set."""
        return {name: str(value) for name, value in vars(self).items() if value is not None}


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.isoformat() if isinstance(value, datetime) else str(value)
