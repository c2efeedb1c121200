"""Requests that name themselves: one that is sent again gets the answer it got before.

A caller that gives its request an idempotency key may repeat it when it never saw the answer. Redis
keeps for a day which requests were answered, and how. The answer is kept before the decision is
handed over: if the process is killed or the hand-over fails, the repeated request adopts that
answer, so it agrees with what may be on record. When Redis has forgotten, is away, full or too
slow, the request is decided again; but the decision's id is derived from the request, so PostgreSQL
stores the first decision and no second.
"""

import asyncio
import secrets
import zlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from time import monotonic
from typing import Any, Final, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError

from services.scoring.turns import in_turns
from shared.contract.errors import AnswerErased, IdempotencyKeyReused, StillInProgress
from shared.contract.events import (
    IDEMPOTENCY_KEEP_S,
    IDEMPOTENCY_PREFIX,
    answer_key,
)
from shared.contract.ids import uuid8
from shared.observability.logs import get_logger
from shared.observability.metrics import Sample
from shared.observability.metrics.names import IDEMPOTENCY_REPLAYS, IDEMPOTENCY_UNPROTECTED
from shared.redis import REDIS_ERRORS, failure

REDIS_REST_S: Final = 1.0
"""After Redis failed, requests are decided without asking it for this long."""

_PENDING: Final = b"pending"
_DONE: Final = b"done"
_DIGEST_DIGITS: Final = 32

# Any decision is much like this one, so an answer is kept in a fifth of its size. It can be read
# only with the dictionary that it was written with: to change this, change ``answer_key`` too.
_DICTIONARY: Final = (
    b'{"success":true,"prediction_id":"018bcfe5-687b-8923-8a7b-f62adceb4158","prediction":"Approved'
    b'","prediction_code":1,"confidence":0.716826,"probability":{"approved":0.716826,"rejected":0.2'
    b'83174},"model_info":{"name":"gradient_boosting","version":"b-35e62725","accuracy":0.813591},"'
    b'input_data":{"Loan_ID":"LP001003","Gender":"Male","Married":"Yes","Dependents":"0","Education'
    b'":"Graduate","Self_Employed":"No","ApplicantIncome":4583.0,"CoapplicantIncome":0.0,"LoanAmoun'
    b't":128.0,"Loan_Amount_Term":360.0,"Credit_History":1,"Property_Area":"Urban"},"imputed":[],"w'
    b'arnings":[],"timestamp":"2026-11-27T08:44:29.846612Z"}'
)

# The state that stands is returned, and nothing changed; or the request is marked as in progress
# and its answers kept, unless an earlier attempt has left them.
_RESERVE: Final = """
local mark, answers = redis.call('GET', KEYS[1]), redis.call('MGET', unpack(KEYS, 3))
local missing = 0
for _, answer in ipairs(answers) do
    if answer == '' then return {'standing', mark, answers} end
    if not answer then missing = missing + 1 end
end
if mark then return {'standing', mark, answers} end
if missing > 0 then
    local used = redis.call('INCRBY', KEYS[2], missing)
    if used == missing then redis.call('EXPIRE', KEYS[2], ARGV[3]) end
    if used > tonumber(ARGV[4]) then return {'spent', tostring(used), {}} end
    for number, answer in ipairs(answers) do
        if not answer then
            redis.call('SET', KEYS[2 + number], ARGV[4 + number], 'EX', ARGV[3])
        end
    end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {'reserved', ARGV[1], answers}
"""
# An erasure may have emptied an answer meanwhile: no value is written again.
_FINISH: Final = """
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
for number = 2, #KEYS do redis.call('EXPIRE', KEYS[number], ARGV[2]) end
return 1
"""
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

    def prediction_id_at(self, index: int) -> str:
        """The id of the decision on the application that stands there, of many in the request."""
        return str(uuid8(_digest(*self._name, self.body_digest, b"%d" % index)))

    @cached_property
    def mark_key(self) -> str:
        """Where Redis keeps the state of the request; another body under the same key shares it."""
        return f"{IDEMPOTENCY_PREFIX}mark:{_digest(*self._name).hex()[:_DIGEST_DIGITS]}"

    @property
    def budget_key(self) -> str:
        """Where Redis counts what its caller has kept; anonymous callers share one count."""
        kind, name = self.caller
        return f"{IDEMPOTENCY_PREFIX}used:{kind}:{name if kind == 'client' else ''}"

    @property
    def body_mark(self) -> bytes:
        """The part of a mark that differs for another body."""
        return self.body_digest.hex()[:_DIGEST_DIGITS].encode()

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


class Answers(NamedTuple):
    """The bytes of all answers to a request, and whether an earlier request was given them."""

    bodies: Sequence[bytes]
    replayed: bool


