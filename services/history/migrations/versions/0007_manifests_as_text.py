"""Manifests of bundles as the text that was registered: not all JSON is a value of jsonb."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.alter_column(
        "bundles",
        "manifest",
        type_=sa.Text,
        existing_type=JSONB,
        comment="JSON, as it was registered",
        postgresql_using="manifest::text",
    )


def downgrade() -> None:
    op.alter_column(
        "bundles",
        "manifest",
        type_=JSONB,
        existing_type=sa.Text,
        comment=None,
        postgresql_using="manifest::jsonb",
    )
