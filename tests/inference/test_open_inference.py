"""The Open Inference Protocol: by hand, and by an existing client of it on the real service."""

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from services.scoring.registry import Bundle
from services.training.export import random_applications
from shared.contract.application import EXAMPLE, FIELDS
from tests.harness import System
from tests.stream import recorded_events

_INFER = "/v2/models/gradient_boosting/infer"
_INCOME: dict[str, Any] = {
    "name": "ApplicantIncome",
    "datatype": "FP64",
    "shape": [2],
    "data": [4583, 900],
}
_UV = Path(sys.executable).with_name("uv")
_REQUIREMENTS = Path(__file__).with_name("tritonclient.txt")
_PROGRAM = """
import json, sys
import numpy as np
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

address, key, columns = json.load(sys.stdin)
def key_header():
    return {"X-API-Key": key}  # the client adds to the headers it is given

with InferenceServerClient(address) as client:
    assert client.is_server_live(key_header()) and client.is_server_ready(key_header())
    assert client.is_model_ready("random_forest", headers=key_header())
    assert not client.is_model_ready("xgboost", headers=key_header())
    server = client.get_server_metadata(key_header())
    described = client.get_model_metadata("random_forest", headers=key_header())
    kinds = {each["name"]: each["datatype"] for each in described["inputs"]}

    def inputs(binary):
        for name, values in columns.items():
            if kinds[name] == "BYTES":
                array = np.array(values, dtype=np.object_)
            else:
                array = np.array([np.nan if each is None else each for each in values])
            tensor = InferInput(name, [len(values), 1], kinds[name])
            tensor.set_data_from_numpy(array.reshape(-1, 1), binary_data=binary)
            yield tensor

    answers = []
    for binary in (True, False):
        outputs = [
            InferRequestedOutput(each["name"], binary_data=binary) for each in described["outputs"]
        ]
        answers.append(
            client.infer(
                "random_forest", list(inputs(binary)), outputs=outputs, headers=key_header(),
                request_id="7",
            )
        )
    answers.append(client.infer("random_forest", list(inputs(True)), headers=key_header()))
    try:
        client.infer("xgboost", list(inputs(True)), headers=key_header())
    except InferenceServerException as error:
        refusal = error.message()

    def text(value):
        return value.decode() if isinstance(value, bytes) else value

    print(json.dumps([server, refusal, answers[0].get_response()["id"]] + [
        [answer.as_numpy("approved").tolist(), list(map(text, answer.as_numpy("prediction")))]
        for answer in answers
    ]))
"""


