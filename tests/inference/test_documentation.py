"""The documentation pages, as a browser without the internet meets them."""

import re

import httpx


async def test_swagger_page_needs_nothing_but_this_service(client: httpx.AsyncClient) -> None:
    """What the page loads is here, and its policy lets it load that and nothing else."""
    page = await client.get("/docs")
    policy = dict(
        directive.strip().split(" ", 1)
        for directive in page.headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == "'self' 'unsafe-inline'"
    assert policy["connect-src"] == "'self'"
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(loaded) >= 3
    for path in (*loaded, "/openapi.json"):
        assert path.startswith("/"), path
        assert (await client.get(path)).status_code == 200


async def test_document_names_the_keys_and_what_each_route_needs(
    client: httpx.AsyncClient,
) -> None:
    """Both ways to show a key; a decision may also be had without one."""
    document = (await client.get("/openapi.json")).json()
    assert document["components"]["securitySchemes"]["ApiKey"]["name"] == "X-API-Key"
    needs = document["paths"]["/predict"]["post"]["security"]
    assert needs == [{"ApiKey": ["predict"]}, {"Bearer": ["predict"]}, {}]
