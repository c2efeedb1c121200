"""What a model's intervals support."""

import numpy as np

from services.scoring.manifest import Interval, RuleComparison
from services.training import verdicts
from services.training.evaluation import OutOfFold
from services.training.verdicts import verdict

UNCLEAR = Interval(mean=0.01, low=-0.02, high=0.04)
HIGHER = Interval(mean=0.03, low=0.01, high=0.05)
LOWER = Interval(mean=-0.03, low=-0.05, high=-0.01)


def measured(**log_losses: list[float]) -> OutOfFold:
    """Out-of-fold results with these log-losses per fold, in two folds."""
    return OutOfFold(
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
    assert "The four models cannot be told apart" in verdicts.champion_reason(
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
        UNCLEAR, RuleComparison(accuracy=UNCLEAR, log_loss=UNCLEAR), best="random_forest"
    )
    rule = "Credit_History rule"
    values = "(difference +0.0100, 95 % interval -0.0200 to +0.0400)."
    assert said == [
        f"Cannot be told apart from Random forest in log-loss {values}",
        f"No more accurate than the {rule} {values}",
        f"Its probabilities are no better than those of the {rule} in log-loss {values}",
    ]


def test_verdict_says_what_is_better_and_what_is_worse() -> None:
    """For accuracy higher is better, for log-loss lower; the champion has no gap."""
    better = verdict(None, RuleComparison(accuracy=HIGHER, log_loss=LOWER), best="random_forest")
    worse = verdict(HIGHER, RuleComparison(accuracy=LOWER, log_loss=HIGHER), best="random_forest")
    assert [sentence.split(" (")[0] for sentence in (*better, *worse)] == [
        "Champion: the lowest log-loss in cross-validation.",
        "More accurate than the Credit_History rule",
        "Its probabilities are better than those of the Credit_History rule in log-loss",
        "Worse than Random forest in log-loss",
        "Less accurate than the Credit_History rule",
        "Its probabilities are worse than those of the Credit_History rule in log-loss",
    ]