class Idempotency:
    """Answers each named request once, as far as Redis remembers.

    It fails open: without Redis a request is answered as if it were the first, under the same id.
    ``redis`` is a client used for nothing else; ``deadline_s`` bounds each of the two exchanges of
    a request. ``pending_s`` is how long a request may be in progress before a repeated one takes
    over; it must exceed the longest hand-over. ``budget`` is the most answers that are kept for one
    client within a day, and for all anonymous callers together, so that the stream keeps its room.
    """

    def __init__(self, redis: Redis, *, deadline_s: float, pending_s: float, budget: int) -> None:
        self._redis = redis
        self._deadline_s = deadline_s
        self._pending_ms = round(pending_s * 1000)
        self._budget = budget
        self._reserve_script = redis.register_script(_RESERVE)
        self._finish_script = redis.register_script(_FINISH)
        self._remove_if_ours = redis.register_script(_REMOVE_IF_OURS)
        self._rest_until_s = 0.0
        self.replayed = 0
        self.unprotected = 0

    def samples(self) -> Iterable[Sample]:
        """Replayed answers, and requests that Redis did not protect."""
        yield Sample(IDEMPOTENCY_REPLAYS, self.replayed)
        yield Sample(IDEMPOTENCY_UNPROTECTED, self.unprotected)

    async def once(
        self,
        request: NamedRequest,
        answer: bytes,
        hand_over: Callable[[bytes], Awaitable[None]],
    ) -> Answer:
        """The answer given before, or else ``answer``, or else that of an attempt cut off before.

        One that was not given before goes to ``hand_over`` first, which must return only once it is
        durable and whose errors are raised. Raises ``StillInProgress``, ``IdempotencyKeyReused``
        and ``AnswerErased`` besides.
        """

        async def hand_over_one(answers: Sequence[bytes]) -> None:
            await hand_over(answers[0])

        answers = {request.prediction_id: answer}
        [body], replayed = await self.once_many(request, answers, hand_over_one)
        return Answer(body, replayed)

    async def once_many(
        self,
        request: NamedRequest,
        answers: Mapping[str, bytes],
        hand_over: Callable[[Sequence[bytes]], Awaitable[None]],
    ) -> Answers:
        """As ``once``, for a request with at least one answer, each by the id of its decision."""
        ours = b" ".join((_PENDING, request.body_mark, secrets.token_hex(8).encode()))
        bodies: Sequence[bytes] = list(answers.values())
        state, mark, kept = await self._reserve(request, ours, answers)
        if state == b"standing":
            return await self._replay(request, mark, kept)
        if state != b"reserved":
            self.unprotected += len(bodies)
            await hand_over(bodies)
            return Answers(bodies, replayed=False)
        bodies = [
            body if packed is None else _unpack(packed)
            for body, packed in zip(bodies, kept, strict=True)
        ]
        try:
            await hand_over(bodies)
        except Exception:
            await self._try(lambda: self._remove_if_ours(keys=[request.mark_key], args=[ours]))
            raise
        if await self._try(lambda: self._finish(request, answers)) is None:
            self.unprotected += len(bodies)
        return Answers(bodies, replayed=False)

    async def _replay(
        self, request: NamedRequest, mark: bytes | None, kept: Sequence[bytes | None]
    ) -> Answers:
        state, body_mark, *_ = (mark or b" ".join((_DONE, request.body_mark))).split(b" ")
        if body_mark != request.body_mark:
            raise IdempotencyKeyReused
        if state == _PENDING:
            raise StillInProgress
        packed = [each for each in kept if each]
        if len(packed) < len(kept):
            raise AnswerErased
        self.replayed += 1
        return Answers(await in_turns(_unpack, packed), replayed=True)

    async def _reserve(
        self, request: NamedRequest, ours: bytes, answers: Mapping[str, bytes]
    ) -> tuple[bytes, bytes | None, Sequence[bytes | None]]:
        """The state, mark and answers that stand now; no state without an answer of Redis."""
        if monotonic() < self._rest_until_s:
            return b"", None, ()
        packed = await in_turns(_pack, answers.values())
        keys = [request.mark_key, request.budget_key, *map(answer_key, answers)]
        limits = (self._pending_ms, IDEMPOTENCY_KEEP_S, self._budget)
        args: list[bytes | int] = [ours, *limits, *packed]
        found = await self._try(lambda: self._reserve_script(keys=keys, args=args))
        if found is None:
            return b"", None, ()
        state, mark, kept = found
        if state == b"spent" and int(mark) - len(answers) <= self._budget:
            _log.warning("idempotency budget spent", caller=request.budget_key)
        return state, mark, kept

    async def _finish(self, request: NamedRequest, prediction_ids: Iterable[str]) -> Any:
        done = b" ".join((_DONE, request.body_mark))
        keys = [request.mark_key, *map(answer_key, prediction_ids)]
        return await self._finish_script(keys=keys, args=[done, IDEMPOTENCY_KEEP_S])

    async def _try(self, exchange: Callable[[], Awaitable[Any]]) -> Any:
        """The reply of Redis; None if it gave none within the deadline."""
        try:
            async with asyncio.timeout(self._deadline_s):
                return await exchange()
        except REDIS_ERRORS as error:
            # A full server still answers what it has.
            if not isinstance(error, OutOfMemoryError):
                self._rest_until_s = monotonic() + REDIS_REST_S
            reason = failure(error)
            _log.warning("repeated requests not recognised", reason=reason, error=repr(error))
            return None


def _pack(answer: bytes) -> bytes:
    packer = zlib.compressobj(wbits=12, memLevel=4, zdict=_DICTIONARY)
    return packer.compress(answer) + packer.flush()


def _unpack(kept: bytes) -> bytes:
    return zlib.decompressobj(wbits=12, zdict=_DICTIONARY).decompress(kept)
