"""A narrower index of loan ids, and null for an empty list of inputs or warnings.

The index no longer holds the key, which only sorted the few decisions of one loan. Rows stored
before keep their empty lists, which mean what null means now.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("imputed", "warnings"):
        op.alter_column("predictions", name, nullable=True)
    op.drop_index("predictions_loan_id_idx", "predictions")
    op.create_index(
        "predictions_loan_id_idx",
        "predictions",
        ["loan_id"],
        postgresql_where=sa.text("loan_id IS NOT NULL"),
    )
    op.drop_index("predictions_filters_idx", "predictions")
    op.create_index(
        "predictions_filters_idx",
        "predictions",
        ["model", "prediction", sa.text("coalesce(cardinality(warnings), 0)")],
        postgresql_using="brin",
        postgresql_with={"pages_per_range": 32, "autosummarize": True},
    )


def downgrade() -> None:
    raise NotImplementedError("Versions before this one cannot read a null for an empty list.")
