"""What figures say, in sentences; the numbers are in the answer beside them."""

from collections.abc import Iterator

from services.history.estimates import Count, Estimate, proportion
from services.history.monitoring.schemas import (
    LEAST_OF_EACH,
    LEAST_OUTCOMES,
    AgainstRule,
    Compared,
    Conclusion,
    CrossValidated,
    Estimated,
    Figures,
)
from shared.pictures.formats import (
    decimal_interval,
    month_and_year,
    percent,
    percent_interval,
    percentage_points,
    points_interval,
)


def of_performance(
    figures: Figures, outcomes: int, cross_validated: CrossValidated | None
) -> Iterator[Conclusion]:
    """How right, how well ranked, and whether a plain rule would do."""
    accuracy = (
        f"Right in {percent_interval(figures.accuracy)} of the {outcomes:,} decisions whose outcome"
        " is good or bad (95\u202f% interval)."
    )
    if cross_validated:
        accuracy += (
            f" In cross-validation it agreed with {percent(cross_validated.accuracy.value)} of past"
            " decisions, which is another question."
        )
    yield Conclusion(alarm=None, text=accuracy)
    yield _of_ranking(figures.auc)
    if figures.rule:
        yield _of_rule(figures.rule)


def _of_ranking(auc: Estimated) -> Conclusion:
    alarm, verdict = None, "No sign that good outcomes have higher probabilities than bad ones"
    if auc.low > 1 / 2:
        alarm, verdict = False, "Good outcomes have higher probabilities than bad ones"
    elif auc.high < 1 / 2:
        alarm, verdict = True, "Bad outcomes have higher probabilities than good ones"
    return Conclusion(alarm=alarm, text=f"{verdict}: AUC {decimal_interval(auc)}.")


def _of_rule(rule: AgainstRule) -> Conclusion:
    verdicts = {None: "No sign that it is better or worse", True: "Better", False: "Worse"}
    return Conclusion(
        alarm=None if rule.better is None else not rule.better,
        text=f"{verdicts[rule.better]} than refusing where Credit_History is 0: difference in"
        f" accuracy {points_interval(rule.difference)}, on {rule.outcomes:,} outcomes.",
    )


def of_calibration(good: Count, expected: float, p_value: float, *, holds: bool) -> Conclusion:
    """Whether as many outcomes are good as the probabilities said."""
    verdict = "No sign that the probabilities are wrong" if holds else "The probabilities are wrong"
    probable = f"p = {p_value:.3f}" if p_value >= 0.001 else "p below 0.001"
    return Conclusion(
        alarm=not holds,
        text=f"{verdict}: they said {percent(expected)} of {good.of:,} outcomes would be good,"
        f" {percent_interval(proportion(*good))} are; {probable}.",
    )


def of_trend(
    months_on_book: int, recent: Compared, earlier: Compared, difference: Estimate | None
) -> Conclusion:
    """Whether approvals got worse; ``difference`` is None where there is not enough."""
    if not recent.approved:
        text = f"No loans are {months_on_book} months on book yet."
        return Conclusion(alarm=None, text=text)
    if difference is None:
        return Conclusion(
            alarm=None,
            text=f"Not enough yet to compare months of approval at {months_on_book} months on book:"
            f" {recent.approved:,} loans of the newest months, with {recent.outcomes:,} outcomes,"
            f" and {earlier.approved:,} of those before, with {earlier.outcomes:,}, are that old."
            f" {LEAST_OUTCOMES} loans and {LEAST_OF_EACH} outcomes are needed of each.",
        )
    alarm, verdict, limit = False, "Approvals got better", ""
    if difference.low > 0:
        alarm, verdict = True, "Approvals got worse"
    elif difference.high >= 0:
        verdict = "No sign that approvals got worse"
        limit = f" A rise by up to {percentage_points(difference.high)} points cannot be excluded."
    return Conclusion(
        alarm=alarm,
        text=f"{verdict}: at {months_on_book} months on book,"
        f" {percent(recent.bad / recent.approved)} of {recent.approved:,} loans approved from"
        f" {month_and_year(recent.months[-1])} to {month_and_year(recent.months[0])} had turned out"
        f" badly, {percent(earlier.bad / earlier.approved)} of {earlier.approved:,} before;"
        f" difference {points_interval(difference)}, 95\u202f% interval.{limit}",
    )
