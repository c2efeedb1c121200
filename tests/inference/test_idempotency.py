"""A request that is sent again gets the answer it got before, and is recorded once."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from uuid import UUID

import httpx
import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis
from redis.crc import key_slot

from services.inference.main import create_app
from services.inference.settings import InferenceSettings
from services.local.servers import Server
from services.scoring.idempotency import Idempotency, NamedRequest
from shared.access.api_keys import mint_key, parse_keys
from shared.contract.application import EXAMPLE
from shared.contract.errors import NotRecorded
from shared.contract.events import IDEMPOTENCY_KEEP_S, STREAM, PredictionRecorded, answer_key
from shared.redis import connect_in_turn
from tests import keys
from tests.harness import HOST, free_port
from tests.inference.conftest import PATIENT_S
from tests.prometheus import Exposition
from tests.serving import served
from tests.stream import recorded_events
from tests.waiting import eventually_said

_OTHER_BODY = EXAMPLE | {"ApplicantIncome": 5000}

pytestmark = pytest.mark.filterwarnings("error")


@pytest_asyncio.fixture
async def client(settings: InferenceSettings) -> AsyncIterator[httpx.AsyncClient]:
    """A client with a key of its own and no limit."""
    async with served(create_app(settings), headers=keys.HEADERS) as client:
        yield client


async def _ask(
    client: httpx.AsyncClient,
    key: str,
    *,
    path: str = "/predict",
    body: object = EXAMPLE,
    headers: dict[str, str] | None = None,
) -> httpx.Response:
    named = {"idempotency-key": key, **(headers or {})}
    return await client.post(path, json=body, headers=named)


async def _is_decided(client: httpx.AsyncClient, key: str) -> bool:
    return (await _ask(client, key)).status_code == 200


async def _recorded(redis: Redis) -> list[PredictionRecorded]:
    return [PredictionRecorded.model_validate_json(event) for event in await recorded_events(redis)]


async def test_repeated_request_is_answered_byte_for_byte_and_recorded_once(
    client: httpx.AsyncClient, redis: Redis
) -> None:
    """The second answer is the first one, and says so; the record's id is of version 8."""
    first, second = [await _ask(client, "order-66") for _ in range(2)]
    assert (first.status_code, second.status_code) == (200, 200)
    assert first.content == second.content
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    [event] = await _recorded(redis)
    assert str(event.decision.prediction_id) == first.json()["prediction_id"]
    assert event.decision.prediction_id.version == 8


async def test_request_without_the_header_is_decided_each_time(
    client: httpx.AsyncClient, redis: Redis
) -> None:
    """Nothing is remembered of it, and its id is in order of time."""
    for _ in range(2):
        await client.post("/predict", json=EXAMPLE)
    ids = {event.decision.prediction_id for event in await _recorded(redis)}
    assert [identifier.version for identifier in ids] == [7, 7]
    assert await redis.keys("*idempotency*") == []


async def test_twenty_identical_requests_at_once_are_one_decision(
    client: httpx.AsyncClient, redis: Redis
) -> None:
    """Each is answered with the one decision, or with 409 while it is being made."""
    responses = await asyncio.gather(*(_ask(client, "once") for _ in range(20)))
    statuses = Counter(response.status_code for response in responses)
    assert set(statuses) <= {200, 409}
    assert statuses[200] >= 1
    assert len({response.content for response in responses if response.status_code == 200}) == 1
    for response in responses:
        if response.status_code == 409:
            assert response.json()["code"] == "StillInProgress"
            assert response.headers["retry-after"] == "1"
    assert len(await _recorded(redis)) == 1
    assert (await _ask(client, "once")).headers["idempotency-replayed"] == "true"


async def test_key_with_another_body_is_refused(client: httpx.AsyncClient, redis: Redis) -> None:
    """A client that confuses its keys gets an error, and never another decision."""
    await _ask(client, "order-66")
    response = await _ask(client, "order-66", body=_OTHER_BODY)
    assert response.status_code == 422
    assert response.json()["code"] == "IdempotencyKeyReused"
    assert len(await _recorded(redis)) == 1


