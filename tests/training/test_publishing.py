"""Readers see a complete bundle or none."""

import stat
from pathlib import Path

import pytest

from services.scoring.manifest import (
    CURRENT_FILE,
    MANIFEST_FILE,
    BundleError,
    check_files,
    read_current_version,
    read_manifest,
)
from services.training.publishing import (
    check_same,
    checksum,
    find_published,
    make_current,
    promote,
    publish,
)
from services.training.train import Published


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file of a bundle except its manifest, by path inside it."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != MANIFEST_FILE
    }


def test_published_bundle_is_whole_and_readable_by_everyone(
    trained: Published, tmp_path: Path
) -> None:
    """The folder is named after the manifest's version, and nothing else is left behind."""
    folder = publish(tmp_path, trained.manifest, files_of(trained.folder))
    assert list(tmp_path.iterdir()) == [folder]
    assert folder.name == trained.manifest.version
    assert read_manifest(folder / MANIFEST_FILE) == trained.manifest
    check_files(folder, trained.manifest)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755


def test_failed_publication_leaves_no_trace(trained: Published, tmp_path: Path) -> None:
    """A file that cannot be written takes the unfinished folder with it."""
    files = files_of(trained.folder) | {"no/such/folder": b""}
    with pytest.raises(FileNotFoundError):
        publish(tmp_path, trained.manifest, files)
    assert list(tmp_path.iterdir()) == []


def test_published_version_is_never_overwritten(trained: Published, tmp_path: Path) -> None:
    """A second publication of the same version fails and changes nothing."""
    folder = publish(tmp_path, trained.manifest, files_of(trained.folder))
    before = files_of(folder)
    with pytest.raises(OSError, match="not empty"):
        publish(tmp_path, trained.manifest, {"other": b""})
    assert files_of(folder) == before
    assert list(tmp_path.iterdir()) == [folder]


def test_current_names_the_version_and_is_replaced_whole(tmp_path: Path) -> None:
    """Readers see the old name or the new one; writing the same name again touches nothing."""
    make_current(tmp_path, "b-11111111")
    make_current(tmp_path, "b-22222222")
    assert read_current_version(tmp_path) == "b-22222222"
    before = (tmp_path / CURRENT_FILE).stat()
    make_current(tmp_path, "b-22222222")
    assert (tmp_path / CURRENT_FILE).stat() == before
    assert [path.name for path in tmp_path.iterdir()] == [CURRENT_FILE]


def test_damaged_bundle_is_not_taken_for_a_published_one(
    trained: Published, tmp_path: Path
) -> None:
    """Finding a version verifies it; a version that is not there is not found."""
    assert find_published(tmp_path, trained.manifest.version) is None
    folder = publish(tmp_path, trained.manifest, files_of(trained.folder))
    assert find_published(tmp_path, trained.manifest.version) == trained.manifest
    (folder / "random_forest.onnx").write_bytes(b"altered")
    with pytest.raises(BundleError, match=r"random_forest\.onnx is altered"):
        find_published(tmp_path, trained.manifest.version)


def test_another_content_under_the_same_version_is_refused(trained: Published) -> None:
    """A checksum that differs from the bundle just trained is an error."""
    files = trained.manifest.files | {"random_forest.onnx": checksum(b"other")}
    check_same(trained.manifest, trained.manifest)
    with pytest.raises(BundleError, match="already written but differs"):
        check_same(trained.manifest.model_copy(update={"files": files}), trained.manifest)


def test_damaged_candidate_is_not_promoted(trained: Published, tmp_path: Path) -> None:
    """What is served stays as it is."""
    candidate = publish(tmp_path, trained.manifest, files_of(trained.folder))
    (candidate / "random_forest.onnx").write_bytes(b"altered")
    serving = tmp_path / "serving"
    serving.mkdir()
    with pytest.raises(BundleError, match=r"random_forest\.onnx is altered"):
        promote(candidate, serving)
    assert list(serving.iterdir()) == []
