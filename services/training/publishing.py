"""Publish a bundle where the service finds it, completely or not at all."""

import hashlib
import os
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
from services.scoring.store import sync_folder, write_file, write_folder


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
            f"Bundle {trained.version} is already written but differs from the one just trained;"
            " it was altered or made by another release, so move its folder away and train again"
        )


def publish(root: Path, manifest: Manifest, files: Mapping[str, bytes]) -> Path:
    """Write the bundle's folder under ``root``, whole or not at all, and return it.

    ``files`` are all files except the manifest, by path inside the bundle.
    """
    return write_folder(root, manifest.version, {**files, MANIFEST_FILE: manifest_file(manifest)})


def make_current(root: Path, version: str) -> None:
    """Make ``CURRENT`` under ``root`` name ``version``, atomically for readers."""
    current = root / CURRENT_FILE
    content = f"{version}\n".encode()
    if current.exists() and current.read_bytes() == content:
        return
    unfinished = root / f".{CURRENT_FILE}.{os.getpid()}"
    write_file(unfinished, content)
    unfinished.replace(current)
    sync_folder(root)


def promote(folder: Path, root: Path) -> None:
    """Publish the bundle in ``folder`` under ``root``, unless it is there already; make it current.

    Raises ``BundleError`` if the bundle is damaged, in ``folder`` or under ``root``.
    """
    manifest = read_manifest(folder / MANIFEST_FILE)
    if find_published(root, manifest.version) is None:
        check_files(folder, manifest)
        publish(root, manifest, {name: (folder / name).read_bytes() for name in manifest.files})
    make_current(root, manifest.version)
