"""The filters of the history, as the address of its page says them."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, get_args

from pydantic import TypeAdapter, ValidationError

from loan_predictor_client import Filters
from loan_predictor_client.models import Fault
from services.dashboard.formatting import model_title
from services.dashboard.markup import Field, Option
from shared.contract.events import ModelName, Prediction

_ANY: Final = Option("", "Any")

FIELDS: Final = (
    Field(
        "prediction",
        "Outcome",
        options=(_ANY, *(Option(name, name) for name in get_args(Prediction))),
    ),
    Field(
        "model",
        "Model",
        options=(_ANY, *(Option(name, model_title(name)) for name in get_args(ModelName))),
    ),
    Field("since", "Decided since (UTC)", kind="datetime-local"),
    Field("until", "Decided before (UTC)", kind="datetime-local"),
    Field("min_confidence", "Confidence from", unit="%"),
    Field("max_confidence", "Confidence up to", unit="%"),
    Field(
        "had_warnings",
        "Warnings",
        options=(_ANY, Option("true", "With warnings"), Option("false", "Without")),
    ),
    Field("loan_id", "Loan ID"),
)
_FILTERS: Final = TypeAdapter(Filters)


class Asked(NamedTuple):
    """What the address asks for: the fields as typed, and what they mean unless they are wrong."""

    values: dict[str, str]
    filters: Filters
    faults: tuple[Fault, ...]

    @property
    def parameters(self) -> dict[str, str]:
        """The address's parameters that say the same."""
        return {name: value for name, value in self.values.items() if value}


def asked_of(parameters: Mapping[str, str]) -> Asked:
    """What these parameters of an address ask for; others are not looked at."""
    values = {spec.name: parameters.get(spec.name, "").strip() for spec in FIELDS}
    try:
        filters = _FILTERS.validate_python(
            {name: _meant(name, value) for name, value in values.items() if value}
        )
    except ValidationError as error:
        faults = [
            Fault(field=str(fault["loc"][0]), message="cannot be read", value=fault["input"])
            for fault in error.errors()
        ]
        return Asked(values, Filters(), tuple(faults))
    return Asked(values, filters, ())


def _meant(name: str, value: str) -> Any:
    """The value as the service counts; what cannot be read is left to be found wrong."""
    try:
        if name in ("since", "until"):
            time = datetime.fromisoformat(value)
            return time if time.tzinfo else time.replace(tzinfo=UTC)
        if name in ("min_confidence", "max_confidence"):
            return float(value.rstrip("% ")) / 100
    except ValueError:
        return value
    return value
