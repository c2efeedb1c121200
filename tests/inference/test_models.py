"""The documents about the models, the rules and the service itself."""

import re
from hashlib import sha256
from pathlib import Path

import httpx
import pytest

from services.inference.main import create_app
from services.inference.settings import InferenceSettings
from services.scoring.manifest import BUNDLE_ROOT, MANIFEST_FILE, RESERVED_NAMES, read_manifest
from services.scoring.registry import Bundle
from shared.contract.application import EXAMPLE
from shared.contract.parsing import LoanApplication
from shared.version import VERSION
from tests.bundles import make_bundle
from tests.serving import served

_DOCUMENTS = (
    "/models",
    "/models/compare",
    "/models/random_forest",
    "/models/logistic_regression/scorecard",
    "/model-info",
    "/validation-rules",
    "/models/card",
    "/models/pictures/roc.png",
)


def test_no_model_can_have_the_name_of_another_address(settings: InferenceSettings) -> None:
    """Where a path names a model, a fixed word in its place hides the model of that name."""
    templates = [path.split("/") for path in create_app(settings).openapi()["paths"]]
    for template in templates:
        if "{model}" in template:
            place = template.index("{model}")
            words = {
                other[place]
                for other in templates
                if other[:place] == template[:place] and len(other) > place
            }
            assert words - {"{model}"} <= RESERVED_NAMES


@pytest.mark.parametrize("path", _DOCUMENTS)
async def test_document_is_kept_and_revalidated_by_etag_before_each_use(
    client: httpx.AsyncClient, path: str
) -> None:
    """A roll-out may change it at any time; a client that has the current document gets 304."""
    first = await client.get(path)
    assert first.status_code == 200
    assert first.headers["cache-control"] == "no-cache"
    assert re.fullmatch(r'"[0-9a-f]{32}"', first.headers["etag"])
    again = await client.get(path, headers={"if-none-match": f'"other", {first.headers["etag"]}'})
    assert again.status_code == 304
    assert again.content == b""
    assert again.headers["etag"] == first.headers["etag"]
    assert again.headers["cache-control"] == "no-cache"
    changed = await client.get(path, headers={"if-none-match": '"other"'})
    assert changed.content == first.content


async def test_comparison_has_the_manifests_numbers_with_intervals_and_baselines(
    client: httpx.AsyncClient, bundle: Bundle
) -> None:
    """The comparison shows each model's interval beside the rules that need no model."""
    manifest = bundle.manifest
    comparison = (await client.get("/models/compare")).json()
    assert comparison["champion"] == manifest.champion
    assert set(comparison["baselines"]) == {"majority_class", "credit_history_rule"}
    for name, model in manifest.models.items():
        accuracy = comparison["models"][name]["cross_validation"]["accuracy"]
        assert accuracy == model.cross_validation.accuracy.model_dump()
        assert accuracy["low"] < accuracy["mean"] < accuracy["high"]


async def test_list_names_the_champion(client: httpx.AsyncClient, bundle: Bundle) -> None:
    """One of the listed models is the one that decides."""
    listed = (await client.get("/models")).json()
    assert [m["name"] for m in listed["models"] if m["champion"]] == [bundle.manifest.champion]
    info = (await client.get("/model-info")).json()
    assert info["name"] == bundle.manifest.champion
    assert info["data"]["sha256"] == bundle.manifest.data.sha256


async def test_unknown_model_has_no_description(client: httpx.AsyncClient) -> None:
    """404 as a problem that lists the models there are."""
    response = await client.get("/models/xgboost")
    assert response.status_code == 404
    assert "random_forest" in response.json()["detail"]


async def test_card_and_its_pictures_are_those_of_the_verified_bundle(
    client: httpx.AsyncClient, bundle: Bundle
) -> None:
    """Every picture that the card shows is served, byte for byte what the manifest vouches for."""
    card = await client.get("/models/card")
    assert card.headers["content-type"] == "text/markdown; charset=utf-8"
    assert sha256(card.content).hexdigest() == bundle.manifest.files["MODEL_CARD.md"]
    shown = re.findall(r"\(img/(.*?)\)", card.text)
    assert len(shown) >= 2
    for name in shown:
        picture = await client.get(f"/models/pictures/{name}")
        assert picture.headers["content-type"] == "image/png"
        assert sha256(picture.content).hexdigest() == bundle.manifest.files[f"img/{name}"]


@pytest.mark.parametrize("name", ["none.png", "..%2Fmanifest.json", "random_forest.onnx"])
async def test_nothing_but_the_cards_pictures_is_served(
    client: httpx.AsyncClient, name: str
) -> None:
    """404 as a problem; a path that climbs finds nothing either."""
    response = await client.get(f"/models/pictures/{name}")
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"