async def test_callers_and_paths_have_keys_of_their_own(
    settings: InferenceSettings, redis: Redis
) -> None:
    """Two clients, an anonymous one and two paths may use one key without meeting."""
    secret, entry = mint_key("other", ["predict"])
    two = settings.model_copy(update={"api_keys": parse_keys(f"{keys.ENTRY} {entry}")})
    async with served(create_app(two)) as client:
        answers = [
            await _ask(client, "k", headers=keys.HEADERS),
            await _ask(client, "k", headers={"x-api-key": secret}),
            await _ask(client, "k"),
            await _ask(client, "k", path="/predict/random_forest"),
        ]
    assert all("idempotency-replayed" not in answer.headers for answer in answers)
    assert len({answer.json()["prediction_id"] for answer in answers}) == 4
    assert len(await _recorded(redis)) == 4


async def test_invalid_application_leaves_its_key_free(client: httpx.AsyncClient) -> None:
    """What was never decided can be mended and sent under the same key."""
    assert (await _ask(client, "k", body={"ApplicantIncome": -1})).status_code == 400
    assert (await _ask(client, "k")).status_code == 200


async def test_refused_decision_leaves_its_key_free(
    settings: InferenceSettings, redis: Redis
) -> None:
    """After a 503 the same request is recorded, not held up by a mark of the refused one.

    What was refused may have been recorded all the same: the decision is the one made then.
    """
    async with served(create_app(settings), headers=keys.HEADERS) as client:
        await redis.set(STREAM, "no stream, so nothing can be added")
        assert (await _ask(client, "k")).status_code == 503
        refused_at = datetime.now(UTC)
        await redis.delete(STREAM)
        # The stream is left alone for a moment after its failure.
        await eventually_said(lambda: _is_decided(client, "k"))
    [event] = await _recorded(redis)
    assert event.decision.timestamp < refused_at


async def test_answer_is_kept_for_a_day_in_half_its_size(
    client: httpx.AsyncClient, redis: Redis
) -> None:
    """The mark and the answer, which is where other services expect it, take less than it alone."""
    answer = await _ask(client, "k")
    [event] = await _recorded(redis)
    names = await redis.keys("*idempotency*")
    for name in names:
        assert IDEMPOTENCY_KEEP_S - 60 < await redis.ttl(name) <= IDEMPOTENCY_KEEP_S
    [mark] = [name for name in names if b":mark:" in name]
    taken = [
        await redis.memory_usage(name) for name in (mark, answer_key(event.decision.prediction_id))
    ]
    assert sum(size or 0 for size in taken) < 450 < len(answer.content)


async def test_keys_of_one_request_are_kept_together_in_a_cluster(
    client: httpx.AsyncClient, redis: Redis
) -> None:
    await _ask(client, "k")
    names: list[bytes] = [name async for name in redis.scan_iter("*idempotency*")]
    assert len(names) == 3
    assert len({key_slot(name) for name in names}) == 1


async def test_client_over_its_budget_takes_no_more_room(
    settings: InferenceSettings, redis: Redis
) -> None:
    """What it has kept is still replayed; the rest is decided under the derived id alone."""
    secret, entry = mint_key("other", ["predict"])
    two = settings.model_copy(
        update={"api_keys": parse_keys(f"{keys.ENTRY} {entry}"), "idempotency_budget": 2}
    )
    async with served(create_app(two), headers=keys.HEADERS) as client:
        firsts = [await _ask(client, f"k{number}") for number in range(3)]
        again = [await _ask(client, f"k{number}") for number in range(3)]
        others = [await _ask(client, "k", headers={"x-api-key": secret}) for _ in range(2)]
        exposed = Exposition((await client.get("/metrics")).text)
        kept = await redis.keys("*idempotency*:answer:*")
    replayed = [answer.headers.get("idempotency-replayed") for answer in again]
    assert replayed == ["true", "true", None]
    ids = [[answer.json()["prediction_id"] for answer in answers] for answers in (firsts, again)]
    assert ids[0] == ids[1]
    assert others[0].content == others[1].content
    assert len(kept) == 3
    assert exposed.sum_of("idempotency_unprotected_decisions_total") == 2


async def test_anonymous_callers_share_one_budget(
    settings: InferenceSettings, redis: Redis
) -> None:
    """An address costs nothing, so a thousand of them get no more room than one."""
    async with connect_in_turn(settings.redis_url, command_timeout_s=9, max_connections=2) as own:
        idempotency = Idempotency(own, deadline_s=9, pending_s=9, budget=3)
        for number in range(5):
            request = _named(caller=("at", f"192.0.2.{number}"))
            await idempotency.once(request, b"{}", _nothing)
    assert idempotency.unprotected == 2
    assert len(await redis.keys("*idempotency*:answer:*")) == 3


