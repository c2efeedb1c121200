"""The model card: the manifest written out for people. Every number in it comes from there."""

from collections.abc import Iterable, Sequence
from typing import Final

from services.scoring.manifest import (
    PICTURE_FOLDER,
    CategoricalInput,
    CrossValidation,
    Holdout,
    Interval,
    Manifest,
)
from services.training.export import MAX_PROBABILITY_DIFFERENCE
from services.training.models import TITLES
from shared.contract.application import MONITORED, SCORED

FOUR_FIFTHS: Final = 0.8
"""Below this selection-rate ratio the Uniform Guidelines (29 CFR 1607.4) see adverse impact."""


def model_card(manifest: Manifest) -> str:
    """Return the card as Markdown; only its last section holds wall-clock times."""
    sections = (
        _summary(manifest),
        _accuracy(manifest),
        _holdout(manifest),
        _comparisons(manifest),
        _fairness(manifest),
        _importances(manifest),
        _data(manifest),
        _making(manifest),
        _timings(manifest),
    )
    return "\n\n".join(sections) + "\n"


def accuracy_table(manifest: Manifest) -> str:
    """Return cross-validation and holdout side by side, for models and baselines."""
    measured: list[tuple[str, CrossValidation, Holdout]] = [
        *((name, model.cross_validation, model.holdout) for name, model in manifest.models.items()),
        *((name, rule.cross_validation, rule.holdout) for name, rule in manifest.baselines.items()),
    ]
    return _table(
        ("Model", "CV accuracy", "CV AUC", "CV log-loss", "Accuracy on the holdout"),
        (
            (
                _title(manifest, name),
                _interval(folds.accuracy),
                _interval(folds.auc),
                _interval(folds.log_loss),
                f"{holdout.accuracy:.2%}",
            )
            for name, folds, holdout in measured
        ),
    )


def _summary(manifest: Manifest) -> str:
    champion = manifest.models[manifest.champion].title
    return f"""# Model card: loan approval, bundle {manifest.version}

Four models that say how likely an application for a loan is to be approved, trained on
{manifest.data.rows} decided applications ({manifest.data.approved_share:.1%} of them approved).
An application is approved when its probability is at least {manifest.threshold:g}.

**Champion: {champion}.** {manifest.champion_reason}

- **Meant for** learning, and for showing how a decision service is built, measured and watched.
- **Not meant for** deciding on real people's credit. The data hold past decisions, not whether
  loans were repaid, and so few of them that the intervals below are wide; a model of them repeats
  those decisions, right or wrong.
- **Scored:** {", ".join(SCORED)}, and what is computed from these alone.
- **Never scored:** {" and ".join(MONITORED)}. They are prohibited bases under the Equal
  Credit Opportunity Act (Regulation B, 12 CFR 1002.4), recorded to watch fairness only."""


def _accuracy(manifest: Manifest) -> str:
    evaluation = manifest.evaluation
    table = _table(
        ("Model", "Accuracy", "Balanced accuracy", "AUC", "Brier score", "Log-loss"),
        (
            (
                _title(manifest, name),
                _interval(folds.accuracy),
                _interval(folds.balanced_accuracy),
                _interval(folds.auc),
                _interval(folds.brier),
                _interval(folds.log_loss),
            )
            for name, folds in _cross_validations(manifest)
        ),
    )
    baselines = "\n".join(
        f"- {TITLES[name]}: {baseline.description}" for name, baseline in manifest.baselines.items()
    )
    return f"""## Accuracy in cross-validation

{evaluation.repeats} times {evaluation.folds}-fold, stratified. Each mean has its 95 % interval
by the corrected resampled t-test of Nadeau and Bengio (2003). Lower is better for Brier score and
log-loss.

{table}

The last two need no model and went through the same folds:

{baselines}

{_picture("roc", "ROC curves of the four models")}
{_picture("calibration", "Calibration curves of the four models")}

Both curves pool the out-of-fold answers of all repeats."""


