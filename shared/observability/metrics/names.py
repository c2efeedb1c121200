"""Every metric of the product: its name, its labels and its help. Nothing else is exported.

Names follow the Prometheus conventions: base units, ``_total`` for counters. No label holds an id,
a client or anything else without bound; each help text lists the values of its labels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

UNKNOWN_ROUTE: Final = "unknown"
"""The route of every path that has none, or a scanner could make a series per request."""


@dataclass(frozen=True)
class Metric:
    """One family of series; each has a value for each of the ``labels``."""

    name: str
    help: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Counter(Metric):
    """Only counts up while the process runs."""


@dataclass(frozen=True)
class Gauge(Metric):
    """A value of this moment."""


@dataclass(frozen=True)
class Histogram(Metric):
    """Counts of values up to each of the ``bounds``, and their sum."""

    bounds: tuple[float, ...] = ()


# --- Every process --------------------------------------------------------------------------------

BUILD_INFO: Final = Gauge(
    "build_info",
    "1. service: inference, history, consumer, batch, batch-worker or dashboard; version: of the"
    " product.",
    ("service", "version"),
)
# prometheus-client reads these where the system has /proc.
PROCESS_CPU: Final = Counter(
    "process_cpu_seconds_total", "Total user and system CPU time spent in seconds."
)
PROCESS_RESIDENT_MEMORY: Final = Gauge(
    "process_resident_memory_bytes", "Resident memory size in bytes."
)
PROCESS_VIRTUAL_MEMORY: Final = Gauge(
    "process_virtual_memory_bytes", "Virtual memory size in bytes."
)
PROCESS_START_TIME: Final = Gauge(
    "process_start_time_seconds",
    "Start time of the process since unix epoch in seconds.",
)
PROCESS_OPEN_FDS: Final = Gauge("process_open_fds", "Number of open file descriptors.")
PROCESS_MAX_FDS: Final = Gauge("process_max_fds", "Maximum number of open file descriptors.")

# --- Every process that answers HTTP --------------------------------------------------------------

HTTP_REQUEST_DURATION: Final = Histogram(
    "http_request_duration_seconds",
    "Time from the arrival of a request to the end of its answer. route: the template of the path,"
    f" {UNKNOWN_ROUTE} for every path that has none, /metrics and the pages of the documentation"
    " too; status: 499 if the client left first.",
    ("method", "route", "status"),
    # Each is at most 1.67 times the one before, so that a quantile between two of them is honest.
    bounds=(
        *(0.0001, 0.00015, 0.0002, 0.0003, 0.0005, 0.0007, 0.001, 0.0015, 0.002, 0.003, 0.005),
        *(0.007, 0.01, 0.015, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7),
        *(1.0, 1.5, 2.0, 3.0, 5.0, 7.0, 10.0),
    ),
)

# --- Inference and history: limits on callers -----------------------------------------------------

RATE_LIMIT_REJECTIONS: Final = Counter(
    "rate_limit_rejections_total",
    "Requests refused because their caller was over a limit. bucket: key for callers with limits of"
    " their own; predict, benchmark or other for anonymous callers.",
    ("bucket",),
)
RATE_LIMIT_DEGRADED: Final = Gauge(
    "rate_limit_degraded",
    "1 while this process counts limits alone, because Redis is away; else 0.",
)

# --- Inference: decisions -------------------------------------------------------------------------

DECISIONS: Final = Counter(
    "decisions_total",
    "Recorded decisions. version: of the bundle; outcome: approved or rejected.",
    ("model", "version", "outcome"),
)
APPROVAL_PROBABILITY: Final = Histogram(
    "decision_approval_probability",
    "Probability of approval of recorded decisions. version: of the bundle.",
    ("model", "version"),
    bounds=tuple(tenths / 10 for tenths in range(1, 11)),
)
IMPUTED_INPUTS: Final = Counter(
    "decision_imputed_inputs_total",
    "Missing values in recorded decisions. input: a scored field of the application.",
    ("input",),
)
WARNINGS: Final = Counter("decision_warnings_total", "Warnings in recorded decisions.")
DECISION_STAGE: Final = Histogram(
    "decision_stage_seconds",
    "Time of each stage of a recorded decision. stage: validate (from the body to an application),"
    " model (to the decision's JSON), publish (until it was recorded).",
    ("stage",),
    bounds=(
        *(0.000005, 0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005),
        *(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
    ),
)
BUNDLE_INFO: Final = Gauge(
    "bundle_info",
    "1. version: of the served bundle; champion: the model that decides if none is named.",
    ("version", "champion"),
)

ROLLOUT_EPOCH: Final = Gauge(
    "rollout_epoch", "Epoch of the roll-out that this process serves; 0 is its own default."
)
ROLLOUT_ACTIVE_EPOCH: Final = Gauge(
    "rollout_active_epoch",
    "Epoch of the roll-out in force, as this process last learnt; 0 if there is none.",
)
ROLLOUT_LOAD_FAILURES: Final = Counter(
    "rollout_load_failures_total", "Roll-outs that this process tried to load and could not."
)

# --- Inference: the hand-over ---------------------------------------------------------------------

PUBLISH_DECISIONS: Final = Counter("publish_decisions_total", "Decisions published.")
PUBLISH_GROUP: Final = Histogram(
    "publish_group_decisions",
    "Decisions in each published group, recorded or not; groups grow with load.",
    bounds=(1, 2, 4, 8, 16, 32, 64),
)
PUBLISH_FALLBACKS: Final = Counter(
    "publish_fallback_decisions_total", "Decisions published by HTTP."
)
PUBLISH_REFUSED: Final = Counter(
    "publish_refused_decisions_total", "Decisions refused because they could not be recorded."
)
PUBLISH_FAILURES: Final = Counter(
    "publish_failures_total",
    "Groups that a sink failed to take. sink: stream (Redis) or http (the history service).",
    ("sink",),
)
IDEMPOTENCY_REPLAYS: Final = Counter(
    "idempotency_replays_total", "Repeated requests that got the first answer again."
)
IDEMPOTENCY_UNPROTECTED: Final = Counter(
    "idempotency_unprotected_decisions_total",
    "Decisions with an Idempotency-Key that were made without Redis, or not remembered there.",
)

# --- History: the stream, as Redis reports it -----------------------------------------------------
# A server that does not answer has no metrics except that it is down.

STREAM_UP: Final = Gauge("stream_up", "1 if Redis answered, else 0.")
STREAM_ENTRIES: Final = Gauge(
    "stream_entries", "Entries not stored yet, each a group of decisions published together."
)
STREAM_LAG: Final = Gauge("stream_lag_entries", "Entries that no consumer has read yet.")
STREAM_PENDING: Final = Gauge(
    "stream_pending_entries", "Entries that a consumer has read and not acknowledged yet."
)
STREAM_OLDEST_PENDING: Final = Gauge(
    "stream_oldest_pending_seconds",
    "Age of the oldest entry that is read and not acknowledged; 0 without any.",
)
STREAM_DEAD_LETTERS: Final = Gauge(
    "stream_dead_letters", "Events that cannot be stored and were moved to the dead letters."
)
STREAM_CONSUMERS: Final = Gauge(
    "stream_consumers", "Consumers that have read the stream within about 20 seconds."
)
REDIS_MEMORY: Final = Gauge("redis_memory_bytes", "Memory that Redis uses.")
REDIS_FULL: Final = Gauge("redis_full", "1 while Redis refuses writes for want of memory, else 0.")
REDIS_MAX_MEMORY: Final = Gauge(
    "redis_max_memory_bytes", "Memory that Redis may use; absent if it has no limit."
)

# --- History: the cache of answers, the database, erasure by age ----------------------------------

CACHE_HITS: Final = Counter("cache_hits_total", "Answers that came from the cache.")
CACHE_MISSES: Final = Counter(
    "cache_misses_total", "Answers that were computed, once for simultaneous requests."
)
CACHE_FAILURES: Final = Counter(
    "cache_failures_total",
    "Failures of Redis to serve the cache, which then pauses for a second.",
)
DATABASE_UP: Final = Gauge("database_up", "1 if PostgreSQL answered, else 0.")
DATABASE_POOL: Final = Gauge(
    "database_pool_connections",
    "Open connections of the service to PostgreSQL. state: idle or in_use.",
    ("state",),
)
DATABASE_SIZE: Final = Gauge("database_size_bytes", "Size of the database on its server's disk.")
DATABASE_BUDGET: Final = Gauge(
    "database_budget_bytes", "DATABASE_BUDGET_BYTES; absent if it is not set."
)
ROLLOUT_GUARD_ACTIONS: Final = Counter(
    "rollout_guard_actions_total", "Candidates whose share the guard of this process took away."
)
RETENTION_ERASED: Final = Counter(
    "history_retention_erased_total",
    "Decisions erased because they were older than RETENTION_DAYS.",
)
RETENTION_FAILURES: Final = Counter(
    "history_retention_failures_total",
    "Attempts to erase old decisions that a failing server interrupted.",
)

# --- History: do the models still hold? -----------------------------------------------------------
# The same in every replica. model and version (of the bundle) are those of recent decisions.

DRIFT_PSI: Final = Gauge(
    "drift_psi",
    "Population stability index of the decisions of the last 30 days against the training data;"
    " absent below 300 decisions. version: of the bundle; input: a field of the application, or"
    " score.",
    ("model", "version", "input"),
)
DRIFT_PSI_LIMIT: Final = Gauge(
    "drift_psi_limit",
    "What the index exceeds by chance in at most about 5 % of such samples; 0.1 or more. version:"
    " of the bundle; input: as for the index.",
    ("model", "version", "input"),
)
EXPECTED_ACCURACY: Final = Gauge(
    "expected_accuracy_ratio",
    "Accuracy of the decisions of the last 30 days as their own probabilities say; an estimate."
    " version: of the bundle.",
    ("model", "version"),
)
OUTCOMES_KNOWN: Final = Gauge(
    "outcomes_known",
    "Good and bad outcomes of decisions of this month and the twelve before. version: of the"
    " bundle.",
    ("model", "version"),
)
OUTCOME_GOOD: Final = Gauge(
    "outcome_good_ratio",
    "Share of good ones among those; absent below 100. version: of the bundle; bound: value, or low"
    " and high of its 95 % interval.",
    ("model", "version", "bound"),
)
OUTCOME_EXPECTED_GOOD: Final = Gauge(
    "outcome_expected_good_ratio",
    "The share of good ones that the probabilities of the same decisions said. version: of the"
    " bundle.",
    ("model", "version"),
)
FAIRNESS_RATIO: Final = Gauge(
    "fairness_selection_rate_ratio",
    "Approval rate of a group over that of the largest one, in the last 30 days; absent below 30"
    " decisions. version: of the bundle; attribute: a monitored field; group: one of its values,"
    " other or not known; bound: value, low or high.",
    ("model", "version", "attribute", "group", "bound"),
)
FAIRNESS_SCREEN: Final = Gauge("fairness_screen_ratio", "FAIRNESS_SCREEN.")

# --- Consumer -------------------------------------------------------------------------------------

CONSUMER_ROWS: Final = Counter(
    "consumer_rows_total", "Decisions stored, each counted once however often it was delivered."
)
CONSUMER_BATCH: Final = Histogram(
    "consumer_batch_rows",
    "Decisions in each committed transaction.",
    bounds=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
)
CONSUMER_COMMIT: Final = Histogram(
    "consumer_commit_seconds",
    "Time of each transaction, from the request for a connection to the commit.",
    bounds=(
        *(0.001, 0.002, 0.003, 0.005, 0.007, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.2, 0.3, 0.5),
        *(1.0, 2.0, 5.0, 10.0, 30.0),
    ),
)
CONSUMER_DATABASE_FAILURES: Final = Counter(
    "consumer_database_failures_total",
    "Failed transactions. reason: disk_full; connections (none available, or it broke); refused"
    " (the values, so that each event is then stored alone); other.",
    ("reason",),
)
CONSUMER_DEAD_LETTERS: Final = Counter(
    "consumer_dead_letters_total",
    "Events that cannot be stored and were moved to the dead letters.",
)
CONSUMER_TAKEN_OVER: Final = Counter(
    "consumer_taken_over_entries_total",
    "Entries taken over from a consumer that did not acknowledge them.",
)
CONSUMER_LAST_COMMIT: Final = Gauge(
    "consumer_last_commit_timestamp_seconds",
    "Time of the last commit, in seconds since the epoch; 0 before the first.",
)

# --- Batches: the worker --------------------------------------------------------------------------

BATCH_ACTIVE: Final = Gauge("batch_active", "Batches that this worker has a turn for right now.")
BATCH_DECISIONS: Final = Counter(
    "batch_decisions_total", "Rows of batches that were decided, recorded or not."
)
BATCH_FAULTY_ROWS: Final = Counter(
    "batch_faulty_rows_total", "Rows of batches that cannot be decided."
)
BATCH_ENDED: Final = Counter(
    "batch_ended_total", "Batches that came to their end. state: done or failed.", ("state",)
)
BATCH_FAILURES: Final = Counter(
    "batch_failed_turns_total",
    "Turns of a batch that ended in an error; another one begins where it stopped.",
)
BATCH_LOST: Final = Counter(
    "batch_lost_turns_total",
    "Turns of a batch that ended because another worker has it, or it was cancelled.",
)
BATCH_WAITED: Final = Counter(
    "batch_stream_wait_seconds_total", "Time that batches waited for room on the stream."
)
BATCH_WEBHOOKS: Final = Counter(
    "batch_webhooks_total",
    "Attempts to report the end of a batch. outcome: delivered or failed.",
    ("outcome",),
)
BATCH_SHADOWED: Final = Counter(
    "batch_shadowed_decisions_total",
    "Decisions on record that every shadow of their roll-out has scored.",
)
BATCH_WHAT_IF: Final = Counter(
    "batch_what_if_decisions_total", "Decisions on record that what-ifs have read."
)
BATCH_SEEN: Final = Gauge(
    "batch_worker_seen_timestamp_seconds",
    "Time at which the worker last looked for something to do, in seconds since the epoch.",
)

# --- Who exports what -----------------------------------------------------------------------------

PROCESS: Final[tuple[Metric, ...]] = (
    PROCESS_CPU,
    PROCESS_RESIDENT_MEMORY,
    PROCESS_VIRTUAL_MEMORY,
    PROCESS_START_TIME,
    PROCESS_OPEN_FDS,
    PROCESS_MAX_FDS,
)
OF_RECENT_DECISIONS: Final[tuple[Metric, ...]] = (
    DRIFT_PSI,
    DRIFT_PSI_LIMIT,
    EXPECTED_ACCURACY,
    OUTCOMES_KNOWN,
    OUTCOME_GOOD,
    OUTCOME_EXPECTED_GOOD,
    FAIRNESS_RATIO,
)
"""Absent while there are too few of them."""
_HTTP: Final[tuple[Metric, ...]] = (BUILD_INFO, *PROCESS, HTTP_REQUEST_DURATION)
_LIMITS: Final[tuple[Metric, ...]] = (RATE_LIMIT_REJECTIONS, RATE_LIMIT_DEGRADED)
_DECIDES: Final[tuple[Metric, ...]] = (
    DECISIONS,
    APPROVAL_PROBABILITY,
    IMPUTED_INPUTS,
    WARNINGS,
    DECISION_STAGE,
    ROLLOUT_EPOCH,
    ROLLOUT_ACTIVE_EPOCH,
    ROLLOUT_LOAD_FAILURES,
    PUBLISH_DECISIONS,
    PUBLISH_GROUP,
    PUBLISH_FALLBACKS,
    PUBLISH_REFUSED,
    PUBLISH_FAILURES,
)

EXPORTED: Final[Mapping[str, tuple[Metric, ...]]] = {
    "inference": (
        *_HTTP,
        *_LIMITS,
        *_DECIDES,
        BUNDLE_INFO,
        IDEMPOTENCY_REPLAYS,
        IDEMPOTENCY_UNPROTECTED,
    ),
    "history": (
        *_HTTP,
        *_LIMITS,
        STREAM_UP,
        STREAM_ENTRIES,
        STREAM_LAG,
        STREAM_PENDING,
        STREAM_OLDEST_PENDING,
        STREAM_DEAD_LETTERS,
        STREAM_CONSUMERS,
        REDIS_MEMORY,
        REDIS_FULL,
        REDIS_MAX_MEMORY,
        CACHE_HITS,
        CACHE_MISSES,
        CACHE_FAILURES,
        DATABASE_UP,
        DATABASE_POOL,
        DATABASE_SIZE,
        DATABASE_BUDGET,
        ROLLOUT_GUARD_ACTIONS,
        RETENTION_ERASED,
        RETENTION_FAILURES,
        FAIRNESS_SCREEN,
        *OF_RECENT_DECISIONS,
    ),
    "consumer": (
        BUILD_INFO,
        *PROCESS,
        CONSUMER_ROWS,
        CONSUMER_BATCH,
        CONSUMER_COMMIT,
        CONSUMER_DATABASE_FAILURES,
        CONSUMER_DEAD_LETTERS,
        CONSUMER_TAKEN_OVER,
        CONSUMER_LAST_COMMIT,
    ),
    "batch": (*_HTTP, *_LIMITS),
    "batch-worker": (
        BUILD_INFO,
        *PROCESS,
        *_DECIDES,
        BATCH_ACTIVE,
        BATCH_DECISIONS,
        BATCH_FAULTY_ROWS,
        BATCH_ENDED,
        BATCH_FAILURES,
        BATCH_LOST,
        BATCH_WAITED,
        BATCH_WEBHOOKS,
        BATCH_SHADOWED,
        BATCH_WHAT_IF,
        BATCH_SEEN,
    ),
    "dashboard": _HTTP,
}
"""The metrics of each process, by its name in ``build_info``."""

BY_NAME: Final[Mapping[str, Metric]] = {
    metric.name: metric for metrics in EXPORTED.values() for metric in metrics
}
