"""Which arm an application meets, and what a roll-out may be."""

import random
from itertools import pairwise
from math import sqrt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from pydantic_core import from_json, to_json

from shared.contract.application import EXAMPLE, FIELDS, MONITORED, SCORED
from shared.contract.parsing import parse_application, read_application
from shared.contract.rollout import (
    SHARES,
    Candidate,
    Rollout,
    arm_label,
    arm_of,
    bucket,
)
from tests.applications import random_application

_DEFAULT = {"bundle": "b-00000001", "model": "logistic_regression"}
_CANDIDATE = {"bundle": "b-00000002", "model": "random_forest"}
_rng = random.Random(19)  # noqa: S311 - test data, not a secret
_APPLICATIONS = [read_application(random_application(_rng)) for _ in range(4000)]
_NAMELESS = [application | {"Loan_ID": None} for application in _APPLICATIONS]


def _rollout(share: int | None = None, *, salt: str = "salt") -> Rollout:
    candidate = None if share is None else Candidate.model_validate({**_CANDIDATE, "share": share})
    return Rollout.model_validate(
        {
            "epoch": 13,
            "default": _DEFAULT,
            "candidate": candidate,
            "salt": salt,
            "experiment": candidate and "x13",
        }
    )


def _candidates(share: int, applications: list[dict[str, Any]], salt: str = "salt") -> set[int]:
    rollout = _rollout(share, salt=salt)
    return {
        index
        for index, application in enumerate(applications)
        if arm_of(rollout, application) == "candidate"
    }


@pytest.mark.parametrize("applications", [_APPLICATIONS, _NAMELESS], ids=["named", "nameless"])
def test_raising_a_share_only_adds_applications(applications: list[dict[str, Any]]) -> None:
    met = [_candidates(share, applications) for share in (1, 100, 1000, 5000, 9999, SHARES)]
    assert all(fewer <= more for fewer, more in pairwise(met))
    assert len(met[-1]) == len(applications)


@pytest.mark.parametrize("applications", [_APPLICATIONS, _NAMELESS], ids=["named", "nameless"])
@pytest.mark.parametrize("share", [100, 1000, 5000])
@pytest.mark.no_cover
def test_shares_are_met_within_the_binomial_bounds(
    applications: list[dict[str, Any]], share: int
) -> None:
    """Over twenty salts, within four standard deviations each."""
    rows, part = len(applications), share / SHARES
    bound = 4 * sqrt(rows * part * (1 - part))
    for salt in map(str, range(20)):
        assert abs(len(_candidates(share, applications, salt)) - rows * part) < bound


def test_experiments_with_other_salts_are_independent() -> None:
    """Whoever met one candidate meets the next with the same probability as everybody else."""
    first, second = (_candidates(5000, _APPLICATIONS, salt) for salt in ("one", "two"))
    assert abs(len(first & second) / len(first) - 0.5) < 4 * 0.5 / sqrt(len(first))


@given(st.sampled_from(_NAMELESS), st.sampled_from(MONITORED), st.sampled_from(["x", None]))
def test_who_an_applicant_is_changes_no_arm(
    application: dict[str, Any], monitored: str, value: str | None
) -> None:
    changed = application | {monitored: value}
    assert bucket("salt", changed) == bucket("salt", application)


@given(st.sampled_from(_APPLICATIONS), st.sampled_from(SCORED))
def test_an_applicant_with_a_number_keeps_the_arm_when_the_application_changes(
    application: dict[str, Any], scored: str
) -> None:
    assert bucket("salt", application | {scored: None}) == bucket("salt", application)


def test_the_arm_does_not_depend_on_how_the_application_is_written() -> None:
    """Order and spelling of the JSON do not matter: it is the parsed application that counts."""
    body = {field.name: EXAMPLE.get(field.name) for field in FIELDS} | {"Loan_ID": None}
    other = {name: str(value) for name, value in reversed(body.items()) if value is not None}
    assert bucket("salt", parse_application(to_json(other))) == bucket(
        "salt", parse_application(to_json(body))
    )


def test_the_buckets_of_earlier_versions_stay() -> None:
    """A change would move applicants between the arms of a running experiment."""
    example = read_application(EXAMPLE)
    assert bucket("salt", example) == 8826
    assert bucket("salt", example | {"Loan_ID": None}) == 4983


def test_without_a_candidate_the_default_decides_outside_any_experiment() -> None:
    rollout = _rollout()
    assert {arm_of(rollout, application) for application in _APPLICATIONS[:100]} == {"default"}
    assert arm_label(rollout, "default") is None
    assert arm_label(_rollout(5), "default") == "x13:default"
    assert arm_label(_rollout(5), "candidate") == "x13:candidate"


@pytest.mark.parametrize(
    "fault",
    [
        {"candidate": {**_CANDIDATE, "share": 0}, "experiment": "x13"},
        {"candidate": {**_CANDIDATE, "share": SHARES + 1}, "experiment": "x13"},
        {"candidate": {**_CANDIDATE, "share": 10}},
        {"experiment": "x13"},
        {"default": {**_DEFAULT, "bundle": "../b-00000001"}},
        {"epoch": 0},
    ],
)
def test_what_no_roll_out_can_be_is_refused(fault: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Rollout.model_validate(from_json(_rollout().model_dump_json()) | fault)
