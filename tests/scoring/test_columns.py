"""Many applications as columns: the features, the decisions and the faults of one at a time."""

import io
import json
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import compress, product
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from services.scoring.columns import Scored, score, warning_columns
from services.scoring.engine import decide
from services.scoring.features import (
    Columns,
    applications_in,
    code,
    feature_columns,
    feature_row,
)
from services.scoring.manifest import BUNDLE_ROOT
from services.scoring.registry import Bundle, load_bundle
from shared.contract.application import EXAMPLE, FIELDS, SCORED
from shared.contract.errors import InvalidInput
from shared.contract.parsing import read_application
from shared.contract.warnings import warnings_for
from shared.files.applications import ApplicationFile, read_applications, usable_columns
from shared.files.tables import FileError
from tests.applications import random_application
from tests.scoring.test_features import APPLICATIONS, IMPUTATION

_ROWS: Final = 30_000
_SEED: Final = 17
_VERSIONS: Final = sorted(path.parent.name for path in BUNDLE_ROOT.glob("*/manifest.json"))


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle(BUNDLE_ROOT, None)


def _columns(applications: Sequence[Mapping[str, Any]]) -> Columns:
    def values(name: str) -> list[float]:
        found = (application.get(name) for application in applications)
        return [np.nan if value is None else code(name, value) for value in found]

    return {name: np.array(values(name)) for name in SCORED}


def _assert_same_features(applications: Sequence[Mapping[str, Any]]) -> None:
    rows = np.array([feature_row(application, IMPUTATION) for application in applications])
    columns = feature_columns(_columns(applications), IMPUTATION)
    assert columns.tobytes() == rows.tobytes()


@settings(max_examples=50, deadline=None)
@given(applications=st.lists(APPLICATIONS, min_size=1, max_size=20))
@pytest.mark.no_cover
def test_columns_make_the_features_of_rows_bit_by_bit(
    applications: list[dict[str, object]],
) -> None:
    """Whatever the service accepts: in float64, and so in float32."""
    _assert_same_features(applications)


@pytest.mark.no_cover
def test_many_random_rows_have_the_same_features_bit_by_bit() -> None:
    """A logarithm that differs in the last bit once in ten thousand rows would show."""
    rng = np.random.default_rng(_SEED)
    columns = {
        field.name: rng.choice(range(len(field.allowed)), _ROWS).astype(float)
        if field.allowed
        else np.exp(rng.uniform(np.log(0.01), np.log(field.maximum or 1), _ROWS))
        for field in FIELDS
        if field.use == "scored"
    }
    for name in IMPUTATION:
        columns[name][rng.random(_ROWS) < 0.05] = np.nan
    _assert_same_features(list(applications_in(columns)))


_AT_THE_BOUNDS: Final[Mapping[str, Sequence[float | None]]] = {
    "ApplicantIncome": [0, 0.5, 149.99, 150, 999.99, 1000, 1000.01, 2000, 81_000, 81_000.5],
    "CoapplicantIncome": [None, 0, 0.01, 1000, 41_667, 41_668],
    "LoanAmount": [None, 8.5, 9, 60, 60.01, 120, 120.01, 700, 700.5, 10_000, 10_000.01],
    "Loan_Amount_Term": [None, 11, 12, 120, 359.5, 360, 480, 481],
    "Credit_History": [None, 0, 1],
}


def test_warnings_of_columns_are_those_of_rows_in_order(bundle: Bundle) -> None:
    """Every warning, and just before, at and after the bound of each."""
    rows = [
        dict.fromkeys(SCORED) | dict(zip(_AT_THE_BOUNDS, values, strict=True))
        for values in product(*_AT_THE_BOUNDS.values())
    ]
    columns = warning_columns(_columns(rows), bundle.training_ranges)
    holding = zip(*(mask.tolist() for mask in columns.values()), strict=True)
    found = [list(compress(columns, row)) for row in holding]
    assert found == [warnings_for(row, bundle.training_ranges) for row in rows]
    assert {warning for each in found for warning in each} == {*columns}


