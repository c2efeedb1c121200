"""Bad bodies against the running system: one clear refusal each, and nothing is recorded."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from shared.contract.application import EXAMPLE
from shared.contract.events import INTERNAL_PREDICTIONS_PATH
from tests.harness import System
from tests.raw import connected
from tests.robustness.hostile import GOOD, hostile_bodies, too_large_bodies

# The product runs in processes of its own; measuring the clients' coverage would slow them.
pytestmark = pytest.mark.no_cover

_RECORDED_WITHIN_S = 20
_DECIDING = ("/predict", "/predict/random_forest", "/explain", "/models/benchmark")
_JSON = {"content-type": "application/json"}
_NO_REQUEST = (
    *(b"", b"\xff", b'"\xc3"', b"{", b"null", b"NaN", b"[" * 30_000, b'{"x": 1e400}'),
    GOOD[:-1],
)
_QUERIES = (
    *("loan_id=%00", "loan_id=a%00b", "loan_id=%ED%A0%80", "loan_id=%FF", "loan_id=%E2%80%AE"),
    *("loan_id=", "loan_id=" + "x" * 20_000, "limit=%00", "limit=" + "9" * 5000, "limit=1_0"),
    *("since=%00", "since=0", "since=1e400", "cursor=%00", "model=%00", "had_warnings=on", "%00=1"),
    *("min_confidence=Infinity", "&".join(f"p{number}=1" for number in range(3000))),
)


@pytest_asyncio.fixture
async def http(system: System) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the inference service that may do everything."""
    headers = {"x-api-key": system.api_key}
    async with httpx.AsyncClient(
        base_url=system.inference_url, headers=headers, timeout=20
    ) as client:
        yield client


async def _assert_only_record(system: System, http: httpx.AsyncClient, number: str) -> None:
    """The decision is in the history within a while, and nothing else ever was."""
    async with asyncio.timeout(_RECORDED_WITHIN_S):
        while True:
            answer = await http.get(f"{system.history_url}/history?limit=100")
            found = [record["prediction_id"] for record in answer.json()["items"]]
            if found:
                break
            await asyncio.sleep(0.2)
    assert found == [number]
    health = (await http.get(f"{system.history_url}/health")).json()
    stream = health["checks"]["redis"]["detail"]
    assert (stream["waiting"], stream["dead_letters"]) == (0, 0)


def _complaints(what: str, answer: httpx.Response, *, status: int) -> list[str]:
    """What is wrong with a refusal; nothing if it is as promised."""
    if answer.status_code != status:
        return [f"{what}: answered {answer.status_code} {answer.text[:200]}"]
    problem = answer.json()
    complaints = []
    if answer.headers["content-type"] != "application/problem+json":
        complaints.append(f"{what}: {answer.headers['content-type']}")
    if problem["status"] != status or not problem["detail"]:
        complaints.append(f"{what}: {answer.text[:200]}")
    if status == 400 and not problem["validation_errors"]:
        complaints.append(f"{what}: names no fault")
    return complaints


async def test_hostile_json_is_refused_and_never_recorded(
    system: System, http: httpx.AsyncClient
) -> None:
    """400 that names a fault from each deciding route; validation says the same with 200."""
    complaints: list[str] = []
    for what, body in hostile_bodies():
        for path in _DECIDING:
            answer = await http.post(path, content=body, headers=_JSON)
            complaints += _complaints(f"{path} {what}", answer, status=400)
        report = await http.post("/validate-loan", content=body, headers=_JSON)
        if report.status_code != 200 or report.json()["valid"]:
            complaints.append(f"/validate-loan {what}: {report.text[:200]}")
    assert complaints == []
    decision = (await http.post("/predict", json=EXAMPLE)).json()
    await _assert_only_record(system, http, decision["prediction_id"])


