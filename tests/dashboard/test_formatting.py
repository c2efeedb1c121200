"""Numbers, times, inputs and addresses as people read and write them."""

from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from loan_predictor_client import (
    AccessDenied,
    Filters,
    InvalidRequest,
    Selection,
    ServiceUnreachable,
    Unavailable,
)
from loan_predictor_client.models import (
    Analytics,
    Bucket,
    ConfidenceAnalysis,
    CrossValidation,
    Day,
    Fault,
    Interval,
    Period,
    Replica,
    ShadowComparison,
    Statistics,
    Summary,
    WhatIfStatus,
)
from services.dashboard.filters import query_of
from services.dashboard.formatting import amount, exact, fault_text, in_use
from services.dashboard.inputs import (
    MUST_BE_CHOSEN,
    NOT_KNOWN,
    SECTIONS,
    by_value,
    field_text,
)
from services.dashboard.live import explain, may_recover
from services.dashboard.pages.statistics import overview
from services.dashboard.pages.what_if import state
from services.dashboard.ranges import Point, range_of, trend_of
from services.dashboard.templating import part
from shared.contract.application import FIELDS
from shared.pictures.formats import count, field_title, moment, percent, with_titles

_NONE = Summary(
    total_predictions=0, approved=0, rejected=0, approval_rate=None, average_confidence=None
)
_SOME = Summary(
    total_predictions=4, approved=3, rejected=1, approval_rate=0.75, average_confidence=0.8
)


def test_numbers_are_shortened_and_never_invented() -> None:
    """A missing value is called missing; decimals are shown where there are some."""
    assert percent(0.80143) == "80.1\u202f%"
    assert percent(1, 0) == "100\u202f%"
    assert percent(None) == "\u2013"
    assert count(1234567) == "1,234,567"
    assert amount(4583.0, "per month") == "4,583 per month"
    assert amount(128.5) == "128.5"
    assert (exact(4583.0), exact(4583.125), exact("3+")) == ("4,583", "4,583.125", "3+")
    assert amount(None, "months") == "not given"
    east = timezone(timedelta(hours=5))
    assert moment(datetime(2026, 11, 1, 3, 4, 5, tzinfo=east)) == "31 Oct 2026, 22:04:05 UTC"
    assert moment(datetime(2026, 11, 1, tzinfo=UTC)) == "1 Nov 2026, 00:00:00 UTC"


def test_inputs_are_named_and_their_values_worded_by_their_definition() -> None:
    """With the unit; what a newer service sends is shown as it is."""
    assert field_title("LoanAmount") == "Loan amount"
    assert field_text(128.0, "LoanAmount") == "128 thousand"
    assert field_text(None, "LoanAmount") == "not given"
    assert field_text(None, "CoapplicantIncome") == "none declared"
    assert (
        with_titles("LoanAmount is missing, LoanAmounts") == "Loan amount is missing, LoanAmounts"
    )
    assert with_titles("Loan_Amount_Term is missing") == "Time to repay is missing"
    assert field_text(1, "Credit_History") == "Met its guidelines"
    assert field_text("Rural", "Property_Area") == "Rural"
    assert (field_title("Zodiac"), field_text(40, "Zodiac")) == ("Zodiac", "40")
    groups = dict.fromkeys(("missing", "1", "0", "newer"), _NONE)
    assert [(value, title) for value, title, _ in by_value("Credit_History", groups)] == [
        ("0", "Did not meet its guidelines"),
        ("1", "Met its guidelines"),
        ("missing", "Not given"),
        ("newer", "newer"),
    ]


def test_every_input_is_a_field_of_the_form_by_its_definition() -> None:
    """None is named by hand: title, unit, choices and whether it has to be given."""
    fields = {field.name: field for fields in SECTIONS.values() for field in fields}
    assert set(fields) == {known.name for known in FIELDS}
    shown = part("decide", "form", sections=SECTIONS, values={}, faults=())
    for known in FIELDS:
        field = fields[known.name]
        assert f'id="{known.name}"' in shown
        must_be_chosen = known.name in MUST_BE_CHOSEN
        assert (field.label, field.required) == (known.title, known.required or must_be_chosen)
        assert field.unit == (known.unit or "")
        values = [option.value for option in field.options if option.value]
        assert values == [str(value) for value in known.allowed] + [NOT_KNOWN] * must_be_chosen


