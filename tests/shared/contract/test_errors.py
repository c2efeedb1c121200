"""What Pydantic refuses is worded as the product's own faults are."""

from typing import Any

import pytest
from pydantic import ValidationError

from services.history.comparing.schemas import WhatIfOrder
from services.history.rollout.schemas import Reason
from shared.contract.application import Wire
from shared.contract.errors import message_of


class _Body(Wire):
    reason: Reason = "why not"
    epoch: int = 0


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"reason": "no"}, "must have at least 3 characters"),
        ({"reason": "no" * 300}, "must have at most 500 characters"),
        ({"reason": "a\nb"}, "must be visible characters and spaces, on one line"),
        ({"reason": 5}, "must be a text"),
        ({"epoch": "one"}, "must be a whole number"),
        ([], "must be a JSON object"),
    ],
)
def test_messages_do_not_quote_the_library(given: Any, says: str) -> None:
    with pytest.raises(ValidationError) as refused:
        _Body.model_validate(given)
    assert [message_of(fault) for fault in refused.value.errors()] == [says]


def test_an_unknown_member_and_a_wrong_day_of_an_order_are_worded_too() -> None:
    with pytest.raises(ValidationError) as refused:
        WhatIfOrder.model_validate_json('{"surprise": 1, "since": "soon"}')
    said = [message_of(fault) for fault in refused.value.errors()]
    assert said == ["must be a date such as 2026-01-31", "is not a known field"]
