"""Publish a bundle where the service finds it, completely or not at all."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from services.scoring.manifest import (
    CURRENT_FILE,
    MANIFEST_FILE,
    BundleError,
    Manifest,
    check_files,
    read_manifest,
)


def checksum(content: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def manifest_file(manifest: Manifest) -> bytes:
    """Return the manifest as the JSON file of a bundle, indented for readers."""
    return manifest.model_dump_json(indent=2).encode() + b"\n"


def find_published(root: Path, version: str) -> Manifest | None:
    """Return the manifest of ``version``, or None if it is not published under ``root``.

    Raises ``BundleError`` if the published bundle is damaged.
    """
    folder = root / version
    if not folder.exists():
        return None
    manifest = read_manifest(folder / MANIFEST_FILE)
    check_files(folder, manifest)
    return manifest


def check_same(published: Manifest, trained: Manifest) -> None:
    """Raise ``BundleError`` unless both manifests, and so all files they list, are identical."""
    if published != trained:
        raise BundleError(
            f"Bundle {trained.version} is already published but differs from the one just trained;"
            " it was altered or made by another release, so move its folder away and train again"
        )


def publish(root: Path, manifest: Manifest, files: Mapping[str, bytes]) -> Path:
    """Write the bundle's folder under ``root`` and return it.

    ``files`` are all files except the manifest, by path inside the bundle. The folder appears under
    its name only once every byte is on disk; a failure leaves no trace.
    """
    # A sibling, because a rename is atomic only within one file system.
    unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=root))
    try:
        # Temporary folders are private; the service may run as another user.
        unfinished.chmod(0o755)
        for name, content in (*files.items(), (MANIFEST_FILE, manifest_file(manifest))):
            path = unfinished / name
            path.parent.mkdir(exist_ok=True)
            _write(path, content)
        for folder in (*(path for path in unfinished.iterdir() if path.is_dir()), unfinished):
            _sync(folder)
        published = unfinished.rename(root / manifest.version)
    except BaseException:
        shutil.rmtree(unfinished)
        raise
    _sync(root)
    return published


def make_current(root: Path, version: str) -> None:
    """Make ``CURRENT`` under ``root`` name ``version``, atomically for readers."""
    current = root / CURRENT_FILE
    content = f"{version}\n".encode()
    if current.exists() and current.read_bytes() == content:
        return
    unfinished = root / f".{CURRENT_FILE}.{os.getpid()}"
    _write(unfinished, content)
    unfinished.replace(current)
    _sync(root)


def promote(folder: Path, root: Path) -> None:
    """Publish the bundle in ``folder`` under ``root``, unless it is there already; make it current.

    Raises ``BundleError`` if the bundle is damaged, in ``folder`` or under ``root``.
    """
    manifest = read_manifest(folder / MANIFEST_FILE)
    if find_published(root, manifest.version) is None:
        check_files(folder, manifest)
        publish(root, manifest, {name: (folder / name).read_bytes() for name in manifest.files})
    make_current(root, manifest.version)


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
