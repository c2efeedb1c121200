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


def _of(*names: str) -> Callable[[Row], Any]:
    return itemgetter(*map(COLUMNS.index, names))


_bundle_of: Final = _of("bundle_version")
_group_of: Final = _of("model", "arm", "client", "prediction")
_applicant_of: Final = _of("property_area", "credit_history", "prediction")
_decided_at_of: Final = _of("decided_at")
_confidence_of: Final = _of("confidence")
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
    by_applicant: defaultdict[_Applicant, list[Row]] = defaultdict(list)
    for row in rows:
        by_applicant[_applicant_of(row)].append(row)
    by_span: dict[_Span, _Total] = {}
    by_day: dict[_Day, _Total] = {}
    for hour, of_hour in _by_hour(rows):
        for bundle, of_bundle in _by(of_hour, _bundle_of):
            layout = bins[bundle].layout
            for (model, arm, client, prediction), total, counts in _totals(of_bundle, bins[bundle]):
                _add(by_span, ("hour", hour, model, bundle, prediction), total)
                _add(by_span, ("all", _EPOCH, model, bundle, prediction), total)
                key = (hour.date(), model, bundle, arm or "", client, prediction, layout)
                _add(by_day, key, total._replace(counts=counts))
    return Rollups(
        by_model=_rows(by_span),
        by_applicant=sorted(
            (
                MISSING if area is None else area,
                MISSING if history is None else str(history),
                prediction,
                len(decided),
                sum(map(_confidence_of, decided)),
            )
            for (area, history, prediction), decided in by_applicant.items()
        ),
        by_day=_rows(by_day),
    )


def _by(rows: Sequence[Row], key: Callable[[Row], _Key]) -> Iterable[tuple[_Key, Sequence[Row]]]:
    groups: defaultdict[_Key, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return groups.items()


def _by_hour(rows: Sequence[Row]) -> Iterable[tuple[datetime, Sequence[Row]]]:
    """The rows of each UTC hour, with its beginning."""
    times = list(map(_decided_at_of, rows))
    first, last = _hour_of(min(times)), _hour_of(max(times))
    # To compare all times takes a tenth of what it takes to round them.
    if first == last:
        return [(first, rows)]
    return _by(rows, lambda row: _hour_of(_decided_at_of(row)))


def _hour_of(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)


def _totals(
    rows: Sequence[Row], bins: Bins
) -> Iterator[tuple[tuple[str, str | None, str, str], _Total, Sequence[int]]]:
    """The groups of ``rows``, all of one bundle, with their totals and histograms."""
    groups = _by(rows, _group_of)
    ordered = list(chain.from_iterable(of_group for _, of_group in groups))
    codes = bins.codes(ordered)
    confidences = list(map(_confidence_of, ordered))
    buckets = bytes(map(int, map(mul, confidences, repeat(HISTOGRAM_BUCKETS))))
    warned = bytes(map(bool, map(_warnings_of, ordered)))
    start = 0
    for group, of_group in groups:
        part = slice(start, start + len(of_group))
        histogram = list(map(buckets[part].count, range(HISTOGRAM_BUCKETS)))
        histogram[-1] += buckets[part].count(HISTOGRAM_BUCKETS)
        total = _Total(len(of_group), warned[part].count(True), sum(confidences[part]), histogram)
        # Of a refusal the confidence is the probability of what was not approved.
        scores = histogram if group[-1] == "Approved" else histogram[::-1]
        yield group, total, [*scores, *bins.counts(codes, part)]
        start = part.stop


def _add(totals: dict[_Key, _Total], key: _Key, total: _Total) -> None:
    before = totals.get(key)
    totals[key] = total if before is None else before.and_(total)


def _rows(totals: Mapping[Any, _Total]) -> list[tuple[Any, ...]]:
    return [(*key, *totals[key]) for key in sorted(totals)]
