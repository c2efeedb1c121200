"""What people see while a service is away, and after it."""

from playwright.sync_api import Page, expect

from tests.browser.look import Shown, fill_in


def test_decide_says_that_inference_is_away_and_works_again_by_itself(
    page: Page, shown: Shown
) -> None:
    """What was typed stays, and no reload is needed."""
    page.goto("/")
    fill_in(page)
    page.locator("#ApplicantIncome").fill("6100")
    shown.system.inference.kill()
    expect(page.get_by_text("the inference service does not answer")).to_be_visible()
    page.get_by_role("button", name="Decide", exact=True).click()
    expect(page.get_by_text("The service does not answer at the moment")).to_be_visible()
    assert page.locator("#ApplicantIncome").input_value() == "6100"
    shown.system.inference.start()
    expect(page.get_by_text("Part of the system is away")).to_have_count(0)
    page.get_by_role("button", name="Decide", exact=True).click()
    expect(page.locator('[data-value="prediction"]')).to_be_visible()


def test_statistics_keep_the_last_numbers_and_recover_by_themselves(
    page: Page, shown: Shown
) -> None:
    """A page opened during the outage fills itself, too."""
    page.goto("/statistics")
    expect(page.locator('dd[data-value="total"]')).to_be_visible()
    shown.system.history.kill()
    expect(page.get_by_text("The numbers below are the last ones known.")).to_be_visible()
    expect(page.locator('dd[data-value="total"]')).to_be_visible()
    other = page.context.new_page()
    other.goto("/history")
    expect(other.get_by_text("this page keeps trying and recovers by itself")).to_be_visible()
    shown.system.history.start()
    expect(other.locator("table.lp-rows tbody tr").first).to_be_visible()
    expect(page.get_by_text("The numbers below are the last ones known.")).to_have_count(0)
