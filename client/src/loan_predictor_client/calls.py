"""Every call of the services: its request, and how its answer is parsed."""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import BinaryIO, Final, Generic, Literal, TypeVar
from urllib.parse import quote
from uuid import UUID, uuid4

import httpx
from pydantic import BaseModel

from loan_predictor_client.errors import UnreadableAnswer, UnsendableCall
from loan_predictor_client.filters import Cohorts, Filters, Selection
from loan_predictor_client.models import (
    Analytics,
    Application,
    Arm,
    Batch,
    BatchPage,
    Benchmark,
    BundleList,
    Candidate,
    ChampionInfo,
    Decision,
    Erasure,
    Explanation,
    Fault,
    Health,
    LiveDrift,
    LiveFairness,
    LivePerformance,
    ManyDecisions,
    ModelComparison,
    ModelDetail,
    ModelList,
    ModelScorecard,
    OutcomeReceipt,
    Page,
    Performance,
    Record,
    Replay,
    RolloutEntry,
    RolloutReport,
    RolloutStatus,
    ShadowReport,
    Statistics,
    ValidationReport,
    ValidationRules,
    Vintages,
    WhatIf,
    WhatIfPage,
    WhatIfStatus,
)

Service = Literal["inference", "history", "batch"]
ExportFormat = Literal["csv", "ndjson"]
ResultsFormat = Literal["csv", "ndjson", "parquet"]
FileKind = Literal["csv", "ndjson", "parquet", "xlsx"]
FaultyRows = Literal["skip", "stop"]
UnknownColumns = Literal["stop", "skip"]
Reference = Literal["approved_near_threshold", "all_applicants"]
"""The training rows whose mean an application is compared with."""
Grouping = Literal["all", "month"]
Unit = Literal["day", "week", "month"]
StatisticsGrouping = Literal[Unit, "bundle", "client", "property_area", "credit_history", "outcome"]
Applied = Application | Mapping[str, object]
"""An application: the data set's own names with their values; None, or no entry, is missing."""

Outcomes = Mapping[str, object] | Sequence[Mapping[str, object]]
"""One report of what became of a loan, or several."""
BatchFile = bytes | Path | BinaryIO
"""The content of a file, where it is, or the file opened in binary mode."""

_MEDIA_TYPES: Final[Mapping[FileKind, str]] = {
    "csv": "text/csv",
    "ndjson": "application/x-ndjson",
    "parquet": "application/vnd.apache.parquet",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}