@pytest.fixture(scope="session")
def python_with_tritonclient(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter of an environment of its own: the client needs other versions than we do."""
    folder = tmp_path_factory.mktemp("tritonclient")
    python = folder / "bin/python"
    commands: tuple[list[str | Path], ...] = (
        ["venv", "--quiet", "--python", sys.executable, folder],
        ["pip", "install", "--quiet", "--python", python, "--require-hashes", "-r", _REQUIREMENTS],
    )
    for command in commands:
        done = subprocess.run([_UV, *command], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"tritonclient cannot be installed: {done.stderr.strip()[-300:]}")
    return python


@pytest.mark.system
def test_existing_client_of_the_protocol_gets_scores(
    python_with_tritonclient: Path, system: System
) -> None:
    """With binary tensors, as it sends them by default, and with JSON; as /predict decides."""
    applications = [EXAMPLE, *random_applications(20)]
    columns = {
        field.name: [
            ("" if value is None and field.value_type is str else value)
            for value in (each.get(field.name) for each in applications)
        ]
        for field in FIELDS
        if field.use == "scored"
    }
    address = system.inference_url.removeprefix("http://")
    done = subprocess.run(
        [python_with_tritonclient, "-I", "-c", _PROGRAM],
        input=json.dumps([address, system.api_key, columns]),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    server, refusal, request_id, *scored = json.loads(done.stdout)
    assert server["extensions"] == ["binary_tensor_data"]
    assert "There is no model 'xgboost'" in refusal
    assert request_id == "7"
    alone = [
        httpx.post(
            f"{system.inference_url}/predict/random_forest",
            json=application,
            headers={"x-api-key": system.api_key},
        ).json()
        for application in applications
    ]
    expected = [
        [each["probability"]["approved"] for each in alone],
        [each["prediction"] for each in alone],
    ]
    assert scored == [expected, expected, expected]


async def test_server_and_models_are_described(client: httpx.AsyncClient, bundle: Bundle) -> None:
    """Every input of an application is a tensor; none of the routes needs a key."""
    for path in ("/v2", "/v2/health/live", "/v2/health/ready"):
        assert (await client.get(path)).status_code == 200
    names = (await client.get("/v2/models")).json()["models"]
    assert names == list(bundle.models)
    of_version = f"versions/{bundle.manifest.version}"
    model = (await client.get(f"/v2/models/{names[0]}")).json()
    for name in names:
        described = (await client.get(f"/v2/models/{name}")).json()
        by_points = bundle.model(name).scorecard is not None
        assert described["platform"] == ("scorecard" if by_points else "onnxruntime_onnx")
        for path in ("", "/ready"):
            served = await client.get(f"/v2/models/{name}/{of_version}{path}")
            assert served.json() == (await client.get(f"/v2/models/{name}{path}")).json()
    assert model["versions"] == [bundle.manifest.version]
    assert [each["name"] for each in model["inputs"]] == [field.name for field in FIELDS]
    assert {each["name"]: each["datatype"] for each in model["outputs"]} == {
        "approved": "FP64",
        "prediction": "BYTES",
    }
    for path in (
        "xgboost",
        "xgboost/ready",
        f"xgboost/{of_version}",
        f"{names[0]}/versions/1",
        f"{names[0]}/versions/1/ready",
    ):
        unknown = await client.get(f"/v2/models/{path}")
        assert unknown.status_code == 404
        assert unknown.json().keys() == {"error"}


async def test_nothing_is_recorded_and_what_is_left_out_is_missing(
    client: httpx.AsyncClient, redis: Redis
) -> None:
    sent = {"inputs": [_INCOME], "outputs": [{"name": "approved"}]}
    answer = (await client.post(_INFER, json=sent)).json()
    path = _INFER.replace("/infer", "/versions/{}/infer")
    of_version = await client.post(path.format(answer["model_version"]), json=sent)
    assert of_version.json() == answer
    unknown = await client.post(path.format("1"), json=sent)
    assert (unknown.status_code, list(unknown.json())) == (404, ["error"])
    assert await recorded_events(redis) == []
    alone = [
        (await client.post("/predict", json={"ApplicantIncome": income})).json()
        for income in _INCOME["data"]
    ]
    assert answer["outputs"] == [
        {
            "name": "approved",
            "datatype": "FP64",
            "shape": [2],
            "data": [each["probability"]["approved"] for each in alone],
        }
    ]


def _binary(inputs: list[dict[str, Any]], data: bytes) -> dict[str, Any]:
    head = json.dumps({"inputs": inputs}).encode()
    return {
        "content": head + data,
        "headers": {"inference-header-content-length": str(len(head))},
    }


_TEXT = {"name": "Education", "datatype": "BYTES", "shape": [1]}


_FAULTY: tuple[tuple[dict[str, Any], str], ...] = (
    ({"content": b"{"}, "is not valid JSON"),
    ({"json": {"inputs": []}}, "inputs"),
    (
        {"json": {"inputs": [_INCOME | {"shape": [3]}]}},
        "ApplicantIncome must have the shape [2] or [2, 1] for the values it holds, not [3]",
    ),
    ({"json": {"inputs": [_INCOME | {"datatype": "FP128"}]}}, "datatype"),
    ({"json": {"inputs": [_INCOME, _INCOME]}}, "more than once"),
    (
        {"json": {"inputs": [_INCOME, _TEXT | {"data": ["Graduate"]}]}},
        "are not of one length",
    ),
    ({"json": {"inputs": [_INCOME | {"name": "Salary"}]}}, "application 0: Salary"),
    ({"json": {"inputs": [_INCOME | {"data": [1, -5]}]}}, "application 1: ApplicantIncome"),
    ({"json": {"inputs": [_INCOME], "outputs": [{"name": "score"}]}}, "there are: approved"),
    (
        {"json": {"inputs": [_INCOME | {"data": [1] * 1001, "shape": [1001]}]}},
        "more than 1000",
    ),
    (_binary([_TEXT | {"parameters": {"binary_data_size": 9}}], b"12345678"), "not the size"),
    (_binary([_TEXT | {"parameters": {"binary_data_size": -1}}], b""), "not the size"),
    (_binary([_INCOME], b"rest"), "more binary data"),
    (
        _binary([_TEXT | {"parameters": {"binary_data_size": 5}}], struct.pack("<I", 1) + b"\xff"),
        "is not BYTES",
    ),
    (
        _binary([_INCOME | {"data": None, "parameters": {"binary_data_size": 7}}], b"1234567"),
        "is not FP64",
    ),
    (
        {"content": b"{}", "headers": {"inference-header-content-length": "1e9"}},
        "must be a number of bytes",
    ),
)


async def test_fault_is_answered_as_the_protocol_does(client: httpx.AsyncClient) -> None:
    for request, text in _FAULTY:
        answer = await client.post(_INFER, **request)
        assert answer.status_code == 400, text
        assert answer.json().keys() == {"error"}
        assert text in answer.json()["error"]


async def test_large_body_and_other_kinds_are_refused(client: httpx.AsyncClient) -> None:
    large = await client.post(_INFER, content=b" " * (1024 * 1024 + 1))
    assert (large.status_code, list(large.json())) == (413, ["error"])
    assert large.headers["connection"] == "close"
    text = await client.post(_INFER, content=b"{}", headers={"content-type": "text/plain"})
    assert (text.status_code, list(text.json())) == (415, ["error"])
