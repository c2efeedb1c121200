"""Generates the client's models from the services' OpenAPI documents: `make client-models`."""

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from fastapi import FastAPI

from services.batch.main import create_app as create_batch
from services.batch.settings import BatchSettings
from services.history.main import create_app as create_history
from services.history.settings import HistorySettings
from services.inference.main import create_app as create_inference
from services.inference.settings import InferenceSettings

_ROOT: Final = Path(__file__).parents[2]
# Not found by importing the client: it may need models that are not generated yet.
MODELS: Final = _ROOT / "client" / "src" / "loan_predictor_client" / "models.py"
_HEADER: Final = '"""What the services answer: generated from their OpenAPI documents."""'
_OPTIONS: Final = [
    *("--input-file-type", "openapi", "--openapi-scopes", "schemas"),
    *("--output-model-type", "pydantic_v2.BaseModel", "--target-python-version", "3.11"),
    *("--use-generic-base-class", "--enable-faux-immutability", "--extra-fields", "ignore"),
    *("--enum-field-as-literal", "all", "--output-datetime-class", "AwareDatetime"),
    *("--strict-nullable", "--use-annotated"),
    *("--use-schema-description", "--use-single-line-docstring"),
    *("--disable-timestamp", "--disable-future-imports", "--formatters", "builtin"),
    *("--custom-file-header", _HEADER),
]
_FROZEN: Final = "        frozen=True,\n"
# A program meets few of the models, and building all of them takes as long as importing httpx.
_DEFERRED: Final = (_FROZEN, f"{_FROZEN}        defer_build=True,\n")
_RUFF: Final = ("--config", str(_ROOT / "pyproject.toml"))
_LEFT_OUT: Final = frozenset(
    {"title", "pattern", "minLength", "maxLength", "propertyNames"}
    | {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
)
"""What a service promises of its answers and a client need not check."""
_EXTENDS: Final = {
    "Record": "Decision",
    "Day": "Summary",
    "Period": "Summary",
    "Statistics": "Summary",
}
"""Schemas that repeat another one's members, and become its subclasses."""


def apps() -> dict[str, FastAPI]:
    """The services' applications, by name; they connect to nothing until they are started."""
    return {
        "inference": create_inference(InferenceSettings()),
        "history": create_history(HistorySettings()),
        "batch": create_batch(BatchSettings()),
    }


def generate() -> str:
    """The source text of ``models.py``."""
    document = {"openapi": "3.1.0", "info": {}, "paths": {}, "components": {"schemas": _schemas()}}
    with TemporaryDirectory() as folder:
        source, target = Path(folder, "openapi.json"), Path(folder, "models.py")
        source.write_text(json.dumps(document), encoding="utf-8")
        _run("datamodel_code_generator", "--input", source, "--output", target, *_OPTIONS)
        _run("ruff", "check", "--quiet", "--fix", "--select", "I", *_RUFF, target)
        _run("ruff", "format", "--quiet", *_RUFF, target)
        return target.read_text(encoding="utf-8").replace(*_DEFERRED, 1)


def _schemas() -> dict[str, Any]:
    """Every schema of all documents; a name that several use must mean the same."""
    schemas: dict[str, Any] = {}
    for app in apps().values():
        for name, schema in app.openapi()["components"]["schemas"].items():
            if schemas.setdefault(name, schema) != schema:
                raise SystemExit(f"The services' documents differ in {name}: rename one of them.")
    for name, base in _EXTENDS.items():
        schemas[name] = _extended(schemas[name], base, schemas[base]["properties"])
    return {name: _read(schema) for name, schema in schemas.items()}


def _extended(schema: dict[str, Any], base: str, inherited: dict[str, Any]) -> dict[str, Any]:
    own = {name: member for name, member in schema["properties"].items() if name not in inherited}
    shared = {name: schema["properties"][name] for name in inherited}
    if shared != inherited:
        raise SystemExit(f"{schema['title']} no longer repeats {base}.")
    required = [name for name in schema["required"] if name in own]
    parents = [{"$ref": f"#/components/schemas/{base}"}]
    return schema | {"properties": own, "required": required, "allOf": parents}


def _read(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_read(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    members = {}
    for key, value in schema.items():
        if key == "properties":
            members[key] = {name: _read(member) for name, member in value.items()}
        elif key not in _LEFT_OUT and not (
            key == "additionalProperties" and value in (True, False)
        ):
            members[key] = _read(value)
    return members


def _run(module: str, *arguments: str | Path) -> None:
    subprocess.run([sys.executable, "-m", module, *arguments], check=True)


if __name__ == "__main__":
    MODELS.write_text(generate(), encoding="utf-8")
