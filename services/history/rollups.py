"""What a batch of decisions adds to the roll-ups.

Adding up here costs a quarter of what it costs in PostgreSQL, which then only merges some dozens
of rows per batch.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time
from itertools import repeat
from operator import add, itemgetter, mul
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

from services.history.binning import Bins
from services.history.records import COLUMNS, Row
from services.history.tables import HISTOGRAM_BUCKETS, MISSING

_Hour: TypeAlias = tuple[date, int, str, str, str, str, str]
"""A UTC hour with the model, its bundle, the arm, the client and the decision."""

_Span: TypeAlias = tuple[str, datetime, str, str, str]
"""The key of ``prediction_rollup``."""

_Day: TypeAlias = tuple[date, str, str, str, str, str, str]
"""The key of ``daily_rollup``."""

_Applicant: TypeAlias = tuple[str | None, int | None, str]
"""The area, the credit history and the decision."""

_Key = TypeVar("_Key", bound=Hashable)

_EPOCH: Final = datetime.fromtimestamp(0, UTC)

_COUNTED: Final = (
    *("decided_at", "model", "bundle_version", "arm", "client", "prediction"),
    *("property_area", "credit_history", "confidence"),
)
_counted_of: Final = itemgetter(*map(COLUMNS.index, _COUNTED))
_confidence_of: Final = itemgetter(COLUMNS.index("confidence"))
_warnings_of: Final = itemgetter(COLUMNS.index("warnings"))


class Rollups(NamedTuple):
    """Rows to add to the roll-ups, sorted by their keys.

    All writers lock rows in that order, so they cannot deadlock.
    """

    by_model: list[tuple[Any, ...]]
    """Of ``prediction_rollup``."""
    by_applicant: list[tuple[Any, ...]]
    """Of ``applicant_rollup``."""
    by_day: list[tuple[Any, ...]]
    """Of ``daily_rollup``."""


class _Total(NamedTuple):
    predictions: int
    with_warnings: int
    confidence_sum: float
    counts: Sequence[int]
    """Histograms, the same ones in totals that are added up."""

    def and_(self, other: "_Total") -> "_Total":
        return _Total(
            self.predictions + other.predictions,
            self.with_warnings + other.with_warnings,
            self.confidence_sum + other.confidence_sum,
            list(map(add, self.counts, other.counts)),
        )


def add_up(rows: Iterable[Row], bins: Mapping[str, Bins]) -> Rollups:
    """The roll-ups of ``rows``, whose ``decided_at`` must be in UTC: hours and days are UTC's.

    ``bins`` are those of each bundle that decided.
    """
    by_hour: defaultdict[_Hour, list[Row]] = defaultdict(list)
    by_applicant: defaultdict[_Applicant, list[float]] = defaultdict(list)
    for row in rows:
        decided_at, model, bundle, arm, client, prediction, area, history, confidence = _counted_of(
            row
        )
        # A date and a number make a key at a fifth of the cost of a truncated datetime.
        decided_in = (decided_at.date(), decided_at.hour, model, bundle, arm, client, prediction)
        by_hour[decided_in].append(row)
        by_applicant[area, history, prediction].append(confidence)

    by_span: dict[_Span, _Total] = {}
    by_day: dict[_Day, _Total] = {}
    for (day, hour, model, bundle, arm, client, prediction), decided in by_hour.items():
        total = _total(decided)
        starts_at = datetime.combine(day, time(hour), UTC)
        _add(by_span, ("hour", starts_at, model, bundle, prediction), total)
        _add(by_span, ("all", _EPOCH, model, bundle, prediction), total)
        counts = bins[bundle].counts(decided, total.counts, approved=prediction == "Approved")
        key = (day, model, bundle, arm or "", client, prediction, bins[bundle].layout)
        _add(by_day, key, total._replace(counts=counts))
    return Rollups(
        by_model=_rows(by_span),
        by_applicant=sorted(
            (
                MISSING if area is None else area,
                MISSING if history is None else str(history),
                prediction,
                len(confidences),
                sum(confidences),
            )
            for (area, history, prediction), confidences in by_applicant.items()
        ),
        by_day=_rows(by_day),
    )


def _add(totals: dict[_Key, _Total], key: _Key, total: _Total) -> None:
    before = totals.get(key)
    totals[key] = total if before is None else before.and_(total)


def _rows(totals: Mapping[Any, _Total]) -> list[tuple[Any, ...]]:
    return [(*key, *totals[key]) for key in sorted(totals)]


def _total(rows: Sequence[Row]) -> _Total:
    confidences = list(map(_confidence_of, rows))
    buckets = Counter(map(int, map(mul, confidences, repeat(HISTOGRAM_BUCKETS))))
    histogram = [buckets[number] for number in range(HISTOGRAM_BUCKETS)]
    histogram[-1] += buckets[HISTOGRAM_BUCKETS]
    return _Total(len(rows), sum(map(bool, map(_warnings_of, rows))), sum(confidences), histogram)
