"""The page that takes a file."""

import csv
import io
import random
from pathlib import Path

from playwright.sync_api import Page, expect

from loan_predictor_client import Filters
from tests.applications import random_application
from tests.browser.look import Shown
from tests.waiting import until


def test_file_is_checked_by_line_decided_and_downloaded(
    page: Page, shown: Shown, tmp_path: Path
) -> None:
    """Bad rows are named and left out; each good one is recorded once, as downloaded."""
    rng = random.Random(8)  # noqa: S311 - test data, not a secret
    rows = [random_application(rng) | {"Loan_ID": f"BATCH{n}"} for n in range(40)]
    rows[3]["ApplicantIncome"] = 0
    rows[7]["Property_Area"] = "Moon"
    text = io.StringIO()
    writer = csv.DictWriter(text, [*rows[0], "Loan_Status"])
    writer.writeheader()
    writer.writerows([row | {"Loan_Status": "Y"} for row in rows])
    text.write("too,few\n")
    page.goto("/batch")
    page.get_by_label("CSV file of applications").set_input_files(
        {"name": "new.csv", "mimeType": "text/csv", "buffer": text.getvalue().encode()}
    )
    page.get_by_role("button", name="Check the file").click()
    faults = page.locator("table.lp-rows tbody tr")
    expect(faults).to_have_count(3)
    assert [row.inner_text().split("\t") for row in faults.all()] == [
        ["5", "ApplicantIncome must be greater than 0"],
        ["9", "Property_Area must be one of: Urban, Semiurban, Rural"],
        ["42", "has 2 cells, the header has 13"],
    ]
    page.get_by_role("button", name="Decide 38 applications").click()
    expect(page.locator('[data-value="decided"]')).to_have_text("38")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download decisions").click()
    download.value.save_as(tmp_path / "decisions.csv")
    with (tmp_path / "decisions.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [row["line"] for row in found] == [str(line) for line in range(2, 43)]
    assert sum(row["fault"] != "" for row in found) == 3
    decided = [row for row in found if not row["fault"]]
    approved = sum(row["prediction"] == "Approved" for row in decided)
    expect(page.locator('[data-value="approved"]')).to_have_text(str(approved))
    for row in decided[::12]:
        filters = Filters(loan_id=row["Loan_ID"])
        until(lambda: len(shown.api.history(filters).items) == 1)  # noqa: B023 - called at once
        [record] = shown.api.history(filters).items
        assert str(record.prediction_id) == row["prediction_id"]
        assert record.prediction == row["prediction"]
        assert record.confidence == float(row["confidence"])


def test_file_that_cannot_be_used_is_said_so(page: Page) -> None:
    """With the nearest column, and the form to try again."""
    page.goto("/batch")
    page.get_by_label("CSV file of applications").set_input_files(
        {"name": "x.csv", "mimeType": "text/csv", "buffer": b"ApplicantIncom\n5000\n"}
    )
    page.get_by_role("button", name="Check the file").click()
    expect(page.get_by_text("the nearest one is ApplicantIncome")).to_be_visible()
    expect(page.get_by_role("button", name="Check the file")).to_be_visible()