_SENDABLE: Final = re.compile("[!-~]*")
_KINDS: Final = {"x-api-key": "The API key", "idempotency-key": "The Idempotency-Key"}
_NO_ADDRESS: Final = "The address of a service must be like http://127.0.0.1:8000"

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request, and how its answer is parsed."""

    service: Service
    path: str
    read: Callable[[httpx.Response], T]
    method: Literal["GET", "POST", "DELETE"] = "GET"
    body: Mapping[str, object] | Sequence[Mapping[str, object]] | None = None
    content: bytes | None = None
    """A body that is no JSON."""
    parameters: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    through_gateway: str | None = None
    """The path behind a gateway that serves all services, where it differs."""

    def parse(self, response: httpx.Response) -> T:
        """The parsed answer; raises ``UnreadableAnswer``."""
        try:
            return self.read(response)
        except ValueError as error:
            raise UnreadableAnswer(
                f"The answer of {self.path} is not what this version of the client expects."
            ) from error

    @property
    def keyed(self) -> bool:
        """Whether the call carries an Idempotency-Key."""
        return "idempotency-key" in self.headers


def _json(model: type[M]) -> Callable[[httpx.Response], M]:
    return lambda response: model.model_validate_json(response.content)


def _bytes(response: httpx.Response) -> bytes:
    return response.content


def _text(response: httpx.Response) -> str:
    return response.content.decode()


def _body(application: Applied) -> dict[str, object]:
    if isinstance(application, Application):
        return application.model_dump(mode="json")
    return dict(application)


def predict(application: Applied, *, model: str | None, key: str | None) -> Call[Decision]:
    """Decide, and record. The key is the same for all attempts, so one call is one decision."""
    return Call(
        "inference",
        "/predict" if model is None else f"/predict/{quote(model, safe='')}",
        _json(Decision),
        method="POST",
        body=_body(application),
        headers={"idempotency-key": key or str(uuid4())},
    )


def predict_many(
    applications: Iterable[Applied], *, model: str | None, key: str | None
) -> Call[ManyDecisions]:
    """Decide up to 1,000 applications, and record; the key is the same for all attempts."""
    return Call(
        "inference",
        "/predict/many",
        _json(ManyDecisions),
        method="POST",
        body=[_body(application) for application in applications],
        parameters={} if model is None else {"model": model},
        headers={"idempotency-key": key or str(uuid4())},
    )


def benchmark(application: Applied) -> Call[Benchmark]:
    """Run all models on one application; nothing is recorded."""
    return Call(
        "inference",
        "/models/benchmark",
        _json(Benchmark),
        method="POST",
        body=_body(application),
    )


def explain(
    application: Applied, *, model: str | None, reference: Reference | None, bundle: str | None
) -> Call[Explanation]:
    """Explain how a model scores an application; nothing is recorded."""
    return Call(
        "inference",
        "/explain" if model is None else f"/explain/{quote(model, safe='')}",
        _json(Explanation),
        method="POST",
        body=_body(application),
        parameters={
            name: value
            for name, value in (("reference", reference), ("bundle", bundle))
            if value is not None
        },
    )


def validate(application: Applied) -> Call[ValidationReport]:
    """Check an application without deciding it."""
    return Call(
        "inference",
        "/validate-loan",
        _json(ValidationReport),
        method="POST",
        body=_body(application),
    )


def replay(record: Record) -> Call[Replay]:
    """Decide a recorded decision again, and compare; nothing is recorded."""
    return Call(
        "inference",
        "/replay",
        _json(Replay),
        method="POST",
        body=record.model_dump(mode="json"),
    )


def find_reasons(record: Record) -> Call[Decision]:
    """Find the reasons of a recorded refusal that has none; they are recorded with it."""
    return Call(
        "inference",
        "/reasons",
        _json(Decision),
        method="POST",
        body=record.model_dump(mode="json"),
    )


def validation_rules() -> Call[ValidationRules]:
    """The rules for an application, as data."""
    return Call("inference", "/validation-rules", _json(ValidationRules))


def models() -> Call[ModelList]:
    """The served models."""
    return Call("inference", "/models", _json(ModelList))


def compare() -> Call[ModelComparison]:
    """The models beside each other and beside the baselines."""
    return Call("inference", "/models/compare", _json(ModelComparison))


def model(name: str) -> Call[ModelDetail]:
    """Everything measured of one model."""
    return Call("inference", f"/models/{quote(name, safe='')}", _json(ModelDetail))


def scorecard(name: str) -> Call[ModelScorecard]:
    """The points of an additive model."""
    return Call("inference", f"/models/{quote(name, safe='')}/scorecard", _json(ModelScorecard))


def model_info() -> Call[ChampionInfo]:
    """The deciding model."""
    return Call("inference", "/model-info", _json(ChampionInfo))


def model_card(bundle: str | None) -> Call[str]:
    """The model card of the served bundle or the named one, in Markdown."""
    path = _of_bundle("/models/card", bundle)
    return Call("inference", path, _text)


def picture(name: str, bundle: str | None) -> Call[bytes]:
    """One PNG picture of the model card of the served bundle or the named one."""
    path = _of_bundle("/models/pictures", bundle)
    return Call("inference", f"{path}/{quote(name, safe='')}", _bytes)


def _of_bundle(path: str, bundle: str | None) -> str:
    return path if bundle is None else f"{path}/{quote(bundle, safe='')}"


def history(filters: Filters, *, limit: int, cursor: str | None) -> Call[Page]:
    """One page of records."""
    parameters = filters.parameters() | {"limit": str(limit)}
    if cursor is not None:
        parameters["cursor"] = cursor
    return Call("history", "/history", _json(Page), parameters=parameters)


def record(prediction_id: UUID | str) -> Call[Record]:
    """One decision as it was answered."""
    return Call("history", f"/history/{quote(str(prediction_id), safe='')}", _json(Record))


def erase(prediction_id: UUID | str) -> Call[Erasure]:
    """Erase the applicant's values from one decision."""
    path = f"/history/{quote(str(prediction_id), safe='')}"
    return Call("history", path, _json(Erasure), method="DELETE")


