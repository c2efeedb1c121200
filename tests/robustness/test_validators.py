"""Every validator, given anything: it understands or refuses, and never fails otherwise."""

import contextlib
import json
import re
from datetime import UTC, datetime
from string import ascii_lowercase, digits
from typing import Any
from urllib.parse import quote
from uuid import UUID

import jsonschema_rs
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from pydantic_core import to_json
from sqlalchemy import URL

from services.history.recorder import Undecodable, decode
from services.history.schemas import ExportQuery, PageQuery, decode_cursor, encode_cursor
from services.history.settings import parse_database_url
from shared.access.api_keys import KEY_SCOPES, mint_key, parse_keys
from shared.access.limits import parse_limits
from shared.contract.application import EXAMPLE
from shared.contract.errors import MAX_FAULTS, InvalidInput
from shared.contract.ids import first_uuid7_at
from shared.contract.parsing import LoanApplication, parse_application
from shared.web.conventions import accepted_request_id
from tests.history.events import body_of, random_events

# Hundreds of examples each, of lines that other tests run, too.
pytestmark = pytest.mark.no_cover

settings.register_profile("robustness", max_examples=300, deadline=None)
_robust = settings(settings.get_profile("robustness"))

_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=70)
_json = st.recursive(
    _scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20
)
_digits = st.text("0123456789.+-eE_ ", max_size=40)
_near_words = st.sampled_from(
    [
        "yes",
        " No ",
        "MALE",
        "fEmale",
        "3+",
        "graduate",
        "not  graduate",
        "Semiurban",
        "rural\t",
        "0",
    ]
)
_near_numbers = st.sampled_from(
    [0, 1, -0.0, 5e-324, 1e308, 600, 600.5, 100_000, 100_001, 99, 100, 3.0, 3.5, 2**63, "100000.0"]
)
_near = st.one_of(_scalars, _digits, _near_words, _near_numbers, st.lists(_scalars, max_size=1))
_applications = st.dictionaries(st.sampled_from(list(EXAMPLE)), _near)
_query_names = st.sampled_from([*PageQuery.model_fields, *ExportQuery.model_fields]) | st.text()

_key_entries = st.builds(
    "{}:{}:{}:{}".format,
    st.text(f"{ascii_lowercase}-"),
    st.text(f"{ascii_lowercase}{digits}/"),
    st.text("0123456789abcdef", min_size=60, max_size=64),
    st.text(f"{ascii_lowercase}:,"),
)
_key_names = st.builds(
    "{}{}{}".format,
    st.sampled_from(ascii_lowercase),
    st.text(f"{ascii_lowercase}{digits}-", max_size=62),
    st.sampled_from(ascii_lowercase),
)
_printable = st.characters(exclude_categories=("C", "Z"), include_characters=" ")

_documented = jsonschema_rs.validator_for(LoanApplication.model_json_schema())


def _understood(body: bytes) -> dict[str, Any] | None:
    """What an application means; None where it is refused with faults to mend."""
    try:
        return parse_application(body)
    except InvalidInput as error:
        faults = error.faults
    assert 0 < len(faults) <= MAX_FAULTS + 1
    to_json(faults)
    return None


@_robust
@given(st.binary(max_size=200))
def test_any_bytes_are_understood_or_refused_as_an_application(body: bytes) -> None:
    """Whatever the bytes are, there is a decision to make or there are faults to name."""
    understood = _understood(body)
    assert understood is None or set(understood) == set(EXAMPLE)


@_robust
@given(_json)
def test_any_json_is_understood_or_refused_as_an_application(value: object) -> None:
    """NaN, infinities and numbers beyond any float among it."""
    _understood(json.dumps(value).encode())


@_robust
@given(_applications, st.booleans())
@example({"Dependents": float("inf")}, True)
@example({"Dependents": "1" * 5000}, True)
@example({"ApplicantIncome": 0}, False)
@example({"ApplicantIncome": "0.0", "CoapplicantIncome": " "}, True)
@example({"ApplicantIncome": "0.0", "CoapplicantIncome": 5e-324}, True)
def test_an_application_is_accepted_exactly_if_its_schema_accepts_it(
    changes: dict[str, object], whole: bool
) -> None:
    """The document promises neither more nor less than the service keeps."""
    body = json.dumps((EXAMPLE if whole else {}) | changes).encode()
    try:
        value = json.loads(body, parse_constant=_no_number)
    except ValueError:
        assert _understood(body) is None
        return
    assert (_understood(body) is not None) == _documented.is_valid(value)


def _no_number(word: str) -> None:
    raise ValueError(word)


@_robust
@given(_applications)
def test_what_was_understood_is_understood_as_the_same(changes: dict[str, object]) -> None:
    """An answer's input_data, sent again, is the same application."""
    understood = _understood(json.dumps(EXAMPLE | changes).encode())
    if understood is not None:
        assert parse_application(to_json(understood)) == understood


@_robust
@given(st.sampled_from(list(EXAMPLE)), st.data())
def test_member_given_twice_is_named(member: str, data: st.DataObject) -> None:
    """In whichever place, and with whatever characters around it."""
    members = [json.dumps({name: value})[1:-1] for name, value in EXAMPLE.items()]
    again = json.dumps({member: EXAMPLE[member]})[1:-1]
    members.insert(data.draw(st.integers(0, len(members))), again)
    with pytest.raises(InvalidInput) as refused:
        parse_application(("{" + ",".join(members) + "}").encode())
    assert [fault.field for fault in refused.value.faults] == [member]


