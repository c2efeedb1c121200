"""Numbers and times as people read them."""

import re
from datetime import UTC, date, datetime
from typing import Final, Protocol

from shared.contract.application import FIELDS

NONE: Final = "\u2013"
EMPTY_PERIOD: Final = "No decision is in this period."
NO_OUTCOMES: Final = "Outcomes are known of none of these decisions."
_NARROW_SPACE: Final = "\u202f"
_MINUS: Final = "\u2212"
_FIELDS: Final = {field.name: field for field in FIELDS}
_NAME: Final = re.compile(rf"\b(?:{'|'.join(_FIELDS)})\b")


class Interval(Protocol):
    """A value with the bounds of its 95 % interval."""

    @property
    def value(self) -> float:
        """The estimate itself."""

    @property
    def low(self) -> float:
        """The lower bound."""

    @property
    def high(self) -> float:
        """The upper bound."""


class Arm(Protocol):
    """A model of a bundle."""

    @property
    def bundle(self) -> str:
        """The bundle's version."""

    @property
    def model(self) -> str:
        """The model's name."""


class Band(Protocol):
    """A band of probabilities."""

    @property
    def low(self) -> float:
        """Its lower end."""

    @property
    def high(self) -> float:
        """Its upper end."""


class DecisionRule(Protocol):
    """What decides otherwise in a what-if."""

    @property
    def arm(self) -> Arm | None:
        """The model that scores; None for the probabilities on record."""

    @property
    def threshold(self) -> float | None:
        """From which probability on is approved; None for the model's own."""

    @property
    def refer(self) -> Band | None:
        """Where a person decides, instead of a threshold."""


def percent(share: float | None, digits: int = 1) -> str:
    """A share of 1 in per cent."""
    return NONE if share is None else f"{share * 100:.{digits}f}{_NARROW_SPACE}%"


def percent_interval(interval: Interval) -> str:
    """A share in per cent with its interval."""
    return f"{percent(interval.value)} ({interval.low * 100:.1f} to {interval.high * 100:.1f})"


def decimal(number: float | None, digits: int = 3) -> str:
    """A number with a fixed count of decimals, for shares that are not read as per cent."""
    return NONE if number is None else f"{number:.{digits}f}".replace("-", _MINUS)


def decimal_interval(interval: Interval) -> str:
    """A number with its interval."""
    low, high = decimal(interval.low), decimal(interval.high)
    return f"{decimal(interval.value)} ({low} to {high})"


def percentage_points(difference: float) -> str:
    """A difference of two shares in points, with its sign."""
    text = f"{difference * 100:+.1f}"
    return "0.0" if text in {"+0.0", "-0.0"} else text.replace("-", _MINUS)


def points_interval(difference: Interval) -> str:
    """A difference of two shares in percentage points, with its interval."""
    low, high = percentage_points(difference.low), percentage_points(difference.high)
    return f"{percentage_points(difference.value)} points ({low} to {high})"


def count(number: int) -> str:
    """A number of things."""
    return f"{number:,}"


def moment(time: datetime) -> str:
    """A time to the second, in UTC."""
    return time.astimezone(UTC).strftime("%d %b %Y, %H:%M:%S UTC").lstrip("0")


def day(date: date) -> str:
    """A day with its year."""
    return f"{date:%d %b %Y}".lstrip("0")


def day_and_month(date: date) -> str:
    """A day without its year."""
    return f"{date.day} {date:%b}"


def month_and_year(month: str) -> str:
    """A month such as 2026-01 in words."""
    return f"{date.fromisoformat(f'{month}-01'):%b %Y}"


def model_title(name: str) -> str:
    """A model's name in words: ``random_forest`` is Random forest."""
    return name.replace("_", " ").capitalize()


def arm_title(arm: Arm) -> str:
    """A model of a bundle in words."""
    return f"{model_title(arm.model)} of {arm.bundle}"


def rule_text(rule: DecisionRule) -> str:
    """A what-if's rule in words."""
    scored_by = arm_title(rule.arm) if rule.arm else "Probabilities on record"
    if rule.refer:
        refer = rule.refer
        return f"{scored_by}, referred from {percent(refer.low)} to below {percent(refer.high)}"
    if rule.threshold is not None:
        return f"{scored_by}, approved from {percent(rule.threshold)}"
    return f"{scored_by}, its own threshold"


def short_month(month: str) -> str:
    """A month such as 2026-01 where there is little room."""
    return f"{date.fromisoformat(f'{month}-01'):%b \u2019%y}"


def tick_text(number: float, written: str) -> str:
    """A number on an axis: in per cent where it is ``written`` as a share."""
    text = f"{number * 100:.6g}{_NARROW_SPACE}%" if written == "share" else f"{number:,.6g}"
    return text.replace("-", _MINUS)


def field_title(name: str) -> str:
    """An input's name in words; an unknown name stays."""
    return _FIELDS[name].title if name in _FIELDS else name


def with_titles(text: str) -> str:
    """A sentence about inputs, with their titles in place of their names."""
    return _NAME.sub(lambda name: field_title(name[0]), text)


def value_title(value: str, name: str) -> str:
    """A value of the category ``name`` in words; one that is no value of it stays."""
    return _FIELDS[name].labels_by_value.get(value, value) if name in _FIELDS else value
