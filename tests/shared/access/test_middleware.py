"""Which requests are counted together: by their route, and by their caller."""

import pytest
from fastapi import FastAPI
from starlette.types import Message

from shared.access.api_keys import anonymous
from shared.access.limits import parse_limits
from shared.access.middleware import AccessMiddleware, RateLimitBucket, address_of, subscriber
from shared.access.rate_limit import RateLimits
from shared.observability.logs import silent
from shared.observability.metrics import Metrics
from shared.web.conventions import install_conventions


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("unknown", "unknown", True),
        ("fe80::1%eth0", "fe80::2%eth0", True),
    ],
)
def test_an_ipv6_subscriber_is_one_caller(one: str, other: str, same: bool) -> None:
    """Who is given a whole network of addresses does not get a limit for each of them."""
    assert (subscriber(one) == subscriber(other)) is same


def _limited_app() -> FastAPI:
    app = FastAPI()

    @app.get("/models/{model}")
    async def model(model: str) -> str:
        return model

    @app.post("/models/benchmark")
    async def benchmark() -> str:
        return "benchmark"

    _add_access(app, {"/models/benchmark": RateLimitBucket("benchmark", parse_limits("1/hour"))})
    install_conventions(app, log_access=silent, metrics=Metrics())
    return app


def _add_access(app: FastAPI, buckets: dict[str, RateLimitBucket]) -> None:
    app.add_middleware(
        AccessMiddleware,
        routes=app.routes,
        keys=(),
        anonymous=anonymous(),
        rate_limits=RateLimits(),
        buckets=buckets,
        other=RateLimitBucket("other", parse_limits("1000/hour")),
    )


async def _status(app: FastAPI, path: str, *, root_path: str = "") -> int:
    """The status of a POST whose path is exactly ``path``, without a server that refuses it."""
    statuses: list[int] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "root_path": root_path,
        "query_string": b"",
        "headers": [],
        "client": ("192.0.2.1", 1),
        "state": {},
    }
    await app(scope, receive, send)
    [status] = statuses
    return status


@pytest.mark.parametrize(
    ("path", "root_path"),
    [
        ("/models/benchmark", ""),
        ("/models/benchmark\n", ""),
        ("/loans/models/benchmark", "/loans"),
        ("/loans/models/benchmark\n", "/loans"),
    ],
)
async def test_limit_is_that_of_the_route_that_the_request_takes(path: str, root_path: str) -> None:
    """Whatever the text of the path is, and although a route of another method matches first."""
    app = _limited_app()
    answers = [await _status(app, path, root_path=root_path) for _ in range(3)]
    assert answers == [200, 429, 429]


async def test_limit_of_a_route_that_does_not_exist_stops_the_start() -> None:
    """A route that is renamed does not lose its limit in silence."""
    app = FastAPI()
    _add_access(app, {"/gone": RateLimitBucket("gone", ())})
    with pytest.raises(ValueError, match="no route has the template /gone"):
        await _status(app, "/gone")


def test_address_is_bounded() -> None:
    """A trusted proxy may forward anything as an address, and each is kept for its window."""
    assert len(address_of({"client": ("x" * 10_000, 0)})) == 64
