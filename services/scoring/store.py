"""The bundle store: where bundles are published, read beside those that ship with the product.

A store is a folder, which all processes share, or the address of an object store as fsspec reads it
(``s3://bucket/bundles``, or ``file:///folder`` to try one). Each bundle is a folder of it, named
after its version, whole or not there: in a folder it appears by a rename, in an object store its
manifest is written last. Nothing in a bundle is run or unpickled here; what loads it verifies it
again.
"""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final
from weakref import finalize

from pydantic import AfterValidator

from services.scoring.manifest import (
    MANIFEST_FILE,
    SIGNATURE_FILE,
    BundleError,
    Manifest,
    check_files,
    check_version,
    parse_manifest,
    read_manifest,
)
from shared.contract.rollout import VERSION_PATTERN

MAX_BYTES: Final = 64 * 1024 * 1024
"""Of a bundle; the shipped ones have one or two MB."""


_OBJECTS: Final = re.compile(r"s3://[^/\s]+(?:/\S*)?|file:///\S+")


def _address(value: str | None) -> str | None:
    if value and "://" in value:
        # No other kind is tried, for some connect as soon as they are opened.
        if not _OBJECTS.fullmatch(value):
            raise ValueError("is no folder and no address such as s3://bucket/bundles")
        try:
            _objects_at(value)
        except ImportError as error:
            raise ValueError(f"needs another package: {error}") from None
    return value or None


StoreAddress = Annotated[str | None, AfterValidator(_address)]
"""A setting that says where the store is; None without one."""


class BundleStore:
    """Finds bundles by their version, and publishes new ones; safe in any thread.

    ``address`` is the store; without one only the bundles in the folder ``shipped`` are there. With
    a ``public_key`` every published bundle must be signed by it.
    """

    def __init__(
        self, address: str | None, *, shipped: Path, public_key: str | None = None
    ) -> None:
        self._shipped = shipped
        self._public_key = public_key
        self._store = _open(address) if address else None

    def folder(self, version: str) -> Path:
        """The folder of the bundle ``version``, on this machine; its files are yet to be checked.

        A bundle of an object store is fetched, once in the life of a process. Raises
        ``BundleError``, also where the signature is missing or wrong.
        """
        if (shipped := self._shipped / check_version(version)).is_dir():
            return shipped
        folder = self._store.folder(version) if self._store else None
        if folder is None:
            raise BundleError(f"The bundle {version} cannot be read: it is not published here")
        with _store_faults():
            signature = folder / SIGNATURE_FILE
            self._check_signature(
                version,
                (folder / MANIFEST_FILE).read_bytes(),
                signature.read_bytes() if signature.is_file() else b"",
            )
        return folder

    def versions(self) -> list[str]:
        """The version of every bundle, shipped or published; raises ``BundleError``."""
        published = self._store.versions() if self._store else []
        return sorted({*_versions(self._shipped), *published})

    def publish(self, files: Mapping[str, bytes]) -> Manifest:
        """Publish the bundle of these files, by path inside it, and return its manifest.

        A bundle that is there already, the same, is left as it is. Raises ``BundleError`` and
        changes nothing if a file is missing, altered or not in the manifest, the manifest is for a
        newer service or not signed, or another bundle has this version.
        """
        manifest = self.check(files)
        if self._store is None:
            raise BundleError("There is no store to publish in: set BUNDLE_STORE.")
        if manifest.version not in self.versions():
            self._store.write(manifest.version, files)
        folder = self.folder(manifest.version)
        published = read_manifest(folder / MANIFEST_FILE)
        if published != manifest:
            raise BundleError(f"Another bundle is published as {manifest.version}.")
        check_files(folder, published)
        return published

    def check(self, files: Mapping[str, bytes]) -> Manifest:
        """The manifest among ``files``, if this store would take the bundle.

        Raises ``BundleError``.
        """
        manifest = check_bundle(files)
        signature = files.get(SIGNATURE_FILE, b"")
        self._check_signature(manifest.version, files[MANIFEST_FILE], signature)
        return manifest

    def _check_signature(self, version: str, manifest: bytes, signature: bytes) -> None:
        if self._public_key is not None:
            from services.scoring.signature import check_signature  # noqa: PLC0415 - takes long, and is seldom needed

            check_signature(version, manifest, signature, self._public_key)


