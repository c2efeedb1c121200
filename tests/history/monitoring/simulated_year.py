"""A lender's year with known truth: incomes rise from July on, and so does the share of bad loans.

Women have lower incomes and worse credit histories, so fewer of them are approved: a known
difference. Outcomes are known months later. All seeds are drawn at once.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from services.history.binning import SCORE
from services.history.monitoring.expected import Foretold
from services.history.monitoring.fairness import NOT_KNOWN, GroupOutcomes, Outcomes
from services.history.monitoring.references import TrainingReference, parse_reference, tenths
from services.history.monitoring.slices import Counts, Slice

Floats = np.ndarray[Any, np.dtype[np.float64]]
Flags = np.ndarray[Any, np.dtype[np.bool_]]
Ints = np.ndarray[Any, np.dtype[np.int64]]

MONTHS: Final = 12
CHANGES_IN: Final = 6
"""The first month, counted from 0, with other incomes and more bad loans."""
REFERENCE_ROWS: Final = 614
MODEL: Final = "logistic_regression"
BUNDLE: Final = "b-00000018"

_INCOME_GROWS: Final = 1.35
_GOOD_TURN_BAD: Final = 0.15
_WOMEN_EARN: Final = 0.75
_WOMEN_MEET, _MEN_MEET, _MISSING = 0.64, 0.8, 0.08
"""Shares whose past credit met its guidelines, and of those of whom it is not known."""
_MEAN_DELAY_MONTHS: Final = 3.0
_BINS: Final = 10


@dataclass(frozen=True)
class Applications:
    """Applications with what is decided and what becomes of them; arrays of any one shape."""

    income: Floats
    credit_history: Ints
    """0, 1, or 2 where it is missing."""
    gender: Ints
    """0 for Male, 1 for Female, 2 where it is missing."""
    probability: Floats
    good: Flags
    delay_months: Floats

    @property
    def approved(self) -> Flags:
        """What is decided."""
        return self.probability >= 0.5

    def where(self, index: Any) -> "Applications":
        """Those that ``index`` selects from each array."""
        return Applications(**{name: values[index] for name, values in vars(self).items()})

    def known_after(self, months: float) -> "Applications":
        """The approved ones whose outcome is known that long after the decision."""
        return self.where(self.approved & (self.delay_months <= months))


def draw(rng: np.random.Generator, *shape: int, changed: Flags | None = None) -> Applications:
    """Applications of that shape; ``changed`` says by month in which the world has changed."""
    after = np.zeros(shape, bool) if changed is None else np.broadcast_to(changed[:, None], shape)
    gender = rng.choice(3, p=(0.78, 0.18, 0.04), size=shape)
    income = np.exp(rng.normal(8.35, 0.5, size=shape))
    income *= np.where(gender == 1, _WOMEN_EARN, 1.0) * np.where(after, _INCOME_GROWS, 1.0)
    drawn = rng.random(shape)
    met_by = np.where(gender == 1, _WOMEN_MEET, _MEN_MEET)
    credit_history = np.where(drawn < _MISSING, 2, (drawn < _MISSING + met_by).astype(int))
    met = np.array([-2.2, 1.3, 0.6])[credit_history]
    odds = met + 0.8 * (np.log(income) - 8.35) + rng.normal(0, 0.4, size=shape)
    probability = 1 / (1 + np.exp(-odds))
    truth = probability * np.where(after, 1 - _GOOD_TURN_BAD, 1.0)
    return Applications(
        income=income,
        credit_history=credit_history,
        gender=gender,
        probability=probability,
        good=rng.random(shape) < truth,
        delay_months=rng.exponential(_MEAN_DELAY_MONTHS, size=shape),
    )


def draw_years(rng: np.random.Generator, seeds: int, decisions_a_month: int) -> Applications:
    """Years by seed, month and application."""
    return draw(rng, seeds, MONTHS, decisions_a_month, changed=np.arange(MONTHS) >= CHANGES_IN)


def manifest_of(rows: Applications) -> dict[str, Any]:
    """What monitoring reads of the manifest of a bundle that was trained on ``rows``."""
    edges = np.quantile(rows.income, np.linspace(0, 1, _BINS + 1))
    income, *_ = np.histogram(rows.income, edges)
    score, *_ = np.histogram(rows.probability, np.linspace(0, 1, 21))
    return {
        "version": BUNDLE,
        "threshold": 0.5,
        "models": {MODEL: {}},
        "inputs": {
            "ApplicantIncome": {
                "kind": "numeric",
                "bin_edges": edges.tolist(),
                "counts": income.tolist(),
                "missing": 0,
            },
            "Credit_History": _category(rows.credit_history, "0", "1"),
            "Gender": _category(rows.gender, "Male", "Female"),
        },
        "scores": {MODEL: score.tolist()},
    }


def _category(values: Ints, *names: str) -> dict[str, Any]:
    *known, missing = np.bincount(values, minlength=3).tolist()
    return {
        "kind": "categorical",
        "counts": dict(zip(names, known, strict=True)),
        "missing": missing,
    }


def reference_of(rows: Applications) -> TrainingReference:
    """The reference that a bundle trained on ``rows`` has."""
    found = parse_reference(json.dumps(manifest_of(rows)))
    assert found is not None
    return found


def edges_of(reference: TrainingReference) -> Floats:
    """The edges of the bins of the income."""
    bins = reference.inputs["ApplicantIncome"].bins
    return np.array([bin_.at_least for bin_ in bins if bin_.at_least is not None])


def histograms(rows: Applications, edges: Floats) -> dict[str, Sequence[int]]:
    """The histograms that the roll-up has of ``rows``, by column."""
    place = np.searchsorted(edges, rows.income, side="right")
    place[rows.income == edges[-1]] -= 1
    return {
        "applicant_income": [*np.bincount(place, minlength=edges.size + 1).tolist(), 0],
        "credit_history": _categories(rows.credit_history),
        "gender": _categories(rows.gender),
        SCORE: tenths(np.histogram(rows.probability, np.linspace(0, 1, 21))[0].tolist()),
    }


def _categories(values: Ints) -> list[int]:
    first, second, missing = np.bincount(values, minlength=3).tolist()
    return [first, second, 0, missing]


def slices_of(rows: Applications, edges: Floats, *, client: str = "acme") -> dict[Slice, Counts]:
    """What the roll-up has of ``rows``."""
    found = {}
    for approved in (True, False):
        some = rows.where(rows.approved == approved)
        found[Slice(client, approved)] = Counts(some.income.size, histograms(some, edges))
    return found


def outcomes_of(rows: Applications) -> GroupOutcomes:
    """What the roll-up has of the outcomes of ``rows``, by gender."""
    found = {}
    for number, group in enumerate(("Male", "Female", NOT_KNOWN)):
        of = rows.where(rows.gender == number)
        pairs = [(approved, good) for approved in (True, False) for good in (True, False)]
        found["gender", group] = Outcomes(
            *(
                int(((of.approved == approved) & (of.good == good)).sum())
                for approved, good in pairs
            )
        )
    return found


def foretold(rows: Applications) -> list[Foretold]:
    """The outcomes of ``rows`` in bins of their probability."""
    place = (rows.probability * 100).astype(int)
    outcomes, good, total = (
        np.bincount(place, weights=weights, minlength=100).tolist()
        for weights in (None, rows.good, rows.probability)
    )
    return [
        Foretold(int(count), int(of_them), probability)
        for count, of_them, probability in zip(outcomes, good, total, strict=True)
        if count
    ]
