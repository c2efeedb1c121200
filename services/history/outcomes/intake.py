"""Record what became of loans: every report once, and the counts that follow from it."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

from pydantic import ValidationError
from pydantic_core import from_json
from sqlalchemy import BigInteger, Text, column, func, insert, literal, select, true
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.history import audit
from services.history.cache import Cache
from services.history.database import rows_as_select, transaction
from services.history.outcomes import rollups
from services.history.outcomes.rollups import GROUPED, OutcomeChange
from services.history.outcomes.schemas import OutcomeFault, OutcomeReceipt, OutcomeReport
from services.history.queries import read_outcomes
from services.history.schemas import AuditEntry
from services.history.tables import AnyRow, current_outcomes, outcomes, predictions
from shared.contract.errors import MAX_FAULTS, Fault, InvalidInput, message_of
from shared.contract.ids import is_uuid7
from shared.contract.nearest import nearest
from shared.files.outcomes import OUTCOME_COLUMNS, read_outcome_rows
from shared.files.tables import FileError
from shared.observability.logs import get_logger
from shared.redis import REDIS_ERRORS

MAX_GROUP: Final = 1000
"""Most reports of one JSON array, and of one transaction."""
MAX_OF_LOAN: Final = 100
"""Most decisions about one application that one report can be of."""
_MAX_LISTED: Final = 1000
_CLOCKS_DIFFER_BY: Final = timedelta(days=1)

_UNKNOWN: Final = "names no decision that is recorded here (yet)"
_TOO_MANY: Final = (
    f"names more than {MAX_OF_LOAN} decisions; report the outcome of each by its prediction_id"
)
_log = get_logger(__name__)


class Place(NamedTuple):
    """Where a report stands: its index in an array, or its line in a file."""

    kind: str
    number: int

    def fault(self, name: str, message: str) -> OutcomeFault:
        """What is wrong with the member ``name`` of the report."""
        return OutcomeFault(**{self.kind: self.number}, field=name, message=message)


@dataclass
class Reports:
    """The reports of one request that can be used, and the faults of all others."""

    usable: list[tuple[Place, OutcomeReport]] = field(default_factory=list)
    faults: list[OutcomeFault] = field(default_factory=list)
    faulty: int = 0

    def add(self, place: Place, values: object) -> None:
        """Read one report."""
        try:
            report = OutcomeReport.model_validate(values)
        except ValidationError as error:
            self.refuse(*(place.fault(*_worded(each)) for each in error.errors(include_url=False)))
        else:
            self.usable.append((place, report))

    def refuse(self, *faults: OutcomeFault) -> None:
        """Leave one report out."""
        self.faulty += 1
        self.faults.extend(faults[: _MAX_LISTED - len(self.faults)])


def parse_json(body: bytes) -> Reports:
    """The reports of a JSON body: one object, or an array of at most ``MAX_GROUP``.

    Raises ``InvalidInput`` if it is neither, or if any report cannot be read.
    """
    try:
        content = from_json(body)
    except ValueError as error:
        raise _refused(f"is not valid JSON: {error}") from None
    if isinstance(content, list):
        if not content:
            raise _refused("holds no outcome")
        if len(content) > MAX_GROUP:
            raise _refused(
                f"has {len(content)} outcomes; an array may have {MAX_GROUP}, a file of lines more"
            )
    elif not isinstance(content, dict):
        raise _refused("must be a JSON object or an array of objects")
    reports = Reports()
    for index, values in enumerate(content if isinstance(content, list) else [content]):
        reports.add(Place("index", index), values)
    if reports.faulty:
        raise _unusable(reports, in_array=isinstance(content, list))
    return reports


def parse_lines(body: bytes) -> Reports:
    """The reports of an NDJSON body; raises ``InvalidInput`` if none can be read."""
    reports = Reports()
    for number, line in enumerate(body.split(b"\n"), start=1):
        if not line.strip():
            continue
        place = Place("line", number)
        try:
            values = from_json(line)
        except ValueError as error:
            reports.refuse(place.fault("line", f"is not valid JSON: {error}"))
        else:
            reports.add(place, values)
    return _some(reports)


def parse_file(body: bytes) -> Reports:
    """The reports of a CSV file; raises ``InvalidInput`` if none can be read."""
    reports = Reports()
    try:
        for line, values in read_outcome_rows(body):
            reports.add(Place("line", line), values)
    except FileError as error:
        raise _refused(str(error)) from None
    return _some(reports)


def _some(reports: Reports) -> Reports:
    if reports.usable:
        return reports
    raise _unusable(reports) if reports.faulty else _refused("holds no outcome")


def _unusable(reports: Reports, *, in_array: bool = True) -> InvalidInput:
    return InvalidInput(
        [
            Fault(
                field=f"{_place_of(fault)}.{fault.field}" if in_array else fault.field,
                message=fault.message,
            )
            for fault in reports.faults[:MAX_FAULTS]
        ]
    )


def _place_of(fault: OutcomeFault) -> str:
    return f"{fault.index}" if fault.line is None else f"line {fault.line}"


def _refused(message: str) -> InvalidInput:
    return InvalidInput([Fault(field="body", message=message)])


def _worded(error: Any) -> tuple[str, str]:
    name = ".".join(map(str, error["loc"])) or "report"
    if error["type"] == "extra_forbidden":
        near = nearest(name, OUTCOME_COLUMNS)
        hint = f"; the nearest one is {near}" if near else ""
        return name[:64], f"is no member of an outcome{hint}"
    return name, message_of(error)


async def record(
    engine: AsyncEngine, cache: Cache, reports: Reports, *, actor: str
) -> OutcomeReceipt:
    """Record the usable reports, ``MAX_GROUP`` per transaction, each with its audit entry.

    The same report again changes nothing, so a request that was interrupted is completed by
    sending it again. Raises ``StoreUnavailable``; the groups before it are recorded then.
    """
    done = _Done()
    head = None
    for first in range(0, len(reports.usable), MAX_GROUP):
        group = reports.usable[first : first + MAX_GROUP]
        async with transaction(engine) as opened:
            # Reports are recorded one group at a time, so none misses what another one changes.
            turn = await audit.take_turn(opened)
            recorder = _Recorder(turn.occurred_at)
            await recorder.record(opened, group, reports)
            head = await audit.append(
                opened,
                turn,
                actor=actor,
                action="record outcomes",
                subject=digest_of(recorder.rows),
                details=recorder.done._asdict(),
            )
        done = done.and_(recorder.done)
        try:
            await cache.forget()
        except REDIS_ERRORS as error:
            # What is cached expires by its age, within minutes.
            _log.warning("caches not invalidated", error=repr(error))
    return OutcomeReceipt(
        **done._asdict(),
        faulty=reports.faulty,
        faults=reports.faults,
        audit=None if head is None else AuditEntry(id=head.id, hash=head.hash.hex()),
    )


class _Done(NamedTuple):
    accepted: int = 0
    unchanged: int = 0
    superseded: int = 0

    def and_(self, other: "_Done") -> "_Done":
        return _Done(*(ours + theirs for ours, theirs in zip(self, other, strict=True)))


class _Recorder:
    """One group's way into the tables."""

    def __init__(self, recorded_at: datetime) -> None:
        self.rows: list[dict[str, Any]] = []
        """What is added to ``outcomes``."""
        self.done = _Done()
        self._recorded_at = recorded_at
        self._seen: set[tuple[Any, ...]] = set()
        self._current: dict[UUID, tuple[datetime, Any]] = {}
        self._changed: dict[UUID, None] = {}
        self._changes: list[OutcomeChange] = []

    async def record(
        self,
        connection: AsyncConnection,
        group: Sequence[tuple[Place, OutcomeReport]],
        reports: Reports,
    ) -> None:
        """Record the reports of ``group``; those of no decision are refused in ``reports``."""
        found = await _find(connection, [report for _, report in group])
        keys = {row.id for rows in found for row in rows}
        for key, known in (await read_outcomes(connection, keys)).items():
            self._seen.update((key, *_members(row)) for row in known)
            self._current[key] = (known[0].observed_at, known[0].outcome)
        for (place, report), rows in zip(group, found, strict=True):
            fault = _fault(place, report, rows)
            if fault:
                reports.refuse(fault)
                continue
            for row in rows:
                self._take(row, report)
        await self._write(connection)

    def _take(self, decision: AnyRow, report: OutcomeReport) -> None:
        members = (decision.id, *_members(report))
        if members in self._seen:
            self.done = self.done.and_(_Done(unchanged=1))
            return
        self._seen.add(members)
        names = ("decision", *_MEMBERS)
        self.rows.append(
            dict(zip(names, members, strict=True)) | {"recorded_at": self._recorded_at}
        )
        before = self._current.get(decision.id)
        if before is not None and before[0] > report.observed_at:
            self.done = self.done.and_(_Done(accepted=1))
            return
        if before is not None:
            self._changes.append(OutcomeChange(decision, before[1], before[0], sign=-1))
        self._changes.append(OutcomeChange(decision, report.outcome, report.observed_at, sign=1))
        self._current[decision.id] = (report.observed_at, report.outcome)
        self._changed[decision.id] = None
        self.done = self.done.and_(_Done(accepted=1, superseded=int(before is not None)))

    async def _write(self, connection: AsyncConnection) -> None:
        if self.rows:
            rows = [tuple(row[name] for name in _WRITTEN) for row in self.rows]
            given = rows_as_select(outcomes, _WRITTEN, rows)
            await connection.execute(insert(outcomes).from_select(_WRITTEN, given))
        if not self._changed:
            return
        names = ("decision", "observed_at", "outcome")
        rows = [(key, *self._current[key]) for key in self._changed]
        current = upsert(current_outcomes).from_select(
            names, rows_as_select(current_outcomes, names, rows)
        )
        await connection.execute(
            current.on_conflict_do_update(
                constraint=current_outcomes.primary_key,
                set_={name: current.excluded[name] for name in names[1:]},
            )
        )
        await rollups.apply(connection, self._changes)


