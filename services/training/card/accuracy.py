"""How well the models decide: in cross-validation, on the holdout, and compared."""

from collections.abc import Iterable

from services.scoring.manifest import CrossValidation, Holdout, Manifest
from services.training.card.text import (
    interval_text,
    markdown_table,
    picture,
    title_of,
)
from services.training.models import BASELINE_TITLES
from services.training.verdicts import comparisons
from shared.contract.application import MONITORED, SCORED


def summary_section(manifest: Manifest) -> str:
    """What the models are, what they are for, and what they never see."""
    champion = manifest.models[manifest.champion].title
    titles = ", ".join(model.title for model in manifest.models.values())
    return f"""# Model card: loan approval, bundle {manifest.version}

Each model estimates the probability that a loan application is approved: {titles}.
They are trained on {manifest.data.rows} decided applications, of which
{manifest.data.approved_share:.1%} were approved. An application is approved if its probability is
at least {manifest.threshold:g}.

**Champion: {champion}.** {manifest.champion_reason}

- **Meant for** learning, and for showing how a decision service is built, measured and monitored.
- **Not meant for** decisions about real people's credit. The data record past decisions, not
  whether loans were repaid, and they are so few that the intervals below are wide. A model trained
  on them repeats those decisions, right or wrong.
- **Scored:** {", ".join(SCORED)}, and what is computed from these alone.
- **Never scored:** {" and ".join(MONITORED)}. They are prohibited bases under the Equal
  Credit Opportunity Act (Regulation B, 12 CFR 1002.4), recorded for fairness monitoring only."""


def accuracy_table(manifest: Manifest) -> str:
    """Return cross-validation and holdout side by side, for models and baselines."""
    measured: list[tuple[str, CrossValidation, Holdout]] = [
        *((name, model.cross_validation, model.holdout) for name, model in manifest.models.items()),
        *((name, rule.cross_validation, rule.holdout) for name, rule in manifest.baselines.items()),
    ]
    return markdown_table(
        ("Model", "CV accuracy", "CV AUC", "CV log-loss", "Accuracy on the holdout"),
        (
            (
                title_of(manifest, name),
                interval_text(folds.accuracy),
                interval_text(folds.auc),
                interval_text(folds.log_loss),
                f"{holdout.accuracy:.2%}",
            )
            for name, folds, holdout in measured
        ),
    )


def accuracy_section(manifest: Manifest) -> str:
    """Every metric in cross-validation, the baselines' on the same folds."""
    evaluation = manifest.evaluation
    table = markdown_table(
        ("Model", "Accuracy", "Balanced accuracy", "AUC", "Brier score", "Log-loss"),
        (
            (
                title_of(manifest, name),
                interval_text(folds.accuracy),
                interval_text(folds.balanced_accuracy),
                interval_text(folds.auc),
                interval_text(folds.brier),
                interval_text(folds.log_loss),
            )
            for name, folds in _cross_validations(manifest)
        ),
    )
    baselines = "\n".join(
        f"- {BASELINE_TITLES[name]}: {baseline.description}"
        for name, baseline in manifest.baselines.items()
    )
    return f"""## Accuracy in cross-validation

{evaluation.repeats} times {evaluation.folds}-fold, stratified. Each mean has its 95 % interval from
the corrected resampled t-test of Nadeau and Bengio (2003). For Brier score and log-loss, lower is
better.

{table}

The last two are baselines without a model, on the same folds:

{baselines}

{picture("roc", "ROC curves of the models")}
{picture("calibration", "Calibration curves of the models")}

Both curves pool the out-of-fold predictions of all repeats."""


def holdout_section(manifest: Manifest) -> str:
    """Every metric on the one split that is often quoted."""
    rows: list[tuple[str, Holdout]] = [
        *((name, model.holdout) for name, model in manifest.models.items()),
        *((name, baseline.holdout) for name, baseline in manifest.baselines.items()),
    ]
    table = markdown_table(
        ("Model", "Accuracy", "Precision", "Recall", "F1", "AUC", "TP", "FP", "FN", "TN"),
        (
            (
                title_of(manifest, name),
                f"{holdout.accuracy:.2%}",
                *(
                    f"{value:.3f}"
                    for value in (holdout.precision, holdout.recall, holdout.f1, holdout.auc)
                ),
                str(holdout.confusion_matrix.true_positive),
                str(holdout.confusion_matrix.false_positive),
                str(holdout.confusion_matrix.false_negative),
                str(holdout.confusion_matrix.true_negative),
            )
            for name, holdout in rows
        ),
    )
    size = rows[0][1].rows
    return f"""## Accuracy on one holdout

The stratified {manifest.evaluation.holdout_share:.0%} split with seed {manifest.seed} that is often
quoted for this kind of data: {size} rows. One application is worth {1 / size:.2%} of accuracy, so
differences here are mostly luck; the cross-validation above is the better guide. Positive means
approved.

{table}

{picture("confusion", "Confusion matrices of the models")}"""


def comparisons_section(manifest: Manifest) -> str:
    """What the paired comparisons of the models support."""
    lines = "\n".join(
        f"- **{model.title}.** {' '.join(model.verdict)}" for model in manifest.models.values()
    )
    count = comparisons(len(manifest.models))
    return f"""## Comparisons

{manifest.champion_reason}

{lines}

Differences are paired fold by fold. The champion was chosen on the same folds, and
{count} comparisons are made, so their intervals are wider than those above: with 95 % all of
them hold together (the same corrected t-test, by Bonferroni over every pair of models and every
comparison with the rule). One that contains zero is no evidence of a difference."""


def importances_section(manifest: Manifest) -> str:
    """How much each model needs each input."""
    table = markdown_table(
        ("Input", *(model.title for model in manifest.models.values())),
        (
            (
                field,
                *(f"{model.importances[field]:+.4f}" for model in manifest.models.values()),
            )
            for field in SCORED
        ),
    )
    return f"""## What the models look at

How much the holdout's log-loss rises when one input is shuffled, with everything computed from it.
Zero or less means that the model does not need it.

{table}

{picture("importances", "Importance of each input for each model")}"""


def _cross_validations(
    manifest: Manifest,
) -> Iterable[tuple[str, CrossValidation]]:
    for name, model in manifest.models.items():
        yield name, model.cross_validation
    for rule, baseline in manifest.baselines.items():
        yield rule, baseline.cross_validation
