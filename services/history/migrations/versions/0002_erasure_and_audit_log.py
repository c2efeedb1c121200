"""Erasure, the audit log, and decisions whose ids do not sort by time."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_PERSONAL = (
    "applicant_income, coapplicant_income, loan_amount, loan_amount_term, credit_history,"
    " request_id, loan_id, gender, married, dependents, education, self_employed, property_area"
)


def upgrade() -> None:
    timestamp = sa.DateTime(timezone=True)
    op.add_column(
        "predictions",
        sa.Column(
            "derived_id",
            sa.Uuid,
            comment="The decision's id where that does not sort by time; id is made from it then.",
        ),
    )
    op.add_column("predictions", sa.Column("erased_at", timestamp))
    for name in ("applicant_income", "request_id"):
        op.alter_column("predictions", name, nullable=True)
    op.create_check_constraint(
        "predictions_erased_check",
        "predictions",
        "CASE WHEN erased_at IS NULL"
        " THEN applicant_income IS NOT NULL AND request_id IS NOT NULL"
        f" ELSE num_nonnulls({_PERSONAL}) = 0 END",
    )
    op.create_index(
        "predictions_derived_id_idx",
        "predictions",
        ["derived_id"],
        unique=True,
        postgresql_where=sa.text("derived_id IS NOT NULL"),
    )
    op.create_table(
        "audit_log",
        sa.Column("id", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("occurred_at", timestamp, nullable=False),
        sa.Column("actor", sa.Text, nullable=False, comment="a client's name, or retention"),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column(
            "details", sa.Text, nullable=False, comment="a JSON object, hashed as it stands here"
        ),
        sa.Column("previous_hash", sa.LargeBinary, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("id", name="audit_log_pkey"),
    )
    op.execute("""
        CREATE FUNCTION refuse_to_change_audit_log() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'rows of audit_log are only ever added, % is refused', TG_OP;
        END
        $$
    """)
    op.execute("""
        CREATE TRIGGER audit_log_is_append_only
        BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_to_change_audit_log()
    """)


def downgrade() -> None:
    raise NotImplementedError("An audit log is not dropped, and what is erased cannot come back.")