def test_address_has_filters_in_the_units_of_people() -> None:
    """Per cent for shares, UTC where no zone is named; unknown names are ignored."""
    query = query_of(
        {
            "prediction": "Rejected",
            "since": "2026-11-01T10:00",
            "until": "2026-11-02T10:00:00+05:00",
            "min_confidence": "62.5 %",
            "had_warnings": "true",
            "loan_id": " LP1 ",
            "cursor": "x",
        }
    )
    assert query.faults == ()
    assert query.filters == Filters(
        prediction="Rejected",
        since=datetime(2026, 11, 1, 10, tzinfo=UTC),
        until=datetime(2026, 11, 2, 5, tzinfo=UTC),
        min_confidence=0.625,
        had_warnings=True,
        loan_id="LP1",
    )
    assert set(query.parameters) == {
        *("prediction", "since", "until", "min_confidence", "had_warnings", "loan_id")
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prediction", "Perhaps"),
        ("since", "yesterday"),
        ("min_confidence", "half"),
        ("had_warnings", "maybe"),
    ],
)
def test_filter_that_cannot_be_read_is_a_fault_of_its_field(name: str, value: str) -> None:
    """The field keeps what was typed."""
    query = query_of({name: value})
    assert [fault.field for fault in query.faults] == [name]
    assert query.values[name] == value


def test_histogram_shows_the_buckets_in_use_and_none_without_decisions() -> None:
    """Ends without a decision are left out, gaps between are not."""
    buckets = [
        Bucket(at_least=n / 10, below=(n + 1) / 10, predictions=predictions)
        for n, predictions in enumerate((0, 0, 3, 0, 2, 0))
    ]
    shown = part("components/charts", "histogram", buckets=in_use(buckets))
    assert shown.count("data-bucket") == 3
    assert 'data-bucket="0.20">3<' in shown
    assert not in_use(buckets[:1])
    assert "data-bucket" not in part("components/charts", "histogram", buckets=())


def test_pictures_of_a_single_value_or_day_do_not_fail() -> None:
    """There is no range to scale by."""
    same = Interval(mean=0.5, low=0.5, high=0.5)
    measured = CrossValidation(
        accuracy=same, balanced_accuracy=same, auc=same, brier=same, log_loss=same
    )
    shown = part("components/charts", "intervals", measured=[("One", measured, False)])
    assert "50.0" in shown
    day = Point(0.0, "5 Nov", "5 Nov 2026", _NONE)
    assert "5 Nov" in part("components/charts", "trend", points=[day], unit="day")


def _analytics(
    *, daily_trend: list[Day] | None = None, trend: list[Period] | None = None
) -> Analytics:
    return Analytics(
        overall=_NONE,
        previous=None,
        last_24_hours=_NONE,
        daily_trend=daily_trend or [],
        trend=trend,
        confidence_analysis=ConfidenceAnalysis(
            average=None, average_approved=None, average_rejected=None, low=0, medium=0, high=0
        ),
        confidence_histogram=[Bucket(at_least=0.5, below=0.55, predictions=4)],
        by_property_area={},
        by_credit_history={},
    )


def test_statistics_without_decisions_have_no_chart() -> None:
    """A sentence says so instead."""
    analytics = _analytics()
    statistics = Statistics(**_NONE.model_dump(), by_model={}, groups=None, previous=None)
    assert "No decisions yet" in overview(statistics, analytics, range_of({}))
    assert "No such decisions" in overview(statistics, analytics, range_of({"client": "bank"}))


