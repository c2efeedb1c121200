"""The blocking client."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from types import TracebackType
from typing import Self, TypeVar
from uuid import UUID

import httpx

from loan_predictor_client import calls
from loan_predictor_client.attempts import Outcome, RetryPolicy, Wait, attempts, unbroken
from loan_predictor_client.calls import (
    Applied,
    BatchFile,
    Call,
    ExportFormat,
    FaultyRow,
    FaultyRows,
    FileKind,
    Grouping,
    Outcomes,
    Reference,
    ResultsFormat,
    Service,
    Services,
    StatisticsGrouping,
    Unit,
    UnknownColumns,
)
from loan_predictor_client.filters import Cohorts, Filters, Selection
from loan_predictor_client.models import (
    Analytics,
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

T = TypeVar("T")


class LoanPredictorClient:
    """The services, for one caller; may be shared by threads. Close it, or use it in ``with``.

    ``history_url`` is None if one gateway at ``inference_url`` serves all; batches need
    ``batch_url`` otherwise. ``http`` replaces the HTTP client, for a proxy or a certificate of your
    own; it is closed with this client. Every method raises ``CallFailed``.
    """

    def __init__(
        self,
        inference_url: str,
        history_url: str | None = None,
        *,
        batch_url: str | None = None,
        api_key: str | None = None,
        retry_policy: RetryPolicy | None = None,
        http: httpx.Client | None = None,
    ) -> None:
        self._services = Services(inference_url, history_url, api_key, batch_url)
        self._retry_policy = retry_policy or RetryPolicy()
        self._http = http or httpx.Client()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def variant(
        self, *, api_key: str | None = None, retry_policy: RetryPolicy | None = None
    ) -> "LoanPredictorClient":
        """The same connections with another key or another retry policy.

        Closing either closes both.
        """
        services = self._services
        return LoanPredictorClient(
            services.inference_url,
            services.history_url,
            batch_url=services.batch_url,
            api_key=services.api_key if api_key is None else api_key,
            retry_policy=retry_policy or self._retry_policy,
            http=self._http,
        )

    def predict(
        self, application: Applied, *, model: str | None = None, idempotency_key: str | None = None
    ) -> Decision:
        """The recorded decision of the champion, or of ``model``.

        One call is one decision, however often it is retried. To repeat a call of an earlier
        process, pass its key.
        """
        return self._call(calls.predict(application, model=model, key=idempotency_key))

    def predict_many(
        self,
        applications: Iterable[Applied],
        *,
        model: str | None = None,
        idempotency_key: str | None = None,
    ) -> ManyDecisions:
        """What came of each of up to 1,000 applications: a recorded decision, or its faults."""
        return self._call(calls.predict_many(applications, model=model, key=idempotency_key))

    def benchmark(self, application: Applied) -> Benchmark:
        """The decision of each model; nothing is recorded."""
        return self._call(calls.benchmark(application))

    def explain(
        self,
        application: Applied,
        *,
        model: str | None = None,
        reference: Reference | None = None,
        bundle: str | None = None,
    ) -> Explanation:
        """Why a model scores an application as it does; not recorded.

        It is the one that would decide, unless a model or a bundle is named.
        """
        return self._call(
            calls.explain(application, model=model, reference=reference, bundle=bundle)
        )

    def find_reasons(self, record: Record) -> Decision:
        """The decision of ``record`` with its reasons; new ones are recorded with it, once."""
        return self._call(calls.find_reasons(record))

    def validate(self, application: Applied) -> ValidationReport:
        """The errors and warnings of an application, without a decision."""
        return self._call(calls.validate(application))

    def validation_rules(self) -> ValidationRules:
        """The rules and the warnings for an application, as data."""
        return self._call(calls.validation_rules())

    def models(self) -> ModelList:
        """The served models."""
        return self._call(calls.models())

    def compare(self) -> ModelComparison:
        """The models compared with each other and with the baselines."""
        return self._call(calls.compare())

    def model(self, name: str) -> ModelDetail:
        """Everything measured of one model."""
        return self._call(calls.model(name))

    def scorecard(self, name: str) -> ModelScorecard:
        """The points of an additive model; any other has none (404)."""
        return self._call(calls.scorecard(name))

    def model_info(self) -> ChampionInfo:
        """The deciding model, and the bundle it came in."""
        return self._call(calls.model_info())

    def model_card(self, *, bundle: str | None = None) -> str:
        """The model card of the served bundle, or of the named one, in Markdown."""
        return self._call(calls.model_card(bundle))

    def picture(self, name: str, *, bundle: str | None = None) -> bytes:
        """One PNG picture of the model card of the served bundle, or of the named one."""
        return self._call(calls.picture(name, bundle))

    def history(
        self, filters: Filters | None = None, *, limit: int = 20, cursor: str | None = None
    ) -> Page:
        """One page of records, newest first."""
        return self._call(calls.history(filters or Filters(), limit=limit, cursor=cursor))

    def records(self, filters: Filters | None = None, *, page_size: int = 100) -> Iterator[Record]:
        """All records that match, newest first; pages are fetched as they are needed."""
        cursor = None
        while True:
            page = self.history(filters, limit=page_size, cursor=cursor)
            yield from page.items
            cursor = page.next_cursor
            if cursor is None:
                return

    def record(self, prediction_id: UUID | str) -> Record:
        """One decision as it was answered."""
        return self._call(calls.record(prediction_id))

    def erase(self, prediction_id: UUID | str) -> Erasure:
        """Erase the applicant's values from one decision; needs a key with history:erase."""
        return self._call(calls.erase(prediction_id))

    def report_outcomes(self, reports: Outcomes) -> OutcomeReceipt:
        """Record what became of loans; needs a key with outcomes:write.

        Each report has ``prediction_id``, or ``loan_id`` and ``which`` (all or latest), ``outcome``
        and ``observed_at``, and may have ``matures_at`` and ``source``. Those that cannot be used
        are left out; ``faults`` names them by their ``line``, the first is 1.
        """
        return self._call(calls.report_outcomes(reports))

    def replay(self, prediction_id: UUID | str) -> Replay:
        """Whether a recorded decision comes out the same again; needs a key with replay."""
        return self._call(calls.replay(self.record(prediction_id)))

    @contextmanager
    def export(
        self,
        filters: Filters | None = None,
        *,
        format: ExportFormat = "ndjson",  # noqa: A002
    ) -> Iterator[Iterator[bytes]]:
        """All records that match, in chunks: ``with client.export() as chunks:``."""
        call = calls.export(filters or Filters(), format_=format)
        response = self._respond(call, stream=True)
        try:
            with unbroken():
                yield response.iter_bytes()
        finally:
            response.close()

    def create_batch(
        self,
        content: BatchFile,
        *,
        kind: FileKind = "csv",
        model: str | None = None,
        record: bool = True,
        faulty: FaultyRows = "skip",
        unknown: UnknownColumns = "stop",
        spellings: Sequence[str] = (),
        webhook: str | None = None,
        idempotency_key: str | None = None,
    ) -> Batch:
        """Have a file of applications decided in the background; needs a key with batch.

        ``content`` is a path, a file opened in binary mode, or the bytes of one. One call is one
        batch, however often it is retried. ``record=False`` leaves no record.
        ``unknown="skip"`` leaves out a column whose name is near an input's instead of refusing.
        """
        call = calls.create_batch(
            content,
            kind=kind,
            model=model,
            record=record,
            faulty=faulty,
            unknown=unknown,
            spellings=spellings,
            webhook=webhook,
            key=idempotency_key,
        )
        return self._call(call)

    def batches(self, *, limit: int = 20, cursor: UUID | str | None = None) -> BatchPage:
        """One page of your batches, newest first."""
        return self._call(calls.batches(limit=limit, cursor=cursor))

    def batch(self, batch_id: UUID | str) -> Batch:
        """How far a batch is."""
        return self._call(calls.batch(batch_id))

    def cancel_batch(self, batch_id: UUID | str) -> Batch:
        """Cancel a batch; what was decided stays recorded."""
        return self._call(calls.cancel_batch(batch_id))

    def batch_faults(self, batch_id: UUID | str) -> list[FaultyRow]:
        """The rows that cannot be decided, with their lines and all their faults."""
        return self._call(calls.batch_faults(batch_id))

    @contextmanager
    def batch_results(
        self,
        batch_id: UUID | str,
        *,
        format: ResultsFormat = "ndjson",  # noqa: A002
    ) -> Iterator[Iterator[bytes]]:
        """The decisions so far, in chunks: ``with client.batch_results(id) as chunks:``."""
        response = self._respond(calls.batch_results(batch_id, format_=format), stream=True)
        try:
            with unbroken():
                yield response.iter_bytes()
        finally:
            response.close()

    def statistics(
        self, selection: Selection | None = None, *, group_by: StatisticsGrouping | None = None
    ) -> Statistics:
        """How decisions came out, overall, by model and by ``group_by``; by default all of them."""
        return self._call(calls.statistics(selection or Selection(), group_by=group_by))

    def analytics(
        self, selection: Selection | None = None, *, group_by: Unit | None = None
    ) -> Analytics:
        """Decisions over time, by confidence and by applicant; by default all of them."""
        return self._call(calls.analytics(selection or Selection(), group_by=group_by))

    def live_performance(
        self, cohorts: Cohorts | None = None, *, by: Grouping = "all"
    ) -> LivePerformance:
        """How right the models were, by the outcomes that are known."""
        return self._call(calls.live_performance(cohorts or Cohorts(), by=by))

    def drift(self, cohorts: Cohorts | None = None, *, by: Grouping = "all") -> LiveDrift:
        """How far applications and scores are from those the models were trained on."""
        return self._call(calls.drift(cohorts or Cohorts(), by=by))

    def fairness(self, cohorts: Cohorts | None = None, *, by: Grouping = "all") -> LiveFairness:
        """The rates at which groups are approved that are never scored, each with its interval."""
        return self._call(calls.fairness(cohorts or Cohorts(), by=by))

    def vintages(self, cohorts: Cohorts | None = None) -> Vintages:
        """Cumulative shares of bad outcomes by months on book, per month of decision."""
        return self._call(calls.vintages(cohorts or Cohorts()))

    def monitoring_report(self, cohorts: Cohorts | None = None) -> str:
        """The report on monitoring for a model-risk committee, as HTML to print or to keep."""
        return self._call(calls.monitoring_report(cohorts or Cohorts()))

    def bundles(self) -> BundleList:
        """All registered bundles; needs a key with admin, as all about the roll-out does."""
        return self._call(calls.bundles())

    def rollout(self) -> RolloutStatus:
        """Which models decide, what waits to change that, and the replicas."""
        return self._call(calls.rollout())

    def rollout_report(self, experiment: str | None = None) -> RolloutReport:
        """The two arms of an experiment, or of the last one, side by side."""
        return self._call(calls.rollout_report(experiment))

    def shadow_report(
        self, *, since: date | None = None, until: date | None = None
    ) -> ShadowReport:
        """How often each shadow agrees with what decided, and who would be decided otherwise."""
        return self._call(calls.shadow_report(since, until))

    def ask_what_if(self, order: WhatIf) -> WhatIfStatus:
        """Have the decisions of a period decided by another rule, in the background."""
        return self._call(calls.ask_what_if(order))

    def what_if(self, what_if_id: UUID | str) -> WhatIfStatus:
        """How far a what-if is, and once it is done what it found."""
        return self._call(calls.what_if(what_if_id))

    def what_ifs(self, *, limit: int = 20, cursor: str | None = None) -> WhatIfPage:
        """One page of what-ifs, newest first."""
        return self._call(calls.what_ifs(limit=limit, cursor=cursor))

    def cancel_what_if(self, what_if_id: UUID | str) -> WhatIfStatus:
        """Cancel a what-if; one that has ended stays as it is."""
        return self._call(calls.cancel_what_if(what_if_id))

    def change_rollout(
        self,
        *,
        epoch: int,
        reason: str,
        default: Arm,
        candidate: Candidate | None = None,
        shadows: Sequence[Arm] = (),
    ) -> RolloutEntry:
        """Say which models decide; ``epoch`` is the newest one, as ``rollout`` returns it."""
        call = calls.change_rollout(
            epoch=epoch, reason=reason, default=default, candidate=candidate, shadows=shadows
        )
        return self._call(call)

    def promote(self, *, epoch: int, reason: str) -> RolloutEntry:
        """Have the candidate decide everything."""
        return self._call(calls.promote(epoch=epoch, reason=reason))

    def roll_back(self, *, epoch: int, reason: str) -> RolloutEntry:
        """Take the candidate's share away; without one, go back to the former default."""
        return self._call(calls.roll_back(epoch=epoch, reason=reason))

    def approve_rollout(self, epoch: int) -> RolloutEntry:
        """Approve what another key proposed."""
        return self._call(calls.approve_rollout(epoch))

    def health(self, service: Service) -> Health:
        """The health of ``service``."""
        return self._call(calls.health(service))

    def performance(self, service: Service) -> Performance:
        """The latencies of ``service``, per route; needs a key with the scope history:read."""
        return self._call(calls.performance(service))

    def _call(self, call: Call[T]) -> T:
        return call.parse(self._respond(call))

    def _respond(self, call: Call[T], *, stream: bool = False) -> httpx.Response:
        request = self._services.request(call)
        steps = attempts(self._retry_policy, keyed=call.keyed)
        outcome: Outcome = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as done:
                response: httpx.Response = done.value
                return response
            if isinstance(step, Wait):
                time.sleep(step.seconds)
                outcome = None
            else:
                outcome = self._send(request, step.extensions, stream=stream)

    def _send(
        self, request: httpx.Request, extensions: Mapping[str, object], *, stream: bool
    ) -> Outcome:
        request.extensions = {**request.extensions, **extensions}
        try:
            response = self._http.send(request, stream=stream)
            if response.is_error:
                response.read()
        except httpx.TransportError as error:
            return error
        return response
