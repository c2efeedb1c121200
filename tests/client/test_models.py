"""The client's types are those of the services' own OpenAPI documents."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from pydantic import BaseModel

import loan_predictor_client
from loan_predictor_client import Cohorts, Filters, LoanPredictorClient, Selection, calls
from loan_predictor_client.calls import Call, StatisticsGrouping, Unit
from tests.client.generate_models import MODELS, apps, generate

_CALLS: list[tuple[Callable[..., Call[Any]], dict[str, object]]] = [
    (calls.predict, {"application": {}, "model": None, "key": None}),
    (calls.predict, {"application": {}, "model": "any", "key": None}),
    (calls.predict_many, {"applications": [{}], "model": "any", "key": None}),
    (calls.benchmark, {"application": {}}),
    (calls.explain, {"application": {}, "model": None, "reference": None, "bundle": None}),
    (
        calls.explain,
        {"application": {}, "model": "any", "reference": "all_applicants", "bundle": "b-0"},
    ),
    (calls.validate, {"application": {}}),
    (calls.validation_rules, {}),
    (calls.models, {}),
    (calls.compare, {}),
    (calls.model, {"name": "any"}),
    (calls.scorecard, {"name": "any"}),
    (calls.model_info, {}),
    (calls.history, {"filters": Filters(), "limit": 1, "cursor": None}),
    (calls.record, {"prediction_id": "any"}),
    (calls.erase, {"prediction_id": "any"}),
    (calls.report_outcomes, {"reports": [{}]}),
    (calls.live_performance, {"cohorts": Cohorts(), "by": "all"}),
    (calls.vintages, {"cohorts": Cohorts()}),
    (calls.statistics, {"selection": Selection(), "group_by": None}),
    (calls.analytics, {"selection": Selection(), "group_by": "day"}),
    (calls.health, {"service": "inference"}),
    (calls.health, {"service": "history"}),
    (calls.performance, {"service": "inference"}),
    (calls.performance, {"service": "history"}),
]


@cache
def _document(service: str) -> dict[str, Any]:
    document: dict[str, Any] = apps()[service].openapi()
    return document


@pytest.mark.system
def test_generating_the_models_again_gives_the_same_file() -> None:
    """Otherwise a service's answers have changed: run `make client-models`."""
    assert MODELS.read_text(encoding="utf-8") == generate()


@pytest.mark.parametrize("service", ["inference", "history"])
def test_document_holds_all_that_it_refers_to(service: str) -> None:
    """Under plain names: two classes of one name would be called by their modules."""
    document = _document(service)
    schemas = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert set(re.findall(r'"\$ref": "([^"]*)"', json.dumps(document))) == schemas
    assert not [name for name in schemas if "__" in name]


@pytest.mark.system
def test_models_are_generated_without_those_that_the_client_has_now() -> None:
    """A new call may need a type that is not generated yet, and then nobody can import it."""
    program = "import sys; sys.modules['loan_predictor_client'] = None; import {}"
    subprocess.run([sys.executable, "-c", program.format(generate.__module__)], check=True)


@pytest.mark.parametrize(
    ("make", "arguments"), _CALLS, ids=lambda value: getattr(value, "__name__", "")
)
def test_each_call_reads_what_its_route_promises(
    make: Callable[..., Call[Any]], arguments: dict[str, object]
) -> None:
    call = make(**arguments)
    [read] = get_args(get_type_hints(make)["return"])
    operations = [
        methods[call.method.lower()]
        for path, methods in _document(call.service)["paths"].items()
        if re.fullmatch(re.sub(r"{\w+}", "any", path), call.path)
    ]
    schemas = [
        operation["responses"]["200"]["content"]["application/json"]["schema"]
        for operation in operations
    ]
    assert schemas == [{"$ref": f"#/components/schemas/{read.__name__}"}]


@pytest.mark.parametrize("path", ["/history", "/history/export"])
def test_filters_are_those_of_the_history(path: str) -> None:
    operation = _document("history")["paths"][path]["get"]
    parameters = {each["name"] for each in operation["parameters"] if each["in"] == "query"}
    assert parameters - {"limit", "cursor", "format"} == {each.name for each in fields(Filters)}


@pytest.mark.parametrize(
    ("path", "grouping"), [("/statistics", StatisticsGrouping), ("/analytics", Unit)]
)
def test_selection_and_groupings_are_those_of_the_statistics(path: str, grouping: Any) -> None:
    """Names of parameters, and the values that ``group_by`` takes."""
    operation = _document("history")["paths"][path]["get"]
    schemas = {each["name"]: each["schema"] for each in operation["parameters"]}
    assert schemas.keys() == {"group_by", *(each.name for each in fields(Selection))}
    [known, _] = schemas["group_by"]["anyOf"]
    assert set(known["enum"]) == set(re.findall(r"'(\w+)'", str(grouping)))


def test_every_answer_can_be_imported_and_every_method_is_listed() -> None:
    """Answers from the package itself; methods in the client's README."""
    listed = Path("client/README.md").read_text(encoding="utf-8")
    for name, method in vars(LoanPredictorClient).items():
        if name.startswith("_"):
            continue
        assert f"`{name}`" in listed, name
        answer = get_type_hints(method)["return"]
        if isinstance(answer, type) and issubclass(answer, BaseModel):
            assert answer.__name__ in loan_predictor_client.__all__, name
