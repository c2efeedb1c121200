"""The application in the body of a request: read leniently, or refused with all its faults."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Final, Literal

import pydantic
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from shared.contract.application import EXAMPLE, FIELDS, MAX_LOAN_ID_LENGTH, Field
from shared.contract.errors import MAX_FAULTS, MAX_NAME_LENGTH, Fault, InvalidInput
from shared.contract.lenient import Lenient, category, number, text, visible
from shared.contract.nearest import nearest

LoanId = Annotated[str, visible(MAX_LOAN_ID_LENGTH)]
"""What one service takes in and records, the other can be asked for."""

_literal: Any = Literal


def _member(field: Field) -> tuple[Any, Any]:
    """How ``field`` stands in ``LoanApplication``: its type with its reader, and its default."""
    accepted, reader = _reading(field)
    if field.required:
        return Annotated[accepted, reader, field], ...
    return Annotated[accepted | None, reader, field], None


def _reading(field: Field) -> tuple[Any, Lenient]:
    optional = not field.required
    match field:
        case Field(kind="category"):
            return _literal[field.allowed], category(field.allowed, optional=optional)
        case Field(kind="text", maximum=int(longest)):
            return Annotated[str, visible(longest)], text(optional=optional)
        case Field(minimum=int(low), maximum=int(high)):
            bounds = pydantic.Field(ge=low, le=high)
        case Field(exclusive_minimum=int(low), maximum=int(high)):
            bounds = pydantic.Field(gt=low, le=high)
        case _:
            raise TypeError(f"{field.name} has no bounds")
    return Annotated[field.value_type, bounds], number(
        low,
        high,
        above=field.minimum is None,
        whole=field.kind == "integer",
        optional=optional,
    )


_members: dict[str, Any] = {field.name: _member(field) for field in FIELDS}
_INCOMES: Final = ("ApplicantIncome", "CoapplicantIncome")
_NO_INCOME: Final[dict[str, Any]] = {
    "anyOf": [{"enum": [0, None]}, {"type": "string", "pattern": "^[ 0.]*$"}]
}

LoanApplication: Final = pydantic.create_model(
    "LoanApplication",
    __config__=ConfigDict(
        extra="forbid",
        allow_inf_nan=False,
        json_schema_extra={
            "examples": [{**EXAMPLE}],
            "not": {"properties": dict.fromkeys(_INCOMES, _NO_INCOME)},
        },
    ),
    __doc__="""An application for a loan, under the data set's own names; null is missing.

    Lenient in form (numeric strings, any letter case, booleans for Yes and No, integers for
    Dependents), strict in meaning (NaN, infinities, unknown fields and fields given twice are
    errors). ``vars()`` of an instance has every field, None where missing.
    """,
    **_members,
)
_Incomes: Final = pydantic.create_model(
    "_Incomes",
    __config__=ConfigDict(allow_inf_nan=False),
    **{name: member for name, member in _members.items() if name in _INCOMES},
)
"""What is read of a faulty application, to name a missing income beside its other faults."""

_NAMES: Final = tuple(field.name for field in FIELDS)
_application = TypeAdapter(LoanApplication).validator
_incomes = TypeAdapter(_Incomes).validator
_read_application = _application.validate_json
_inputs: Final = {
    name: TypeAdapter(kind, config=ConfigDict(allow_inf_nan=False)).validator
    for name, (kind, _) in _members.items()
}


def parse_application(body: bytes) -> dict[str, Any]:
    """The application in a JSON body: every field by its name, None where missing.

    Raises ``InvalidInput`` with all faults of the body at once.
    """
    try:
        application: BaseModel = _read_application(body)
    except ValidationError as error:
        faults = _faults(error, _incomes.validate_json, body, repeated=_repeated(body))
        raise InvalidInput(faults) from None
    # Each member takes one colon, so no more of them than members means that none came twice.
    if body.count(b":") != len(application.model_fields_set):
        repeated = _repeated(body)
        if repeated:
            raise InvalidInput(repeated)
    return _with_income(vars(application))


def read_application(values: Mapping[str, object]) -> dict[str, Any]:
    """The application in ``values``, which are read like the members of a JSON body.

    Raises ``InvalidInput`` with all faults at once.
    """
    try:
        application: BaseModel = _application.validate_python(values)
    except ValidationError as error:
        raise InvalidInput(_faults(error, _incomes.validate_python, values)) from None
    return _with_income(vars(application))


def read_input(name: str, value: object) -> Any:
    """One input's value, as ``read_application`` reads it; raises ``ValueError`` if it is faulty.

    None stands for a value that is not given.
    """
    return _inputs[name].validate_python(value)


def has_income(application: Mapping[str, Any]) -> bool:
    """Whether one of the incomes is above 0, as one has to be."""
    return bool(application["ApplicantIncome"] or application["CoapplicantIncome"])


def _with_income(application: dict[str, Any]) -> dict[str, Any]:
    if not has_income(application):
        raise InvalidInput([Fault(field=_INCOMES[0], message=_NEEDS_INCOME, value=0)])
    return application


def _repeated(body: bytes) -> list[Fault]:
    """A fault for each known field that is given more than once; none if it is no JSON object."""
    if not body.lstrip().startswith(b"{"):
        return []
    try:
        members = json.loads(body, object_pairs_hook=list)
    except (ValueError, RecursionError):
        return []
    times = Counter(name for name, _ in members)
    return [Fault(field=name, message=_REPEATED) for name in _NAMES if times[name] > 1]


def _faults(
    error: ValidationError,
    read: Callable[[Any], BaseModel],
    given: object,
    *,
    repeated: Sequence[Fault] = (),
) -> list[Fault]:
    """Every fault of what was given, unless there are so many that no person would read them."""
    faults = [*repeated]
    try:
        _with_income(vars(read(given)))
    except InvalidInput as refused:
        faults += refused.faults
    except ValidationError:
        pass  # an income is among the faults anyway
    details = error.errors(include_url=False)
    count = len(faults) + len(details)
    unknown = [_name(fault) for fault in details if fault["type"] == "extra_forbidden"]
    meant = {name: nearest(name, _NAMES) for name in unknown[:_MAX_SUGGESTIONS]}
    faults += [_fault(fault, meant) for fault in details[: MAX_FAULTS - len(faults)]]
    if count > MAX_FAULTS:
        faults.append(Fault(field="body", message=f"has {count} faults; the rest is left out"))
    return faults


_MAX_SUGGESTIONS: Final = 10
"""Most unknown fields that are compared with the known ones, which takes time."""
_NEEDS_INCOME: Final = "must be greater than 0 where CoapplicantIncome is 0 or missing"
_REPEATED: Final = "is given more than once, and only one of them can be meant"
_MESSAGES: Final = {
    "missing": "is required",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "int_type": "must be a number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "is too large",
    "int_from_float": "must be a whole number",
    "finite_number": "must be a finite number",
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than_equal": "must be at most {le:g}",
    "string_type": "must be given as text, in quotes",
    "string_too_short": "must be visible characters, at least one",
    "string_too_long": "must be at most {max_length} characters",
    "string_pattern_mismatch": "must be visible characters, without spaces",
    "json_invalid": "is not valid JSON: {error}",
    "model_type": "must be a JSON object",
    "model_attributes_type": "must be a JSON object",
}


def _name(details: ErrorDetails) -> str:
    return ".".join(str(part) for part in details["loc"])[:MAX_NAME_LENGTH] or "body"


def _fault(details: ErrorDetails, meant: Mapping[str, str | None]) -> Fault:
    field = _name(details)
    kind = details["type"]
    value = None if kind in ("missing", "json_invalid") else details["input"]
    if kind == "extra_forbidden":
        near = meant.get(field)
        message = "is not a known field" + (f"; the nearest one is {near}" if near else "")
    elif kind in _MESSAGES:
        message = _MESSAGES[kind].format(**details.get("ctx", {}))
    else:
        message = details["msg"]
    return Fault(field=field, message=message, value=value)
