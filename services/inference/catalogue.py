"""The documents about the served models: made once from the bundle, each with an ETag.

Every number is the manifest's own, intervals and baselines included; nothing is computed here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from math import log
from typing import Final

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from services.scoring.characteristics import characteristics
from services.scoring.manifest import (
    Baseline,
    BaselineName,
    CrossValidation,
    Data,
    Evaluation,
    Holdout,
    Interval,
    Timing,
    TrainedModel,
)
from services.scoring.registry import Bundle
from services.scoring.scorecard import Linear, Table
from shared.contract import application
from shared.contract.application import FIELDS, FIELDS_BY_USE, Kind
from shared.contract.warnings import WARNING_RULES

MARKDOWN: Final = "text/markdown"
PNG: Final = "image/png"


class _Document(BaseModel):
    model_config = ConfigDict(protected_namespaces=())


class ModelSummary(_Document):
    """One served model in brief."""

    name: str
    title: str
    champion: bool
    accuracy: Interval
    auc: Interval
    log_loss: Interval


class ModelList(_Document):
    """The served models."""

    version: str
    champion: str
    champion_reason: str
    models: list[ModelSummary]


class ModelDetail(_Document):
    """Everything measured of one model."""

    name: str
    version: str
    champion: bool
    details: TrainedModel
    timing: Timing


class ComparedModel(_Document):
    """One model, in comparison with the others."""

    title: str
    cross_validation: CrossValidation
    holdout: Holdout
    log_loss_above_champion: Interval | None
    verdict: list[str]
    scores: tuple[int, ...] | None = Field(
        description="Training rows by the probability of approval that a model gave them which was"
        " trained without them, in 20 equal bins from 0 to 1. Null in an earlier bundle."
    )


class ModelComparison(_Document):
    """The models compared with each other and with rules that need no model."""

    version: str
    champion: str
    champion_reason: str
    data: Data
    evaluation: Evaluation
    models: dict[str, ComparedModel]
    baselines: dict[BaselineName, Baseline]


class ChampionInfo(_Document):
    """The deciding model, and the bundle it came in."""

    name: str
    version: str
    champion_reason: str
    threshold: float
    features: tuple[str, ...]
    data: Data
    libraries: dict[str, str]
    details: TrainedModel


class Attribute(_Document):
    """One row of a table of points: a value of a category, or a range of a quantity."""

    value: str | None = None
    above: float | None = None
    up_to: float | None = None
    points: float


class Characteristic(_Document):
    """What an applicant gets points for."""

    name: str
    inputs: tuple[str, ...]
    unit: str | None
    attributes: list[Attribute]
    coefficient: float | None = Field(
        default=None, description="Points per unit, where a quantity has no attributes."
    )


class ScorecardReference(_Document):
    """Training rows that an applicant is compared with."""

    id: str = Field(description="Its name and a checksum of its rows.")
    description: str
    rows: int
    mean_score: float


class ModelScorecard(_Document):
    """A model as a scorecard; points and scores are log-odds of approval."""

    model: str
    version: str
    base: float = Field(description="The score before any points.")
    passing_score: float = Field(description="An application is approved from this score on.")
    characteristics: list[Characteristic]
    references: dict[str, ScorecardReference]


class FieldRule(_Document):
    """What one input field must be."""

    name: str
    kind: Kind
    description: str
    required: bool = False
    scored: bool = True
    unit: str | None = None
    exclusive_minimum: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    allowed: tuple[str | int, ...] | None = None

    @classmethod
    def of(cls, field: application.Field) -> "FieldRule":
        """The rule that ``field`` is defined by."""
        return cls(
            name=field.name,
            kind=field.kind,
            description=field.description,
            required=field.required,
            scored=field.use == "scored",
            unit=field.unit,
            exclusive_minimum=field.exclusive_minimum,
            minimum=field.minimum,
            maximum=field.maximum,
            allowed=field.allowed or None,
        )


class WarningRule(_Document):
    """A condition that an answer warns of."""

    code: str
    message: str


class ValidationRules(_Document):
    """The rules for an application and the reasons for warnings, as data."""

    fields: tuple[FieldRule, ...]
    warnings: list[WarningRule]
    training_ranges: dict[str, tuple[float, float]] = Field(
        description="Smallest and largest value of each numeric input that the models were"
        " trained on: beyond them an answer warns."
    )
    unknown_fields: str
    missing: str


@dataclass(frozen=True)
class Document:
    """An answer whose bytes are made once, with their strong ETag."""

    body: bytes
    etag: str
    media_type: str

    @classmethod
    def of(cls, content: BaseModel) -> "Document":
        """The JSON document of ``content``."""
        return cls.holding(content.model_dump_json().encode(), media_type="application/json")

    @classmethod
    def holding(cls, body: bytes, *, media_type: str) -> "Document":
        """The document that consists of ``body``."""
        etag = f'"{sha256(body).hexdigest()[:32]}"'
        return cls(body=body, etag=etag, media_type=media_type)

    def respond(self, request: Request) -> Response:
        """The document, or 304 if the client's copy is current (RFC 9110, section 13.1.2).

        A roll-out may change it at any time, so a copy is to be revalidated before each use.
        """
        headers = {"etag": self.etag, "cache-control": "no-cache"}
        held = request.headers.get("if-none-match", "")
        tags = {tag.strip().removeprefix("W/") for tag in held.split(",")}
        if self.etag in tags or "*" in tags:
            return Response(status_code=304, headers=headers)
        return Response(self.body, headers=headers, media_type=self.media_type)


@dataclass(frozen=True)
class Catalogue:
    """All documents of the service."""

    models: Document
    comparison: Document
    champion: Document
    details: Mapping[str, Document]
    scorecards: Mapping[str, Document]
    """By the name of each model that has one."""
    rules: Document


def build_catalogue(bundle: Bundle) -> Catalogue:
    """Every document about ``bundle``."""
    manifest = bundle.manifest
    champion = manifest.models[manifest.champion]
    return Catalogue(
        models=Document.of(
            ModelList(
                version=manifest.version,
                champion=manifest.champion,
                champion_reason=manifest.champion_reason,
                models=[
                    ModelSummary(
                        name=name,
                        title=model.title,
                        champion=name == manifest.champion,
                        accuracy=model.cross_validation.accuracy,
                        auc=model.cross_validation.auc,
                        log_loss=model.cross_validation.log_loss,
                    )
                    for name, model in manifest.models.items()
                ],
            )
        ),
        comparison=Document.of(
            ModelComparison(
                version=manifest.version,
                champion=manifest.champion,
                champion_reason=manifest.champion_reason,
                data=manifest.data,
                evaluation=manifest.evaluation,
                models={
                    name: ComparedModel(
                        title=model.title,
                        cross_validation=model.cross_validation,
                        holdout=model.holdout,
                        log_loss_above_champion=model.log_loss_above_champion,
                        verdict=model.verdict,
                        scores=(manifest.scores or {}).get(name),
                    )
                    for name, model in manifest.models.items()
                },
                baselines=manifest.baselines,
            )
        ),
        champion=Document.of(
            ChampionInfo(
                name=manifest.champion,
                version=manifest.version,
                champion_reason=manifest.champion_reason,
                threshold=manifest.threshold,
                features=manifest.features,
                data=manifest.data,
                libraries=manifest.libraries,
                details=champion,
            )
        ),
        details={
            name: Document.of(
                ModelDetail(
                    name=name,
                    version=manifest.version,
                    champion=name == manifest.champion,
                    details=model,
                    timing=manifest.timings[name],
                )
            )
            for name, model in manifest.models.items()
        },
        scorecards={
            name: Document.of(_scorecard(model.scorecard, name, bundle))
            for name, model in bundle.models.items()
            if model.scorecard is not None
        },
        rules=Document.of(
            ValidationRules(
                fields=tuple(map(FieldRule.of, FIELDS_BY_USE)),
                warnings=[
                    WarningRule(code=code, message=message)
                    for code, message in WARNING_RULES.items()
                ],
                training_ranges=dict(bundle.training_ranges),
                unknown_fields="An unknown field is an error that names the known one it is near.",
                missing="null, an empty string or an absent field is missing; only"
                f" {', '.join(field.name for field in FIELDS if field.required)} is required.",
            )
        ),
    )


def _scorecard(scorecard: Table | Linear, name: str, bundle: Bundle) -> ModelScorecard:
    manifest = bundle.manifest
    return ModelScorecard(
        model=name,
        version=manifest.version,
        base=scorecard.base,
        passing_score=log(manifest.threshold / (1 - manifest.threshold)),
        characteristics=[
            Characteristic(**each) for each in characteristics(scorecard, bundle.row_of)
        ],
        references={
            reference_id: ScorecardReference(**reference.model_dump(exclude={"points"}))
            for reference_id, reference in scorecard.references.items()
        },
    )
