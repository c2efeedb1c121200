"""The reasons of refusals, which an erasure removes."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_PERSONAL = (
    "applicant_income, coapplicant_income, loan_amount, loan_amount_term, credit_history,"
    " request_id, loan_id, gender, married, dependents, education, self_employed, property_area,"
    " reasons"
)


def upgrade() -> None:
    op.add_column(
        "predictions",
        sa.Column(
            "reasons",
            sa.Text,
            comment="codes and contributions, as history/reasons.py packs them",
        ),
    )
    op.drop_constraint("predictions_erased_check", "predictions", type_="check")
    op.create_check_constraint(
        "predictions_erased_check",
        "predictions",
        "CASE WHEN erased_at IS NULL"
        " THEN applicant_income IS NOT NULL AND request_id IS NOT NULL"
        f" ELSE num_nonnulls({_PERSONAL}) = 0 END",
    )


def downgrade() -> None:
    raise NotImplementedError("The reasons of a decision are part of its record.")
