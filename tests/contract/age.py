"""What holds once ``Age_Under_Test`` is defined; ``test_one_definition.py`` runs it in a copy."""

import asyncio
import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from services.dashboard.pages import decide
from services.history.main import create_app as create_history
from services.history.revise import differences
from services.history.settings import HistorySettings
from services.inference.main import create_app as create_inference
from services.inference.settings import InferenceSettings
from services.training.applications import read_applications
from shared.access.api_keys import parse_keys
from shared.contract.application import EXAMPLE, SCORED
from shared.contract.errors import InvalidInput
from shared.contract.parsing import parse_application
from tests import keys
from tests.applications import write_labelled_csv
from tests.history.conftest import consuming, engine_of, quick_settings
from tests.serving import served
from tests.waiting import eventually_said

_AGED = EXAMPLE | {"Age_Under_Test": "34.0"}


def check_validation() -> None:
    """Whole numbers from 18 to 120, lenient in form like every other input."""
    for given, read in ((18, 18), (120.0, 120), (" 30 ", 30), ("", None), (None, None)):
        body = json.dumps(EXAMPLE | {"Age_Under_Test": given}).encode()
        assert parse_application(body)["Age_Under_Test"] == read
    assert parse_application(json.dumps(EXAMPLE).encode())["Age_Under_Test"] is None
    for given in (17, 121, 18.5, "18.5", "17", True, "young"):
        with pytest.raises(InvalidInput) as refused:
            parse_application(json.dumps(EXAMPLE | {"Age_Under_Test": given}).encode())
        assert [fault.field for fault in refused.value.faults] == ["Age_Under_Test"]
    assert "Age_Under_Test" not in SCORED


def check_training() -> None:
    """The public data set has no such column and is trained on all the same."""
    data = Path(os.environ.get("LOAN_DATA_DIR", "")) / "loans.csv"
    with TemporaryDirectory() as folder:
        if not data.is_file():
            data = Path(folder) / "loans.csv"
            write_labelled_csv(data, rows=100, seed=5)
        assert {row["Age_Under_Test"] for row in read_applications(data).applications} == {None}


def check_form() -> None:
    """The dashboard asks for it."""
    assert 'name="Age_Under_Test"' in decide.form({})


async def check_services(settings: HistorySettings) -> None:
    """From the decision to its erasure."""
    inference, history = create_inference(_inference_settings()), create_history(settings)
    paths = inference.openapi()["paths"]
    body = paths["/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert "Age_Under_Test" in body["properties"]
    for document in (inference.openapi(), history.openapi()):
        assert "Age_Under_Test" in document["components"]["schemas"]["Application"]["properties"]
    async with (
        served(inference, headers=keys.HEADERS) as asked,
        served(history, headers=keys.HEADERS) as client,
        consuming(settings),
    ):
        decision = (await asked.post("/predict", json=_AGED)).json()
        assert decision["input_data"]["Age_Under_Test"] == 34
        assert "Age_Under_Test" not in decision["imputed"]
        rules = (await asked.get("/validation-rules")).json()["fields"]
        [rule] = [rule for rule in rules if rule["name"] == "Age_Under_Test"]
        assert (rule["kind"], rule["minimum"], rule["scored"]) == ("integer", 18, False)
        await _check_record(client, settings, f"/history/{decision['prediction_id']}")


async def _check_record(client: httpx.AsyncClient, settings: HistorySettings, path: str) -> None:
    async def recorded() -> bool:
        return (await client.get(path)).is_success

    await eventually_said(recorded)
    assert (await client.get(path)).json()["input_data"]["Age_Under_Test"] == 34
    header, row = (await client.get("/history/export?format=csv")).text.splitlines()
    assert dict(zip(header.split(","), row.split(","), strict=True))["age_under_test"] == "34"
    exported = (await client.get("/history/export?format=ndjson")).json()
    assert exported["input_data"]["Age_Under_Test"] == 34
    assert (await client.delete(path)).json()["erased"] == 1
    engine = engine_of(settings)
    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []
        ages = await connection.execute(text("SELECT age_under_test FROM predictions"))
        assert ages.scalars().all() == [None]
        with pytest.raises(IntegrityError, match="predictions_erased_check"):
            await connection.execute(text("UPDATE predictions SET age_under_test = 34"))
    await engine.dispose()


def _inference_settings() -> InferenceSettings:
    return InferenceSettings(redis_url=os.environ["REDIS_URL"], api_keys=parse_keys(keys.ENTRY))


if __name__ == "__main__":
    check_validation()
    check_training()
    check_form()
    asyncio.run(
        check_services(
            quick_settings(
                database_url=os.environ["DATABASE_URL"], redis_url=os.environ["REDIS_URL"]
            )
        )
    )
