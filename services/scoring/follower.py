"""A replica follows the roll-out: it reports, loads what is pending beside what it serves, swaps.

PostgreSQL has the truth, and the history service answers from it. While history does not answer, a
replica goes on with what it serves; Redis has a copy, for one that starts meanwhile and for one
that alone has lost history. A copy is followed only forward, for it may be late.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from socket import gethostname
from time import monotonic
from typing import Final, Generic, Literal, TypeVar
from uuid import uuid4

import httpx
from pydantic import ValidationError
from redis.asyncio import Redis

from services.scoring.decisions import Served
from services.scoring.manifest import BundleError
from services.scoring.registry import Bundle, load_bundle
from services.scoring.remembered import remembered
from services.scoring.store import BundleStore
from shared.contract.errors import TryAgain
from shared.contract.rollout import (
    FOLLOW_S,
    INTERNAL_ROLLOUT_PATH,
    REPORT_S,
    Arm,
    Failure,
    ReplicaKind,
    ReplicaReport,
    Rollout,
    RolloutState,
)
from shared.observability.logs import get_logger
from shared.observability.metrics import Sample
from shared.observability.metrics.names import (
    ROLLOUT_ACTIVE_EPOCH,
    ROLLOUT_EPOCH,
    ROLLOUT_LOAD_FAILURES,
)

S = TypeVar("S", bound=Served)
Compose = Callable[[Bundle, Rollout, Bundle | None], S]
"""Makes what is served of the default arm's bundle, the roll-out and the candidate's bundle."""

_JSON: Final = {"content-type": "application/json"}
_DEADLINE_S: Final = 1.0
_START_S: Final = 10.0
"""How long a start waits for the roll-out in force to be loaded; then it is not ready yet."""
_SWITCH_S: Final = 0.0005
_RETRY_S: Final = 5.0
"""After this long a roll-out in force that could not be loaded is tried again."""
_LONGEST_REASON: Final = 2000
_log = get_logger(__name__)


class NotFollowed(Exception):
    """This replica does not serve the roll-out in force."""


class RolloutNotLoaded(TryAgain):
    """The replica has just started, and has not loaded the roll-out in force."""

    title = "Roll-out not loaded"

    def __init__(self, epoch: int) -> None:
        super().__init__(f"Roll-out {epoch} decides and is not loaded here; send this again.")


class Follower(Generic[S]):
    """What a replica serves: the roll-out in force, or ``own`` while there is none.

    ``install`` is called with each new snapshot, in the event loop, between two requests.
    """

    def __init__(
        self,
        own: S,
        *,
        kind: ReplicaKind,
        store: BundleStore,
        compose: Compose[S],
        install: Callable[[S], None] = lambda _: None,
    ) -> None:
        self.served = own
        self._own = own
        self._kind = kind
        # For people to find it, and different after a restart.
        self._replica = f"{gethostname()[:64]}:{os.getpid()}:{uuid4().hex[:8]}"
        self._store = store
        self._compose = compose
        self._install = install
        self._active = own.rollout
        self._source: Literal["own", "history", "last known"] = "own"
        self._prepared: S | None = None
        self._failed: Failure | None = None
        self._retry_at_s = 0.0
        self._failures = 0
        self._behind_since_s: float | None = None
        # A replica that starts has none to stay on: it decides by the one in force, or not at all.
        self._has_followed = False
        self._loading: asyncio.Task[None] | None = None
        # One thread loads one after the other; the memory allocator keeps an arena for each thread.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rollout")
        self._changed = asyncio.Event()

    @asynccontextmanager
    async def following(
        self, client: httpx.AsyncClient, redis: Redis, *, history_url: str, api_key: str | None
    ) -> AsyncIterator[None]:
        """Follow in the background of the block, which begins with the roll-out in force.

        Without a key, which the history service asks for, nothing is followed.
        """
        if api_key is None:
            yield
            return
        url, headers = history_url.rstrip("/") + INTERNAL_ROLLOUT_PATH, {"x-api-key": api_key}

        async def ask() -> RolloutState:
            report = self.report().model_dump_json()
            answer = await client.post(
                url, content=report, headers=_JSON | headers, timeout=_DEADLINE_S
            )
            answer.raise_for_status()
            return RolloutState.model_validate_json(answer.content)

        async def step() -> None:
            state = await self._learn(ask, redis)
            if state is not None:
                self._follow(state)

        await step()
        if self._loading is not None:
            await asyncio.wait([self._loading], timeout=_START_S)
            await step()
        task = asyncio.create_task(self._repeat(step))
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def _repeat(self, step: Callable[[], Awaitable[None]]) -> None:
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), REPORT_S)
            self._changed.clear()
            await step()

    async def _learn(
        self, ask: Callable[[], Awaitable[RolloutState]], redis: Redis
    ) -> RolloutState | None:
        """What is to be served and prepared; None if nothing newer is known."""
        try:
            state = await ask()
        except (httpx.HTTPError, ValidationError) as error:
            if self._source == "history":
                _log.warning("history does not answer about roll-outs", error=repr(error))
            self._source = "last known"
            copy = await remembered(redis)
            return RolloutState(active=copy) if copy and copy.epoch > self._epoch else None
        self._source = "history"
        return state

    def loaded(self) -> Iterator[Bundle]:
        """The bundles that are loaded to decide, first those that decide now."""
        for each in (self.served, self._own):
            yield each.bundle
            if each.candidate is not None:
                yield each.candidate

    def report(self) -> ReplicaReport:
        """What this replica serves and has prepared."""
        ready = self._prepared and self._prepared.rollout
        return ReplicaReport(
            replica=self._replica,
            kind=self._kind,
            epoch=self._epoch,
            bundle=self.served.bundle.manifest.version,
            ready=ready and ready.epoch,
            failed=self._failed or self._unfit(),
        )

    def _unfit(self) -> Failure | None:
        rollout = self.served.rollout
        reason = rollout and rollout.candidate and self.served.health.unfit(rollout)
        return Failure(epoch=self._epoch, reason=reason) if reason else None

    @property
    def is_behind(self) -> bool:
        """Whether another roll-out has been in force for longer than it takes to follow one."""
        if self._behind_since_s is None:
            return False
        return not self._has_followed or monotonic() - self._behind_since_s > FOLLOW_S

    def check_decides(self) -> None:
        """Return if what is served may decide; raises ``RolloutNotLoaded``.

        A replica that has served what was in force stays on it until it has loaded the next. One
        that has just started does not decide by its own default while a roll-out is in force.
        """
        if self._behind_since_s is not None and self._active and not self._has_followed:
            raise RolloutNotLoaded(self._active.epoch)

    async def check(self) -> dict[str, object]:
        """The state for /readyz; raises ``NotFollowed`` when another roll-out is in force."""
        failed = self._failed and f"roll-out {self._failed.epoch}: {self._failed.reason}"
        if self.is_behind:
            active = self._active.epoch if self._active else 0
            raise NotFollowed(
                f"Roll-out {active} is in force and {self._epoch} is served."
                + (f" It cannot be loaded: {failed}" if failed else "")
            )
        return {"epoch": self._epoch, "source": self._source, "failed": failed}

    def samples(self) -> Iterable[Sample]:
        """The epochs served and in force, and what could not be loaded."""
        yield Sample(ROLLOUT_EPOCH, self._epoch)
        yield Sample(ROLLOUT_ACTIVE_EPOCH, self._active.epoch if self._active else 0)
        yield Sample(ROLLOUT_LOAD_FAILURES, self._failures)

    @property
    def _epoch(self) -> int:
        return self.served.rollout.epoch if self.served.rollout else 0

    def _follow(self, state: RolloutState) -> None:
        self._active = state.active
        wanted = {each.epoch for each in (state.active, state.pending) if each}
        if self._failed and self._failed.epoch not in wanted:
            self._failed = None
        if state.active != self.served.rollout:
            self._behind_since_s = self._behind_since_s or monotonic()
            self._move_to(state.active)
            if self._failed and state.active and self._failed.epoch == state.active.epoch:
                # What is to replace it waits for every replica, also for one that cannot load it.
                self._prepare_pending(state.pending)
            return
        self._behind_since_s, self._has_followed = None, True
        self._prepare_pending(state.pending)

    def _prepare_pending(self, pending: Rollout | None) -> None:
        if pending is None:
            self._prepared = None
        else:
            self._prepare(pending)

    def _move_to(self, active: Rollout | None) -> None:
        if active is None:
            self._swap(self._own)
        elif self._prepared is not None and self._prepared.rollout == active:
            self._swap(self._prepared)
        else:
            self._prepare(active)

    def _swap(self, served: S) -> None:
        self.served, self._prepared = served, None
        self._behind_since_s, self._has_followed = None, True
        served.expect()
        self._install(served)
        self._changed.set()
        _log.info("roll-out followed", epoch=self._epoch, bundle=served.bundle.manifest.version)

    def _prepare(self, rollout: Rollout) -> None:
        if self._loading is not None or (self._prepared and self._prepared.rollout == rollout):
            return
        tried = self._failed is not None and self._failed.epoch == rollout.epoch
        if not tried or monotonic() >= self._retry_at_s:
            self._loading = asyncio.create_task(self._load(rollout))

    async def _load(self, rollout: Rollout) -> None:
        loop = asyncio.get_running_loop()
        try:
            self._prepared = await loop.run_in_executor(self._thread, self._made, rollout)
            self._failed = None
        except Exception as error:  # noqa: BLE001  whatever it is, the one served stays
            reason = str(error) if isinstance(error, BundleError) else repr(error)
            self._failed = Failure(epoch=rollout.epoch, reason=reason[:_LONGEST_REASON])
            self._failures += 1
            self._retry_at_s = monotonic() + _RETRY_S
            _log.error("roll-out cannot be loaded", epoch=rollout.epoch, reason=reason)
        finally:
            self._loading = None
            self._changed.set()

    def _made(self, rollout: Rollout) -> S:
        with _yielding():
            default, candidate = load_arms(rollout, self.loaded(), self._store)
            return self._compose(default, rollout, candidate)


@contextmanager
def _yielding() -> Iterator[None]:
    """Let the event loop have the interpreter within half a millisecond during the block."""
    before_s = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_S)
    try:
        yield
    finally:
        sys.setswitchinterval(before_s)


def load_arms(
    rollout: Rollout, loaded: Iterable[Bundle], store: BundleStore
) -> tuple[Bundle, Bundle | None]:
    """The bundles of the default and of the candidate, verified, each with its model as champion.

    Those in ``loaded`` are not loaded again. Raises ``BundleError``.
    """
    bundles = {each.manifest.version: each for each in loaded}

    def find(arm: Arm) -> Bundle:
        if arm.bundle not in bundles:
            bundles[arm.bundle] = load_bundle(store.folder(arm.bundle).parent, arm.bundle)
        if arm.model not in bundles[arm.bundle].models:
            raise BundleError(f"The bundle {arm.bundle} has no model {arm.model}.")
        return bundles[arm.bundle].deciding_with(arm.model, f"Roll-out {rollout.epoch} names it.")

    return find(rollout.default), find(rollout.candidate) if rollout.candidate else None
