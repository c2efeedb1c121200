"""The report on monitoring: one HTML file with sentences, pictures, tables, method and limits.

``python -m services.history.monitoring.report`` writes it to a file.
"""

import argparse
import asyncio
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection

from services.history.database import connection, open_engine
from services.history.monitoring import drift, fairness
from services.history.monitoring.cohorts import selection_of
from services.history.monitoring.drift_schemas import ModelDrift
from services.history.monitoring.fairness_schemas import ModelFairness
from services.history.monitoring.performance import read_performance
from services.history.monitoring.schemas import (
    LEAST_OF_EACH,
    LEAST_OUTCOMES,
    CohortQuery,
    ModelPerformance,
    Vintages,
)
from services.history.monitoring.vintages import COMPARED_AT, RECENT, read_vintages
from services.history.settings import HistorySettings
from shared.contract.errors import message_of
from shared.contract.outcomes import BAD, GOOD, OUTCOME_KINDS
from shared.pictures.monitoring import Area, areas_of
from shared.pictures.templating import STYLE, environment
from shared.settings import read_settings_or_exit
from shared.version import VERSION

_Named = TypeVar("_Named", ModelDrift, ModelFairness)
_FOLDER: Final = Path(__file__).parent / "templates"
_ENVIRONMENT: Final = environment(
    _FOLDER,
    ALL_NUMBERS=True,
    SUBHEADING="h4",
    STYLE=STYLE + (_FOLDER / "report.css").read_text(encoding="utf-8"),
    LEAST_OUTCOMES=LEAST_OUTCOMES,
    LEAST_OF_EACH=LEAST_OF_EACH,
    LEAST_COMPARED=drift.LEAST_DECISIONS,
    LEAST_IN_GROUP=fairness.LEAST_DECISIONS,
    COMPARED_AT=COMPARED_AT,
    RECENT=RECENT,
    GOOD=[kind for kind in OUTCOME_KINDS if kind in GOOD],
    BAD=[kind for kind in OUTCOME_KINDS if kind in BAD],
    VERSION=VERSION,
)


class Section(NamedTuple):
    """What is reported of one model of one bundle."""

    overall: ModelPerformance
    months: Sequence[ModelPerformance]
    vintages: Vintages
    drift: ModelDrift
    fairness: ModelFairness

    @property
    def areas(self) -> dict[str, Area]:
        """What is concluded, by what it is about."""
        return areas_of(self.overall, self.vintages, self.drift, self.fairness)

    @property
    def alarms(self) -> list[Any]:
        """The alarms among them."""
        return [found for area in self.areas.values() for found in area.findings if found.alarm]


async def read_report(connection: AsyncConnection, query: CohortQuery, *, screen: float) -> str:
    """The report on each model that decided in that time, as HTML."""
    selection = selection_of(query)
    overall = (await read_performance(connection, selection)).models
    drifts = _by_name((await drift.read_drift(connection, selection)).models)
    groups = _by_name((await fairness.read_fairness(connection, selection, screen=screen)).models)
    sections = []
    for model in sorted(overall, key=_decisions, reverse=True):
        name = model.bundle, model.model
        of_model = replace(selection, bundle=model.bundle, model=model.model)
        months = (await read_performance(connection, of_model, monthly=True)).models
        vintages = await read_vintages(connection, of_model)
        sections.append(Section(model, months, vintages, drifts[name], groups[name]))
    values = {"query": query, "sections": sections, "screen": screen, "now": datetime.now(UTC)}
    return await asyncio.to_thread(_rendered, values)


def _rendered(values: dict[str, object]) -> str:
    """The report of ``values``; the first one compiles the template, which takes 20 ms."""
    return _ENVIRONMENT.get_template("report.html").render(values)


def _decisions(model: ModelPerformance) -> int:
    return model.approved.decisions + model.refused.decisions


def _by_name(models: Iterable[_Named]) -> dict[tuple[str, str], _Named]:
    return {(each.bundle, each.model): each for each in models}


async def _read(query: CohortQuery) -> str:
    settings = read_settings_or_exit(HistorySettings)
    engine = open_engine(settings, name="report", pool_size=1)
    try:
        async with connection(engine) as opened:
            return await read_report(opened, query, screen=settings.fairness_screen)
    finally:
        await engine.dispose()


def main(arguments: Sequence[str]) -> int:
    """Write the report on the decisions that the arguments select."""
    parser = argparse.ArgumentParser(prog="python -m services.history.monitoring.report")
    for name, field in CohortQuery.model_fields.items():
        parser.add_argument(f"--{name}", help=field.description)
    parser.add_argument("--output", type=Path, default=Path("monitoring-report.html"))
    parsed = vars(parser.parse_args(arguments))
    output: Path = parsed.pop("output")
    try:
        query = CohortQuery.model_validate(parsed)
    except ValidationError as error:
        parser.error("; ".join(map(message_of, error.errors())))
    output.write_text(asyncio.run(_read(query)), encoding="utf-8")
    print(f"Wrote {output}.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
