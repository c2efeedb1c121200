"""How a retrained candidate compares with the served bundle, measure by measure.

The served bundle knows rows of its own training, which would flatter it. So its champion is fitted
again on each fold, on those rows to learn from that the file of labelled applications has, and
both are measured on the same rows that neither has seen.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Final

import joblib
import numpy as np
import numpy.typing as npt

from services.scoring.features import FEATURES
from services.scoring.manifest import BundleError, Interval, read_file
from services.scoring.reasons import refusal_reasons
from services.scoring.registry import Bundle, load_bundle
from services.scoring.scorecard import SCORECARD_FILE
from services.training.applications import LabelledApplications
from services.training.columns import Rows
from services.training.evaluation import (
    DECIMALS,
    METRICS,
    OutOfFold,
    interval,
    predict_folds,
    splits,
)
from services.training.models import SEED, THRESHOLD, Model, Probabilities, Variant
from shared.contract.application import MONITORED, SCORED

FEWEST_ROWS: Final = 30
"""A group with fewer rows is not compared, nor are fewer recorded rows."""
RESAMPLES: Final = 1_000
_TIMED_ROWS: Final = 500
_SERVED: Final = "served"

MEASURES: Final = (
    "log_loss_on_file",
    "log_loss_on_recorded",
    "calibration_gap",
    *(
        f"{rate}_gap_by_{name}"
        for name in MONITORED
        for rate in ("selection_rate", "true_positive_rate")
    ),
    "log_loss_above_rule",
    "decisions_changed_by_export",
    "main_reasons_kept",
    "size_ratio",
    "time_ratio",
)
"""What ``measure`` returns, and rules may name."""

Measures = Mapping[str, Interval | None]
"""By measure: its value with an interval, which is the value alone where it is certain; None where
it cannot be measured."""


@dataclass(frozen=True)
class Sides:
    """Predictions for every row by a model that did not see it, of shape (repeats, rows)."""

    candidate: Probabilities
    served: Probabilities
    held_out: Sequence[Rows]
    """By fold, repeat after repeat."""
    folds: int

    def difference(
        self,
        data: LabelledApplications,
        metric: Callable[[npt.NDArray[np.int64], Probabilities], float],
        rows: Rows,
    ) -> Interval | None:
        """The candidate less the served bundle, over the folds, on some of the rows."""
        if len(rows) < FEWEST_ROWS:
            return None
        gaps = []
        for number, test in enumerate(self.held_out):
            shared = np.intersect1d(test, rows)
            if len(shared):
                ours, theirs = (
                    metric(data.approved[shared], side[number // self.folds, shared])
                    for side in (self.candidate, self.served)
                )
                gaps.append(ours - theirs)
        return interval(np.array(gaps), folds=self.folds)


def measure(
    data: LabelledApplications, out_of_fold: OutOfFold, *, candidate: Path, served: Path
) -> Measures:
    """Compare the champions of the bundles in two folders, and the bundles themselves.

    Raises ``BundleError`` if the served bundle cannot be used or has other features.
    """
    ours, theirs = (load_bundle(each.parent, each.name) for each in (candidate, served))
    if theirs.manifest.features != FEATURES:
        raise BundleError(
            f"{theirs.manifest.version} has other features, so its champion cannot be fitted again"
        )
    sides = _sides(data, out_of_fold, ours.manifest.champion, _reference(served, theirs))
    rows = np.arange(len(data.approved))
    file_rows = len(rows) - data.recorded
    selected = [(side >= THRESHOLD).mean(axis=0) for side in (sides.candidate, sides.served)]
    approved = data.approved == 1
    gaps: dict[str, Interval | None] = {}
    for attribute in MONITORED:
        groups = _groups(data, attribute)
        gaps[f"selection_rate_gap_by_{attribute}"] = _gap(groups, *selected)
        gaps[f"true_positive_rate_gap_by_{attribute}"] = _gap(
            groups[:, approved], *(side[approved] for side in selected)
        )
    models = ours.manifest.models
    return {
        "log_loss_on_file": sides.difference(data, METRICS["log_loss"], rows[:file_rows]),
        "log_loss_on_recorded": sides.difference(data, METRICS["log_loss"], rows[file_rows:]),
        "calibration_gap": sides.difference(data, _calibration_gap, rows),
        **gaps,
        "log_loss_above_rule": models[ours.manifest.champion].against_rule.log_loss,
        "decisions_changed_by_export": _certain(
            sum(model.parity.label_flips for model in models.values())
        ),
        "main_reasons_kept": _main_reasons_kept(data, ours, theirs),
        "size_ratio": _certain(_bytes(candidate, ours) / _bytes(served, theirs)),
        "time_ratio": _certain(_time_ratio(ours, theirs, data)),
    }


def _certain(value: float) -> Interval:
    value = round(value, DECIMALS)
    return Interval(mean=value, low=value, high=value)


def _sides(
    data: LabelledApplications, out_of_fold: OutOfFold, champion: str, reference: bytes
) -> Sides:
    found, folds = out_of_fold.approvals[champion], out_of_fold.folds
    split = splits(data.approved, folds=folds, repeats=len(found))
    file_rows = len(data.approved) - data.recorded
    known = [(train[train < file_rows], test) for train, test in split]
    again = Variant(Model(_SERVED, joblib.load(BytesIO(reference))))
    served = predict_folds(data, {_SERVED: again}, known, drawn={_SERVED: len(found)}, folds=folds)
    return Sides(found, served.approvals[_SERVED], [test for _, test in split], folds)


def _calibration_gap(approved: npt.NDArray[np.int64], approvals: Probabilities) -> float:
    return abs(float(approvals.mean() - approved.mean()))


def _groups(data: LabelledApplications, attribute: str) -> npt.NDArray[np.bool_]:
    """Return a row for each group that is large enough, with its applications."""
    values = np.array([str(application[attribute]) for application in data.applications])
    known = sorted({str(value) for each in data.applications if (value := each[attribute])})
    groups = [values == group for group in known]
    large = [group for group in groups if group.sum() >= FEWEST_ROWS]
    return np.array(large).reshape(len(large), len(values))


def _gap(
    groups: npt.NDArray[np.bool_], candidate: Probabilities, served: Probabilities
) -> Interval | None:
    """The difference of the largest gaps between groups, with a bootstrap interval over rows."""
    if len(groups) < 2 or not groups.any(axis=1).all():
        return None
    random, rows = np.random.default_rng(SEED), len(candidate)
    # The first draw is the rows as they are.
    draws = [np.ones(rows)] + [
        np.bincount(random.integers(rows, size=rows), minlength=rows) for _ in range(RESAMPLES)
    ]
    found = []
    for weights in draws:
        sizes = np.maximum(groups @ weights, 1)
        ours, theirs = (groups @ (weights * side) / sizes for side in (candidate, served))
        found.append(np.ptp(ours) - np.ptp(theirs))
    low, high = np.quantile(found[1:], (0.025, 0.975))
    return Interval(
        mean=round(float(found[0]), DECIMALS),
        low=round(float(low), DECIMALS),
        high=round(float(high), DECIMALS),
    )


def _main_reasons_kept(
    data: LabelledApplications, candidate: Bundle, served: Bundle
) -> Interval | None:
    """Of the applications that both refuse, the share whose main reason stays the same."""
    pairs = [
        (ours, theirs)
        for application in data.applications
        if (ours := _main_reason(candidate, application))
        and (theirs := _main_reason(served, application))
    ]
    if not pairs:
        return None
    return _certain(sum(ours == theirs for ours, theirs in pairs) / len(pairs))


def _main_reason(bundle: Bundle, application: Mapping[str, object]) -> str | None:
    champion = bundle.champion
    row = bundle.row_of(application)
    if champion.scorecard is None or champion.approval_probability(row) >= champion.threshold:
        return None
    missing = frozenset(name for name in SCORED if application[name] is None)
    share = bundle.manifest.principal_share
    reasons = refusal_reasons(champion.scorecard, row, missing, share)
    return str(reasons[0]["code"]) if reasons else None


def _reference(folder: Path, bundle: Bundle) -> bytes:
    """The champion as scikit-learn fitted it; its checksum is verified before it is unpickled."""
    return read_file(folder, bundle.manifest, f"{bundle.manifest.champion}.joblib")


def _bytes(folder: Path, bundle: Bundle) -> int:
    """The size of what serving loads."""
    names = [*(f"{name}.onnx" for name in bundle.models), SCORECARD_FILE]
    return sum((folder / name).stat().st_size for name in names if name in bundle.manifest.files)


def _time_ratio(candidate: Bundle, served: Bundle, data: LabelledApplications) -> float:
    """The ratio of the median times in which the champions answer one application."""
    times_s: dict[str, list[float]] = {"candidate": [], "served": []}
    for application in data.applications[:_TIMED_ROWS]:
        # In turns, so that what else the machine does slows down both.
        for side, bundle in (("candidate", candidate), ("served", served)):
            started = time.perf_counter()
            bundle.champion.approval_probability(bundle.row_of(application))
            times_s[side].append(time.perf_counter() - started)
    return median(times_s["candidate"]) / median(times_s["served"])