def report_outcomes(reports: Outcomes) -> Call[OutcomeReceipt]:
    """Record what became of loans; the same again changes nothing. Raises ``UnsendableCall``."""
    some = [reports] if isinstance(reports, Mapping) else reports
    try:
        lines = [json.dumps(report, default=_plain) for report in some]
    except (TypeError, ValueError, RecursionError) as error:
        raise UnsendableCall(f"An outcome cannot be written as JSON: {error}") from error
    return Call(
        "history",
        "/outcomes",
        _json(OutcomeReceipt),
        method="POST",
        content="\n".join(lines).encode(),
        headers={"content-type": "application/x-ndjson"},
    )


def _plain(value: object) -> str:
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def export(filters: Filters, *, format_: ExportFormat) -> Call[httpx.Response]:
    """All records that match; the response is not read yet."""
    parameters = filters.parameters() | {"format": format_}
    return Call("history", "/history/export", lambda response: response, parameters=parameters)


def statistics(selection: Selection, *, group_by: StatisticsGrouping | None) -> Call[Statistics]:
    """How decisions came out: overall, by model and by ``group_by``."""
    parameters = _grouped(selection, group_by)
    return Call("history", "/statistics", _json(Statistics), parameters=parameters)


def analytics(selection: Selection, *, group_by: Unit | None) -> Call[Analytics]:
    """Decisions over time, by confidence and by applicant."""
    parameters = _grouped(selection, group_by)
    return Call("history", "/analytics", _json(Analytics), parameters=parameters)


def _grouped(selection: Selection, group_by: str | None) -> dict[str, str]:
    return selection.parameters() | ({"group_by": group_by} if group_by else {})


def live_performance(cohorts: Cohorts, *, by: Grouping) -> Call[LivePerformance]:
    """How right the models were, by the outcomes that are known."""
    parameters = cohorts.parameters() | {"by": by}
    return Call("history", "/monitoring/performance", _json(LivePerformance), parameters=parameters)


def drift(cohorts: Cohorts, *, by: Grouping) -> Call[LiveDrift]:
    """How far applications and scores are from those the models were trained on."""
    parameters = cohorts.parameters() | {"by": by}
    return Call("history", "/monitoring/drift", _json(LiveDrift), parameters=parameters)


def fairness(cohorts: Cohorts, *, by: Grouping) -> Call[LiveFairness]:
    """The rates at which groups are approved that are never scored."""
    parameters = cohorts.parameters() | {"by": by}
    return Call("history", "/monitoring/fairness", _json(LiveFairness), parameters=parameters)


def vintages(cohorts: Cohorts) -> Call[Vintages]:
    """Cumulative shares of bad outcomes by months on book."""
    return Call("history", "/monitoring/vintages", _json(Vintages), parameters=cohorts.parameters())


def monitoring_report(cohorts: Cohorts) -> Call[str]:
    """The report on monitoring, as a page of HTML."""
    return Call("history", "/monitoring/report", _text, parameters=cohorts.parameters())


def bundles() -> Call[BundleList]:
    """All registered bundles."""
    return Call("history", "/admin/bundles", _json(BundleList))


def rollout() -> Call[RolloutStatus]:
    """Which models decide."""
    return Call("history", "/admin/rollout", _json(RolloutStatus))


