"""The manifests of the bundles that decide, as the inference service registers them."""

import json
from collections.abc import Collection, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.history.database import transaction
from services.history.monitoring.schemas import CrossValidated, Estimated, Manifest
from services.history.tables import bundles
from shared.contract.errors import MAX_FAULTS, Fault, InvalidInput, message_of
from shared.contract.rollout import Arm
from shared.contract.swaps import Decider


class _FoldMean(BaseModel):
    mean: float
    low: float
    high: float

    def estimated(self) -> Estimated:
        return Estimated(value=self.mean, low=self.low, high=self.high)


class _Folds(BaseModel):
    accuracy: _FoldMean
    balanced_accuracy: _FoldMean
    auc: _FoldMean
    brier: _FoldMean
    log_loss: _FoldMean

    def estimated(self) -> CrossValidated:
        return CrossValidated(**{metric: found.estimated() for metric, found in self})


async def register(engine: AsyncEngine, body: bytes) -> None:
    """Keep the manifest in ``body``; a version that is known already stays as it is.

    Raises ``InvalidInput`` if it is none.
    """
    try:
        manifest = Manifest.model_validate_json(body)
    except ValidationError as error:
        # Without the values: what is no JSON may be bytes that no answer can give back.
        faults = error.errors(include_url=False, include_input=False)[:MAX_FAULTS]
        raise InvalidInput(
            [
                Fault(field=".".join(map(str, each["loc"])) or "body", message=message_of(each))
                for each in faults
            ]
        ) from None
    statement = insert(bundles).values(version=manifest.version, manifest=body.decode())
    async with transaction(engine) as opened:
        await opened.execute(statement.on_conflict_do_nothing())


async def read_models(
    connection: AsyncConnection, versions: Collection[str]
) -> dict[str, set[str]]:
    """The names of the models of each of these bundles that is registered."""
    statement = select(bundles.c.version, bundles.c.manifest).where(bundles.c.version.in_(versions))
    return {
        version: set(json.loads(content)["models"])
        for version, content in await connection.execute(statement)
    }


def unknown_model(
    name: str, arm: Arm | Decider, models: Mapping[str, Collection[str]]
) -> Fault | None:
    """The fault of the member ``name`` if its bundle, or the model in it, is not in ``models``."""
    if arm.bundle not in models:
        return Fault(field=f"{name}.bundle", message="is not registered here")
    if arm.model not in models[arm.bundle]:
        return Fault(field=f"{name}.model", message="is no model of that bundle")
    return None


async def read_cross_validated(
    connection: AsyncConnection, versions: Collection[str]
) -> Mapping[tuple[str, str], CrossValidated]:
    """By bundle and model what cross-validation found, of those bundles that are registered."""
    statement = select(bundles.c.version, bundles.c.manifest).where(bundles.c.version.in_(versions))
    return {
        (version, name): found
        for version, content in await connection.execute(statement)
        for name, model in Manifest.model_validate_json(content).models.items()
        if (found := cross_validated(model)) is not None
    }


def cross_validated(model: Mapping[str, Any]) -> CrossValidated | None:
    """The metrics of a model of a manifest; None where another version writes them otherwise."""
    try:
        return _Folds.model_validate(model.get("cross_validation")).estimated()
    except ValidationError:
        return None