def _holdout(manifest: Manifest) -> str:
    rows: list[tuple[str, Holdout]] = [
        *((name, model.holdout) for name, model in manifest.models.items()),
        *((name, baseline.holdout) for name, baseline in manifest.baselines.items()),
    ]
    table = _table(
        ("Model", "Accuracy", "Precision", "Recall", "F1", "AUC", "TP", "FP", "FN", "TN"),
        (
            (
                _title(manifest, name),
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

The stratified {manifest.evaluation.holdout_share:.0%} split with seed {manifest.seed}, often
quoted for this kind of data: {size} rows. One application more or less is {1 / size:.2%} of
accuracy, so differences here are mostly luck; the cross-validation above is the better guide.
Positive is approved.

{table}

{_picture("confusion", "Confusion matrices of the four models")}"""


def _comparisons(manifest: Manifest) -> str:
    lines = "\n".join(
        f"- **{model.title}.** {' '.join(model.verdict)}" for model in manifest.models.values()
    )
    return f"""## What can be told apart

{manifest.champion_reason}

{lines}

Differences are paired fold by fold, with the same corrected interval; one that contains zero is
no evidence of a difference."""


def _fairness(manifest: Manifest) -> str:
    rows = []
    low = []
    for model in manifest.models.values():
        for attribute, fairness in model.fairness.items():
            ratio, gap = fairness.selection_rate_ratio, fairness.true_positive_rate_gap
            if ratio is not None and ratio < FOUR_FIFTHS:
                low.append(f"{model.title} by {attribute}")
            rows.append(
                (
                    model.title,
                    attribute,
                    ", ".join(f"{group} {size}" for group, size in fairness.groups.items()),
                    _rates(fairness.selection_rates),
                    _optional(ratio),
                    _rates(fairness.true_positive_rates),
                    _optional(gap),
                )
            )
    header = (
        "Model",
        "By",
        "Rows",
        "Selection rates",
        "Ratio",
        "True positive rates",
        "Gap",
    )
    finding = (
        f"Below the four-fifths rule's {FOUR_FIFTHS:g}: {'; '.join(low)}."
        if low
        else f"No selection-rate ratio is below the four-fifths rule's {FOUR_FIFTHS:g}."
    )
    return f"""## Fairness

Out of fold, for groups the models never see. The ratio is the lowest group's approval rate over
the highest's; the gap is between their shares of rightly approved. {finding}

{_table(header, rows)}"""


def _importances(manifest: Manifest) -> str:
    table = _table(
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

How much the holdout's log-loss rises when one input is shuffled, with all that is computed from
it. Zero or less: the model does not need it.

{table}

{_picture("importances", "Importance of each input for each model")}"""


def _data(manifest: Manifest) -> str:
    rows = []
    for field, reference in manifest.inputs.items():
        if isinstance(reference, CategoricalInput):
            shown = ", ".join(f"{name}: {count}" for name, count in reference.counts.items())
        else:
            shown = f"{reference.minimum:g} to {reference.maximum:g}"
        rows.append((field, shown, str(reference.missing)))
    return f"""## Training data

{manifest.data.rows} rows, SHA-256 `{manifest.data.sha256}`.

{_table(("Input", "Values", "Missing"), rows)}

{_picture("data", "Distribution of each input by decision")}"""


def _making(manifest: Manifest) -> str:
    parameters = _table(
        ("Model", "Parameters that are not scikit-learn's defaults"),
        (
            (model.title, ", ".join(f"`{key}={value}`" for key, value in model.parameters.items()))
            for model in manifest.models.values()
        ),
    )
    parity = _table(
        ("Model", "Rows", "Largest difference in probability", "Decisions that differ"),
        (
            (
                model.title,
                str(model.parity.rows),
                f"{model.parity.max_absolute_difference:.1e}",
                str(model.parity.label_flips),
            )
            for model in manifest.models.values()
        ),
    )
    libraries = ", ".join(f"{name} {version}" for name, version in manifest.libraries.items())
    return f"""## How it was made

{parameters}

The models served are ONNX exports. They are published only if, on every training row and many
random applications, no probability differs from scikit-learn's by more than
{MAX_PROBABILITY_DIFFERENCE:.0e} and no decision differs at all:

{parity}

Made with {libraries}; seed {manifest.seed}.
`make train DATA=path.csv` on the same data and libraries makes the same bundle again, bit by bit,
but for the times below."""


def _timings(manifest: Manifest) -> str:
    table = _table(
        ("Model", "Training (s)", "Prediction of one row (ms)"),
        (
            (
                manifest.models[name].title,
                f"{timing.training_time_s:.3f}",
                f"{timing.prediction_time_per_row_ms:.3f}",
            )
            for name, timing in manifest.timings.items()
        ),
    )
    return f"""## Times

Wall clock on the machine that trained, on one thread: fitting the holdout's training part, and
the median of scoring one row alone as it is served.

{table}"""


def _cross_validations(
    manifest: Manifest,
) -> Iterable[tuple[str, CrossValidation]]:
    for name, model in manifest.models.items():
        yield name, model.cross_validation
    for rule, baseline in manifest.baselines.items():
        yield rule, baseline.cross_validation


def _title(manifest: Manifest, name: str) -> str:
    return f"**{TITLES[name]}** (champion)" if name == manifest.champion else TITLES[name]


def _interval(interval: Interval) -> str:
    return f"{interval.mean:.3f} ({interval.low:.3f} to {interval.high:.3f})"


def _rates(rates: dict[str, float]) -> str:
    return ", ".join(f"{group} {rate:.3f}" for group, rate in rates.items())


def _optional(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


def _picture(name: str, description: str) -> str:
    return f"![{description}]({PICTURE_FOLDER}/{name}.png)"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = (header, ("---",) * len(header), *rows)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