def rollout_report(experiment: str | None) -> Call[RolloutReport]:
    """The arms of an experiment side by side."""
    parameters = {} if experiment is None else {"experiment": experiment}
    return Call("history", "/admin/rollout/report", _json(RolloutReport), parameters=parameters)


def shadow_report(since: date | None, until: date | None) -> Call[ShadowReport]:
    """What the shadows would have decided."""
    parameters = {
        name: day.isoformat() for name, day in (("since", since), ("until", until)) if day
    }
    return Call("history", "/admin/rollout/shadows", _json(ShadowReport), parameters=parameters)


def ask_what_if(order: WhatIf) -> Call[WhatIfStatus]:
    """Have a period decided by another rule."""
    body = order.model_dump(mode="json")
    return Call("history", "/admin/what-if", _json(WhatIfStatus), method="POST", body=body)


def what_if(what_if_id: UUID | str) -> Call[WhatIfStatus]:
    """How far a what-if is."""
    return Call("history", _what_if_path(what_if_id), _json(WhatIfStatus))


def what_ifs(*, limit: int, cursor: str | None) -> Call[WhatIfPage]:
    """One page of what-ifs."""
    parameters = {"limit": str(limit)} | ({} if cursor is None else {"cursor": cursor})
    return Call("history", "/admin/what-if", _json(WhatIfPage), parameters=parameters)


def cancel_what_if(what_if_id: UUID | str) -> Call[WhatIfStatus]:
    """Cancel a what-if."""
    return Call("history", _what_if_path(what_if_id), _json(WhatIfStatus), method="DELETE")


def _what_if_path(what_if_id: UUID | str) -> str:
    return f"/admin/what-if/{quote(str(what_if_id), safe='')}"


def change_rollout(
    *, epoch: int, reason: str, default: Arm, candidate: Candidate | None, shadows: Sequence[Arm]
) -> Call[RolloutEntry]:
    """Say which models decide."""
    arms = {
        "default": default.model_dump(),
        "candidate": candidate and candidate.model_dump(),
        "shadows": [shadow.model_dump() for shadow in shadows],
    }
    return _rollout_step("", {"epoch": epoch, "reason": reason, **arms})


def promote(*, epoch: int, reason: str) -> Call[RolloutEntry]:
    """Have the candidate decide everything."""
    return _rollout_step("/promote", {"epoch": epoch, "reason": reason})


def roll_back(*, epoch: int, reason: str) -> Call[RolloutEntry]:
    """Take the candidate's share away, or go back to the former default."""
    return _rollout_step("/rollback", {"epoch": epoch, "reason": reason})


def approve_rollout(epoch: int) -> Call[RolloutEntry]:
    """Approve what another key proposed."""
    return _rollout_step(f"/{epoch}/approve", None)


def _rollout_step(path: str, body: Mapping[str, object] | None) -> Call[RolloutEntry]:
    path = f"/admin/rollout{path}"
    return Call("history", path, _json(RolloutEntry), method="POST", body=body)


class FaultyRow(BaseModel):
    """A row of a file that cannot be decided; in a Parquet file ``line`` is its number."""

    line: int
    faults: list[Fault]


def _content(file: BatchFile) -> bytes:
    content = file
    if isinstance(file, Path):
        content = file.read_bytes()
    elif hasattr(file, "read"):
        content = file.read()
    if not isinstance(content, bytes):
        raise UnsendableCall(
            "A batch is sent from bytes, a pathlib.Path or a file opened in binary mode,"
            f" not from {type(content).__name__}."
        )
    return content


def create_batch(
    content: BatchFile,
    *,
    kind: FileKind,
    model: str | None,
    record: bool,
    faulty: FaultyRows,
    unknown: UnknownColumns,
    spellings: Sequence[str],
    webhook: str | None,
    key: str | None,
) -> Call[Batch]:
    """Have a file decided. The key is the same for all attempts, so one call is one batch.

    Raises ``UnsendableCall`` for anything that holds no bytes, and what reading the file raises.
    """
    optional = {"model": model, "webhook": webhook}
    return Call(
        "batch",
        "/batches",
        _json(Batch),
        method="POST",
        content=_content(content),
        parameters={
            "record": str(record).lower(),
            "faulty": faulty,
            "unknown": unknown,
            "spelling": spellings,
            **{name: value for name, value in optional.items() if value is not None},
        },
        headers={"content-type": _MEDIA_TYPES[kind], "idempotency-key": key or str(uuid4())},
    )