def check_bundle(files: Mapping[str, bytes]) -> Manifest:
    """The manifest among ``files``, by path inside the bundle: it lists all but its signature.

    Raises ``BundleError`` with one sentence if it does not, or their bytes are not as it says.
    """
    if sum(map(len, files.values())) > MAX_BYTES:
        raise BundleError(f"The bundle has more than {MAX_BYTES // 2**20} MiB.")
    if MANIFEST_FILE not in files:
        raise BundleError(f"The bundle has no {MANIFEST_FILE}.")
    manifest = parse_manifest(files[MANIFEST_FILE], MANIFEST_FILE)
    faults = [
        f"{name} is {'missing' if name not in files else 'not in the manifest'}"
        for name in sorted(manifest.files.keys() ^ (files.keys() - {MANIFEST_FILE, SIGNATURE_FILE}))
    ] + [
        f"{name} is altered (its checksum differs)"
        for name, expected in manifest.files.items()
        if name in files and hashlib.sha256(files[name]).hexdigest() != expected
    ]
    if faults:
        raise BundleError(f"The bundle {manifest.version} is damaged: {'; '.join(faults)}")
    return manifest


def write_folder(root: Path, version: str, files: Mapping[str, bytes]) -> Path:
    """Write the folder of a bundle under ``root`` and return it.

    It appears under its name only once every byte is on disk; a failure leaves no trace.
    """
    # A sibling, because a rename is atomic only within one file system.
    unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=root))
    try:
        # Temporary folders are private; the service may run as another user.
        unfinished.chmod(0o755)
        for name, content in files.items():
            path = unfinished / name
            path.parent.mkdir(exist_ok=True)
            write_file(path, content)
        for folder in (*(path for path in unfinished.iterdir() if path.is_dir()), unfinished):
            sync_folder(folder)
        published = unfinished.rename(root / version)
    except BaseException:
        shutil.rmtree(unfinished)
        raise
    sync_folder(root)
    return published


def _write(root: Path, version: str, files: Mapping[str, bytes]) -> None:
    try:
        write_folder(root, version, files)
    except OSError:
        # Another process or thread may have been first with it.
        if not (root / version).is_dir():
            raise


def write_file(path: Path, content: bytes) -> None:
    """Write a file and return once it is on disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Return once the names in ``folder`` are on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _Folder:
    """A store that is a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def folder(self, version: str) -> Path | None:
        folder = self._root / version
        return folder if folder.is_dir() else None

    def versions(self) -> list[str]:
        return _versions(self._root) if self._root.is_dir() else []

    def write(self, version: str, files: Mapping[str, bytes]) -> None:
        with _store_faults():
            self._root.mkdir(parents=True, exist_ok=True)
            _write(self._root, version, files)


class _Objects:
    """An object store; what is read of it is kept in a folder of this process's own."""

    def __init__(self, address: str) -> None:
        self._objects, self._root = _objects_at(address)
        self._kept = Path(tempfile.mkdtemp(prefix="bundles-"))
        finalize(self, shutil.rmtree, self._kept, ignore_errors=True)

    def folder(self, version: str) -> Path | None:
        kept = self._kept / version
        if not kept.is_dir() and version in self.versions():
            with _store_faults():
                manifest = self._read(version, MANIFEST_FILE)
                names = parse_manifest(manifest, f"{version}/{MANIFEST_FILE}").files
                files = {name: self._read(version, name) for name in names}
                if self._objects.exists(f"{self._root}/{version}/{SIGNATURE_FILE}"):
                    files[SIGNATURE_FILE] = self._read(version, SIGNATURE_FILE)
                _write(self._kept, version, files | {MANIFEST_FILE: manifest})
        return kept if kept.is_dir() else None

    def versions(self) -> list[str]:
        with _store_faults():
            paths = self._objects.glob(f"{self._root}/*/{MANIFEST_FILE}")
        return [Path(path).parent.name for path in paths]

    def write(self, version: str, files: Mapping[str, bytes]) -> None:
        with _store_faults():
            # Without its manifest, which is written last, a bundle is not there.
            for name in sorted(files, key=lambda name: name == MANIFEST_FILE):
                self._objects.makedirs(f"{self._root}/{version}/{name}".rpartition("/")[0], True)
                self._objects.pipe_file(f"{self._root}/{version}/{name}", files[name])

    def _read(self, version: str, name: str) -> bytes:
        content: bytes = self._objects.cat_file(f"{self._root}/{version}/{name}", 0, MAX_BYTES)
        return content


@contextmanager
def _store_faults() -> Iterator[None]:
    try:
        yield
    except BundleError:
        raise
    except Exception as error:  # each kind of store raises errors of its own
        raise BundleError(f"The store of bundles cannot be used: {error!r}") from error


def _objects_at(address: str) -> tuple[Any, str]:
    # Only those need it that have such a store.
    from fsspec.core import url_to_fs  # noqa: PLC0415  an optional dependency

    files, root = url_to_fs(address, use_listings_cache=False)
    return files, root


def _open(address: str) -> _Folder | _Objects:
    return _Objects(address) if "://" in address else _Folder(Path(address))


def _versions(root: Path) -> list[str]:
    return [each.name for each in root.iterdir() if re.fullmatch(VERSION_PATTERN, each.name)]
