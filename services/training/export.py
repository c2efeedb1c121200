"""Export a fitted pipeline as the two files of a model, and compare them before publishing."""

import io
import sys
import warnings
import zlib
from collections.abc import Mapping, Sequence
from copy import deepcopy
from math import log
from typing import Any, Final

import numpy as np
import onnx.utils
import onnxruntime
from joblib.numpy_pickle import NumpyPickler
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from skl2onnx.common.exceptions import MissingConverter, MissingShapeCalculator
from skl2onnx.operator_converters.random_forest import convert_sklearn_random_forest_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import Pipeline

from services.scoring.features import FEATURES, Matrix
from services.scoring.manifest import Parity
from services.training.models import SEED, THRESHOLD, Classifier, Probabilities, one_thread
from shared.contract.application import FIELDS_BY_USE, Field
from shared.contract.warnings import UNUSUAL_AMOUNT

INPUT_NAME: Final = "features"
OUTPUT_NAME: Final = "probabilities"
OPSET: Final = {"": 21, "ai.onnx.ml": 3}
MAX_PROBABILITY_DIFFERENCE: Final = 1e-5
RANDOM_APPLICATIONS: Final = 20_000

_MISSING_RATE = 0.15
_HIGHEST_DRAWN: Final = {"LoanAmount": UNUSUAL_AMOUNT}
"""Where it is below the highest that the service accepts, which is far beyond any usual value."""


class ParityError(Exception):
    """The exported model differs from its reference and must not be published."""


class _Pickler(NumpyPickler):  # type: ignore[misc]  # joblib publishes no types
    """Pickles equal strings as one object, whether or not they are.

    Which ones are depends on what else the process has loaded, and the file must not.
    """

    def save(self, item: object) -> None:
        if isinstance(item, np.ndarray) and item.dtype.hasobject:
            # Bypasses joblib, which would hand an array of objects to another pickler.
            super(NumpyPickler, self).save(item)
        else:
            super().save(sys.intern(item) if type(item) is str else item)


def to_joblib(pipeline: Pipeline) -> bytes:
    """Return the scikit-learn reference as a joblib file: the same fit gives the same bytes."""
    buffer = io.BytesIO()
    _Pickler(buffer).dump(pipeline)
    return zlib.compress(buffer.getvalue(), level=9)


def to_onnx_model(pipeline: Pipeline, *, name: str) -> bytes:
    """Return the served model: float32 ``features`` in, ``probabilities`` out.

    Raises ``ParityError`` if there is no such form of the classifier.
    """
    try:
        model = _exported(pipeline)
    except (MissingConverter, MissingShapeCalculator) as error:
        kind = type(pipeline[-1]).__name__
        raise ParityError(f"{name} cannot be exported: {kind} has no form in ONNX") from error
    # Without the label, which the runtime would compute on every call although it is unused.
    model = onnx.utils.Extractor(model).extract_model([INPUT_NAME], [OUTPUT_NAME])
    model.graph.name = name
    # The library lists operator sets in the order of a set of strings, which differs between
    # processes, and may list one twice.
    operator_sets = {operator_set.domain: operator_set for operator_set in model.opset_import}
    model.ClearField("opset_import")
    model.opset_import.extend(operator_sets[domain] for domain in sorted(operator_sets))
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _exported(pipeline: Pipeline) -> onnx.ModelProto:
    *steps, (_, classifier) = pipeline.steps
    if not isinstance(classifier, CalibratedClassifierCV):
        return _convert(pipeline)
    calibrated = classifier.calibrated_classifiers_[0]
    model = _convert(Pipeline([*steps, ("classifier", calibrated.estimator)]), raw_scores=True)
    _fold_in(calibrated.calibrators[0], model)
    return model


def _convert(pipeline: Pipeline, *, raw_scores: bool = False) -> onnx.ModelProto:
    with warnings.catch_warnings():
        # skl2onnx reads two attributes of every SVC that scikit-learn has deprecated. They are
        # empty here, because the calibration is a step of its own.
        warnings.filterwarnings("ignore", "Attribute `prob[AB]_` was deprecated", FutureWarning)
        model: onnx.ModelProto = convert_sklearn(
            pipeline,
            initial_types=[(INPUT_NAME, FloatTensorType([None, len(FEATURES)]))],
            options={
                id(pipeline): {"zipmap": False} | ({"raw_scores": True} if raw_scores else {})
            },
            target_opset=OPSET,
            custom_conversion_functions={HistGradientBoostingClassifier: _convert_boosted_trees},
        )
    return model


