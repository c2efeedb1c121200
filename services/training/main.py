"""Train a bundle from a file: validate, evaluate, export, publish, compare, promote."""

import argparse
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version as library_version
from math import ceil
from pathlib import Path
from statistics import median
from threading import Event, Thread
from typing import Final, cast

from joblib import effective_n_jobs
from onnxruntime import InferenceSession
from sklearn.pipeline import Pipeline
from tqdm import tqdm

from services.scoring.features import FEATURES, Matrix, feature_matrix
from services.scoring.manifest import (
    BUNDLE_ROOT,
    MODEL_CARD_FILE,
    PICTURE_FOLDER,
    Baseline,
    BaselineName,
    BundleError,
    Data,
    Evaluation,
    Manifest,
    Timing,
    TrainedModel,
)
from services.scoring.registry import load_bundle
from services.scoring.scorecard import SCORECARD_FILE
from services.training import evaluation, publishing, verdicts
from services.training.applications import DataError, LabelledApplications, read_applications
from services.training.card import model_card
from services.training.comparison import comparison
from services.training.directions import AgainstDirection, check_directions, grid
from services.training.export import (
    RANDOM_APPLICATIONS,
    ParityError,
    approvals,
    check_parity,
    open_onnx,
    random_applications,
    to_joblib,
    to_onnx_model,
)
from services.training.fairness import fairness
from services.training.location import approved_share_by_area, location
from services.training.models import (
    BASELINE_DESCRIPTIONS,
    BASELINES,
    FREE,
    MODEL_NAMES,
    SEED,
    THRESHOLD,
    TITLES,
    fitted,
    parameters,
)
from services.training.pictures import draw
from services.training.reference import reference_inputs, typical_applicant
from services.training.scorecards import scorecards
from services.training.unknowns import HidingPays, check_unknowns, learn_imputation
from shared.contract.application import SCORED
from shared.files.applications import OUTCOME

DEFAULT_OUTPUT: Final = Path(".local/bundles")
"""Outside the tracked tree: a bundle that was only trained decides nothing."""

_TIMED_ROWS: Final = 1_000
_SHOWN_EVERY_S: Final = 1.0
_LIBRARIES = (
    "joblib",
    "matplotlib",
    "numpy",
    "onnx",
    "onnxruntime",
    "pandas",
    "scikit-learn",
    "scipy",
    "skl2onnx",
)
_NO_VERSION = "b-00000000"


@dataclass(frozen=True)
class Published:
    """A published bundle, and what it was made from."""

    manifest: Manifest
    folder: Path
    is_new: bool
    """False if the same bundle was already published; then its files were left alone."""
    data: LabelledApplications
    out_of_fold: evaluation.OutOfFold


def train(
    data_path: Path,
    output: Path,
    *,
    target: str = OUTCOME,
    models: Sequence[str] = MODEL_NAMES,
    folds: int = 10,
    repeats: int | None = None,
    random_rows: int = RANDOM_APPLICATIONS,
    jobs: int = -1,
) -> Published:
    """Publish the bundle of ``models`` trained from ``data_path`` under ``output``.

    Without ``repeats``, the fewer the rows, the more often the folds are drawn. The same data and
    libraries give the same bundle, bit for bit, except for its timings, however many processes
    (``jobs``; -1: one for each processor) fit the folds. Raises ``DataError`` (the file has
    faults), ``ParityError`` (an export differs from its reference), ``HidingPays`` (a model
    rewards leaving the credit history out), ``AgainstDirection`` (a model lowers approval for a
    better value), ``BundleError`` (a bundle published there is damaged) or ``OSError`` (``output``
    is not writable); nothing is published then.
    """
    print(f"Reading {data_path}.", flush=True)
    data = read_applications(data_path, target=target)
    # Created first, so that a folder that cannot be made fails before the long work.
    output.mkdir(parents=True, exist_ok=True)
    rows = len(data.approved)
    repeats = repeats or evaluation.repeats_for(rows)
    processes = effective_n_jobs(jobs)
    print(
        f"{rows:,} applications, {len(models)} models: a holdout, then {repeats} x {folds} folds on"
        f" {processes} process{'es' * (processes > 1)}.",
        flush=True,
    )
    with _progress("Holdout", len(models) + len(BASELINES) + len(SCORED)) as tick:
        holdout = evaluation.hold_out(data, names=models, tick=tick)
    # Without directions or the location, a model takes as long as with them.
    fits = [*holdout, *(name for name in models if name in FREE), *models]
    fit_s = sum(holdout[name].training_time_s for name in fits)
    print(f"The folds will take about {ceil(fit_s * folds * repeats / processes)} s.", flush=True)
    with _progress("Folds", folds * repeats * len(fits)) as tick:
        out_of_fold = evaluation.cross_validate(
            data, names=models, folds=folds, repeats=repeats, jobs=jobs, tick=tick
        )
    with _progress("Export", len(models)) as tick:
        core, files = _build(data, holdout, out_of_fold, random_rows=random_rows, tick=tick)

    published = publishing.find_published(output, core.version)
    if published is not None:
        manifest, _ = _with_card(core, published.timings)
        publishing.check_same(published, manifest)
        folder = output / core.version
    else:
        manifest, card = _with_card(core, core.timings)
        folder = publishing.publish(output, manifest, {**files, MODEL_CARD_FILE: card})
    return Published(manifest, folder, published is None, data, out_of_fold)


