"""The served models: a verified bundle, loaded and warmed once, which scores one row at a time.

A model that has a scorecard is scored by it: the same probability in less time, and exactly what
reasons are computed from.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from services.scoring import features_v1
from services.scoring.directions import check_directions
from services.scoring.features import (
    FEATURE_INPUTS,
    FEATURES,
    Columns,
    Matrix,
    feature_columns,
    feature_row,
)
from services.scoring.manifest import (
    MODEL_CARD_FILE,
    PICTURE_FOLDER,
    BundleError,
    Manifest,
    NumericInput,
    bundle_folder,
    check_files,
    read_file,
    read_manifest,
)
from services.scoring.scorecard import (
    SCORECARD_FILE,
    Linear,
    Rows,
    Scorecards,
    Table,
    probability,
    read_scorecards,
    score,
    scores,
)
from shared.contract.application import EXAMPLE
from shared.contract.errors import UnknownModel
from shared.contract.parsing import LoanApplication
from shared.contract.warnings import TrainingRanges

RowOf = Callable[[Mapping[str, Any]], tuple[float, ...]]
MatrixOf = Callable[[Columns], npt.NDArray[np.float64]]

_WARM_UP_RUNS: Final = 20
_MAX_SCORECARD_DIFFERENCE: Final = 1e-6
"""In probability: what the runtime's float32 costs."""


class FeatureVector:
    """The one row that every model of a bundle reads."""

    def __init__(self, size: int) -> None:
        self._array = np.empty((1, size), dtype=np.float32)
        self.value = ort.OrtValue.ortvalue_from_numpy(self._array)
        self._held: tuple[float, ...] = ()

    def hold(self, features: tuple[float, ...]) -> None:
        """Set the row to ``features``, without copying the same ones again for the next model."""
        if features is not self._held:
            self._array[0] = features
            self._held = features


class ServedModel:
    """One model. Its row at a time is for one thread: the runtime's arrays are reused."""

    def __init__(
        self,
        *,
        name: str,
        session: ort.InferenceSession,
        vector: FeatureVector,
        accuracy: float,
        threshold: float,
        scorecard: Table | Linear | None,
    ) -> None:
        self.name = name
        self.scorecard = scorecard
        self.accuracy = accuracy
        self.threshold = threshold
        self._session = session
        self._vector = vector
        self._output = np.empty((1, 2), dtype=np.float32)
        # Bound once, the runtime reads and writes these very arrays: 4.5 us a row instead of 6.6.
        self._binding = session.io_binding()
        self._binding.bind_ortvalue_input("features", vector.value)
        self._binding.bind_ortvalue_output(
            "probabilities", ort.OrtValue.ortvalue_from_numpy(self._output)
        )

    def approval_probability(self, features: tuple[float, ...]) -> float:
        """The probability of approval for one feature row, as ``feature_row`` makes it."""
        if self.scorecard is not None:
            return probability(score(self.scorecard, features))
        return self.exported_probability(features)

    def approval_probabilities(self, rows: Rows) -> npt.NDArray[np.float64]:
        """The probability of approval for each row: what ``approval_probability`` returns for it.

        The rows are as ``feature_row`` makes them; of a model that is not linear they may be in
        float32. Safe in any thread.
        """
        if self.scorecard is not None:
            # numpy's exponential function may differ from the row's in the last bit.
            found = map(probability, scores(self.scorecard, rows).tolist())
            return np.fromiter(found, dtype=np.float64, count=len(rows))
        return self.exported_probabilities(rows.astype(np.float32)).astype(np.float64)

    def exported_probability(self, features: tuple[float, ...]) -> float:
        """What the ONNX model answers, whether or not a scorecard stands for it."""
        self._vector.hold(features)
        self._session.run_with_iobinding(self._binding)
        return float(self._output[0, 1])

    def exported_probabilities(self, features: Matrix) -> npt.NDArray[np.float32]:
        """The ONNX model's probability of approval for each row; safe in any thread."""
        probabilities: npt.NDArray[np.float32]
        [probabilities] = self._session.run(["probabilities"], {"features": features})
        return probabilities[:, 1]


