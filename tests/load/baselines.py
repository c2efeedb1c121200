"""What the product is measured against: the same framework doing less, or doing it as tutorials do.

Each is served like the product: ``uvicorn --factory tests.load.baselines:create_limit_app``.
"""

from datetime import UTC, datetime

from fastapi import FastAPI

from services.scoring.features import FEATURES, feature_row
from services.scoring.manifest import BUNDLE_ROOT, read_current_version
from shared.contract.application import LoanApplication
from shared.contract.events import EXAMPLE, Application, Decision, ModelInfo, Probability
from shared.contract.ids import uuid7


def create_empty_app() -> FastAPI:
    """An empty route of the framework, to read and to write to."""
    app = FastAPI()

    @app.get("/")
    async def read() -> None:
        """Answer null."""

    @app.post("/")
    async def write() -> None:
        """Answer null, without reading the body."""

    return app


def create_limit_app() -> FastAPI:
    """The decision route with the product's models of request and answer, and no work between.

    What FastAPI's own handling costs, and so the limit of whoever takes it.
    """
    app = FastAPI()
    decision = _decision(0.8123, Application.model_validate(EXAMPLE))

    @app.post("/predict")
    async def predict(application: LoanApplication) -> Decision:  # noqa: ARG001 - it is validated
        """Answer the same decision to everybody."""
        return decision

    return app


def create_tutorial_app() -> FastAPI:
    """The random forest as tutorials serve it: pandas and scikit-learn on every request.

    Nothing is recorded, limited or logged. One call of the forest gives the probability and,
    by it, the class; many tutorials make two.
    """
    # Imported here, so that the other apps, whose memory is compared, never load them.
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
        prediction_id=uuid7(int(decided_at.timestamp() * 1000)),
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
