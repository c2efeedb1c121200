"""The report of an experiment: its two arms side by side, and whether they differ."""

from datetime import datetime
from typing import Final, NamedTuple, get_args

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.history.estimates import proportion
from services.history.monitoring.schemas import Estimated
from services.history.rollout import sequential
from services.history.rollout.board import read_board
from services.history.rollout.schemas import ArmReport, Guard, RolloutReport, ShareDifference
from services.history.rollout.sequential import LEAST, Proportion, difference
from services.history.tables import (
    current_outcomes,
    daily_rollup,
    predictions,
    rollout_states,
    rollouts,
)
from shared.contract.errors import NotFound
from shared.contract.ids import first_uuid7_at
from shared.contract.outcomes import BAD, GOOD
from shared.contract.rollout import Arm, ArmName, Rollout

_APPROVED: Final = "Approved"
_METHOD: Final = (
    "Shares have Wilson's 95 % interval, right for one look. The differences have a 95 % confidence"
    " sequence (mixture sequential probability ratio test), right however often one looks. The arms"
    " are assigned by a hash, so that nothing but chance and the models differs between them."
    " Outcomes are known of approved loans only, sooner of bad ones."
)


class Experiment(NamedTuple):
    """A comparison of two arms."""

    name: str
    since: datetime
    first: Rollout
    last: Rollout
    """Its first and its last roll-out that were in force."""


class Total(NamedTuple):
    """What one arm decided."""

    decisions: int = 0
    approved: int = 0
    with_warnings: int = 0
    confidence_sum: float = 0.0
    good: int = 0
    bad: int = 0

    @property
    def approvals(self) -> Proportion:
        """Approvals among decisions."""
        return Proportion(self.approved, self.decisions)

    @property
    def bad_loans(self) -> Proportion:
        """Bad outcomes among the approved decisions whose outcome is known."""
        return Proportion(self.bad, self.good + self.bad)


async def read_report(
    connection: AsyncConnection, name: str | None, *, guard_difference: float
) -> RolloutReport:
    """The report of the experiment ``name``, or of the last one; raises ``NotFound``."""
    experiment = await read_experiment(connection, name)
    active = (await read_board(connection)).active
    outcomes = await _read_outcomes(connection, experiment)
    default = (await read_total(connection, experiment, "default"))._replace(**outcomes["default"])
    candidate = await read_total(connection, experiment, "candidate")
    candidate = candidate._replace(**outcomes["candidate"])
    approval = difference(candidate.approvals, default.approvals)
    first, last = experiment.first.candidate, experiment.last.candidate
    assert first is not None  # noqa: S101 - an experiment has a candidate
    assert last is not None  # noqa: S101
    return RolloutReport(
        experiment=experiment.name,
        since=experiment.since,
        share=last.share,
        running=active is not None and active.experiment == experiment.name,
        default=_arm(experiment.first.default, default),
        candidate=_arm(Arm(bundle=first.bundle, model=first.model), candidate),
        approval=_stated(approval, "approvals", candidate.approvals.of),
        outcomes=_stated(
            difference(candidate.bad_loans, default.bad_loans),
            "bad outcomes",
            candidate.bad_loans.of,
        ),
        least=LEAST,
        guard=Guard(
            largest_difference=guard_difference, crossed=crossed(approval, guard_difference)
        ),
        method=_METHOD,
    )


def crossed(approval: sequential.EstimatedDifference | None, largest: float) -> str | None:
    """Why the candidate must not decide on: its approval share is surely too far off, or None."""
    if approval is None or (approval.low <= largest and approval.high >= -largest):
        return None
    return (
        f"The candidate's share of approvals is {_points(approval.value)} than the default's,"
        f" by more than the {100 * largest:g} points that are allowed"
        f" (between {100 * approval.low:+.1f} and {100 * approval.high:+.1f})."
    )


