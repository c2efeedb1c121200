"""A manifest that cannot be served is refused in one sentence."""

import json
from functools import partial
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
from pydantic import ValidationError

from services.scoring.manifest import (
    BUNDLE_ROOT,
    CURRENT_FILE,
    MANIFEST_FILE,
    RESERVED_NAMES,
    SCHEMA_VERSION,
    BundleError,
    Manifest,
    check_files,
    content_version,
    read_current_version,
    read_manifest,
)
from services.scoring.registry import load_bundle


@pytest.fixture(scope="module")
def shipped() -> Path:
    """The folder of the bundle that the product ships."""
    return BUNDLE_ROOT / read_current_version(BUNDLE_ROOT)


@pytest.fixture
def content(shipped: Path) -> dict[str, Any]:
    """Its manifest as plain data, to alter."""
    content: dict[str, Any] = json.loads((shipped / MANIFEST_FILE).read_bytes())
    return content


def test_version_is_a_hash_of_the_manifest_whatever_its_schema() -> None:
    """As training makes it: also of the members as a reader of the newest schema writes them."""
    for path in BUNDLE_ROOT.glob(f"b-*/{MANIFEST_FILE}"):
        assert content_version(path.read_bytes()) == path.parent.name
    newest = read_manifest(BUNDLE_ROOT / read_current_version(BUNDLE_ROOT) / MANIFEST_FILE)
    assert content_version(newest.model_dump_json().encode()) == newest.version


def refusal(folder: Path, text: str) -> str:
    """The sentence that refuses a manifest with this text."""
    path = folder / MANIFEST_FILE
    path.write_text(text)
    with pytest.raises(BundleError) as caught:
        read_manifest(path)
    sentence = str(caught.value)
    assert sentence.startswith(str(path))
    assert "\n" not in sentence
    return sentence.removeprefix(f"{path} ")


def test_manifest_survives_writing_and_reading(shipped: Path, tmp_path: Path) -> None:
    """Its own JSON reads back as the same manifest."""
    manifest = read_manifest(shipped / MANIFEST_FILE)
    (tmp_path / "copy.json").write_text(manifest.model_dump_json())
    assert read_manifest(tmp_path / "copy.json") == manifest


def test_manifest_cannot_be_changed(shipped: Path) -> None:
    """What was read stays as it was read."""
    manifest: Any = read_manifest(shipped / MANIFEST_FILE)
    with pytest.raises(ValidationError, match="frozen"):
        manifest.champion = "random_forest"


def test_missing_manifest_is_named(tmp_path: Path) -> None:
    """The sentence has the path and the reason."""
    with pytest.raises(BundleError, match=r"none\.json cannot be read: No such file"):
        read_manifest(tmp_path / "none.json")


def test_newer_schema_is_refused_whatever_else_it_holds(tmp_path: Path) -> None:
    """The version is looked at before the rest, which this reader cannot know."""
    newer = json.dumps({"schema_version": SCHEMA_VERSION + 1, "unheard_of": True})
    assert refusal(tmp_path, newer).startswith(
        f"has schema version {SCHEMA_VERSION + 1}, newer than the {SCHEMA_VERSION} "
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "is no valid JSON: "),
        ("[" * 100_000, "is no valid JSON: "),
        ('{"a":' * 100_000, "is no valid JSON: "),
        ("[]", "is no valid manifest: Input should be"),
        ("{}", "is no valid manifest: Field required (version; "),
    ],
)
def test_broken_manifest_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    """Text that is no JSON, and JSON that is no manifest."""
    assert refusal(tmp_path, text).startswith(sentence)


def test_unknown_member_is_refused(tmp_path: Path, content: dict[str, Any]) -> None:
    """Within one schema version nothing is silently passed over."""
    refused = refusal(tmp_path, json.dumps(content | {"extra": 1}))
    assert (
        refused == "is no valid manifest: Extra inputs are not permitted (extra; 1 fault(s) in all)"
    )


@pytest.mark.parametrize("section", ["models", "timings"])
def test_model_without_its_counterpart_is_refused(
    tmp_path: Path, content: dict[str, Any], section: str
) -> None:
    del content[section]["random_forest"]
    refused = refusal(tmp_path, json.dumps(content))
    assert "the models and the timings name different models" in refused


def test_champion_must_be_one_of_the_models(tmp_path: Path, content: dict[str, Any]) -> None:
    refused = refusal(tmp_path, json.dumps(content | {"champion": "nobody"}))
    assert "the champion nobody is not one of the models" in refused


@pytest.mark.parametrize("name", ["../up", "Upper", "", "with space", "a" * 65])
def test_model_whose_name_is_no_path_segment_is_refused(
    tmp_path: Path, content: dict[str, Any], name: str
) -> None:
    content["models"][name] = content["models"]["random_forest"]
    assert "String should match pattern" in refusal(tmp_path, json.dumps(content))


@pytest.mark.parametrize("name", sorted(RESERVED_NAMES))
def test_model_whose_name_is_reserved_for_an_address_is_refused(
    tmp_path: Path, content: dict[str, Any], name: str
) -> None:
    """When it is loaded, and when training makes its manifest."""
    content["models"][name] = content["models"]["random_forest"]
    assert f"no model can be named {name}" in refusal(tmp_path, json.dumps(content))


def test_model_without_checksum_is_refused(tmp_path: Path, content: dict[str, Any]) -> None:
    """No model file is served unverified."""
    del content["files"]["random_forest.onnx"]
    assert "no checksum for random_forest.onnx" in refusal(tmp_path, json.dumps(content))


@pytest.mark.parametrize(
    "name", ["img/../../../x.png", "../x", "/etc/passwd", "img/a/../b.png", "..", "", "img//x.png"]
)
def test_file_outside_the_bundle_is_refused(
    tmp_path: Path, content: dict[str, Any], name: str
) -> None:
    """Nothing else of the machine is read, let alone served as a picture."""
    content["files"][name] = "0" * 64
    assert "String should match pattern" in refusal(tmp_path, json.dumps(content))


@pytest.mark.parametrize("version", ["../b", "b-01234567/..", ".", "", "/b-01234567", "b-0123456"])
def test_version_that_is_a_path_is_refused(tmp_path: Path, version: str) -> None:
    """Whether CURRENT or a setting names it, a bundle lies under its root."""
    (tmp_path / CURRENT_FILE).write_text(version)
    for read in (read_current_version, partial(load_bundle, version=version or None)):
        with pytest.raises(BundleError, match="is no version of a bundle"):
            read(tmp_path)


def test_current_version_is_read_without_its_line_end(tmp_path: Path) -> None:
    """The file holds the version and a newline; a missing file is one sentence."""
    with pytest.raises(BundleError, match="no bundle is published there"):
        read_current_version(tmp_path)
    (tmp_path / CURRENT_FILE).write_text("b-01234567\n")
    assert read_current_version(tmp_path) == "b-01234567"


def test_every_missing_or_altered_file_is_named(shipped: Path, tmp_path: Path) -> None:
    """One sentence names all damage; an intact copy passes."""
    copy = Path(copytree(shipped, tmp_path / shipped.name))
    manifest: Manifest = read_manifest(copy / MANIFEST_FILE)
    check_files(copy, manifest)
    (copy / "random_forest.onnx").unlink()
    with (copy / "gradient_boosting.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(BundleError) as caught:
        check_files(copy, manifest)
    assert "random_forest.onnx cannot be read" in str(caught.value)
    assert "gradient_boosting.onnx is altered" in str(caught.value)
