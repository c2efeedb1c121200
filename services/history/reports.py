"""Statistics and analytics, computed from roll-up rows."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from services.history import queries
from services.history.daily import Decided, read_totals
from services.history.schemas import (
    Analytics,
    Bucket,
    ConfidenceAnalysis,
    Day,
    Statistics,
    Summary,
)
from services.history.tables import HISTOGRAM_BUCKETS, AnyRow

_HOURS: Final = 24
_TREND_DAYS: Final = 30
_HIGH_FROM: Final = HISTOGRAM_BUCKETS * 8 // 10
_MEDIUM_FROM: Final = HISTOGRAM_BUCKETS * 6 // 10
_Key = TypeVar("_Key", bound=Hashable)


class _Sums(NamedTuple):
    """The sums over some roll-up rows."""

    approved: int
    rejected: int
    approved_confidence: float
    rejected_confidence: float


async def read_statistics(connection: AsyncConnection) -> Statistics:
    """Outcomes of all decisions, overall and by model."""
    totals = await queries.read_totals(connection)
    return Statistics(
        **_summary(_sum(totals)).model_dump(),
        by_model=_by(totals, lambda row: str(row.model)),
    )


async def read_analytics(connection: AsyncConnection) -> Analytics:
    """Outcomes of decisions over time, by confidence and by applicant."""
    totals = await queries.read_totals(connection)
    recent = await queries.read_last_hours(connection, _HOURS)
    first = datetime.now(UTC).date() - timedelta(days=_TREND_DAYS - 1)
    days = await read_totals(connection, Decided(since=first), ["day", "prediction"])
    applicants = await queries.read_applicants(connection)

    histogram = _histogram(totals)
    return Analytics(
        overall=_summary(_sum(totals)),
        last_24_hours=_summary(_sum(recent)),
        daily_trend=[
            Day(date=date, **_summary(_sum(rows)).model_dump())
            for date, rows in _grouped(days, lambda row: row.day).items()
        ],
        confidence_analysis=_analysis(_sum(totals), histogram),
        confidence_histogram=[
            Bucket(
                at_least=number / HISTOGRAM_BUCKETS,
                below=(number + 1) / HISTOGRAM_BUCKETS,
                predictions=count,
            )
            for number, count in enumerate(histogram)
        ],
        by_property_area=_by(applicants, lambda row: str(row.property_area)),
        by_credit_history=_by(applicants, lambda row: str(row.credit_history)),
    )


def _sum(rows: Iterable[AnyRow]) -> _Sums:
    counts = {"Approved": 0, "Rejected": 0}
    confidences = {"Approved": 0.0, "Rejected": 0.0}
    for row in rows:
        counts[row.prediction] += int(row.predictions)
        confidences[row.prediction] += row.confidence_sum
    return _Sums(
        counts["Approved"], counts["Rejected"], confidences["Approved"], confidences["Rejected"]
    )


def _summary(sums: _Sums) -> Summary:
    total = sums.approved + sums.rejected
    return Summary(
        total_predictions=total,
        approved=sums.approved,
        rejected=sums.rejected,
        approval_rate=sums.approved / total if total else None,
        average_confidence=_mean_confidence(
            sums.approved_confidence + sums.rejected_confidence, total
        ),
    )


def _analysis(sums: _Sums, histogram: Sequence[int]) -> ConfidenceAnalysis:
    return ConfidenceAnalysis(
        average=_summary(sums).average_confidence,
        average_approved=_mean_confidence(sums.approved_confidence, sums.approved),
        average_rejected=_mean_confidence(sums.rejected_confidence, sums.rejected),
        low=sum(histogram[:_MEDIUM_FROM]),
        medium=sum(histogram[_MEDIUM_FROM:_HIGH_FROM]),
        high=sum(histogram[_HIGH_FROM:]),
    )


def _histogram(rows: Iterable[AnyRow]) -> list[int]:
    buckets = [0] * HISTOGRAM_BUCKETS
    for row in rows:
        for number, count in enumerate(row.confidence_histogram):
            buckets[number] += count
    return buckets


def _by(rows: Iterable[AnyRow], key: Callable[[AnyRow], str]) -> dict[str, Summary]:
    groups = _grouped(rows, key)
    return {name: _summary(_sum(groups[name])) for name in sorted(groups)}


def _grouped(rows: Iterable[AnyRow], key: Callable[[AnyRow], _Key]) -> Mapping[_Key, list[AnyRow]]:
    groups: defaultdict[_Key, list[AnyRow]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return groups


def _mean_confidence(total: float, predictions: int) -> float | None:
    """To six digits, as confidences are given."""
    return round(total / predictions, 6) if predictions else None
