"""Where a decision is made and put on record, the same for every entry point, HTTP or other.

On record means handed over durably: to the stream, or to the history service, which stores it.

A decision is returned only once it is durable, so that whatever is answered is on record.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from time import perf_counter
from typing import Any, Final, NamedTuple

from services.scoring.arm_health import ArmHealth
from services.scoring.engine import Decided, decide, decide_many
from services.scoring.idempotency import Idempotency, NamedRequest
from services.scoring.metrics import DecisionMetrics
from services.scoring.publisher import Publisher
from services.scoring.registry import Bundle, ServedModel
from services.scoring.turns import in_turns
from shared.contract.rollout import Rollout, arm_label, arm_of
from shared.observability.tracing import NO_TRACE, Trace

SLICE: Final = 64
"""Applications that are decided in one turn of the event loop, and handed over together: whatever
else waits for either does so for a millisecond or two."""


@dataclass(frozen=True)
class Served:
    """What is served at one moment. A request takes it once, so that it never sees two bundles."""

    bundle: Bundle
    """Its champion decides, unless the roll-out has the application meet a candidate."""
    metrics: DecisionMetrics
    """Counts by the version of the bundle that decided."""
    rollout: Rollout | None = None
    candidate: Bundle | None = None
    """The roll-out's, if it has one: its champion decides for a share of the applications."""
    health: ArmHealth = field(default_factory=ArmHealth)

    def expect(self) -> None:
        """Export what is served from now on, at 0 before its first decision."""
        for bundle in (self.bundle, self.candidate):
            if bundle is not None:
                self.metrics.expect(bundle)

    def choose(self, application: Mapping[str, Any]) -> tuple[Bundle, str | None]:
        """The bundle whose champion decides, and which arm of an experiment that is, if any."""
        if self.rollout is None or self.candidate is None:
            return self.bundle, None
        arm = arm_of(self.rollout, application)
        bundle = self.candidate if arm == "candidate" else self.bundle
        return bundle, arm_label(self.rollout, arm)


class Submission(NamedTuple):
    """How an application came in. ``client`` and ``request_id`` need no escaping in JSON."""

    client: str
    request_id: str
    validate_s: float = 0.0
    """How long parsing it took."""
    trace: Trace = NO_TRACE


async def record(
    application: Mapping[str, Any],
    served: Served,
    submission: Submission,
    *,
    model: ServedModel | None,
    publisher: Publisher,
) -> Decided:
    """Decide a parsed application, and return once the decision is durable.

    ``model`` is one of the served bundle's; with None the roll-out chooses one. Raises
    ``NotRecorded``: then the decision must not be shown.
    """
    decided, model_s = _decide(application, served, submission, model)
    await _hand_over(decided, served, submission, publisher, model_s)
    return decided


async def record_once(
    application: Mapping[str, Any],
    served: Served,
    submission: Submission,
    *,
    model: ServedModel | None,
    publisher: Publisher,
    idempotency: Idempotency,
    request: NamedRequest,
) -> Decided:
    """The decision answered to this request before, or else that of ``record``.

    An earlier attempt that was cut off before its answer may have left a decision on record: then
    that one is recorded and returned, not another. Raises ``NotRecorded``, ``StillInProgress``,
    ``AnswerErased`` and ``IdempotencyKeyReused``.
    """
    # Decided before Redis is asked, so that one exchange reserves the request and keeps the answer.
    decided, model_s = _decide(application, served, submission, model, request.prediction_id)

    async def hand_over(body: bytes) -> None:
        nonlocal decided
        if body is not decided.body:
            decided = Decided.read(body)
        await _hand_over(decided, served, submission, publisher, model_s)

    answer = await idempotency.once(request, decided.body, hand_over)
    if answer.replayed:
        decided = Decided.read(answer.body, replayed=True)
        _describe(submission.trace, decided)
    return decided


async def record_many(
    applications: Sequence[Mapping[str, Any]],
    served: Served,
    submissions: Sequence[Submission],
    *,
    model: ServedModel | None,
    publisher: Publisher,
    prediction_ids: Sequence[str] | None = None,
) -> list[Decided]:
    """Decide many parsed applications, and return once all decisions are durable, in their order.

    Raises ``NotRecorded`` unless all of them are; then some may be. With ``prediction_ids``, one
    each, a repetition records none of them twice. There is one of ``submissions`` for each.
    """
    decided, model_s = await _decide_many(applications, served, model, prediction_ids)
    await _hand_over_many(decided, served, submissions, publisher, model_s)
    return decided


