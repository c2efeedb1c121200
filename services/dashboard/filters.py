"""The filters of the history, as parameters of the page's address."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, get_args

from pydantic import TypeAdapter, ValidationError

from loan_predictor_client import Filters, Prediction
from loan_predictor_client.models import Fault
from services.dashboard.forms import FormField, Option
from services.dashboard.outcomes import OUTCOME_OPTIONS
from shared.pictures.formats import field_title, model_title

_ANY: Final = Option("", "Any")
_MODEL: Final = "model"
_FIELDS: Final = (
    FormField(
        "prediction",
        "Decision",
        options=(_ANY, *(Option(name, name) for name in get_args(Prediction))),
    ),
    FormField(_MODEL, "Model"),
    FormField("since", "Decided since (UTC)", type="datetime-local"),
    FormField("until", "Decided before (UTC)", type="datetime-local"),
    FormField("min_confidence", "Confidence from", unit="%", is_number=True),
    FormField("max_confidence", "Confidence up to", unit="%", is_number=True),
    FormField(
        "had_warnings",
        "Warnings",
        options=(_ANY, Option("true", "With warnings"), Option("false", "Without")),
    ),
    FormField("loan_id", field_title("Loan_ID")),
    FormField("outcome", "What became of it", options=(_ANY, *OUTCOME_OPTIONS)),
    FormField(
        "has_outcome",
        "Known what became of it",
        options=(_ANY, Option("true", "Known"), Option("false", "Not known")),
    ),
)
_FILTERS: Final = TypeAdapter(Filters)


class HistoryQuery(NamedTuple):
    """What an address selects: the fields as typed, and the filters they mean or their faults."""

    values: dict[str, str]
    filters: Filters
    faults: tuple[Fault, ...]

    @property
    def parameters(self) -> dict[str, str]:
        """The parameters of an address that selects the same."""
        return {name: value for name, value in self.values.items() if value}


def filter_fields(query: HistoryQuery, models: Iterable[str]) -> list[FormField]:
    """The fields of the filters; ``models`` are those that have decided anything."""
    chosen = query.values[_MODEL]
    names = sorted({*models, chosen} - {""})
    options = (_ANY, *(Option(name, model_title(name)) for name in names))
    return [spec._replace(options=options) if spec.name == _MODEL else spec for spec in _FIELDS]


def query_of(parameters: Mapping[str, str]) -> HistoryQuery:
    """What these parameters of an address select; all others are ignored."""
    values = {spec.name: parameters.get(spec.name, "").strip() for spec in _FIELDS}
    try:
        filters = _FILTERS.validate_python(
            {name: _meant(name, value) for name, value in values.items() if value}
        )
    except ValidationError as error:
        return HistoryQuery(values, Filters(), unreadable(error))
    return HistoryQuery(values, filters, ())


def unreadable(error: ValidationError) -> tuple[Fault, ...]:
    """The faults of fields that do not hold what they are for."""
    return tuple(
        Fault(field=str(fault["loc"][0]), message="cannot be read", value=fault["input"])
        for fault in error.errors()
    )


def _meant(name: str, value: str) -> Any:
    """The value in the service's units; one that cannot be read is left for validation to find."""
    try:
        if name in ("since", "until"):
            time = datetime.fromisoformat(value)
            return time if time.tzinfo else time.replace(tzinfo=UTC)
        if name in ("min_confidence", "max_confidence"):
            return float(value.rstrip("% ")) / 100
    except ValueError:
        return value
    return value
