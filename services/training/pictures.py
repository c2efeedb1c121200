"""The pictures of the model card, as PNG; the same metrics give the same bytes."""

import io
from collections.abc import Mapping
from itertools import cycle
from typing import Final

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from sklearn.calibration import calibration_curve
from sklearn.metrics import roc_curve

from services.scoring.manifest import Input, NumericInput, TrainedModel
from services.training.applications import LabelledApplications, Labels
from services.training.evaluation import OutOfFold

CALIBRATION_BINS: Final = 6
_WIDTH: Final = 9 / 4
"""Inches of one model's part of a picture."""

_STYLE = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 9,
    "figure.constrained_layout.use": True,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "grid.alpha": 0.3,
}
# Distinguishable in every common kind of colour vision. Source: Okabe and Ito, Color Universal
# Design.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442")
_GREY = "#777777"
_APPROVED, _REJECTED = "#0072b2", "#d55e00"


def draw(
    data: LabelledApplications,
    out_of_fold: OutOfFold,
    models: Mapping[str, TrainedModel],
    inputs: Mapping[str, Input],
) -> dict[str, bytes]:
    """Draw every picture; return them by file name."""
    with style.context(["default", _STYLE]):
        return {
            "roc.png": _roc(data.approved, out_of_fold, models),
            "calibration.png": _calibration(data.approved, out_of_fold, models),
            "confusion.png": _confusion(models),
            "importances.png": _importances(models),
            "data.png": _data(data, inputs),
        }


def _png(figure: Figure) -> bytes:
    drawn, small = io.BytesIO(), io.BytesIO()
    # Without metadata, because the library would put its version there.
    figure.savefig(drawn, format="png", dpi=110, metadata={"Software": None})
    # A palette takes a third of the bytes, and every bundle stays for good.
    Image.open(drawn).convert("RGB").quantize().save(small, format="png", optimize=True)
    return small.getvalue()


def _pooled(
    approved: Labels, out_of_fold: OutOfFold, name: str
) -> tuple[Labels, np.ndarray[tuple[int], np.dtype[np.float64]]]:
    approvals = out_of_fold.approvals[name]
    return np.tile(approved, len(approvals)), approvals.ravel()


def _roc(approved: Labels, out_of_fold: OutOfFold, models: Mapping[str, TrainedModel]) -> bytes:
    figure = Figure(figsize=(5, 4.5))
    axes = figure.subplots()
    for (name, model), colour in zip(models.items(), cycle(_COLOURS), strict=False):
        false_positives, true_positives, _ = roc_curve(*_pooled(approved, out_of_fold, name))
        axes.plot(false_positives, true_positives, color=colour, label=model.title)
    axes.plot([0, 1], [0, 1], color=_GREY, linestyle=":", label="Chance")
    axes.set(title="ROC, out of fold", xlabel="False positive rate", ylabel="True positive rate")
    axes.legend(loc="lower right", frameon=False)
    return _png(figure)


def _calibration(
    approved: Labels, out_of_fold: OutOfFold, models: Mapping[str, TrainedModel]
) -> bytes:
    figure = Figure(figsize=(5, 4.5))
    axes = figure.subplots()
    for (name, model), colour in zip(models.items(), cycle(_COLOURS), strict=False):
        observed, predicted = calibration_curve(
            *_pooled(approved, out_of_fold, name), n_bins=CALIBRATION_BINS, strategy="quantile"
        )
        axes.plot(predicted, observed, color=colour, label=model.title, marker="o")
    axes.plot([0, 1], [0, 1], color=_GREY, linestyle=":", label="Perfect")
    axes.set(
        title="Calibration, out of fold",
        xlabel="Predicted probability of approval",
        ylabel="Share approved",
    )
    axes.legend(loc="upper left", frameon=False)
    return _png(figure)


def _confusion(models: Mapping[str, TrainedModel]) -> bytes:
    figure = Figure(figsize=(_WIDTH * len(models), 2.6))
    all_axes = figure.subplots(1, len(models), squeeze=False).flat
    for axes, model in zip(all_axes, models.values(), strict=True):
        counts = model.holdout.confusion_matrix
        matrix = [
            [counts.true_positive, counts.false_negative],
            [counts.false_positive, counts.true_negative],
        ]
        axes.imshow(matrix, cmap="Blues", vmin=0, vmax=model.holdout.rows)
        for row, cells in enumerate(matrix):
            for column, count in enumerate(cells):
                dark = count > model.holdout.rows / 2
                axes.text(
                    column, row, str(count), ha="center", va="center", color="w" if dark else "k"
                )
        axes.set_xticks([0, 1], ["Approved", "Rejected"])
        axes.set_yticks([0, 1], ["Y", "N"])
        axes.set_title(model.title)
        axes.grid(visible=False)
    figure.supxlabel("Predicted, on the holdout", fontsize=9)
    figure.supylabel("Labelled", fontsize=9)
    return _png(figure)


def _importances(models: Mapping[str, TrainedModel]) -> bytes:
    figure = Figure(figsize=(_WIDTH * len(models), 3.2))
    all_axes = figure.subplots(1, len(models), sharex=True, squeeze=False).flat
    for number, (axes, model) in enumerate(zip(all_axes, models.values(), strict=True)):
        fields, colour = list(model.importances)[::-1], _COLOURS[number % len(_COLOURS)]
        axes.barh(fields, [model.importances[field] for field in fields], color=colour)
        axes.set_title(model.title)
        if number:
            axes.tick_params(labelleft=False)
    figure.supxlabel("Rise of the holdout's log-loss when the input is shuffled", fontsize=9)
    return _png(figure)


def _data(data: LabelledApplications, inputs: Mapping[str, Input]) -> bytes:
    columns = 4
    rows = -(-len(inputs) // columns)
    figure = Figure(figsize=(12, 2.2 * rows))
    all_axes = list(figure.subplots(rows, columns).flat)
    for axes, (field, reference) in zip(all_axes, inputs.items(), strict=False):
        if isinstance(reference, NumericInput):
            _draw_quantity(axes, data, field)
        else:
            _draw_category(axes, data, field, [*reference.counts, None])
        axes.set_title(field)
    for axes in all_axes[len(inputs) :]:
        axes.set_axis_off()
    all_axes[0].legend(frameon=False)
    return _png(figure)


def _draw_quantity(axes: Axes, data: LabelledApplications, field: str) -> None:
    by_label = [
        [
            value
            for application, approved in zip(data.applications, data.approved, strict=True)
            if approved == label and isinstance(value := application[field], float)
        ]
        for label in (1, 0)
    ]
    axes.hist(
        by_label,
        bins=20,
        stacked=True,
        color=[_APPROVED, _REJECTED],
        label=["Approved", "Rejected"],
    )


def _draw_category(
    axes: Axes, data: LabelledApplications, field: str, names: list[str | None]
) -> None:
    bottom = np.zeros(len(names))
    for label, colour in ((1, _APPROVED), (0, _REJECTED)):
        values = [
            None if application[field] is None else str(application[field])
            for application, approved in zip(data.applications, data.approved, strict=True)
            if approved == label
        ]
        counts = np.array([values.count(name) for name in names])
        axes.bar([name or "missing" for name in names], counts, bottom=bottom, color=colour)
        bottom += counts
