"""Predictions and their roll-ups."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    timestamp = sa.DateTime(timezone=True)
    op.create_table(
        "predictions",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("decided_at", timestamp, nullable=False),
        sa.Column("recorded_at", timestamp, nullable=False, server_default=sa.func.now()),
        sa.Column("confidence", sa.Double, nullable=False),
        sa.Column("probability_approved", sa.Double, nullable=False),
        sa.Column("probability_rejected", sa.Double, nullable=False),
        sa.Column("model_accuracy", sa.Double, nullable=False),
        sa.Column("applicant_income", sa.Double, nullable=False),
        sa.Column("coapplicant_income", sa.Double),
        sa.Column("loan_amount", sa.Double),
        sa.Column("loan_amount_term", sa.Double),
        sa.Column("credit_history", sa.SmallInteger),
        sa.Column("prediction", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("bundle_version", sa.Text, nullable=False),
        sa.Column("client", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("loan_id", sa.Text),
        sa.Column("gender", sa.Text),
        sa.Column("married", sa.Text),
        sa.Column("dependents", sa.Text),
        sa.Column("education", sa.Text),
        sa.Column("self_employed", sa.Text),
        sa.Column("property_area", sa.Text),
        sa.Column("imputed", ARRAY(sa.Text), nullable=False),
        sa.Column("warnings", ARRAY(sa.Text), nullable=False),
        sa.PrimaryKeyConstraint("id", name="predictions_pkey"),
    )
    op.create_index(
        "predictions_loan_id_idx",
        "predictions",
        ["loan_id", "id"],
        postgresql_where=sa.text("loan_id IS NOT NULL"),
    )
    op.create_index(
        "predictions_filters_idx",
        "predictions",
        ["model", "prediction", sa.text("cardinality(warnings)")],
        postgresql_using="brin",
        postgresql_with={"pages_per_range": 32, "autosummarize": True},
    )
    op.create_index(
        "predictions_confidence_idx",
        "predictions",
        [sa.text("CAST(trunc(confidence * 1000) AS SMALLINT)")],
    )
    op.create_table(
        "prediction_rollup",
        sa.Column("period", sa.Text, nullable=False, comment="hour, day or all"),
        sa.Column("starts_at", timestamp, nullable=False, comment="the epoch for all"),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("bundle_version", sa.Text, nullable=False),
        sa.Column("prediction", sa.Text, nullable=False),
        sa.Column("predictions", sa.BigInteger, nullable=False),
        sa.Column("with_warnings", sa.BigInteger, nullable=False),
        sa.Column("confidence_sum", sa.Double, nullable=False),
        sa.Column("confidence_histogram", ARRAY(sa.BigInteger), nullable=False),
        sa.PrimaryKeyConstraint(
            *("period", "starts_at", "model", "bundle_version", "prediction"),
            name="prediction_rollup_pkey",
        ),
        postgresql_with={"fillfactor": 50},
    )
    op.create_table(
        "applicant_rollup",
        sa.Column("property_area", sa.Text, nullable=False),
        sa.Column("credit_history", sa.Text, nullable=False),
        sa.Column("prediction", sa.Text, nullable=False),
        sa.Column("predictions", sa.BigInteger, nullable=False),
        sa.Column("confidence_sum", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint(
            *("property_area", "credit_history", "prediction"), name="applicant_rollup_pkey"
        ),
        postgresql_with={"fillfactor": 50},
    )


def downgrade() -> None:
    op.drop_table("applicant_rollup")
    op.drop_table("prediction_rollup")
    op.drop_table("predictions")
