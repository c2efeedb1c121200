"""The tables: decisions, outcomes, the counts of both, bundles, roll-outs and the audit log.

A migration brings a database to this shape; a test holds the two against each other.
"""

from collections.abc import Iterable
from typing import Any, Final, TypeAlias

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ColumnElement,
    Date,
    DateTime,
    Double,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Row,
    SmallInteger,
    Table,
    Text,
    Uuid,
    func,
    literal_column,
)
from sqlalchemy.dialects.postgresql import ARRAY

from shared.contract.application import FIELDS

HISTOGRAM_BUCKETS: Final = 20
"""Equal buckets of confidence over 0 to 1; the last one includes 1."""

MISSING: Final = "missing"
"""Stands for an input that was not given in a roll-up's key, for a key cannot be null."""

AnyRow: TypeAlias = Row[*tuple[Any, ...]]
"""A row of whichever columns the query names."""

metadata = MetaData(
    naming_convention={"pk": "%(table_name)s_pkey", "ix": "%(table_name)s_%(column_0_N_name)s_idx"}
)

_timestamp = DateTime(timezone=True)

_INPUT_TYPES: Final = {float: Double, int: SmallInteger, str: Text}


def _inputs(value_type: type) -> list[Column[Any]]:
    # Nullable even where an application must have the input: an erased row has none.
    return [
        Column(field.column, _INPUT_TYPES[value_type])
        for field in FIELDS
        if field.value_type is value_type
    ]


