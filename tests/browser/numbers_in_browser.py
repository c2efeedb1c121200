"""The pages with numbers: statistics and models."""

from playwright.sync_api import Page, expect

from loan_predictor_client import Cohorts
from loan_predictor_client.models import Summary
from shared.contract.application import EXAMPLE
from shared.pictures.formats import count, percent
from tests.browser.look import Shown, assert_accessible, number


def _assert_group(page: Page, group: str, summary: Summary) -> None:
    row = page.locator(f'[data-group="{group}"]').first
    assert number(row, "rate") == percent(summary.approval_rate), group
    assert number(row, "total") == count(summary.total_predictions), group


def test_every_number_of_the_statistics_is_the_apis(page: Page, shown: Shown) -> None:
    """Totals, averages, groups, days and the histogram."""
    page.goto("/statistics")
    expect(page.locator('[data-value="total"]').first).to_be_visible()
    statistics, analytics = shown.api.statistics(), shown.api.analytics()
    expect(page.locator('dd[data-value="total"]')).to_have_text(count(statistics.total_predictions))
    recent = analytics.last_24_hours
    for name, expected in (
        ("approved", count(statistics.approved)),
        ("rejected", count(statistics.rejected)),
        ("rate", percent(statistics.approval_rate)),
        ("confidence", percent(statistics.average_confidence)),
        ("recent-total", count(recent.total_predictions)),
        ("recent-rate", percent(recent.approval_rate)),
        ("recent-confidence", percent(recent.average_confidence)),
    ):
        shown_number = page.locator(f':is(dd, p b)[data-value="{name}"]')
        assert shown_number.inner_text() == expected
    for groups in (
        statistics.by_model,
        analytics.by_property_area,
        analytics.by_credit_history,
    ):
        for name, summary in groups.items():
            if name != "missing":
                _assert_group(page, name, summary)
    drawn = {
        bucket.get_attribute("data-bucket"): bucket.inner_text()
        for bucket in page.locator("[data-bucket]").all()
    }
    for bucket in analytics.confidence_histogram:
        shown_count = drawn.get(f"{bucket.at_least:.2f}", "0")
        assert shown_count == count(bucket.predictions)
    page.get_by_text("Numbers by day").click()
    days = page.locator("details[open] tbody tr").all()
    assert len(days) == len(analytics.daily_trend)
    for row, day in zip(days, reversed(analytics.daily_trend), strict=True):
        assert row.locator("td").all_inner_texts() == [
            count(day.total_predictions),
            count(day.approved),
            percent(day.approval_rate),
        ]


def test_statistics_keep_themselves_up_to_date(page: Page, shown: Shown) -> None:
    """A decision made elsewhere appears by itself."""
    page.goto("/statistics")
    before = shown.api.statistics().total_predictions
    expect(page.locator('dd[data-value="total"]')).to_have_text(count(before))
    shown.api.predict(EXAMPLE)
    expect(page.locator('dd[data-value="total"]')).to_have_text(count(before + 1))


def test_models_are_compared_with_the_apis_numbers_and_verdict(page: Page, shown: Shown) -> None:
    """Intervals, baselines, what cannot be told apart, both pictures, and the model card."""
    page.goto("/models")
    compared = shown.api.compare()
    expect(page.locator('[data-value="reason"]')).to_have_text(compared.champion_reason)
    assert "cannot be told apart" in compared.champion_reason
    accuracies = page.locator('[data-value="accuracy"]').all_inner_texts()
    measured = [model.cross_validation for model in compared.models.values()]
    measured += [baseline.cross_validation for baseline in compared.baselines.values()]
    assert accuracies == [percent(found.accuracy.mean) for found in measured]
    table = page.get_by_role("table", name="Means in cross-validation with 95 % intervals")
    rows = table.locator("tbody tr").all()
    for row, found in zip(rows, measured, strict=True):
        for cell, interval in zip(
            row.locator("td").all_inner_texts(),
            (found.accuracy, found.balanced_accuracy, found.auc, found.brier, found.log_loss),
            strict=True,
        ):
            low_to_high = f"{interval.low:.3f}\u2013{interval.high:.3f}"
            assert cell.split() == [f"{interval.mean:.3f}", low_to_high]
    for model in compared.models.values():
        for sentence in model.verdict:
            expect(page.locator('[data-region="models"]')).to_contain_text(sentence)
    for name in ("roc.png", "calibration.png"):
        image = page.locator(f'figure img[src$="{name}"]')
        image.scroll_into_view_if_needed()
        expect(image).to_have_js_property("complete", value=True)
        assert image.evaluate("(image) => image.naturalWidth") > 100
        served = page.request.get(f"/pictures/{name}").body()
        assert served == shown.api.picture(name)
    page.get_by_text("The model card").click()
    expect(page.get_by_role("heading", name="Accuracy in cross-validation")).to_be_visible()
    assert page.request.get("/pictures/none.png").status == 404


def test_monitoring_draws_what_the_apis_report(page: Page, shown: Shown) -> None:
    """Each sentence, a mark for each month and group, and the numbers as tables."""
    page.goto("/monitoring")
    region = page.locator('[data-region="monitoring"]')
    expect(region.locator(".pic-findings").first).to_be_visible()
    model = max(
        shown.api.live_performance().models,
        key=lambda each: each.approved.decisions + each.refused.decisions,
    )
    cohorts = Cohorts(model=model.model, bundle=model.bundle)
    vintages = shown.api.vintages(cohorts)
    for found in (*model.conclusions, *(trend.conclusion for trend in vintages.trends)):
        expect(region).to_contain_text(found.text)
    months = shown.api.live_performance(cohorts, by="month").models
    measured = [each.figures for each in months if each.figures]
    assert len(measured) > 3
    accuracy = region.get_by_role("img", name="Accuracy by month")
    expect(accuracy.locator("circle")).to_have_count(len(measured))
    [drift] = shown.api.drift(cohorts).models
    expect(region.locator(".pic-many > div")).to_have_count(len(drift.inputs) + bool(drift.score))
    page.get_by_text("Numbers").first.click()
    rows = region.locator("details[open] tbody tr")
    expect(rows).to_have_count(len(vintages.vintages))
    for row, vintage in zip(rows.all(), vintages.vintages, strict=True):
        assert row.locator("td").first.inner_text() == count(vintage.approved)
    with page.expect_navigation():
        page.get_by_role("link", name="Report to print").click()
    expect(page.get_by_role("heading", name="Monitoring report")).to_be_visible()
    assert page.locator("script").count() == 0
    assert_accessible(page)
