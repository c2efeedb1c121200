"""Roll-outs for tests, and a small history service that answers replicas as the real one does."""

from collections.abc import Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from shared.contract.rollout import INTERNAL_ROLLOUT_PATH, ReplicaReport, Rollout, RolloutState
from tests import keys
from tests.waiting import eventually

OWN = "b-00000001"
NEW = "b-00000002"
OTHER = "b-00000003"

_POLL_S = 0.002


def rollout(epoch: int, bundle: str, model: str, share: int | None = None) -> Rollout:
    """A roll-out; with a ``share`` the forest of ``OTHER`` is the candidate."""
    candidate = share and {"bundle": OTHER, "model": "forest", "share": share}
    return Rollout.model_validate(
        {
            "epoch": epoch,
            "default": {"bundle": bundle, "model": model},
            "candidate": candidate,
            "salt": "salt",
            "experiment": candidate and "x2",
        }
    )


class History:
    """What the history service answers about roll-outs, and what it was asked."""

    def __init__(self) -> None:
        self.state = RolloutState()
        self.reports: list[ReplicaReport] = []
        self.away = False

    def app(self) -> Starlette:
        """The service."""
        return Starlette(routes=[Route(INTERNAL_ROLLOUT_PATH, self.answer, methods=["POST"])])

    async def answer(self, request: Request) -> Response:
        """One report; as the real service, only with a key."""
        if self.away or request.headers["x-api-key"] != keys.SECRET:
            return Response(status_code=503)
        self.reports.append(ReplicaReport.model_validate_json(await request.body()))
        return Response(self.state.model_dump_json(), media_type="application/json")

    async def reported(self, condition: Callable[[ReplicaReport], object]) -> ReplicaReport:
        """A report from now on of which ``condition`` holds."""
        self.reports.clear()
        await eventually(lambda: any(map(condition, self.reports)), poll_s=_POLL_S)
        return next(each for each in self.reports if condition(each))

    async def reported_failure(self, epoch: int) -> ReplicaReport:
        """A report that this roll-out cannot be loaded."""
        return await self.reported(lambda report: report.failed and report.failed.epoch == epoch)

    async def puts_in_force(self, wanted: Rollout) -> None:
        """Both phases, as with one replica."""
        self.state = self.state.model_copy(update={"pending": wanted})
        await self.reported(lambda report: report.ready == wanted.epoch)
        self.state = RolloutState(active=wanted)
        await self.reported(lambda report: report.epoch == wanted.epoch)