def _score(table: pa.Table, bundle: Bundle, model: str | None = None) -> Scored:
    inputs = usable_columns(table.column_names).places
    return score(table, inputs, model=bundle.model(model or bundle.champion.name), bundle=bundle)


@pytest.mark.parametrize("version", _VERSIONS)
def test_every_model_of_every_bundle_decides_like_one_at_a_time(version: str) -> None:
    """Prediction, probability, version, what is imputed and the warnings."""
    bundle = load_bundle(BUNDLE_ROOT, version)
    rng = random.Random(_SEED)  # noqa: S311 - test data, not a secret
    applications = [random_application(rng) for _ in range(100)]
    table = pa.Table.from_pylist(applications)
    for name, model in bundle.models.items():
        found = _decisions(_score(table, bundle, name))
        expected = [_decided(application, bundle, name) for application in applications]
        if name == "logistic_regression" and model.scorecard is None:
            # The runtime multiplies many rows in another order than one: the last bit differs.
            for row in expected:
                row["probability_approved"] = pytest.approx(row["probability_approved"], abs=2e-6)
        assert found == expected


def _decisions(scored: Scored) -> list[dict[str, object]]:
    found: list[dict[str, object]] = scored.decisions.to_pylist()
    assert scored.approved == [row["prediction"] for row in found].count("Approved")
    return found


def _decided(cells: Mapping[str, object], bundle: Bundle, model: str) -> dict[str, object]:
    application = read_application(cells)
    body = json.loads(decide(application, model=bundle.model(model), bundle=bundle).body)
    return {
        "prediction": body["prediction"],
        "probability_approved": body["probability"]["approved"],
        "model": body["model_info"]["name"],
        "bundle_version": body["model_info"]["version"],
        "imputed": "; ".join(body["imputed"]),
        "warnings": "; ".join(body["warnings"]),
    }


_MESSY: Final[Mapping[str, Sequence[object]]] = {
    "Loan_ID": ["LP 1", "x" * 65, "", "é", "'=1", "-", None, "\u200b"],
    "Gender": ["male", " Female ", "M", "NA", "", None, "1"],
    "Dependents": ["3+", "3", "4.0", "100", "-1", "two", "2.0", "1e0", "<NA>", None, "1.5"],
    "Education": ["graduate", "Not  Graduate", "?", "", "NONE"],
    "Self_Employed": ["TRUE", "yes", "y", "null", None],
    "ApplicantIncome": [
        *("0", "-0", "-1", "100000", "100000.01", "1e3", "1E+99", "nan", "", None, "4,583", "5.5"),
        *(" 7 ", "0x10", "1_000", "00012", "+5", ".5", "5.", "1" * 33, "0." + "0" * 30 + "1"),
        *("\u0661", "Infinity", "'-5"),
    ],
    "CoapplicantIncome": ["0", "", "NA", "-3", "1e-20", "100001"],
    "LoanAmount": ["0", "0.0", "1e-9", "-", "100000", "100000.5", "€5"],
    "Loan_Amount_Term": ["0", "600", "601", "0.5", "360.0", "N/A", "1e-12"],
    "Credit_History": ["1.0", "0", "2", "true", "yes", "0.5", "", "1e0", "01"],
    "Property_Area": ["URBAN", "Rural ", "City", "semi urban", None],
}


def _messy() -> Iterator[Mapping[str, object]]:
    yield dict(EXAMPLE)
    for name, cells in _MESSY.items():
        for cell in cells:
            yield EXAMPLE | {name: cell}
    yield EXAMPLE | {"ApplicantIncome": "0", "CoapplicantIncome": None}
    yield EXAMPLE | {"ApplicantIncome": "0", "CoapplicantIncome": "-0.0", "LoanAmount": "x"}
    yield dict.fromkeys(EXAMPLE, "x")


def _assert_like_the_file(table: pa.Table, file: ApplicationFile, bundle: Bundle) -> int:
    """The same decisions and faults as row by row; returns how many rows are faulty."""
    scored = _score(table, bundle)
    decided, faults = [], {}
    for place, row in enumerate(file.rows):
        try:
            decided.append(_decided(row.application, bundle, bundle.champion.name))
        except InvalidInput as error:
            faults[place] = "; ".join(f"{each.field} {each.message}" for each in error.faults)
    assert scored.faults == faults
    assert _decisions(scored) == decided
    assert np.flatnonzero(~scored.decided).tolist() == sorted(faults)
    return len(faults)


