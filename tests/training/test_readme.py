"""The front page tells of the bundle that is shipped, and of no other."""

from pathlib import Path

from services.scoring.manifest import (
    BUNDLE_ROOT,
    MODEL_CARD_FILE,
    read_current_version,
    read_manifest,
)
from services.training.card import accuracy_table

_README = Path(__file__).parents[2] / "README.md"


def test_readme_shows_the_shipped_bundles_figures() -> None:
    """No figure is typed by hand: the table is the card's own, and so are data and champion."""
    folder = BUNDLE_ROOT / read_current_version(BUNDLE_ROOT)
    manifest = read_manifest(folder / "manifest.json")
    readme = _README.read_text(encoding="utf-8")
    assert accuracy_table(manifest) in readme
    assert manifest.data.sha256 in readme
    assert manifest.champion_reason in " ".join(readme.split())
    assert f"bundle/{manifest.version}/{MODEL_CARD_FILE}" in readme