def test_trend_has_points_where_their_days_are_in_units_that_fit_the_range() -> None:
    """A day is named by its date and a month by its name; one period alone is a sentence."""
    days = [Day(**_SOME.model_dump(), date=date(2026, 11, day)) for day in (1, 2, 5)]
    points = trend_of(_analytics(daily_trend=days), None)
    assert [(point.place, point.label) for point in points] == [
        (0, "1 Nov"),
        (0.25, "2 Nov"),
        (1, "5 Nov"),
    ]
    chosen = {"since": "2026-01-01"}
    for until, unit in (("2026-02-01", "day"), ("2026-06-01", "week"), ("2028-01-01", "month")):
        assert range_of(chosen | {"until": until}).unit == unit
    assert range_of({"until": "2026-02-01"}).unit is None
    [month] = trend_of(
        _analytics(
            trend=[
                Period(**_SOME.model_dump(), since=date(2026, 1, 1), until=date(2026, 2, 1)),
            ]
        ),
        "month",
    )
    assert (month.label, month.name) == ("Jan 2026", "January 2026")
    shown = overview(
        Statistics(**_SOME.model_dump(), by_model={}, groups=None, previous=None),
        _analytics(daily_trend=days[:1]),
        range_of({}),
    )
    assert "A trend begins with the second" in shown
    assert "lp-trend" not in shown


def test_range_of_an_address_is_compared_with_the_days_before() -> None:
    """What cannot be read is a fault of its field, and selects nothing."""
    found = range_of({"since": "2026-11-01", "model": "random_forest", "cursor": "x"})
    assert found.selection == Selection(
        since=date(2026, 11, 1), model="random_forest", compare="previous"
    )
    assert range_of({}).selection == Selection()
    [fault] = range_of({"since": "soon"}).faults
    assert (fault.field, fault.message) == ("since", "cannot be read")


def test_failures_are_reported_by_what_can_be_done() -> None:
    """A failure that passes by itself is tried again; any other says what to do."""
    fault = Fault(field="since", message="is <odd>")
    invalid = InvalidRequest("x", status=400, code="InvalidInput", validation_errors=(fault,))
    assert "Decided since is &lt;odd&gt;" in explain(invalid)
    assert not may_recover(invalid)
    denied = AccessDenied("This needs a key.", status=403, code="Forbidden")
    assert "This needs a key." in explain(denied)
    assert not may_recover(denied)
    busy = Unavailable("Ask again.", status=503, code="StoreUnavailable")
    assert "Ask again." in explain(busy)
    assert may_recover(busy)
    assert "last ones known" in explain(ServiceUnreachable("x"), stale=True)


def test_navigation_leads_to_every_page_and_marks_the_open_one() -> None:
    """Below the path that the dashboard is served at."""
    shown = str(part("frame", "header", root="/app", here="outcomes", can_sign_out=False))
    for path in (
        "",
        "history",
        "statistics",
        "models",
        "monitoring",
        "rollout",
        "batch",
        "outcomes",
    ):
        assert f'<a href="/app/{path}"' in shown
    assert shown.count("aria-current") == 1
    assert '<a href="/app/outcomes" aria-current="page">' in shown


def test_a_replica_that_no_longer_reports_is_not_shown_among_those_that_decide() -> None:
    """It says since when it was not heard of, and not what it decides by."""
    seen_at = datetime(2026, 11, 27, 19, 30, tzinfo=UTC)
    living = Replica(
        replica="one",
        kind="inference",
        epoch=4,
        bundle="b-0000000a",
        ready=None,
        failed=None,
        failure=None,
        seen_s_ago=0.2,
        seen_at=seen_at,
        alive=True,
    )
    killed = living.model_copy(update={"alive": False, "failure": "model.onnx is altered"})
    shown = {
        name: [str(part("rollout", name, replica=each)).strip() for each in (living, killed)]
        for name in ("decides_by", "replica_state")
    }
    assert shown["decides_by"][0] == "roll-out 4"
    assert "4" not in shown["decides_by"][1]
    own = living.model_copy(update={"epoch": 0})
    assert str(part("rollout", "decides_by", replica=own)).strip() == "its own default, b-0000000a"
    assert shown["replica_state"] == ["decides", f"not heard of since {moment(seen_at)}"]


