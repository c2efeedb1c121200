"""What the images contain, and what they do not. Its name keeps `make test` from collecting it."""

import json
import re
import shutil
import time
from pathlib import Path

import pytest

from tests.compose.engine import ROOT, output_of, run

pytestmark = pytest.mark.system

_INSIDE = """
import importlib.util, json, os, pathlib, shutil, sys
asked = ["onnxruntime", "numpy", "sqlalchemy", "asyncpg", "alembic", "nicegui", "opentelemetry.sdk",
         "s3fs", "sklearn", "pandas",
         "scipy", "joblib", "pytest", "uvicorn", "uvloop", "httptools"]
try:
    pathlib.Path("/app/new").touch()
    writable = True
except OSError:
    writable = False
print(json.dumps({
    "packages": [name for name in asked if importlib.util.find_spec(name)],
    "services": sorted(path.name for path in pathlib.Path("/app/services").iterdir()
                       if path.is_dir() and path.name != "__pycache__"),
    "top": sorted(path.name for path in pathlib.Path("/app").iterdir()),
    "uid": os.getuid(),
    "capabilities": next(line.split()[1] for line in open("/proc/self/status")
                         if line.startswith("CapEff")),
    "writable": writable,
    "tools": [name for name in ("gcc", "cc", "make", "uv", "git") if shutil.which(name)],
    "caches": [path for path in ("/root/.cache", "/var/cache/uv", "/build", "/opt/uv")
               if os.path.exists(path)],
}))
"""
_SERVERS = ["uvicorn", "uvloop", "httptools"]


@pytest.mark.parametrize(
    ("service", "packages", "rooms", "top"),
    [
        (
            "inference",
            ["onnxruntime", "numpy", "opentelemetry.sdk", "s3fs"],
            ["inference", "scoring"],
            ["services", "shared"],
        ),
        (
            "history",
            ["sqlalchemy", "asyncpg", "alembic", "opentelemetry.sdk", "s3fs"],
            # What reads and publishes bundles; no model runs there, for which packages are missing.
            ["history", "scoring"],
            ["services", "shared"],
        ),
        (
            "batch",
            ["onnxruntime", "numpy", "asyncpg", "opentelemetry.sdk", "s3fs"],
            ["batch", "scoring"],
            ["services", "shared"],
        ),
        (
            "dashboard",
            ["nicegui"],
            ["dashboard"],
            ["loan_predictor_client", "services", "shared"],
        ),
    ],
)
def test_image_holds_its_own_part_only_and_needs_no_privilege(
    service: str, packages: list[str], rooms: list[str], top: list[str], notes: list[str]
) -> None:
    """Checked inside, on a read-only file system, as its own user, without any capability."""
    image = f"loan-predictor-{service}"
    _build(ROOT, service, "--tag", image)
    command = ("docker", "run", "--rm", "--read-only", "--cap-drop", "ALL", "--network", "none")
    found = json.loads(output_of(*command, image, "python", "-c", _INSIDE))
    assert found == {
        "packages": packages + _SERVERS,
        "services": rooms,
        "top": top,
        "uid": 10001,
        "capabilities": "0" * 16,
        "writable": False,
        "tools": [],
        "caches": [],
    }
    inspected = json.loads(
        output_of("docker", "image", "inspect", image, "python:3.11-slim-bookworm")
    )
    size, base = (each["Size"] / 1e6 for each in inspected)
    assert inspected[0]["Config"]["Labels"]["org.opencontainers.image.title"]
    notes.append(f"image {service}: {size:.0f} MB, of which {base:.0f} MB are the Python image")


def test_altered_package_is_refused(tmp_path: Path) -> None:
    """A package with another hash than the lock's, or one not in the lock, stops the build."""
    _copy_context(tmp_path)
    lock = tmp_path / "requirements.lock"
    text = lock.read_text()
    entry = re.search(r"^h11==.*?(?=^\S)", text, re.DOTALL | re.MULTILINE)
    assert entry
    altered = re.sub("sha256:[0-9a-f]{8}", "sha256:00000000", entry[0])
    for locked, complaint in ((altered, "Hash mismatch"), ("", "no trusted hash")):
        lock.write_text(text.replace(entry[0], locked))
        done = run(*_build_command(tmp_path, "history", "--progress", "plain"))
        assert done.returncode != 0
        assert complaint in done.stdout + done.stderr


def test_changed_code_rebuilds_in_seconds(tmp_path: Path, notes: list[str]) -> None:
    """Packages are not installed again."""
    _copy_context(tmp_path)
    _build(tmp_path, "inference")
    with (tmp_path / "shared" / "version.py").open("a") as file:
        file.write(f"# {time.time()}\n")
    started_s = time.monotonic()
    _build(tmp_path, "inference")
    took_s = time.monotonic() - started_s
    notes.append(f"rebuilt after a change of code in {took_s:.1f} s")
    assert took_s < 20


def _build(context: Path, service: str, *options: str) -> None:
    output_of(*_build_command(context, service, *options))


def _build_command(context: Path, service: str, *options: str) -> list[str]:
    decides = service in ("inference", "batch")
    file = str(context / ("Dockerfile.inference" if decides else f"Dockerfile.{service}"))
    options = (*options, *(("--build-arg", f"SERVICE={service}") if decides else ()))
    return ["docker", "build", "--file", file, *options, str(context)]


def _copy_context(folder: Path) -> None:
    for name in (".dockerignore", "Dockerfile.history", "Dockerfile.inference", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    shutil.copy(ROOT / "requirements.lock", folder)
    for name in ("services", "shared"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
