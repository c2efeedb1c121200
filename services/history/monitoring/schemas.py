"""Parameters and bodies of the routes under /monitoring."""

import datetime
import re
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, Field, WithJsonSchema, model_validator

from services.history.estimates import Estimate
from shared.contract.events import ModelName
from shared.contract.outcomes import OutcomeKind
from shared.pictures.formats import month_and_year
from shared.web.parameters import Parameters

LEAST_OUTCOMES: Final = 100
"""Below it an interval of the accuracy is up to 20 points wide."""
LEAST_OF_EACH: Final = 10
MOST_MONTHS: Final = 36
"""Most months that are reported one by one."""


_MONTH: Final = re.compile("^(?:19|2[0-9])[0-9]{2}-(?:0[1-9]|1[0-2])$")


def _month(text: str) -> str:
    if not _MONTH.fullmatch(text):
        raise ValueError("must be a month, such as 2026-11")
    return text


Month = Annotated[
    str,
    AfterValidator(_month),
    WithJsonSchema({"type": "string", "pattern": _MONTH.pattern}),
]


def first_day(month: str) -> datetime.date:
    """The first day of a ``Month``."""
    return datetime.date.fromisoformat(f"{month}-01")


class CohortQuery(Parameters):
    """Which decisions, by when they were made and by what."""

    since: Month | None = Field(default=None, description="Decided in this month (UTC) or later.")
    until: Month | None = Field(
        default=None, description="Decided before this month: the one after the last."
    )
    model: ModelName | None = None
    bundle: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] | None = None

    @model_validator(mode="after")
    def _range_runs_forwards(self) -> Self:
        if self.since and self.until and self.since >= self.until:
            after = first_day(self.since) + datetime.timedelta(days=31)
            raise ValueError(
                f"until is the month after the last one: for {month_and_year(self.since)} alone,"
                f" since={self.since} and until={after:%Y-%m}"
            )
        return self


class PerformanceQuery(CohortQuery):
    """How the figures are grouped."""

    by: Literal["all", "month"] = Field(
        default="all",
        description=f"One figure over all months, or one for each of the last {MOST_MONTHS}.",
    )


class Estimated(BaseModel):
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


def estimated(found: Estimate) -> Estimated:
    """The estimate as it is reported."""
    return Estimated(**found._asdict())


class Conclusion(BaseModel):
    """What figures say, in a sentence."""

    alarm: bool | None = Field(description="null where it is neither an alarm nor its absence.")
    text: str


class CrossValidated(BaseModel):
    """What cross-validation found of a model: means over the folds."""

    accuracy: Estimated
    balanced_accuracy: Estimated
    auc: Estimated
    brier: Estimated
    log_loss: Estimated


class Labelled(BaseModel):
    """How many decisions there are, and how many of them have a good or a bad outcome."""

    decisions: int
    outcomes: int


class CalibrationBin(BaseModel):
    """Decisions whose probability of approval is at least ``at_least`` and below ``below``."""

    at_least: float
    below: float
    outcomes: int
    predicted: float = Field(description="The mean probability.")
    observed: Estimated = Field(description="The share with a good outcome.")


class AgainstRule(BaseModel):
    """The model against the rule that refuses where Credit_History is 0, on the same rows."""

    outcomes: int = Field(description="Good or bad outcomes, those of erased decisions left out.")
    model_accuracy: Estimated
    rule_accuracy: Estimated
    difference: Estimated = Field(description="The model's accuracy minus the rule's.")
    better: bool | None = Field(description="null where the interval of the difference has 0.")


class Figures(BaseModel):
    """What the outcomes say of a model; null is a figure that they do not suffice for."""

    accuracy: Estimated = Field(description="Approved and good, or refused and bad.")
    balanced_accuracy: Estimated | None = Field(
        description="null unless enough refused decisions have outcomes."
    )
    auc: Estimated
    auc_error: float = Field(description="How far binning can move the AUC.")
    brier: Estimated
    log_loss: Estimated
    calibration: list[CalibrationBin]
    rule: AgainstRule | None


class CalibrationTest(BaseModel):
    """Whether as many outcomes are good as the probabilities of the same decisions said."""

    outcomes: int = Field(description="Good or bad.")
    expected: float = Field(description="The share of good ones that the probabilities said.")
    observed: Estimated = Field(description="The share of good ones.")
    p_value: float = Field(
        description="How probable so great a difference is if the probabilities are right."
    )
    holds: bool = Field(description="Whether that is at least 5 %.")
    conclusion: Conclusion


class Expected(BaseModel):
    """An estimate of how right all decisions are, with or without outcome; not a measurement."""

    decisions: int
    accuracy: Estimated
    good_among_approved: Estimated | None = Field(
        description="The share of approved decisions that turn out well; null where they are few."
    )
    weakness: str
    calibration: CalibrationTest | None = Field(
        description="Whether the estimate may be relied on; null where outcomes are few."
    )


class ModelPerformance(BaseModel):
    """The live performance of one model of one bundle."""

    model: str
    bundle: str
    month: str | None = Field(description="Of the decisions; null over all months.")
    outcomes: dict[OutcomeKind, int]
    good: int
    bad: int
    approved: Labelled
    refused: Labelled
    on_whom: str
    not_enough: str | None = Field(description="Why there are no figures yet; null if there are.")
    figures: Figures | None
    conclusions: list[Conclusion] = Field(description="Empty where there are no figures.")
    cross_validated: CrossValidated | None = Field(
        description="On the training data, whose labels are past decisions; null if the bundle has"
        " not been registered."
    )
    expected: Expected | None = Field(
        description="Before outcomes are known; null where decisions are few."
    )


class LivePerformance(BaseModel):
    """Whether the models were right, by the outcomes that are known."""

    least_outcomes: int = Field(description="Good and bad outcomes that figures need.")
    least_of_each: int = Field(description="Outcomes of either kind that figures need.")
    models: list[ModelPerformance]


class VintagePoint(BaseModel):
    """How many of a month's approved decisions had turned out badly by then."""

    months_on_book: int
    bad: int
    share: Estimated


class Vintage(BaseModel):
    """The approved decisions of one month."""

    month: str
    approved: int
    outcomes: int = Field(description="Of those, decisions with any outcome.")
    on_whom: str
    curve: list[VintagePoint]


class Compared(BaseModel):
    """The approved decisions of some months, and how many had turned out badly by then."""

    months: list[str] = Field(description="The latest first.")
    approved: int
    outcomes: int = Field(description="Of those, decisions with any outcome.")
    bad: int


class VintageTrend(BaseModel):
    """Whether the newest vintages turned out worse than those before, at the same age."""

    months_on_book: int
    recent: Compared = Field(description="The newest months that are that old.")
    earlier: Compared = Field(description="All months before those.")
    difference: Estimated | None = Field(
        description="The recent share of bad outcomes minus the earlier one; null where there is"
        " not enough yet."
    )
    worse: bool | None = Field(description="null where that is not known.")
    conclusion: Conclusion


class Vintages(BaseModel):
    """Cumulative shares of bad outcomes by the months between decision and observation.

    A decision without an outcome counts as not bad yet, so young vintages look better than they
    are. A loan counts where its current outcome was observed.
    """

    vintages: list[Vintage]
    trends: list[VintageTrend]


class Manifest(BaseModel):
    """What a bundle's manifest has to have; everything else in it is kept, too."""

    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    models: dict[str, dict[str, Any]]
