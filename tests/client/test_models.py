"""The client's types say nothing that the services' own documents do not promise."""

from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import BaseModel

from loan_predictor_client import models
from services.history.main import create_app as create_history
from services.history.settings import HistorySettings
from services.inference.main import create_app as create_inference
from services.inference.settings import InferenceSettings
from shared.contract.events import Decision

_INFERENCE: dict[str, tuple[str, type[BaseModel]]] = {
    "/predict": ("post", Decision),
    "/models/benchmark": ("post", models.Benchmark),
    "/validate-loan": ("post", models.ValidationReport),
    "/validation-rules": ("get", models.ValidationRules),
    "/models": ("get", models.ModelList),
    "/models/compare": ("get", models.ModelComparison),
    "/models/{model}": ("get", models.ModelDetail),
    "/model-info": ("get", models.ChampionInfo),
    "/health": ("get", models.Health),
    "/performance": ("get", models.Performance),
}
_HISTORY: dict[str, tuple[str, type[BaseModel]]] = {
    "/history": ("get", models.Page),
    "/history/{prediction_id}": ("get", models.Record),
    "/statistics": ("get", models.Statistics),
    "/analytics": ("get", models.Analytics),
    "/health": ("get", models.Health),
    "/performance": ("get", models.Performance),
}
_CASES = [("inference", path) for path in _INFERENCE] + [("history", path) for path in _HISTORY]

Schema = dict[str, Any]


def _app(service: str) -> FastAPI:
    if service == "inference":
        return create_inference(InferenceSettings())
    return create_history(HistorySettings(database_url="postgresql://nobody@127.0.0.1/none"))


@pytest.mark.parametrize(("service", "path"), _CASES)
def test_every_member_the_client_reads_is_promised(service: str, path: str) -> None:
    """Under the same name, required where the client needs it, of a type the client takes."""
    method, model = (_INFERENCE if service == "inference" else _HISTORY)[path]
    document = _app(service).openapi()
    content = document["paths"][path][method]["responses"]["200"]["content"]
    served = content["application/json"]["schema"]
    read = model.model_json_schema()
    _compare(path, read, read.get("$defs", {}), served, document["components"]["schemas"])


def _compare(where: str, read: Schema, read_defs: Schema, served: Schema, defs: Schema) -> None:
    read, served = _resolved(read, read_defs), _resolved(served, defs)
    for name, member in read.get("properties", {}).items():
        promised = served["properties"]
        assert name in promised, f"{where}.{name} is not promised"
        if name in read.get("required", ()):
            assert name in served.get("required", ()) or "default" in promised[name], (
                f"{where}.{name} may be absent"
            )
        _compare(f"{where}.{name}", member, read_defs, promised[name], defs)
    for key in ("items", "additionalProperties"):
        if isinstance(read.get(key), dict) and isinstance(served.get(key), dict):
            _compare(f"{where}[]", read[key], read_defs, served[key], defs)
    kinds, promised_kinds = _kinds(read, read_defs), _kinds(served, defs)
    if kinds and promised_kinds:
        assert promised_kinds <= kinds, f"{where} may be {promised_kinds}, the client reads {kinds}"
    of_objects = [option for option in _options(read, read_defs) if "properties" in option]
    if "anyOf" in read and of_objects:
        [promised_object] = [o for o in _options(served, defs) if "properties" in o]
        _compare(where, of_objects[0], read_defs, promised_object, defs)


def _resolved(schema: Schema, defs: Schema) -> Schema:
    while "$ref" in schema:
        schema = defs[schema["$ref"].rpartition("/")[2]]
    return schema


def _options(schema: Schema, defs: Schema) -> list[Schema]:
    return [_resolved(option, defs) for option in schema.get("anyOf", [schema])]


def _kinds(schema: Schema, defs: Schema) -> set[str]:
    """The JSON types a value may have; an integer is a number too."""
    kinds = {option["type"] for option in _options(schema, defs) if "type" in option}
    return kinds | ({"integer"} if "number" in kinds else set())
