"""Batches of applications, in a schema of their own: its tables are the batch service's."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_STATEMENTS = """
CREATE SCHEMA batch;

CREATE TABLE batch.batches (
    id uuid PRIMARY KEY,
    client text NOT NULL,
    key_digest bytea,
    request_digest bytea NOT NULL,
    kind text NOT NULL CHECK (kind IN ('csv', 'ndjson', 'parquet', 'xlsx')),
    model text NOT NULL,
    bundle_version text NOT NULL,
    record boolean NOT NULL,
    faulty_rows text NOT NULL CHECK (faulty_rows IN ('skip', 'stop')),
    spellings text[] NOT NULL,
    webhook text,
    first_id uuid NOT NULL,
    last_id uuid NOT NULL,
    state text NOT NULL DEFAULT 'queued' CHECK (
        state IN ('queued', 'checking', 'running', 'done', 'failed', 'cancelled')
    ),
    active boolean NOT NULL GENERATED ALWAYS AS (state IN ('queued', 'checking', 'running')) STORED,
    problem text,
    remarks text[] NOT NULL DEFAULT '{}',
    rows integer NOT NULL DEFAULT 0,
    faulty integer NOT NULL DEFAULT 0,
    decided integer NOT NULL DEFAULT 0,
    approved integer NOT NULL DEFAULT 0,
    with_warnings integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    finished_at timestamptz,
    fence bigint NOT NULL DEFAULT 0,
    leased_until timestamptz,
    served_at timestamptz,
    attempts integer NOT NULL DEFAULT 0,
    webhook_due timestamptz,
    webhook_attempts integer NOT NULL DEFAULT 0,
    UNIQUE (client, key_digest)
);
COMMENT ON COLUMN batch.batches.first_id IS 'ids of the decisions begin and end with these two';
COMMENT ON COLUMN batch.batches.fence IS 'counts who took the batch; a write names its number';
COMMENT ON COLUMN batch.batches.attempts IS 'takes since the last progress';
CREATE INDEX ON batch.batches (client, id);
CREATE INDEX ON batch.batches (first_id);
CREATE INDEX ON batch.batches (client, served_at) WHERE active;
CREATE INDEX ON batch.batches (webhook_due) WHERE webhook_due IS NOT NULL;
CREATE INDEX ON batch.batches (finished_at);

CREATE TABLE batch.uploads (
    batch_id uuid NOT NULL REFERENCES batch.batches ON DELETE CASCADE,
    number integer NOT NULL,
    content bytea NOT NULL,
    PRIMARY KEY (batch_id, number)
);

CREATE TABLE batch.chunks (
    batch_id uuid NOT NULL REFERENCES batch.batches ON DELETE CASCADE,
    number integer NOT NULL,
    state text NOT NULL CHECK (state IN ('checked', 'decided', 'done')),
    version integer NOT NULL DEFAULT 0,
    first_line integer NOT NULL,
    last_line integer NOT NULL,
    content bytea NOT NULL,
    faults bytea NOT NULL,
    PRIMARY KEY (batch_id, number)
);
COMMENT ON COLUMN batch.chunks.version IS 'counts erasures in it';
COMMENT ON COLUMN batch.chunks.content IS 'its applications, then its decisions; zlib';
ALTER TABLE batch.chunks ALTER COLUMN content SET STORAGE EXTERNAL;
ALTER TABLE batch.chunks ALTER COLUMN faults SET STORAGE EXTERNAL;

CREATE TABLE batch.erasures (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    noted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    prediction_id uuid,
    loan_id text,
    CHECK (num_nonnulls(prediction_id, loan_id) = 1)
);
COMMENT ON TABLE batch.erasures IS 'what the history erased and the batches do not hold any longer';
"""


def upgrade() -> None:
    for statement in _STATEMENTS.split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("The batches would be lost.")