@contextmanager
def _progress(title: str, steps: int) -> Iterator[Callable[[], object]]:
    """Show a bar of ``steps``; call what it yields after each. Its clock moves each second."""
    ended = Event()
    with tqdm(total=steps, desc=title, unit="step") as bar:

        def show_the_time() -> None:
            while not ended.wait(_SHOWN_EVERY_S):
                bar.refresh()

        clock = Thread(target=show_the_time, daemon=True)
        clock.start()
        try:
            yield bar.update
        finally:
            ended.set()
            clock.join()


def _build(
    data: LabelledApplications,
    holdout: Mapping[str, evaluation.HoldoutResult],
    out_of_fold: evaluation.OutOfFold,
    *,
    random_rows: int,
    tick: Callable[[], object],
) -> tuple[Manifest, dict[str, bytes]]:
    # Returns the manifest without the card, and every file except those two.
    imputation = learn_imputation(data.applications)
    features = feature_matrix(data.applications, imputation)
    compared = [*data.applications, *random_applications(random_rows)]
    compared_features = feature_matrix(compared, imputation)
    champion = verdicts.champion(out_of_fold)
    pipelines = {
        name: cast("Pipeline", fitted(name, features, data.approved))
        for name in verdicts.models_in(out_of_fold)
    }
    cards = scorecards(pipelines, features, compared_features)
    files = {SCORECARD_FILE: cards.model_dump_json(indent=2).encode() + b"\n"}
    applications = [*compared, *grid()]
    models: dict[str, TrainedModel] = {}
    timings: dict[str, Timing] = {}
    for name, pipeline in pipelines.items():
        files[f"{name}.joblib"] = to_joblib(pipeline)
        files[f"{name}.onnx"] = to_onnx_model(pipeline, name=name)
        session = open_onnx(files[f"{name}.onnx"])
        check_unknowns(name, partial(approvals, session), compared, imputation)
        gap = verdicts.log_loss_above(out_of_fold, name, champion)
        comparison = verdicts.against_rule(out_of_fold, name)
        models[name] = TrainedModel(
            title=TITLES[name],
            parameters=parameters(pipeline),
            cross_validation=evaluation.cross_validation_metrics(out_of_fold, name),
            holdout=holdout[name].metrics,
            fairness=fairness(data.applications, data.approved, out_of_fold.approvals[name]),
            importances=dict(holdout[name].importances),
            parity=check_parity(name, pipeline, session, compared_features),
            directions=check_directions(
                name, partial(approvals, session), applications, imputation, out_of_fold
            ),
            location=location(
                name,
                partial(approvals, session),
                cards.models.get(name),
                data,
                imputation,
                out_of_fold,
            ),
            log_loss_above_champion=gap,
            against_rule=comparison,
            verdict=verdicts.verdict(gap, comparison, best=champion),
        )
        timings[name] = Timing(
            training_time_s=holdout[name].training_time_s,
            prediction_time_per_row_ms=median(
                _scoring_time_ms(session, features[row : row + 1])
                for row in range(min(len(features), _TIMED_ROWS))
            ),
        )
        tick()
    inputs = reference_inputs(data.applications)
    pictures = draw(data, out_of_fold, models, inputs)
    files |= {f"{PICTURE_FOLDER}/{name}": picture for name, picture in pictures.items()}
    manifest = Manifest(
        version=_NO_VERSION,
        data=Data(
            sha256=data.sha256,
            rows=len(data.applications),
            approved_share=round(float(data.approved.mean()), evaluation.DECIMALS),
            approved_share_by_area=approved_share_by_area(data.applications, data.approved),
        ),
        seed=SEED,
        threshold=THRESHOLD,
        evaluation=Evaluation(
            folds=out_of_fold.folds,
            repeats=len(out_of_fold.approvals[champion]),
            holdout_share=evaluation.HOLDOUT_SHARE,
        ),
        libraries={
            "python": platform.python_version(),
            **{name: library_version(name) for name in _LIBRARIES},
        },
        features=FEATURES,
        imputation=dict(imputation),
        typical=typical_applicant(data.applications),
        champion=champion,
        champion_reason=verdicts.champion_reason(out_of_fold, champion),
        models=models,
        baselines=_baselines(out_of_fold, holdout),
        inputs=inputs,
        files={name: publishing.checksum(content) for name, content in sorted(files.items())},
        timings=timings,
    )
    content = manifest.model_dump_json(exclude={"version", "timings"}).encode()
    version = f"b-{publishing.checksum(content)[:8]}"
    return manifest.model_copy(update={"version": version}), files


