"""What the statistics are about, as parameters of the page's address."""

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Final, Literal, NamedTuple

from pydantic import TypeAdapter, ValidationError

from loan_predictor_client import Selection
from loan_predictor_client.models import Analytics, Fault, Summary
from services.dashboard.filters import unreadable
from services.dashboard.forms import FormField, Option
from shared.pictures.formats import day, day_and_month, model_title

_MODEL: Final = "model"
_FIELDS: Final = (
    FormField("since", "Decided since (UTC)", type="date"),
    FormField("until", "Decided before (UTC)", type="date"),
    FormField(_MODEL, "Model"),
    FormField("bundle", "Bundle"),
    FormField("client", "Caller"),
)
_SELECTION: Final = TypeAdapter(Selection)
_LAST_DAYS: Final = (7, 30, 90, 365)
_MOST_DAYS: Final = 62
_MOST_WEEKS: Final = 60

Unit = Literal["day", "week", "month"]


class Range(NamedTuple):
    """What an address selects: the fields as typed, and what they mean or their faults."""

    values: dict[str, str]
    selection: Selection
    faults: tuple[Fault, ...]

    @property
    def is_chosen(self) -> bool:
        """Whether anything is chosen, rather than all decisions."""
        return any(self.values.values())

    @property
    def unit(self) -> Unit | None:
        """The unit of the trend, so that it has some dozens of points; None for the last days."""
        if self.selection.since is None:
            return None
        days = ((self.selection.until or _today()) - self.selection.since).days
        if days <= _MOST_DAYS:
            return "day"
        return "week" if days <= _MOST_WEEKS * 7 else "month"


class Point(NamedTuple):
    """A point of a trend: its place on the time axis, 0 to 1, and what it is."""

    place: float
    label: str
    name: str
    summary: Summary


def range_of(parameters: Mapping[str, str]) -> Range:
    """What these parameters of an address select; all others are ignored."""
    values = {spec.name: parameters.get(spec.name, "").strip() for spec in _FIELDS}
    given = {name: value for name, value in values.items() if value}
    if "since" in given:
        given["compare"] = "previous"
    try:
        return Range(values, _SELECTION.validate_python(given), ())
    except ValidationError as error:
        return Range(values, Selection(), unreadable(error))


def range_fields(range_: Range, models: Iterable[str]) -> list[FormField]:
    """The fields; ``models`` are those that have decided anything."""
    names = sorted({*models, range_.values[_MODEL]} - {""})
    options = (Option("", "Any"), *(Option(name, model_title(name)) for name in names))
    return [spec._replace(options=options) if spec.name == _MODEL else spec for spec in _FIELDS]


def last_days() -> list[tuple[str, str]]:
    """Ranges that end with today: the first day of each, and its title."""
    return [
        ((_today() - timedelta(days=days - 1)).isoformat(), f"Last {days} days")
        for days in _LAST_DAYS
    ]


def trend_of(analytics: Analytics, unit: Unit | None) -> list[Point]:
    """The points of the trend, in order of time."""
    found: list[tuple[date, Summary]] = (
        [(each.date, each) for each in analytics.daily_trend]
        if analytics.trend is None
        else [(each.since, each) for each in analytics.trend]
    )
    if not found:
        return []
    first, last = found[0][0], found[-1][0]
    span = (last - first).days or 1
    return [
        Point((starts - first).days / span, _label(starts, unit), _name(starts, unit), summary)
        for starts, summary in found
    ]


def _label(starts: date, unit: Unit | None) -> str:
    return f"{starts:%b %Y}" if unit == "month" else day_and_month(starts)


def _name(starts: date, unit: Unit | None) -> str:
    return f"{starts:%B %Y}" if unit == "month" else day(starts)


def _today() -> date:
    return datetime.now(UTC).date()
