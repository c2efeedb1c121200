"""What a release consists of: its version, its wheel and the workflow that publishes it."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from shared.version import VERSION

_ROOT: Final = Path(__file__).parents[1]
_WORKFLOWS: Final = sorted((_ROOT / ".github/workflows").glob("*.yml"))
_PACKAGES: Final = ("services", "shared")
_DEPLOYMENT: Final = ("gateway", "observability", "postgres")
"""Folders of services that hold no Python: the container stack mounts their files."""


@pytest.mark.system
def test_wheel_contains_every_file_of_the_packages(tmp_path: Path) -> None:
    """Bundle, migrations, templates and assets are installed with the code."""
    source = tmp_path / "source"
    ignore = shutil.ignore_patterns("__pycache__", *_DEPLOYMENT)
    for package in _PACKAGES:
        shutil.copytree(_ROOT / package, source / package, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(_ROOT / name, source)
    uv = Path(sys.executable).with_name("uv")
    command = [str(uv), "build", "--wheel", "--out-dir", str(tmp_path / "dist"), str(source)]
    built = subprocess.run(command, check=False, capture_output=True, text=True)
    if "Failed to resolve requirements from `build-system.requires`" in built.stderr:
        pytest.skip("the build needs setuptools, which cannot be downloaded here")
    assert built.returncode == 0, built.stderr
    [wheel] = (tmp_path / "dist").glob(f"loan_predictor-{VERSION}-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = {
        path.relative_to(source).as_posix()
        for package in _PACKAGES
        for path in (source / package).rglob("*")
        if path.is_file()
    }
    assert packed == expected


def test_changelog_has_a_dated_section_for_the_version() -> None:
    """The release workflow publishes it as release notes."""
    changelog = (_ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## {re.escape(VERSION)} - \d{{4}}-\d\d-\d\d$", changelog, re.MULTILINE)


@pytest.mark.parametrize("path", _WORKFLOWS, ids=lambda path: path.name)
def test_workflows_pin_actions_by_commit(path: Path) -> None:
    """A tag of an action can be moved; a commit cannot."""
    jobs: dict[str, Any] = yaml.safe_load(path.read_text())["jobs"]
    used = [
        step["uses"] for job in jobs.values() for step in job.get("steps", []) if "uses" in step
    ]
    assert used
    assert all(re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action) for action in used), used


def test_release_builds_every_image_of_the_stack() -> None:
    """No service is left out, and each has a Dockerfile."""
    stack = yaml.safe_load((_ROOT / "docker-compose.yml").read_text())["services"]
    built = {service["image"] for service in stack.values() if "build" in service}
    text = (_ROOT / ".github/workflows/release.yml").read_text()
    loops = re.findall(r"for service in (.*); do", text)
    assert len(loops) == 2
    assert all({f"loan-predictor-{name}" for name in loop.split()} == built for loop in loops)
    used = {service["build"]["dockerfile"] for service in stack.values() if "build" in service}
    assert used == {path.name for path in _ROOT.glob("Dockerfile.*")}


@pytest.mark.system
@pytest.mark.parametrize(
    ("dockerfile", "service", "processes"),
    [
        ("inference", "inference", ["main"]),
        ("inference", "batch", ["main", "worker"]),
        ("history", "history", ["main", "consumer", "migrate", "audit"]),
        ("dashboard", "dashboard", ["main"]),
    ],
)
def test_image_has_all_code_that_its_processes_import(
    dockerfile: str, service: str, processes: list[str], tmp_path: Path
) -> None:
    """The containers are tested where there is an engine; a folder left out shows here."""
    text = (_ROOT / f"Dockerfile.{dockerfile}").read_text().replace("$SERVICE", service)
    copied = re.findall(r"^COPY ((?:services|shared|client)\S*) (\S+)$", text, re.MULTILINE)
    assert copied
    for source, target in copied:
        if (_ROOT / source).is_dir():
            shutil.copytree(_ROOT / source, tmp_path / target, dirs_exist_ok=True)
        else:
            (tmp_path / target).mkdir(parents=True)
            shutil.copy(_ROOT / source, tmp_path / target)
    names = ", ".join(f"services.{service}.{name}" for name in processes)
    command = [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, '.'); import {names}"]
    done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
