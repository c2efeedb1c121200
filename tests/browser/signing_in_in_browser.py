"""Signing in and out, where a password is configured."""

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from shared.access.passwords import password_entry
from tests import keys
from tests.browser.look import Shown
from tests.harness import running_dashboard


@pytest.fixture(scope="module")
def guarded_url(shown: Shown) -> Iterator[str]:
    """The same system's dashboard with a password."""
    entry = password_entry("correct horse")
    with running_dashboard(
        shown.system, logs=shown.logs / "guarded", DASHBOARD_PASSWORD=entry
    ) as url:
        yield url


@pytest.fixture
def context(open_context: Callable[..., BrowserContext], guarded_url: str) -> BrowserContext:
    """A window of the guarded dashboard."""
    return open_context(base_url=guarded_url)


def _sign_in(page: Page, secret: str) -> None:
    page.get_by_label("Password or API key").fill(secret)
    page.keyboard.press("Enter")


def test_password_leads_to_the_page_that_was_wanted_and_signing_out_ends_it(
    context: BrowserContext,
) -> None:
    """Also in a page that was open before; scripts cannot read the cookie."""
    page = context.new_page()
    page.goto("/statistics")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    _sign_in(page, "wrong horse")
    expect(page.get_by_role("alert")).to_have_text("This password or key is not valid here.")
    _sign_in(page, "correct horse")
    expect(page.get_by_role("heading", name="Statistics")).to_be_visible()
    expect(page.locator('dd[data-value="total"]')).to_be_visible()
    [cookie] = context.cookies()
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Lax"
    other = context.new_page()
    other.goto("/")
    other.get_by_role("button", name="Sign out").click()
    expect(other.get_by_role("heading", name="Sign in")).to_be_visible()
    expect(page.get_by_role("heading", name="Signed out")).to_be_visible()
    other.goto("/history")
    expect(other.get_by_role("heading", name="Sign in")).to_be_visible()


def test_api_key_of_ones_own_opens_and_stays_on_the_server(context: BrowserContext) -> None:
    """It is in no page, no cookie and no storage."""
    page = context.new_page()
    page.goto("/login")
    _sign_in(page, keys.SECRET)
    expect(page.get_by_role("heading", name="Decide")).to_be_visible()
    kept = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}])")
    assert keys.SECRET not in kept + page.content() + str(context.cookies())
