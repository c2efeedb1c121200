"""Record: one decision in full, as it was answered, and what became of it."""

from collections.abc import Sequence

from fastapi import Request
from markupsafe import Markup
from nicegui import ui

from loan_predictor_client import CallFailed
from loan_predictor_client.models import Fault, OutcomeReceipt
from services.dashboard.authentication import root_of, session_of
from services.dashboard.evidence import evidence_of
from services.dashboard.frame import frame
from services.dashboard.live import Loader, Region, Values, explain, signed_out
from services.dashboard.outcomes import OUTCOME_FIELDS, report
from services.dashboard.sessions import Session, SignedOut
from services.dashboard.templating import part
from services.dashboard.watch import Watch

_ERASE = "erase"
_EMPTY: Values = dict.fromkeys((spec.name for spec in OUTCOME_FIELDS), "")


class _Record:
    """The record as one visitor sees it."""

    def __init__(self, session: Session, prediction_id: str, root: str) -> None:
        self._session = session
        self._prediction_id = prediction_id
        self._root = root

    async def shown(
        self, *, asked: bool = False, values: Values = _EMPTY, faults: Sequence[Fault] = ()
    ) -> Markup:
        """The record; ``values`` and ``faults`` are those of the form for an outcome."""
        evidence = await evidence_of(self._session.api, self._prediction_id, asked=asked)
        return part(
            "record",
            "record",
            evidence=evidence,
            fields=OUTCOME_FIELDS,
            values=values,
            faults=faults,
            root=self._root,
        )

    async def erased(self) -> Markup:
        """Erase the applicant's values; returns the proof of it."""
        erasure = await self._session.api.erase(self._prediction_id)
        return part("record", "erased", erasure=erasure, root=self._root)

    async def report(self, values: Values) -> OutcomeReceipt:
        """Report the outcome that the form holds."""
        given = {name: value for name, value in values.items() if value}
        return await report(self._session.api, [{"prediction_id": self._prediction_id, **given}])


def register(watch: Watch) -> None:
    """Register the page."""

    @ui.page("/history/{prediction_id}")
    def page(request: Request, prediction_id: str) -> None:
        record = _Record(session_of(request.scope), prediction_id, root_of(request.scope))

        async def pressed(what: str) -> None:
            try:
                content = await (record.erased() if what == _ERASE else record.shown(asked=True))
                loader.region.show(content)
            except SignedOut:
                notice.show(signed_out())
            except CallFailed as error:
                notice.show(explain(error))

        async def reported(values: Values) -> None:
            try:
                receipt = await record.report(values)
                faults = [Fault(field=each.field, message=each.message) for each in receipt.faults]
                loader.region.show(
                    await record.shown(values=values if faults else _EMPTY, faults=faults)
                )
                notice.show(part("record", "reported", receipt=receipt, faults=faults))
            except SignedOut:
                notice.show(signed_out())
            except CallFailed as error:
                notice.show(explain(error))

        with frame(request, "record", watch=watch):
            loader = Loader("record", record.shown)
            notice = Region("notice", spoken=True)
            loader.region.on_press(pressed)
            loader.region.on_submit(reported)
