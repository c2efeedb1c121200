"""The gate: whether a retrained candidate may be tried beside the served bundle.

Its rules are data (``gate.toml``), and its result is written beside the bundle. It promotes
nothing.
"""

import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from services.scoring.manifest import Interval
from services.training.measures import MEASURES, Measures

RULES_FILE: Final = Path(__file__).with_name("gate.toml")
"""The rules that hold unless another file is named."""


class GateError(Exception):
    """The rules cannot be used; the message is the one sentence that says why."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Rule(_Frozen):
    """A limit of one measure."""

    measure: str
    at_most: float | None = None
    at_least: float | None = None
    refuses: bool = True
    """Whether breaking it refuses the candidate; otherwise it is only said."""

    @model_validator(mode="after")
    def _has_one_limit(self) -> Self:
        if (self.at_most is None) == (self.at_least is None):
            raise ValueError(f"{self.measure} needs one of at_most and at_least")
        return self

    def holds_for(self, value: Interval | None) -> bool | None:
        """Whether not all of the interval is beyond the limit; None where nothing was measured."""
        if value is None:
            return None
        if self.at_most is not None:
            return value.low <= self.at_most
        return self.at_least is None or value.high >= self.at_least


class _Rules(_Frozen):
    rules: tuple[Rule, ...]


class Finding(_Frozen):
    """What a rule found."""

    rule: Rule
    value: Interval | None
    holds: bool | None
    """None where nothing could be measured."""

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """The measure, its value, its limit, and whether it holds, in words."""
        rule, value = self.rule, self.value
        limit = (
            f"at most {rule.at_most:g}" if rule.at_least is None else f"at least {rule.at_least:g}"
        )
        verdict = {True: "holds", False: "broken", None: "not measured"}[self.holds]
        if value is None:
            found = "n/a"
        elif value.low == value.high:
            found = f"{value.mean:g}"
        else:
            found = f"{value.mean:+.4f} ({value.low:+.4f} to {value.high:+.4f})"
        return rule.measure, found, limit, verdict if rule.refuses else f"{verdict}, only said"


class Gate(_Frozen):
    """The gate's result."""

    candidate: str
    served: str
    passed: bool
    file_rows: int
    recorded_rows: int
    left_out: dict[str, int]
    """Recorded applications that are not learnt from, by the reason."""
    method: str
    findings: tuple[Finding, ...]

    def lines(self) -> Iterator[str]:
        """The result for people."""
        left_out = "; ".join(f"{why}: {count}" for why, count in self.left_out.items()) or "none"
        yield f"Candidate {self.candidate} against {self.served}, the bundle that is served:"
        yield (
            f"{self.file_rows:,} rows of the file, {self.recorded_rows:,} recorded ones"
            f" (left out: {left_out})."
        )
        for measure, found, limit, verdict in (each.cells for each in self.findings):
            yield f"{measure:<36}{found:<32}{limit:<14}{verdict}"
        yield "The candidate passes the gate." if self.passed else "The gate refuses the candidate."


def read_rules(path: Path = RULES_FILE) -> Sequence[Rule]:
    """Return the rules in the file at ``path``; raises ``GateError``."""
    try:
        rules = _Rules.model_validate(tomllib.loads(path.read_text(encoding="utf-8"))).rules
    except ValidationError as error:
        raise GateError(
            f"{path} cannot be used: {error.errors(include_url=False)[0]['msg']}"
        ) from error
    except (OSError, ValueError) as error:
        raise GateError(f"{path} cannot be used: {error}") from error
    if unknown := [rule.measure for rule in rules if rule.measure not in MEASURES]:
        raise GateError(f"{path}: {', '.join(unknown)} is none of {', '.join(MEASURES)}")
    return rules


def judge(rules: Sequence[Rule], measures: Measures) -> tuple[Finding, ...]:
    """Hold each rule against its measure."""
    return tuple(
        Finding(rule=rule, value=value, holds=rule.holds_for(value))
        for rule in rules
        for value in [measures[rule.measure]]
    )


def passes(findings: Sequence[Finding]) -> bool:
    """Whether no rule that refuses is broken."""
    return not any(each.rule.refuses and each.holds is False for each in findings)
