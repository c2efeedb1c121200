"""From a CSV to a bundle, in process and from the command line."""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import pytest

from services.scoring.features import FEATURES
from services.scoring.manifest import (
    BUNDLE_ROOT,
    MANIFEST_FILE,
    MODEL_CARD_FILE,
    read_current_version,
)
from services.scoring.registry import load_bundle
from services.training import export, main
from services.training.applications import LabelledApplications
from services.training.models import Model
from services.training.train import Published
from tests.training.conftest import MODEL_NAMES, MODELS, train_small

pytestmark = pytest.mark.system


def contents(root: Path) -> dict[str, tuple[bytes, int]]:
    """Return every file under ``root`` with its modification time."""
    return {
        path.relative_to(root).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file()
    }


def _one_model(data: Path, output: Path) -> list[str]:
    """Arguments for what does not depend on which models are trained."""
    return [str(data), "--models", "logistic_regression", "--output", str(output)]


def test_bundle_has_everything_its_manifest_names(
    trained: Published, labelled: LabelledApplications
) -> None:
    """They are both files of each model, the card and the pictures; all of them are listed."""
    manifest = trained.manifest
    found = {
        path.relative_to(trained.folder).as_posix()
        for path in trained.folder.rglob("*")
        if path.is_file()
    }
    assert found == {*manifest.files, MANIFEST_FILE}
    assert {f"{name}.{kind}" for name in MODEL_NAMES for kind in ("joblib", "onnx")} < found
    assert manifest.features == FEATURES
    assert manifest.data.sha256 == labelled.sha256
    assert manifest.data.rows == len(labelled.applications)
    assert all(model.parity.label_flips == 0 for model in manifest.models.values())
    assert trained.is_new


