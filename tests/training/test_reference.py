"""The reference distribution that monitoring compares traffic with."""

import numpy as np

from services.scoring.manifest import CategoricalInput, NumericInput
from services.training.applications import LabelledApplications
from services.training.reference import BINS, reference_inputs, score_counts, typical_applicant
from shared.contract.application import MONITORED, SCORED
from tests.training.test_applications import filler_rows


def test_every_application_is_counted_once_for_every_input(
    labelled: LabelledApplications,
) -> None:
    """Counts and missing values add up to the rows, for monitored inputs too."""
    inputs = reference_inputs(labelled.applications)
    assert tuple(inputs) == (*SCORED, *MONITORED)
    for field, reference in inputs.items():
        counts = (
            reference.counts.values()
            if isinstance(reference, CategoricalInput)
            else reference.counts
        )
        assert sum(counts) + reference.missing == len(labelled.applications)
        assert reference.missing == [row[field] for row in labelled.applications].count(None)


def test_quantities_have_their_range_and_bins_of_like_size(
    labelled: LabelledApplications,
) -> None:
    """The bins run from the smallest to the largest value, and none holds far too many rows."""
    income = reference_inputs(labelled.applications)["ApplicantIncome"]
    assert isinstance(income, NumericInput)
    values = [float(str(row["ApplicantIncome"])) for row in labelled.applications]
    assert (income.minimum, income.maximum) == (min(values), max(values))
    assert (income.bin_edges[0], income.bin_edges[-1]) == (income.minimum, income.maximum)
    assert len(income.counts) == BINS
    assert max(income.counts) < 2 * len(values) / BINS


def test_one_value_alone_is_one_bin() -> None:
    """An input with the same value in every row still has a distribution."""
    term = reference_inputs([{**row, "Loan_Amount_Term": 360.0} for row in filler_rows()])[
        "Loan_Amount_Term"
    ]
    assert isinstance(term, NumericInput)
    assert term.bin_edges == [360, 360]
    assert term.counts == [len(filler_rows())]


def test_typical_applicant_has_medians_and_commonest_values() -> None:
    """Also where one value is so common that it fills the bins of one end."""
    incomes = [0.0] * 5 + [100.0, 200.0, 300.0, 400.0]
    histories = [1, 1, 0, 1, 0, None, 1, 0, 1]
    typical = typical_applicant(
        [
            {**row, "CoapplicantIncome": income, "Credit_History": history}
            for row, income, history in zip(filler_rows(), incomes, histories, strict=False)
        ]
    )
    assert tuple(typical) == SCORED
    assert typical["CoapplicantIncome"] == 0
    assert typical["Credit_History"] == 1


def test_each_probability_counts_in_one_of_twenty_bins() -> None:
    """A bin holds its lower edge; the last holds 1, too."""
    counts = score_counts(np.array([0.0, 0.049, 0.05, 0.5, 0.99, 1.0]))
    assert {bin_: count for bin_, count in enumerate(counts) if count} == {0: 2, 1: 1, 10: 1, 19: 2}
    assert len(counts) == 20