@dataclass(frozen=True)
class Bundle:
    """A verified bundle, ready to decide."""

    manifest: Manifest
    models: Mapping[str, ServedModel]
    row_of: RowOf
    """Computes the features of one application as this bundle's models were trained on them."""
    matrix_of: MatrixOf
    """Computes those of many: the same numbers."""
    training_ranges: TrainingRanges
    card: bytes | None
    """The model card, Markdown in UTF-8; None in a bundle that was published without one."""
    pictures: Mapping[str, bytes]
    """PNG files by their name, as the card links to them below ``PICTURE_FOLDER``."""

    @property
    def champion(self) -> ServedModel:
        """The model that decides when none is named."""
        return self.models[self.manifest.champion]

    def deciding_with(self, name: str, reason: str) -> Self:
        """The same bundle with its model ``name`` as the champion."""
        update = {"champion": name, "champion_reason": reason}
        if name == self.manifest.champion:
            return self
        return replace(self, manifest=self.manifest.model_copy(update=update))

    def model(self, name: str) -> ServedModel:
        """The model of this name; raises ``UnknownModel``."""
        try:
            return self.models[name]
        except KeyError:
            raise UnknownModel(name, self.models) from None


def load_bundle(root: Path, version: str | None) -> Bundle:
    """Load ``version`` from ``root``, or the one CURRENT names; every checksum is verified.

    Raises ``BundleError`` with one sentence if anything is missing, altered, written for a newer
    service, made for other features than this service computes, or against the directions that the
    manifest says it keeps.
    """
    folder = bundle_folder(root, version)
    manifest = read_manifest(folder / "manifest.json")
    if manifest.version != folder.name:
        raise BundleError(f"The bundle in {folder} is {manifest.version} by its manifest")
    check_files(folder, manifest)
    if manifest.features == features_v1.FEATURES:
        row_of: RowOf = features_v1.feature_row
        matrix_of: MatrixOf = features_v1.feature_columns
        # No scorecard is of these features, so nothing asks for their inputs.
        inputs: dict[str, tuple[str, ...]] = {}
    elif manifest.features == FEATURES:
        row_of = partial(feature_row, imputation=manifest.imputation)
        matrix_of = partial(feature_columns, imputation=manifest.imputation)
        inputs = {name: tuple(inputs) for name, inputs in FEATURE_INPUTS.items()}
    else:
        raise BundleError(
            f"The bundle {folder} was trained on other features than this service computes;"
            " train it again."
        )
    scorecards = (
        read_scorecards(read_file(folder, manifest, SCORECARD_FILE), inputs)
        if SCORECARD_FILE in manifest.files
        else Scorecards(models={}, golden_rows=())
    )
    vector = FeatureVector(len(manifest.features))
    models: dict[str, ServedModel] = {
        name: ServedModel(
            name=name,
            session=_session(folder, manifest, f"{name}.onnx"),
            vector=vector,
            accuracy=manifest.models[name].cross_validation.accuracy.mean,
            threshold=manifest.threshold,
            scorecard=scorecards.models.get(name),
        )
        for name in manifest.models
    }
    for row in scorecards.golden_rows:
        _check_scorecards(folder, models.values(), row)
    example = row_of(vars(LoanApplication.model_validate(EXAMPLE)))
    rows = np.array(scorecards.golden_rows or (example,))
    for name, model in models.items():
        if manifest.models[name].directions.held:
            check_directions(f"{name} in {folder}", model.approval_probabilities, rows)
    for model in models.values():
        for _ in range(_WARM_UP_RUNS):
            model.approval_probability(example)
    return Bundle(
        manifest=manifest,
        models=models,
        row_of=row_of,
        matrix_of=matrix_of,
        training_ranges={
            name: (reference.minimum, reference.maximum)
            for name, reference in manifest.inputs.items()
            if isinstance(reference, NumericInput)
        },
        card=(
            read_file(folder, manifest, MODEL_CARD_FILE)
            if MODEL_CARD_FILE in manifest.files
            else None
        ),
        pictures={
            name.removeprefix(f"{PICTURE_FOLDER}/"): read_file(folder, manifest, name)
            for name in manifest.files
            if name.startswith(f"{PICTURE_FOLDER}/") and name.endswith(".png")
        },
    )


def _check_scorecards(folder: Path, models: Iterable[ServedModel], row: tuple[float, ...]) -> None:
    for model in models:
        gap = abs(model.approval_probability(row) - model.exported_probability(row))
        if gap > _MAX_SCORECARD_DIFFERENCE:
            raise BundleError(
                f"The scorecard of {model.name} in {folder} differs from its ONNX model by"
                f" {gap:.1e} in probability; train the bundle again"
            )


def _session(folder: Path, manifest: Manifest, name: str) -> ort.InferenceSession:
    # From the bytes that are verified, not from a file that could be another one by then.
    content = read_file(folder, manifest, name)
    options = ort.SessionOptions()
    # A row takes microseconds: a second thread would cost more than it gains, and its spinning
    # would take the processor from the event loop.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    try:
        return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise BundleError(
            f"{folder / name} is not a model that the runtime can load: {error}"
        ) from error
