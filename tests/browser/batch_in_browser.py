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
    """Bad rows are named and left out; each good one is recorded once, as downloaded.

    An unusable file chosen before does no harm.
    """
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
    for name, content in (("empty.csv", b""), ("new.csv", text.getvalue().encode())):
        page.get_by_label("File of applications").set_input_files(
            {"name": name, "mimeType": "text/csv", "buffer": content}
        )
        page.get_by_role("button", name="Check the file").click()
        refused = page.get_by_text("The file cannot be used")
        expect(refused).to_have_count(1 if name == "empty.csv" else 0)
    faults = page.locator("section", has_text="Rows with faults").locator("tbody tr")
    expect(faults).to_have_count(3)
    assert [row.inner_text().split("\t") for row in faults.all()] == [
        ["5", "ApplicantIncome must be greater than 0 where CoapplicantIncome is 0 or missing"],
        ["9", "Property_Area must be one of: Urban, Semiurban, Rural"],
        ["42", "has 2 cells, the header has 13"],
    ]
    page.get_by_role("button", name="Decide 38 applications").click()
    expect(page.get_by_role("link", name="Download decisions")).to_be_visible()
    expect(page.locator('[data-value="decided"]')).to_have_text("38")
    expect(faults).to_have_count(3)
    with page.expect_download() as download:
        page.get_by_role("link", name="Download decisions").click()
    download.value.save_as(tmp_path / "decisions.csv")
    with (tmp_path / "decisions.csv").open(newline="") as file:
        decided = list(csv.DictReader(file))
    assert [row["line"] for row in decided] == [
        str(line) for line in range(2, 42) if line not in (5, 9)
    ]
    approved = sum(row["prediction"] == "Approved" for row in decided)
    expect(page.locator('dd[data-value="approved"]')).to_have_text(str(approved))
    page.goto("/batch")
    expect(page.locator("section", has_text="Your batches").locator("tbody tr")).to_have_count(1)
    for row in decided[::12]:
        filters = Filters(loan_id=row["Loan_ID"])
        until(lambda: len(shown.api.history(filters).items) == 1)  # noqa: B023 - called at once
        [record] = shown.api.history(filters).items
        assert str(record.prediction_id) == row["prediction_id"]
        assert record.prediction == row["prediction"]
        assert record.confidence == float(row["confidence"])


def test_unusable_file_is_reported(page: Page) -> None:
    """With the nearest column, and the form to try again."""
    page.goto("/batch")
    page.get_by_label("File of applications").set_input_files(
        {"name": "x.csv", "mimeType": "text/csv", "buffer": b"ApplicantIncom\n5000\n"}
    )
    page.get_by_role("button", name="Check the file").click()
    expect(page.get_by_text("should be ApplicantIncome")).to_be_visible()
    expect(page.get_by_role("button", name="Check the file")).to_be_visible()


def test_file_of_another_lender_is_asked_about_and_read_as_chosen(page: Page, shown: Shown) -> None:
    """Full amounts, other spellings, an unknown column and a repeated Loan ID."""
    lines = ["loan id;applicant income;Loan Amount;self-employed;Credit History;Branch"]
    lines += [f"OTHER{n};$4,{n:03};{n + 100}000;{'Y' if n % 2 else 'N'};1.0;7" for n in range(20)]
    lines += ["OTHER1;$700;120000;-;;7"]
    page.goto("/batch")
    page.get_by_label("File of applications").set_input_files(
        {"name": "other.csv", "mimeType": "text/csv", "buffer": "\n".join(lines).encode()}
    )
    page.get_by_role("button", name="Check the file").click()
    questions = page.get_by_role("form", name="Questions about the file")
    expect(questions).to_contain_text("Cells are separated by semicolons")
    expect(questions).to_contain_text("- counts as a missing value, in 1 cell")
    expect(questions).to_contain_text("Branch")
    expect(questions).to_contain_text("Several rows have the same Loan ID")
    expect(questions).to_contain_text("21 of 21 are over 10,000. Are these full amounts")
    for box in questions.get_by_role("checkbox").all():
        box.check()
    page.get_by_role("button", name="Go on without these columns").click()
    expect(page.get_by_text("Worth a second look")).to_be_visible()
    page.get_by_role("button", name="Decide 21 applications").click()
    expect(page.get_by_role("link", name="Download decisions")).to_be_visible()
    expect(page.locator('[data-value="decided"]')).to_have_text("21")
    expect(page.get_by_text("Worth a second look")).to_be_visible()
    page.get_by_role("link", name="See the record").first.click()
    expect(page.locator('[data-region="record"]')).to_contain_text("100 thousand")
    until(lambda: len(shown.api.history(Filters(loan_id="OTHER1")).items) == 2)
