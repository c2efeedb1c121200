"""What pictures and tables need of the answers under /monitoring.

The answers are the history service's own models or its client's, which have the same members.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from shared.pictures.axes import Axis, axis
from shared.pictures.formats import (
    NONE,
    Interval,
    count,
    decimal,
    decimal_interval,
    field_title,
    month_and_year,
    percent,
    percent_interval,
    points_interval,
    value_title,
    with_titles,
)

APART: Final = 3
"""Curves that are told apart; younger ones than so many months are not drawn."""
_SCORE: Final = "score"
_TWO: Final = 2
_MARGIN: Final = 0.02
"""Between the screen and the ends of an axis."""

_UNLESS_ALL_ARE_OPEN: Final = (True, False, None)
_UNLESS_ANY_IS_OPEN: Final = (True, None, False)

Points = list[Interval | None]

MEASURES: Final = {
    "accuracy": percent_interval,
    "balanced_accuracy": percent_interval,
    "auc": decimal_interval,
    "brier": decimal_interval,
    "log_loss": decimal_interval,
}
"""The figures of a model, and how each is written."""


class Finding(NamedTuple):
    """A sentence, and whether it is an alarm; None where it is neither that nor its absence."""

    alarm: bool | None
    text: str


class Area(NamedTuple):
    """What is concluded of one thing, and whether any of it is an alarm; None where it is open."""

    alarm: bool | None
    findings: Sequence[Any]


def areas_of(performance: Any, vintages: Any, drift: Any, fairness: Any) -> dict[str, Area]:
    """All that is concluded of one model of one bundle, by what it is about."""
    test = performance.expected.calibration if performance.expected else None
    return {
        "Approvals": _area([trend.conclusion for trend in vintages.trends]),
        "Performance": _area(performance.conclusions),
        "Calibration": _area([test.conclusion] if test else []),
        "Drift": _area(drift_findings(drift)),
        "Groups": _area(fairness_findings(fairness), _UNLESS_ANY_IS_OPEN),
    }


def _area(findings: Sequence[Any], order: Sequence[bool | None] = _UNLESS_ALL_ARE_OPEN) -> Area:
    """Its alarm is the first of ``order`` that a finding has."""
    alarms = {finding.alarm for finding in findings}
    return Area(next((alarm for alarm in order if alarm in alarms), None), findings)


def verdict(areas: Mapping[str, Area]) -> str:
    """The areas with an alarm in a sentence; without any, those where that is open."""
    alarms = [name for name, area in areas.items() if area.alarm]
    still_open = [name for name, area in areas.items() if area.alarm is None]
    if alarms:
        return f"Alarm: {', '.join(alarms)}."
    if len(still_open) == len(areas):
        return "Too little to say."
    return f"No alarm. Open: {', '.join(still_open)}." if still_open else "No alarm."


def figures(months: Sequence[Any], name: str) -> Points:
    """The figure ``name`` of each month; None where there is none."""
    return [getattr(month.figures, name) if month.figures else None for month in months]


def axis_of(points: Points, reference: float | None = None) -> Axis:
    """An axis that holds the points with their intervals, and what they are compared with."""
    ends = [end for point in points if point for end in (point.low, point.high)]
    return axis(ends if reference is None else [*ends, reference], low=0)


def month_rows(months: Sequence[Any]) -> list[list[str]]:
    """A row of a table for each month."""
    rows = []
    for month in months:
        row = [month_and_year(month.month), count(month.good), count(month.bad)]
        for name, write in MEASURES.items():
            found = getattr(month.figures, name) if month.figures else None
            row.append(write(found) if found else NONE)
        rows.append(row)
    return rows


def calibration_rows(bins: Sequence[Any]) -> list[list[str]]:
    """A row of a table for each bin."""
    return [
        [
            f"{percent(bin_.at_least, 0)} to {percent(bin_.below, 0)}",
            count(bin_.outcomes),
            percent(bin_.predicted),
            percent_interval(bin_.observed),
        ]
        for bin_ in bins
    ]


def shares_by_age(found: Any) -> dict[str, Points]:
    """The share gone bad at each age that is compared, of each vintage, the oldest first."""
    lines = {
        months_title(trend.months_on_book): [
            _share_at(vintage, trend.months_on_book) for vintage in reversed(found.vintages)
        ]
        for trend in found.trends
    }
    return {name: points for name, points in lines.items() if any(points)}


def months_title(months_on_book: int) -> str:
    """An age of loans in words."""
    return f"{months_on_book} months on book"


def curves_of(found: Any) -> list[tuple[str, list[tuple[int, float]]]]:
    """The share gone bad of each vintage by its completed months on book, the newest first."""
    return [
        (
            month_and_year(vintage.month),
            [(point.months_on_book, point.share.value) for point in vintage.curve[:-1]],
        )
        for vintage in found.vintages
        if len(vintage.curve) > APART
    ]


def axis_of_lines(lines: Mapping[str, Points]) -> Axis:
    """An axis that holds the points of all lines with their intervals."""
    return axis_of([point for points in lines.values() for point in points])


def vintage_rows(found: Any) -> list[list[str]]:
    """A row of a table for each vintage, with its share at each age that is compared."""
    return [
        [
            month_and_year(vintage.month),
            count(vintage.approved),
            count(vintage.outcomes),
            *(
                percent_interval(share) if share else NONE
                for share in (_share_at(vintage, trend.months_on_book) for trend in found.trends)
            ),
        ]
        for vintage in found.vintages
    ]


def _share_at(vintage: Any, months_on_book: int) -> Interval | None:
    """The share gone bad by that age; None before it is over."""
    if not vintage.approved or len(vintage.curve) <= months_on_book + 1:
        return None
    share: Interval = vintage.curve[months_on_book].share
    return share


def drift_findings(drift: Any) -> list[Finding]:
    """What is concluded of the inputs and the score together."""
    shifts = shifts_of(drift)
    alarm = any(shift.alarm for shift in shifts) if shifts else None
    return [Finding(alarm, with_titles(drift.conclusion))]


def shifts_of(drift: Any) -> list[Any]:
    """The score, where it is compared, and the inputs; those that differ most first."""
    found = [*drift.inputs, *([drift.score] if drift.score else [])]
    return sorted(found, key=lambda shift: -shift.psi)


def shift_title(shift: Any) -> str:
    """What has shifted, in words."""
    return "Probability of approval" if shift.name == _SCORE else field_title(shift.name)


def shift_text(shift: Any) -> str:
    """The index of a shift, and the one above which it is an alarm."""
    return (
        f"PSI {decimal(shift.psi, 2)}, alarm above {decimal(shift.limit, 2)};"
        f" {count(shift.decisions)} decisions"
    )


def callers_text(shift: Any) -> str:
    """The index of each caller's decisions; nothing where there is only one."""
    if len(shift.callers) < _TWO:
        return ""
    each = (
        f"{caller.client} {decimal(caller.psi, 2)}{' (alarm)' if caller.alarm else ''}"
        for caller in shift.callers
    )
    return f"PSI by caller: {', '.join(each)}."