async def test_full_redis_still_replays_and_is_named_as_full(
    own_redis: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """It takes no new answers, and gives those it has; new requests are decided unprotected."""
    async with (
        connect_in_turn(own_redis.url, command_timeout_s=9, max_connections=2) as redis,
        Redis.from_url(own_redis.url) as control,
    ):
        idempotency = Idempotency(redis, deadline_s=9, pending_s=9, budget=9)
        await idempotency.once(_named(key=b"old"), b'{"old":1}', _nothing)
        await control.config_set("maxmemory", "1")
        new = await idempotency.once(_named(key=b"new"), b'{"new":1}', _nothing)
        old = await idempotency.once(_named(key=b"old"), b'{"old":2}', _nothing)
    assert new == (b'{"new":1}', False)
    assert old == (b'{"old":1}', True)
    assert idempotency.unprotected == 1
    assert "Redis is full" in caplog.text


async def test_erased_answer_is_gone_and_not_decided_again(
    client: httpx.AsyncClient, redis: Redis
) -> None:
    """410 as long as the request is remembered: repeating must not bring back what was erased."""
    await _ask(client, "k")
    [event] = await _recorded(redis)
    await redis.delete(answer_key(event.decision.prediction_id))
    response = await _ask(client, "k")
    assert response.status_code == 410
    assert response.json()["code"] == "AnswerErased"
    assert len(await _recorded(redis)) == 1


async def test_redis_that_forgot_makes_the_same_id_again(
    client: httpx.AsyncClient, redis: Redis
) -> None:
    """PostgreSQL has the last word: it stores one decision per id."""
    first = await _ask(client, "k")
    await redis.flushall()
    second = await _ask(client, "k")
    assert "idempotency-replayed" not in second.headers
    assert first.json()["prediction_id"] == second.json()["prediction_id"]


@pytest.mark.parametrize(
    "values",
    [[b""], [b"two words"], [b"k" * 256], ["schlüssel".encode()], [b"a\tb"], [b"one", b"two"]],
)
async def test_unusable_key_is_named(client: httpx.AsyncClient, values: list[bytes]) -> None:
    """One key of 1 to 255 visible ASCII characters, or a fault like any other."""
    headers = [(b"idempotency-key", value) for value in values]
    response = await client.post("/predict", json=EXAMPLE, headers=headers)
    assert response.status_code == 400
    [fault] = response.json()["validation_errors"]
    assert fault["field"] == "Idempotency-Key"


@pytest.mark.parametrize("key", ["k", "k" * 255, '"a-quoted-one"', "!~"])
async def test_visible_characters_are_a_key(client: httpx.AsyncClient, key: str) -> None:
    """Whatever a client makes its keys of."""
    assert (await _ask(client, key)).status_code == 200


async def test_without_redis_requests_are_decided_under_the_same_id(own_redis: Server) -> None:
    """It fails open, counted and at once: only the byte-for-byte answer is lost."""
    settings = InferenceSettings(
        redis_url=own_redis.url,
        history_url=f"http://{HOST}:{free_port()}",
        api_keys=parse_keys(keys.ENTRY),
    )
    async with served(create_app(settings), headers=keys.HEADERS) as client:
        first = await _ask(client, "k")
        own_redis.process.kill()
        # No sink accepts the decision now; the refusal shows that it was made.
        assert (await _ask(client, "k")).status_code == 503
        text = (await client.get("/metrics")).text
        own_redis.process.start()
        async with Redis.from_url(own_redis.url) as redis:
            await redis.flushall()

        async def decided() -> bool:
            return (await _ask(client, "k")).status_code == 200

        await eventually_said(decided)
        again = await _ask(client, "k")
    assert "\nidempotency_unprotected_decisions_total 1.0\n" in text
    assert first.json()["prediction_id"] == again.json()["prediction_id"]


async def test_frozen_redis_costs_one_deadline_and_mixes_no_answers_up(own_redis: Server) -> None:
    """Meanwhile no answer is replayed; afterwards each request gets its own."""
    async with connect_in_turn(own_redis.url, command_timeout_s=0.2, max_connections=2) as redis:
        idempotency = Idempotency(redis, deadline_s=0.2, pending_s=PATIENT_S, budget=9)
        requests = [_named(key=b"%d" % number) for number in range(6)]
        for request in requests[:3]:
            await idempotency.once(request, request.key, _nothing)
        own_redis.process.pause()
        stuck = await asyncio.gather(
            *(idempotency.once(request, request.key, _nothing) for request in requests)
        )
        own_redis.process.resume()
        assert not any(answer.replayed for answer in stuck)
        assert idempotency.unprotected == len(requests)
        idempotency._rest_until_s = 0  # noqa: SLF001  rather than waiting for it
        after = [await idempotency.once(request, b"other", _nothing) for request in requests[:3]]
    assert [answer.body for answer in after] == [request.key for request in requests[:3]]
    assert all(answer.replayed for answer in after)


async def test_pending_mark_of_a_killed_process_expires_and_its_answer_is_adopted(
    redis: Redis, redis_url: str
) -> None:
    """It holds its key for moments only; what it may have recorded is what is answered."""
    adopted: list[bytes] = []
    async with connect_in_turn(redis_url, command_timeout_s=9, max_connections=2) as own:
        idempotency = Idempotency(own, deadline_s=9, pending_s=0.2, budget=9)
        request = _named()

        async def marked() -> bool:
            return bool(await redis.exists(request.mark_key))

        async def unmarked() -> bool:
            return not await marked()

        dying = asyncio.create_task(idempotency.once(request, b"first", _never))
        await eventually_said(marked)
        dying.cancel()
        await asyncio.wait([dying])
        assert 0 < await redis.pttl(request.mark_key) <= 200
        await eventually_said(unmarked)
        answer = await idempotency.once(request, b"second", _into(adopted))
    assert answer == (b"first", False)
    assert adopted == [b"first"]


async def test_late_failure_leaves_the_mark_of_its_successor(redis: Redis, redis_url: str) -> None:
    """Who took over after an expired mark is not disturbed by the failure of the one before."""
    async with connect_in_turn(redis_url, command_timeout_s=9, max_connections=2) as own:
        idempotency = Idempotency(own, deadline_s=9, pending_s=60, budget=9)
        request = _named()

        async def overtaken(_: bytes) -> None:
            await redis.set(request.mark_key, "pending of another")
            raise NotRecorded("too late")

        with pytest.raises(NotRecorded):
            await idempotency.once(request, b"{}", overtaken)
    assert await redis.get(request.mark_key) == b"pending of another"


def _named(
    *,
    caller: tuple[str, str] = ("client", "bank"),
    path: str = "/predict",
    key: bytes = b"k",
    body_digest: bytes = b"d" * 32,
) -> NamedRequest:
    return NamedRequest(caller, path, key, body_digest)


async def _never(_: bytes) -> None:
    await asyncio.Event().wait()


async def _nothing(_: bytes) -> None:
    """Hand nothing over."""


def _into(handed_over: list[bytes]) -> Callable[[bytes], Awaitable[None]]:
    """A hand-over that is remembered."""

    async def hand_over(answer: bytes) -> None:
        handed_over.append(answer)

    return hand_over


_text = st.text(max_size=12)
_named_requests = st.builds(
    NamedRequest,
    caller=st.tuples(st.sampled_from(["client", "at"]), _text),
    operation=_text,
    key=st.binary(max_size=12),
    body_digest=st.binary(min_size=32, max_size=32),
)


@given(_named_requests, _named_requests)
def test_only_the_same_request_has_the_same_id(one: NamedRequest, other: NamedRequest) -> None:
    """Derived alone from who asked, where, under which key and what: a UUID of version 8."""
    same_name = (one.caller, one.operation, one.key) == (other.caller, other.operation, other.key)
    assert (one.prediction_id == other.prediction_id) is (one == other)
    assert (one.mark_key == other.mark_key) is same_name
    assert UUID(one.prediction_id).version == 8
    assert UUID(one.prediction_id).variant == "specified in RFC 4122"
    again = NamedRequest(one.caller, one.operation, one.key, one.body_digest)
    assert again.prediction_id == one.prediction_id


@given(st.lists(st.text(), min_size=4, max_size=4), st.integers(0, 2), st.integers(1, 9))
def test_moving_characters_between_parts_makes_another_request(
    parts: list[str], index: int, count: int
) -> None:
    """No two requests run together: a client "ab" on "c" is not a client "a" on "bc"."""
    moved = list(parts)
    moved[index + 1] = parts[index][-count:] + parts[index + 1]
    moved[index] = parts[index][:-count]
    one, other = (
        _named(caller=(kind, name), path=path, key=key.encode())
        for kind, name, path, key in (parts, moved)
    )
    assert (one.mark_key == other.mark_key) is (parts == moved)
