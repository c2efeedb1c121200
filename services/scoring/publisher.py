"""The hand-over: a decision is answered once its event is durable, or it is not answered."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Final, TypedDict

import httpx
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as ConnectionLost

from shared.contract.errors import NotFound, NotRecorded, TryAgain
from shared.contract.events import (
    EVENT_FIELD,
    INTERNAL_PREDICTIONS_PATH,
    INTERNAL_REASONS_PATH,
    STREAM,
    Decision,
    ReasonsFound,
)
from shared.observability.logs import get_logger
from shared.observability.metrics import Sample, Tally
from shared.observability.metrics.names import (
    PUBLISH_DECISIONS,
    PUBLISH_FAILURES,
    PUBLISH_FALLBACKS,
    PUBLISH_GROUP,
    PUBLISH_REFUSED,
)
from shared.redis import REDIS_ERRORS, failure

MAX_GROUP: Final = 64
"""Most events in one entry of the stream: a consumer reads whole entries into memory."""
REDIS_REST_S: Final = 1.0
"""After a failure of Redis, events go by HTTP for this long before it is tried again."""

TURNS_BETWEEN_GROUPS: Final = 3
"""Turns of the event loop: in the first the requests just released are answered, in the next what
has come in meanwhile is read, and in the last it is decided, and so joins the next group."""

AWAKE_S: Final = 0.0002
"""How long an idle service waits for Redis without falling asleep."""

_log = get_logger(__name__)


Sink = Callable[[Sequence[bytes]], Awaitable[None]]
"""A way of handing a group of events over: returns once they are durable, or raises."""

_OF_THE_RECORD: Final = (404, 409, 410)
"""What history answers if the record is not there, is another one, or is erased."""

_Waiting = tuple[bytes, asyncio.Future[None] | None]
"""An event, and the request that waits until it, and all before it of the same call, are durable.
"""


def redis_sink(redis: Redis, *, deadline_s: float) -> Sink:
    """Add events to the stream, in one entry: all of them or none.

    One group is on its way at a time, so the sink keeps one connection of the client's pool: by
    the pool, with a timer for each step, an idle service takes 65 us for this instead of 17.
    Raises ``REDIS_ERRORS``.
    """
    connection: AbstractConnection | None = None
    took_s = 0.0

    async def exchange(connection: AbstractConnection, events: Sequence[bytes]) -> None:
        """Add them over this connection, opened anew if it is closed."""
        nonlocal took_s
        began_s = monotonic()
        event = b"\n".join(events)
        await connection.send_command("XADD", STREAM, "*", EVENT_FIELD, event, check_health=False)
        # A busy service has other requests to go on with, and a distant server takes longer.
        with awake(AWAKE_S if len(events) == 1 and took_s < AWAKE_S else 0):
            await connection.read_response()
        took_s = monotonic() - began_s

    async def send(events: Sequence[bytes]) -> None:
        nonlocal connection
        async with asyncio.timeout(deadline_s):
            if connection is None:
                connection = await redis.connection_pool.get_connection()  # type: ignore[no-untyped-call]  # untyped library
                connection.socket_timeout = None
            try:
                await exchange(connection, events)
            except ConnectionLost:
                # The server may have closed it long ago. Added twice, an event is stored once.
                await exchange(connection, events)

    return send


@contextmanager
def awake(longest_s: float) -> Iterator[None]:
    """Keep the event loop turning while the block waits, for ``longest_s`` at most.

    What comes in meanwhile is served. Falling asleep and waking up again costs a process more
    time, and more processor time, than Redis on the same machine takes to answer.
    """
    loop = asyncio.get_running_loop()
    ends_s = monotonic() + longest_s
    handle: asyncio.Handle

    def turn() -> None:
        nonlocal handle
        if monotonic() < ends_s:
            handle = loop.call_soon(turn)

    handle = loop.call_soon(turn)
    try:
        yield
    finally:
        handle.cancel()


class ReasonsNotRecorded(TryAgain):
    """The reasons of a recorded decision could not be recorded, so they are not answered."""

    title = "Reasons not recorded"


class HistoryService(TypedDict):
    """Where the history service is, and how it is called."""

    history_url: str
    api_key: str | None
    deadline_s: float


def http_sink(
    client: httpx.AsyncClient, *, history_url: str, api_key: str | None, deadline_s: float
) -> Sink:
    """Post events to the history service. Raises ``httpx.HTTPError`` or ``OSError``."""
    url = history_url.rstrip("/") + INTERNAL_PREDICTIONS_PATH
    headers = {"content-type": "application/x-ndjson"}
    if api_key is not None:
        headers["x-api-key"] = api_key

    async def send(events: Sequence[bytes]) -> None:
        async with asyncio.timeout(deadline_s):
            response = await client.post(url, content=b"\n".join(events), headers=headers)
        response.raise_for_status()

    return send


def reasons_sink(
    client: httpx.AsyncClient, *, history_url: str, api_key: str | None, deadline_s: float
) -> Callable[[ReasonsFound], Awaitable[Decision]]:
    """Post reasons to the history service, which returns the record as it is then stored.

    Raises ``NotFound`` if it is not stored, or not as it was sent, and ``ReasonsNotRecorded``.
    """
    url = history_url.rstrip("/") + INTERNAL_REASONS_PATH
    headers = {"content-type": "application/json"}
    if api_key is not None:
        headers["x-api-key"] = api_key

    async def send(found: ReasonsFound) -> Decision:
        try:
            async with asyncio.timeout(deadline_s):
                response = await client.post(url, content=found.model_dump_json(), headers=headers)
            if response.status_code in _OF_THE_RECORD:
                raise NotFound(response.json()["detail"])
            response.raise_for_status()
        except (httpx.HTTPError, OSError) as error:
            _log.warning("reasons not recorded", error=repr(error))
            raise ReasonsNotRecorded("The reasons cannot be recorded; try again shortly.") from None
        return Decision.model_validate_json(response.content)

    return send


class Publisher:
    """Group commit: while one group is on its way, the next events gather and leave together.

    There is no timer: an idle publisher sends an event at once; a busy one answers the requests of
    the last group first, and then sends as many as have gathered. If the stream fails, the same
    group goes straight to the history service; an event that reached both is stored once, because
    its id is the primary key. When both sinks fail, what gathered meanwhile is refused with the
    group: no event waits for more than one failure, and a long outage builds no queue.
    """

    def __init__(self, *, stream: Sink, fallback: Sink) -> None:
        self._stream = stream
        self._fallback = fallback
        self._gathered: list[_Waiting] = []
        self._sender: asyncio.Task[None] | None = None
        self._stream_rests_until_s = 0.0
        self.published = 0
        self.groups = Tally(PUBLISH_GROUP)
        self.failures = {"stream": 0, "http": 0}
        self.fallbacks = 0
        self.refused = 0

    def samples(self) -> Iterable[Sample]:
        """The metrics of the hand-over."""
        yield Sample(PUBLISH_DECISIONS, self.published)
        yield Sample(PUBLISH_GROUP, self.groups.value)
        yield Sample(PUBLISH_FALLBACKS, self.fallbacks)
        yield Sample(PUBLISH_REFUSED, self.refused)
        for sink, failures in self.failures.items():
            yield Sample(PUBLISH_FAILURES, failures, (sink,))

    async def publish(self, event: bytes) -> None:
        """Return once ``event`` is durable; raises ``NotRecorded`` if no sink accepts it."""
        await self._gather(event)

    async def publish_many(self, events: Sequence[bytes]) -> None:
        """Return once all ``events`` are durable; raises ``NotRecorded`` if any is not."""
        if not events:
            return
        *others, last = events
        # They leave in order, and what gathered is refused with the first group that is.
        self._gathered += [(event, None) for event in others]
        await self._gather(last)

    def _gather(self, event: bytes) -> asyncio.Future[None]:
        recorded = asyncio.get_running_loop().create_future()
        self._gathered.append((event, recorded))
        if self._sender is None:
            self._sender = asyncio.create_task(self._send_gathered())
        return recorded

    async def drain(self) -> None:
        """Return once everything gathered so far has been recorded or refused."""
        while self._sender is not None:
            await asyncio.wait([self._sender])

    async def _send_gathered(self) -> None:
        try:
            while self._gathered:
                group = self._gathered[:MAX_GROUP]
                del self._gathered[:MAX_GROUP]
                durable = await self._send(group)
                self._release(group, durable=durable)
                if not durable:
                    late, self._gathered = self._gathered, []
                    self._release(late, durable=False)
                if len(group) > 1:
                    for _ in range(TURNS_BETWEEN_GROUPS):
                        await asyncio.sleep(0)
        finally:
            self._sender = None

    async def _send(self, group: Sequence[_Waiting]) -> bool:
        """Whether the group is durable."""
        self.groups.add(len(group))
        try:
            return await self._hand_over([event for event, _ in group])
        except Exception:  # noqa: BLE001  whatever went wrong, no request may be left waiting
            _log.exception("unexpected error while handing over", decisions=len(group))
            return False

    def _release(self, group: Sequence[_Waiting], *, durable: bool) -> None:
        """End the wait of each event's request: with its answer, or with its refusal."""
        if durable:
            self.published += len(group)
        else:
            self.refused += len(group)
        for _, recorded in group:
            if recorded is None or recorded.done():
                continue  # Another stands for it, or its request was cancelled.
            if durable:
                recorded.set_result(None)
            else:
                recorded.set_exception(
                    NotRecorded(
                        "The decision could not be recorded, so it is not given;"
                        " send the application again shortly."
                    )
                )

    async def _hand_over(self, events: Sequence[bytes]) -> bool:
        if monotonic() >= self._stream_rests_until_s:
            try:
                await self._stream(events)
            except REDIS_ERRORS as error:
                self._stream_rests_until_s = monotonic() + REDIS_REST_S
                self.failures["stream"] += 1
                reason = failure(error)
                _log.warning("handing over by HTTP", reason=reason, error=repr(error))
            else:
                return True
        try:
            await self._fallback(events)
        except (httpx.HTTPError, OSError) as error:
            self.failures["http"] += 1
            _log.warning("decisions refused, no sink accepts them", error=repr(error))
            return False
        self.fallbacks += len(events)
        return True
