"""Decisions queued for shadows, what these would have decided, and what-ifs."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0010"
branch_labels = None
depends_on = None

_timestamp = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "shadow_queue",
        sa.Column("decision", sa.Uuid, nullable=False, comment="the key of its row in predictions"),
        sa.Column("epoch", sa.BigInteger, nullable=False, comment="of the roll-out then in force"),
        sa.PrimaryKeyConstraint("decision", name="shadow_queue_pkey"),
        postgresql_with={
            "autovacuum_vacuum_scale_factor": 0,
            "autovacuum_vacuum_threshold": 10_000,
        },
    )
    op.create_table(
        "shadow_decisions",
        sa.Column("decision", sa.Uuid, nullable=False, comment="the key of its row in predictions"),
        sa.Column("probability_approved", sa.Double, nullable=False),
        sa.Column("approved", sa.Boolean, nullable=False),
        sa.Column("bundle", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("decision", "bundle", "model", name="shadow_decisions_pkey"),
    )
    op.create_table(
        "shadow_rollup",
        sa.Column("day", sa.Date, nullable=False, comment="of the decision, UTC"),
        sa.Column("bundle", sa.Text, nullable=False, comment="of the shadow"),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("decider_bundle", sa.Text, nullable=False),
        sa.Column("decider_model", sa.Text, nullable=False),
        sa.Column(
            "attribute", sa.Text, nullable=False, comment="score, an input's column, or unscored"
        ),
        sa.Column(
            "value", sa.Text, nullable=False, comment="a band of the score, or the input's value"
        ),
        sa.Column("decided", sa.Text, nullable=False),
        sa.Column("instead", sa.Text, nullable=False, comment="what the shadow would have decided"),
        sa.Column("decisions", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint(
            *("day", "bundle", "model", "decider_bundle", "decider_model"),
            *("attribute", "value", "decided", "instead"),
            name="shadow_rollup_pkey",
        ),
        postgresql_with={"fillfactor": 50},
    )
    op.create_table(
        "what_ifs",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("created_at", _timestamp, nullable=False),
        sa.Column("created_by", sa.Text, nullable=False, comment="a client's name"),
        sa.Column("content", sa.Text, nullable=False, comment="the order, as JSON"),
        sa.Column(
            "expected_rows",
            sa.BigInteger,
            nullable=False,
            comment="in the period, when it was asked",
        ),
        sa.Column(
            "state", sa.Text, nullable=False, comment="queued, running, done, failed or cancelled"
        ),
        sa.Column("problem", sa.Text),
        sa.Column("read_to", sa.Uuid, nullable=False, comment="the last key that is counted"),
        sa.Column(
            "read_until", sa.Uuid, nullable=False, comment="the key at which the period ends"
        ),
        sa.Column("rows_read", sa.BigInteger, nullable=False),
        sa.Column("tally", sa.Text, nullable=False, comment="the counts so far, as JSON"),
        sa.Column("started_at", _timestamp),
        sa.Column("finished_at", _timestamp),
        sa.Column("fence", sa.BigInteger, nullable=False, comment="counts who took it"),
        sa.Column("leased_until", _timestamp),
        sa.Column("attempts", sa.Integer, nullable=False, comment="takes since the last progress"),
        sa.PrimaryKeyConstraint("id", name="what_ifs_pkey"),
    )


def downgrade() -> None:
    for table in ("what_ifs", "shadow_rollup", "shadow_decisions", "shadow_queue"):
        op.drop_table(table)
