"""The smallest changes with which a table of points would approve a refused application.

Only what an applicant can change is varied, in whole units, and no further than training has seen:
the amount goes down, an income goes up, the time to repay is one of the usual ones.

Of one input, every nearer value is refused. Of several, every time to repay is tried. The amount
and the incomes count by their ratio alone, so what is approved ends at a straight line, on which
the sum of relative changes is smallest where one of them is at an end of its range: what is found
is the smallest, but for less than one unit of the input that completes it.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, product
from math import ceil, floor
from typing import Any, Final

from services.scoring.engine import outcome_of
from services.scoring.registry import Bundle, ServedModel
from shared.contract.reasons import INCOMES
from shared.contract.warnings import USUAL_TERMS

_TERM: Final = "Loan_Amount_Term"
CHANGEABLE: Final = ("LoanAmount", _TERM, *INCOMES)
MAX_CHANGES: Final = 3
"""Most alternatives that are shown."""

Changes = dict[str, float]
"""The new value of each changed input."""


def nearest_changes(
    application: Mapping[str, Any], *, model: ServedModel, bundle: Bundle
) -> list[dict[str, Any]]:
    """Approving changes of as few inputs as possible, the smallest first; each is verified.

    ``application`` was refused by ``model``, which has a table of points. An income's change is
    measured against both incomes, any other change against the present value.
    """
    search = _Search(application, model, bundle)
    for count in range(1, len(CHANGEABLE)):
        found = [
            changes
            for inputs in combinations(CHANGEABLE, count)
            # The two incomes count as one.
            if not set(INCOMES).issubset(inputs) and search.may_succeed(inputs)
            if (changes := search.smallest({}, inputs)) is not None
        ]
        if found:
            return [search.shown(changes) for changes in sorted(found, key=search.size)][
                :MAX_CHANGES
            ]
    return []


class _Search:
    """One application's search."""

    def __init__(self, application: Mapping[str, Any], model: ServedModel, bundle: Bundle) -> None:
        self._application = dict(application)
        self._model = model
        self._row_of = bundle.row_of
        self._values = {
            name: _values(name, application[name], *bundle.training_ranges[name])
            for name in CHANGEABLE
        }
        income = sum(application[name] or 0 for name in INCOMES)
        self._units = {name: application[name] for name in CHANGEABLE} | dict.fromkeys(
            INCOMES, income
        )

    def size(self, changes: Changes) -> float:
        """The sum of the relative changes."""
        return sum(
            (
                abs(value - (self._application[name] or 0)) / self._units[name]
                for name, value in changes.items()
            ),
            0.0,
        )

    def may_succeed(self, inputs: Sequence[str]) -> bool:
        """Whether the farthest values of ``inputs`` are approved, and so any are at all."""
        corners = (
            self._values[name] if name == _TERM else self._values[name][-1:] for name in inputs
        )
        return any(
            self._is_approved(dict(zip(inputs, corner, strict=True)))
            for corner in product(*corners)
        )

    def smallest(self, changes: Changes, inputs: Sequence[str]) -> Changes | None:
        """The smallest approving addition to ``changes`` that changes each of ``inputs``."""
        if len(inputs) == 1:
            [name] = inputs
            value = self._first(name, lambda value: self._is_approved({**changes, name: value}))
            return None if value is None else {**changes, name: value}
        # All inputs but one are at an end of their ranges.
        found = [
            completed
            for name in inputs
            for value in self._ends(name)
            if (
                completed := self.smallest(
                    {**changes, name: value}, [other for other in inputs if other != name]
                )
            )
            is not None
        ]
        return min(found, key=self.size, default=None)

    def shown(self, changes: Changes) -> dict[str, Any]:
        """The changes with the probability that they lead to."""
        return {
            "changes": {
                name: {"from": self._application[name], "to": value}
                for name, value in changes.items()
            },
            "probability": self._outcome(changes)["probability"],
        }

    def _first(self, name: str, condition: Callable[[float], bool]) -> float | None:
        """The value nearest to the present one that meets ``condition``."""
        values = self._values[name]
        if name == _TERM:
            return next(filter(condition, values), None)
        # No direction is declared for the term; the others' points only rise on the way.
        position = bisect_left(values, True, key=condition)
        return values[position] if position < len(values) else None

    def _ends(self, name: str) -> Sequence[float]:
        values = self._values[name]
        return values if name == _TERM else (values[0], values[-1])

    def _row(self, changes: Changes) -> tuple[float, ...]:
        return self._row_of({**self._application, **changes})

    def _outcome(self, changes: Changes) -> dict[str, Any]:
        return outcome_of(self._row(changes), self._model)

    def _is_approved(self, changes: Changes) -> bool:
        return bool(self._outcome(changes)["prediction"] == "Approved")


def _values(name: str, present: float | None, low: float, high: float) -> Sequence[int]:
    """The values that an input may change to, the nearest first; none if it is missing."""
    if name in INCOMES:
        if present is None:
            return ()  # There is no co-applicant.
        return range(floor(present) + 1, floor(high) + 1)
    if present is None:
        return ()
    if name == _TERM:
        terms = (term for term in USUAL_TERMS if low <= term <= high and term != present)
        return sorted(terms, key=lambda term: abs(term - present))
    return range(ceil(present) - 1, ceil(low) - 1, -1)
