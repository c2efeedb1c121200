"""The life of a bundle from the command line, against the history service."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.command.administration import Refused, Service
from services.command.main import main
from services.history.main import create_app
from services.history.rollout import replicas
from shared.contract.rollout import ReplicaReport, RolloutState
from tests import keys
from tests.bundles import make_bundle, version_of
from tests.harness import free_port
from tests.history.conftest import quick_settings
from tests.serving import served

MODELS = {"random_forest": "random_forest", "gradient_boosting": "gradient_boosting"}
OLD = version_of(MODELS)
NEW = version_of(MODELS | {"other": "random_forest"})
BUNDLES = {OLD: MODELS, NEW: MODELS | {"other": "random_forest"}}


@asynccontextmanager
async def _replica(client: httpx.AsyncClient) -> AsyncIterator[None]:
    """A replica that takes over whatever is rolled out."""

    async def follow() -> None:
        state = RolloutState()
        while True:
            report = ReplicaReport(
                replica="one",
                kind="inference",
                epoch=state.active.epoch if state.active else 0,
                bundle=state.active.default.bundle if state.active else OLD,
                ready=state.pending.epoch if state.pending else None,
            )
            answer = await client.post("/internal/rollout", json=report.model_dump())
            state = RolloutState.model_validate_json(answer.content)
            await asyncio.sleep(0.05)

    task = asyncio.create_task(follow())
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_a_bundle_is_published_given_a_share_promoted_and_rolled_back(
    database_url: str,
    redis_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each command says what came of it, and one that is refused says why in one line."""
    for version, models in BUNDLES.items():
        make_bundle(tmp_path, version=version, models=models)
    settings = quick_settings(database_url=database_url, redis_url=redis_url).model_copy(
        update={"bundle_store": str(tmp_path / "store")}
    )

    async def said(line: str, code: int = 0, *more: str) -> str:
        assert await asyncio.to_thread(main, [*line.split(), *more]) == code
        captured = capsys.readouterr()
        # The service logs to the same stream.
        logged = [line for line in captured.err.splitlines() if not line.startswith("{")]
        return "\n".join(logged) if code else captured.out

    async with served(create_app(settings), headers=keys.HEADERS) as client, _replica(client):
        monkeypatch.setenv("HISTORY_URL", str(client.base_url))
        assert "Send a valid API key" in await said("bundle list", 1)
        monkeypatch.setenv("API_KEY", keys.SECRET)

        for version in (OLD, NEW):
            assert "is published" in await said(f"bundle publish {tmp_path / version}")
        assert "published by tests" in await said("bundle list")
        assert "no card" in await said(f"bundle show {NEW}")
        assert "is intact" in await said(f"bundle verify {NEW}")
        assert "The same data." in await said(f"bundle compare {OLD} {NEW}")

        shown = await said("rollout show")
        assert "Nothing is rolled out" in shown
        assert f"one  at 0 (its own default, {OLD})" in shown
        line = f"rollout set --default {OLD} --reason begin"
        assert f"roll-out 1 (active): {OLD}/random_forest" in await said(line)
        arms = f"--candidate {NEW}/gradient_boosting --share 10%"
        found = await said(f"{line} {arms} --shadow {OLD}/gradient_boosting")
        assert f"10 % meet {NEW}/gradient_boosting (x2)" in found
        assert "each arm needs 200" in await said("rollout report")
        refused = await said(f"bundle retire {NEW} --reason tired", 1)
        assert refused == f"{NEW} is in use: roll-out 2 names it."
        assert "(active)" in await said("rollout promote --reason better")
        refused = await said("rollout rollback --epoch 1 --reason late", 1)
        assert "newest roll-out has the epoch 3" in refused
        assert f"roll-out 4 (active): {OLD}" in await said("rollout rollback --reason worse")
        assert "one  at 4" in await said("rollout show")
        assert "is retired" in await said(f"bundle retire {NEW} --reason worse")
        refused = await said(f"rollout set --default {NEW} --reason again", 1)
        assert refused.endswith("default.bundle is retired.")
        assert "does not wait" in await said("rollout approve 4", 1)
        asked = (await said("what-if ask --refer 0.4 0.6 --cost approved_bad=9")).split()
        assert asked[1:5] == ["queued", "0", "of", "0"]
        assert " ".join(asked).endswith("from 40.0 % to below 60.0 %; all decisions")
        assert (await said("what-if list")).split() == asked
        assert "cancelled" in await said(f"what-if cancel {asked[0]}")
        assert "cancelled" in await said(f"what-if show {asked[0]} --wait")
        assert "one of arm, threshold and refer" in await said("what-if ask", 1)
        refused = await said("what-if ask --arm b-nope", 1)
        assert refused == "'b-nope' is no version of a bundle, such as b-0a1b2c3d"
        monkeypatch.setattr(replicas, "ALIVE_S", 0.0)
        assert "one  not heard of since" in await said("rollout show")