def test_another_process_makes_the_same_bundle_bit_by_bit(
    trained: Published, labelled_csv: Path, tmp_path: Path
) -> None:
    """Only timings differ: in the manifest, the card's last section and the card's checksum."""
    script = (
        "import sys; from pathlib import Path; from tests.training.conftest import train_small;"
        "from services.training.applications import read_applications;"
        "train_small(read_applications(Path(sys.argv[1])), Path(sys.argv[2]))"
    )
    subprocess.run(
        [sys.executable, "-c", script, labelled_csv, tmp_path],
        env=os.environ | {"PYTHONHASHSEED": "12345", "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
        capture_output=True,
        timeout=100,
    )
    folder = tmp_path / trained.manifest.version
    assert folder.is_dir()
    for name in trained.manifest.files:
        first, second = (trained.folder / name).read_bytes(), (folder / name).read_bytes()
        if name == MODEL_CARD_FILE:
            first, second = (card.split(b"## Times")[0] for card in (first, second))
        assert first == second, name


def test_command_line_publishes_a_candidate_that_nothing_serves_and_writes_it_once(
    labelled_csv: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It exits with 0 and creates the folder; what is served stays as it is.

    A second run recognises and verifies the same bundle, and writes no file again.
    """
    monkeypatch.setattr(main, "train", train_small)
    output, serving = tmp_path / "new" / "bundles", tmp_path / "serving"
    arguments = [*_one_model(labelled_csv, output), "--serving", str(serving)]
    assert main.main(arguments) == 0
    [folder] = output.iterdir()
    said = capsys.readouterr().out
    assert " x 2 folds on 1 process.\nThe folds will take about " in said
    assert "There is no bundle to compare with. " in said
    assert f"Written to {folder} in " in said
    assert f"Nothing was changed in {serving}." in said
    assert f"BUNDLE_ROOT={output} BUNDLE_VERSION={folder.name};" in said
    assert load_bundle(output, folder.name).manifest.data.sha256
    assert not serving.exists()

    assert "was written before" not in said
    before = contents(output)
    assert main.main(arguments) == 0
    assert "was written before and is identical" in capsys.readouterr().out
    assert contents(output) == before


def test_promoted_candidate_is_compared_and_then_served(
    trained: Published,
    labelled_csv: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only when it is asked for; a candidate that is served already is said to be."""

    def all_trained(*_: object, models: Mapping[str, Model], **__: object) -> Published:
        assert tuple(models) == MODEL_NAMES
        return trained

    monkeypatch.setattr(main, "train", all_trained)
    serving = tmp_path / "serving"
    copytree(BUNDLE_ROOT, serving)
    shipped = read_current_version(serving)
    arguments = [str(labelled_csv), "--serving", str(serving)]
    assert main.main(arguments) == 0
    assert read_current_version(serving) == shipped
    assert main.main([*arguments, "--promote"]) == 0
    version = trained.manifest.version
    assert read_current_version(serving) == version
    compared, promoted = capsys.readouterr().out.split("with PROMOTE=1.")
    for said in (compared, promoted):
        assert f"Candidate {version} (" in said
        assert f") and served {shipped} (" in said
    assert f"{serving} now serves {version}." in promoted
    assert load_bundle(serving, None).manifest == trained.manifest
    assert main.main(arguments) == 0
    said = capsys.readouterr().out
    assert f"Nothing new came out: the candidate is the bundle that is served, {version}." in said
    assert "To try the candidate" not in said


def test_models_can_be_left_out_and_few_rows_are_warned_of(
    labelled: LabelledApplications, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bundle, its card and its pictures are of the others; it can be served."""
    labelled = replace(
        labelled, applications=labelled.applications[:300], approved=labelled.approved[:300]
    )
    published = train_small(
        labelled, tmp_path, models={"logistic_regression": MODELS["logistic_regression"]}
    )
    assert "So few rows tell little: " in capsys.readouterr().out
    assert list(published.manifest.models) == ["logistic_regression"]
    assert published.manifest.champion_reason.startswith("Logistic regression is the only model")
    card = published.folder.joinpath(MODEL_CARD_FILE).read_text()
    assert "is approved: Logistic regression.\n" in card
    assert list(load_bundle(tmp_path, published.manifest.version).models) == ["logistic_regression"]


def test_model_that_is_none_is_named(
    labelled_csv: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With those that there are, before anything is read."""
    with pytest.raises(SystemExit, match="2"):
        main.main([str(labelled_csv), "--models", "random_forest,perceptron"])
    assert "perceptron is none of random_forest, logistic_regression," in capsys.readouterr().err


def test_faulty_csv_stops_the_program_and_nothing_is_written(tmp_path: Path) -> None:
    """The program exits with 1, names the line, and does not create the folder."""
    data, output = tmp_path / "loans.csv", tmp_path / "bundles"
    data.write_text("Loan_ID,Age\nLP1,7\n")
    done = subprocess.run(
        [sys.executable, "-m", "services.training", data, "--output", output],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"{data} has 1 fault(s):\nThe first line has to name the columns")
    assert "'Age' is not a known column." in done.stderr
    assert not output.exists()


def test_export_outside_the_gate_is_not_published(
    labelled_csv: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a limit that no export can meet, the program says so and writes nothing."""
    monkeypatch.setattr(main, "train", train_small)
    monkeypatch.setattr(export, "MAX_PROBABILITY_DIFFERENCE", 0.0)
    output = tmp_path / "bundles"
    assert main.main(_one_model(labelled_csv, output)) == 1
    assert "nothing was published" in capsys.readouterr().err
    assert list(output.iterdir()) == []


def test_output_that_cannot_be_written_is_one_sentence(
    labelled_csv: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A file in place of the folder is named by its path, without a traceback."""
    monkeypatch.setattr(main, "train", train_small)
    output = tmp_path / "file"
    output.touch()
    assert main.main([str(labelled_csv), "--output", str(output)]) == 1
    assert (
        capsys.readouterr()
        .err.rstrip()
        .splitlines()[-1]
        .startswith(f"The bundle cannot be written to {output}: ")
    )