def batches(*, limit: int, cursor: UUID | str | None) -> Call[BatchPage]:
    """One page of the caller's batches."""
    parameters = {"limit": str(limit)} | ({} if cursor is None else {"cursor": str(cursor)})
    return Call("batch", "/batches", _json(BatchPage), parameters=parameters)


def batch(batch_id: UUID | str) -> Call[Batch]:
    """How far a batch is."""
    return Call("batch", _batch_path(batch_id), _json(Batch))


def cancel_batch(batch_id: UUID | str) -> Call[Batch]:
    """Cancel a batch."""
    return Call("batch", _batch_path(batch_id), _json(Batch), method="DELETE")


def batch_results(batch_id: UUID | str, *, format_: ResultsFormat) -> Call[httpx.Response]:
    """The decisions of a batch; the response is not read yet."""
    path = f"{_batch_path(batch_id)}/results"
    return Call("batch", path, lambda response: response, parameters={"format": format_})


def batch_faults(batch_id: UUID | str) -> Call[list[FaultyRow]]:
    """The faulty rows of a batch."""

    def read(response: httpx.Response) -> list[FaultyRow]:
        return [FaultyRow.model_validate_json(line) for line in response.content.splitlines()]

    return Call("batch", f"{_batch_path(batch_id)}/faults", read)


def _batch_path(batch_id: UUID | str) -> str:
    return f"/batches/{quote(str(batch_id), safe='')}"


def health(service: Service) -> Call[Health]:
    """The health of one service."""
    gateway = None if service == "inference" else f"/health/{service}"
    return Call(service, "/health", _json(Health), through_gateway=gateway)


def performance(service: Service) -> Call[Performance]:
    """The latencies of one service, per route."""
    gateway = None if service == "inference" else f"/performance/{service}"
    return Call(service, "/performance", _json(Performance), through_gateway=gateway)


@dataclass(frozen=True)
class Services:
    """The services' addresses and the caller's key."""

    inference_url: str
    history_url: str | None
    """None if one gateway at ``inference_url`` serves all."""
    api_key: str | None = field(repr=False)
    batch_url: str | None = None
    """None behind a gateway, and where no batches are sent."""

    def request(self, call: Call[T]) -> httpx.Request:
        """The request of ``call``; raises ``UnsendableCall``."""
        behind_gateway = self.history_url is None
        path = (behind_gateway and call.through_gateway) or call.path
        headers = dict(call.headers)
        if self.api_key is not None:
            headers["x-api-key"] = self.api_key
        for name, value in headers.items():
            if not _SENDABLE.fullmatch(value):
                raise UnsendableCall(f"{_KINDS[name]} may hold visible ASCII characters only.")
        try:
            request = httpx.Request(
                call.method,
                self._base(call.service, behind_gateway).rstrip("/") + path,
                params=dict(call.parameters) or None,
                headers=headers,
                json=call.body,
                content=call.content,
            )
        except (TypeError, ValueError, RecursionError) as error:
            raise UnsendableCall(f"The body cannot be written as JSON: {error}") from error
        except httpx.InvalidURL as error:
            raise UnsendableCall(f"{_NO_ADDRESS}: {error}") from error
        if request.url.scheme not in ("http", "https") or not request.url.host:
            raise UnsendableCall(_NO_ADDRESS)
        return request

    def _base(self, service: Service, behind_gateway: bool) -> str:
        addresses = {"history": self.history_url, "batch": self.batch_url}
        address = addresses.get(service) or (
            self.inference_url if behind_gateway or service == "inference" else None
        )
        if address is None:
            raise UnsendableCall(f"The address of the {service} service is needed: {service}_url.")
        return address
