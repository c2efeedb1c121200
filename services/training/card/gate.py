"""What the gate found of a retrained candidate."""

from services.scoring.manifest import Manifest
from services.training.card.text import markdown_table
from services.training.gate import Gate


def gate_section(manifest: Manifest) -> str:
    """How the bundle compares with the one that was served when it was trained."""
    gate = Gate.model_validate(manifest.gate)
    verdict = "passed" if gate.passed else "was refused by"
    return f"""## Against the bundle that was served

This bundle {verdict} the gate against {gate.served}. Both champions are measured on the same rows,
which neither has seen; differences are this bundle less the served one, with 95 % intervals.

{markdown_table(("Measure", "Found", "Limit", ""), (each.cells for each in gate.findings))}"""
