"""The page on which people decide."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from playwright.sync_api import BrowserContext, Page, expect

from loan_predictor_client.models import Record
from shared.pictures.formats import field_title, model_title, percent, with_titles
from tests.browser.look import Shown, fill_in, number, shown_id
from tests.waiting import until


def _record(shown: Shown, page: Page) -> Record:
    wanted = shown_id(page)
    found: list[Record] = []

    def is_there() -> bool:
        found[:] = [r for r in shown.api.history(limit=100).items if str(r.prediction_id) == wanted]
        return bool(found)

    until(is_there)
    return found[0]


@contextmanager
def _inference_paused(shown: Shown) -> Iterator[None]:
    shown.system.inference.pause()
    try:
        yield
    finally:
        shown.system.inference.resume()


def _decide(page: Page) -> None:
    page.get_by_role("button", name="Decide", exact=True).click()


def test_decision_shows_what_was_answered_and_recorded(page: Page, shown: Shown) -> None:
    """Decision, confidence, both probabilities, model, warnings and what was filled in."""
    page.goto("/")
    fill_in(page)
    page.locator("#ApplicantIncome").fill("700")
    page.locator("#LoanAmount").fill("")
    page.locator("#Property_Area").select_option("")
    page.locator("#Loan_ID").fill("LP-SHOWN")
    _decide(page)
    result = page.locator('[data-region="result"]')
    expect(result.locator('[data-value="prediction"]')).to_be_visible()
    record = _record(shown, page)
    assert record.input_data.Loan_ID == "LP-SHOWN"
    assert number(result, "prediction") == record.prediction
    assert number(result, "confidence") == percent(record.confidence)
    assert number(result, "approved") == percent(record.probability.approved)
    assert number(result, "rejected") == percent(record.probability.rejected)
    assert set(record.imputed) == {"LoanAmount", "Property_Area"}
    for said in (
        *(field_title(name) for name in record.imputed),
        *map(with_titles, record.warnings),
        model_title(record.model_info.name),
        percent(record.model_info.accuracy),
        record.model_info.version,
    ):
        expect(result).to_contain_text(said)
    assert page.locator("#ApplicantIncome").input_value() == "700"


def test_double_click_on_a_slow_day_decides_once(page: Page, shown: Shown) -> None:
    """The form is shown as busy until it is answered, and keeps what was typed meanwhile."""
    page.goto("/")
    fill_in(page)
    page.locator("#Loan_ID").fill("LP-TWICE")
    form = page.locator('[data-region="application"]')
    with _inference_paused(shown):
        page.get_by_role("button", name="Decide", exact=True).dblclick()
        expect(form).to_have_attribute("aria-busy", "true")
        page.locator("#Loan_ID").fill("LP-NEXT")
        _decide(page)
    expect(page.locator('[data-region="result"] [data-value="prediction"]')).to_be_visible()
    expect(form).not_to_have_attribute("aria-busy", "true")
    _record(shown, page)
    decided = [r.input_data.Loan_ID for r in shown.api.history(limit=100).items]
    assert (decided.count("LP-TWICE"), decided.count("LP-NEXT")) == (1, 0)
    assert page.locator("#Loan_ID").input_value() == "LP-NEXT"
    expect(page.get_by_text("The form was changed since")).to_be_visible()


def test_who_presses_again_decides_once_as_long_as_the_application_is_the_same(
    page: Page, shown: Shown
) -> None:
    """After an answer as well as after none; another application is another decision."""
    page.goto("/")
    fill_in(page)
    page.locator("#Loan_ID").fill("LP-AGAIN")
    result = page.locator('[data-region="result"]')
    with _inference_paused(shown):
        _decide(page)
        expect(result.get_by_text("The service does not answer at the moment")).to_be_visible()
    _decide(page)
    expect(result.locator('[data-value="prediction"]')).to_be_visible()
    expect(result.get_by_text("Decided already")).to_have_count(0)
    once = shown_id(page)
    _decide(page)
    expect(result.get_by_text("Nothing is recorded twice")).to_be_visible()
    assert shown_id(page) == once
    page.locator("#ApplicantIncome").fill("6100")
    page.locator("#ApplicantIncome").blur()
    expect(page.get_by_text("The form was changed since")).to_be_visible()
    _decide(page)
    expect(page.get_by_text("The form was changed since")).to_have_count(0)
    expect(result.get_by_text("Decided already")).to_have_count(0)
    expect(result.locator('[data-value="prediction"]')).to_be_visible()
    _record(shown, page)
    decided = [r.input_data.Loan_ID for r in shown.api.history(limit=100).items]
    assert decided.count("LP-AGAIN") == 2


def test_faults_stand_beside_their_fields_and_nothing_typed_is_lost(page: Page) -> None:
    """The first is focused, each is tied to its field, and correcting them is enough."""
    page.goto("/")
    fill_in(page)
    page.locator("#ApplicantIncome").fill("-3")
    page.locator("#Loan_Amount_Term").fill("soon")
    page.locator("#Loan_ID").fill("LP 1")
    _decide(page)
    expect(page.locator("[aria-invalid=true]")).to_have_count(3)
    expect(page.locator("#Loan_ID")).to_be_focused()
    page.get_by_role("link", name="Time to repay").click()
    expect(page.locator("#Loan_Amount_Term")).to_be_focused()
    for name, message in (
        ("ApplicantIncome", "must be at least 0"),
        ("Loan_Amount_Term", "must be a number in plain decimals, such as 1508.5"),
        ("Loan_ID", "must be visible characters, without spaces"),
    ):
        described = page.locator(f"#{name}").get_attribute("aria-describedby") or ""
        assert f"{name}-fault" in described
        assert page.locator(f"#{name}-fault").inner_text() == message
    assert page.locator("#Loan_Amount_Term").input_value() == "soon"
    page.locator("#ApplicantIncome").fill("4,5")
    _decide(page)
    expect(page.locator("#ApplicantIncome-fault")).to_have_text(
        "must be a number in plain decimals, such as 1508.5"
    )
    for name, value in (("ApplicantIncome", "4583"), ("Loan_Amount_Term", "360"), ("Loan_ID", "")):
        page.locator(f"#{name}").fill(value)
    _decide(page)
    expect(page.locator('[data-value="prediction"]')).to_be_visible()
    expect(page.locator("[aria-invalid=true]")).to_have_count(0)


def test_all_models_side_by_side_are_those_of_the_api(page: Page, shown: Shown) -> None:
    """Each model's numbers, and what they say together; nothing is recorded."""
    before = shown.api.statistics().total_predictions
    page.goto("/")
    fill_in(page)
    page.locator("#ApplicantIncome").fill("2500")
    page.locator("#Credit_History").select_option("not known")
    page.get_by_role("button", name="Ask all models").click()
    result = page.locator('[data-region="result"]')
    expect(result.locator('[data-value="consensus"]')).to_be_visible()
    application = page.locator("form[aria-label=Application]").evaluate(
        "(form) => Object.fromEntries([...new FormData(form)].filter(([_, value]) => value))"
    )
    assert application.pop("Credit_History") == "not known"
    asked = shown.api.benchmark(application)
    assert number(result, "consensus") == asked.consensus.prediction
    assert number(result, "agree") == str(asked.consensus.models_agree)
    for name, answer in asked.results.items():
        model = result.locator(f'[data-model="{name}"]')
        expect(model).to_contain_text(answer.prediction)
        assert number(model, "approved") == percent(answer.probability.approved)
        assert number(model, "rejected") == percent(answer.probability.rejected)
    assert shown.api.statistics().total_predictions == before


def test_deciding_needs_no_mouse(page: Page) -> None:
    """By Tab, arrows and Enter alone, past the skip link."""
    page.goto("/")
    expect(page.locator("#ApplicantIncome")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.locator("#Loan_ID")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.locator("#ApplicantIncome")).to_be_focused()
    page.keyboard.type("5,200")
    for _ in range(4):
        page.keyboard.press("Tab")
    expect(page.locator("#Credit_History")).to_be_focused()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    page.locator("#Loan_ID").focus()
    page.keyboard.press("Enter")
    expect(page.locator('[data-value="prediction"]')).to_be_visible()


def test_the_visitors_choice_of_dark_stays_and_nothing_else_is_kept(
    open_context: Callable[..., BrowserContext], shown: Shown
) -> None:
    """Neither the key nor a decision reaches the browser's storage."""
    context = open_context(base_url=shown.url)
    page = context.new_page()
    page.goto("/")
    fill_in(page)
    _decide(page)
    expect(page.locator('[data-value="prediction"]')).to_be_visible()
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button", name="Switch between light and dark").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    page.goto("/history")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    kept = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}])")
    assert '"theme":"dark"' in kept
    assert shown.system.api_key not in kept + page.content()
    assert "Approved" not in kept
    assert context.cookies() == []
