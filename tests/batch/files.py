"""Files of generated applications, and calls of the API."""

import csv
import io
import json
import random
from collections.abc import Mapping
from typing import Any

import httpx

from tests.applications import random_application
from tests.waiting import eventually_said

CSV = "text/csv"
NDJSON = "application/x-ndjson"
ENDED = ("done", "failed", "cancelled")


def applications(count: int, *, seed: int = 1) -> list[dict[str, object]]:
    """Valid applications, each with a number of its own."""
    rng = random.Random(seed)  # noqa: S311 - test data, not a secret
    return [random_application(rng) | {"Loan_ID": f"LP{number:06d}"} for number in range(count)]


def as_csv(rows: list[dict[str, object]]) -> bytes:
    """The rows as CSV; the first one is on line 2."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def as_ndjson(rows: list[dict[str, object]]) -> bytes:
    """The rows as NDJSON; the first one is on line 1."""
    return "\n".join(map(json.dumps, rows)).encode()


async def post(
    client: httpx.AsyncClient, content: bytes, kind: str = CSV, **rest: Any
) -> httpx.Response:
    """Send a file; ``headers`` and ``params`` may be given."""
    headers = {"content-type": kind, **rest.pop("headers", {})}
    return await client.post("/batches", content=content, headers=headers, **rest)


async def begin(client: httpx.AsyncClient, content: bytes, kind: str = CSV, **params: Any) -> str:
    """The path of a new batch."""
    answer = await post(client, content, kind, params=params)
    assert answer.status_code == 202, answer.text
    location = answer.headers["location"]
    assert location == f"/batches/{answer.json()['id']}"
    return str(location)


async def ended(client: httpx.AsyncClient, path: str) -> Mapping[str, Any]:
    """The batch once it has ended."""
    found: dict[str, Any] = {}

    async def asked() -> bool:
        found.update((await client.get(path)).json())
        return found["state"] in ENDED

    await eventually_said(asked, timeout_s=60)
    return found


async def lines(client: httpx.AsyncClient, path: str, **params: str) -> list[dict[str, Any]]:
    """What an NDJSON answer holds."""
    answer = await client.get(path, params=params)
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]
