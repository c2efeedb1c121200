"""Screenshots in the documents, each with the version of the bundle that it shows."""

from pathlib import Path
from typing import Final

from PIL import Image
from PIL.PngImagePlugin import PngInfo

_KEYWORD: Final = "Bundle"


def sign(path: Path, *, bundle: str) -> None:
    """Write into the PNG at ``path`` which bundle it shows, and make it small: 256 colours."""
    with Image.open(path) as taken:
        picture = taken.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    text = PngInfo()
    text.add_text(_KEYWORD, bundle)
    picture.save(path, optimize=True, pnginfo=text)


def signed_bundle(path: Path) -> str | None:
    """The bundle that the PNG at ``path`` shows; None if it does not say."""
    with Image.open(path) as picture:
        found = picture.info.get(_KEYWORD)
    return None if found is None else str(found)
