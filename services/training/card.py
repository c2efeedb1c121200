"""The model card: the manifest written out for people. Every number in it comes from there."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from services.scoring.manifest import (
    PICTURE_FOLDER,
    CategoricalInput,
    CrossValidation,
    Holdout,
    Interval,
    Manifest,
)
from services.scoring.scorecard import SCORECARD_FILE
from services.training.export import MAX_PROBABILITY_DIFFERENCE
from services.training.models import MOST_ROWS_OF_THE_SVM, TITLES, is_sampled
from services.training.scorecards import MAX_SCORE_DIFFERENCE
from services.training.verdicts import COMPARISONS
from shared.contract.application import FIELDS, MONITORED, SCORED

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
        _missing(manifest),
        _directions(manifest),
        _location(manifest),
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

{evaluation.repeats} times {evaluation.folds}-fold, stratified. Each mean has its 95 % interval from
the corrected resampled t-test of Nadeau and Bengio (2003). For Brier score and log-loss, lower is
better.

{table}

The last two are baselines without a model, on the same folds:

{baselines}

{_picture("roc", "ROC curves of the models")}
{_picture("calibration", "Calibration curves of the models")}

Both curves pool the out-of-fold predictions of all repeats."""


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

The stratified {manifest.evaluation.holdout_share:.0%} split with seed {manifest.seed} that is often
quoted for this kind of data: {size} rows. One application is worth {1 / size:.2%} of accuracy, so
differences here are mostly luck; the cross-validation above is the better guide. Positive means
approved.

{table}

{_picture("confusion", "Confusion matrices of the models")}"""


def _comparisons(manifest: Manifest) -> str:
    lines = "\n".join(
        f"- **{model.title}.** {' '.join(model.verdict)}" for model in manifest.models.values()
    )
    return f"""## Comparisons

{manifest.champion_reason}

{lines}

Differences are paired fold by fold. The champion was chosen on the same folds, and
{COMPARISONS} comparisons are made, so their intervals are wider than those above: with 95 % all of
them hold together (the same corrected t-test, by Bonferroni over every pair of models and every
comparison with the rule). One that contains zero is no evidence of a difference."""


def _fairness(manifest: Manifest) -> str:
    rows = []
    low = []
    for model in manifest.models.values():
        for attribute, fairness in model.fairness.items():
            if not fairness.groups:
                continue
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
    measured = f"""\
Out of fold, for groups that the models never see. The ratio is the lowest group's selection rate
divided by the highest group's; the gap is the difference between their true positive rates.
{finding}

{_table(header, rows)}"""
    unknown = [
        attribute
        for attribute, fairness in manifest.models[manifest.champion].fairness.items()
        if not fairness.groups
    ]
    cannot_be_told = (
        f"Whether the models are fair by {' and '.join(unknown)} cannot be told: the training data"
        " do not hold it."
    )
    paragraphs = [*([measured] if rows else []), *([cannot_be_told] if unknown else [])]
    return "\n\n".join(("## Fairness", *paragraphs))


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

How much the holdout's log-loss rises when one input is shuffled, with everything computed from it.
Zero or less means that the model does not need it.

{table}

{_picture("importances", "Importance of each input for each model")}"""


def _missing(manifest: Manifest) -> str:
    table = _table(
        ("Missing input", "Counts as"),
        (
            (field, f"{value:g}" if isinstance(value, float) else value)
            for field, value in manifest.imputation.items()
        ),
    )
    return f"""## Missing inputs

{table}

A missing number counts as the mean of the training data and a missing category as the most common
one, so leaving an input out scores exactly as stating a typical value. A missing co-applicant
income means that none was declared. An unknown credit history lies between a bad (0) and a good (1)
one, and no bundle is published in which any model scores an unknown history above a good one, or
below a bad one, for a training row or a random application. An unknown history is not a bad one, so
hiding a bad one may still pay: every decision without a credit history has a warning."""


