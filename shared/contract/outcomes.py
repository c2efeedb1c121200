"""What became of a loan: the kinds of outcome, and which of them count as good or bad."""

from typing import Final, Literal, get_args

OutcomeKind = Literal["repaid", "late_90", "default", "prepaid", "withdrawn", "fraud"]
"""``late_90``: 90 days or more in arrears; ``withdrawn``: the loan was never taken."""
OUTCOME_KINDS: Final[tuple[OutcomeKind, ...]] = get_args(OutcomeKind)

GOOD: Final[frozenset[OutcomeKind]] = frozenset({"repaid", "prepaid"})
BAD: Final[frozenset[OutcomeKind]] = frozenset({"late_90", "default", "fraud"})
"""What is in neither set says nothing about whether the decision was right."""

WhichDecisions = Literal["all", "latest"]
"""Which of the decisions about one application an outcome is of."""
