"""What a batch of decisions adds to the roll-ups.

Adding up here costs a quarter of what it costs in PostgreSQL, which then only merges some dozens
of rows per batch.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from itertools import chain, repeat
from operator import add, itemgetter, mul
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

from services.history.binning import Bins
from services.history.records import COLUMNS, Row
from services.history.tables import HISTOGRAM_BUCKETS, MISSING

_Span: TypeAlias = tuple[str, datetime, str, str, str]
"""The key of ``prediction_rollup``."""

_Day: TypeAlias = tuple[date, str, str, str, str, str, str]
"""The key of ``daily_rollup``."""

_Applicant: TypeAlias = tuple[str | None, int | None, str]
"""The area, the credit history and the decision."""

_Key = TypeVar("_Key", bound=Hashable)

_EPOCH: Final = datetime.fromtimestamp(0, UTC)


def _of(*names: str) -> Callable[[Sequence[Any]], Any]:
    return itemgetter(*map(COLUMNS.index, names))


_bundle_of: Final = _of("bundle_version")
_group_of: Final = _of("model", "arm", "client", "prediction")
_decided_at_of: Final = _of("decided_at")

# Of the columns of many rows.
_applicants_of: Final = _of("property_area", "credit_history", "prediction")
_confidences_of: Final = _of("confidence")
_warnings_of: Final = _of("warnings")


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


def add_up(rows: Sequence[Row], bins: Mapping[str, Bins]) -> Rollups:
    """The roll-ups of ``rows``, whose ``decided_at`` must be in UTC: hours and days are UTC's.

    ``bins`` are those of each bundle that decided.
    """
    by_applicant: defaultdict[_Applicant, list[float]] = defaultdict(list)
    by_span: dict[_Span, _Total] = {}
    by_day: dict[_Day, _Total] = {}
    for hour, of_hour in _by_hour(rows):
        for bundle, of_bundle in _by(of_hour, _bundle_of).items():
            layout = bins[bundle].layout
            groups = _by(of_bundle, _group_of)
            columns = tuple(zip(*chain.from_iterable(groups.values()), strict=True))
            for key, confidence in zip(
                zip(*_applicants_of(columns), strict=True), _confidences_of(columns), strict=True
            ):
                by_applicant[key].append(confidence)
            totals = _totals(columns, list(map(len, groups.values())), bins[bundle])
            for (model, arm, client, prediction), (total, counts) in zip(
                groups, totals, strict=True
            ):
                _add(by_span, ("hour", hour, model, bundle, prediction), total)
                _add(by_span, ("all", _EPOCH, model, bundle, prediction), total)
                # Of a refusal the confidence is the probability of what was not approved.
                scores = total.counts if prediction == "Approved" else total.counts[::-1]
                of_day = (hour.date(), model, bundle, arm or "", client, prediction, layout)
                _add(by_day, of_day, total._replace(counts=[*scores, *counts]))
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


def _by(rows: Sequence[Row], key: Callable[[Row], _Key]) -> dict[_Key, list[Row]]:
    groups: defaultdict[_Key, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return groups


def _by_hour(rows: Sequence[Row]) -> Iterable[tuple[datetime, Sequence[Row]]]:
    """The rows of each UTC hour, with its beginning."""
    times = list(map(_decided_at_of, rows))
    first, last = _hour_of(min(times)), _hour_of(max(times))
    # To compare all times takes a tenth of what it takes to round them.
    if first == last:
        return [(first, rows)]
    return _by(rows, lambda row: _hour_of(_decided_at_of(row))).items()


def _hour_of(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)


def _totals(
    columns: Sequence[Sequence[Any]], sizes: Iterable[int], bins: Bins
) -> Iterator[tuple[_Total, list[int]]]:
    """For each group its total and the histograms of its inputs.

    ``columns`` are those of all rows, one group of these ``sizes`` after the other.
    """
    confidences = _confidences_of(columns)
    buckets = bytes(map(int, map(mul, confidences, repeat(HISTOGRAM_BUCKETS))))
    warned = bytes(map(bool, _warnings_of(columns)))
    codes = bins.codes(columns)
    start = 0
    for size in sizes:
        part = slice(start, start + size)
        histogram = list(map(buckets[part].count, range(HISTOGRAM_BUCKETS)))
        histogram[-1] += buckets[part].count(HISTOGRAM_BUCKETS)
        total = _Total(size, warned[part].count(True), sum(confidences[part]), histogram)
        yield total, bins.counts(codes, part)
        start = part.stop


def _add(totals: dict[_Key, _Total], key: _Key, total: _Total) -> None:
    before = totals.get(key)
    totals[key] = total if before is None else before.and_(total)


def _rows(totals: Mapping[Any, _Total]) -> list[tuple[Any, ...]]:
    return [(*key, *totals[key]) for key in sorted(totals)]
