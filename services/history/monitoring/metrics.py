"""Whether the models still hold, for Prometheus: drift, outcomes and groups of recent decisions."""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from time import monotonic
from typing import Final

from sqlalchemy.ext.asyncio import AsyncEngine

from services.history.daily import Selection
from services.history.monitoring.drift import read_drift
from services.history.monitoring.drift_schemas import LiveDrift
from services.history.monitoring.fairness import read_fairness
from services.history.monitoring.fairness_schemas import LiveFairness
from services.history.monitoring.performance import read_performance
from services.history.monitoring.schemas import Estimated, LivePerformance
from services.history.server_metrics import in_time
from services.history.settings import HistorySettings
from shared.observability.metrics import Sample
from shared.observability.metrics.names import (
    DRIFT_PSI,
    DRIFT_PSI_LIMIT,
    EXPECTED_ACCURACY,
    FAIRNESS_RATIO,
    FAIRNESS_SCREEN,
    OUTCOME_EXPECTED_GOOD,
    OUTCOME_GOOD,
    OUTCOMES_KNOWN,
    Gauge,
)

RECENT_DAYS: Final = 30
"""The window of drift, groups and expected accuracy."""

OUTCOME_DAYS: Final = 365
"""The window of outcomes, which are known months later; it begins with a month."""

_DEADLINE_S: Final = 2.0
_KEEP_S: Final = 60.0


class ModelMetrics:
    """Reads the roll-ups on request, at most once a minute, and waits at most two seconds.

    If the database does not answer by then there is no metric: no stale value is shown.
    """

    def __init__(self, settings: HistorySettings, *, engine: AsyncEngine) -> None:
        self._engine = engine
        self._screen = settings.fairness_screen
        self._reading = asyncio.Lock()
        self._samples: Sequence[Sample] = ()
        self._expire_at_s = 0.0

    async def samples(self) -> Sequence[Sample]:
        """The models' metrics, at most a minute old."""
        async with self._reading:
            if monotonic() >= self._expire_at_s:
                found = await in_time(self._read, _DEADLINE_S)
                self._samples = found or ()
                if found:
                    self._expire_at_s = monotonic() + _KEEP_S
            return self._samples

    async def _read(self) -> Sequence[Sample]:
        today = datetime.now(UTC).date()
        recent = Selection(since=today - timedelta(days=RECENT_DAYS))
        year = Selection(since=_month_of(today - timedelta(days=OUTCOME_DAYS)))
        async with self._engine.connect() as opened:
            drift = await read_drift(opened, recent)
            fairness = await read_fairness(opened, recent, screen=self._screen)
            expected = await read_performance(opened, recent)
            outcomes = await read_performance(opened, year)
        return (
            *_of_drift(drift),
            *_of_fairness(fairness),
            *_of_expectations(expected),
            *_of_outcomes(outcomes),
        )


def _month_of(day: date) -> date:
    return day.replace(day=1)


def _of_drift(found: LiveDrift) -> Iterator[Sample]:
    for model in found.models:
        for each in (*model.inputs, model.score):
            if each is not None:
                labels = (model.model, model.bundle, each.name)
                yield Sample(DRIFT_PSI, each.psi, labels)
                yield Sample(DRIFT_PSI_LIMIT, each.limit, labels)


def _of_fairness(found: LiveFairness) -> Iterator[Sample]:
    yield Sample(FAIRNESS_SCREEN, found.screen)
    for model in found.models:
        for attribute in model.attributes:
            for group in attribute.groups:
                if group.against_largest and group.against_largest.ratio:
                    yield from _with_bounds(
                        FAIRNESS_RATIO,
                        group.against_largest.ratio,
                        (model.model, model.bundle, attribute.attribute, group.group),
                    )


def _of_expectations(found: LivePerformance) -> Iterator[Sample]:
    for model in found.models:
        if model.expected:
            value = model.expected.accuracy.value
            yield Sample(EXPECTED_ACCURACY, value, (model.model, model.bundle))


def _of_outcomes(found: LivePerformance) -> Iterator[Sample]:
    for model in found.models:
        labels = (model.model, model.bundle)
        yield Sample(OUTCOMES_KNOWN, model.good + model.bad, labels)
        if model.expected and (test := model.expected.calibration):
            yield Sample(OUTCOME_EXPECTED_GOOD, test.expected, labels)
            yield from _with_bounds(OUTCOME_GOOD, test.observed, labels)


def _with_bounds(metric: Gauge, found: Estimated, labels: tuple[str, ...]) -> Iterator[Sample]:
    for bound in ("value", "low", "high"):
        yield Sample(metric, getattr(found, bound), (*labels, bound))