async def test_hostile_json_is_refused_by_every_route(http: httpx.AsyncClient) -> None:
    """Whatever it reads."""
    documented = (await http.get("/openapi.json")).json()["paths"]
    version = (await http.get("/model-info")).json()["version"]
    paths = [
        path.replace("{model}", "random_forest").replace("{version}", version)
        for path, operations in documented.items()
        if "application/json"
        in operations.get("post", {}).get("requestBody", {"content": ()})["content"]
    ]
    assert {*_DECIDING, "/replay"} < set(paths)
    complaints: list[str] = []
    for body in _NO_REQUEST:
        for path in set(paths) - {"/validate-loan"}:
            answer = await http.post(path, content=body, headers=_JSON)
            # The routes of the Open Inference Protocol word errors as it does.
            if answer.status_code != 400:
                complaints.append(f"{path} {body[:20]!r}: {answer.status_code} {answer.text[:200]}")
    assert complaints == []


async def test_good_json_in_a_bad_wrapping_is_refused_and_never_recorded(
    system: System, http: httpx.AsyncClient
) -> None:
    """Too large, called something else, compressed, or cut off by a client that leaves."""
    complaints: list[str] = []
    for path in (*_DECIDING, "/validate-loan"):
        for body in too_large_bodies():
            answer = await http.post(path, content=body, headers=_JSON)
            complaints += _complaints(f"{path} {len(body)} bytes", answer, status=413)
        for content_type in ("text/plain", "application/xml", "application/json; charset=utf-16"):
            answer = await http.post(path, content=GOOD, headers={"content-type": content_type})
            complaints += _complaints(f"{path} {content_type}", answer, status=415)
        answer = await http.post(path, content=GOOD, headers=_JSON | {"content-encoding": "gzip"})
        complaints += _complaints(f"{path} gzip", answer, status=415)
    assert complaints == []

    head = f"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: {len(GOOD) + 1}\r\n\r\n".encode()
    for length in range(0, len(GOOD) + 1, 20):
        async with connected(system.inference_url) as connection:
            await connection.send(head + GOOD[:length])
    decision = (await http.post("/predict", json=EXAMPLE)).json()
    await _assert_only_record(system, http, decision["prediction_id"])


async def test_hostile_events_are_refused_and_never_stored(
    system: System, http: httpx.AsyncClient
) -> None:
    """What no event is made of is 400 from the services' own door, too."""
    path = f"{system.history_url}{INTERNAL_PREDICTIONS_PATH}"
    named = {"content-type": "application/x-ndjson"}
    complaints: list[str] = []
    for what, body in hostile_bodies():
        if b"\n" not in body:
            answer = await http.post(path, content=body, headers=named)
            complaints += _complaints(what, answer, status=400)
    answer = await http.post(path, content=b"x\n" * 1_000_000, headers=named)
    complaints += _complaints("a million bad lines", answer, status=400)
    assert len(answer.content) < 20_000
    answer = await http.post(path, content=b"x" * (4 * 1024 * 1024 + 1), headers=named)
    complaints += _complaints("over the limit", answer, status=413)
    answer = await http.post(path, content=GOOD, headers=_JSON)
    complaints += _complaints("named JSON", answer, status=415)
    assert complaints == []
    assert (await http.get(f"{system.history_url}/history")).json()["items"] == []


async def test_hostile_parameters_are_refused(http: httpx.AsyncClient, system: System) -> None:
    """Nothing that the database could not compare with ever reaches it."""
    complaints: list[str] = []
    for query in _QUERIES:
        for path in ("/history", "/history/export"):
            answer = await http.get(f"{system.history_url}{path}?{query}")
            complaints += _complaints(query[:60], answer, status=400)
            assert len(answer.content) < 30_000
    assert complaints == []


async def test_hostile_paths_are_refused(http: httpx.AsyncClient, system: System) -> None:
    """A path that names nothing is 404; a control character or a malformed id is 400."""
    complaints: list[str] = []
    for part in ("%00", "%ED%A0%80", "%FF", "a%0Ab", "..%2F..", "%E2%80%AE", "%"):
        status = 400 if part in ("%00", "a%0Ab") else 404
        for path in (f"/{part}", f"/models/{part}"):
            answer = await http.get(f"{system.inference_url}{path}")
            complaints += _complaints(path, answer, status=status)
        answer = await http.post(f"/predict/{part}", json=EXAMPLE)
        complaints += _complaints(f"/predict/{part}", answer, status=status)
        answer = await http.get(f"{system.history_url}/history/{part}")
        complaints += _complaints(part, answer, status=404 if "%2F" in part else 400)
    assert complaints == []
