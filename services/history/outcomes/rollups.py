"""What outcomes add to the roll-ups that live performance is read from.

All counts are whole numbers, so a correction takes back exactly what it corrects.
"""

from collections import defaultdict
from collections.abc import Iterable
from datetime import date, datetime
from math import log
from typing import Any, Final, NamedTuple, TypeAlias

from sqlalchemy import Table
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.history.database import rows_as_select
from services.history.tables import (
    MISSING,
    PROBABILITY_BINS,
    AnyRow,
    outcome_bins,
    outcome_groups,
    outcome_vintages,
)
from shared.contract.application import FIELDS
from shared.contract.outcomes import BAD, GOOD, OutcomeKind

LOWEST_PROBABILITY: Final = 1e-6
"""The log-loss counts probabilities closer to 0 or 1 as this close: no finer one is recorded."""
BILLION: Final = 1_000_000_000

RULE_INPUT: Final = "credit_history"
GROUPED: Final = (RULE_INPUT, *(field.column for field in FIELDS if field.use == "monitored"))
"""Columns by which outcomes are counted: for the Credit_History rule and for fairness."""

_Key: TypeAlias = tuple[Any, ...]
_Counts: TypeAlias = defaultdict[_Key, list[int]]


class OutcomeChange(NamedTuple):
    """An outcome of a decision that begins (``sign`` 1) or ceases (-1) to be its current one."""

    decision: AnyRow
    outcome: OutcomeKind
    observed_at: datetime
    sign: int


async def apply(connection: AsyncConnection, changes: Iterable[OutcomeChange]) -> None:
    """Add what the changes come to, in the transaction of ``connection``."""
    by_bin, by_group, by_vintage = add_up(changes)
    await _merge(connection, outcome_bins, by_bin)
    await _merge(connection, outcome_groups, by_group)
    await _merge(connection, outcome_vintages, by_vintage)


def add_up(changes: Iterable[OutcomeChange]) -> tuple[_Counts, _Counts, _Counts]:
    """Rows to add to ``outcome_bins``, ``outcome_groups`` and ``outcome_vintages``.

    The applicant of an erased decision is not known any more, so its outcomes change no count by
    group: what was counted before the erasure stays.
    """
    by_bin: _Counts = defaultdict(lambda: [0, 0, 0])
    by_group: _Counts = defaultdict(lambda: [0])
    by_vintage: _Counts = defaultdict(lambda: [0])
    for decision, outcome, observed_at, sign in changes:
        key = (
            month_of(decision.decided_at),
            decision.model,
            decision.bundle_version,
            decision.prediction,
            outcome,
        )
        probability = decision.probability_approved
        of_bin = by_bin[(*key, bin_of(probability))]
        of_bin[0] += sign
        of_bin[1] += sign * round(probability * BILLION)
        of_bin[2] += sign * round(log_loss(probability, outcome) * BILLION)
        by_vintage[(*key, months_between(decision.decided_at, observed_at))][0] += sign
        if decision.erased_at is None:
            for name in GROUPED:
                value = getattr(decision, name)
                by_group[(*key, name, MISSING if value is None else str(value))][0] += sign
    return by_bin, by_group, by_vintage


def bin_of(probability: float) -> int:
    """The bin that holds ``probability``."""
    return min(int(probability * PROBABILITY_BINS), PROBABILITY_BINS - 1)


def log_loss(probability: float, outcome: OutcomeKind) -> float:
    """The log-loss of the probability of a good outcome; 0 where it is neither good nor bad."""
    within = min(max(probability, LOWEST_PROBABILITY), 1 - LOWEST_PROBABILITY)
    if outcome in GOOD:
        return -log(within)
    return -log(1 - within) if outcome in BAD else 0.0


def month_of(moment: datetime) -> date:
    """The first day of the month of ``moment``, which must be in UTC."""
    return moment.date().replace(day=1)


def months_between(earlier: datetime, later: datetime) -> int:
    """How many months begin after ``earlier`` until ``later``; both must be in UTC."""
    return (later.year - earlier.year) * 12 + later.month - earlier.month


async def _merge(connection: AsyncConnection, table: Table, counts: _Counts) -> None:
    if not counts:
        return
    names = [column.name for column in table.columns]
    rows = [(*key, *counts[key]) for key in sorted(counts)]
    statement = insert(table).from_select(names, rows_as_select(table, names, rows))
    key_names = {column.name for column in table.primary_key}
    sums = {
        name: table.c[name] + statement.excluded[name] for name in names if name not in key_names
    }
    await connection.execute(
        statement.on_conflict_do_update(constraint=table.primary_key, set_=sums)
    )
