"""The description of a bundle of models: the schema of its ``manifest.json``.

Training writes it, the inference service reads it. Bundles lie side by side under one root, each
in a folder named after its version; the file ``CURRENT`` in the root holds the version to serve.
A bundle declares its own models, however many. Beside the manifest it holds for each of them
``<model>.onnx`` (served) and ``<model>.joblib`` (the scikit-learn reference it was exported from),
and for all of them a model card, pictures and ``scorecard.json`` (see ``scorecard.py``).

A served model takes one float32 input ``features`` of shape (rows, features) and returns ``label``
and ``probabilities`` (float32, shape (rows, 2)); column 1 is the probability of approval, and an
application is approved when that is at least ``threshold``.
"""

import hashlib
import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import from_json, to_json

from shared.contract.events import ModelName
from shared.contract.rollout import VERSION_PATTERN, BundleVersion

SCHEMA_VERSION: Final = 4
"""Raised when a reader of the former version could no longer serve the bundle correctly."""

BUNDLE_ROOT: Final = Path(__file__).parent / "bundle"
"""The bundles that ship with the product."""

MANIFEST_FILE = "manifest.json"
CURRENT_FILE = "CURRENT"
MODEL_CARD_FILE = "MODEL_CARD.md"
SIGNATURE_FILE = "manifest.sig"
"""The Ed25519 signature of the manifest's bytes, 64 bytes; see ``signature.py``."""
PICTURE_FOLDER = "img"
_NOT_HASHED: Final = frozenset({"version", "timings", "gate"})
"""Members of the manifest that its version does not depend on; nor does it on the card."""

FileName = Annotated[str, Field(pattern=r"^(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*$")]
"""A file in the bundle's folder, or in a folder of it: never outside."""
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Share = Annotated[float, Field(ge=0, le=1)]
SCORE_BINS: Final = 20
"""Equal bins from 0 to 1; each holds its lower edge, the last its upper edge too."""
ScoreCounts = Annotated[tuple[int, ...], Field(min_length=SCORE_BINS, max_length=SCORE_BINS)]
BaselineName = Literal["majority_class", "credit_history_rule"]

RESERVED_NAMES: Final = frozenset({"benchmark", "card", "compare", "many", "pictures"})
"""Names that no model may have: an address that ends in one means something else."""


class BundleError(Exception):
    """The bundle cannot be used; the message is the one sentence that says why."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Data(_Frozen):
    """The labelled applications the models were trained on."""

    sha256: Sha256
    rows: int
    recorded: int = 0
    """Of ``rows``: recorded applications whose label is the outcome of the loan."""
    approved_share: Share
    approved_share_by_area: dict[str, Share] | None = None
    """By Property_Area; None in a bundle of an earlier schema."""


class Interval(_Frozen):
    """A mean over cross-validation folds with its Nadeau-Bengio 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def contains_zero(self) -> bool:
        """For a difference: true when the folds cannot tell the two sides apart."""
        return self.low <= 0 <= self.high


class CrossValidation(_Frozen):
    """Metrics over the folds of repeated stratified cross-validation."""

    accuracy: Interval
    balanced_accuracy: Interval
    auc: Interval
    brier: Interval
    log_loss: Interval


class ConfusionMatrix(_Frozen):
    """Rows of the holdout by what happened and what was predicted; positive is approved."""

    true_positive: int
    false_positive: int
    false_negative: int
    true_negative: int


class Holdout(_Frozen):
    """Metrics on one stratified 20 % split: a single draw, shown because it is so often quoted."""

    rows: int
    accuracy: Share
    precision: Share
    recall: Share
    f1: Share
    auc: Share
    confusion_matrix: ConfusionMatrix


class Fairness(_Frozen):
    """How one model treats the groups of one monitored attribute, out of fold.

    Applications without the attribute are left out.
    """

    groups: dict[str, int]
    """Rows per group."""
    selection_rates: dict[str, Share]
    selection_rate_ratio: Share | None
    """The lowest group's approval rate over the highest's; the four-fifths rule asks for 0.8.
    None, like the gap, where there are no two groups to compare."""
    true_positive_rates: dict[str, Share]
    true_positive_rate_gap: Share | None


class Location(_Frozen):
    """What the location of the property (Property_Area) changes for one model."""

    rates: Fairness
    """By area, out of fold."""
    scores: dict[str, float]
    """By area: the mean score of all training rows, in log-odds, if every property were there."""
    refusals: int | None
    """Training rows that the model refuses; None, like ``among_reasons``, without a scorecard."""
    among_reasons: int | None
    """Refusals that have the location among their reasons."""
    log_loss: Interval
    """Without the location minus with it, paired fold by fold; so is ``auc``."""
    auc: Interval


