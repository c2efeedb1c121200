"""Statistics and analytics, computed from roll-up rows."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from operator import add
from typing import Final, NamedTuple, Protocol, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from services.history import queries
from services.history.binning import BINNED, SCORE, values_of
from services.history.daily import By, GroupCounts, Selection, read_group_counts, read_totals
from services.history.outcomes.rollups import BILLION
from services.history.statistics_schemas import (
    MOST_GROUPS,
    Analytics,
    AnalyticsQuery,
    Bucket,
    ConfidenceAnalysis,
    Day,
    Grouping,
    Period,
    ReportQuery,
    Statistics,
    StatisticsQuery,
    Summary,
    Unit,
)
from services.history.tables import HISTOGRAM_BUCKETS, AnyRow

_HOURS: Final = 24
_TREND_DAYS: Final = 30
_HIGH_FROM: Final = HISTOGRAM_BUCKETS * 8 // 10
_MEDIUM_FROM: Final = HISTOGRAM_BUCKETS * 6 // 10
_APPROVED: Final = "Approved"
_NO_OUTCOME: Final = "none"
_ONE_DAY: Final = timedelta(days=1)
_VALUES: Final = {field.column: values_of(field) for field in BINNED if field.allowed}
_KEYS: Final[Mapping[Grouping, By]] = {
    "day": "day",
    "week": "week",
    "month": "month",
    "bundle": "bundle_version",
    "client": "client",
}
_Key = TypeVar("_Key", bound=Hashable)


class _Counted(Protocol):
    """Decisions that came out the same: a row of a roll-up, or what follows from some."""

    @property
    def prediction(self) -> str: ...
    @property
    def predictions(self) -> int: ...
    @property
    def confidence_sum(self) -> float: ...


class _Part(NamedTuple):
    prediction: str
    predictions: int
    confidence_sum: float


class _Sums(NamedTuple):
    """The sums over some roll-up rows."""

    approved: int
    rejected: int
    approved_confidence: float
    rejected_confidence: float


async def read_statistics(connection: AsyncConnection, query: StatisticsQuery) -> Statistics:
    """How the decisions came out, overall and by model."""
    if _is_everything(query):
        totals = await queries.read_totals(connection)
    else:
        totals = await read_totals(connection, _selection(query), ["model", "prediction"])
    return Statistics(
        **_summary(_sum(totals)).model_dump(),
        by_model=_by(totals, lambda row: str(row.model)),
        groups=await _groups(connection, query, query.group_by) if query.group_by else None,
        previous=await _previous(connection, query),
    )


async def read_analytics(connection: AsyncConnection, query: AnalyticsQuery) -> Analytics:
    """How decisions came out over time, by confidence and by applicant."""
    recent = await queries.read_last_hours(connection, _HOURS)
    if _is_everything(query):
        rows = await queries.read_totals(connection)
        totals: Sequence[_Counted] = rows
        histogram = _added(row.confidence_histogram for row in rows)
        applicants = await queries.read_applicants(connection)
        by_area = _by(applicants, lambda row: str(row.property_area))
        by_history = _by(applicants, lambda row: str(row.credit_history))
    else:
        found = await read_group_counts(connection, _selection(query), ["prediction"])
        totals = [_Part(each.group[0], each.predictions, each.confidence_sum) for each in found]
        histogram = _added(map(_confidences, found))
        by_area = _by_value(found, "property_area")
        by_history = _by_value(found, "credit_history")
    return Analytics(
        overall=_summary(_sum(totals)),
        previous=await _previous(connection, query),
        last_24_hours=_summary(_sum(recent)),
        daily_trend=await _daily_trend(connection, query),
        trend=await _trend(connection, query, query.group_by) if query.group_by else None,
        confidence_analysis=_analysis(_sum(totals), histogram),
        confidence_histogram=[
            Bucket(
                at_least=number / HISTOGRAM_BUCKETS,
                below=(number + 1) / HISTOGRAM_BUCKETS,
                predictions=count,
            )
            for number, count in enumerate(histogram)
        ],
        by_property_area=by_area,
        by_credit_history=by_history,
    )


def _is_everything(query: ReportQuery) -> bool:
    return _selection(query) == Selection()


def _selection(query: ReportQuery) -> Selection:
    return Selection(
        since=query.since,
        until=query.until,
        model=query.model,
        bundle=query.bundle,
        client=query.client,
    )


def _end(query: ReportQuery) -> date:
    return query.until or datetime.now(UTC).date() + _ONE_DAY


async def _previous(connection: AsyncConnection, query: ReportQuery) -> Period | None:
    if query.since is None or query.compare is None:
        return None
    days = max(_end(query) - query.since, _ONE_DAY)
    since = query.since - min(days, query.since - date.min)
    before = query.model_copy(update={"since": since, "until": query.since})
    totals = await read_totals(connection, _selection(before), ["prediction"])
    return Period(since=since, until=query.since, **_summary(_sum(totals)).model_dump())


async def _daily_trend(connection: AsyncConnection, query: ReportQuery) -> list[Day]:
    first = _end(query) - timedelta(days=_TREND_DAYS)
    last_days = query.model_copy(update={"since": max(first, query.since or first)})
    rows = await read_totals(connection, _selection(last_days), ["day", "prediction"])
    return [
        Day(date=day, **_summary(_sum(of_day)).model_dump())
        for day, of_day in _grouped(rows, lambda row: row.day).items()
    ]


async def _trend(connection: AsyncConnection, query: ReportQuery, unit: Unit) -> list[Period]:
    rows = await read_totals(connection, _selection(query), [unit, "prediction"])
    periods = _grouped(rows, lambda row: row[0])
    return [
        Period(
            since=max(starts, query.since or starts),
            until=min(_after(starts, unit), query.until or date.max),
            **_summary(_sum(of_period)).model_dump(),
        )
        for starts, of_period in list(periods.items())[-MOST_GROUPS:]
    ]


def _after(starts: date, unit: Unit) -> date:
    """The first day of the next period."""
    if unit == "month":
        return (starts + timedelta(days=31)).replace(day=1)
    return starts + timedelta(days=1 if unit == "day" else 7)


async def _groups(
    connection: AsyncConnection, query: ReportQuery, by: Grouping
) -> dict[str, Summary]:
    if by == "outcome":
        return await _by_outcome(connection, query)
    if by in _VALUES:
        found = await read_group_counts(connection, _selection(query), ["prediction"])
        return _by_value(found, by)
    rows = await read_totals(connection, _selection(query), [_KEYS[by], "prediction"])
    groups = _by(rows, lambda row: str(row[0]))
    return dict(list(groups.items())[-MOST_GROUPS:])


async def _by_outcome(connection: AsyncConnection, query: ReportQuery) -> dict[str, Summary]:
    selection = _selection(query)
    rest = {
        row.prediction: _Part(row.prediction, row.predictions, row.confidence_sum)
        for row in await read_totals(connection, selection, ["prediction"])
    }
    groups: defaultdict[str, list[_Part]] = defaultdict(list)
    for row in await queries.read_outcome_totals(connection, selection):
        approved = row.probability_sum / BILLION
        confidence = approved if row.prediction == _APPROVED else row.outcomes - approved
        groups[row.outcome].append(_Part(row.prediction, row.outcomes, confidence))
        left = rest[row.prediction]
        rest[row.prediction] = left._replace(
            predictions=left.predictions - row.outcomes,
            confidence_sum=left.confidence_sum - confidence,
        )
    groups[_NO_OUTCOME] = list(rest.values())
    return {name: _summary(_sum(groups[name])) for name in sorted(groups)}


def _by_value(found: Iterable[GroupCounts], column: str) -> dict[str, Summary]:
    values = _VALUES[column]
    counts = {"Approved": [0] * len(values), "Rejected": [0] * len(values)}
    counts |= {
        each.group[0]: each.histograms.get(column, []) or [0] * len(values) for each in found
    }
    pairs = zip(values, counts["Approved"], counts["Rejected"], strict=True)
    return {
        value: Summary(
            total_predictions=approved + rejected,
            approved=approved,
            rejected=rejected,
            approval_rate=approved / (approved + rejected),
            average_confidence=None,
        )
        for value, approved, rejected in sorted(pairs)
        if approved + rejected
    }


def _confidences(found: GroupCounts) -> Sequence[int]:
    """The buckets of confidence, which is the probability of what was decided."""
    [prediction], scores = found.group, found.histograms[SCORE]
    return scores if prediction == _APPROVED else scores[::-1]


def _added(histograms: Iterable[Sequence[int]]) -> list[int]:
    total = [0] * HISTOGRAM_BUCKETS
    for histogram in histograms:
        total = list(map(add, total, histogram))
    return total


def _sum(rows: Iterable[_Counted]) -> _Sums:
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
