"""The manifests of the bundles that decide, as the inference service registers them."""

from collections.abc import Collection, Mapping
from typing import Final

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import from_json
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.history.database import transaction
from services.history.monitoring_schemas import CrossValidated, Estimated, Registration
from services.history.tables import bundles
from shared.contract.errors import Fault, InvalidInput


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


class _Trained(BaseModel):
    cross_validation: _Folds


_MODELS: Final = TypeAdapter(dict[str, _Trained])


async def register(engine: AsyncEngine, body: bytes) -> None:
    """Keep the manifest in ``body``; a version that is known already stays as it is.

    Raises ``InvalidInput`` if it is none that performance can be compared with.
    """
    try:
        manifest = from_json(body)
        version = Registration.model_validate(manifest).version
        _MODELS.validate_python(manifest.get("models"))
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"])) or "body"
        raise InvalidInput([Fault(field=where, message="is not that of a manifest")]) from None
    except ValueError as error:
        raise InvalidInput([Fault(field="body", message=f"is not valid JSON: {error}")]) from None
    statement = insert(bundles).values(version=version, manifest=manifest)
    async with transaction(engine) as opened:
        await opened.execute(statement.on_conflict_do_nothing())


async def read_cross_validated(
    connection: AsyncConnection, versions: Collection[str]
) -> Mapping[tuple[str, str], CrossValidated]:
    """By bundle and model what cross-validation found, of those bundles that are registered."""
    models = bundles.c.manifest["models"]
    statement = select(bundles.c.version, models).where(bundles.c.version.in_(versions))
    return {
        (version, name): CrossValidated(
            **{metric: found.estimated() for metric, found in model.cross_validation}
        )
        for version, content in await connection.execute(statement)
        for name, model in _MODELS.validate_python(content).items()
    }