async def read_total(connection: AsyncConnection, experiment: Experiment, arm: ArmName) -> Total:
    """What an arm decided in the experiment, without outcomes."""
    label = f"{experiment.name}:{arm}"
    table = daily_rollup.c
    is_approved = table.prediction == _APPROVED
    statement = select(
        func.coalesce(func.sum(table.predictions), 0),
        func.coalesce(func.sum(table.predictions).filter(is_approved), 0),
        func.coalesce(func.sum(table.with_warnings), 0),
        func.coalesce(func.sum(table.confidence_sum), 0.0),
    ).where(table.day >= experiment.since.date(), table.arm == label)
    decisions, approved, with_warnings, confidence = (await connection.execute(statement)).one()
    return Total(int(decisions), int(approved), int(with_warnings), confidence)


async def _read_outcomes(
    connection: AsyncConnection, experiment: Experiment
) -> dict[ArmName, dict[str, int]]:
    """The good and bad outcomes of what each arm approved: a join of as many decisions."""
    labels: dict[str, ArmName] = {f"{experiment.name}:{arm}": arm for arm in get_args(ArmName)}
    table = predictions.c
    known = (
        select(table.arm, current_outcomes.c.outcome, func.count().label("outcomes"))
        .join(predictions, table.id == current_outcomes.c.decision)
        .where(
            current_outcomes.c.decision >= first_uuid7_at(experiment.since),
            table.arm.in_(labels),
            table.prediction == _APPROVED,
        )
        .group_by(table.arm, current_outcomes.c.outcome)
    )
    found = {arm: {"good": 0, "bad": 0} for arm in labels.values()}
    for row in await connection.execute(known):
        if row.outcome in GOOD | BAD:
            found[labels[row.arm]]["good" if row.outcome in GOOD else "bad"] += row.outcomes
    return found


async def read_experiment(connection: AsyncConnection, name: str | None) -> Experiment:
    """The experiment ``name``, or the last one that ran; raises ``NotFound``."""
    in_force = (
        select(rollouts.c.experiment, rollouts.c.content, rollout_states.c.reached_at)
        .join(rollout_states, rollout_states.c.epoch == rollouts.c.epoch)
        .where(rollout_states.c.state == "active", rollouts.c.experiment.isnot(None))
    )
    if name is None:
        newest = in_force.order_by(rollouts.c.epoch.desc()).limit(1)
        row = (await connection.execute(newest)).one_or_none()
        name = row.experiment if row else None
    statement = in_force.where(rollouts.c.experiment == name).order_by(rollouts.c.epoch)
    rows = (await connection.execute(statement)).all()
    if name is None or not rows:
        raise NotFound("No candidate has had a share yet." if name is None else f"No {name} ran.")
    first, last = (Rollout.model_validate_json(row.content) for row in (rows[0], rows[-1]))
    return Experiment(name, rows[0].reached_at, first, last)


def _arm(arm: Arm, total: Total) -> ArmReport:
    decided = total.decisions
    return ArmReport(
        arm=arm,
        decisions=decided,
        approved=total.approved,
        with_warnings=total.with_warnings,
        approval_share=_share(total.approvals),
        mean_confidence=total.confidence_sum / decided if decided else None,
        good=total.good,
        bad=total.bad,
        bad_share=_share(total.bad_loans),
    )


def _share(counts: Proportion) -> Estimated | None:
    if not counts.of:
        return None
    return Estimated(**proportion(*counts)._asdict())


def _stated(
    found: sequential.EstimatedDifference | None, what: str, of: int
) -> ShareDifference | None:
    if found is None:
        return None
    sentence = (
        f"The candidate's share of {what} is {_points(found.value)} than the default's:"
        " more than chance explains."
        if found.is_different
        else f"After {of:,} of the candidate, no difference can be told from chance;"
        f" one of more than {100 * max(-found.low, found.high):.1f} points is ruled out."
    )
    return ShareDifference(**found._asdict(), different=found.is_different, sentence=sentence)


def _points(value: float) -> str:
    return f"{100 * abs(value):.1f} points {'higher' if value > 0 else 'lower'}"
