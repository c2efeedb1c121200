"""Reading a bundle from a ZIP archive that anybody may have made."""

import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import IO, Final

from services.history.rollout.errors import UnusableBundle
from services.scoring.manifest import MANIFEST_FILE
from services.scoring.store import MAX_BYTES

MAX_ARCHIVE_BYTES: Final = MAX_BYTES
MAX_FILES: Final = 500

# As in the manifest: a file of the folder, or of a folder in it, and never a path out of it.
_NAME: Final = re.compile(r"(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*", re.ASCII)
_METHODS: Final = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_ENCRYPTED: Final = 0x1
_BROKEN: Final = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    ValueError,
    NotImplementedError,
)


def read_archive(file: IO[bytes]) -> Mapping[str, bytes]:
    """The files of the bundle in ``file`` by their path inside it.

    They may be in one folder of the archive. At most ``MAX_BYTES`` are unpacked, in memory: no name
    in the archive ever becomes a path here. Raises ``UnusableBundle``.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            return dict(_files(archive))
    except _BROKEN as error:
        raise UnusableBundle(f"The body is no intact ZIP archive: {error}") from error


def _files(archive: zipfile.ZipFile) -> Iterator[tuple[str, bytes]]:
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    if len(entries) > MAX_FILES:
        raise UnusableBundle(f"The archive has more than {MAX_FILES} files.")
    if sum(entry.file_size for entry in entries) > MAX_BYTES:
        raise UnusableBundle(f"The archive has more than {MAX_BYTES // 2**20} MiB unpacked.")
    folder = _folder(entries)
    seen = set()
    for entry in entries:
        name = entry.filename.removeprefix(folder)
        if not entry.filename.startswith(folder) or not _NAME.fullmatch(name) or name in seen:
            raise UnusableBundle(f"{entry.filename[:200]!r} is no file of a bundle.")
        if entry.flag_bits & _ENCRYPTED or entry.compress_type not in _METHODS:
            raise UnusableBundle(f"{name} is encrypted, or packed in a way that is not read here.")
        seen.add(name)
        # No more than was declared is unpacked, and a file that has less has a wrong checksum.
        yield name, archive.read(entry)


def _folder(entries: list[zipfile.ZipInfo]) -> str:
    """The folder that all files are in, with its slash; empty if the manifest is at the top."""
    manifests = [
        entry.filename
        for entry in entries
        if entry.filename.rpartition("/")[2] == MANIFEST_FILE and entry.filename.count("/") <= 1
    ]
    if len(manifests) != 1:
        raise UnusableBundle(f"The archive needs one {MANIFEST_FILE}, at its top or in one folder.")
    return manifests[0].removesuffix(MANIFEST_FILE)
