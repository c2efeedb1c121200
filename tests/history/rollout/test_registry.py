"""Bundles are verified before anything is kept, and never removed."""

import io
import json
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from services.history.rollout import archive
from services.history.settings import HistorySettings
from services.scoring.manifest import MANIFEST_FILE
from services.scoring.store import MAX_BYTES
from tests.bundles import make_bundle, version_of
from tests.history.rollout.conftest import FIRST, MODELS, SECOND, THIRD, Registry, archive_of, arm
from tests.history.storage import rows_of

_MODELS = {"other": "random_forest"} | MODELS
_NEW = version_of(_MODELS)
_ZIP = {"content-type": "application/zip"}


def _tree(folder: Path) -> dict[str, bytes]:
    """Every file below ``folder``, by its path in it."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _zip(files: Mapping[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in files.items():
            opened.writestr(name, content)
    return file.getvalue()


def _with_manifest(files: dict[str, bytes], **members: Any) -> dict[str, bytes]:
    manifest = json.loads(files[MANIFEST_FILE]) | members
    return files | {MANIFEST_FILE: json.dumps(manifest).encode()}


def _tampered(files: dict[str, bytes]) -> bytes:
    return _zip(files | {"random_forest.onnx": files["random_forest.onnx"] + b"!"})


def _with_a_bomb(files: dict[str, bytes]) -> bytes:
    return _zip(files | {"zeros": bytes(MAX_BYTES + 1)})


def _lying_about_its_size(files: dict[str, bytes]) -> bytes:
    # The size in the list of files is made smaller than what is packed.
    size = 2 * len(files[MANIFEST_FILE])
    packed = _zip({**files, "zeros": bytes(size)})
    place = packed.rindex(b"zeros") - 22
    return packed[:place] + (10).to_bytes(4, "little") + packed[place + 4 :]


_UNUSABLE: dict[str, Callable[[dict[str, bytes]], bytes]] = {
    "no intact ZIP archive": lambda files: _zip(files)[:-200],
    "no intact ZIP archive: File is not": lambda _: b"no archive at all",
    "random_forest.onnx is altered": _tampered,
    "zeros": _lying_about_its_size,
    "random_forest.joblib is missing": lambda files: _zip(
        {name: content for name, content in files.items() if name != "random_forest.joblib"}
    ),
    "run.py is not in the manifest": lambda files: _zip(files | {"run.py": b"import os"}),
    "schema version 99": lambda files: _zip(_with_manifest(files, schema_version=99)),
    "no valid manifest": lambda files: _zip(_with_manifest(files, seed=None)),
    "needs one manifest.json": lambda _: _zip({"readme": b""}),
    "'../../escaped' is no file": lambda files: _zip(files | {"../../escaped": b""}),
    "'/etc/escaped' is no file": lambda files: _zip(files | {"/etc/escaped": b""}),
    "'a/b/c' is no file": lambda files: _zip(files | {"a/b/c": b""}),
    f"more than {archive.MAX_FILES} files": lambda files: _zip(
        files | {f"f{number}": b"" for number in range(archive.MAX_FILES)}
    ),
    "MiB unpacked": _with_a_bomb,
}


async def test_what_is_no_intact_bundle_is_refused_in_one_sentence_and_changes_nothing(
    registry: Registry, made: Path, tmp_path: Path, engine: AsyncEngine
) -> None:
    """Whatever is in the archive, nothing is kept, in the store or out of it."""
    files = _tree(made / FIRST)
    before = await rows_of(engine, "bundles")
    there = _tree(tmp_path)
    for sentence, make in _UNUSABLE.items():
        answer = await registry.client.post("/admin/bundles", content=make(files), headers=_ZIP)
        assert answer.status_code == 400, sentence
        problem = answer.json()
        assert problem["code"] == "UnusableBundle"
        assert sentence in problem["detail"], problem["detail"]
        assert "\n" not in problem["detail"]
    assert await rows_of(engine, "bundles") == before
    assert await rows_of(engine, "audit_log") == []
    assert _tree(tmp_path) == there


async def test_a_bundle_is_published_listed_shown_verified_compared_and_retired(
    registry: Registry, settings: HistorySettings, tmp_path: Path, engine: AsyncEngine
) -> None:
    """It stays in the store after it is retired, and decides nothing new."""
    make_bundle(tmp_path / "new", version=_NEW, models=_MODELS)
    packed = archive_of(tmp_path / "new" / _NEW)
    answer = await registry.client.post("/admin/bundles", content=packed, headers=_ZIP)
    assert answer.status_code == 201, answer.text
    published = answer.json()
    assert (published["version"], published["published_by"]) == (_NEW, "tests")
    again = await registry.client.post("/admin/bundles", content=packed, headers=_ZIP)
    assert again.json() == published
    store = Path(settings.bundle_store or "")
    assert _tree(store / _NEW) == _tree(tmp_path / "new" / _NEW)

    listed = (await registry.client.get("/admin/bundles")).json()["bundles"]
    assert published in listed
    assert {each["version"]: each["published_at"] is None for each in listed}[SECOND]
    shown = (await registry.client.get(f"/admin/bundles/{_NEW}")).json()
    assert published.items() <= shown.items()
    assert shown["manifest"] == json.loads((store / _NEW / MANIFEST_FILE).read_bytes())
    assert shown["manifest"]["data"]["sha256"] == published["data_sha256"]
    missing = await registry.client.get("/admin/bundles/b-ffffffff")
    assert (missing.status_code, missing.json()["code"]) == (404, "NotFound")

    both = {"of": FIRST, "with": _NEW}
    compared = (await registry.client.get("/admin/bundles/compare", params=both)).json()
    assert compared["same_data"] is True
    assert compared["differs"] == ["champion"]
    found = {(each["model"], each["metric"]): each for each in compared["measured"]}
    assert found["other", "auc"]["of"] is None
    assert found["random_forest", "auc"]["of"] == found["random_forest", "auc"]["with"]

    assert (await registry.post(f"bundles/{_NEW}/verify", 200))["intact"]
    await registry.roll_out(0, FIRST, _NEW)
    problem = await registry.post(f"bundles/{_NEW}/retire", 409)
    assert "roll-out 1" in problem["detail"]
    await registry.roll_out(1, FIRST)
    retired = await registry.post(f"bundles/{_NEW}/retire", 200, reason="worse")
    assert (retired["retired_by"], retired["uses"]) == ("tests", [])
    assert (await registry.post(f"bundles/{_NEW}/retire", 200))["retired_at"]
    body = {"default": {"bundle": _NEW, "model": "other"}}
    [fault] = (await registry.post("rollout", 400, epoch=2, **body))["validation_errors"]
    assert (fault["field"], fault["message"]) == ("default.bundle", "is retired")
    assert (store / _NEW / MANIFEST_FILE).exists()
    actions = [row["action"] for row in await rows_of(engine, "audit_log")]
    assert actions.count("publish bundle") == actions.count("retire bundle") == 1


async def test_a_bundle_that_a_replica_decides_by_is_not_retired(registry: Registry) -> None:
    """Also before the first roll-out, when it is the replica's own default."""
    await registry.report(bundle=FIRST)
    [replica] = (await registry.status())["replicas"]
    assert (replica["epoch"], replica["bundle"]) == (0, FIRST)
    problem = await registry.post(f"bundles/{FIRST}/retire", 409)
    assert problem["detail"] == f"{FIRST} is in use: it decides at one."
    await registry.post(f"bundles/{SECOND}/retire", 200)
    await registry.report(bundle=THIRD)
    await registry.post(f"bundles/{FIRST}/retire", 200)


