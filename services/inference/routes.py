"""The routes of the service: each parses, makes one call and answers."""

from time import perf_counter
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ValidationError
from pydantic_core import to_json

from services.inference.catalogue import (
    ValidationRules,
)
from services.inference.deps import resources_of
from services.inference.idempotency import HEADER_DOC, named_request
from services.inference.many import MANY_DOC, answer_of, parse_many, read_many
from services.inference.model_routes import DOCUMENT, MODEL_DOC, ModelInPath
from services.inference.schemas import (
    Benchmark,
    ExplainQuery,
    Explanation,
    ManyDecisions,
    ManyQuery,
    ValidationReport,
)
from services.scoring.decisions import (
    Served,
    Submission,
    record,
    record_many,
    record_many_once,
    record_once,
)
from services.scoring.engine import benchmark
from services.scoring.explain import bundle_for_explaining, explain, find_reasons
from services.scoring.registry import ServedModel
from services.scoring.replay import Replay, replay
from shared.access.middleware import caller_of, count_as, needs
from shared.contract.application import EXAMPLE
from shared.contract.errors import InvalidInput
from shared.contract.events import Decision, ReasonsFound
from shared.contract.parsing import LoanApplication, parse_application
from shared.contract.warnings import warnings_for
from shared.web.conventions import invalid_input, note_decision, problem_docs, request_id_of
from shared.web.direct import DirectRoute, describe, read_body
from shared.web.idempotency import idempotency_key
from shared.web.parameters import refuse_parameters, refuse_repeated_parameters
from shared.web.performance import Performance, performance_of
from shared.web.tracing import trace_of

JSON: Final = "application/json"
_EXAMPLE_BODY: Final = to_json(EXAMPLE)
_EMPTY_OBJECT: Final = {"type": "object", "maxProperties": 0}
_REPLAYED: Final = {"idempotency-replayed": "true"}
_REPLAYED_DOC: Final = {
    "Idempotency-Replayed": {
        "description": "Present if this is the answer given to an earlier request.",
        "schema": {"type": "string", "enum": ["true"]},
    }
}
_DECIDED: Final[dict[int | str, dict[str, Any]]] = {
    200: {"headers": _REPLAYED_DOC},
    **problem_docs(400, 408, 409, 410, 413, 415, 422, 503),
}
_EXPLAINED: Final = problem_docs(400, 408, 413, 415, 503)

decisions = APIRouter(tags=["decisions"], route_class=DirectRoute)
# Its path is also one of the next router's, which therefore comes after it.
together = APIRouter(tags=["decisions"], dependencies=[Depends(refuse_repeated_parameters)])
explanations = APIRouter(tags=["decisions"], dependencies=[Depends(refuse_repeated_parameters)])
about = APIRouter(tags=["about"], dependencies=[Depends(refuse_parameters)])


@decisions.post(
    "/predict",
    response_model=Decision,
    responses=_DECIDED,
    openapi_extra=describe(body=LoanApplication, headers=[HEADER_DOC]) | needs("predict"),
)
async def predict(request: Request) -> Response:
    """Decide an application with the champion; the answer is recorded before it is given.

    While a roll-out has a candidate, it decides for a share of the applications instead.
    """
    return await _decide(request, resources_of(request.scope).deciding(), None)


@decisions.post(
    "/predict/{model}",
    response_model=Decision,
    responses=_DECIDED | problem_docs(404),
    openapi_extra=describe(body=LoanApplication, path=MODEL_DOC, headers=[HEADER_DOC])
    | needs("predict"),
)
async def predict_with(request: Request) -> Response:
    """Decide an application with the model named in the path; recorded like any decision."""
    served = resources_of(request.scope).deciding()
    return await _decide(request, served, served.bundle.model(request.path_params["model"]))


async def _decide(request: Request, served: Served, model: ServedModel | None) -> Response:
    scope = request.scope
    caller = caller_of(scope)
    caller.require("predict")
    key = idempotency_key(scope)
    body = await read_body(request)
    trace = trace_of(scope)
    trace.step("validate")
    began_s = perf_counter()
    application = parse_application(body)
    submission = Submission(caller.name, request_id_of(scope), perf_counter() - began_s, trace)
    trace.end_step()
    resources = resources_of(scope)
    if key is None:
        decided = await record(
            application, served, submission, model=model, publisher=resources.publisher
        )
    else:
        decided = await record_once(
            application,
            served,
            submission,
            model=model,
            publisher=resources.publisher,
            idempotency=resources.idempotency,
            request=named_request(scope, key=key, body=body),
        )
    note_decision(scope, decided.prediction_id)
    headers = _REPLAYED if decided.replayed else None
    return Response(decided.body, media_type=JSON, headers=headers)


