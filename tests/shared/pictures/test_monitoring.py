"""What a summary of monitoring says: an alarm, none, or that it is open."""

from types import SimpleNamespace
from typing import Any

import pytest

from shared.pictures.monitoring import areas_of, verdict


def areas(*, auc: bool | None, screens: tuple[str, ...]) -> Any:
    """Of a model whose only conclusions are of its ranking, and of an attribute for each screen."""
    attributes = [
        SimpleNamespace(
            conclusion="",
            groups=[SimpleNamespace(against_largest=SimpleNamespace(screen=screen))],
        )
        for screen in screens
    ]
    conclusions = [SimpleNamespace(alarm=alarm, text="") for alarm in (None, auc)]
    return areas_of(
        SimpleNamespace(expected=None, conclusions=conclusions),
        SimpleNamespace(trends=[]),
        SimpleNamespace(inputs=[], score=None, conclusion=""),
        SimpleNamespace(attributes=attributes),
    )


@pytest.mark.parametrize(
    ("screens", "alarm"),
    [
        (("inside", "inside"), False),
        (("inside", "undecided"), None),
        (("undecided", "undecided"), None),
        (("undecided", "outside"), True),
        ((), None),
    ],
)
def test_groups_are_open_while_one_comparison_is_undecided(
    screens: tuple[str, ...], alarm: bool | None
) -> None:
    assert areas(auc=False, screens=screens)["Groups"].alarm is alarm


def test_no_alarm_is_said_only_of_what_can_be_said() -> None:
    """Each area that is open is named; where all are, there is too little to say."""
    assert verdict(areas(auc=None, screens=("undecided",))) == "Too little to say."
    some = verdict(areas(auc=False, screens=("undecided",)))
    assert some == "No alarm. Open: Approvals, Calibration, Drift, Groups."
    assert verdict(areas(auc=True, screens=("outside",))) == "Alarm: Performance, Groups."
    clear = {name: area._replace(alarm=False) for name, area in areas(auc=None, screens=()).items()}
    assert verdict(clear) == "No alarm."
