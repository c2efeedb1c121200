"""Many applications at once, as the columns of an Arrow table: decided without a loop over rows.

Nothing is recorded. What a cell means, what is wrong with it and what is decided are those of
``read_application`` and ``decide`` on that row: each distinct cell that is not a plain number is
read by the one reader, and a faulty row as a whole, for its faults.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from services.scoring.engine import shown_probabilities
from services.scoring.features import Columns, code
from services.scoring.registry import Bundle, ServedModel
from shared.contract.application import FIELDS, SCORED, Field
from shared.contract.errors import InvalidInput
from shared.contract.parsing import read_application, read_input
from shared.contract.warnings import (
    LOAN_TO_ANNUAL_INCOME,
    LOW_INCOME,
    MONTHS_PER_YEAR,
    THOUSAND,
    UNUSUAL_AMOUNT,
    USUAL_TERMS,
    WARNING_RULES,
    WEIGHTY_INPUTS,
    TrainingRanges,
    missing_input,
    outside_range,
)
from shared.files.applications import meaning
from shared.files.tables import cell_text

RESULT_SCHEMA: Final = pa.schema(
    [
        ("prediction", pa.string()),
        ("probability_approved", pa.float64()),
        ("model", pa.string()),
        ("bundle_version", pa.string()),
        ("imputed", pa.string()),
        ("warnings", pa.string()),
    ]
)
"""The columns of a decision. ``imputed`` names the scored inputs that are missing; between these,
and between ``warnings``, is ``; ``."""

_INCOMES: Final = ("ApplicantIncome", "CoapplicantIncome")
_PLAIN_NUMBER: Final = r"^[0-9]{1,15}(\.[0-9]{1,15})?$"
_VISIBLE_ASCII: Final = "^[!-~]{1,%d}$"
_SMALLEST: Final = 1e-9
"""A number that is less, but for zero, has more characters in a file than the reader takes."""

_Values = npt.NDArray[np.float64]
_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Scored:
    """The decisions on the rows of a table."""

    decisions: pa.Table
    """One row of ``RESULT_SCHEMA`` for each row that is decided, in order."""
    decided: _Mask
    """Of each row of the table, whether it is decided: the others are faulty."""
    faults: dict[int, str]
    """What is wrong with each faulty row, by its position from 0."""
    approved: int

    def joined(self, table: pa.Table) -> pa.Table:
        """The decided rows of ``table``, which are as many as were scored, with their decisions."""
        if self.faults:
            table = table.filter(pa.array(self.decided))
        return pa.Table.from_arrays(
            [*table.columns, *self.decisions.columns],
            names=[*table.column_names, *self.decisions.column_names],
        )


def score(
    table: pa.Table, inputs: Mapping[str, str | int], *, model: ServedModel, bundle: Bundle
) -> Scored:
    """Decide on each row of ``table`` with ``model``, which is one of ``bundle``'s.

    ``inputs`` maps each input that the table has to its column there, by name or position. Raises
    ``FileError`` for bytes that are not UTF-8 text.
    """
    columns = {name: _flat(name, table.column(place)) for name, place in inputs.items()}
    values = {
        field.name: _read_column(field, columns[field.name])
        if field.name in columns
        else np.full(len(table), np.nan)
        for field in FIELDS
    }
    own, other = (values[name] for name in _INCOMES)
    faulty = (own == 0) & ~(other > 0)
    for column in values.values():
        faulty |= np.isinf(column)
    faults = {int(row): _fault(columns, int(row)) for row in np.flatnonzero(faulty)}
    scored = {name: values[name] for name in SCORED}
    if faults:
        scored = {name: column[~faulty] for name, column in scored.items()}
    approved = model.approval_probabilities(bundle.matrix_of(scored))
    predicted = approved >= model.threshold
    return Scored(
        decisions=_decisions(scored, approved, predicted, model=model, bundle=bundle),
        decided=~faulty,
        faults=faults,
        approved=int(predicted.sum()),
    )


def _decisions(
    scored: Mapping[str, _Values],
    approved: _Values,
    predicted: _Mask,
    *,
    model: ServedModel,
    bundle: Bundle,
) -> pa.Table:
    rows = len(approved)
    columns = [
        _spread(("Rejected", "Approved"), predicted),
        pa.array(shown_probabilities(approved, model.threshold)),
        pa.repeat(model.name, rows),
        pa.repeat(bundle.manifest.version, rows),
        _listed({name: np.isnan(scored[name]) for name in SCORED}),
        _listed(warning_columns(scored, bundle.training_ranges)),
    ]
    return pa.table(columns, schema=RESULT_SCHEMA)


def warning_columns(columns: Columns, training_ranges: TrainingRanges) -> dict[str, _Mask]:
    """Each warning, in the order of ``warnings_for``, and which rows of ``columns`` have it."""
    income, amount = columns["ApplicantIncome"], columns["LoanAmount"]
    other, term = columns["CoapplicantIncome"], columns["Loan_Amount_Term"]
    annual_income = MONTHS_PER_YEAR * (income + np.where(np.isnan(other), 0, other))
    # A comparison with NaN, which stands for a missing value, does not hold.
    found = {
        WARNING_RULES["no_own_income"]: income == 0,
        WARNING_RULES["low_income"]: (income != 0) & (income < LOW_INCOME),
        WARNING_RULES["high_loan_to_income"]: amount * THOUSAND
        > LOAN_TO_ANNUAL_INCOME * annual_income,
        WARNING_RULES["unusual_amount"]: amount > UNUSUAL_AMOUNT,
        WARNING_RULES["no_credit_history"]: columns["Credit_History"] == 0,
    }
    found |= {missing_input(field): np.isnan(columns[field]) for field in WEIGHTY_INPUTS}
    found[WARNING_RULES["unusual_term"]] = ~np.isnan(term) & ~np.isin(term, USUAL_TERMS)
    for field, (low, high) in training_ranges.items():
        found[outside_range(field, low, high)] = (columns[field] < low) | (columns[field] > high)
    return found


def _listed(holding: Mapping[str, _Mask]) -> pa.Array:
    """The names that hold of each row, with ``; `` between them."""
    # A bit for each name, so that each set of them is joined once.
    held = sum(mask.astype(np.int32) << i for i, mask in enumerate(holding.values()))
    found = np.bincount(held, minlength=1) > 0
    joined = [
        "; ".join(name for i, name in enumerate(holding) if bits >> i & 1)
        for bits in np.flatnonzero(found)
    ]
    return _spread(joined, (np.cumsum(found) - 1)[held])


def _spread(words: Sequence[str], places: npt.NDArray[Any]) -> pa.Array:
    """The word at each place."""
    return pa.array(words, pa.string()).take(pa.array(places.astype(np.int32)))


def _flat(name: str, column: pa.ChunkedArray) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_nested(column.type) or is_bytes(column.type):
        return pa.array([cell_text(value, name) for value in column.to_pylist()], pa.string())
    if pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type):
        column = column.cast(pa.string())
    return column.combine_chunks()


def is_bytes(kind: pa.DataType) -> bool:
    """Whether the cells of such a column are bytes."""
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_binary_view(kind)
    )


def _read_column(field: Field, column: pa.Array) -> _Values:
    """The values of an input, by ``code``: NaN where missing, infinity where a cell is faulty."""
    values, plain = _plain_cells(field, column)
    if plain.all():
        return values
    none_plain = not plain.any()
    cells = (column if none_plain else column.filter(pa.array(~plain))).dictionary_encode()
    distinct = [*cells.dictionary.to_pylist(), None]
    read = np.array([_read_cell(field, cell) for cell in distinct])
    found: _Values = read[cells.indices.fill_null(len(distinct) - 1).to_numpy()]
    if none_plain:
        return found
    values[~plain] = found
    return values


def _plain_cells(field: Field, column: pa.Array) -> tuple[_Values, _Mask]:
    """The numbers in a column, and the cells that need no reading."""
    if field.kind == "text" and pa.types.is_string(column.type):
        visible = _matches(column, _VISIBLE_ASCII % field.maximum)
        return np.full(len(column), np.nan), visible
    if field.kind != "number" or not _is_numeric(column.type):
        return np.full(len(column), np.nan), np.zeros(len(column), dtype=np.bool_)
    if pa.types.is_string(column.type):
        plain = pa.array(_matches(column, _PLAIN_NUMBER))
        column = pc.if_else(plain, column, pa.scalar(None, pa.string()))
    values = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False).copy()
    low = field.exclusive_minimum if field.minimum is None else field.minimum
    fits = (values >= low) & (values <= field.maximum)
    if field.minimum is None:
        fits &= values > low
    # Minus zero and tiny numbers are for the reader to read, or to refuse.
    return values, fits & ((values >= _SMALLEST) | ((values == 0) & ~np.signbit(values)))


def _is_numeric(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _matches(column: pa.Array, pattern: str) -> _Mask:
    found: _Mask = (
        pc.match_substring_regex(column, pattern).fill_null(False).to_numpy(zero_copy_only=False)
    )
    return found


def _read_cell(field: Field, value: object) -> float:
    try:
        found = read_input(field.name, meaning(field.name, cell_text(value, field.name)))
    except ValueError:
        return np.inf
    return np.nan if found is None or field.kind == "text" else code(field.name, found)


def _fault(columns: Mapping[str, pa.Array], row: int) -> str:
    """What is wrong with a row, in one sentence for each fault."""
    cells = {
        name: cell
        for name, column in columns.items()
        if (cell := meaning(name, cell_text(column[row].as_py(), name))) is not None
    }
    try:
        read_application(cells)
    except InvalidInput as error:
        return "; ".join(f"{fault.field} {fault.message}" for fault in error.faults)
    raise AssertionError(f"row {row} was taken for faulty: {cells}")
