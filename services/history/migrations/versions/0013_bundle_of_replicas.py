"""A replica reports the bundle that decides by default, also before the first roll-out."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "replicas",
        sa.Column("bundle", sa.Text, comment="that decides by default; null: of a version before"),
    )


def downgrade() -> None:
    op.drop_column("replicas", "bundle")
