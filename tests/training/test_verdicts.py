"""What a model's intervals support."""

import numpy as np

from services.scoring.manifest import Interval, RuleComparison
from services.training import verdicts
from services.training.evaluation import OutOfFold, difference
from services.training.verdicts import verdict
from tests.training.conftest import MODEL_NAMES, MODELS

UNCLEAR = Interval(mean=0.01, low=-0.02, high=0.04)
HIGHER = Interval(mean=0.03, low=0.01, high=0.05)
LOWER = Interval(mean=-0.03, low=-0.05, high=-0.01)


def measured(**log_losses: list[float]) -> OutOfFold:
    """Out-of-fold results with these log-losses per fold, in two folds."""
    return OutOfFold(
        titles={name: model.title for name, model in MODELS.items() if name in log_losses},
        approvals={},
        scores={
            name: {"log_loss": np.array(values), "accuracy": 1 - np.array(values)}
            for name, values in log_losses.items()
        },
        folds=2,
    )


def test_champion_has_the_lowest_mean_log_loss() -> None:
    """No other metric matters."""
    results = measured(
        random_forest=[0.5, 0.6],
        logistic_regression=[0.5, 0.5],
        gradient_boosting=[0.3, 0.6],
        support_vector_machine=[0.6, 0.6],
    )
    assert verdicts.champion(results) == "gradient_boosting"
    assert verdicts.log_loss_above(results, "gradient_boosting", "gradient_boosting") is None


def test_four_models_alike_are_said_to_be_alike() -> None:
    """If every difference's interval contains zero, the reason says so for all four."""
    results = measured(
        random_forest=[0.5, 0.6],
        logistic_regression=[0.6, 0.5],
        gradient_boosting=[0.3, 0.7],
        support_vector_machine=[0.7, 0.4],
    )
    assert "The models cannot be told apart" in verdicts.champion_reason(
        results, "gradient_boosting"
    )


def test_reason_names_those_that_are_alike() -> None:
    """A model that is clearly worse in every fold is not listed."""
    results = measured(
        random_forest=[0.5, 0.6],
        logistic_regression=[0.9, 0.9001],
        gradient_boosting=[0.5, 0.5],
        support_vector_machine=[0.8, 0.8001],
    )
    assert verdicts.champion_reason(results, "gradient_boosting").endswith(
        " It cannot be told apart from: Random forest."
    )


def test_champion_that_is_clearly_better_is_said_to_be() -> None:
    """If no interval contains zero, the reason claims the difference."""
    results = measured(
        random_forest=[0.9, 0.9001],
        logistic_regression=[0.9, 0.9001],
        gradient_boosting=[0.5, 0.5],
        support_vector_machine=[0.8, 0.8001],
    )
    assert verdicts.champion_reason(results, "gradient_boosting").endswith(
        " It is measurably better than each of the others."
    )


def test_comparison_with_the_rule_is_paired() -> None:
    """The comparison is model minus rule, fold by fold, in accuracy and log-loss."""
    results = measured(random_forest=[0.4, 0.5], credit_history_rule=[0.6, 0.7])
    comparison = verdicts.against_rule(results, "random_forest")
    assert (comparison.log_loss.mean, comparison.accuracy.mean) == (-0.2, 0.2)
    assert comparison.log_loss.high < 0 < comparison.accuracy.low


def test_verdict_claims_nothing_that_the_intervals_do_not() -> None:
    """Intervals that contain zero are reported as no difference, with the values."""
    said = verdict(
        UNCLEAR, RuleComparison(accuracy=UNCLEAR, log_loss=UNCLEAR), best="Random forest"
    )
    rule = "Credit_History rule"
    values = "(difference +0.0100, simultaneous 95 % interval -0.0200 to +0.0400)."
    assert said == [
        f"Cannot be told apart from Random forest in log-loss {values}",
        f"No more accurate than the {rule} {values}",
        f"Its probabilities are no better than those of the {rule} in log-loss {values}",
    ]


def test_verdict_says_what_is_better_and_what_is_worse() -> None:
    """For accuracy higher is better, for log-loss lower; the champion has no gap."""
    better = verdict(None, RuleComparison(accuracy=HIGHER, log_loss=LOWER), best="Random forest")
    worse = verdict(HIGHER, RuleComparison(accuracy=LOWER, log_loss=HIGHER), best="Random forest")
    assert [sentence.split(" (")[0] for sentence in (*better, *worse)] == [
        "Champion: the lowest log-loss in cross-validation.",
        "More accurate than the Credit_History rule",
        "Its probabilities are better than those of the Credit_History rule in log-loss",
        "Worse than Random forest in log-loss",
        "Less accurate than the Credit_History rule",
        "Its probabilities are worse than those of the Credit_History rule in log-loss",
    ]


def test_equal_models_are_told_apart_for_at_most_one_data_set_in_twenty() -> None:
    """Five equally good predictors, one of them the rule: any difference claimed is a false one.

    On the same data sets, intervals that ignore that the champion was chosen, and how many there
    are, lead to three times as many false claims and more.
    """
    random = np.random.default_rng(11)
    false_claims = uncorrected = 0
    for _ in range(_DATA_SETS):
        results = _equal_predictors(random)
        best = verdicts.champion(results)
        others = [name for name in MODEL_NAMES if name != best]
        gaps = [verdicts.log_loss_above(results, name, best) for name in others]
        gaps += [verdicts.against_rule(results, name).log_loss for name in MODEL_NAMES]
        false_claims += any(gap is not None and not gap.contains_zero for gap in gaps)
        plain = [difference(results, "log_loss", name, best) for name in others]
        uncorrected += any(not gap.contains_zero for gap in plain)
    assert false_claims <= 0.05 * _DATA_SETS
    assert uncorrected > 0.15 * _DATA_SETS


_DATA_SETS = 200
_ROWS = 200
_FOLDS = 10
_REPEATS = 10


def _equal_predictors(random: np.random.Generator) -> OutOfFold:
    """Cross-validate five rules on labels that five inputs of one distribution predict equally.

    Each rule learns the approval rate by one input of three values, by the rule of succession.
    """
    names = (*MODEL_NAMES, "credit_history_rule")
    approved = random.random(_ROWS) < 0.69
    limits = np.where(approved[:, None, None], [0.2, 0.4], [0.7, 0.9])
    state = np.eye(3)[(random.random((_ROWS, len(names), 1)) > limits).sum(axis=2)]
    losses = []
    for _ in range(_REPEATS):
        # Stratified: in random order within each label, rows take the folds in turn.
        order = np.lexsort((random.random(_ROWS), approved))
        fold = np.eye(_FOLDS)[np.arange(_ROWS) % _FOLDS]
        held_out = np.einsum("rf,rns->fns", fold, state[order])
        approvals = np.einsum("rf,rns->fns", fold * approved[order, None], state[order])
        rows, positives = held_out.sum(axis=0) - held_out, approvals.sum(axis=0) - approvals
        rate = (positives + 1) / (rows + 2)
        loss = approvals * np.log(rate) + (held_out - approvals) * np.log(1 - rate)
        losses.append(-loss.sum(axis=2) / fold.sum(axis=0)[:, None])
    scores = np.concatenate(losses)
    return OutOfFold(
        titles={name: model.title for name, model in MODELS.items()},
        approvals={},
        scores={
            name: {"log_loss": scores[:, number], "accuracy": np.zeros(len(scores))}
            for number, name in enumerate(names)
        },
        folds=_FOLDS,
    )