# Fixed-width columns come first: PostgreSQL then pads nothing between them.
predictions = Table(
    "predictions",
    metadata,
    # A UUID of version 7 sorts by time, so the key alone serves paging and time ranges.
    Column("id", Uuid, primary_key=True),
    Column("decided_at", _timestamp, nullable=False),
    Column("recorded_at", _timestamp, nullable=False, server_default=func.now()),
    Column("confidence", Double, nullable=False),
    Column("probability_approved", Double, nullable=False),
    Column("probability_rejected", Double, nullable=False),
    Column("model_accuracy", Double, nullable=False),
    *_inputs(float),
    *_inputs(int),
    Column("prediction", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("bundle_version", Text, nullable=False),
    Column("client", Text, nullable=False),
    Column("request_id", Text),
    *_inputs(str),
    # Null where empty: an empty array would take 13 bytes.
    Column("imputed", ARRAY(Text)),
    Column("warnings", ARRAY(Text)),
    # Null in most rows, where they take no room, so it does not matter where they stand.
    Column(
        "derived_id",
        Uuid,
        comment="The decision's id where that does not sort by time; id is made from it then.",
    ),
    Column("erased_at", _timestamp),
    Column("reasons", Text, comment="codes and contributions, as history/reasons.py packs them"),
    Column("arm", Text, comment="the arm of a roll-out that decided"),
)

_personal_inputs: Final = {field.column for field in FIELDS if field.personal}

PERSONAL: Final = tuple(
    column.name
    for column in predictions.columns
    if column.name in _personal_inputs | {"request_id", "reasons"}
)
"""The columns that are a person's, or lead to one; an erased row has null in each."""

_required: Final = (*(field.column for field in FIELDS if field.required), "request_id")

predictions.append_constraint(
    CheckConstraint(
        "CASE WHEN erased_at IS NULL"
        f" THEN {' AND '.join(f'{name} IS NOT NULL' for name in _required)}"
        f" ELSE num_nonnulls({', '.join(PERSONAL)}) = 0 END",
        name="predictions_erased_check",
    )
)

WARNINGS: Final[ColumnElement[int]] = literal_column("coalesce(cardinality(warnings), 0)", Integer)
"""How many warnings a decision came with."""

CONFIDENCE_PER_MILLE: Final[ColumnElement[int]] = literal_column(
    "CAST(trunc(confidence * 1000) AS SMALLINT)", SmallInteger
)
"""The confidence in whole thousandths, rounded down."""

# Without the key, which would only sort the few decisions of one loan, at half the width. A loan
# with so many that sorting takes time is so frequent that walking the key backwards finds a page.
Index(
    "predictions_loan_id_idx",
    predictions.c.loan_id,
    postgresql_where=predictions.c.loan_id.isnot(None),
)

# Whoever stores a decision again finds it by this, whatever time the repetition bears.
Index(
    "predictions_derived_id_idx",
    predictions.c.derived_id,
    unique=True,
    postgresql_where=predictions.c.derived_id.isnot(None),
)

# Walking the key backwards finds a page of any frequent value at once. What it would search in
# vain is a rare or absent value. Of the columns with few values, this index of a few kilobytes per
# million rows rules out the blocks that cannot hold it.
Index(
    "predictions_filters_idx",
    predictions.c.model,
    predictions.c.prediction,
    WARNINGS,
    postgresql_using="brin",
    postgresql_with={"pages_per_range": 32, "autosummarize": True},
    _table=predictions,
)

# Confidences are spread over every block, so no block can be ruled out; but their thousandths
# are so few that the index stores each once, with a list of rows of six bytes each.
Index("predictions_confidence_idx", CONFIDENCE_PER_MILLE, _table=predictions)

# Kept per UTC hour and over all time, so that no answer adds up more than a few dozen rows however
# long the history is. The fill factor leaves room to update in place.
prediction_rollup = Table(
    "prediction_rollup",
    metadata,
    Column("period", Text, primary_key=True, comment="hour or all"),
    Column("starts_at", _timestamp, primary_key=True, comment="the epoch for all"),
    Column("model", Text, primary_key=True),
    Column("bundle_version", Text, primary_key=True),
    Column("prediction", Text, primary_key=True),
    Column("predictions", BigInteger, nullable=False),
    Column("with_warnings", BigInteger, nullable=False),
    Column("confidence_sum", Double, nullable=False),
    Column("confidence_histogram", ARRAY(BigInteger), nullable=False),
    postgresql_with={"fillfactor": 50},
)

applicant_rollup = Table(
    "applicant_rollup",
    metadata,
    Column("property_area", Text, primary_key=True),
    Column("credit_history", Text, primary_key=True),
    Column("prediction", Text, primary_key=True),
    Column("predictions", BigInteger, nullable=False),
    Column("confidence_sum", Double, nullable=False),
    postgresql_with={"fillfactor": 50},
)

daily_rollup = Table(
    "daily_rollup",
    metadata,
    Column("day", Date, primary_key=True, comment="of UTC"),
    Column("model", Text, primary_key=True),
    Column("bundle_version", Text, primary_key=True),
    Column("arm", Text, primary_key=True, comment="of a roll-out; empty without one"),
    Column("client", Text, primary_key=True),
    Column("prediction", Text, primary_key=True),
    Column("layout", Text, primary_key=True, comment="names and sizes, in their order in counts"),
    Column("predictions", BigInteger, nullable=False),
    Column("with_warnings", BigInteger, nullable=False),
    Column("confidence_sum", Double, nullable=False),
    Column("counts", ARRAY(BigInteger), nullable=False, comment="histograms, end to end"),
    postgresql_with={"fillfactor": 50},
)

# Rows are only ever added: a trigger refuses everything else. The ids have no gap.
audit_log = Table(
    "audit_log",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("occurred_at", _timestamp, nullable=False),
    Column("actor", Text, nullable=False, comment="a client's name, or retention"),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("details", Text, nullable=False, comment="a JSON object, hashed as it stands here"),
    Column("previous_hash", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
)

# What became of the loans, as it was reported. Rows are only ever added, as in the audit log.
outcomes = Table(
    "outcomes",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("decision", Uuid, nullable=False, comment="the key of its row in predictions"),
    Column("observed_at", _timestamp, nullable=False),
    Column("matures_at", _timestamp),
    Column("recorded_at", _timestamp, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("source", Text, comment="the system that reported it, never a person"),
)

# The same report again is found by this, and all reports of one decision.
Index(
    "outcomes_report_idx",
    *(outcomes.c[name] for name in ("decision", "observed_at", "outcome", "matures_at", "source")),
    unique=True,
    postgresql_nulls_not_distinct=True,
)

# Of each decision the outcome that holds: the one observed last, of those the one recorded last.
# It follows from ``outcomes``; kept so that the filters of the history find their rows.
current_outcomes = Table(
    "current_outcomes",
    metadata,
    Column("decision", Uuid, primary_key=True),
    Column("observed_at", _timestamp, nullable=False),
    Column("outcome", Text, nullable=False),
)
Index(
    "current_outcomes_outcome_idx",
    current_outcomes.c.outcome,
    current_outcomes.c.decision,
)


def _outcome_rollup(name: str, *detail: Column[Any], sums: Iterable[str] = ()) -> Table:
    """Counts of current outcomes per UTC month of the decision, model and ``detail``."""
    return Table(
        name,
        metadata,
        Column("month", Date, primary_key=True, comment="the first day of it"),
        Column("model", Text, primary_key=True),
        Column("bundle_version", Text, primary_key=True),
        Column("prediction", Text, primary_key=True),
        Column("outcome", Text, primary_key=True),
        *detail,
        Column("outcomes", BigInteger, nullable=False),
        *(Column(name, BigInteger, nullable=False, comment="in billionths") for name in sums),
        postgresql_with={"fillfactor": 50},
    )


PROBABILITY_BINS: Final = 1000
"""Equal bins of the probability of approval over 0 to 1; the last one includes 1."""

outcome_bins = _outcome_rollup(
    "outcome_bins",
    Column("bin", SmallInteger, primary_key=True, autoincrement=False),
    sums=("probability_sum", "log_loss_sum"),
)
outcome_groups = _outcome_rollup(
    "outcome_groups",
    Column("attribute", Text, primary_key=True, comment="an input's column"),
    Column("value", Text, primary_key=True),
)
outcome_vintages = _outcome_rollup(
    "outcome_vintages",
    Column(
        "months_on_book",
        SmallInteger,
        primary_key=True,
        autoincrement=False,
        comment="calendar months from the decision to the observation",
    ),
)

# The bundles that were published, or are served and so registered by the inference service.
bundles = Table(
    "bundles",
    metadata,
    Column("version", Text, primary_key=True),
    Column("registered_at", _timestamp, nullable=False, server_default=func.now()),
    Column("manifest", Text, nullable=False, comment="JSON, as it was registered"),
    Column("published_at", _timestamp),
    Column("published_by", Text, comment="a client's name"),
    Column("retired_at", _timestamp),
    Column("retired_by", Text, comment="a client's name"),
)

# Which models decide. Rows of both tables are only ever added, as in the audit log: a roll-out
# changes its state by a further row.
rollouts = Table(
    "rollouts",
    metadata,
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("proposed_at", _timestamp, nullable=False),
    Column("proposed_by", Text, nullable=False, comment="a client's name, or guard"),
    Column("change", Text, nullable=False, comment="set, promote or roll back"),
    Column("reason", Text, nullable=False),
    Column("experiment", Text),
    Column("content", Text, nullable=False, comment="JSON, as replicas get it"),
)
rollout_states = Table(
    "rollout_states",
    metadata,
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("state", Text, primary_key=True),
    Column("reached_at", _timestamp, nullable=False),
    Column("actor", Text, nullable=False),
    Column("why", Text),
)

# How each process that decides stood when it reported last.
replicas = Table(
    "replicas",
    metadata,
    Column("replica", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("epoch", BigInteger, nullable=False, comment="what it decides by"),
    Column("ready", BigInteger, comment="what it has loaded"),
    Column("failed", BigInteger, comment="what it cannot load"),
    Column("failure", Text, comment="why"),
    Column("seen_at", _timestamp, nullable=False),
    Column("bundle", Text, comment="that decides by default; null: of a version before"),
    postgresql_with={"fillfactor": 50},
)

# Decisions that the shadows of a roll-out have still to score, queued as they are stored.
shadow_queue = Table(
    "shadow_queue",
    metadata,
    Column("decision", Uuid, primary_key=True, comment="the key of its row in predictions"),
    Column("epoch", BigInteger, nullable=False, comment="of the roll-out then in force"),
    # Every row is deleted soon.
    postgresql_with={"autovacuum_vacuum_scale_factor": 0, "autovacuum_vacuum_threshold": 10_000},
)

# What a shadow would have decided. It is about a decision, and goes when that is erased.
shadow_decisions = Table(
    "shadow_decisions",
    metadata,
    Column("decision", Uuid, primary_key=True, comment="the key of its row in predictions"),
    Column("probability_approved", Double, nullable=False),
    Column("approved", Boolean, nullable=False),
    Column("bundle", Text, primary_key=True),
    Column("model", Text, primary_key=True),
)

# How often a shadow agreed with what decided, and who would have been decided otherwise. The counts
# of each attribute have the same sum.
shadow_rollup = Table(
    "shadow_rollup",
    metadata,
    Column("day", Date, primary_key=True, comment="of the decision, UTC"),
    Column("bundle", Text, primary_key=True, comment="of the shadow"),
    Column("model", Text, primary_key=True),
    Column("decider_bundle", Text, primary_key=True),
    Column("decider_model", Text, primary_key=True),
    Column("attribute", Text, primary_key=True, comment="score, an input's column, or unscored"),
    Column("value", Text, primary_key=True, comment="a band of the score, or the input's value"),
    Column("decided", Text, primary_key=True),
    Column("instead", Text, primary_key=True, comment="what the shadow would have decided"),
    Column("decisions", BigInteger, nullable=False),
    postgresql_with={"fillfactor": 50},
)

# What-ifs, and how far a worker has read the decisions for each.
what_ifs = Table(
    "what_ifs",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("created_at", _timestamp, nullable=False),
    Column("created_by", Text, nullable=False, comment="a client's name"),
    Column("content", Text, nullable=False, comment="the order, as JSON"),
    Column("expected_rows", BigInteger, nullable=False, comment="in the period, when it was asked"),
    Column("state", Text, nullable=False, comment="queued, running, done, failed or cancelled"),
    Column("problem", Text),
    Column("read_to", Uuid, nullable=False, comment="the last key that is counted"),
    Column("read_until", Uuid, nullable=False, comment="the key at which the period ends"),
    Column("rows_read", BigInteger, nullable=False),
    Column("tally", Text, nullable=False, comment="the counts so far, as JSON"),
    Column("started_at", _timestamp),
    Column("finished_at", _timestamp),
    Column("fence", BigInteger, nullable=False, comment="counts who took it"),
    Column("leased_until", _timestamp),
    Column("attempts", Integer, nullable=False, comment="takes since the last progress"),
)
