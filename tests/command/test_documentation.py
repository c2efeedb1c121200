"""docs/files.md shows what works."""

import random
import re
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from services.command.main import main
from shared.contract.application import EXAMPLE
from tests.applications import random_application

_DOCUMENT: Final = Path(__file__).parents[2] / "docs/files.md"


def _text() -> str:
    return _DOCUMENT.read_text(encoding="utf-8")


def test_class_for_ray_takes_and_returns_batches_of_arrays() -> None:
    """As ``ray.data.Dataset.map_batches`` hands them over; Ray itself is not installed."""
    [code] = re.findall(r"```python\n([^`]*class Score:[^`]*)```", _text())
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 - it is the documentation's own
    rng = random.Random(1)  # noqa: S311 - test data, not a secret
    rows: list[dict[str, Any]] = [random_application(rng) for _ in range(50)]
    rows.append({**EXAMPLE, "LoanAmount": -1})
    batch = {name: np.array([row[name] for row in rows], dtype="O") for name in EXAMPLE}
    result: dict[str, Any] = names["Score"]()(batch)
    assert all(isinstance(column, np.ndarray) for column in result.values())
    assert result["Loan_ID"].tolist() == [row["Loan_ID"] for row in rows[:-1]]
    assert set(result["prediction"]) == {"Approved", "Rejected"}


def test_every_option_and_exit_code_of_the_help_is_documented(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And none is missing."""
    with pytest.raises(SystemExit):
        main(["score", "--help"])
    said = capsys.readouterr().out
    options = set(re.findall(r"--[a-z]+", said)) - {"--help"}
    codes = re.findall(r"(\d+) ", said.partition("exit codes:")[2])
    assert options
    assert codes
    assert [option for option in options if option not in _text()] == []
    assert [code for code in codes if f"| {code} |" not in _text()] == []