class Baseline(_Frozen):
    """A rule that needs no model, measured on the same folds and the same split."""

    description: str
    cross_validation: CrossValidation
    holdout: Holdout


class Parity(_Frozen):
    """What the export gate found: the served ONNX model against its scikit-learn reference."""

    rows: int
    max_absolute_difference: float
    label_flips: int


class RuleComparison(_Frozen):
    """Model minus Credit_History rule, paired fold by fold; a lower log-loss is better."""

    accuracy: Interval
    log_loss: Interval


class Directions(_Frozen):
    """Whether a better value of an input ever lowers approval, and what keeping it so costs."""

    held: bool
    """Whether the model is held to the directions; if not, its violations are only counted."""
    rows: int
    violations: dict[str, int]
    """By directed input: rows in which a better value lowers the probability of approval."""
    log_loss: Interval | None
    """With directions minus without, paired fold by fold; None, like ``auc``, if not held."""
    auc: Interval | None


class TrainedModel(_Frozen):
    """One model and everything that was measured of it."""

    title: str
    parameters: dict[str, str]
    fitted_on: int | None = None
    """So many rows, of the data or of a sample. None in a bundle of an earlier schema."""
    cross_validation: CrossValidation
    holdout: Holdout
    fairness: dict[str, Fairness]
    """By monitored attribute."""
    importances: dict[str, float]
    """By scored input: how much the holdout's log-loss rises when the input is shuffled."""
    parity: Parity
    directions: Directions
    location: Location | None = None
    """None in a bundle of an earlier schema."""
    log_loss_above_champion: Interval | None
    """Paired fold by fold; None for the champion itself."""
    against_rule: RuleComparison
    verdict: list[str]
    """What follows from the comparisons, in sentences."""


class NumericInput(_Frozen):
    """Training range and reference distribution of a quantity."""

    kind: Literal["numeric"] = "numeric"
    minimum: float
    maximum: float
    bin_edges: list[float]
    """Ascending; bin i covers [edge i, edge i+1), the last bin its upper edge too."""
    counts: list[int]
    missing: int


class CategoricalInput(_Frozen):
    """Reference distribution of a category."""

    kind: Literal["categorical"] = "categorical"
    counts: dict[str, int]
    missing: int


Input = Annotated[NumericInput | CategoricalInput, Field(discriminator="kind")]


class Evaluation(_Frozen):
    """How the metrics were measured."""

    folds: int
    repeats: int
    variant_repeats: int | None = None
    """The first repeats in which models without directions or location were fitted, too. None in a
    bundle of an earlier schema, where it was all of them."""
    holdout_share: Share


class Timing(_Frozen):
    """Wall-clock times of one model, the only numbers that differ between runs."""

    training_time_s: float
    """Fitting the holdout's training part, on one thread."""
    prediction_time_per_row_ms: float
    """Median over the training rows, each scored alone by the ONNX runtime on one thread."""


class Manifest(_Frozen):
    """The whole bundle; ``version`` is derived from all but the card, timings and gate."""

    schema_version: Literal[1, 2, 3, 4] = SCHEMA_VERSION
    version: BundleVersion
    data: Data
    seed: int
    threshold: Share
    evaluation: Evaluation
    libraries: dict[str, str]
    features: tuple[str, ...]
    imputation: dict[str, float | str]
    """What a missing value of each optional input counts as."""
    typical: dict[str, float | str] | None = None
    """By scored input: the median of a number, the commonest value of a category. None in a bundle
    of an earlier schema."""
    champion: ModelName
    champion_reason: str
    models: dict[ModelName, TrainedModel]
    baselines: dict[BaselineName, Baseline]
    inputs: dict[str, Input]
    """By input field, monitored ones included."""
    scores: dict[ModelName, ScoreCounts] | None = None
    """By model: training rows by their probability of approval, which a model that was trained
    without the row gave it, each row once. None in a bundle of an earlier schema."""
    principal_share: Share = 0.0
    """A contribution of less than this share of the main reason's is not a principal reason; 0 in a
    bundle of an earlier schema."""
    files: dict[FileName, Sha256]
    """By path inside the bundle: every file but the manifest itself."""
    timings: dict[ModelName, Timing]
    gate: dict[str, Any] | None = None
    """What the gate of its retraining found, as JSON; None without one."""

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if self.champion not in self.models:
            raise ValueError(f"the champion {self.champion} is not one of the models")
        if reserved := RESERVED_NAMES & set(self.models):
            raise ValueError(f"no model can be named {', '.join(sorted(reserved))}")
        if set(self.timings) != set(self.models):
            raise ValueError("the models and the timings name different models")
        unlisted = [
            file
            for name in self.models
            for file in (f"{name}.onnx", f"{name}.joblib")
            if file not in self.files
        ]
        if unlisted:
            raise ValueError(f"no checksum for {', '.join(unlisted)}")
        return self


