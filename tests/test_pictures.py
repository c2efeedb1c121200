"""The pictures in the documents show the bundle that is served."""

import re
from pathlib import Path

from services.scoring.manifest import BUNDLE_ROOT, read_current_version
from tests.pictures import signed_bundle

_ROOT = Path(__file__).parents[1]
_PICTURES = _ROOT / "docs/img"


def test_every_screenshot_is_of_the_bundle_that_is_served() -> None:
    """`make test-browser SCREENSHOTS=docs/img` takes all of them again."""
    found = {path.name: signed_bundle(path) for path in _PICTURES.glob("*.png")}
    assert found == dict.fromkeys(found, read_current_version(BUNDLE_ROOT))
    readme = (_ROOT / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"docs/img/([\w-]+\.png)", readme)) == set(found)
