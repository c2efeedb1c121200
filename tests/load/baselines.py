"""The apps that the product is compared with.

Each is served by the product's own command, given another app factory, or by uvicorn's.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import asyncpg
from fastapi import BackgroundTasks, FastAPI

from services.scoring import features_v1
from services.scoring.features import feature_row
from services.scoring.manifest import BUNDLE_ROOT
from services.scoring.registry import load_bundle
from shared.contract.application import EXAMPLE, Application
from shared.contract.events import Decision, ModelInfo, Probability
from shared.contract.ids import uuid7
from shared.contract.parsing import LoanApplication

_TUTORIAL_BUNDLE: Final = "b-35e62725"
"""The first bundle: its forest has 200 trees, and a baseline must not change with our models."""
_TABLE: Final = """
CREATE TABLE IF NOT EXISTS decisions (
    id uuid PRIMARY KEY,
    decided_at timestamptz NOT NULL,
    prediction text NOT NULL,
    approved double precision NOT NULL,
    application jsonb NOT NULL
)
"""
_INSERT: Final = "INSERT INTO decisions VALUES ($1, $2, $3, $4, $5)"


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
    model = joblib.load(BUNDLE_ROOT / _TUTORIAL_BUNDLE / "random_forest.joblib")

    @app.post("/predict")
    async def predict(application: LoanApplication) -> Decision:
        """Decide with the forest."""
        row = application.model_dump()
        frame = pd.DataFrame([features_v1.feature_row(row)], columns=list(features_v1.FEATURES))
        approved = float(model.predict_proba(frame.to_numpy())[0, 1])
        return _decision(approved, Application.model_validate(row))

    return app


def create_insert_app() -> FastAPI:
    """Decide with the product's champion, and insert each decision before answering it.

    It is what a good engineer builds first: the same validation, one INSERT per request through a
    pool of connections; no key, no limit, no log.
    """
    return _create_storing_app(before_answering=True)


def create_background_app() -> FastAPI:
    """Insert after answering instead: a decision that was answered may be lost."""
    return _create_storing_app(before_answering=False)


def _create_storing_app(*, before_answering: bool) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with asyncpg.create_pool(os.environ["DATABASE_URL"]) as app.state.pool:
            await app.state.pool.execute(_TABLE)
            yield

    app = FastAPI(lifespan=lifespan)
    bundle = load_bundle(BUNDLE_ROOT, None)

    async def insert(decision: Decision) -> None:
        await app.state.pool.execute(
            _INSERT,
            decision.prediction_id,
            decision.timestamp,
            decision.prediction,
            decision.probability.approved,
            decision.input_data.model_dump_json(),
        )

    @app.post("/predict")
    async def predict(application: LoanApplication, background: BackgroundTasks) -> Decision:
        """Decide, and store before or after answering."""
        row = application.model_dump()
        features = feature_row(row, bundle.manifest.imputation)
        approved = bundle.champion.approval_probability(features)
        decision = _decision(approved, Application.model_validate(row))
        if before_answering:
            await insert(decision)
        else:
            background.add_task(insert, decision)
        return decision

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
