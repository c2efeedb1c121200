"""Train a bundle from a file: validate, evaluate, fit, export, compare, publish."""

import argparse
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version as library_version
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np
from onnxruntime import InferenceSession
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from services.scoring.features import FEATURES, Matrix, feature_matrix
from services.scoring.manifest import (
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
from services.training import evaluation, publishing, verdicts
from services.training.applications import DataError, LabelledApplications, read_applications
from services.training.card import model_card
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
from services.training.models import (
    BASELINE_DESCRIPTIONS,
    BASELINES,
    MODEL_NAMES,
    PIPELINES,
    SEED,
    THRESHOLD,
    TITLES,
    parameters,
)
from services.training.pictures import draw
from services.training.reference import reference_inputs
from shared.files.applications import OUTCOME

DEFAULT_OUTPUT: Final = Path("services/scoring/bundle")

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
    """A published bundle."""

    manifest: Manifest
    folder: Path
    is_new: bool
    """False if the same bundle was already published; then its files were left alone."""


def train(
    data_path: Path,
    output: Path,
    *,
    folds: int = 10,
    repeats: int = 10,
    random_rows: int = RANDOM_APPLICATIONS,
    jobs: int = -1,
    target: str = OUTCOME,
) -> Published:
    """Publish the bundle trained from ``data_path`` under ``output`` and make it current.

    The same data and libraries give the same bundle, bit for bit, except for its timings. Raises
    ``DataError`` (the file has faults), ``ParityError`` (an export differs from its reference),
    ``BundleError`` (a bundle published there is damaged) or ``OSError`` (``output`` is not
    writable); nothing is published then.
    """
    data = read_applications(data_path, target=target)
    # Created first, so that a folder that cannot be made fails before the long work.
    output.mkdir(parents=True, exist_ok=True)
    features = feature_matrix(data.applications)
    with tqdm(total=folds * repeats, desc="Cross-validation", unit="fold") as bar:
        out_of_fold = evaluation.cross_validate(
            features, data.approved, folds=folds, repeats=repeats, jobs=jobs, tick=bar.update
        )
    core, files = _build(data, features, out_of_fold, random_rows=random_rows)

    published = publishing.find_published(output, core.version)
    if published is not None:
        manifest, _ = _with_card(core, published.timings)
        publishing.check_same(published, manifest)
        folder = output / core.version
    else:
        manifest, card = _with_card(core, core.timings)
        folder = publishing.publish(output, manifest, {**files, MODEL_CARD_FILE: card})
    publishing.make_current(output, core.version)
    return Published(manifest=manifest, folder=folder, is_new=published is None)


def _build(
    data: LabelledApplications,
    features: Matrix,
    out_of_fold: evaluation.OutOfFold,
    *,
    random_rows: int,
) -> tuple[Manifest, dict[str, bytes]]:
    # Returns the manifest without the card, and every file except those two.
    holdout = evaluation.hold_out(data)
    compared = np.vstack([features, feature_matrix(random_applications(random_rows))])
    champion = verdicts.champion(out_of_fold)
    files: dict[str, bytes] = {}
    models: dict[str, TrainedModel] = {}
    timings: dict[str, Timing] = {}
    for name in tqdm(MODEL_NAMES, desc="Export", unit="model"):
        pipeline = _fit(name, features, data)
        files[f"{name}.joblib"] = to_joblib(pipeline)
        files[f"{name}.onnx"] = to_onnx_model(pipeline, name=name)
        session = open_onnx(files[f"{name}.onnx"])
        gap = verdicts.log_loss_above(out_of_fold, name, champion)
        comparison = verdicts.against_rule(out_of_fold, name)
        models[name] = TrainedModel(
            title=TITLES[name],
            parameters=parameters(pipeline),
            cross_validation=evaluation.cross_validation_metrics(out_of_fold, name),
            holdout=holdout[name].metrics,
            fairness=fairness(data.applications, data.approved, out_of_fold.approvals[name]),
            importances=dict(holdout[name].importances),
            parity=check_parity(name, pipeline, session, compared),
            log_loss_above_champion=gap,
            against_rule=comparison,
            verdict=verdicts.verdict(gap, comparison, best=champion),
        )
        timings[name] = Timing(
            training_time_s=holdout[name].training_time_s,
            prediction_time_per_row_ms=median(
                _scoring_time_ms(session, row) for row in np.split(features, len(features))
            ),
        )
    inputs = reference_inputs(data.applications)
    pictures = draw(data, out_of_fold, models, inputs)
    files |= {f"{PICTURE_FOLDER}/{name}": picture for name, picture in pictures.items()}
    manifest = Manifest(
        version=_NO_VERSION,
        data=Data(
            sha256=data.sha256,
            rows=len(data.applications),
            approved_share=round(float(data.approved.mean()), evaluation.DECIMALS),
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


def _fit(name: str, features: Matrix, data: LabelledApplications) -> Pipeline:
    with threadpool_limits(limits=1):
        return PIPELINES[name]().fit(features, data.approved)


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
    parser = argparse.ArgumentParser(
        prog="python -m services.training", description="Train a bundle of models from a file."
    )
    parser.add_argument("data", type=Path, help="labelled applications (CSV, Excel or Parquet)")
    parser.add_argument(
        "--target", default=OUTCOME, help="the column that says what was decided (%(default)s)"
    )
    parser.add_argument(
        "--output", type=Path, default=DEFAULT_OUTPUT, help="folder of bundles (%(default)s)"
    )
    options = parser.parse_args(arguments)
    started = time.monotonic()
    try:
        published = train(options.data, options.output, target=options.target)
    except (DataError, ParityError, BundleError) as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"The bundle cannot be written to {options.output}: {error}", file=sys.stderr)
        return 1
    manifest = published.manifest
    print(manifest.champion_reason)
    if published.is_new:
        print(f"Published {published.folder} in {time.monotonic() - started:.0f} s.")
    else:
        print(f"{published.folder} was already published and is identical; nothing was written.")
    return 0
