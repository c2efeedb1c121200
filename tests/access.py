"""What a service's OpenAPI document says of keys and scopes, held against what it does."""

from collections.abc import Callable, Iterator
from typing import Any

from fastapi import FastAPI

from shared.access.api_keys import KEY_SCOPES, ApiKey, mint_key, parse_keys
from shared.access.middleware import UNLIMITED_ROUTES
from shared.contract.application import EXAMPLE
from tests.serving import served

_PARAMETERS = {
    "{version}": "b-0a1b2c3d",
    "{epoch}": "1",
    "{model}": "random_forest",
    "{batch_id}": "01a20afb-7957-74b4-90e3-62e561575793",
    "{prediction_id}": "01a20afb-7957-74b4-90e3-62e561575793",
}


async def assert_access_is_as_documented(
    create: Callable[[tuple[ApiKey, ...]], FastAPI],
) -> None:
    """Ask every documented operation without a key, with a wrong one, and with each scope alone.

    ``create`` makes the service with the keys that it is given.
    """
    minted = {
        scope: mint_key(f"client-{number}", [scope]) for number, scope in enumerate(KEY_SCOPES)
    }
    app = create(parse_keys(" ".join(entry for _, entry in minted.values())))
    async with served(app) as client:
        document = (await client.get("/openapi.json")).json()
        schemes = document["components"]["securitySchemes"]
        assert schemes["ApiKey"] == {"type": "apiKey", "in": "header", "name": "X-API-Key"}
        assert schemes["Bearer"]["scheme"] == "bearer"
        for method, path, operation in _operations(document):
            anonymous, scopes = _documented(operation)

            async def ask(method: str = method, path: str = path, **headers: str) -> int:
                response = await client.request(
                    method, _filled(path), json=EXAMPLE, headers=headers
                )
                if response.status_code in (401, 403):
                    assert response.headers["content-type"] == "application/problem+json"
                    assert "lp_" not in response.text
                    assert "client-" not in response.text
                return response.status_code

            said = f"{method} {path}"
            assert (await ask() == 401) is not anonymous, said
            if path not in UNLIMITED_ROUTES:
                assert await ask(**{"x-api-key": "lp_wrong"}) == 401, said
                assert {"401", "429"} <= operation["responses"].keys(), said
            for scope, (secret, _) in minted.items():
                forbidden = bool(scopes) and scope not in scopes
                assert (await ask(**{"x-api-key": secret}) == 403) is forbidden, (said, scope)
                bearer = await ask(authorization=f"Bearer {secret}")
                assert (bearer == 403) is forbidden, (said, scope)


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield method.upper(), path, operation


def _documented(operation: dict[str, Any]) -> tuple[bool, set[str]]:
    """Whether a key is optional, and the scopes of which one is needed otherwise."""
    security: list[dict[str, list[str]]] = operation.get("security", [{}])
    scopes = {scope for each in security for names in each.values() for scope in names}
    return {} in security, scopes


def _filled(path: str) -> str:
    for parameter, value in _PARAMETERS.items():
        path = path.replace(parameter, value)
    return path
