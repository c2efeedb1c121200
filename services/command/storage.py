"""Files on this machine and, through fsspec, in other stores: ``s3://bucket/key``."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import fsspec
from fsspec.implementations.local import LocalFileSystem

from shared.files.tables import FileError


@dataclass(frozen=True)
class FileLocation:
    """A file or folder: what is named on the command line, absolute if it is on this machine."""

    url: str

    @classmethod
    def of(cls, name: str) -> "FileLocation":
        """The location that ``name`` stands for; raises ``FileError`` if nothing can open it."""
        try:
            store, path = fsspec.core.url_to_fs(name)
        except (ImportError, ValueError) as error:
            raise FileError(f"{name} cannot be opened: {error}") from None
        return cls(path if isinstance(store, LocalFileSystem) else store.unstrip_protocol(path))

    @property
    def store(self) -> Any:
        """The file system that it is in."""
        return self._opened[0]

    @property
    def path(self) -> str:
        """Its name in the store."""
        return str(self._opened[1])

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine."""
        return isinstance(self.store, LocalFileSystem)

    @property
    def _opened(self) -> Any:
        # Others write there too, so a list from before is not to be trusted.
        return fsspec.core.url_to_fs(self.url, use_listings_cache=False)

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> "FileLocation":
        return FileLocation(f"{self.url.rstrip('/')}/{name}")

    def beside(self, suffix: str) -> "FileLocation":
        """What is called the same, and then ``suffix``."""
        return FileLocation(f"{self.url.rstrip('/')}{suffix}")

    def exists(self) -> bool:
        """Whether anything is there."""
        with self._reached():
            return bool(self.store.exists(self.path))

    def files(self) -> list["FileLocation"]:
        """The location itself or, of a folder, its files by name; hidden ones are left out."""
        store, path = self.store, self.path
        with self._reached():
            if not store.isdir(path):
                return [self] if store.exists(path) else []
            listed = store.ls(path, detail=True)
        names = sorted(str(found["name"]) for found in listed if found["type"] == "file")
        return [
            self / name
            for name in (Path(each).name for each in names)
            if not name.startswith((".", "_"))
        ]

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - each store has errors of its own
            reason = " ".join(str(error).split())
            raise FileError(f"{self} cannot be reached: {reason}") from None

    def fingerprint(self) -> str:
        """What changes when it is written again."""
        return f"{self.url} {self.store.ukey(self.path)}"

    def opened(self) -> Any:
        """Open it for reading bytes."""
        return self.store.open(self.path, "rb")

    def size(self) -> int:
        """How many bytes it has."""
        return int(self.store.size(self.path))

    def read(self) -> bytes:
        """Its content."""
        return bytes(self.store.cat_file(self.path))

    def remove(self) -> None:
        """Remove it with all that is in it, if it is there."""
        store, path = self.store, self.path
        if store.exists(path):
            store.rm(path, recursive=True)

    @contextmanager
    def written(self, *, unfinished_in: "FileLocation") -> Iterator[IO[bytes]]:
        """Yield a file to write to; under its name it appears whole, and only without an error.

        A kill leaves a file in the folder ``unfinished_in`` of the same store, or nothing.
        """
        store, path = self.store, self.path
        store.makedirs(path.rpartition("/")[0], exist_ok=True)
        if self.is_local:
            folder = Path(unfinished_in.path)
            folder.mkdir(parents=True, exist_ok=True)
            unfinished = folder / f"{uuid4().hex}.unfinished"
            with unfinished.open("wb") as local:
                yield local
            unfinished.replace(path)
            return
        file = store.open(path, "wb", autocommit=False)
        try:
            yield file
        except BaseException:
            file.discard()
            raise
        file.close()
        file.commit()
