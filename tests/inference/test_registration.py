"""Bundles are registered with the history service, however long it is away."""

import asyncio
from pathlib import Path

import httpx
import pytest

from services.inference import registration
from services.inference.registration import registering
from services.scoring.manifest import BUNDLE_ROOT, MANIFEST_FILE
from tests.waiting import eventually

pytestmark = pytest.mark.unit
MANIFESTS = sorted(path.read_bytes() for path in BUNDLE_ROOT.glob(f"*/{MANIFEST_FILE}"))


async def test_every_bundle_is_posted_until_it_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through a lost connection, an older service without the route, and a full database."""
    monkeypatch.setattr(registration, "FIRST_PAUSE_S", 0.001)
    answers = iter((None, 404, 503))
    accepted: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/internal/bundles"
        assert request.headers["x-api-key"] == "secret"
        status = next(answers, 204)
        if status is None:
            raise httpx.ConnectError("refused")
        if status == 204:
            accepted.append(request.content)
        return httpx.Response(status)

    async with (
        httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client,
        registering(client, BUNDLE_ROOT, history_url="http://history/", api_key="secret"),
    ):
        await eventually(lambda: len(accepted) == len(MANIFESTS))
        await asyncio.sleep(0.01)
    assert sorted(accepted) == MANIFESTS


async def test_refused_manifest_keeps_no_other_from_being_registered(tmp_path: Path) -> None:
    for name in ("b-1", "b-2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / MANIFEST_FILE).write_text(name)
    posted: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        posted.append(request.content)
        return httpx.Response(400 if request.content == b"b-1" else 204)

    async with (
        httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client,
        registering(client, tmp_path, history_url="http://history", api_key="secret"),
    ):
        await eventually(lambda: len(posted) == 2)
    assert posted == [b"b-1", b"b-2"]
