"""Make a bundle: evaluate, fit, check, export, publish."""

import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version as library_version
from math import ceil
from pathlib import Path
from statistics import median
from threading import Event, Thread
from typing import Final

from joblib import effective_n_jobs
from onnxruntime import InferenceSession
from tqdm import tqdm

from services.scoring.features import FEATURES, Matrix
from services.scoring.manifest import (
    MODEL_CARD_FILE,
    PICTURE_FOLDER,
    Baseline,
    BaselineName,
    Data,
    Evaluation,
    Manifest,
    Timing,
    TrainedModel,
    content_version,
)
from services.scoring.scorecard import SCORECARD_FILE
from services.training import evaluation, publishing, verdicts
from services.training.applications import LabelledApplications
from services.training.card import model_card
from services.training.columns import columns_of, matrix_of
from services.training.directions import check_directions, grid, moves
from services.training.export import (
    RANDOM_APPLICATIONS,
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
    PRINCIPAL_SHARE,
    SEED,
    THRESHOLD,
    Model,
    Variant,
    name_without_location,
    parameters,
    rows_to_fit,
)
from services.training.pictures import draw
from services.training.reference import reference_inputs, score_counts, typical_applicant
from services.training.scorecards import scorecards
from services.training.tracking import track
from services.training.unknowns import (
    check_unknowns,
    credit_history_states,
    learn_imputation,
)
from shared.contract.application import SCORED

FEW_ROWS: Final = 500
"""Fewer are trained on with a warning."""

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
    """A published bundle, and what its models were measured by."""

    manifest: Manifest
    folder: Path
    is_new: bool
    """False if the same bundle was already published; then its files were left alone."""
    out_of_fold: evaluation.OutOfFold


def train(
    data: LabelledApplications,
    output: Path,
    *,
    models: Mapping[str, Model],
    folds: int = 10,
    repeats: int | None = None,
    random_rows: int = RANDOM_APPLICATIONS,
    jobs: int = -1,
) -> Published:
    """Publish the bundle of ``models`` trained from ``data`` under ``output``.

    Without ``repeats``, the fewer the rows, the more often the folds are drawn. The same data and
    libraries give the same bundle, bit for bit, except for its timings, however many processes
    (``jobs``; -1: one for each processor) fit the folds. Raises ``ParityError`` (an export differs
    from its reference), ``HidingPays`` (a model rewards leaving the credit history out),
    ``AgainstDirection`` (a model lowers approval for a better value), ``BundleError`` (a bundle
    published there is damaged) or ``OSError`` (``output`` is not writable); nothing is published
    then.
    """
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
    if rows < FEW_ROWS:
        print("So few rows tell little: intervals will be wide, and the champion may be luck.")
    with _progress("Holdout", len(models) + len(BASELINES) + len(SCORED)) as tick:
        holdout = evaluation.hold_out(data, models=models, tick=tick)
    # Without directions or the location, a model takes as long as with them.
    variants = [*(name for name, model in models.items() if model.is_held), *models]
    fits = [*holdout] * repeats + variants * min(repeats, evaluation.VARIANT_REPEATS)
    fit_s = folds * sum(holdout[name].training_time_s for name in fits)
    print(f"The folds will take about {ceil(fit_s / processes)} s.", flush=True)
    with _progress("Folds", folds * len(fits)) as tick:
        out_of_fold = evaluation.cross_validate(
            data, models=models, folds=folds, repeats=repeats, jobs=jobs, tick=tick
        )
    with _progress("Export", len(models)) as tick:
        core, files = _build(data, models, holdout, out_of_fold, random_rows=random_rows, tick=tick)

    published = publishing.find_published(output, core.version)
    if published is not None:
        judged = core.model_copy(update={"gate": published.gate})
        manifest, _ = with_card(judged, published.timings)
        publishing.check_same(published, manifest)
        folder = output / core.version
    else:
        manifest, card = with_card(core, core.timings)
        folder = publishing.publish(output, manifest, {**files, MODEL_CARD_FILE: card})
    if said := track(manifest):
        print(said)
    return Published(manifest, folder, published is None, out_of_fold)


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
    asked: Mapping[str, Model],
    holdout: Mapping[str, evaluation.HoldoutResult],
    out_of_fold: evaluation.OutOfFold,
    *,
    random_rows: int,
    tick: Callable[[], object],
) -> tuple[Manifest, dict[str, bytes]]:
    # Returns the manifest without the card, and every file except those two.
    imputation = learn_imputation(data.applications)
    features = matrix_of(columns_of(data.applications), imputation)
    compared = [*data.applications, *random_applications(random_rows)]
    compared_features = matrix_of(columns_of(compared), imputation)
    states = credit_history_states(compared, imputation)
    moved = moves([*compared, *grid()], imputation)
    champion = verdicts.champion(out_of_fold)
    pipelines = {
        name: Variant(model).fit(features, data.approved).pipeline for name, model in asked.items()
    }
    cards = scorecards(pipelines, features, compared_features)
    files = {SCORECARD_FILE: cards.model_dump_json(indent=2).encode() + b"\n"}
    models: dict[str, TrainedModel] = {}
    timings: dict[str, Timing] = {}
    for name, pipeline in pipelines.items():
        files[f"{name}.joblib"] = to_joblib(pipeline)
        files[f"{name}.onnx"] = to_onnx_model(pipeline, name=name)
        session = open_onnx(files[f"{name}.onnx"])
        check_unknowns(name, partial(approvals, session), states)
        gap = verdicts.log_loss_above(out_of_fold, name, champion)
        comparison = verdicts.against_rule(out_of_fold, name)
        models[name] = TrainedModel(
            title=asked[name].title,
            parameters=parameters(pipeline),
            fitted_on=rows_to_fit(pipeline, rows=len(features)),
            cross_validation=evaluation.cross_validation_metrics(out_of_fold, name),
            holdout=holdout[name].metrics,
            fairness=fairness(data.applications, data.approved, out_of_fold.approvals[name]),
            importances=dict(holdout[name].importances),
            parity=check_parity(name, pipeline, session, compared_features),
            directions=check_directions(name, partial(approvals, session), moved, out_of_fold),
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
            verdict=verdicts.verdict(gap, comparison, best=asked[champion].title),
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
            recorded=data.recorded,
            approved_share=round(float(data.approved.mean()), evaluation.DECIMALS),
            approved_share_by_area=approved_share_by_area(data.applications, data.approved),
        ),
        seed=SEED,
        threshold=THRESHOLD,
        evaluation=Evaluation(
            folds=out_of_fold.folds,
            repeats=len(out_of_fold.approvals[champion]),
            variant_repeats=len(out_of_fold.approvals[name_without_location(champion)]),
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
        scores={name: score_counts(out_of_fold.approvals[name][0]) for name in models},
        principal_share=PRINCIPAL_SHARE,
        files={name: publishing.checksum(content) for name, content in sorted(files.items())},
        timings=timings,
    )
    version = content_version(manifest.model_dump_json().encode())
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


def with_card(manifest: Manifest, timings: Mapping[str, Timing]) -> tuple[Manifest, bytes]:
    """Return the manifest with these timings and the card's checksum, and the card."""
    # The card shows the timings, so it is made last and is not part of what the version hashes.
    timed = manifest.model_copy(update={"timings": dict(timings)})
    card = model_card(timed).encode()
    files = {**timed.files, MODEL_CARD_FILE: publishing.checksum(card)}
    return timed.model_copy(update={"files": files}), card
