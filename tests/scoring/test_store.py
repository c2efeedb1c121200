"""The bundle store: what is published is there whole, and nothing else ever is."""

import os
from base64 import b64encode
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import ValidationError

from services.inference.settings import InferenceSettings
from services.scoring import store as module
from services.scoring.manifest import (
    BUNDLE_ROOT,
    MANIFEST_FILE,
    SCHEMA_VERSION,
    SIGNATURE_FILE,
    BundleError,
    read_current_version,
)
from services.scoring.registry import load_bundle
from services.scoring.store import BundleStore
from tests.bundles import make_bundle

_NEW = "b-00000001"
Files = dict[str, bytes]


def _files_of(folder: Path) -> Files:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """The files of a bundle."""
    make_bundle(tmp_path / "made", version=_NEW, models={"newcomer": "gradient_boosting"})
    return _files_of(tmp_path / "made" / _NEW)


@pytest.fixture(params=["folder", "objects"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty store."""
    return str(tmp_path / "store") if request.param == "folder" else (tmp_path / "objects").as_uri()


def _store(address: str | None) -> BundleStore:
    return BundleStore(address, shipped=BUNDLE_ROOT)


def test_a_published_bundle_is_found_whole_by_every_process(address: str, files: Files) -> None:
    assert _store(address).publish(files).version == _NEW
    elsewhere = _store(address)
    assert _files_of(elsewhere.folder(_NEW)) == files
    assert load_bundle(elsewhere.folder(_NEW).parent, _NEW).champion.name == "newcomer"
    shipped = {path.name for path in BUNDLE_ROOT.glob("b-*")}
    assert {*elsewhere.versions()} == shipped | {_NEW}
    assert elsewhere.folder(read_current_version(BUNDLE_ROOT)).parent == BUNDLE_ROOT


def test_publishing_again_changes_nothing_and_another_bundle_of_the_same_version_is_refused(
    address: str, files: Files
) -> None:
    store = _store(address)
    store.publish(files)
    store.publish(files)
    other = files | {MANIFEST_FILE: files[MANIFEST_FILE].replace(b'"seed": ', b'"seed": 1')}
    with pytest.raises(BundleError, match=f"Another bundle is published as {_NEW}"):
        store.publish(other)
    assert _files_of(_store(address).folder(_NEW)) == files


def _newer(files: Files) -> Mapping[str, bytes]:
    old = f'"schema_version": {SCHEMA_VERSION}'.encode()
    assert old in files[MANIFEST_FILE]
    return {MANIFEST_FILE: files[MANIFEST_FILE].replace(old, b'"schema_version": 99')}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda _: {"newcomer.onnx": b"x"}, "newcomer.onnx is altered"),
        (lambda files: {"newcomer.onnx": files["newcomer.onnx"][:-9]}, "newcomer.onnx is altered"),
        (lambda _: {"newcomer.onnx": None}, "newcomer.onnx is missing"),
        (lambda _: {"../other": b"x"}, "../other is not in the manifest"),
        (lambda _: {MANIFEST_FILE: None}, "The bundle has no manifest.json"),
        (lambda files: {MANIFEST_FILE: files[MANIFEST_FILE][:-9]}, "is no valid JSON"),
        (_newer, f"newer than the {SCHEMA_VERSION} that this service reads"),
    ],
    ids=["altered", "truncated", "missing", "extra", "no manifest", "half a manifest", "newer"],
)
def test_what_is_no_bundle_is_refused_in_one_sentence_and_changes_nothing(
    address: str, files: Files, change: Callable[[Files], dict[str, bytes | None]], sentence: str
) -> None:
    store = _store(address)
    before = store.versions()
    changed = {name: content for name, content in {**files, **change(files)}.items() if content}
    with pytest.raises(BundleError, match=sentence):
        store.publish(changed)
    assert store.versions() == before
    with pytest.raises(BundleError, match="is not published here"):
        store.folder(_NEW)


def test_only_what_the_configured_key_has_signed_is_published_and_found(
    address: str, files: Files
) -> None:
    """Not signed, signed by another key, and altered since: refused in one sentence."""
    key, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    encoded = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    settings = InferenceSettings(
        bundle_store=address, bundle_public_key=b64encode(encoded).decode()
    )
    store = settings.open_store()
    with pytest.raises(BundleError, match=f"{SIGNATURE_FILE} is missing"):
        store.publish(files)
    with pytest.raises(BundleError, match="of another key or manifest"):
        store.publish(files | {SIGNATURE_FILE: other.sign(files[MANIFEST_FILE])})
    assert _NEW not in store.versions()
    signed = files | {SIGNATURE_FILE: key.sign(files[MANIFEST_FILE])}
    store.publish(signed)
    assert _files_of(settings.open_store().folder(_NEW)) == signed
    assert store.folder(read_current_version(BUNDLE_ROOT)).parent == BUNDLE_ROOT


def test_a_bundle_published_without_a_signature_is_not_found_where_one_is_needed(
    address: str, files: Files
) -> None:
    """As when the key is configured later, or somebody writes into the store."""
    _store(address).publish(files)
    key = Ed25519PrivateKey.generate().public_key()
    encoded = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    store = BundleStore(address, shipped=BUNDLE_ROOT, public_key=b64encode(encoded).decode())
    with pytest.raises(BundleError, match="is not signed by the key of BUNDLE_PUBLIC_KEY"):
        store.folder(_NEW)


@pytest.mark.parametrize("key", ["nonsense", b64encode(bytes(44)).decode()])
def test_what_is_no_key_is_an_unusable_setting(key: str) -> None:
    with pytest.raises(ValidationError, match="must be an Ed25519 public key"):
        InferenceSettings(bundle_public_key=key)


def test_a_bundle_that_is_too_large_is_refused(
    files: Files, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 1000)
    with pytest.raises(BundleError, match="has more than"):
        _store(address).publish(files)


def test_publishing_that_is_cut_off_leaves_nothing_to_be_found(
    tmp_path: Path, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = _store(str(tmp_path / "store"))

    def stop(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", stop)
    with pytest.raises(BundleError, match="No space left"):
        store.publish(files)
    assert list((tmp_path / "store").iterdir()) == []
    assert _NEW not in store.versions()


def test_without_a_store_nothing_is_published_and_the_shipped_bundles_are_there(
    files: Files,
) -> None:
    with pytest.raises(BundleError, match="set BUNDLE_STORE"):
        _store(None).publish(files)
    assert read_current_version(BUNDLE_ROOT) in _store(None).versions()


def test_a_store_that_cannot_be_written_is_reported(files: Files, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    with pytest.raises(BundleError, match="The store of bundles cannot be used"):
        _store(str(tmp_path / "store")).publish(files)


@pytest.mark.parametrize(
    "address",
    ["nothing://x", "ftp://x/y", "github://a:b@x/", "s3://", "s3:///x", "http://x/y", "memory://x"],
)
def test_an_address_of_no_store_that_works_is_an_unusable_setting(address: str) -> None:
    """It is found without a connection to where it leads."""
    with pytest.raises(ValidationError, match="is no folder and no address such as s3://"):
        InferenceSettings(bundle_store=address)


def test_an_object_store_or_none_is_a_usable_setting() -> None:
    assert InferenceSettings(bundle_store="s3://x/y").bundle_store == "s3://x/y"
    assert InferenceSettings(bundle_store="").bundle_store is None