def read_current_version(root: Path) -> str:
    """The version that ``CURRENT`` under ``root`` names; raises ``BundleError``."""
    try:
        version = (root / CURRENT_FILE).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        message = f"{root / CURRENT_FILE} cannot be read, so no bundle is published there: {error}"
        raise BundleError(message) from error
    return check_version(version)


def bundle_folder(root: Path, version: str | None) -> Path:
    """The folder of ``version``, or of the one ``CURRENT`` names; raises ``BundleError``."""
    return root / (check_version(version) if version else read_current_version(root))


def check_version(version: str) -> str:
    """``version`` unchanged; raises ``BundleError`` if it is not a version, such as a path."""
    if not re.fullmatch(VERSION_PATTERN, version):
        raise BundleError(f"{version!r} is no version of a bundle, such as b-0a1b2c3d")
    return version


def content_version(manifest: bytes) -> str:
    """The version that a bundle with this manifest, of any schema, has by its content."""
    content = from_json(manifest)
    hashed = {name: each for name, each in content.items() if name not in _NOT_HASHED}
    hashed["files"] = {
        name: digest for name, digest in content["files"].items() if name != MODEL_CARD_FILE
    }
    return f"b-{hashlib.sha256(to_json(hashed)).hexdigest()[:8]}"


def read_manifest(path: Path) -> Manifest:
    """The manifest in the file ``path``, fully checked against the schema.

    Raises ``BundleError`` with one sentence when it is missing, is no valid manifest, or was
    written for a newer schema than this reader knows.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
    return parse_manifest(content, path)


def parse_manifest(text: bytes, path: Path | str) -> Manifest:
    """As ``read_manifest``, of the content of a file; errors name ``path``."""
    try:
        content = from_json(text)
    except ValueError as error:
        raise BundleError(f"{path} is no valid JSON: {error}") from error
    schema_version = content.get("schema_version") if isinstance(content, dict) else None
    if isinstance(schema_version, int) and schema_version > SCHEMA_VERSION:
        raise BundleError(
            f"{path} has schema version {schema_version}, newer than the {SCHEMA_VERSION} that"
            " this service reads; update the service or serve an older bundle"
        )
    try:
        return Manifest.model_validate(_upgraded(content) if schema_version == 1 else content)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in fault["loc"]) or "as a whole"
        raise BundleError(
            f"{path} is no valid manifest: {fault['msg']} ({where};"
            f" {error.error_count()} fault(s) in all)"
        ) from error


def _upgraded(manifest: dict[str, Any]) -> dict[str, Any]:
    # Models of version 1 fill in missing inputs themselves, and were held to no directions.
    not_held = Directions(held=False, rows=0, violations={}, log_loss=None, auc=None).model_dump()
    models = manifest.get("models")
    return {
        **manifest,
        "imputation": {},
        "models": {name: {**model, "directions": not_held} for name, model in models.items()}
        if isinstance(models, dict)
        else models,
    }


def check_files(folder: Path, manifest: Manifest) -> None:
    """Return only if every file of the bundle in ``folder`` has the checksum of the manifest.

    Raises ``BundleError`` naming all files that are missing or altered.
    """
    faults = []
    for name in manifest.files:
        try:
            read_file(folder, manifest, name)
        except BundleError as error:
            faults.append(str(error))
    if faults:
        raise BundleError(f"The bundle {folder} is damaged: {'; '.join(faults)}")


def read_file(folder: Path, manifest: Manifest, name: str) -> bytes:
    """The file ``name`` of the bundle in ``folder``, whose bytes have the manifest's checksum.

    Raises ``BundleError`` if it is missing or altered, ``KeyError`` if the manifest lacks it.
    """
    expected = manifest.files[name]
    try:
        content = (folder / name).read_bytes()
    except OSError as error:
        raise BundleError(f"{name} cannot be read ({error.strerror})") from error
    if hashlib.sha256(content).hexdigest() != expected:
        raise BundleError(f"{name} is altered (its checksum differs)")
    return content
