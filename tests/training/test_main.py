"""From a CSV to a bundle, in process and from the command line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.scoring.features import FEATURES
from services.scoring.manifest import (
    MANIFEST_FILE,
    MODEL_CARD_FILE,
    read_current_version,
)
from services.training import export, main
from services.training.applications import LabelledApplications
from services.training.main import Published
from services.training.models import MODEL_NAMES
from tests.training.conftest import train_small

pytestmark = pytest.mark.system


def contents(root: Path) -> dict[str, tuple[bytes, int]]:
    """Return every file under ``root`` with its modification time."""
    return {
        path.relative_to(root).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file()
    }


def test_bundle_has_everything_its_manifest_names(
    trained: Published, labelled: LabelledApplications, bundle_root: Path
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
    assert read_current_version(bundle_root) == manifest.version


def test_another_process_makes_the_same_bundle_bit_by_bit(
    trained: Published, labelled_csv: Path, tmp_path: Path
) -> None:
    """Only timings differ: in the manifest, the card's last section and the card's checksum."""
    script = (
        "import sys; from pathlib import Path; from tests.training.conftest import train_small;"
        "train_small(Path(sys.argv[1]), Path(sys.argv[2]))"
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


def test_command_line_publishes_and_says_where(
    labelled_csv: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It exits with 0, creates the folder, and CURRENT names the bundle."""
    monkeypatch.setattr(main, "train", train_small)
    output = tmp_path / "new" / "bundles"
    assert main.main([str(labelled_csv), "--output", str(output)]) == 0
    assert f"Published {output / read_current_version(output)} in " in capsys.readouterr().out


@pytest.mark.usefixtures("trained")
def test_second_run_leaves_the_published_files_untouched(
    labelled_csv: Path,
    bundle_root: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same bundle is recognised and verified; no file is written again."""
    monkeypatch.setattr(main, "train", train_small)
    before = contents(bundle_root)
    assert main.main([str(labelled_csv), "--output", str(bundle_root)]) == 0
    assert "was already published and is identical" in capsys.readouterr().out
    assert contents(bundle_root) == before


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
    assert "There is no column 'Age'." in done.stderr
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
    assert main.main([str(labelled_csv), "--output", str(output)]) == 1
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
