"""An event as a row of ``predictions``, and the row as the decision it came from.

Both directions stand side by side because together they keep the promise of the service: what
``GET /history/{id}`` gives back is what the client was answered, member by member.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from operator import attrgetter, itemgetter
from types import UnionType
from typing import Annotated, Any, Final, TypeAlias, TypeGuard, Union, get_args, get_origin

from pydantic import BaseModel, Field, TypeAdapter, with_config
from typing_extensions import TypedDict

from services.history.reasons import pack, unpack
from services.history.tables import AnyRow
from shared.contract.application import FIELDS, Application
from shared.contract.events import Decision, ModelInfo, PredictionRecorded, Probability
from shared.contract.ids import is_uuid7, uuid7_from
from shared.contract.outcomes import OutcomeKind


class RecordedOutcome(BaseModel):
    """What became of the loan, as it was reported."""

    outcome: OutcomeKind
    observed_at: datetime
    matures_at: datetime | None = Field(description="From when on it can change no more.")
    source: str | None = Field(description="The system that reported it.")
    recorded_at: datetime


class Record(Decision):
    """A stored decision: what was answered, who asked, and what became of it."""

    client: str = Field(description="Who asked: a client's name, or anonymous.")
    request_id: str
    recorded_at: datetime = Field(description="When it was stored, in UTC.")
    outcomes: list[RecordedOutcome] = Field(
        description="What became of it: the current outcome first, then those it superseded."
    )


def _is_model(annotation: object) -> TypeGuard[type[BaseModel]]:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _dicts_of(model: type[BaseModel]) -> Any:
    """A type that takes and refuses the same JSON as ``model``, with a dict for each instance."""
    members = {
        name: Annotated[_with_dicts(field.annotation), field]
        for name, field in model.model_fields.items()
    }
    dicts: Any = TypedDict(model.__name__, members)  # type: ignore[misc]  # made at run time
    return with_config(model.model_config)(dicts)


def _with_dicts(annotation: Any) -> Any:
    if _is_model(annotation):
        return _dicts_of(annotation)
    kinds = tuple(map(_with_dicts, get_args(annotation)))
    if isinstance(annotation, UnionType):
        return Union[kinds]  # noqa: UP007 - as many as there are
    return list[kinds[0]] if get_origin(annotation) is list else annotation  # type: ignore[valid-type]  # made at run time


# Frozen instances would take three times as long to make, and live for one row only.
EVENT: Final = TypeAdapter(_dicts_of(PredictionRecorded))
"""Reads a ``PredictionRecorded`` event as dicts of its members."""


COLUMNS: Final = (
    *("id", "derived_id", "decided_at", "confidence"),
    *("probability_approved", "probability_rejected"),
    *("prediction", "model", "bundle_version", "model_accuracy"),
    *("client", "request_id", "imputed", "warnings", "reasons", "arm"),
    *(field.column for field in FIELDS),
)
"""The columns of ``predictions`` that an event fills."""

_NAMES: Final = tuple(field.name for field in FIELDS)
_members_of = itemgetter(*_NAMES)
_inputs_of = attrgetter(*(field.column for field in FIELDS))

Row: TypeAlias = tuple[Any, ...]
"""The values of ``COLUMNS``."""


def row_of(event: Mapping[str, Any]) -> Row:
    """The values of ``COLUMNS`` in what ``EVENT`` read.

    The key must sort by time, so a decision whose id does not gets one made from that and its
    time.
    """
    decision = event["decision"]
    prediction_id = decision["prediction_id"]
    decided_at = decision["timestamp"].astimezone(UTC)
    sorts_by_time = is_uuid7(prediction_id)
    probability = decision["probability"]
    model = decision["model_info"]
    return (
        prediction_id if sorts_by_time else uuid7_from(decided_at, prediction_id),
        None if sorts_by_time else prediction_id,
        decided_at,
        decision["confidence"],
        probability["approved"],
        probability["rejected"],
        decision["prediction"],
        model["name"],
        model["version"],
        model["accuracy"],
        event["client"],
        event["request_id"],
        decision["imputed"] or None,
        decision["warnings"] or None,
        pack(decision),
        model["arm"],
        *_members_of(decision["input_data"]),
    )


def record_of(row: AnyRow, outcomes: Sequence[AnyRow] = ()) -> Record:
    """The decision that ``row``, with every column of ``predictions``, was made from.

    ``outcomes`` are rows of the table of that name, the current one first.
    """
    reasons, reasons_basis = unpack(row.reasons)
    return Record(
        prediction_id=row.derived_id or row.id,
        prediction=row.prediction,
        prediction_code=1 if row.prediction == "Approved" else 0,
        confidence=row.confidence,
        probability=Probability(
            approved=row.probability_approved, rejected=row.probability_rejected
        ),
        model_info=ModelInfo(
            name=row.model,
            version=row.bundle_version,
            accuracy=row.model_accuracy,
            arm=row.arm,
        ),
        input_data=Application(**dict(zip(_NAMES, _inputs_of(row), strict=True))),
        imputed=row.imputed or [],
        warnings=row.warnings or [],
        timestamp=row.decided_at,
        reasons=reasons,
        reasons_basis=reasons_basis,
        client=row.client,
        request_id=row.request_id,
        recorded_at=row.recorded_at,
        outcomes=[
            RecordedOutcome.model_validate(outcome, from_attributes=True) for outcome in outcomes
        ],
    )
