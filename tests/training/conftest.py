"""One small training run for every test that looks at a bundle."""

import os
import pickle
from collections.abc import Mapping
from pathlib import Path

import pytest
from joblib import cpu_count
from sklearn.pipeline import Pipeline

from services.training.applications import LabelledApplications, read_applications
from services.training.models import Model, Variant, read_models
from services.training.train import Published, train
from tests.applications import write_labelled_csv
from tests.harness import to_be_made

# The library counts the processor's cores by a process, once: before unit tests, which start none.
cpu_count(only_physical_cores=True)

_REAL_APPLICATIONS = "loans.csv"


MODELS = read_models()
MODEL_NAMES = tuple(MODELS)
FREE = tuple(name for name, model in MODELS.items() if model.is_held)


def unfitted(name: str) -> Pipeline:
    """A new pipeline of the model ``name``."""
    return Variant(MODELS[name]).pipeline


def train_small(
    data: LabelledApplications, output: Path, *, models: Mapping[str, Model] = MODELS
) -> Published:
    """Train on ``data`` with few folds and few random applications, in this process."""
    return train(
        data,
        output,
        models=models,
        folds=2,
        repeats=1,
        random_rows=500,
        jobs=1,
    )


@pytest.fixture(scope="session")
def labelled_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real labelled applications if LOAN_DATA_DIR has them, generated ones if not."""
    folder = os.environ.get("LOAN_DATA_DIR")
    if folder and (path := Path(folder) / _REAL_APPLICATIONS).exists():
        return path
    print(
        f"Training tests run on generated applications: LOAN_DATA_DIR has no {_REAL_APPLICATIONS}"
    )
    path = tmp_path_factory.mktemp("data") / _REAL_APPLICATIONS
    write_labelled_csv(path, rows=614, seed=7)
    return path


@pytest.fixture(scope="session")
def labelled(labelled_csv: Path) -> LabelledApplications:
    """The labelled applications, read and validated."""
    return read_applications(labelled_csv)


@pytest.fixture(scope="session")
def trained(labelled: LabelledApplications, common_folder: Path) -> Published:
    """A bundle of a small training run, made once for all processes; tests must not change it."""
    made = common_folder / "published"
    with to_be_made(made) as missing:
        if missing:
            made.write_bytes(pickle.dumps(train_small(labelled, common_folder / "bundles")))
    published: Published = pickle.loads(made.read_bytes())  # noqa: S301 - written above
    return published
