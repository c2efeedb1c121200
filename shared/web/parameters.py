"""What is wrong with parameters: unknown ones, repeated ones, and values."""

from collections import Counter
from collections.abc import Collection
from typing import Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError
from starlette.requests import Request

from shared.contract.errors import MAX_FAULTS, MAX_NAME_LENGTH, Fault, InvalidInput, message_of
from shared.contract.nearest import nearest


def unknown_parameter(name: str, known: list[str]) -> str:
    """The message for a query parameter that is not among the ``known`` ones."""
    if not known:
        return "is not a parameter of this route; it takes none"
    near = nearest(name, known)
    others = f"the nearest one is {near}" if near else f"it takes {', '.join(known)}"
    return f"is not a parameter of this route; {others}"


class Parameters(BaseModel):
    """Query parameters; an unknown one is an error, since a misspelt filter would not filter."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="wrap")
    @classmethod
    def _name_the_nearest(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(data)
        except ValidationError as error:
            known = list(cls.model_fields)
            raise ValidationError.from_exception_data(
                cls.__name__,
                [
                    InitErrorDetails(
                        type=PydanticCustomError(
                            "unknown_parameter",
                            "{message}",
                            {"message": unknown_parameter(str(fault["loc"][0]), known)},
                        )
                        if fault["type"] == "extra_forbidden"
                        else PydanticCustomError(
                            "value_error", "{message}", {"message": message_of(fault)}
                        ),
                        loc=fault["loc"],
                        input=fault["input"],
                    )
                    for fault in error.errors()[:MAX_FAULTS]
                ],
            ) from None


async def refuse_parameters(request: Request) -> None:
    """Raise ``InvalidInput`` naming each query parameter, for a route that takes none."""
    if request.scope["query_string"]:
        faults = [
            Fault(field=name[:MAX_NAME_LENGTH], message=unknown_parameter(name, []), value=value)
            for name, value in request.query_params.multi_items()[:MAX_FAULTS]
        ]
        if faults:
            raise InvalidInput(faults)


async def refuse_repeated_parameters(request: Request) -> None:
    """Raise ``InvalidInput`` naming each query parameter that is given more than once.

    Only one of its values could count, and which one depends on who reads them.
    """
    refuse_repetitions(request)


def refuse_repetitions(request: Request, *, several: Collection[str] = ()) -> None:
    """As ``refuse_repeated_parameters``; those in ``several`` may be given any number of times."""
    if request.scope["query_string"]:
        given = Counter(name for name, _ in request.query_params.multi_items())
        faults = [
            Fault(field=name[:MAX_NAME_LENGTH], message="is given more than once; give it once")
            for name, times in given.items()
            if times > 1 and name not in several
        ]
        if faults:
            raise InvalidInput(faults[:MAX_FAULTS])