@together.post(
    "/predict/many",
    response_model=ManyDecisions,
    responses=_DECIDED | problem_docs(404),
    openapi_extra=MANY_DOC | {"parameters": [HEADER_DOC]} | needs("predict"),
)
async def predict_many(request: Request, query: Annotated[ManyQuery, Query()]) -> Response:
    """Decide up to 1,000 applications, each as /predict would; all are recorded first.

    The body is a JSON array or has one application on each line (NDJSON). A faulty application is
    answered with its faults and stops no other. An Idempotency-Key names the whole request.
    """
    scope = request.scope
    caller = caller_of(scope)
    caller.require("predict")
    key = idempotency_key(scope)
    body, lines = await read_many(request)
    resources = resources_of(scope)
    served = resources.deciding()
    model = None if query.model is None else served.bundle.model(query.model)
    trace = trace_of(scope)
    trace.step("validate")
    began_s = perf_counter()
    applications = await parse_many(body, lines=lines)
    good = list(applications.good.values())
    count_as(scope, len(good) + len(applications.faulty))
    validate_s = (perf_counter() - began_s) / max(1, len(good))
    trace.step("record")
    submissions = [Submission(caller.name, request_id_of(scope), validate_s, trace)] * len(good)
    if key is None or not good:
        decided = await record_many(
            good, served, submissions, model=model, publisher=resources.publisher
        )
    else:
        decided = await record_many_once(
            good,
            served,
            submissions,
            model=model,
            publisher=resources.publisher,
            idempotency=resources.idempotency,
            request=named_request(scope, key=key, body=body),
            indexes=applications.good,
        )
    trace.end_step()
    answer = await answer_of(applications, decided)
    headers = _REPLAYED if decided and decided[0].replayed else None
    return Response(answer, media_type=JSON, headers=headers)


@explanations.post(
    "/explain",
    response_model=Explanation,
    responses=_EXPLAINED | problem_docs(404),
    openapi_extra=describe(body=LoanApplication) | needs("predict"),
)
async def explain_champion(request: Request, query: Annotated[ExplainQuery, Query()]) -> Response:
    """Explain how the model that would decide scores an application; nothing is recorded.

    That is the champion of ``bundle``, or else what /predict decides it with, a candidate too.
    """
    return await _explain(request, None, query)


@explanations.post(
    "/explain/{model}",
    response_model=Explanation,
    responses=_EXPLAINED | problem_docs(404),
    openapi_extra=describe(body=LoanApplication) | needs("predict"),
)
async def explain_with(
    request: Request, model: ModelInPath, query: Annotated[ExplainQuery, Query()]
) -> Response:
    """Explain how the model named in the path scores an application; nothing is recorded."""
    return await _explain(request, model, query)


async def _explain(request: Request, name: str | None, query: ExplainQuery) -> Response:
    caller_of(request.scope).require("predict")
    application = parse_application(await read_body(request))
    resources = resources_of(request.scope)
    arm = None
    if query.bundle is not None:
        bundle = await bundle_for_explaining(query.bundle, resources.bundles)
    elif name is None:
        bundle, arm = resources.deciding().choose(application)
    else:
        bundle = resources.deciding().bundle
    answer = await explain(
        application,
        model=bundle.champion if name is None else bundle.model(name),
        bundle=bundle,
        reference=query.reference,
        explainer=resources.explainer,
        arm=arm,
    )
    return Response(to_json(answer), media_type=JSON)


@explanations.post(
    "/reasons",
    response_model=Decision,
    responses=_EXPLAINED | problem_docs(404),
    openapi_extra=describe(body=Decision) | needs("predict"),
)
async def find_recorded_reasons(request: Request) -> Response:
    """Find the reasons of a recorded refusal that has none, and record them with it, once.

    The body is the record as GET /history/{id} gives it; so is the answer, with its reasons. Models
    without a table of points decide without reasons, which take milliseconds. A record that has
    reasons, and an approval, are answered as they are.
    """
    await refuse_parameters(request)
    caller = caller_of(request.scope)
    caller.require("predict")
    recorded = await _recorded(request)
    resources = resources_of(request.scope)
    found = await find_reasons(recorded, resources.bundles, resources.explainer)
    if found.reasons != recorded.reasons:
        found = await resources.store_reasons(ReasonsFound(client=caller.name, decision=found))
    return Response(found.model_dump_json(), media_type=JSON)


