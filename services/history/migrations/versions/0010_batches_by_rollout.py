"""A batch without a named model is decided by the roll-out in force when it is begun."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "ALTER TABLE batch.batches ADD COLUMN by_rollout boolean NOT NULL DEFAULT false,"
        " ADD COLUMN rollout jsonb"
    )
    op.execute("COMMENT ON COLUMN batch.batches.rollout IS 'what decides it; null: model does'")


def downgrade() -> None:
    op.execute("ALTER TABLE batch.batches DROP COLUMN by_rollout, DROP COLUMN rollout")