def _parquet_file(table: pa.Table) -> ApplicationFile:
    content = io.BytesIO()
    parquet.write_table(table, content)
    return read_applications(content.getvalue())


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), "str")])
def test_messy_text_is_read_as_in_any_file(kind: pa.DataType, bundle: Bundle) -> None:
    """What is decided, what is faulty, and every word about it."""
    rows = [
        {name: None if cell is None else str(cell) for name, cell in row.items()}
        for row in _messy()
    ]
    table = pa.Table.from_pylist(rows)
    table = pa.table({name: table[name].cast(kind) for name in table.column_names})
    assert _assert_like_the_file(table, _parquet_file(table), bundle) > 30


_TYPED: Final[Mapping[str, pa.Array]] = {
    "float32": pa.array([5.5, 0.1, np.nan, None, -0.0, np.inf, 1e-30, 1e9, 3, 1], pa.float32()),
    "float64": pa.array([5.5, 0.1, np.nan, None, -0.0, -np.inf, 1e-300, 1e5, 2, 1], pa.float64()),
    "int64": pa.array([0, 1, 2, 3, 4, -1, None, 2**62, 100_000, 100_001], pa.int64()),
    "uint8": pa.array([0, 1, 2, 3, 4, 99, 100, None, 255, 12], pa.uint8()),
    "bool": pa.array([True, False, None] * 3 + [True]),
    "decimal": pa.array(["1.50", "0", None, "-1", "360"] * 2).cast(pa.decimal128(9, 2)),
    "null": pa.nulls(10),
    "list": pa.array([[1], None] * 5),
    "binary": pa.array([b"Yes", "é".encode(), None, b"1", b"5000"] * 2),
    "fixed": pa.array([b"1", None] * 5, pa.binary(1)),
}


@pytest.mark.parametrize("kind", _TYPED)
def test_typed_columns_are_read_as_in_any_file(kind: str, bundle: Bundle) -> None:
    """Each input in turn is of that type."""
    typed = _TYPED[kind]
    for name in EXAMPLE:
        columns = {each: pa.repeat(value, len(typed)) for each, value in EXAMPLE.items()}
        table = pa.table(columns | {name: typed})
        _assert_like_the_file(table, _parquet_file(table), bundle)


def test_bytes_that_are_no_text_are_refused(bundle: Bundle) -> None:
    """As in any file."""
    table = pa.table({"ApplicantIncome": [5000], "Gender": pa.array([b"\xff"])})
    for read in (lambda: _score(table, bundle), lambda: _parquet_file(table)):
        with pytest.raises(FileError, match="Gender has bytes that are not UTF-8 text: 0xff"):
            read()


@pytest.mark.skipif("LOAN_DATA_DIR" not in os.environ, reason="LOAN_DATA_DIR names no public data")
def test_real_rows_are_decided_like_one_at_a_time(bundle: Bundle) -> None:
    """The public data set, as text."""
    for name in ("loans.csv", "loans_unlabelled.csv"):
        file = read_applications((Path(os.environ["LOAN_DATA_DIR"]) / name).read_bytes())
        table = pa.Table.from_pylist([dict(row.cells) for row in file.rows])
        _assert_like_the_file(table, file, bundle)
        applications = [
            application for row in file.rows if (application := _read(row.application)) is not None
        ]
        assert len(applications) > 300
        _assert_same_features(applications)


def _read(cells: Mapping[str, str]) -> dict[str, Any] | None:
    try:
        return read_application(cells)
    except InvalidInput:
        return None


def test_no_rows_make_no_decisions(bundle: Bundle) -> None:
    """A part of a file may be empty."""
    scored = _score(pa.table({"ApplicantIncome": pa.array([], pa.int64())}), bundle)
    assert (len(scored.decisions), scored.faults, scored.approved) == (0, {}, 0)
