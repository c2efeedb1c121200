"""Schedules, percentiles and summaries of the load tools."""

from pathlib import Path
from xml.etree import ElementTree

from tests.load import ladder, picture
from tests.load.results import Results, Sample, describe, percentile, percentiles_ms, summarise
from tests.load.schedule import Schedule


def test_schedule_is_shared_completely_and_evenly_spaced() -> None:
    """Three processes together send each request once, when it is due."""
    schedule = Schedule(starts_at_s=100.0, rate=10.0, duration_s=1.0)
    shares = [list(schedule.share(process, of=3)) for process in range(3)]
    together = sorted(request for share in shares for request in share)
    assert together == [(number, 100.0 + number / 10) for number in range(10)]
    assert schedule.ends_at_s == 101.0


def test_latency_counts_from_the_scheduled_moment() -> None:
    """A request sent late counts the time until it is sent."""
    sample = Sample(due_s=1.0, sent_s=3.0, done_s=3.5)
    assert sample.latency_s == 2.5
    assert sample.late_s == 2.0


def test_percentile_is_a_value_that_occurred() -> None:
    """It is the nearest rank, never a value in between."""
    ordered = [float(number) for number in range(1, 1001)]
    assert [percentile(ordered, rank) for rank in (50, 99, 99.9, 100)] == [500, 990, 999, 1000]
    assert percentile([7.0], 50) == percentile([7.0], 99.9) == 7.0


def test_percentiles_of_nothing_are_none() -> None:
    """A run without an answer has no latency."""
    assert percentiles_ms([]) == {}


def test_summary_counts_answers_and_errors_by_kind() -> None:
    """Results of several processes are added, over the time until the last answer."""
    found = Results()
    found.add(Results([Sample(10.0, 10.0, 11.0)], ids=["a"]))
    found.add(Results([Sample(11.0, 11.5, 12.0)], ids=["b"]))
    found.errors["status 503"] += 2
    summary = summarise(found, scheduled=4, starts_at_s=10.0)
    assert found.finished == 4
    assert found.ids == ["a", "b"]
    assert (summary.answered, summary.rate, summary.errors) == (2, 1.0, {"status 503": 2})
    assert summary.latency_ms["max"] == 1000.0
    assert summary.sent_late_ms["p99"] == 500.0
    assert "2 status 503" in describe(summary)


def test_rung_holds_only_without_errors_at_nearly_the_full_rate_and_in_time() -> None:
    """Failing any of the three breaks it."""
    found = Results([Sample(number / 10, number / 10, number / 10 + 0.01) for number in range(10)])
    good = summarise(found, scheduled=10, starts_at_s=0.0)
    assert ladder.holds(good, rate=10, p99_ms=20)
    assert not ladder.holds(good, rate=20, p99_ms=20)
    assert not ladder.holds(good, rate=10, p99_ms=5)
    found.errors["ReadTimeout"] += 1
    assert not ladder.holds(summarise(found, scheduled=11, starts_at_s=0.0), rate=10, p99_ms=20)


def test_rungs_rise_by_the_step() -> None:
    """Each rate is a multiple of the previous one."""
    assert ladder.rungs(100, 2)[:3] == [100, 200, 400]


def test_picture_is_an_svg_that_names_the_run(tmp_path: Path) -> None:
    """Text stays text, so that it can be searched and read aloud."""
    found = Results([Sample(n / 100, n / 100, n / 100 + 0.002) for n in range(500)])
    path = tmp_path / "new" / "run.svg"
    picture.draw(path, found, starts_at_s=0.0, title="a run of five seconds")
    texts = "".join(ElementTree.parse(path).getroot().itertext())  # noqa: S314 - our own file
    assert "a run of five seconds" in texts
    assert "answered per second" in texts
