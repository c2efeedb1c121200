"""Screenshots in the documents, each with the version of the bundle that it shows."""

import re
import struct
import zlib
from pathlib import Path
from typing import Final

_KEYWORD: Final = b"Bundle"
_END_OF_HEADER: Final = 33
"""Of a PNG: the signature, and the header's chunk."""


def sign(path: Path, *, bundle: str) -> None:
    """Write into the PNG at ``path`` which bundle it shows, as a chunk of text."""
    content = path.read_bytes()
    text = b"tEXt" + _KEYWORD + b"\0" + bundle.encode()
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    path.write_bytes(content[:_END_OF_HEADER] + chunk + content[_END_OF_HEADER:])


def signed_bundle(path: Path) -> str | None:
    """The bundle that the PNG at ``path`` shows; None if it does not say."""
    content = path.read_bytes()
    found = re.search(rb"(.{4})tEXt" + _KEYWORD + rb"\0", content, re.DOTALL)
    if found is None:
        return None
    [size] = struct.unpack(">I", found[1])
    return content[found.end() : found.end() + size - len(_KEYWORD) - 1].decode()