def _scoring_time_ms(session: InferenceSession, row: Matrix) -> float:
    started = time.perf_counter()
    approvals(session, row)
    return (time.perf_counter() - started) * 1000


def _baselines(
    out_of_fold: evaluation.OutOfFold,
    holdout: Mapping[str, evaluation.HoldoutResult],
) -> dict[BaselineName, Baseline]:
    return {
        name: Baseline(
            description=BASELINE_DESCRIPTIONS[name],
            cross_validation=evaluation.cross_validation_metrics(out_of_fold, name),
            holdout=holdout[name].metrics,
        )
        for name in BASELINES
    }


def _with_card(manifest: Manifest, timings: Mapping[str, Timing]) -> tuple[Manifest, bytes]:
    # The card shows the timings, so it is made last and is not part of what the version hashes.
    timed = manifest.model_copy(update={"timings": dict(timings)})
    card = model_card(timed).encode()
    files = {**timed.files, MODEL_CARD_FILE: publishing.checksum(card)}
    return timed.model_copy(update={"files": files}), card


def main(arguments: Sequence[str] | None = None) -> int:
    """Train from the command line; return 0 if a bundle is published, 1 with a reason if not."""
    options = _parser().parse_args(arguments)
    started = time.monotonic()
    try:
        published = train(
            options.data, options.output, target=options.target, models=options.models
        )
        compared = _compared(published, options.serving)
    except (DataError, ParityError, HidingPays, AgainstDirection, BundleError) as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"The bundle cannot be written to {options.output}: {error}", file=sys.stderr)
        return 1
    print(published.manifest.champion_reason)
    print(compared)
    if published.is_new:
        print(f"Published {published.folder} in {time.monotonic() - started:.0f} s.")
    else:
        print(f"{published.folder} was already published and is identical; nothing was written.")
    version = published.manifest.version
    if options.promote:
        try:
            publishing.promote(published.folder, options.serving)
        except (BundleError, OSError) as error:
            print(f"{options.serving} serves what it served before: {error}", file=sys.stderr)
            return 1
        print(f"{options.serving} now serves {version}.")
    else:
        print(
            f"Nothing was changed in {options.serving}. To try the candidate, set"
            f" BUNDLE_ROOT={options.output.resolve()} BUNDLE_VERSION={version};"
            " to serve it, train with PROMOTE=1."
        )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m services.training", description="Train a bundle of models from a file."
    )
    parser.add_argument("data", type=Path, help="labelled applications (CSV, Excel or Parquet)")
    parser.add_argument(
        "--target", default=OUTCOME, help="the column that says what was decided (%(default)s)"
    )
    parser.add_argument(
        "--models",
        type=_model_names,
        default=MODEL_NAMES,
        help=f"those to train, by commas: {','.join(MODEL_NAMES)} (all)",
    )
    parser.add_argument(
        "--output", type=Path, default=DEFAULT_OUTPUT, help="folder of candidates (%(default)s)"
    )
    parser.add_argument(
        "--serving", type=Path, default=BUNDLE_ROOT, help="folder of served bundles (the product's)"
    )
    parser.add_argument(
        "--promote", action="store_true", help="make the bundle the one that is served"
    )
    return parser


def _model_names(value: str) -> tuple[str, ...]:
    chosen = value.replace(",", " ").split()
    unknown = [name for name in chosen if name not in MODEL_NAMES]
    if unknown or not chosen:
        raise argparse.ArgumentTypeError(
            f"{' '.join(unknown) or 'nothing'} is none of {', '.join(MODEL_NAMES)}"
        )
    return tuple(name for name in MODEL_NAMES if name in chosen)


def _compared(published: Published, serving: Path) -> str:
    candidate = load_bundle(published.folder.parent, published.manifest.version)
    try:
        served = load_bundle(serving, None)
    except BundleError as error:
        return f"There is no bundle to compare with. {error}"
    return comparison(published.data, published.out_of_fold, candidate, served)
