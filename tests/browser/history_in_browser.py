"""The pages that show what was decided."""

import csv
from pathlib import Path

from playwright.sync_api import Page, expect

from loan_predictor_client import Filters
from loan_predictor_client.models import Record
from services.dashboard.formatting import amount
from shared.pictures.formats import moment, percent, with_titles
from tests.browser.look import Shown, number


def _rows(page: Page) -> list[list[str]]:
    expect(page.locator("table.lp-rows tbody tr").first).to_be_visible()
    rows: list[list[str]] = page.locator("table.lp-rows tbody tr").evaluate_all(
        "(rows) => rows.map((row) => [...row.cells].map((cell) => cell.innerText.trim()))"
    )
    return rows


def _expected(records: list[Record]) -> list[tuple[str, str, str, str]]:
    return [
        (
            moment(record.timestamp),
            record.prediction,
            percent(record.confidence),
            amount(record.input_data.LoanAmount, "thousand"),
        )
        for record in records
    ]


def _shown(page: Page) -> list[tuple[str, str, str, str]]:
    return [(row[0], row[1], row[2], row[5]) for row in _rows(page)]


def test_pages_follow_each_other_as_the_api_gives_them(page: Page, shown: Shown) -> None:
    """Row by row, to older ones and back to the newest."""
    first = shown.api.history(limit=20)
    second = shown.api.history(limit=20, cursor=first.next_cursor)
    page.goto("/history")
    assert _shown(page) == _expected(first.items)
    page.get_by_role("link", name="Older").click()
    expect(page.get_by_role("link", name="Newest")).to_be_visible()
    assert _shown(page) == _expected(second.items)
    page.get_by_role("link", name="Newest").click()
    expect(page.get_by_role("link", name="Newest")).to_have_count(0)
    assert _shown(page) == _expected(first.items)


def test_filters_narrow_table_and_download_alike(page: Page, shown: Shown, tmp_path: Path) -> None:
    """All of them at once, kept in the address; the download is the API's export."""
    oldest = list(shown.api.records())[-1]
    since = oldest.timestamp.replace(minute=0, second=0, microsecond=0)
    filters = Filters(
        prediction="Approved",
        model="gradient_boosting",
        since=since,
        until=since.replace(year=since.year + 1),
        min_confidence=0.7,
        max_confidence=0.85,
        had_warnings=False,
    )
    page.goto("/history")
    page.get_by_text("Filters").click()
    page.get_by_label("Decision", exact=True).select_option("Approved")
    page.get_by_label("Model").select_option("gradient_boosting")
    page.locator("#since").fill(f"{since:%Y-%m-%dT%H:%M}")
    page.locator("#until").fill(f"{since.year + 1}-{since:%m-%dT%H:%M}")
    page.locator("#min_confidence").fill("70")
    page.locator("#max_confidence").fill("85")
    page.get_by_label("Warnings").select_option("false")
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_text("Filters (7 in use)")).to_be_visible()
    expected = shown.api.history(filters, limit=20).items
    assert expected
    assert _shown(page) == _expected(expected)
    with page.expect_download() as download:
        page.get_by_role("link", name="Download as CSV").click()
    download.value.save_as(tmp_path / "history.csv")
    with (tmp_path / "history.csv").open(newline="") as file:
        downloaded = [row["id"] for row in csv.DictReader(file)]
    assert downloaded == [str(record.prediction_id) for record in shown.api.records(filters)]


def test_unusable_filter_is_named_at_its_field(page: Page) -> None:
    """In the API's words."""
    page.goto("/history?min_confidence=120")
    expect(page.locator("#min_confidence-fault")).to_contain_text("must be at most 1")
    page.goto("/history?since=yesterday&loan_id=nothing-like-it")
    expect(page.locator("#since-fault")).to_have_text("cannot be read")
    page.goto("/history?loan_id=nothing-like-it")
    expect(page.get_by_text("Nothing matches")).to_be_visible()


def test_record_has_everything_that_the_api_has(page: Page, shown: Shown) -> None:
    """The application, the answer and the caller."""
    page.goto("/history")
    page.locator("tbody a").nth(2).click()
    expect(page.get_by_role("heading", name="One decision")).to_be_visible()
    expect(page.locator('[data-value="prediction"]')).to_be_visible()
    record = shown.api.record(page.url.rpartition("/")[2])
    assert number(page, "prediction") == record.prediction
    assert number(page, "confidence") == percent(record.confidence)
    assert number(page, "approved") == percent(record.probability.approved)
    main = page.locator('[data-region="record"]')
    for said in (
        moment(record.timestamp),
        moment(record.recorded_at),
        record.client,
        record.request_id,
        str(record.prediction_id),
        amount(record.input_data.ApplicantIncome, "per month"),
        amount(record.input_data.LoanAmount, "thousand"),
        *map(with_titles, record.warnings),
    ):
        expect(main).to_contain_text(said)


def test_missing_record_is_reported(page: Page) -> None:
    """In the API's words, and the page does not try again."""
    page.goto("/history/0198c6d0-9711-7b92-8f26-d0c4a1b35e68")
    expect(page.get_by_text("There is nothing here")).to_be_visible()