class _IntegersOnly:
    """A container of skl2onnx that writes booleans as the integers that protobuf asks for."""

    def __init__(self, container: Any) -> None:
        self._container = container

    def __getattr__(self, name: str) -> Any:
        return getattr(self._container, name)

    def add_node(self, *arguments: Any, **attributes: Any) -> None:
        # The library marks each leaf with False where an integer has to be.
        missing = attributes["nodes_missing_value_tracks_true"]
        self._container.add_node(
            *arguments,
            **{**attributes, "nodes_missing_value_tracks_true": [int(each) for each in missing]},
        )


def float32_at_most(threshold: float) -> np.float32:
    """Return the highest float32 that is not above ``threshold``.

    A float32 is at most the one exactly if it is at most the other.
    """
    nearest = np.float32(threshold)
    return np.nextafter(nearest, np.float32(-np.inf)) if nearest > threshold else nearest


def _convert_boosted_trees(scope: Any, operator: Any, container: Any) -> None:
    # The library rounds thresholds to the nearest float32, which moves a value that equals it to
    # the other side; these it leaves as they are.
    operator.raw_operator = deepcopy(operator.raw_operator)
    for [tree] in operator.raw_operator._predictors:  # noqa: SLF001 - nothing public has them
        thresholds = tree.nodes["num_threshold"]
        thresholds[:] = [float32_at_most(each) for each in thresholds]
    convert_sklearn_random_forest_classifier(scope, operator, _IntegersOnly(container))


def _fold_in(calibration: Any, model: onnx.ModelProto) -> None:
    """Fold the calibration into the support vector machine of ``model``.

    With f the decision function, 1 / (1 + exp(a f + b)) is the logistic function of -(a f + b),
    which is linear in the coefficients of f and in its intercept. As separate operators these few
    sums take the runtime as long as all support vectors together.
    """
    [machine] = [node for node in model.graph.node if node.op_type == "SVMClassifier"]
    of = {attribute.name: attribute for attribute in machine.attribute}
    a, b = calibration.a_, calibration.b_
    # The operator holds f with its sign reversed, as libsvm does.
    of["coefficients"].floats[:] = [a * coefficient for coefficient in of["coefficients"].floats]
    of["rho"].floats[:] = [a * rho - b for rho in of["rho"].floats]
    of["post_transform"].s = b"LOGISTIC"


def open_onnx(content: bytes) -> onnxruntime.InferenceSession:
    """Open a session on one thread, as the service runs it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def approvals(session: onnxruntime.InferenceSession, features: Matrix) -> Probabilities:
    """Return the exported model's probability of approval for each row."""
    probabilities: Probabilities = session.run([OUTPUT_NAME], {INPUT_NAME: features})[0]
    return probabilities[:, 1]


def check_parity(
    name: str, reference: Classifier, session: onnxruntime.InferenceSession, features: Matrix
) -> Parity:
    """Compare the two on ``features``.

    Raises ``ParityError`` if a probability differs by more than ``MAX_PROBABILITY_DIFFERENCE`` or
    a single decision differs.
    """
    with one_thread():
        expected = reference.predict_proba(features)[:, 1]
    served = approvals(session, features)
    parity = Parity(
        rows=len(features),
        # NaN would pass any limit, so it counts as the largest difference.
        max_absolute_difference=float(np.nan_to_num(np.abs(expected - served), nan=1.0).max()),
        label_flips=int(((expected >= THRESHOLD) != (served >= THRESHOLD)).sum()),
    )
    if parity.max_absolute_difference > MAX_PROBABILITY_DIFFERENCE or parity.label_flips:
        raise ParityError(
            f"{name} differs from its reference after export: by up to"
            f" {parity.max_absolute_difference:.1e} in probability (allowed:"
            f" {MAX_PROBABILITY_DIFFERENCE:.0e}) and in {parity.label_flips} decisions of"
            f" {parity.rows}; nothing was published"
        )
    return parity


def random_applications(count: int) -> Sequence[Mapping[str, object]]:
    """Draw applications from all that the service accepts: every category, any input missing.

    Quantities are uniform on a logarithmic scale; every call returns the same applications.
    """
    random = np.random.default_rng(SEED)
    columns = {
        field.name: _random_column(field, count, random)
        for field in FIELDS_BY_USE
        if field.use == "scored"
    }
    return [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]


def _random_column(field: Field, count: int, random: np.random.Generator) -> list[object]:
    drawn: list[object]
    if field.allowed:
        choices = random.integers(len(field.allowed), size=count)
        drawn = [field.allowed[choice] for choice in choices]
    else:
        highest = _HIGHEST_DRAWN.get(field.name, field.maximum) or 1
        drawn = np.exp(random.uniform(0, log(highest), size=count)).tolist()
    if field.required:
        return drawn
    missing = random.random(count) < _MISSING_RATE
    return [None if absent else value for value, absent in zip(drawn, missing, strict=True)]
