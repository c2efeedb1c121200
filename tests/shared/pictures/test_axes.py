"""Axes hold what is drawn on them."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.pictures.axes import axis, path, slots
from shared.pictures.formats import percentage_points, tick_text

_NUMBERS = st.lists(st.floats(-1000, 1000).map(lambda number: round(number, 4)), max_size=20)


@given(_NUMBERS)
def test_axis_holds_every_number_between_round_marks(numbers: list[float]) -> None:
    """A few of them, at equal distances; also where there is one number or none."""
    ticks = axis(numbers).ticks
    assert 2 <= len(ticks) <= 8
    steps = {round(b - a, 6) for a, b in pairwise(ticks)}
    assert max(steps) - min(steps) < 1e-5
    assert all(ticks[0] - 1e-9 <= number <= ticks[-1] + 1e-9 for number in numbers)


def test_marks_are_numbers_that_people_expect() -> None:
    """Bounded where a number cannot lie beyond."""
    assert axis((0.031, 0.192), low=0).ticks == (0.0, 0.05, 0.1, 0.15, 0.2)
    assert axis((0.97, 1.0), high=1).ticks[-1] == 1.0
    assert axis((0, 3), step=1).ticks == (0, 1, 2, 3)
    unit = axis((0, 1))
    assert path(unit, unit, ((0, 1), (0.5, 0.25))) == "0.00,0.00 50.00,75.00"
    assert (unit.along(0.25), unit.up(0.25), unit.length(0.5, 0.2)) == (
        "25.00%",
        "75.00%",
        "30.00%",
    )
    assert (unit.along(-1), unit.along(2)) == ("0.00%", "100.00%")


@pytest.mark.parametrize("count", [0, 1, 6, 7, 36])
def test_labels_of_slots_do_not_run_into_each_other(count: int) -> None:
    """At most five are shown, at equal distances."""
    places = slots([str(number) for number in range(count)])
    shown = [i for i, slot in enumerate(places) if slot.labelled]
    assert len(shown) == min(count, len(shown)) <= 5
    assert len({b - a for a, b in pairwise(shown)}) <= 1
    assert all(0 <= slot.left < slot.middle < 100 for slot in places)
    long = slots(["Did not meet its guidelines", "Met its guidelines", "missing"])
    assert long[0].lines == ["Did not meet", "its guidelines"]


def test_numbers_are_written_as_people_read_them() -> None:
    """With a minus that is as wide as a plus, and no sign for nothing."""
    assert [percentage_points(number) for number in (0.031, -0.0204, 0.0001, -0.0001)] == [
        "+3.1",
        "\u22122.0",
        "0.0",
        "0.0",
    ]
    assert (tick_text(0.25, "share"), tick_text(0.025, "share")) == ("25\u202f%", "2.5\u202f%")
    assert (tick_text(-0.5, "number"), tick_text(1200, "number")) == ("\u22120.5", "1,200")