def bars_of(shift: Any) -> list[tuple[str, float, float]]:
    """Each bin: its label, the reference's share and the decisions' share."""
    return [(_bin_label(bin_, shift.name), bin_.reference, bin_.share) for bin_ in shift.bins]


def _bin_label(bin_: Any, name: str) -> str:
    if bin_.value is not None:
        return value_title(bin_.value, name)
    if name == _SCORE:
        return percent(bin_.at_least, 0)
    return f"<{bin_.below:,.6g}" if bin_.at_least is None else f"{bin_.at_least:,.6g}"


def shift_rows(drift: Any) -> list[list[str]]:
    """A row of a table for each input and the score."""
    return [
        [
            shift_title(shift),
            decimal(shift.psi, 3),
            decimal(shift.limit, 3),
            "alarm" if shift.alarm else "no alarm",
            decimal(shift.detectable, 3),
            count(shift.decisions),
            f"{percent_interval(shift.missing.share)}, was {percent(shift.missing.reference)}"
            if shift.missing
            else NONE,
        ]
        for shift in shifts_of(drift)
    ]


def fairness_findings(fairness: Any) -> list[Finding]:
    """What is concluded of each attribute."""
    return [
        Finding(_screened(attribute), with_titles(attribute.conclusion))
        for attribute in fairness.attributes
    ]


def _screened(attribute: Any) -> bool | None:
    """Whether a group is outside of the screen; None where that cannot be said of any."""
    screens = {group.against_largest.screen for group in attribute.groups if group.against_largest}
    if "outside" in screens:
        return True
    return None if not screens or screens - {"inside"} else False


def rates_of(attribute: Any) -> list[tuple[str, Interval, str]]:
    """The selection rate of each group: its name, the rate, and both as text."""
    return [
        (
            value_title(group.group, attribute.attribute),
            group.selection_rate,
            f"{percent_interval(group.selection_rate)}, {count(group.decisions)} decisions",
        )
        for group in attribute.groups
    ]


def ratios_of(attribute: Any) -> list[tuple[str, Interval, str]]:
    """The selection rate of each group divided by that of the largest."""
    return [
        (
            value_title(group.group, attribute.attribute),
            group.against_largest.ratio,
            decimal_interval(group.against_largest.ratio),
        )
        for group in attribute.groups
        if group.against_largest and group.against_largest.ratio
    ]


def ratio_axis(rows: Sequence[tuple[str, Interval, str]], screen: float) -> Axis:
    """An axis that holds the ratios and both ends of the screen."""
    ends = [end for _, ratio, _ in rows for end in (ratio.low, ratio.high)]
    return axis([*ends, screen - _MARGIN, 1 / screen + _MARGIN], low=0)


def group_rows(attribute: Any) -> list[list[str]]:
    """A row of a table for each group."""
    rows = []
    for group in attribute.groups:
        against = group.against_largest
        gap = against.true_positive_gap if against else None
        rows.append(
            [
                value_title(group.group, attribute.attribute),
                count(group.decisions),
                percent_interval(group.selection_rate),
                percent(group.selection_rate_out_of_fold),
                decimal_interval(against.ratio) if against and against.ratio else NONE,
                points_interval(against.difference) if against else NONE,
                percent_interval(group.true_positive_rate) if group.true_positive_rate else NONE,
                points_interval(gap) if gap else NONE,
            ]
        )
    return rows
