"""Outcomes of loans, their roll-ups, and the manifests of the bundles that decided."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_timestamp = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "outcomes",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("decision", sa.Uuid, nullable=False, comment="the key of its row in predictions"),
        sa.Column("observed_at", _timestamp, nullable=False),
        sa.Column("matures_at", _timestamp),
        sa.Column("recorded_at", _timestamp, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("source", sa.Text, comment="the system that reported it, never a person"),
        sa.PrimaryKeyConstraint("id", name="outcomes_pkey"),
    )
    op.create_index(
        "outcomes_report_idx",
        "outcomes",
        ["decision", "observed_at", "outcome", "matures_at", "source"],
        unique=True,
        postgresql_nulls_not_distinct=True,
    )
    op.execute("""
        CREATE FUNCTION refuse_to_change_rows() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'rows of % are only ever added, % is refused', TG_TABLE_NAME, TG_OP;
        END
        $$
    """)
    op.execute("""
        CREATE TRIGGER outcomes_are_append_only
        BEFORE UPDATE OR DELETE OR TRUNCATE ON outcomes
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_to_change_rows()
    """)
    op.create_table(
        "current_outcomes",
        sa.Column("decision", sa.Uuid, nullable=False),
        sa.Column("observed_at", _timestamp, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("decision", name="current_outcomes_pkey"),
    )
    op.create_index("current_outcomes_outcome_idx", "current_outcomes", ["outcome", "decision"])
    _create_rollup(
        "outcome_bins",
        sa.Column("bin", sa.SmallInteger, nullable=False, autoincrement=False),
        sums=("probability_sum", "log_loss_sum"),
    )
    _create_rollup(
        "outcome_groups",
        sa.Column("attribute", sa.Text, nullable=False, comment="an input's column"),
        sa.Column("value", sa.Text, nullable=False),
    )
    _create_rollup(
        "outcome_vintages",
        sa.Column(
            "months_on_book",
            sa.SmallInteger,
            nullable=False,
            autoincrement=False,
            comment="calendar months from the decision to the observation",
        ),
    )
    op.create_table(
        "bundles",
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("registered_at", _timestamp, nullable=False, server_default=sa.func.now()),
        sa.Column("manifest", JSONB, nullable=False),
        sa.PrimaryKeyConstraint("version", name="bundles_pkey"),
    )


def _create_rollup(name: str, *detail: sa.Column[Any], sums: tuple[str, ...] = ()) -> None:
    op.create_table(
        name,
        sa.Column("month", sa.Date, nullable=False, comment="the first day of it"),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("bundle_version", sa.Text, nullable=False),
        sa.Column("prediction", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        *detail,
        sa.Column("outcomes", sa.BigInteger, nullable=False),
        *(sa.Column(each, sa.BigInteger, nullable=False, comment="in billionths") for each in sums),
        sa.PrimaryKeyConstraint(
            *("month", "model", "bundle_version", "prediction", "outcome"),
            *(column.name for column in detail),
            name=f"{name}_pkey",
        ),
        postgresql_with={"fillfactor": 50},
    )


def downgrade() -> None:
    raise NotImplementedError("Outcomes are kept.")
