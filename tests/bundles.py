"""Bundles to serve in tests, made of the shipped one."""

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any

from services.scoring.manifest import (
    BUNDLE_ROOT,
    CURRENT_FILE,
    MANIFEST_FILE,
    content_version,
    read_current_version,
)


def make_bundle(
    root: Path,
    *,
    version: str,
    models: Mapping[str, str],
    changed: Mapping[str, bytes] = MappingProxyType({}),
) -> None:
    """Publish a bundle under ``root``: each model is a copy of the shipped one that it names.

    The first model is the champion. There is no model card. Files in ``changed`` have those bytes.
    """
    folder = root / version
    folder.mkdir(parents=True)
    files = {**_files(models), **changed}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / MANIFEST_FILE).write_text(json.dumps(_manifest(version, models, files)))
    (root / CURRENT_FILE).write_text(version)


def version_of(
    models: Mapping[str, str], changed: Mapping[str, bytes] = MappingProxyType({})
) -> str:
    """The version that ``make_bundle`` has to be given for a bundle that can be published."""
    manifest = _manifest("b-00000000", models, {**_files(models), **changed})
    return content_version(json.dumps(manifest).encode())


def _shipped() -> Path:
    return BUNDLE_ROOT / read_current_version(BUNDLE_ROOT)


def _files(models: Mapping[str, str]) -> dict[str, bytes]:
    return {
        f"{name}.{kind}": (_shipped() / f"{source}.{kind}").read_bytes()
        for name, source in models.items()
        for kind in ("onnx", "joblib")
    }


def _manifest(
    version: str, models: Mapping[str, str], files: Mapping[str, bytes]
) -> dict[str, Any]:
    shipped: dict[str, Any] = json.loads((_shipped() / MANIFEST_FILE).read_bytes())
    return shipped | {
        "version": version,
        "champion": next(iter(models)),
        "models": {name: shipped["models"][source] for name, source in models.items()},
        "timings": {name: shipped["timings"][source] for name, source in models.items()},
        "files": {name: sha256(content).hexdigest() for name, content in files.items()},
    }
