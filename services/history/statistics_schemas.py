"""Parameters and answers of the statistics."""

import datetime
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, Field, model_validator

from services.history.schemas import written_as
from shared.contract.events import ModelName
from shared.contract.ranges import check_range
from shared.web.parameters import Parameters

MOST_GROUPS: Final = 366
"""Most groups that are reported: a year of days."""

Unit = Literal["day", "week", "month"]
Grouping = Literal[Unit, "bundle", "client", "property_area", "credit_history", "outcome"]

_BY_OUTCOME: Final = "group_by=outcome"

UtcDay = Annotated[datetime.date, written_as(r"\d{4}-\d\d-\d\d", "a date such as 2026-01-31")]


class ReportQuery(Parameters):
    """Which decisions; each parameter narrows what the others leave."""

    since: UtcDay | None = Field(default=None, description="Decided on this UTC day or later.")
    until: UtcDay | None = Field(default=None, description="Decided before this UTC day.")
    model: ModelName | None = None
    bundle: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] | None = None
    client: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")] | None = None
    compare: Literal["previous"] | None = Field(
        default=None,
        description="Report `previous`, too: the same number of days before `since`, which must be"
        " given; without `until` the range ends with today.",
    )

    @model_validator(mode="after")
    def _range_runs_forwards(self) -> Self:
        check_range(self.since, self.until)
        if self.compare and self.since is None:
            raise ValueError("compare needs since")
        return self


class StatisticsQuery(ReportQuery):
    """Which decisions, and what their numbers are grouped by."""

    group_by: Grouping | None = Field(
        default=None,
        description="What `groups` are; by outcome, `since` and `until` must be the first days of"
        " months and `client` cannot be given, since outcomes are counted by month.",
    )

    @model_validator(mode="after")
    def _outcomes_are_counted_by_month(self) -> Self:
        if self.group_by == "outcome":
            for name, day in (("since", self.since), ("until", self.until)):
                if day is not None and day.day != 1:
                    raise ValueError(f"{name} must be the first day of a month with {_BY_OUTCOME}")
            if self.client:
                raise ValueError(f"client cannot be given with {_BY_OUTCOME}")
        return self


class AnalyticsQuery(ReportQuery):
    """Which decisions, and the unit of their trend."""

    group_by: Unit | None = Field(default=None, description="What each item of `trend` is.")


class Summary(BaseModel):
    """How a set of decisions came out; the two averages are null when there is no decision."""

    total_predictions: int
    approved: int
    rejected: int
    approval_rate: float | None
    average_confidence: float | None


class Period(Summary):
    """The decisions from one UTC day to before another."""

    since: datetime.date
    until: datetime.date


class Statistics(Summary):
    """The decisions that the parameters leave; all that are recorded if there are none."""

    by_model: dict[str, Summary]
    groups: dict[str, Summary] | None = Field(
        description=f"By group_by, at most the last {MOST_GROUPS}. A week or month is its first"
        " day; the outcome none is that of decisions without one; inputs have missing and other,"
        " and no average confidence. null without group_by."
    )
    previous: Period | None = Field(description="The days before; null without compare.")


class Day(Summary):
    """One UTC day."""

    date: datetime.date


class ConfidenceAnalysis(BaseModel):
    """How sure the models were: on average per outcome, and in how many decisions.

    ``low`` is below 0.6, ``high`` from 0.8 on, ``medium`` between the two.
    """

    average: float | None
    average_approved: float | None
    average_rejected: float | None
    low: int
    medium: int
    high: int


class Bucket(BaseModel):
    """Decisions whose confidence is at least ``at_least`` and below ``below``.

    The last bucket includes 1.
    """

    at_least: float
    below: float
    predictions: int


class Analytics(BaseModel):
    """Decisions over time, by confidence and by applicant.

    With parameters the groups by applicant have no average confidence, and decisions of applicants
    that were erased may be missing there.
    """

    overall: Summary
    previous: Period | None = Field(description="The days before; null without compare.")
    last_24_hours: Summary = Field(
        description="In whole UTC hours: the present one and 24 before; parameters do not count."
    )
    daily_trend: list[Day] = Field(
        description="Of the last 30 UTC days of the range those that have decisions."
    )
    trend: list[Period] | None = Field(
        description="By group_by, at most the last"
        f" {MOST_GROUPS} that have decisions; null without it."
    )
    confidence_analysis: ConfidenceAnalysis
    confidence_histogram: list[Bucket]
    by_property_area: dict[str, Summary] = Field(description="missing: not given.")
    by_credit_history: dict[str, Summary] = Field(description="1, 0, or missing: not given.")