def test_a_shadow_shows_who_would_be_decided_otherwise() -> None:
    """Over all, by group, and in those bands of the probability where anything changes."""
    share = {"value": 0.25, "low": 0.2, "high": 0.3}
    same = {
        "decisions": 40,
        "agreed": share,
        "newly_approved": 0,
        "newly_approved_share": share,
        "newly_refused": 0,
        "newly_refused_share": share,
        "referred": 0,
        "referred_share": None,
        "approval_share": share,
        "approval_share_instead": share,
        "difference": share,
    }
    arm = {"bundle": "b-0000000a", "model": "random_forest"}
    comparison = ShadowComparison.model_validate(
        {
            "shadow": arm,
            "decider": arm | {"model": "gradient_boosting"},
            "shadowing": True,
            "swaps": {
                "all": same | {"newly_refused": 7},
                "bands": [
                    same | {"low": 0.45, "high": 0.5},
                    same | {"low": 0.5, "high": 0.55, "newly_refused": 7},
                ],
                "attributes": [
                    {
                        "attribute": "Married",
                        "groups": [same | {"group": "not known"}],
                        "suppressed": ["Yes"],
                    }
                ],
                "least_decisions": 30,
                "unscored": 0,
            },
        }
    )
    shown = str(part("rollout", "shadowed", comparison=comparison, method="A method."))
    assert "Shadow: Random forest of b-0000000a" in shown
    assert f"{percent(0.25)} ({percent(0.2)} to {percent(0.3)})" in shown
    assert f"{percent(0.5, 0)} to {percent(0.55, 0)}" in shown
    assert percent(0.45, 0) not in shown
    assert "Married: not known" in shown
    assert "A method." in shown


@pytest.mark.parametrize(
    ("field", "message", "shown"),
    [
        (
            "body",
            "one of arm, threshold and refer must be given",
            "One of “Scored by”, “Approved from” and “Referred from” must be given",
        ),
        (
            "query",
            "until is the month after: for May alone, since=2026-05",
            "“Decided before” is the month after: for May alone, “Decided since” 2026-05",
        ),
        ("prediction_id", "must be a UUID", "The number of the decision must be a UUID"),
        ("arm.bundle", "is not registered here", "Scored by is not registered here"),
        ("body", "must be a JSON object", "body must be a JSON object"),
        ("LoanAmount", "must be a number", "LoanAmount must be a number"),
    ],
)
def test_a_fault_names_fields_as_their_form_does(field: str, message: str, shown: str) -> None:
    assert fault_text(Fault(field=field, message=message)) == shown


def test_a_what_if_says_that_its_period_is_empty_or_that_no_outcome_is_known() -> None:
    counts = dict.fromkeys(("decisions", "newly_approved", "newly_refused", "referred"), 0)
    shares = dict.fromkeys(("agreed", "approval_share", "approval_share_instead", "difference"))
    shares |= dict.fromkeys(("newly_approved_share", "newly_refused_share", "referred_share"))

    def shown(decisions: int) -> str:
        every = counts | shares | {"decisions": decisions}
        asked = WhatIfStatus.model_validate(
            {
                "id": "0199a1b2-0000-7000-8000-000000000000",
                "state": "done",
                "created_at": "2026-03-01T12:00:00Z",
                "created_by": "somebody",
                "finished_at": "2026-03-01T12:00:01Z",
                "order": {"threshold": 0.4, "costs": {"referred": 1}},
                "progress": dict.fromkeys(("rate", "estimated_end")) | {"read": 0, "expected": 0},
                "problem": None,
                "swaps": {
                    "all": every,
                    "bands": [every | {"low": 0.5, "high": 0.55}] if decisions else [],
                    "attributes": [],
                    "least_decisions": 30,
                    "unscored": 0,
                },
                "cost": None,
                "method": "A method.",
            }
        )
        return str(state(asked, ""))

    assert "Probabilities on record, approved from 40.0" in shown(0)
    assert "No decision is in this period." in shown(0)
    assert "Newly approved" not in shown(0)
    assert "Outcomes are known of none of these decisions." in shown(1)
    assert "No decision is in this period." not in shown(1)
