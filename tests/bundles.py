"""Bundles to serve in tests, made of the shipped one."""

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from shutil import copy
from typing import Any

from services.scoring.manifest import (
    BUNDLE_ROOT,
    CURRENT_FILE,
    MANIFEST_FILE,
    read_current_version,
)


def make_bundle(root: Path, *, version: str, models: Mapping[str, str]) -> None:
    """Publish a bundle under ``root``: each model is a copy of the shipped one that it names.

    The first model is the champion. There is no model card.
    """
    shipped = BUNDLE_ROOT / read_current_version(BUNDLE_ROOT)
    manifest: dict[str, Any] = json.loads((shipped / MANIFEST_FILE).read_bytes())
    folder = root / version
    folder.mkdir(parents=True)
    files = {}
    for name, source in models.items():
        for kind in ("onnx", "joblib"):
            target = Path(copy(shipped / f"{source}.{kind}", folder / f"{name}.{kind}"))
            files[target.name] = sha256(target.read_bytes()).hexdigest()
    manifest |= {
        "version": version,
        "champion": next(iter(models)),
        "models": {name: manifest["models"][source] for name, source in models.items()},
        "timings": {name: manifest["timings"][source] for name, source in models.items()},
        "files": files,
    }
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest))
    (root / CURRENT_FILE).write_text(version)
