"""Applications as tensors: requests and answers of the Open Inference Protocol, version 2.

Each input of an application is a tensor of its own with one element per application, of shape
[n] or [n, 1]. NaN, null and empty bytes are missing; so is a tensor that is left out. Tensors come
and go as JSON or, by the protocol's extension for binary data, as bytes behind the JSON.
Source: https://github.com/kserve/open-inference-protocol and Triton's extension_binary_data.md.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

import numpy as np
from pydantic import BaseModel, Field, ValidationError
from pydantic_core import to_json

from services.scoring.engine import Decided
from shared.contract.application import FIELDS
from shared.contract.errors import Fault, InvalidInput
from shared.web.conventions import invalid_input

Datatype = Literal["FP64", "FP32", "INT64", "INT32", "BYTES"]

_DTYPES: Final[Mapping[str, str]] = {"FP64": "<f8", "FP32": "<f4", "INT64": "<i8", "INT32": "<i4"}
_LENGTH_BYTES: Final = 4
_SIZE: Final = "binary_data_size"


class _Tensor(BaseModel):
    name: str
    datatype: Datatype
    shape: list[int]


class TensorMetadata(_Tensor):
    """What one tensor is; -1 in its shape is any number."""


class InputTensor(_Tensor):
    """One input of all applications."""

    parameters: dict[str, Any] = {}
    data: list[Any] | None = Field(default=None, description="Null if it comes as binary data.")


class RequestedOutput(BaseModel):
    """A tensor that is wanted."""

    name: str
    parameters: dict[str, Any] = {}


class OutputTensor(_Tensor):
    """What came out for all applications."""

    parameters: dict[str, Any] | None = None
    data: list[Any] | None = None


class InferenceRequest(BaseModel):
    """Applications to score."""

    id: str | None = None
    parameters: dict[str, Any] = {}
    inputs: list[InputTensor] = Field(min_length=1)
    outputs: list[RequestedOutput] | None = Field(default=None, description="All by default.")


class InferenceAnswer(BaseModel):
    """The scores of applications, in their order."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]


INPUTS: Final = [
    TensorMetadata(
        name=field.name,
        datatype="BYTES" if field.value_type is str else "FP64",
        shape=[-1],
    )
    for field in FIELDS
]
OUTPUTS: Final = [
    TensorMetadata(name="approved", datatype="FP64", shape=[-1]),
    TensorMetadata(name="prediction", datatype="BYTES", shape=[-1]),
]


def read_request(body: bytes, json_bytes: int) -> tuple[InferenceRequest, list[dict[str, Any]]]:
    """The request in a body whose JSON has ``json_bytes``, and the values of each application.

    Raises ``InvalidInput``.
    """
    try:
        request = InferenceRequest.model_validate_json(body[:json_bytes])
    except ValidationError as error:
        raise invalid_input(error.errors(include_url=False)) from None
    columns = dict(_columns(request.inputs, body[json_bytes:]))
    if len(columns) < len(request.inputs):
        raise _fault("inputs", "name a tensor more than once")
    if len({len(column) for column in columns.values()}) > 1:
        raise _fault("inputs", "are not of one length")
    rows = zip(*columns.values(), strict=True)
    return request, [dict(zip(columns, row, strict=True)) for row in rows]


def answer(
    request: InferenceRequest, decided: Sequence[Decided], *, model: str, version: str
) -> tuple[bytes, int | None]:
    """An ``InferenceAnswer``, and how many of its bytes are JSON if binary data follows.

    Raises ``InvalidInput`` if it asks for other tensors than ``OUTPUTS``.
    """
    columns: dict[str, list[Any]] = {
        "approved": [each.approved for each in decided],
        "prediction": [each.prediction for each in decided],
    }
    known = {each.name: each for each in OUTPUTS}
    outputs, binary = [], b""
    for wanted in request.outputs or [RequestedOutput(name=name) for name in known]:
        if wanted.name not in known:
            raise _fault("outputs", f"has {wanted.name!r}; there are: {', '.join(known)}")
        output: dict[str, Any] = {
            "name": wanted.name,
            "datatype": known[wanted.name].datatype,
            "shape": [len(decided)],
        }
        by_default = request.parameters.get("binary_data_output", False)
        if wanted.parameters.get("binary_data", by_default):
            piece = _packed(columns[wanted.name])
            output["parameters"] = {_SIZE: len(piece)}
            binary += piece
        else:
            output["data"] = columns[wanted.name]
        outputs.append(output)
    named = {} if request.id is None else {"id": request.id}
    head = to_json({"model_name": model, "model_version": version, **named, "outputs": outputs})
    return head + binary, len(head) if binary else None


def _columns(tensors: Iterable[InputTensor], binary: bytes) -> Iterator[tuple[str, list[Any]]]:
    for tensor in tensors:
        size = tensor.parameters.get(_SIZE)
        if size is None:
            values = _flat(tensor.data or [])
        elif isinstance(size, int) and 0 <= size <= len(binary):
            values, binary = _unpacked(tensor, binary[:size]), binary[size:]
        else:
            raise _fault(tensor.name, f"has a {_SIZE} that is not the size of its data")
        if tensor.shape not in ([len(values)], [len(values), 1]):
            fitting = f"[{len(values)}] or [{len(values)}, 1]"
            raise _fault(
                tensor.name,
                f"must have the shape {fitting} for the values it holds, not {tensor.shape}",
            )
        # NaN is the one value that is not equal to itself.
        yield tensor.name, [value if value == value else None for value in values]
    if binary:
        raise _fault("body", "has more binary data than its tensors")


def _flat(data: list[Any]) -> list[Any]:
    return [value for each in data for value in (each if isinstance(each, list) else [each])]


def _packed(values: Sequence[float] | Sequence[str]) -> bytes:
    return b"".join(
        len(value).to_bytes(_LENGTH_BYTES, "little") + value.encode()
        if isinstance(value, str)
        else np.float64(value).tobytes()
        for value in values
    )


def _unpacked(tensor: InputTensor, data: bytes) -> list[Any]:
    try:
        if tensor.datatype != "BYTES":
            return list(np.frombuffer(data, dtype=_DTYPES[tensor.datatype]).tolist())
        values, start = [], 0
        while start < len(data):
            begin = start + _LENGTH_BYTES
            start = begin + int.from_bytes(data[start:begin], "little")
            values.append(data[begin:start].decode())
    except ValueError as error:
        raise _fault(tensor.name, f"is not {tensor.datatype}: {error}") from None
    return values


def _fault(field: str, message: str) -> InvalidInput:
    return InvalidInput([Fault(field=field, message=message)])