@_robust
@given(st.text('!:"\\,{}é', min_size=1, max_size=20))
def test_colons_in_a_value_are_not_taken_for_members(loan_id: str) -> None:
    """The short way to notice a repeated member has a long one behind it."""
    understood = parse_application(json.dumps(EXAMPLE | {"Loan_ID": loan_id}).encode())
    assert understood["Loan_ID"] == loan_id


@_robust
@given(st.dictionaries(_query_names, st.text() | _digits))
def test_any_query_is_understood_or_refused(parameters: dict[str, str]) -> None:
    """Both models of the reading routes, whatever the parameters are."""
    for model in (PageQuery, ExportQuery):
        with contextlib.suppress(ValidationError):
            model.model_validate(parameters)


@_robust
@given(st.datetimes(), st.datetimes())
def test_any_range_of_time_is_searched_in_order(one: datetime, other: datetime) -> None:
    """From the year 1 to 9999; what is earlier has no greater number."""
    assume(one != other)
    since, until = sorted((one.replace(tzinfo=UTC), other.replace(tzinfo=UTC)))
    query = PageQuery.model_validate({"since": since.isoformat(), "until": until.isoformat()})
    assert query.since is not None
    assert query.until is not None
    assert first_uuid7_at(query.since) <= first_uuid7_at(query.until)


@_robust
@given(st.floats())
def test_confidence_bounds_are_within_0_and_1(bound: float) -> None:
    """NaN and infinities are no bound."""
    try:
        query = PageQuery.model_validate({"min_confidence": str(bound)})
    except ValidationError:
        assert not 0 <= bound <= 1
    else:
        assert query.min_confidence == bound


@_robust
@given(st.uuids())
def test_cursor_leads_back_to_its_record(last: UUID) -> None:
    """The one text that a cursor can be."""
    assert decode_cursor(encode_cursor(last)) == last


@_robust
@given(st.text() | st.text("ABab01-_=", min_size=26, max_size=28))
def test_any_text_is_a_cursor_or_refused(text: str) -> None:
    """One that was never given out has no record."""
    with contextlib.suppress(ValueError):
        assert encode_cursor(decode_cursor(text))[:-1] == text[:-1]


@_robust
@given(st.text() | _key_entries)
def test_any_key_entry_is_read_or_refused_without_its_hash(text: str) -> None:
    """A complaint that reaches a log must not help anybody to a key."""
    try:
        parse_keys(text)
    except ValueError as error:
        said = str(error)
    else:
        said = ""
    assert not re.search("[0-9a-f]{60}", said)


@_robust
@given(st.sampled_from(KEY_SCOPES), _key_names)
def test_every_minted_key_is_read(scope: str, name: str) -> None:
    """With the name and the scope that it was minted for."""
    _, entry = mint_key(name, [scope], "5/minute")
    [key] = parse_keys(entry)
    assert key.caller.name == name
    assert list(key.caller.scopes) == [scope]


@_robust
@given(st.text() | st.text("0123456789/; perhourminsecday", max_size=30))
def test_any_limit_is_read_or_refused(text: str) -> None:
    """Limits of a caller are positive and over some time."""
    try:
        limits = parse_limits(text)
    except ValueError:
        return
    assert all(limit.amount >= 0 and limit.get_expiry() >= 0 for limit in limits)


@_robust
@given(st.text() | st.text(":/@?=&#%[]apostgresql0.", max_size=40).map("postgresql://".__add__))
def test_any_database_url_is_read_or_refused(text: str) -> None:
    """What is refused is refused with ValueError, which settings turn into a sentence."""
    with contextlib.suppress(ValueError):
        assert isinstance(parse_database_url(text), URL)


@_robust
@given(st.text(_printable, min_size=3).map("pass-".__add__))
def test_password_of_a_database_url_is_kept_and_never_repeated(password: str) -> None:
    """As it was, if the rest can be read; in no complaint, if not."""
    url = parse_database_url(f"postgres://user:{quote(password, safe='')}@host:5432/name")
    assert url.password == password
    assert password not in str(url)
    with pytest.raises(ValueError, match=r"\A(must start with|is not)") as refused:
        parse_database_url(f"mysql://user:{password}@host/name")
    assert password not in str(refused.value)


@_robust
@given(st.binary(max_size=140))
def test_request_id_taken_over_is_plain(sent: bytes) -> None:
    """Nothing that could break out of a log line, a header or a JSON string."""
    accepted = accepted_request_id({"headers": [(b"x-request-id", sent)]})
    assert accepted is None or re.fullmatch(rb"[!-~]{1,128}", accepted)
    assert accepted is None or not set(accepted) & set(b"\"'\\<>&")


@_robust
@given(st.binary() | _json.map(lambda value: json.dumps(value).encode()))
def test_any_payload_is_an_event_or_undecodable(payload: bytes) -> None:
    """A poisoned entry of the stream is put aside, it does not end the consumer."""
    with contextlib.suppress(Undecodable):
        decode(payload)


@_robust
@given(st.integers(), st.data())
def test_event_with_anything_in_place_of_a_member_is_an_event_or_undecodable(
    seed: int, data: st.DataObject
) -> None:
    """One value at any depth replaced."""
    event = json.loads(body_of(*random_events(1, seed=seed)))
    place = event
    while True:
        name = data.draw(st.sampled_from(sorted(place)))
        if not isinstance(place[name], dict) or data.draw(st.booleans()):
            break
        place = place[name]
    place[name] = data.draw(_near)
    with contextlib.suppress(Undecodable):
        decode(json.dumps(event).encode())
