"""What the models were made from, how, and how long that and a decision take."""

from services.scoring.manifest import CategoricalInput, Manifest
from services.scoring.reasons import FLOOR
from services.scoring.scorecard import SCORECARD_FILE
from services.training.card.text import markdown_table, picture
from services.training.export import MAX_PROBABILITY_DIFFERENCE
from services.training.recorded import METHOD
from services.training.scorecards import MAX_SCORE_DIFFERENCE
from shared.contract.reasons import MAX_REASONS


def data_section(manifest: Manifest) -> str:
    """Where the training data come from, and what they hold."""
    rows = []
    for field, reference in manifest.inputs.items():
        if isinstance(reference, CategoricalInput):
            shown = ", ".join(f"{name}: {count}" for name, count in reference.counts.items())
        else:
            shown = f"{reference.minimum:g} to {reference.maximum:g}"
        rows.append((field, shown, str(reference.missing)))
    return f"""## Training data

{manifest.data.rows} rows, SHA-256 `{manifest.data.sha256}`.{_recorded(manifest)}

{markdown_table(("Input", "Values", "Missing"), rows)}

{picture("data", "Distribution of each input by decision")}"""


def _recorded(manifest: Manifest) -> str:
    count = manifest.data.recorded
    if not count:
        return ""
    return f"""
The last {count} of them are recorded applications labelled by the outcome of the loan, so the
digest is that of the file's digest and these rows. {METHOD}"""


def making_section(manifest: Manifest) -> str:
    """Parameters, export, libraries: what makes the bundle again."""
    parameters = markdown_table(
        ("Model", "Parameters that are not scikit-learn's defaults"),
        (
            (model.title, ", ".join(f"`{key}={value}`" for key, value in model.parameters.items()))
            for model in manifest.models.values()
        ),
    )
    parity = markdown_table(
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
{model.title} is fitted on a stratified sample of {model.fitted_on:,} rows, in each fold on as many
at most, because the time to fit it grows with the square of the rows.
"""
        for model in manifest.models.values()
        if model.fitted_on is not None and model.fitted_on < manifest.data.rows
    )
    recorded = " RECORDS=path.ndjson" if manifest.data.recorded else ""
    command = f"make {'re' * bool(recorded)}train DATA=path.csv{recorded}"
    return f"""## How it was made

{parameters}
{sampled}
Each model is exported to ONNX, and published only if, on every training row and many random
applications, no probability of the export differs from scikit-learn's by more than
{MAX_PROBABILITY_DIFFERENCE:.0e} and no decision differs:

{parity}

{_served(manifest)}

Made with {libraries}; seed {manifest.seed}.
`{command}` with the same data and libraries reproduces the bundle bit for bit,
except for the times below."""


def _served(manifest: Manifest) -> str:
    by_points = [
        model.title
        for model in manifest.models.values()
        if model.location and model.location.refusals is not None
    ]
    if not by_points:
        return "They are served by the ONNX runtime."
    share = f"{manifest.principal_share * 100:g} %"
    return f"""\
{" and ".join(by_points)} are sums of points, one for each feature: they are served by the table
of these points, `{SCORECARD_FILE}`, which equals scikit-learn to {MAX_SCORE_DIFFERENCE:.0e} in
log-odds on the same rows. Any other model is served by the ONNX runtime.

The reasons of a refusal are what lowers its score most below the reference: the main one, and at
most {MAX_REASONS - 1} more, of at least {FLOOR:g} in log-odds and {share} of the main one."""


def timings_section(manifest: Manifest) -> str:
    """How long training and one prediction take."""
    table = markdown_table(
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
