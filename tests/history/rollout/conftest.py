"""Bundles that are registered, replicas that report, and people who change the roll-out."""

import io
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from services.history.main import create_app
from services.history.rollout import replicas
from services.history.settings import HistorySettings
from services.scoring.manifest import MANIFEST_FILE
from shared.access.api_keys import mint_key, parse_keys
from tests import keys
from tests.bundles import make_bundle
from tests.serving import served

FIRST, SECOND, THIRD = ("b-0000000a", "b-0000000b", "b-0000000c")
MODELS = {"random_forest": "random_forest", "gradient_boosting": "gradient_boosting"}
OTHER_SECRET, OTHER_ENTRY = mint_key("other-person", ["admin"])


def archive_of(folder: Path) -> bytes:
    """The ZIP archive of a bundle's folder, as a person would make it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder.parent))
    return file.getvalue()


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three bundles that differ in their versions and how many models they have."""
    root = tmp_path_factory.mktemp("made")
    for version in (FIRST, SECOND, THIRD):
        make_bundle(root, version=version, models=MODELS)
    return root


@pytest.fixture
def settings(settings: HistorySettings, made: Path, tmp_path: Path) -> HistorySettings:
    """Three bundles ship; the guard looks often; a second person has a key."""
    return settings.model_copy(
        update={
            "api_keys": parse_keys(f"{keys.ENTRY} {OTHER_ENTRY}"),
            "bundle_root": made,
            "bundle_store": str(tmp_path / "store"),
            "rollout_guard_pause_s": 0.1,
        }
    )


class Registry:
    """The routes, as people, replicas and the inference service use them."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client

    async def register(self, made: Path, *versions: str) -> None:
        """Register the manifests, as the inference service does."""
        for version in versions:
            content = (made / version / MANIFEST_FILE).read_bytes()
            answer = await self.client.post(
                "/internal/bundles", content=content, headers={"content-type": "application/json"}
            )
            assert answer.status_code == 204, answer.text

    async def post(self, path: str, status: int = 202, **body: Any) -> dict[str, Any]:
        """Post as a person, with a reason."""
        answer = await self.client.post(f"/admin/{path}", json={"reason": "because"} | body)
        assert answer.status_code == status, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def set(
        self, epoch: int, default: str, candidate: str | None = None, share: int = 1000, **more: Any
    ) -> dict[str, Any]:
        """Propose a roll-out of the random forests of these bundles."""
        body = {"default": arm(default), **more}
        if candidate is not None:
            body["candidate"] = arm(candidate) | {"share": share}
        return await self.post("rollout", epoch=epoch, **body)

    async def status(self) -> dict[str, Any]:
        """What is rolled out."""
        answer = await self.client.get("/admin/rollout")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def report(
        self,
        replica: str = "one",
        *,
        epoch: int = 0,
        ready: int | None = None,
        failed: str | None = None,
        bundle: str | None = None,
    ) -> dict[str, Any]:
        """Report as a replica; ``failed`` is about the epoch ``ready`` then."""
        body: dict[str, Any] = {"replica": replica, "kind": "inference", "epoch": epoch}
        body |= {} if bundle is None else {"bundle": bundle}
        body |= {"failed": {"epoch": ready, "reason": failed}} if failed else {"ready": ready}
        answer = await self.client.post("/internal/rollout", json=body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def roll_out(self, *arguments: Any, **more: Any) -> dict[str, Any]:
        """Set, and have the one replica follow; the roll-out in force."""
        entry = await self.set(*arguments, **more)
        return await self.follow(entry["epoch"])

    async def follow(self, epoch: int) -> dict[str, Any]:
        """Have the one replica prepare and serve an epoch; the roll-out in force."""
        await self.report(ready=epoch)
        state = await self.report(epoch=epoch)
        assert state["active"]["epoch"] == epoch
        active: dict[str, Any] = state["active"]
        return active


def arm(bundle: str, model: str = "random_forest") -> dict[str, Any]:
    """An arm, in JSON."""
    return {"bundle": bundle, "model": model}


@pytest_asyncio.fixture
async def registry(
    settings: HistorySettings, made: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Registry]:
    """The service with three bundles registered; a replica lives on however slow the machine is."""
    monkeypatch.setattr(replicas, "ALIVE_S", 60.0)
    async with served(create_app(settings), headers=keys.HEADERS) as client:
        registry = Registry(client)
        await registry.register(made, FIRST, SECOND, THIRD)
        yield registry