async def test_a_bundle_that_its_gate_refused_may_only_shadow(
    registry: Registry, tmp_path: Path
) -> None:
    """The gate's result is in the manifest; nobody can publish the bundle again without it."""
    make_bundle(tmp_path, version=_NEW, models=_MODELS)
    files = _tree(tmp_path / _NEW)
    judged = _with_manifest(files, gate={"passed": False, "findings": ["log-loss is worse"]})
    edited = _with_manifest(judged, threshold=0.1)
    for content, status, said in (
        (judged, 201, _NEW),
        (files, 400, f"Another bundle is registered as {_NEW}."),
        (edited, 400, f"The manifest of {_NEW} is altered: by its content the version is b-"),
    ):
        answer = await registry.client.post("/admin/bundles", content=_zip(content), headers=_ZIP)
        assert answer.status_code == status, answer.text
        assert said in answer.text
    shown = (await registry.client.get(f"/admin/bundles/{_NEW}")).json()
    assert shown["gate_passed"] is False
    assert shown["manifest"]["gate"]["findings"] == ["log-loss is worse"]

    for body, field in (
        ({"default": arm(_NEW)}, "default.bundle"),
        ({"default": arm(FIRST), "candidate": arm(_NEW) | {"share": 1}}, "candidate.bundle"),
    ):
        [fault] = (await registry.post("rollout", 400, epoch=0, **body))["validation_errors"]
        assert (fault["field"], "may only shadow" in fault["message"]) == (field, True)
    await registry.set(0, FIRST, shadows=[arm(_NEW)])


async def test_a_bundle_that_was_changed_in_the_store_is_found_out_and_not_rolled_out(
    registry: Registry, settings: HistorySettings, tmp_path: Path
) -> None:
    """Also where the manifest was written anew to fit, and where the bundle is gone."""
    make_bundle(tmp_path, version=_NEW, models=_MODELS)
    content = archive_of(tmp_path / _NEW)
    await registry.client.post("/admin/bundles", content=content, headers=_ZIP)
    stored = Path(settings.bundle_store or "") / _NEW

    async def fault() -> str:
        found = await registry.post(f"bundles/{_NEW}/verify", 200)
        problem = await registry.post("rollout", 400, epoch=0, default=arm(_NEW))
        assert problem["detail"] == found["fault"]
        return str(found["fault"])

    model = stored / "random_forest.onnx"
    model.write_bytes(model.read_bytes() + b"!")
    assert "random_forest.onnx is altered" in await fault()
    shutil.rmtree(stored)
    make_bundle(stored.parent, version=_NEW, models={"other": "random_forest"})
    assert await fault() == f"The manifest of {_NEW} is not the one that is registered."
    shutil.rmtree(stored)
    assert f"{_NEW} cannot be read: it is not published here" in await fault()
