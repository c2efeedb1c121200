"""Gender and marital status never enter a score."""

import random
from dataclasses import replace

from pydantic_core import from_json, to_json

from services.scoring.engine import decide
from services.scoring.features import FEATURES
from services.scoring.registry import Bundle
from shared.contract.application import FIELDS, MONITORED, SCORED
from shared.contract.parsing import LoanApplication, parse_application
from tests.applications import random_application


def test_monitored_inputs_are_no_features() -> None:
    """No feature's name speaks of a monitored input, and none is listed as scored."""
    assert not set(MONITORED) & set(SCORED)
    assert not [f for f in FEATURES if any(m.casefold() in f.casefold() for m in MONITORED)]
    only_kept = {field.name for field in FIELDS if field.use in ("recorded", "identifier")}
    assert "Loan_ID" in only_kept
    assert not only_kept & {*MONITORED, *SCORED}
    assert set(LoanApplication.model_fields) == {*MONITORED, *SCORED, *only_kept}


def test_probability_is_the_same_for_every_gender_and_marital_status(bundle: Bundle) -> None:
    """All four models, 50 applications, every combination: not one bit differs."""
    rng = random.Random(17)  # noqa: S311  test data, not a secret
    for _ in range(50):
        application = random_application(rng)
        for model in bundle.models.values():
            probabilities = {
                to_json(
                    from_json(
                        decide(
                            parse_application(
                                to_json({**application, "Gender": gender, "Married": married})
                            ),
                            model=model,
                            bundle=bundle,
                        ).body
                    )["probability"]
                )
                for gender in ("Male", "Female", None)
                for married in ("Yes", "No", None)
            }
            assert len(probabilities) == 1


def test_every_scored_input_can_move_a_score(bundle: Bundle) -> None:
    """The check above means something: scored inputs do reach the models."""
    forest = bundle.models["random_forest"]
    base = parse_application(b'{"ApplicantIncome": 4000, "LoanAmount": 120, "Credit_History": 1}')
    changed = base | {"Credit_History": 0}
    frozen = replace(bundle)
    first, second = (
        from_json(decide(application, model=forest, bundle=frozen).body)["probability"]["approved"]
        for application in (base, changed)
    )
    assert first > second