_MEMBERS: Final = ("observed_at", "outcome", "matures_at", "source")
_WRITTEN: Final = ("decision", *_MEMBERS, "recorded_at")


def _members(report: AnyRow | OutcomeReport) -> tuple[Any, ...]:
    return tuple(getattr(report, name) for name in _MEMBERS)


def _fault(place: Place, report: OutcomeReport, rows: Sequence[AnyRow]) -> OutcomeFault | None:
    # The outcome observed last is the current one: a slip of the year would stay so for ever.
    if report.observed_at > datetime.now(UTC) + _CLOCKS_DIFFER_BY:
        return place.fault("observed_at", "is in the future")
    named = "prediction_id" if report.loan_id is None else "loan_id"
    if not rows:
        return place.fault(named, _UNKNOWN)
    if len(rows) > MAX_OF_LOAN:
        return place.fault(named, _TOO_MANY)
    decided_on = max(row.decided_at for row in rows).date()
    for name, moment in (("observed_at", report.observed_at), ("matures_at", report.matures_at)):
        if moment is not None and moment.date() < decided_on:
            return place.fault(name, "is before the day of the decision")
    return None


def digest_of(rows: Iterable[dict[str, Any]]) -> str:
    """What the audit log holds of rows of ``outcomes``, in the order they were recorded in.

    SHA-256 over an ASCII JSON array without white space of (decision, outcome, observed_at,
    matures_at, source); times are ISO 8601 in UTC. They can be checked against it later.
    """
    names = ("decision", "outcome", "observed_at", "matures_at", "source")
    listed = [[_plain(row[name]) for name in names] for row in rows]
    encoded = json.dumps(listed, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(encoded.encode('ascii')).hexdigest()}"


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds")
    return str(value) if isinstance(value, UUID) else value


