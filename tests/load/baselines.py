"""The apps that the product is compared with.

Each is served by the product's own command, given another app factory.
"""

from datetime import UTC, datetime
from uuid import UUID

from fastapi import FastAPI

from services.scoring.features import FEATURES, feature_row
from services.scoring.manifest import BUNDLE_ROOT, read_current_version
from shared.contract.application import EXAMPLE, Application
from shared.contract.events import Decision, ModelInfo, Probability
from shared.contract.ids import uuid7
from shared.contract.parsing import LoanApplication


def create_empty_app() -> FastAPI:
    """Create an app with empty routes to read from and to write to."""
    app = FastAPI()

    @app.get("/")
    async def read() -> None:
        """Answer null."""

    @app.post("/")
    async def write() -> None:
        """Answer null, without reading the body."""

    return app


def create_limit_app() -> FastAPI:
    """Create the decision route with the product's request and response models and no work between.

    It shows what FastAPI's own handling costs, which bounds any service that uses it.
    """
    app = FastAPI()
    decision = _decision(0.8123, Application.model_validate(EXAMPLE))

    @app.post("/predict")
    async def predict(application: LoanApplication) -> Decision:  # noqa: ARG001 - it is validated
        """Answer every request with the same decision."""
        return decision

    return app


def create_tutorial_app() -> FastAPI:
    """Serve the random forest as tutorials do: pandas and scikit-learn on every request.

    Nothing is recorded, limited or logged. One call of the forest yields the probability, and from
    it the class; many tutorials make two calls.
    """
    # Imported here so that the other apps, whose memory is compared, never load them.
    import joblib  # noqa: PLC0415
    import pandas as pd  # noqa: PLC0415

    app = FastAPI()
    bundle = BUNDLE_ROOT / read_current_version(BUNDLE_ROOT)
    model = joblib.load(bundle / "random_forest.joblib")

    @app.post("/predict")
    async def predict(application: LoanApplication) -> Decision:
        """Decide with the forest."""
        row = application.model_dump()
        frame = pd.DataFrame([feature_row(row)], columns=list(FEATURES))
        approved = float(model.predict_proba(frame.to_numpy())[0, 1])
        return _decision(approved, Application.model_validate(row))

    return app


def _decision(approved: float, application: Application) -> Decision:
    decided_at = datetime.now(UTC)
    prediction_code = 1 if approved >= 0.5 else 0
    return Decision(
        prediction_id=UUID(uuid7(int(decided_at.timestamp() * 1000))),
        prediction="Approved" if prediction_code else "Rejected",
        prediction_code=prediction_code,
        confidence=max(approved, 1 - approved),
        probability=Probability(approved=approved, rejected=1 - approved),
        model_info=ModelInfo(name="random_forest", version="baseline", accuracy=0.8),
        input_data=application,
        imputed=[],
        warnings=[],
        timestamp=decided_at,
    )
