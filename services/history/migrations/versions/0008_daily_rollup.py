"""Decisions by day, caller and arm with the distribution of each input; the arm of a decision.

The days of ``prediction_rollup`` move there, filled from the decisions.
"""

import json
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_BUCKETS = 20
_MOST_EDGES = 50
_NUMBERS = {
    "applicant_income": "ApplicantIncome",
    "coapplicant_income": "CoapplicantIncome",
    "loan_amount": "LoanAmount",
    "loan_amount_term": "Loan_Amount_Term",
}
_CATEGORIES: dict[str, tuple[int, ...] | tuple[str, ...]] = {
    "credit_history": (0, 1),
    "dependents": ("0", "1", "2", "3+"),
    "education": ("Graduate", "Not Graduate"),
    "self_employed": ("Yes", "No"),
    "property_area": ("Urban", "Semiurban", "Rural"),
    "gender": ("Male", "Female"),
    "married": ("Yes", "No"),
}


def upgrade() -> None:
    op.create_table(
        "daily_rollup",
        sa.Column("day", sa.Date, nullable=False, comment="of UTC"),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("bundle_version", sa.Text, nullable=False),
        sa.Column("arm", sa.Text, nullable=False, comment="of a roll-out; empty without one"),
        sa.Column("client", sa.Text, nullable=False),
        sa.Column("prediction", sa.Text, nullable=False),
        sa.Column(
            "layout",
            sa.Text,
            nullable=False,
            comment="names and sizes, in their order in counts",
        ),
        sa.Column("predictions", sa.BigInteger, nullable=False),
        sa.Column("with_warnings", sa.BigInteger, nullable=False),
        sa.Column("confidence_sum", sa.Double, nullable=False),
        sa.Column("counts", ARRAY(sa.BigInteger), nullable=False, comment="histograms, end to end"),
        sa.PrimaryKeyConstraint(
            *("day", "model", "bundle_version", "arm", "client", "prediction", "layout"),
            name="daily_rollup_pkey",
        ),
        postgresql_with={"fillfactor": 50},
    )
    # Whatever is stored meanwhile waits; then it meets the trigger.
    op.execute("LOCK TABLE predictions IN SHARE MODE")
    manifests = {
        version: json.loads(manifest)
        for version, manifest in op.get_bind().execute(
            sa.text("SELECT version, manifest FROM bundles")
        )
    }
    _fill("erased_at IS NOT NULL", {}, {})
    _fill("erased_at IS NULL AND NOT bundle_version = ANY(:bundles)", {}, _CATEGORIES, *manifests)
    for version, manifest in manifests.items():
        condition = "erased_at IS NULL AND bundle_version = ANY(:bundles)"
        _fill(condition, _edges(manifest), _CATEGORIES, version)
    # A consumer of the version before counts days in the old table only. This makes it wait, as in
    # an outage, until it is replaced.
    op.execute("DELETE FROM prediction_rollup WHERE period = 'day'")
    op.alter_column("prediction_rollup", "period", existing_type=sa.Text, comment="hour or all")
    op.execute("""
        CREATE FUNCTION refuse_days() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
                MESSAGE = 'days are counted in daily_rollup, by a newer version';
        END
        $$
    """)
    op.execute("""
        CREATE TRIGGER days_are_in_daily_rollup BEFORE INSERT ON prediction_rollup
        FOR EACH ROW WHEN (NEW.period = 'day') EXECUTE FUNCTION refuse_days()
    """)
    op.add_column(
        "predictions",
        sa.Column("arm", sa.Text, comment="the arm of a roll-out that decided"),
    )


def _edges(manifest: Any) -> dict[str, list[float]]:
    inputs = manifest.get("inputs") if isinstance(manifest, dict) else None
    found = {}
    for column, name in _NUMBERS.items():
        reference = inputs.get(name) if isinstance(inputs, dict) else None
        edges = reference.get("bin_edges") if isinstance(reference, dict) else None
        if isinstance(edges, list) and 1 < len(edges) <= _MOST_EDGES and all(map(_is_edge, edges)):
            found[column] = [float(edge) for edge in edges]
    return found


def _is_edge(value: object) -> bool:
    return isinstance(value, int | float) and isfinite(value)


def _fill(
    condition: str,
    edges: Mapping[str, Sequence[float]],
    categories: Mapping[str, Sequence[object]],
    *bundles: str,
) -> None:
    sizes = {
        "score": _BUCKETS,
        **{column: len(ends) + 2 for column, ends in edges.items()},
        **{column: len(allowed) + 2 for column, allowed in categories.items()},
    }
    bins = {
        "score": f"CASE prediction WHEN 'Approved' THEN bucket ELSE {_BUCKETS - 1} - bucket END",
        **{column: _number(column, ends) for column, ends in edges.items()},
        **{column: _category(column, allowed) for column, allowed in categories.items()},
    }
    counts = ", ".join(
        f"count(*) FILTER (WHERE {column}_bin = {number})"
        for column, size in sizes.items()
        for number in range(size)
    )
    layout = " ".join(f"{column}:{size}" for column, size in sizes.items())
    binned = ", ".join(f"{bin_} AS {column}_bin" for column, bin_ in bins.items())
    statement = sa.text(f"""
        INSERT INTO daily_rollup
        SELECT CAST(decided_at AT TIME ZONE 'UTC' AS date), model, bundle_version, '', client,
            prediction, CAST(:layout AS text), count(*),
            count(*) FILTER (WHERE cardinality(warnings) > 0), sum(confidence), ARRAY[{counts}]
        FROM (
            SELECT *, {binned} FROM (
                SELECT *, CAST(least(floor(confidence * {_BUCKETS}), {_BUCKETS - 1}) AS int) AS bucket
                FROM predictions WHERE {condition}
            ) AS bucketed
        ) AS prediction
        GROUP BY 1, 2, 3, 4, 5, 6
    """)  # noqa: S608 - names and numbers of this file, and numbers of manifests
    # A colon before a name would be a parameter, so the layout is one.
    parameters: dict[str, Any] = {"layout": layout}
    if ":bundles" in condition:
        parameters["bundles"] = list(bundles)
        statement = statement.bindparams(sa.bindparam("bundles", type_=ARRAY(sa.Text)))
    op.get_bind().execute(statement, parameters)


def _number(column: str, edges: Sequence[float]) -> str:
    # The last bin includes its upper edge.
    bins = len(edges) - 1
    array = ", ".join(map(repr, edges))
    return (
        f"CASE WHEN {column} IS NULL THEN {bins + 2} WHEN {column} = {edges[-1]!r} THEN {bins}"
        f" ELSE width_bucket({column}, ARRAY[{array}]::float8[]) END"
    )


def _category(column: str, allowed: Sequence[object]) -> str:
    known = " ".join(
        f"WHEN {value if isinstance(value, int) else repr(value)} THEN {number}"
        for number, value in enumerate(allowed)
    )
    missing = f"WHEN {column} IS NULL THEN {len(allowed) + 1}"
    return f"CASE {missing} ELSE CASE {column} {known} ELSE {len(allowed)} END END"


def downgrade() -> None:
    raise NotImplementedError("Versions before this one count days in another table.")