def _directions(manifest: Manifest) -> str:
    directed = {field.name: field.direction for field in FIELDS if field.direction}
    effects = {"up": "may only raise approval", "down": "may only lower approval"}
    lines = "\n".join(
        f"- A higher {field} {effects[direction]}." for field, direction in directed.items()
    )
    undirected = ", ".join(field for field in SCORED if field not in directed)
    table = _table(
        ("Model", *directed, "Cost in log-loss", "Cost in AUC"),
        (
            (
                model.title,
                *(f"{model.directions.violations[field]:,}" for field in directed),
                _cost(model.directions.log_loss),
                _cost(model.directions.auc),
            )
            for model in manifest.models.values()
        ),
    )
    rows = next(iter(manifest.models.values())).directions.rows
    return f"""## Directions

{lines}

{undirected} have no direction: more
dependents raise costs but are no fault, and a longer time to repay lowers the instalments but
raises the total cost. On Property_Area, see the next section.

Income is the total of both applicants, and only the ratio of the amount to it is scored. Random
forest and gradient boosting are fitted under monotone constraints; logistic regression is fitted
again without features whose coefficients have the wrong sign. No bundle is published in which one
of these three lowers approval for a better value. A support vector machine cannot be constrained,
so its violations are only counted. For {rows:,} applications (training rows, random ones and a
grid), the table counts those for which a better value of an input lowers approval. The costs are
those in cross-validation, with directions minus without, paired fold by fold, 95 % intervals.

{table}"""


def _location(manifest: Manifest) -> str:
    measured = {model.title: model.location for model in manifest.models.values() if model.location}
    areas = manifest.data.approved_share_by_area or {}
    rates = _table(
        ("Approved", *areas, "Lowest by highest", "Gap of the true positive rates"),
        (
            ("In the training data", *map(_optional, areas.values()), _optional(_ratio(areas)), ""),
            *(
                (
                    title,
                    *(_optional(found.rates.selection_rates.get(area)) for area in areas),
                    _optional(found.rates.selection_rate_ratio),
                    _optional(found.rates.true_positive_rate_gap),
                )
                for title, found in measured.items()
            ),
        ),
    )
    scored_areas = next((tuple(found.scores) for found in measured.values()), ())
    effects = _table(
        ("Model", *scored_areas, "Log-loss without it", "AUC without it"),
        (
            (
                title,
                *(f"{score - max(found.scores.values()):+.3f}" for score in found.scores.values()),
                _cost(found.log_loss),
                _cost(found.auc),
            )
            for title, found in measured.items()
        ),
    )
    among_reasons = "\n".join(
        f"- {title}: in {found.among_reasons} of {found.refusals}."
        for title, found in measured.items()
        if found.refusals is not None
    )
    return f"""## Location

Property_Area may stand for who lives there, and so be a proxy for groups that the law protects,
which the data do not name: nothing here shows that it is one, and nothing shows that it is not. A
lender that scores it needs a business reason for it; the measurements say what doing without costs.

Approval rates by area, in the training data and by each model out of fold:

{rates}

How far an area lowers the mean score of the same applications (all training rows), in log-odds
below the area that is favoured most; and the difference that it makes to fit a model without the
location, paired fold by fold, with 95 % intervals. A log-loss above 0 or an AUC below 0 is a price;
an interval that contains zero is no evidence of one:

{effects}

In how many refusals of training rows it is among the reasons:

{among_reasons}"""


def _ratio(rates: Mapping[str, float]) -> float | None:
    highest = max(rates.values(), default=0.0)
    return min(rates.values()) / highest if highest else None


def _cost(interval: Interval | None) -> str:
    if interval is None:
        return "n/a"
    return f"{interval.mean:+.4f} ({interval.low:+.4f} to {interval.high:+.4f})"


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
    sampled = "".join(
        f"""
{model.title} is fitted on a stratified sample of at most {MOST_ROWS_OF_THE_SVM:,} rows, in each
fold too, because the time to fit it grows with the square of the rows.
"""
        for name, model in manifest.models.items()
        if is_sampled(name, rows=manifest.data.rows)
    )
    return f"""## How it was made

{parameters}
{sampled}
Each model is exported to ONNX, and published only if, on every training row and many random
applications, no probability of the export differs from scikit-learn's by more than
{MAX_PROBABILITY_DIFFERENCE:.0e} and no decision differs:

{parity}

{_served(manifest)}

Made with {libraries}; seed {manifest.seed}.
`make train DATA=path.csv` with the same data and libraries reproduces the bundle bit for bit,
except for the times below."""


def _served(manifest: Manifest) -> str:
    by_points = [
        model.title
        for model in manifest.models.values()
        if model.location and model.location.refusals is not None
    ]
    if not by_points:
        return "They are served by the ONNX runtime."
    return f"""\
{" and ".join(by_points)} are sums of points, one for each feature: they are served by the table
of these points, `{SCORECARD_FILE}`, which equals scikit-learn to {MAX_SCORE_DIFFERENCE:.0e} in
log-odds on the same rows. Any other model is served by the ONNX runtime."""


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

Wall-clock times on the training machine, on one thread: fitting the holdout's training part, and
the median time in which the ONNX runtime scores one row alone. A table of points takes less.

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
