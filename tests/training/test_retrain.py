"""Retraining with recorded outcomes, and the gate that a candidate has to pass."""

import json
import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from services.scoring.manifest import CURRENT_FILE, Interval, read_manifest
from services.scoring.registry import Bundle, load_bundle
from services.training import publishing, retrain
from services.training.card import model_card
from services.training.gate import Gate, GateError, Rule, judge, passes, read_rules
from services.training.measures import MEASURES
from services.training.recorded import METHOD, read_recorded
from services.training.retrain import REFUSED
from services.training.train import Published, train
from tests.applications import random_application, random_label

_NOW = datetime(2026, 11, 1, tzinfo=UTC)


def _record(application: Mapping[str, object], prediction: str, *outcomes: object) -> str:
    return json.dumps(
        {"input_data": application, "prediction": prediction, "outcomes": outcomes}, default=str
    )


def _outcome(kind: str, matures_at: str | None = None) -> dict[str, object]:
    return {"outcome": kind, "matures_at": matures_at}


def _write_records(path: Path, served: Bundle, is_good: Callable[[str], bool]) -> None:
    """Applications decided by ``served``; ``is_good`` turns a drawn label into an outcome."""
    rng = random.Random(3)  # noqa: S311 - test data, not a secret
    lines = []
    for _ in range(1_000):
        application = random_application(rng)
        label = random_label(application, rng)
        approved = served.champion.approval_probability(served.row_of(application)) >= 0.5
        kind = "repaid" if is_good(label) else "default"
        lines.append(
            _record(application, "Approved", _outcome(kind))
            if approved
            else _record(application, "Rejected")
        )
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.system
@pytest.mark.parametrize("is_better", [True, False], ids=["better", "worse"])
def test_gate_lets_a_better_candidate_pass_and_refuses_a_worse_one(
    is_better: bool,
    trained: Published,
    labelled_csv: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Outcomes of the kind that the file has teach more of the same; coin tosses spoil it."""
    serving = tmp_path / "serving"
    serving.mkdir()
    publishing.promote(trained.folder, serving)
    served = load_bundle(serving, None)
    coin = random.Random(4)  # noqa: S311 - test data, not a secret
    records = tmp_path / "records.ndjson"
    _write_records(
        records,
        served,
        (lambda label: label == "Y") if is_better else lambda _: coin.random() < 0.5,
    )
    small = partial(train, folds=5, repeats=1, random_rows=500, jobs=1)
    monkeypatch.setattr(retrain, "train", small)
    # Half of the time, for nothing that is asked here.
    monkeypatch.setattr("services.training.train.draw", lambda *_: {})
    output = tmp_path / "bundles"
    arguments = [str(labelled_csv), "--records", str(records), "--output", str(output)]
    arguments += ["--serving", str(serving), "--models", served.manifest.champion]
    assert retrain.main(arguments) == (0 if is_better else REFUSED)

    [written] = output.glob("*.gate.json")
    gate = Gate.model_validate_json(written.read_bytes())
    manifest = read_manifest(output / gate.candidate / "manifest.json")
    broken = {each.rule.measure for each in gate.findings if each.holds is False}
    assert gate.passed == is_better
    assert ("log_loss_on_file" in broken) == (not is_better)
    assert gate.recorded_rows == manifest.data.recorded > 500
    assert manifest.gate == json.loads(written.read_bytes())
    assert gate.file_rows + gate.recorded_rows == manifest.data.rows
    assert gate.left_out == {"refused": 1_000 - gate.recorded_rows}
    assert load_bundle(output, gate.candidate).card == model_card(manifest).encode()
    card = model_card(manifest)
    assert METHOD in card
    assert (
        f"{'passed' if is_better else 'was refused by'} the gate against {served.manifest.version}"
        in card
    )
    assert sorted(path.name for path in output.iterdir()) == [gate.candidate, written.name]
    said = capsys.readouterr().out
    assert f"The {'candidate passes' if is_better else 'gate refuses'} the" in said
    assert f"Nothing was changed in {serving}." in said
    assert (serving / CURRENT_FILE).read_text().strip() == trained.manifest.version


def test_candidate_that_is_the_served_bundle_is_said_to_be_nothing_new(
    trained: Published,
    labelled_csv: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No gate is passed, and no second bundle of that version is written."""
    serving, output, records = (tmp_path / name for name in ("serving", "bundles", "records"))
    serving.mkdir()
    publishing.promote(trained.folder, serving)
    records.write_text("")
    monkeypatch.setattr(retrain, "train", lambda *_, **__: trained)
    arguments = [str(labelled_csv), "--records", str(records), "--output", str(output)]
    assert retrain.main([*arguments, "--serving", str(serving)]) == 0
    said = capsys.readouterr().out
    version = trained.manifest.version
    assert f"Nothing new came out: the candidate is the bundle that is served, {version}." in said
    assert "gate" not in said
    assert list(output.iterdir()) == []


def test_records_count_as_the_method_says() -> None:
    """Approved, good or bad, mature, and of each Loan_ID the newest that the file does not hold."""
    rng = random.Random(6)  # noqa: S311 - test data, not a secret
    first, second, third, fourth = (random_application(rng) for _ in range(4))
    lines = [
        _record(first, "Approved", _outcome("late_90"), _outcome("repaid")),
        _record(first, "Approved", _outcome("repaid")),
        _record(second, "Approved", _outcome("prepaid", "2026-10-31T23:00:00Z")),
        _record(third, "Approved", _outcome("default", "2027-01-01T00:00:00Z")),
        _record(third, "Approved", _outcome("withdrawn")),
        _record(third, "Approved"),
        _record(third, "Rejected", _outcome("repaid")),
        _record({**third, "ApplicantIncome": -1}, "Approved", _outcome("repaid")),
        _record(fourth, "Approved", _outcome("repaid")),
    ]
    found = read_recorded(lines, known=[fourth["Loan_ID"], None], now=_NOW)
    assert [each["Loan_ID"] for each in found.applications] == [first["Loan_ID"], second["Loan_ID"]]
    assert found.labels == (0, 1)
    assert found.left_out == {
        "a Loan_ID that is known already": 2,
        "not mature": 1,
        "neither good nor bad": 1,
        "no outcome": 1,
        "refused": 1,
        "not accepted any more": 1,
    }


def _interval(low: float, high: float) -> Interval:
    return Interval(mean=(low + high) / 2, low=low, high=high)


@pytest.mark.parametrize(
    ("value", "holds"),
    [
        (_interval(-0.2, -0.1), True),
        (_interval(-0.1, 0.1), True),
        (_interval(0.1, 0.2), False),
        (None, None),
    ],
)
def test_limit_is_broken_only_by_a_whole_interval(
    value: Interval | None, holds: bool | None
) -> None:
    """From either side; what is not measured, or only said, refuses nothing."""
    [finding] = judge([Rule(measure="size_ratio", at_most=0)], {"size_ratio": value})
    assert finding.holds is holds
    assert passes([finding]) == (holds is not False)
    mirrored = None if value is None else _interval(-value.high, -value.low)
    assert Rule(measure="size_ratio", at_least=0).holds_for(mirrored) is holds
    [said] = judge([Rule(measure="size_ratio", at_most=0, refuses=False)], {"size_ratio": value})
    assert passes([said])


def test_product_has_a_rule_for_every_measure() -> None:
    assert {rule.measure for rule in read_rules()} == set(MEASURES)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ('[[rules]]\nmeasure = "beauty"\nat_least = 1', "beauty is none of log_loss_on_file, "),
        ('[[rules]]\nmeasure = "size_ratio"', "size_ratio needs one of at_most and at_least"),
        ("rules = 1", "Input should be"),
        ("[", "Invalid"),
    ],
)
def test_unusable_rules_are_one_sentence(content: str, fault: str, tmp_path: Path) -> None:
    """It names the file; nothing is trained."""
    file = tmp_path / "gate.toml"
    file.write_text(content)
    with pytest.raises(GateError, match=fault) as refused:
        read_rules(file)
    assert str(refused.value).startswith(str(file))