async def test_publishing_a_bundle_that_ships_changes_nothing_and_says_so(
    database_url: str,
    redis_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nor does publishing one again. One that was only registered is put into the store."""
    for root, version in (("ships", OLD), ("new", NEW)):
        make_bundle(tmp_path / root, version=version, models=BUNDLES[version])
    settings = quick_settings(database_url=database_url, redis_url=redis_url).model_copy(
        update={"bundle_store": str(tmp_path / "store"), "bundle_root": tmp_path / "ships"}
    )

    async def published(folder: Path) -> str:
        assert await asyncio.to_thread(main, ["bundle", "publish", str(folder)]) == 0
        return capsys.readouterr().out

    async with served(create_app(settings), headers=keys.HEADERS) as client:
        monkeypatch.setenv("HISTORY_URL", str(client.base_url))
        monkeypatch.setenv("API_KEY", keys.SECRET)
        for folder in (tmp_path / "ships" / OLD, tmp_path / "new" / NEW):
            content = (folder / "manifest.json").read_bytes()
            assert (await client.post("/internal/bundles", content=content)).is_success
        before = (await client.get("/admin/bundles")).json()
        unchanged = "{} was registered before; nothing has changed.\n"
        assert await published(tmp_path / "ships" / OLD) == unchanged.format(OLD)
        assert (await client.get("/admin/bundles")).json() == before
        assert not (tmp_path / "store").exists()

        said = await published(tmp_path / "new" / NEW)
        assert said == f"{NEW} was registered before, and is in the store now.\n"
        assert (await client.get(f"/admin/bundles/{NEW}")).json()["published_by"] == "tests"
        assert await published(tmp_path / "new" / NEW) == unchanged.format(NEW)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda folder: (folder / "random_forest.onnx").write_bytes(b""), "is altered"),
        (lambda folder: (folder / "manifest.json").unlink(), "cannot be read"),
    ],
)
def test_a_damaged_bundle_is_not_even_sent(
    damage: Callable[[Path], Any],
    sentence: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_bundle(tmp_path, version=NEW, models=MODELS)
    damage(tmp_path / NEW)
    assert main(["bundle", "publish", str(tmp_path / NEW)]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert sentence in line


@pytest.mark.parametrize("wrong", ["--threshold nan", "--refer 0 1e400", "--cost referred=x"])
def test_a_number_that_is_not_finite_is_refused_in_words(
    wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["what-if", "ask", *wrong.split()])
    assert capsys.readouterr().err.endswith(" is not a finite number\n")


@pytest.mark.parametrize("alone", ["--candidate b-00000000", "--share 10"])
def test_a_candidate_without_its_share_is_a_wrong_argument(
    alone: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--default", "b-00000000/one", "--reason", "none", *alone.split()]
    assert main(["rollout", "set", *given]) == 2
    assert capsys.readouterr().err == "--candidate and --share are given together.\n"


def test_what_another_product_answers_is_said_to_be_so() -> None:
    for text in ("<html>", "[]"):
        transport = httpx.MockTransport(lambda _, text=text: httpx.Response(200, text=text))
        with (
            httpx.Client(base_url="http://other", transport=transport) as http,
            pytest.raises(Refused, match="answered with something else than this product does"),
        ):
            Service(http).get("what-if")


def test_a_service_that_is_away_is_named_with_the_reason_in_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HISTORY_URL", f"http://127.0.0.1:{free_port()}")
    assert main(["what-if", "list"]) == 1
    assert capsys.readouterr().err.endswith("/admin/ does not answer: Connection refused.\n")


@pytest.mark.system
def test_a_command_whose_output_is_not_read_ends_silently() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "services.local.config"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")
