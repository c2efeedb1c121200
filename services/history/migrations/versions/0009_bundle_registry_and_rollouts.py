"""Who published and retired which bundle, the roll-outs, and the replicas that follow them."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_timestamp = sa.DateTime(timezone=True)


def upgrade() -> None:
    for column in (
        sa.Column("published_at", _timestamp),
        sa.Column("published_by", sa.Text, comment="a client's name"),
        sa.Column("retired_at", _timestamp),
        sa.Column("retired_by", sa.Text, comment="a client's name"),
    ):
        op.add_column("bundles", column)
    op.create_table(
        "rollouts",
        sa.Column("epoch", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("proposed_at", _timestamp, nullable=False),
        sa.Column("proposed_by", sa.Text, nullable=False, comment="a client's name, or guard"),
        sa.Column("change", sa.Text, nullable=False, comment="set, promote or roll back"),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("experiment", sa.Text),
        sa.Column("content", sa.Text, nullable=False, comment="JSON, as replicas get it"),
        sa.PrimaryKeyConstraint("epoch", name="rollouts_pkey"),
    )
    op.create_table(
        "rollout_states",
        sa.Column("epoch", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reached_at", _timestamp, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("why", sa.Text),
        sa.PrimaryKeyConstraint("epoch", "state", name="rollout_states_pkey"),
    )
    for table in ("rollouts", "rollout_states"):
        op.execute(f"""
            CREATE TRIGGER {table}_are_append_only
            BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}
            FOR EACH STATEMENT EXECUTE FUNCTION refuse_to_change_rows()
        """)
    op.create_table(
        "replicas",
        sa.Column("replica", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False, comment="what it decides by"),
        sa.Column("ready", sa.BigInteger, comment="what it has loaded"),
        sa.Column("failed", sa.BigInteger, comment="what it cannot load"),
        sa.Column("failure", sa.Text, comment="why"),
        sa.Column("seen_at", _timestamp, nullable=False),
        sa.PrimaryKeyConstraint("replica", name="replicas_pkey"),
        postgresql_with={"fillfactor": 50},
    )


def downgrade() -> None:
    raise NotImplementedError("Roll-outs are kept.")
