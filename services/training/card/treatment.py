"""How the models treat applicants: by group, with inputs missing, by direction and location."""

from collections.abc import Mapping
from typing import Final

from services.scoring.manifest import Manifest
from services.training.card.text import (
    difference_text,
    markdown_table,
    optional_text,
    rates_text,
)
from shared.contract.application import FIELDS, SCORED

FOUR_FIFTHS: Final = 0.8
"""Below this selection-rate ratio the Uniform Guidelines (29 CFR 1607.4) see adverse impact."""


def fairness_section(manifest: Manifest) -> str:
    """Rates by group, and which are below the four-fifths rule."""
    rows = []
    low = []
    for model in manifest.models.values():
        for attribute, fairness in model.fairness.items():
            if not fairness.groups:
                continue
            ratio, gap = fairness.selection_rate_ratio, fairness.true_positive_rate_gap
            if ratio is not None and ratio < FOUR_FIFTHS:
                low.append(f"{model.title} by {attribute}")
            rows.append(
                (
                    model.title,
                    attribute,
                    ", ".join(f"{group} {size}" for group, size in fairness.groups.items()),
                    rates_text(fairness.selection_rates),
                    optional_text(ratio),
                    rates_text(fairness.true_positive_rates),
                    optional_text(gap),
                )
            )
    header = (
        "Model",
        "By",
        "Rows",
        "Selection rates",
        "Ratio",
        "True positive rates",
        "Gap",
    )
    finding = (
        f"Below the four-fifths rule's {FOUR_FIFTHS:g}: {'; '.join(low)}."
        if low
        else f"No selection-rate ratio is below the four-fifths rule's {FOUR_FIFTHS:g}."
    )
    measured = f"""\
Out of fold, for groups that the models never see. The ratio is the lowest group's selection rate
divided by the highest group's; the gap is the difference between their true positive rates.
{finding}

{markdown_table(header, rows)}"""
    unknown = [
        attribute
        for attribute, fairness in manifest.models[manifest.champion].fairness.items()
        if not fairness.groups
    ]
    cannot_be_told = (
        f"Whether the models are fair by {' and '.join(unknown)} cannot be told: the training data"
        " do not hold it."
    )
    paragraphs = [*([measured] if rows else []), *([cannot_be_told] if unknown else [])]
    return "\n\n".join(("## Fairness", *paragraphs))


def missing_section(manifest: Manifest) -> str:
    """What a missing input counts as, and what hiding one gains."""
    table = markdown_table(
        ("Missing input", "Counts as"),
        (
            (field, f"{value:g}" if isinstance(value, float) else value)
            for field, value in manifest.imputation.items()
        ),
    )
    return f"""## Missing inputs

{table}

A missing number counts as the mean of the training data and a missing category as the most common
one, so leaving an input out scores exactly as stating a typical value. A missing co-applicant
income means that none was declared. An unknown credit history lies between a bad (0) and a good (1)
one, and no bundle is published in which any model scores an unknown history above a good one, or
below a bad one, for a training row or a random application. An unknown history is not a bad one, so
hiding a bad one may still pay: every decision without a credit history has a warning."""


def directions_section(manifest: Manifest) -> str:
    """Which way each input may move approval, how it is kept, and its cost."""
    directed = {field.name: field.direction for field in FIELDS if field.direction}
    effects = {"up": "may only raise approval", "down": "may only lower approval"}
    lines = "\n".join(
        f"- A higher {field} {effects[direction]}." for field, direction in directed.items()
    )
    undirected = ", ".join(field for field in SCORED if field not in directed)
    table = markdown_table(
        ("Model", *directed, "Cost in log-loss", "Cost in AUC"),
        (
            (
                model.title,
                *(f"{model.directions.violations[field]:,}" for field in directed),
                difference_text(model.directions.log_loss),
                difference_text(model.directions.auc),
            )
            for model in manifest.models.values()
        ),
    )
    rows = next(iter(manifest.models.values())).directions.rows
    return f"""## Directions

{lines}

{undirected} have no direction: more
dependents raise costs but are no fault, and a longer time to repay lowers the instalments but
raises the total cost. On Property_Area, see the next section.

Income is the total of both applicants, and only the ratio of the amount to it is scored. Random
forest and gradient boosting are fitted under monotone constraints; logistic regression is fitted
again without features whose coefficients have the wrong sign. No bundle is published in which one
of these three lowers approval for a better value. A support vector machine cannot be constrained,
so its violations are only counted. For {rows:,} applications (training rows, random ones and a
grid), the table counts those for which a better value of an input lowers approval. The costs are
those in cross-validation ({_repeats(manifest)}), with directions minus without, paired
fold by fold, 95 % intervals.

{table}"""


def location_section(manifest: Manifest) -> str:
    """What Property_Area changes, which may stand for groups the law protects."""
    measured = {model.title: model.location for model in manifest.models.values() if model.location}
    areas = manifest.data.approved_share_by_area or {}
    rates = markdown_table(
        ("Approved", *areas, "Lowest by highest", "Gap of the true positive rates"),
        (
            (
                "In the training data",
                *map(optional_text, areas.values()),
                optional_text(_ratio(areas)),
                "",
            ),
            *(
                (
                    title,
                    *(optional_text(found.rates.selection_rates.get(area)) for area in areas),
                    optional_text(found.rates.selection_rate_ratio),
                    optional_text(found.rates.true_positive_rate_gap),
                )
                for title, found in measured.items()
            ),
        ),
    )
    scored_areas = next((tuple(found.scores) for found in measured.values()), ())
    effects = markdown_table(
        ("Model", *scored_areas, "Log-loss without it", "AUC without it"),
        (
            (
                title,
                *(f"{score - max(found.scores.values()):+.3f}" for score in found.scores.values()),
                difference_text(found.log_loss),
                difference_text(found.auc),
            )
            for title, found in measured.items()
        ),
    )
    among_reasons = "\n".join(
        f"- {title}: in {found.among_reasons} of {found.refusals}."
        for title, found in measured.items()
        if found.refusals is not None
    )
    return f"""## Location

Property_Area may stand for who lives there, and so be a proxy for groups that the law protects,
which the data do not name: nothing here shows that it is one, and nothing shows that it is not. A
lender that scores it needs a business reason for it; the measurements say what doing without costs.

Approval rates by area, in the training data and by each model out of fold:

{rates}

How far an area lowers the mean score of the same applications (all training rows), in log-odds
below the area that is favoured most; and the difference that it makes to fit a model without the
location, paired fold by fold, with 95 % intervals ({_repeats(manifest)}). A log-loss
above 0 or an AUC below 0 is a price; an interval that contains zero is no evidence of one:

{effects}

In how many refusals of training rows it is among the reasons:

{among_reasons}"""


def _repeats(manifest: Manifest) -> str:
    evaluation = manifest.evaluation
    fitted = evaluation.variant_repeats or evaluation.repeats
    return f"from {fitted} of the {evaluation.repeats} repeats"


def _ratio(rates: Mapping[str, float]) -> float | None:
    highest = max(rates.values(), default=0.0)
    return min(rates.values()) / highest if highest else None
