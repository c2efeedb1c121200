"""Who may ask for decisions, and how often."""

import httpx
import pytest
from redis.asyncio import Redis

from services.inference.main import create_app
from services.inference.settings import InferenceSettings
from shared.access.limits import parse_limits
from shared.contract.application import EXAMPLE
from shared.contract.events import PredictionRecorded
from tests import keys
from tests.access import assert_access_is_as_documented
from tests.serving import served
from tests.stream import recorded_events


async def test_anonymous_caller_is_limited_and_sees_its_limit(settings: InferenceSettings) -> None:
    """Each answer says what is left; the one too many is a 429 problem with Retry-After."""
    limited = settings.model_copy(update={"rate_limit_predict": parse_limits("2/hour")})
    async with served(create_app(limited)) as client:
        answers = [await client.post("/predict", json=EXAMPLE) for _ in range(3)]
        other = await client.get("/models")
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == ["1", "0", "0"]
    assert answers[2].json()["code"] == "RateLimitExceeded"
    assert int(answers[2].headers["retry-after"]) > 0
    assert answers[2].headers["x-request-id"]
    assert other.headers["x-ratelimit-limit"] == "200"


@pytest.mark.parametrize("path", ["/predict%0a", "/predict/svm%0a", "/models/benchmark%0a"])
async def test_line_break_in_the_path_evades_no_limit(
    settings: InferenceSettings, path: str
) -> None:
    """Routes match before a last line break; such a request is refused before any route."""
    limited = settings.model_copy(update={"rate_limit_predict": parse_limits("1/hour")})
    async with served(create_app(limited)) as client:
        answers = [await client.post(path, json=EXAMPLE) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [400, 400, 400]


async def test_health_and_documentation_are_never_limited(settings: InferenceSettings) -> None:
    """Limits do not shut out the monitoring of the service."""
    limited = settings.model_copy(update={"rate_limit_other": parse_limits("1/hour")})
    async with served(create_app(limited)) as client:
        for path in ("/livez", "/readyz", "/health", "/docs", "/openapi.json"):
            for _ in range(2):
                assert (await client.get(path)).status_code == 200


async def test_key_has_its_own_limit_and_names_the_record(
    client: httpx.AsyncClient, redis: Redis
) -> None:
    """A client with a key is not counted with the anonymous, and its decisions bear its name."""
    response = await client.post("/predict", json=EXAMPLE, headers=keys.HEADERS)
    assert "x-ratelimit-limit" not in response.headers
    [event] = await recorded_events(redis)
    assert PredictionRecorded.model_validate_json(event).client == "tests"


@pytest.mark.parametrize("path", ["/predict", "/predict/random_forest", "/models"])
async def test_wrong_key_is_refused_everywhere(client: httpx.AsyncClient, path: str) -> None:
    """A mistyped key is refused at once instead of being treated as a missing one."""
    response = await client.post(path, json=EXAMPLE, headers={"x-api-key": "lp_wrong"})
    assert response.status_code == 401
    assert response.json()["code"] == "Unauthenticated"
    assert response.headers["www-authenticate"] == "Bearer"
    assert "lp_wrong" not in response.text


@pytest.mark.parametrize(
    "path",
    ["/predict", "/predict/random_forest", "/explain", "/models/benchmark", "/validate-loan"],
)
async def test_anonymous_callers_can_be_shut_out(
    settings: InferenceSettings, redis: Redis, path: str
) -> None:
    """With ALLOW_ANONYMOUS=false a decision needs a key; the models stay public."""
    closed = settings.model_copy(update={"allow_anonymous": False})
    async with served(create_app(closed)) as client:
        assert (await client.post(path, json=EXAMPLE)).status_code == 401
        assert (await client.post(path, json=EXAMPLE, headers=keys.HEADERS)).status_code == 200
        assert (await client.get("/models")).status_code == 200
    assert len(await recorded_events(redis)) == path.startswith("/predict")


@pytest.mark.parametrize("allow_anonymous", [True, False])
@pytest.mark.no_cover
async def test_access_is_as_documented(settings: InferenceSettings, allow_anonymous: bool) -> None:
    """Every operation: who may ask with which scope, and whether a key is needed at all."""
    await assert_access_is_as_documented(
        lambda api_keys: create_app(
            settings.model_copy(update={"api_keys": api_keys, "allow_anonymous": allow_anonymous})
        )
    )
