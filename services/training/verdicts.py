"""Which model is the champion, and what the comparisons support.

The champion is chosen on the folds that it is then compared on, and many comparisons are made. So
each interval is widened until all of them hold together with 95 %: over every pair of models, since
any of them could have been chosen, and over every comparison with the rule. Where nothing differs,
at most one data set in twenty leads to a claim about log-loss. Accuracy is harder: where many
decisions lie at the threshold, claims about it were false for up to one data set in ten. On
choosing the best before comparing with it: Edwards and Hsu, Multiple Comparisons with the Best
Treatment, Journal of the American Statistical Association 78 (1983), 965-971.
"""

from math import comb
from typing import Final

from services.scoring.manifest import Interval, RuleComparison
from services.training.evaluation import OutOfFold, difference
from services.training.models import BASELINE_TITLES

_CRITERION: Final = "log_loss"


def comparisons(models: int) -> int:
    """Every pair of models in log-loss, and every model with the rule in accuracy and log-loss."""
    return comb(models, 2) + 2 * models


def _difference(out_of_fold: OutOfFold, metric: str, name: str, other: str) -> Interval:
    count = comparisons(len(out_of_fold.titles))
    return difference(out_of_fold, metric, name, other, comparisons=count)


def champion(out_of_fold: OutOfFold) -> str:
    """Return the model with the lowest mean log-loss in cross-validation."""
    scores = out_of_fold.scores
    return min(out_of_fold.titles, key=lambda name: scores[name][_CRITERION].mean())


def log_loss_above(out_of_fold: OutOfFold, name: str, best: str) -> Interval | None:
    """Return ``name``'s log-loss minus the champion's; None for the champion itself."""
    return None if name == best else _difference(out_of_fold, _CRITERION, name, best)


def against_rule(out_of_fold: OutOfFold, name: str) -> RuleComparison:
    """Return the model minus the Credit_History rule, on the same folds."""
    return RuleComparison(
        accuracy=_difference(out_of_fold, "accuracy", name, "credit_history_rule"),
        log_loss=_difference(out_of_fold, "log_loss", name, "credit_history_rule"),
    )


def champion_reason(out_of_fold: OutOfFold, best: str) -> str:
    """Say why this model is the champion, and which models it cannot be told apart from."""
    mean = float(out_of_fold.scores[best][_CRITERION].mean())
    titles = out_of_fold.titles
    alike = [
        title
        for name, title in titles.items()
        if (gap := log_loss_above(out_of_fold, name, best)) is not None and gap.contains_zero
    ]
    if len(titles) == 1:
        return f"{titles[best]} is the only model (log-loss in cross-validation: {mean:.4f})."
    reason = f"{titles[best]} has the lowest mean log-loss in cross-validation ({mean:.4f})."
    if len(alike) == len(titles) - 1:
        return f"{reason} The models cannot be told apart: no difference exceeds the noise."
    if alike:
        return f"{reason} It cannot be told apart from: {', '.join(alike)}."
    return f"{reason} It is measurably better than each of the others."


def verdict(gap: Interval | None, comparison: RuleComparison, *, best: str) -> list[str]:
    """Say what the paired comparisons of one model support, one sentence each.

    ``best`` is the champion's title.
    """
    if gap is None:
        first = "Champion: the lowest log-loss in cross-validation."
    elif gap.contains_zero:
        first = f"Cannot be told apart from {best} in log-loss ({_shown(gap)})."
    else:
        first = f"Worse than {best} in log-loss ({_shown(gap)})."
    rule = BASELINE_TITLES["credit_history_rule"]
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
    return (
        f"difference {gap.mean:+.4f}, simultaneous 95 % interval {gap.low:+.4f} to {gap.high:+.4f}"
    )
