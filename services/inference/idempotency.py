"""Requests that name themselves: one that is sent again gets the answer it got before.

A client that sends an ``Idempotency-Key`` may repeat a request whose answer it never saw. Redis
remembers for a day which requests were answered, and how. It may forget, be away or be too slow,
and then the request is decided again; but the decision's id is derived from the request, so that
PostgreSQL stores the first one and no second.
"""

import asyncio
import re
import secrets
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from time import monotonic
from typing import Any, Final, NamedTuple
from uuid import UUID

from redis.asyncio import Redis
from redis.exceptions import RedisError
from starlette.types import Scope

from shared.access.middleware import address_of, caller_of
from shared.contract.errors import (
    AnswerErased,
    Fault,
    IdempotencyKeyReused,
    InvalidInput,
    StillInProgress,
)
from shared.contract.idempotency import answer_key
from shared.contract.ids import uuid8
from shared.observability.logs import get_logger
from shared.observability.metrics import Sample
from shared.observability.metrics.names import IDEMPOTENCY_REPLAYS, IDEMPOTENCY_UNPROTECTED

MAX_KEY_LENGTH: Final = 255
KEEP_S: Final = 24 * 60 * 60
REDIS_REST_S: Final = 1.0
"""After Redis failed, requests are decided without asking it for this long."""

_HEADER: Final = b"idempotency-key"
_VISIBLE: Final = re.compile(rb"[\x21-\x7e]{1,%d}" % MAX_KEY_LENGTH)
_MARK_PREFIX: Final = "idempotency:mark:"
_PENDING: Final = b"pending"
_DONE: Final = b"done"
_FAILURES: Final = (RedisError, OSError, TimeoutError)

# Only who set the mark may remove it: by now it may have expired and be another request's.
_REMOVE_IF_OURS: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""

HEADER_DOC: Final[dict[str, Any]] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Names this request: sent again by the same caller within 24 hours, with the"
    " same body, it gets the same answer and is not recorded again.",
    "schema": {"type": "string", "pattern": f"^[!-~]{{1,{MAX_KEY_LENGTH}}}$"},
}

_log = get_logger(__name__)


def idempotency_key(scope: Scope) -> bytes | None:
    """The request's Idempotency-Key, None if it bears none; raises ``InvalidInput``."""
    key: bytes | None = None
    # A plain loop: every request goes through it, and hardly one has the header.
    for name, value in scope["headers"]:
        if name == _HEADER:
            if key is not None:
                raise _fault("must be sent once", value)
            key = value
    if key is not None and not _VISIBLE.fullmatch(key):
        raise _fault(f"must be 1 to {MAX_KEY_LENGTH} visible ASCII characters", key)
    return key


def _fault(message: str, value: bytes) -> InvalidInput:
    fault = Fault(field="Idempotency-Key", message=message, value=value.decode("latin-1"))
    return InvalidInput([fault])


@dataclass(frozen=True)
class NamedRequest:
    """What makes two requests the same: who sent it, where to, under which key, and its body.

    ``caller`` tells clients from addresses, so that no client can be named like an address.
    """

    caller: tuple[str, str]
    path: str
    key: bytes
    body_digest: bytes

    @classmethod
    def of(cls, scope: Scope, *, key: bytes, body: bytes) -> "NamedRequest":
        """The request that ``scope`` and ``body`` are of; anonymous callers are their address."""
        client = caller_of(scope)
        caller = ("client", client.name) if client.authenticated else ("at", address_of(scope))
        return cls(caller, scope["path"], key, sha256(body).digest())

    @cached_property
    def prediction_id(self) -> UUID:
        """The id of the decision on this request: the same whenever and wherever it is made."""
        return uuid8(_digest(*self._name, self.body_digest))

    @cached_property
    def mark_key(self) -> str:
        """Where Redis remembers what became of it; another body under the same key shares it."""
        return _MARK_PREFIX + _digest(*self._name).hex()

    @property
    def _name(self) -> tuple[bytes, ...]:
        return (*(part.encode() for part in (*self.caller, self.path)), self.key)


def _digest(*parts: bytes) -> bytes:
    """SHA-256 over the parts, each behind its length, so that no two lists are one."""
    return sha256(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).digest()


class Answer(NamedTuple):
    """The bytes of an answer, and whether they were given before."""

    body: bytes
    replayed: bool


class Idempotency:
    """Decides each named request once, as far as Redis remembers.

    It fails open: without Redis a request is decided as if it were the first, under the same id.
    ``redis`` is a client of its own; ``deadline_s`` bounds each of the two exchanges of a request.
    ``pending_s`` is how long a request may be in progress before another may take its place,
    which must exceed the longest hand-over.
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
        """What is to be known of repeated requests from outside."""
        yield Sample(IDEMPOTENCY_REPLAYS, self.replayed)
        yield Sample(IDEMPOTENCY_UNPROTECTED, self.unprotected)

    async def once(self, request: NamedRequest, decide: Callable[[], Awaitable[bytes]]) -> Answer:
        """The answer given before, or else that of ``decide``, which is then kept for a day.

        ``decide`` must return only after the decision is durable. Raises what it raises, with
        nothing remembered then; ``StillInProgress``, ``IdempotencyKeyReused``, ``AnswerErased``.
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
        """The mark that now stands, ours if there was none, and the answer if there is one."""
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.set(request.mark_key, ours, px=self._pending_ms, nx=True)
        pipeline.get(request.mark_key)
        pipeline.get(answer_key(request.prediction_id))
        _, mark, answer = await pipeline.execute()
        return mark, answer

    async def _keep(self, request: NamedRequest, answer: bytes) -> Sequence[Any]:
        done = b" ".join(
            (_DONE, request.body_digest.hex().encode(), str(request.prediction_id).encode())
        )
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.set(request.mark_key, done, ex=KEEP_S)
        # The first one stays, for it is the one that is stored, should there be a second.
        pipeline.set(answer_key(request.prediction_id), answer, ex=KEEP_S, nx=True)
        return await pipeline.execute()

    async def _ask(self, exchange: Callable[[], Awaitable[Any]]) -> Any:
        """What ``_try`` gives, None while Redis rests after a failure."""
        return None if monotonic() < self._rest_until_s else await self._try(exchange)

    async def _try(self, exchange: Callable[[], Awaitable[Any]]) -> Any:
        """What Redis said, within the deadline; None when it did not."""
        try:
            async with asyncio.timeout(self._deadline_s):
                return await exchange()
        except _FAILURES as error:
            self._rest_until_s = monotonic() + REDIS_REST_S
            _log.warning("repeated requests are not recognised, Redis is away", error=repr(error))
            return None


def _nonce() -> bytes:
    return secrets.token_hex(8).encode()
