"""Freeze decisions of the served bundle, which every later version has to decide the same again.

``python -m tests.inference.record``, once, with the version that ships the bundle.
"""

from pathlib import Path
from typing import Final

from pydantic_core import from_json, to_json

from services.scoring.engine import decide
from services.scoring.manifest import BUNDLE_ROOT
from services.scoring.registry import load_bundle
from shared.contract.application import EXAMPLE
from shared.contract.parsing import read_application

RECORDED: Final = Path(__file__).parent / "recorded"

_APPLICATIONS: Final = (
    EXAMPLE | {"Loan_ID": "LP-1"},
    {
        "ApplicantIncome": 800,
        "LoanAmount": 300,
        "Credit_History": 0,
        "Dependents": "3+",
        "Property_Area": "Urban",
    },
    {"ApplicantIncome": 0, "CoapplicantIncome": 1760},
)


def main() -> None:
    """Write the decisions of each model on each application, unless they are written already."""
    bundle = load_bundle(BUNDLE_ROOT, None)
    path = RECORDED / f"{bundle.manifest.version}.json"
    decisions = [
        from_json(decide(read_application(application), model=model, bundle=bundle).body)
        for model in bundle.models.values()
        for application in _APPLICATIONS
    ]
    with path.open("xb") as file:
        file.write(to_json(decisions, indent=1) + b"\n")
    print(f"Wrote {path}.")


if __name__ == "__main__":
    main()
