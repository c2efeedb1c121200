"""README describes the shipped bundle."""

from pathlib import Path

from services.scoring.manifest import (
    BUNDLE_ROOT,
    MODEL_CARD_FILE,
    read_current_version,
    read_manifest,
)
from services.training.card import accuracy_table

_README = Path(__file__).parents[2] / "README.md"


def test_readme_shows_the_shipped_bundles_metrics() -> None:
    """The table, the data and the champion are those of the manifest, not typed by hand."""
    folder = BUNDLE_ROOT / read_current_version(BUNDLE_ROOT)
    manifest = read_manifest(folder / "manifest.json")
    readme = _README.read_text(encoding="utf-8")
    assert accuracy_table(manifest) in readme
    assert manifest.data.sha256 in readme
    assert manifest.champion_reason in " ".join(readme.split())
    assert f"bundle/{manifest.version}/{MODEL_CARD_FILE}" in readme