async def record_many_once(
    applications: Sequence[Mapping[str, Any]],
    served: Served,
    submissions: Sequence[Submission],
    *,
    model: ServedModel | None,
    publisher: Publisher,
    idempotency: Idempotency,
    request: NamedRequest,
    indexes: Iterable[int],
) -> list[Decided]:
    """The decisions answered to this request before, or else those of ``record_many``.

    ``indexes`` say where the applications, of which there is one at least, stand in the request.
    As ``record_once`` of a single one, for all together: what is replayed is replayed as a whole,
    and if one decision was erased ``AnswerErased`` is raised.
    """
    ids = await in_turns(request.prediction_id_at, indexes)
    decided, model_s = await _decide_many(applications, served, model, ids)

    async def hand_over(bodies: Sequence[bytes]) -> None:
        nonlocal decided
        decided = await in_turns(_as_kept, zip(decided, bodies, strict=True))
        await _hand_over_many(decided, served, submissions, publisher, model_s)

    answers = {each.prediction_id: each.body for each in decided}
    bodies, replayed = await idempotency.once_many(request, answers, hand_over)
    if replayed:
        decided = await in_turns(partial(Decided.read, replayed=True), bodies)
    return decided


def _as_kept(pair: tuple[Decided, bytes]) -> Decided:
    decided, body = pair
    return decided if body is decided.body else Decided.read(body)


async def _decide_many(
    applications: Sequence[Mapping[str, Any]],
    served: Served,
    model: ServedModel | None,
    prediction_ids: Sequence[str] | None,
) -> tuple[list[Decided], float]:
    """The decisions, and the seconds that each took."""
    model_s = 0.0

    def decide_slice(part: slice) -> list[Decided]:
        nonlocal model_s
        began_s = perf_counter()
        ids = prediction_ids and prediction_ids[part]
        if model is None:
            decided = decide_by_rollout(applications[part], served, ids)
        else:
            decided = decide_many(
                applications[part], model=model, bundle=served.bundle, prediction_ids=ids
            )
        model_s += perf_counter() - began_s
        return decided

    slices = await in_turns(decide_slice, _slices(len(applications)))
    return list(chain.from_iterable(slices)), model_s / max(1, len(applications))


def decide_by_rollout(
    applications: Sequence[Mapping[str, Any]],
    served: Served,
    prediction_ids: Sequence[str] | None = None,
) -> list[Decided]:
    """The decision on each application by the arm that it meets, as ``decide_many`` makes it."""
    chosen = [served.choose(application) for application in applications]
    decided: dict[int, Decided] = {}
    for arm, bundle in {arm: bundle for bundle, arm in chosen}.items():
        indexes = [index for index, (_, other) in enumerate(chosen) if other == arm]
        make = partial(
            decide_many,
            [applications[index] for index in indexes],
            model=bundle.champion,
            bundle=bundle,
            prediction_ids=prediction_ids and [prediction_ids[index] for index in indexes],
            arm=arm,
        )
        decisions = (
            make() if arm is None else served.health.count(arm, make, decisions=len(indexes))
        )
        decided.update(zip(indexes, decisions, strict=True))
    return [decided[index] for index in range(len(applications))]


async def _hand_over_many(
    decided: Sequence[Decided],
    served: Served,
    submissions: Sequence[Submission],
    publisher: Publisher,
    model_s: float,
) -> None:
    for part in _slices(len(decided)):
        handed = list(zip(decided[part], submissions[part], strict=True))
        began_s = perf_counter()
        await publisher.publish_many(
            [recorded_event(each.body, submission) for each, submission in handed]
        )
        publish_s = perf_counter() - began_s
        for each, submission in handed:
            served.metrics.count(
                each, validate_s=submission.validate_s, model_s=model_s, publish_s=publish_s
            )


def _slices(count: int) -> list[slice]:
    return [slice(start, start + SLICE) for start in range(0, count, SLICE)]


def _decide(
    application: Mapping[str, Any],
    served: Served,
    submission: Submission,
    model: ServedModel | None,
    prediction_id: str | None = None,
) -> tuple[Decided, float]:
    submission.trace.step("model")
    began_s = perf_counter()
    bundle, arm = served.bundle, None
    if model is None:
        bundle, arm = served.choose(application)
        model = bundle.champion
    make = partial(
        decide, application, model=model, bundle=bundle, prediction_id=prediction_id, arm=arm
    )
    decided = make() if arm is None else served.health.count(arm, make)
    return decided, perf_counter() - began_s


async def _hand_over(
    decided: Decided,
    served: Served,
    submission: Submission,
    publisher: Publisher,
    model_s: float,
) -> None:
    trace = submission.trace
    trace.step("publish")
    began_s = perf_counter()
    await publisher.publish(recorded_event(decided.body, submission))
    publish_s = perf_counter() - began_s
    trace.end_step()
    _describe(trace, decided)
    served.metrics.count(
        decided, validate_s=submission.validate_s, model_s=model_s, publish_s=publish_s
    )


def recorded_event(decision: bytes, submission: Submission) -> bytes:
    """The ``PredictionRecorded`` event around the very bytes that the client is answered with."""
    return (
        b'{"type":"PredictionRecorded","version":1,"client":"%b","request_id":"%b",%b"decision":%b}'
        % (
            submission.client.encode(),
            submission.request_id.encode(),
            submission.trace.event_member,
            decision,
        )
    )


def _describe(trace: Trace, decided: Decided) -> None:
    trace.describe(
        prediction_id=decided.prediction_id,
        model=decided.model,
        version=decided.version,
        outcome=decided.prediction,
    )