_FOUND: Final = tuple(
    predictions.c[name]
    for name in (
        *("id", "derived_id", "decided_at", "erased_at"),
        *("model", "bundle_version", "prediction", "probability_approved", *GROUPED),
    )
)


async def _find(
    connection: AsyncConnection, reports: Sequence[OutcomeReport]
) -> list[Sequence[AnyRow]]:
    """The decisions that each report names; one more than ``MAX_OF_LOAN`` where there are more."""
    ids = {report.prediction_id for report in reports if report.prediction_id is not None}
    by_id = {row.derived_id or row.id: row for row in await _by_id(connection, ids)}
    wanted = {
        (report.loan_id, 1 if report.which == "latest" else MAX_OF_LOAN + 1)
        for report in reports
        if report.loan_id is not None
    }
    by_loan: dict[tuple[str, int], list[AnyRow]] = {}
    for row in await _by_loan(connection, sorted(wanted)):
        by_loan.setdefault((row.wanted, row.most), []).append(row)

    def of(report: OutcomeReport) -> Sequence[AnyRow]:
        if report.prediction_id is not None:
            return [by_id[report.prediction_id]] if report.prediction_id in by_id else []
        most = 1 if report.which == "latest" else MAX_OF_LOAN + 1
        return by_loan.get((report.loan_id or "", most), [])

    return [of(report) for report in reports]


async def _by_id(connection: AsyncConnection, ids: set[UUID]) -> Sequence[AnyRow]:
    if not ids:
        return ()
    own = [each for each in ids if is_uuid7(each)]
    derived = [each for each in ids if not is_uuid7(each)]
    table = predictions.c
    # As in ``queries.is_decision``: a key made from a derived id is not the id of a decision.
    statement = select(*_FOUND).where(
        (table.id.in_(own) & table.derived_id.is_(None)) | table.derived_id.in_(derived)
    )
    return (await connection.execute(statement)).all()


async def _by_loan(
    connection: AsyncConnection, wanted: Sequence[tuple[str, int]]
) -> Sequence[AnyRow]:
    if not wanted:
        return ()
    given = (
        func.unnest(
            literal([loan for loan, _ in wanted], ARRAY(Text)),
            literal([most for _, most in wanted], ARRAY(BigInteger)),
        )
        .table_valued(column("wanted", Text), column("most", BigInteger))
        .render_derived("given")
    )
    found = (
        select(*_FOUND)
        .where(predictions.c.loan_id == given.c.wanted)
        .order_by(predictions.c.id.desc())
        .limit(given.c.most)
        .lateral("found")
    )
    statement = select(given, found).select_from(given.join(found, true()))
    return (await connection.execute(statement)).all()
