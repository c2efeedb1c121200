"""An old decision again: decided anew with the bundle it names, and compared member by member."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, Literal

from pydantic import BaseModel, Field
from pydantic_core import from_json

from services.scoring.engine import decide
from services.scoring.manifest import BundleError
from services.scoring.registry import Bundle, load_bundle
from services.scoring.store import BundleStore
from shared.contract.events import Decision

MOST_BUNDLES: Final = 4
"""Most bundles kept loaded beside those that decide, 8 MiB each."""
ROUNDING: Final = 1.5e-6
"""Probabilities are recorded to six decimals; processors may differ in the last one."""

_NOT_COMPARED: Final = ("success", "prediction_id", "timestamp", "input_data")
"""The same by construction: they are taken over from the record."""

Cause = Literal["rounding", "threshold", "rules", "model"]


class Difference(BaseModel):
    """One member of the decision that came out otherwise."""

    member: str = Field(description="Its path in the decision, such as probability.approved.")
    recorded: Any
    replayed: Any
    cause: Cause = Field(
        description="What explains it: the last digit of a number, another threshold for the same"
        " probability, the service's rules for warnings, which a later version may word otherwise,"
        " or the model."
    )


class Replay(BaseModel):
    """Whether a recorded decision comes out the same today, and where it does not."""

    equal: bool = Field(
        description="Whether the decision comes out the same. Warnings that only a later version of"
        " the service words otherwise are listed and make no other decision."
    )
    prediction_id: str
    bundle_version: str
    fault: str | None = Field(
        description="Why nothing could be compared: the bundle is missing, altered, or made for"
        " another version of the service. Null if it was decided again."
    )
    differences: list[Difference]


class Bundles:
    """The bundles that recorded decisions name: those loaded to decide, and others of the store.

    Another one is verified and loaded off the event loop when it is first named; the
    ``MOST_BUNDLES`` used last stay loaded. ``loaded`` returns those loaded to decide.
    """

    def __init__(self, store: BundleStore, loaded: Callable[[], Iterable[Bundle]]) -> None:
        self._store = store
        self._to_decide = loaded
        self._loaded: dict[str, Bundle] = {}
        self._loading = asyncio.Lock()

    async def find(self, version: str) -> Bundle:
        """Return the bundle ``version``; raises ``BundleError`` if it cannot be used."""
        for each in self._to_decide():
            if each.manifest.version == version:
                return each
        async with self._loading:
            bundle = self._loaded.pop(version, None)
            if bundle is None:
                bundle = await asyncio.to_thread(self._load, version)
            self._loaded[version] = bundle
            while len(self._loaded) > MOST_BUNDLES:
                del self._loaded[next(iter(self._loaded))]
        return bundle

    def _load(self, version: str) -> Bundle:
        return load_bundle(self._store.folder(version).parent, version)


async def replay(recorded: Decision, bundles: Bundles) -> Replay:
    """Decide ``recorded`` again with its own bundle and model, and compare; records nothing."""
    report = Replay(
        equal=False,
        prediction_id=str(recorded.prediction_id),
        bundle_version=recorded.model_info.version,
        fault=None,
        differences=[],
    )
    try:
        bundle = await bundles.find(recorded.model_info.version)
    except BundleError as error:
        report.fault = str(error)
        return report
    name = recorded.model_info.name
    if name not in bundle.models:
        report.fault = f"The bundle {report.bundle_version} holds no model {name}."
        return report
    try:
        decided = decide(
            recorded.input_data.model_dump(),
            model=bundle.models[name],
            bundle=bundle,
            prediction_id=report.prediction_id,
            # It says why the bundle was chosen, not what it decides.
            arm=recorded.model_info.arm,
        )
    except (ArithmeticError, LookupError, TypeError, ValueError):
        # The contract of a record is wider than what any one version decides on.
        report.fault = f"The bundle {report.bundle_version} cannot decide on such an input."
        return report
    report.differences = list(
        differences(_as_answered(recorded).model_dump(mode="json"), from_json(decided.body))
    )
    report.equal = all(each.cause == "rules" for each in report.differences)
    return report


def _as_answered(recorded: Decision) -> Decision:
    # Reasons that were found later were no part of the answer.
    later = recorded.reasons_basis is not None and recorded.reasons_basis.later
    return (
        recorded.model_copy(update={"reasons": None, "reasons_basis": None}) if later else recorded
    )


def differences(recorded: Mapping[str, Any], replayed: Mapping[str, Any]) -> Iterator[Difference]:
    """Yield each member of both decisions whose values differ, with the cause."""
    was, now = dict(_members(recorded)), dict(_members(replayed))
    probability = "probability.approved"
    gap = abs(was[probability] - now[probability])
    for member, value in was.items():
        if now.get(member) != value:
            cause = _cause(member, value, now.get(member), gap=gap)
            yield Difference(member=member, recorded=value, replayed=now.get(member), cause=cause)


def _members(decision: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in decision.items():
        if path == "" and name in _NOT_COMPARED:
            continue
        if isinstance(value, Mapping):
            yield from _members(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


def _cause(member: str, recorded: object, replayed: object, *, gap: float) -> Cause:
    # ``gap`` is between the probabilities of approval.
    if member in ("imputed", "warnings"):
        return "rules"
    if isinstance(recorded, float) and isinstance(replayed, float):
        return "rounding" if abs(recorded - replayed) <= ROUNDING else "model"
    if gap > ROUNDING or member.startswith("reasons"):
        return "model"
    return "rounding" if gap else "threshold"
