"""The model card: the manifest written out for people. Every number in it comes from there."""

from services.scoring.manifest import Manifest
from services.training.card.accuracy import (
    accuracy_section,
    accuracy_table,
    comparisons_section,
    holdout_section,
    importances_section,
    summary_section,
)
from services.training.card.gate import gate_section
from services.training.card.making import data_section, making_section, timings_section
from services.training.card.treatment import (
    directions_section,
    fairness_section,
    location_section,
    missing_section,
)

__all__ = ["accuracy_table", "model_card"]

_SECTIONS = (
    summary_section,
    accuracy_section,
    holdout_section,
    comparisons_section,
    fairness_section,
    importances_section,
    missing_section,
    directions_section,
    location_section,
    data_section,
    making_section,
    timings_section,
)
_AFTER_COMPARISONS = _SECTIONS.index(comparisons_section) + 1


def model_card(manifest: Manifest) -> str:
    """Return the card as Markdown; only its last section holds wall-clock times."""
    sections = [section(manifest) for section in _SECTIONS]
    if manifest.gate is not None:
        sections.insert(_AFTER_COMPARISONS, gate_section(manifest))
    return "\n\n".join(sections) + "\n"
