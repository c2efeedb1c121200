"""How every page looks: to axe, on a telephone, in the dark, and how soon."""

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from loan_predictor_client import Filters
from services.scoring.manifest import BUNDLE_ROOT, read_current_version
from tests.browser.look import Shown, assert_accessible, fill_in, overflows
from tests.pictures import sign, signed_bundle

_READY = {
    "/": "form[aria-label=Application]",
    "/history": "table.lp-rows tbody tr",
    "/statistics": 'dd[data-value="total"]',
    "/models": '[data-value="reason"]',
    f"/models/{read_current_version(BUNDLE_ROOT)}": ".lp-document table",
    "/monitoring": '[data-region="monitoring"] .pic-findings',
    "/rollout": '[data-region="rollout"] .lp-card',
    "/rollout/what-if": "form[aria-label='What if']",
    "/batch": "input[type=file]",
    "/outcomes": "input[type=file]",
    "/login": "input[type=password]",
}
_PAINTED = "performance.getEntriesByName('first-contentful-paint')"
_MAX_SCREENSHOT_BYTES = 100_000


def _open(page: Page, path: str) -> None:
    page.goto(path)
    expect(page.locator(_READY[path.partition("?")[0]]).first).to_be_visible()


def _decide(page: Page, button: str = "Decide") -> None:
    page.get_by_role("button", name=button, exact=True).click()
    expect(page.locator('[data-region="result"] [data-value]').first).to_be_visible()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("path", list(_READY))
def test_axe_finds_nothing(
    open_context: Callable[..., BrowserContext], shown: Shown, path: str, dark: bool
) -> None:
    """On each page as it is, with whatever it opens, in both themes and widths."""
    for width in (1440, 360):
        page = open_context(base_url=shown.url, width=width, dark=dark).new_page()
        _open(page, path)
        page.evaluate("document.querySelectorAll('details').forEach((one) => one.open = true)")
        assert_accessible(page)
        assert not overflows(page), f"{path} is wider than {width} px"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_nothing_in_what_decide_answers(
    open_context: Callable[..., BrowserContext], shown: Shown, dark: bool
) -> None:
    """A refusal with warnings, all models, faults, one record in full, and its papers."""
    page = open_context(base_url=shown.url, width=360, dark=dark).new_page()
    _open(page, "/")
    fill_in(page)
    page.locator("#ApplicantIncome").fill("700")
    page.locator("#LoanAmount").fill("")
    page.locator("#Credit_History").select_option("0")
    _decide(page)
    expect(page.locator('[data-value="contributions"]')).to_be_visible()
    assert_accessible(page)
    assert not overflows(page)
    _decide(page, "Ask all models")
    assert_accessible(page)
    page.locator("#ApplicantIncome").fill("x")
    page.get_by_role("button", name="Decide", exact=True).click()
    expect(page.locator("[aria-invalid=true]")).to_be_visible()
    assert_accessible(page)
    newest = shown.api.history(Filters(prediction="Rejected"), limit=1).items[0]
    page.goto(f"/history/{newest.prediction_id}")
    expect(page.locator('[data-value="prediction"]')).to_be_visible()
    assert_accessible(page)
    assert not overflows(page)
    for paper in ("Dossier", "Letter to the applicant"):
        page.get_by_role("link", name=paper).click()
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        assert_accessible(page)
        assert not overflows(page)
        page.get_by_role("link", name="Back to the record").click()
        expect(page.locator('[data-value="prediction"]')).to_be_visible()


@pytest.mark.parametrize(
    ("name", "path", "width", "dark"),
    [
        ("decide", "/", 1440, False),
        ("decide-phone", "/", 360, False),
        ("history", "/history?had_warnings=true&max_confidence=90", 1440, False),
        ("statistics", "/statistics", 1440, True),
        ("statistics-phone", "/statistics", 360, True),
        ("models", "/models", 1440, False),
        ("monitoring", "/monitoring", 1440, False),
        ("record", "/history?prediction=Rejected&model=gradient_boosting", 1440, False),
        ("dossier", "/history?prediction=Rejected&model=gradient_boosting", 1440, False),
    ],
)
def test_screenshot_is_taken(
    open_context: Callable[..., BrowserContext],
    shown: Shown,
    screenshots: Path,
    name: str,
    path: str,
    width: int,
    dark: bool,
) -> None:
    """Those that the README shows."""
    height = 900 if width > 360 else 780
    page = open_context(base_url=shown.url, width=width, height=height, dark=dark).new_page()
    _open(page, path)
    if path == "/":
        fill_in(page)
        page.locator("#ApplicantIncome").fill("3,000")
        page.locator("#LoanAmount").fill("400")
        page.locator("#Credit_History").select_option("not known")
        _decide(page)
    if name in ("record", "dossier"):
        page.locator("tbody a").first.click()
        expect(page.locator('[data-value="replay"]')).to_be_visible()
    if name == "dossier":
        page.get_by_role("link", name="Dossier").click()
        expect(page.get_by_role("heading", name="Checksums")).to_be_visible()
    page.wait_for_function("document.fonts.status === 'loaded'")
    if width > 360:
        page.evaluate("scrollTo(0, 0)")
    if name == "monitoring":
        page.locator(".pic").first.evaluate("(one) => one.scrollIntoView({block: 'center'})")
    picture = screenshots / f"dashboard-{name}.png"
    page.screenshot(path=picture, animations="disabled")
    sign(picture, bundle=shown.api.models().version)
    assert picture.stat().st_size < _MAX_SCREENSHOT_BYTES
    assert signed_bundle(picture) == shown.api.models().version


def test_first_paint_is_measured(page: Page, capsys: pytest.CaptureFixture[str]) -> None:
    """And printed; how fast this machine is today is no reason to fail."""
    painted_ms: dict[str, float] = {}
    for path in ("/", *[path for path in _READY if path != "/"]):
        for _ in range(2):
            _open(page, path)
            page.wait_for_function(f"{_PAINTED}.length > 0")
            painted_ms[path] = page.evaluate(f"{_PAINTED}[0].startTime")
    with capsys.disabled():
        shown = ", ".join(f"{path} {ms:.0f} ms" for path, ms in painted_ms.items())
        print(f"\nfirst contentful paint after warm-up: {shown}")
    assert all(ms > 0 for ms in painted_ms.values())