@decisions.post(
    "/models/benchmark",
    response_model=Benchmark,
    responses=_EXPLAINED,
    openapi_extra=describe(body=LoanApplication, also=_EMPTY_OBJECT) | needs("predict"),
)
async def benchmark_models(request: Request) -> Response:
    """Ask all models about one application; ``{}`` stands for the documented example.

    It is no decision, and is not recorded.
    """
    caller_of(request.scope).require("predict")
    body = await read_body(request)
    application = parse_application(_EXAMPLE_BODY if body.strip() == b"{}" else body)
    answer = benchmark(application, resources_of(request.scope).deciding().bundle)
    return Response(to_json(answer), media_type=JSON)


@decisions.post(
    "/validate-loan",
    response_model=ValidationReport,
    responses=problem_docs(400, 408, 413, 415),
    openapi_extra=describe(body=LoanApplication, also={}, required=False) | needs("predict"),
)
async def validate_loan(request: Request) -> Response:
    """The errors and warnings of an application, without a decision: 200 also if it is wrong."""
    caller_of(request.scope).require("predict")
    ranges = resources_of(request.scope).served.bundle.training_ranges
    try:
        application = parse_application(await read_body(request))
    except InvalidInput as error:
        report: dict[str, Any] = {
            "valid": False,
            "validation_errors": error.faults,
            "warnings": [],
            "input_data": None,
        }
    else:
        report = {
            "valid": True,
            "validation_errors": [],
            "warnings": warnings_for(application, ranges),
            "input_data": application,
        }
    return Response(to_json(report), media_type=JSON)


@decisions.post(
    "/replay",
    response_model=Replay,
    responses=problem_docs(400, 408, 413, 415),
    openapi_extra=describe(body=Decision) | needs("replay"),
)
async def replay_decision(request: Request) -> Response:
    """Decide a recorded decision again with the bundle it names, and compare member by member.

    The body is the record as GET /history/{id} gives it, or the decision as it was answered.
    Nothing is recorded.
    """
    caller_of(request.scope).require("replay")
    recorded = await _recorded(request)
    report = await replay(recorded, resources_of(request.scope).bundles)
    return Response(to_json(report), media_type=JSON)


async def _recorded(request: Request) -> Decision:
    try:
        return Decision.model_validate_json(await read_body(request))
    except ValidationError as error:
        raise invalid_input(error.errors(include_url=False)) from None


@about.get("/validation-rules", response_model=ValidationRules, responses=DOCUMENT)
async def validation_rules(request: Request) -> Response:
    """The rules that /predict checks and warns by, as data."""
    return resources_of(request.scope).served.catalogue.rules.respond(request)


class Index(BaseModel):
    """What this service is and where its routes are."""

    service: str
    description: str
    version: str
    bundle: str
    routes: dict[str, str]


@about.get("/", responses=problem_docs(400))
async def index(request: Request) -> Index:
    """Say what this service is and where its routes are."""
    return Index(
        service="loan-predictor inference",
        description="Decides loan applications; every decision answered is recorded.",
        version=request.app.version,
        bundle=resources_of(request.scope).served.bundle.manifest.version,
        routes={
            "decide": "POST /predict",
            "decide with one model": "POST /predict/{model}",
            "decide up to 1,000 at once": "POST /predict/many",
            "explain a decision": "POST /explain, /explain/{model}",
            "find the reasons of a recorded refusal": "POST /reasons",
            "ask all models": "POST /models/benchmark",
            "score by the Open Inference Protocol": "GET /v2, POST /v2/models/{model}/infer",
            "models": "GET /models, /models/{model}, /models/{model}/scorecard, /models/compare,"
            " /model-info",
            "model card": "GET /models/card, /models/pictures/{name};"
            " of any bundle: /models/card/{bundle}, /models/pictures/{bundle}/{name}",
            "check an application": "POST /validate-loan, GET /validation-rules",
            "health": "GET /health, /livez, /readyz",
            "performance": "GET /performance",
            "documentation": "GET /docs",
        },
    )


@about.get("/performance", responses=problem_docs(400), openapi_extra=needs("history:read"))
async def performance(request: Request) -> Performance:
    """How fast each route answers; needs the scope `history:read`."""
    caller_of(request.scope).require("history:read")
    return performance_of(resources_of(request.scope).metrics.samples())
