"""What the full run prints, keeps and fails for."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos import chaos, faults, table
from tests.chaos.scenario import Outcome, Scenario
from tests.load import report

_OUTCOME = Outcome(
    fault="Redis killed",
    requests=5_000,
    acknowledged=4_000,
    stored=4_001,
    lost=0,
    doubled=0,
    refused=990,
    unanswered=10,
    stored_unanswered=1,
    worst_ms=612.4,
    sent_late_ms=2.0,
    stored_after_s=1.25,
    livez_p99_ms=7.05,
    idle_p99_ms=3.0,
    remark="",
    complaints=(),
)
_OTHER = replace(
    _OUTCOME, fault="Clocks", remark="by an hour", stored_after_s=None, livez_p99_ms=9.9, lost=2
)


def test_table_has_a_line_for_each_fault_and_their_sum() -> None:
    """Counts are summed; of times, the longest is taken."""
    lines = table.summary([_OUTCOME, _OTHER]).splitlines()[2:]
    counts = ("5,000", "4,000", "4,001", "0", "0", "990", "10", "1")
    lossy = (*counts[:3], "2", *counts[4:])
    sums = ("10,000", "8,000", "8,002", "2", "0", "1,980", "20", "2")
    assert [re.split(" {2,}", line) for line in lines] == [
        ["Redis killed", *counts, "612 ms", "2 ms", "1.2 s", "7.0 ms", "3.0 ms"],
        ["Clocks (by an hour)", *lossy, "612 ms", "2 ms", "9.9 ms", "3.0 ms"],
        ["All", *sums, "612 ms", "2 ms", "9.9 ms", "3.0 ms"],
    ]


def test_table_is_kept_for_programs_and_for_people(tmp_path: Path) -> None:
    """Both say where it was measured."""
    as_json, as_markdown = table.write(tmp_path, [_OUTCOME], report.conditions("as usual"))
    kept = json.loads(as_json.read_text())
    assert kept["faults"][0]["acknowledged"] == 4_000
    assert kept["conditions"]["method"] == "as usual"
    assert "| Redis killed | 5,000 | 4,000 | 4,001 | 0 | 0 |" in as_markdown.read_text()
    assert "as usual." in as_markdown.read_text()


def test_documentation_has_a_place_for_the_table() -> None:
    """The document has each marker exactly once."""
    text = Path("docs/faults.md").read_text(encoding="utf-8")
    for marker in report.markers(chaos.MADE_BY):
        assert text.count(marker) == 1


def test_refusals_slow_answers_and_late_records_are_complaints() -> None:
    """They are complaints of a full run only: a busy machine must not fail a test."""
    scenario = Scenario("poison", lambda stage: faults.killed(*stage.processes), stored_within_s=1)
    assert chaos.unkept(_OUTCOME, replace(scenario, stored_within_s=None, refuses=True)) == []
    slow = replace(_OUTCOME, livez_p99_ms=100.0)
    assert chaos.unkept(slow, scenario) == [
        "990 decisions were refused",
        "p99 of /livez is 100 ms (idle service: 3 ms)",
        "a decision waited 1.2 s to be stored",
    ]


def test_few_decisions_prove_nothing() -> None:
    """A full run needs 50,000."""
    assert chaos.too_few([replace(_OUTCOME, acknowledged=50_000)]) == []
    assert len(chaos.too_few([_OUTCOME, _OTHER])) == 1


def test_unknown_fault_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is started."""
    with pytest.raises(SystemExit):
        chaos.main(["flood"])
    assert "redis-paused" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        chaos.main(["poison", "--write"])
