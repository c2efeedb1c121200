"""The outcomes as a table: on the terminal, as JSON and in Markdown."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from tests.chaos.scenario import Outcome
from tests.load.report import aligned

_HEAD: Final = (
    *("Fault", "Requests", "Acknowledged", "Stored", "Lost", "Doubled", "Refused 503"),
    *("Unanswered", "Stored of these", "Worst latency", "Sent late", "Stored within"),
    *("/livez p99", "Idle p99"),
)


def summary(outcomes: Sequence[Outcome]) -> str:
    """Format the table for a terminal, with totals in the last line."""
    return aligned([_HEAD, *map(_cells, outcomes), _total(outcomes)])


def markdown(outcomes: Sequence[Outcome], measured_under: dict[str, str | int]) -> str:
    """Format the table for a document, below a line on where it was measured."""
    where = (
        "Measured {at} on {machine} ({cores} cores, {system}), Python {python}: {method}.".format(
            **measured_under
        )
    )
    rows = [_HEAD, ("---",) * len(_HEAD), *map(_cells, outcomes), _total(outcomes)]
    return "\n".join([where, "", *(f"| {' | '.join(row)} |" for row in rows)])


def write(
    folder: Path, outcomes: Sequence[Outcome], measured_under: dict[str, str | int]
) -> tuple[Path, Path]:
    """Write the table to ``folder`` as JSON and as Markdown."""
    as_json, as_markdown = folder / "chaos.json", folder / "chaos.md"
    kept = {"conditions": measured_under, "faults": list(map(asdict, outcomes))}
    as_json.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    as_markdown.write_text(markdown(outcomes, measured_under) + "\n", encoding="utf-8")
    return as_json, as_markdown


def _cells(outcome: Outcome) -> tuple[str, ...]:
    fault = f"{outcome.fault} ({outcome.remark})" if outcome.remark else outcome.fault
    return (
        fault,
        *map(_count, _counts(outcome)),
        f"{outcome.worst_ms:,.0f} ms",
        f"{outcome.sent_late_ms:,.0f} ms",
        "" if outcome.stored_after_s is None else f"{outcome.stored_after_s:,.1f} s",
        f"{outcome.livez_p99_ms:,.1f} ms",
        f"{outcome.idle_p99_ms:,.1f} ms",
    )


def _total(outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    return (
        "All",
        *(_count(sum(column)) for column in zip(*map(_counts, outcomes), strict=True)),
        f"{max(outcome.worst_ms for outcome in outcomes):,.0f} ms",
        f"{max(outcome.sent_late_ms for outcome in outcomes):,.0f} ms",
        "",
        f"{max(outcome.livez_p99_ms for outcome in outcomes):,.1f} ms",
        f"{max(outcome.idle_p99_ms for outcome in outcomes):,.1f} ms",
    )


def _counts(outcome: Outcome) -> tuple[int, ...]:
    return (
        outcome.requests,
        outcome.acknowledged,
        outcome.stored,
        outcome.lost,
        outcome.doubled,
        outcome.refused,
        outcome.unanswered,
        outcome.stored_unanswered,
    )


def _count(value: int) -> str:
    return f"{value:,}"
