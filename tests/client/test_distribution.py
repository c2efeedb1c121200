"""The client as somebody else installs it: alone, from its wheel."""

import json
import shutil
import subprocess
import sys
import tomllib
import venv
from collections.abc import Iterator
from importlib.metadata import Distribution, PathDistribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from shared.contract.application import EXAMPLE
from shared.version import VERSION
from tests.harness import System

_UV = Path(sys.executable).with_name("uv")
_PROJECT = Path(__file__).parents[2] / "client"
_PROGRAM = """
import json, sys
from loan_predictor_client import LoanPredictorClient
url, api_key, application = json.loads(sys.argv[1])
with LoanPredictorClient(url, api_key=api_key) as client:
    print(client.predict(application).prediction)
"""


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client's wheel, built as `make client` does."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([_UV, "build", "--quiet", "--out-dir", folder, _PROJECT], check=True)
    [wheel] = folder.glob("*.whl")
    return wheel


def test_wheel_decides_in_an_empty_environment(wheel: Path, system: System, tmp_path: Path) -> None:
    """Nothing but the wheel and what it declares to need is there, and it is typed."""
    venv.create(tmp_path / "venv")
    python = tmp_path / "venv/bin/python"
    options = ["--quiet", "--offline", "--no-deps", "--python", str(python)]
    subprocess.run([_UV, "pip", "install", *options, wheel], check=True)
    [packages] = (tmp_path / "venv").glob("lib/python*/site-packages")
    [metadata] = packages.glob("*.dist-info")
    for needed in _needed_by(PathDistribution(metadata)):
        _copy(needed, packages)
    assert (packages / "loan_predictor_client/py.typed").exists()

    arguments = json.dumps([system.inference_url, system.api_key, EXAMPLE])
    decided = subprocess.run(
        [python, "-I", "-c", _PROGRAM, arguments],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert decided.stdout.strip() in {"Approved", "Rejected"}


def test_client_bears_the_version_of_the_product() -> None:
    project = tomllib.loads((_PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == VERSION


def _needed_by(dependent: Distribution) -> Iterator[Distribution]:
    """What it requires, directly or not, as it is installed here."""
    for line in dependent.requires or ():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            needed = distribution(requirement.name)
            yield needed
            yield from _needed_by(needed)


def _copy(installed: Distribution, packages: Path) -> None:
    for file in installed.files or ():
        if ".." not in file.parts:
            target = packages / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file.locate(), target)
