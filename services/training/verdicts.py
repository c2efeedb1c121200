"""Which model is the champion, and what the comparisons support."""

from typing import Final

from services.scoring.manifest import Interval, RuleComparison
from services.training.evaluation import OutOfFold, difference
from services.training.models import MODEL_NAMES, TITLES

_CRITERION: Final = "log_loss"


def champion(out_of_fold: OutOfFold) -> str:
    """Return the model with the lowest mean log-loss in cross-validation."""
    return min(MODEL_NAMES, key=lambda name: out_of_fold.scores[name][_CRITERION].mean())


def log_loss_above(out_of_fold: OutOfFold, name: str, best: str) -> Interval | None:
    """Return ``name``'s log-loss minus the champion's; None for the champion itself."""
    return None if name == best else difference(out_of_fold, _CRITERION, name, best)


def against_rule(out_of_fold: OutOfFold, name: str) -> RuleComparison:
    """Return the model minus the Credit_History rule, on the same folds."""
    return RuleComparison(
        accuracy=difference(out_of_fold, "accuracy", name, "credit_history_rule"),
        log_loss=difference(out_of_fold, "log_loss", name, "credit_history_rule"),
    )


def champion_reason(out_of_fold: OutOfFold, best: str) -> str:
    """Say why this model is the champion, and which models it cannot be told apart from."""
    mean = float(out_of_fold.scores[best][_CRITERION].mean())
    alike = [
        TITLES[name]
        for name in MODEL_NAMES
        if (gap := log_loss_above(out_of_fold, name, best)) is not None and gap.contains_zero
    ]
    reason = f"{TITLES[best]} has the lowest mean log-loss in cross-validation ({mean:.4f})."
    if len(alike) == len(MODEL_NAMES) - 1:
        return f"{reason} The four models cannot be told apart: no difference exceeds the noise."
    if alike:
        return f"{reason} It cannot be told apart from: {', '.join(alike)}."
    return f"{reason} It is measurably better than each of the others."


def verdict(gap: Interval | None, comparison: RuleComparison, *, best: str) -> list[str]:
    """Say what the paired comparisons of one model support, one sentence each."""
    if gap is None:
        first = "Champion: the lowest log-loss in cross-validation."
    elif gap.contains_zero:
        first = f"Cannot be told apart from {TITLES[best]} in log-loss ({_shown(gap)})."
    else:
        first = f"Worse than {TITLES[best]} in log-loss ({_shown(gap)})."
    rule = TITLES["credit_history_rule"]
    accuracy, log_loss = comparison.accuracy, comparison.log_loss
    if accuracy.low > 0:
        second = f"More accurate than the {rule} ({_shown(accuracy)})."
    else:
        adverb = "Less accurate" if accuracy.high < 0 else "No more accurate"
        second = f"{adverb} than the {rule} ({_shown(accuracy)})."
    if log_loss.high < 0:
        third = f"Its probabilities are better than those of the {rule} in log-loss"
    elif log_loss.low > 0:
        third = f"Its probabilities are worse than those of the {rule} in log-loss"
    else:
        third = f"Its probabilities are no better than those of the {rule} in log-loss"
    return [first, second, f"{third} ({_shown(log_loss)})."]


def _shown(gap: Interval) -> str:
    return f"difference {gap.mean:+.4f}, 95 % interval {gap.low:+.4f} to {gap.high:+.4f}"
