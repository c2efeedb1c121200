"""Requests that name themselves: one that is sent again gets the answer it got before.

A caller that gives its request an idempotency key may repeat it when it never saw the answer. Redis
remembers for a day which requests were answered, and how. When Redis has forgotten, is away or too
slow, the request is decided again; but the decision's id is derived from the request, so PostgreSQL
stores the first decision and no second.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from time import monotonic
from typing import Any, Final, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared.contract.errors import AnswerErased, IdempotencyKeyReused, StillInProgress
from shared.contract.events import answer_key
from shared.contract.ids import uuid8
from shared.observability.logs import get_logger
from shared.observability.metrics import Sample
from shared.observability.metrics.names import IDEMPOTENCY_REPLAYS, IDEMPOTENCY_UNPROTECTED

KEEP_S: Final = 24 * 60 * 60
REDIS_REST_S: Final = 1.0
"""After Redis failed, requests are decided without asking it for this long."""

_MARK_PREFIX: Final = "idempotency:mark:"
_PENDING: Final = b"pending"
_DONE: Final = b"done"
_FAILURES: Final = (RedisError, OSError, TimeoutError)

# A mark is removed only by the request that set it: it may have expired and be another's by now.
_REMOVE_IF_OURS: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""

_log = get_logger(__name__)


@dataclass(frozen=True)
class NamedRequest:
    """What makes two requests the same: who sent them, for what, under which key, with what body.

    ``caller`` is a kind of caller and a name, so that no client can be named like an address;
    ``operation`` is what is asked for, such as a route's path.
    """

    caller: tuple[str, str]
    operation: str
    key: bytes
    body_digest: bytes

    @cached_property
    def prediction_id(self) -> str:
        """The id of the decision on this request: always the same, whichever process decides."""
        return str(uuid8(_digest(*self._name, self.body_digest)))

    @cached_property
    def mark_key(self) -> str:
        """Where Redis keeps the state of the request; another body under the same key shares it."""
        return _MARK_PREFIX + _digest(*self._name).hex()

    @property
    def _name(self) -> tuple[bytes, ...]:
        return (*(part.encode() for part in (*self.caller, self.operation)), self.key)


def _digest(*parts: bytes) -> bytes:
    """SHA-256 over the parts, each behind its length, so that no two lists are one."""
    return sha256(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).digest()


class Answer(NamedTuple):
    """The bytes of an answer, and whether an earlier request was given them."""

    body: bytes
    replayed: bool


class Idempotency:
    """Decides each named request once, as far as Redis remembers.

    It fails open: without Redis a request is decided as if it were the first, under the same id.
    ``redis`` is a client used for nothing else; ``deadline_s`` bounds each of the two exchanges of
    a request. ``pending_s`` is how long a request may be in progress before a repeated one is
    decided in its stead; it must exceed the longest hand-over.
    """

    def __init__(self, redis: Redis, *, deadline_s: float, pending_s: float) -> None:
        self._redis = redis
        self._deadline_s = deadline_s
        self._pending_ms = round(pending_s * 1000)
        self._remove_if_ours = redis.register_script(_REMOVE_IF_OURS)
        self._rest_until_s = 0.0
        self.replayed = 0
        self.unprotected = 0

    def samples(self) -> Iterable[Sample]:
        """Replayed answers, and requests that Redis did not protect."""
        yield Sample(IDEMPOTENCY_REPLAYS, self.replayed)
        yield Sample(IDEMPOTENCY_UNPROTECTED, self.unprotected)

    async def once(self, request: NamedRequest, decide: Callable[[], Awaitable[bytes]]) -> Answer:
        """The answer given before, or else that of ``decide``, which is then kept for a day.

        ``decide`` must return only after the decision is durable; when it raises, nothing is kept.
        Raises ``StillInProgress``, ``IdempotencyKeyReused`` and ``AnswerErased`` besides.
        """
        ours = b" ".join((_PENDING, request.body_digest.hex().encode(), _nonce()))
        found = await self._ask(lambda: self._mark(request, ours))
        if found is None:
            self.unprotected += 1
            return Answer(await decide(), replayed=False)
        mark, answer = found
        if mark != ours:
            return self._replay(request, mark, answer)
        try:
            body = await decide()
        except Exception:
            await self._try(lambda: self._remove_if_ours(keys=[request.mark_key], args=[ours]))
            raise
        if await self._try(lambda: self._keep(request, body)) is None:
            self.unprotected += 1
        return Answer(body, replayed=False)

    def _replay(self, request: NamedRequest, mark: bytes, answer: bytes | None) -> Answer:
        state, digest, *_ = mark.split(b" ")
        if digest != request.body_digest.hex().encode():
            raise IdempotencyKeyReused
        if state == _PENDING:
            raise StillInProgress
        if answer is None:
            raise AnswerErased
        self.replayed += 1
        return Answer(answer, replayed=True)

    async def _mark(self, request: NamedRequest, ours: bytes) -> Sequence[Any]:
        """The mark that stands now, ours unless there was one, and the answer if there is one."""
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.set(request.mark_key, ours, px=self._pending_ms, nx=True)
        pipeline.get(request.mark_key)
        pipeline.get(answer_key(request.prediction_id))
        _, mark, answer = await pipeline.execute()
        return mark, answer

    async def _keep(self, request: NamedRequest, answer: bytes) -> Sequence[Any]:
        done = b" ".join(
            (_DONE, request.body_digest.hex().encode(), request.prediction_id.encode())
        )
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.set(request.mark_key, done, ex=KEEP_S)
        # Should there be two, the first stays: it is the one that is stored.
        pipeline.set(answer_key(request.prediction_id), answer, ex=KEEP_S, nx=True)
        return await pipeline.execute()

    async def _ask(self, exchange: Callable[[], Awaitable[Any]]) -> Any:
        """The result of ``_try``; None without an exchange while Redis rests after a failure."""
        return None if monotonic() < self._rest_until_s else await self._try(exchange)

    async def _try(self, exchange: Callable[[], Awaitable[Any]]) -> Any:
        """The reply of Redis; None if it gave none within the deadline."""
        try:
            async with asyncio.timeout(self._deadline_s):
                return await exchange()
        except _FAILURES as error:
            self._rest_until_s = monotonic() + REDIS_REST_S
            _log.warning(
                "Redis unavailable: repeated requests are not recognised", error=repr(error)
            )
            return None


def _nonce() -> bytes:
    return secrets.token_hex(8).encode()