async def test_card_of_an_earlier_bundle_is_served_with_its_pictures(
    client: httpx.AsyncClient, bundle: Bundle
) -> None:
    """A decision names its bundle, and the card of that is the one to read."""
    for folder in BUNDLE_ROOT.iterdir():
        if not folder.is_dir():
            continue
        manifest = read_manifest(folder / MANIFEST_FILE)
        card = await client.get(f"/models/card/{folder.name}")
        assert sha256(card.content).hexdigest() == manifest.files["MODEL_CARD.md"]
        [name, *_] = re.findall(r"\(img/(.*?)\)", card.text)
        picture = await client.get(f"/models/pictures/{folder.name}/{name}")
        assert sha256(picture.content).hexdigest() == manifest.files[f"img/{name}"]
    assert bundle.card == (await client.get("/models/card")).content
    for unknown in ("b-00000000", "..%2F..", "current"):
        response = await client.get(f"/models/card/{unknown}")
        assert response.status_code == 404
    assert (await client.get("/models/pictures/b-00000000/roc.png")).status_code == 404


async def test_bundle_without_a_card_has_no_card_to_serve(
    settings: InferenceSettings, tmp_path: Path
) -> None:
    """404, and it decides all the same."""
    make_bundle(tmp_path, version="b-0a1b2c3d", models={"gradient_boosting": "gradient_boosting"})
    settings = settings.model_copy(update={"bundle_root": tmp_path})
    async with served(create_app(settings)) as client:
        assert (await client.get("/models/card")).status_code == 404
        assert (await client.get("/models/pictures/roc.png")).status_code == 404
        assert (await client.post("/predict", json=EXAMPLE)).status_code == 200


async def test_validation_rules_cover_every_field(
    client: httpx.AsyncClient, bundle: Bundle
) -> None:
    """The rules as data and the schema that enforces them speak of the same fields."""
    rules = (await client.get("/validation-rules")).json()
    assert {rule["name"] for rule in rules["fields"]} == set(LoanApplication.model_fields)
    for rule in rules["fields"]:
        field = LoanApplication.model_fields[rule["name"]]
        assert rule["required"] == field.is_required()
    ranges = rules["training_ranges"]
    assert {name: tuple(each) for name, each in ranges.items()} == bundle.training_ranges


async def test_index_says_what_this_is(client: httpx.AsyncClient, bundle: Bundle) -> None:
    """The root names service, version, bundle and routes."""
    index = (await client.get("/")).json()
    assert index["version"] == VERSION
    assert index["bundle"] == bundle.manifest.version


async def test_documentation_is_served_without_any_cdn(client: httpx.AsyncClient) -> None:
    """Swagger UI and all it loads come from this very service."""
    page = await client.get("/docs")
    assert page.status_code == 200
    sources = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert any("swagger-ui" in source for source in sources)
    for source in sources:
        assert source.startswith("/")
        assert (await client.get(source)).status_code == 200


async def test_openapi_describes_the_direct_routes_fully(client: httpx.AsyncClient) -> None:
    """A route served without the framework's detours is documented like any other."""
    paths = (await client.get("/openapi.json")).json()["paths"]
    operation = paths["/predict"]["post"]
    body = operation["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["properties"]) == set(LoanApplication.model_fields)
    answer = operation["responses"]["200"]["content"]["application/json"]["schema"]
    assert answer["$ref"].endswith("/Decision")
    assert list(operation["responses"]["400"]["content"]) == ["application/problem+json"]
    [parameter, header] = paths["/predict/{model}"]["post"]["parameters"]
    assert parameter["name"] == "model"
    assert (header["in"], header["name"]) == ("header", "Idempotency-Key")
    assert operation["parameters"] == [header]
    for status in ("409", "410", "422"):
        assert list(operation["responses"][status]["content"]) == ["application/problem+json"]


async def test_metrics_count_requests_and_hand_over(client: httpx.AsyncClient) -> None:
    """Operators see what was asked, how long it took and what became of it."""
    await client.post("/predict", json=EXAMPLE)
    await client.post("/predict/random_forest", json=EXAMPLE)
    text = (await client.get("/metrics")).text
    count = 'http_request_duration_seconds_count{method="POST",route="%s",status="200"} 1.0'
    assert count % "/predict" in text
    assert count % "/predict/{model}" in text
    assert "\npublish_decisions_total 2.0\n" in text
    assert "\npublish_refused_decisions_total 0.0\n" in text
    assert "\nrate_limit_degraded 0.0\n" in text
