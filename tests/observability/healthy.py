"""A healthy system as the series that its processes export; scenarios change it."""

from collections.abc import Mapping
from typing import Final

PREDICT: Final = 'job="inference",instance="a:8000",method="POST",route="/predict"'
DECIDED: Final = 'decisions_total{job="inference",model="gradient_boosting",version="b-1"'
IMPUTED: Final = "decision_imputed_inputs_total"
OF_MODEL: Final = 'job="history",model="gradient_boosting",version="b-1"'
OF_GROUP: Final = f'{OF_MODEL},attribute="Gender",group="Female"'
DISK_FULL: Final = 'consumer_database_failures_total{job="history-consumer",reason="disk_full"}'

# In the notation of promtool: start+step x times. A step is a minute.
HEALTHY: Final[Mapping[str, str]] = {
    'up{job="inference",instance="a:8000"}': "1x400",
    'up{job="inference",instance="b:8000"}': "1x400",
    'up{job="history",instance="c:8001"}': "1x400",
    'up{job="history-consumer",instance="d:8003"}': "1x400",
    'up{job="batch",instance="f:8004"}': "1x400",
    'up{job="batch-worker",instance="g:8005"}': "1x400",
    'up{job="dashboard",instance="e:8002"}': "1x400",
    f'http_request_duration_seconds_count{{{PREDICT},status="200"}}': "0+600x400",
    f'http_request_duration_seconds_count{{{PREDICT},status="503"}}': "0x400",
    f'http_request_duration_seconds_bucket{{{PREDICT},status="200",le="0.01"}}': "0+590x400",
    f'http_request_duration_seconds_bucket{{{PREDICT},status="200",le="0.1"}}': "0+599x400",
    f'http_request_duration_seconds_bucket{{{PREDICT},status="200",le="0.25"}}': "0+600x400",
    f'http_request_duration_seconds_bucket{{{PREDICT},status="200",le="+Inf"}}': "0+600x400",
    f'{DECIDED},outcome="approved"}}': "0+420x400",
    f'{DECIDED},outcome="rejected"}}': "0+180x400",
    f'{IMPUTED}{{job="inference",input="Credit_History"}}': "0+48x400",
    'bundle_info{job="inference",instance="a:8000",version="b-1"}': "1x400",
    'bundle_info{job="inference",instance="b:8000",version="b-1"}': "1x400",
    'rollout_epoch{job="inference",instance="a:8000"}': "3x400",
    'rollout_active_epoch{job="inference",instance="a:8000"}': "3x400",
    'rollout_load_failures_total{job="inference",instance="a:8000"}': "0x400",
    'rollout_guard_actions_total{job="history",instance="a:8001"}': "0x400",
    'publish_refused_decisions_total{job="inference"}': "0x400",
    'publish_fallback_decisions_total{job="inference"}': "0x400",
    'rate_limit_degraded{job="inference"}': "0x400",
    'rate_limit_degraded{job="history"}': "0x400",
    'stream_up{job="history"}': "1x400",
    'stream_lag_entries{job="history"}': "3x400",
    'stream_pending_entries{job="history"}': "2x400",
    'stream_oldest_pending_seconds{job="history"}': "0.2x400",
    'stream_dead_letters{job="history"}': "0x400",
    'consumer_last_commit_timestamp_seconds{job="history-consumer"}': "0+60x400",
    DISK_FULL: "0x400",
    'batch_worker_seen_timestamp_seconds{job="batch-worker"}': "0+60x400",
    'batch_failed_turns_total{job="batch-worker"}': "0x400",
    'database_up{job="history"}': "1x400",
    'database_size_bytes{job="history"}': "1000000000+100000x400",
    'database_budget_bytes{job="history"}': "100000000000x400",
    'redis_memory_bytes{job="history"}': "100000000x400",
    'redis_max_memory_bytes{job="history"}': "402653184x400",
    'redis_full{job="history"}': "0x400",
    f'drift_psi{{{OF_MODEL},input="LoanAmount"}}': "0.04x400",
    f'drift_psi_limit{{{OF_MODEL},input="LoanAmount"}}': "0.1x400",
    f'outcome_good_ratio{{{OF_MODEL},bound="low"}}': "0.78x400",
    f'outcome_good_ratio{{{OF_MODEL},bound="high"}}': "0.86x400",
    f"outcome_expected_good_ratio{{{OF_MODEL}}}": "0.81x400",
    f'fairness_selection_rate_ratio{{{OF_GROUP},bound="low"}}': "0.79x400",
    f'fairness_selection_rate_ratio{{{OF_GROUP},bound="high"}}': "0.95x400",
    'fairness_screen_ratio{job="history"}': "0.8x400",
}

# The same for the alerts that compare with a week; a step is ten minutes.
WEEK: Final = {
    f'{DECIDED},outcome="approved"}}': "0+28x1500",
    f'{DECIDED},outcome="rejected"}}': "0+12x1500",
    f'{IMPUTED}{{job="inference",input="Credit_History"}}': "0+4x1500",
    **{series: "1x1500" for series in HEALTHY if series.startswith("up{")},
}
