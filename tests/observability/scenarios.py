"""When each alert fires, and when it does not, as files for ``promtool test rules``.

Every scenario is the healthy system with something changed, and states *all* alerts that fire then;
so each scenario also shows of every other alert that it does not fire.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.observability.files import GROUPS
from tests.observability.healthy import (
    DECIDED,
    DISK_FULL,
    HEALTHY,
    IMPUTED,
    OF_GROUP,
    OF_MODEL,
    PREDICT,
    WEEK,
)

_CHANGES_AT: Final = 75
"""Steps before the healthy system changes; until then no alert fires.

The longest that an alert waits for, or looks back by the minute, is 75 minutes.
"""

_STOOD_STILL: Final = f"{_CHANGES_AT * 60}x300"
"""The time of the change, which a timestamp keeps from then on."""

_FIRING: Final = 'group by (alertname) (ALERTS{alertstate="firing"})'


@dataclass(frozen=True)
class Scenario:
    """The healthy system, with ``changes`` at ``changes_at``: other values, or None for gone.

    ``fires`` are all the alerts that fire ``within`` so many steps; one step before ``not_within``
    none does. Values come by the ``step``; rules are ``evaluated`` as often, or less.
    """

    name: str
    changes: Mapping[str, str | None]
    fires: frozenset[str]
    within: int = 10
    not_within: int = 0
    healthy: Mapping[str, str] = field(default_factory=lambda: HEALTHY)
    step: str = "1m"
    evaluated: str = "1m"
    changes_at: int = _CHANGES_AT

    def file(self, rules: Path) -> str:
        """Return the scenario in promtool's format."""
        test = {
            "name": self.name,
            "interval": self.step,
            "input_series": [
                {"series": series, "values": values} for series, values in self._series()
            ],
            "promql_expr_test": [
                self._expected(self.changes_at, frozenset()),
                self._expected(self.changes_at + self.not_within, frozenset()),
                self._expected(self.changes_at + self.within, self.fires),
            ],
        }
        return json.dumps(
            {
                "rule_files": [str(rules)],
                "evaluation_interval": self.evaluated,
                # Alerts use recorded series; without an order, groups would run in any order.
                "group_eval_order": GROUPS,
                "tests": [test],
            }
        )

    def _series(self) -> list[tuple[str, str]]:
        unchanged = {s: values for s, values in self.healthy.items() if s not in self.changes}
        changed = {
            series: self._then(self.healthy.get(series), values)
            for series, values in self.changes.items()
        }
        return list((unchanged | changed).items())

    def _then(self, before: str | None, after: str | None) -> str:
        """Values up to the change and from then on; ``_`` is no sample."""
        until = self.changes_at
        first = f"_x{until}" if before is None else f"{before.rpartition('x')[0]}x{until}"
        # When a target disappears, its series end at once.
        return f"{first} {'stale' if after is None else after}"

    def _expected(self, at: int, alerts: frozenset[str]) -> dict[str, Any]:
        return {
            "expr": _FIRING,
            "eval_time": f"{at * int(self.step[:-1])}{self.step[-1]}",
            "exp_samples": [
                {"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in sorted(alerts)
            ],
        }


def _counted(rate: int, *, before: int) -> str:
    """A counter that goes on from ``before`` a step until the change by ``rate`` a step."""
    return f"{before * _CHANGES_AT + rate}+{rate}x300"


def _all(prefix: str, values: str | None) -> dict[str, str | None]:
    return {series: values for series in HEALTHY if series.startswith(prefix)}


# For the alerts that compare with a week, a step is ten minutes. Rules are evaluated every half
# hour, which is as long as these alerts wait.
_STEPS_IN_8_DAYS: Final = 8 * 24 * 6


def _week(
    name: str, changes: Mapping[str, str | None], *alerts: str, begun: int = _STEPS_IN_8_DAYS
) -> Scenario:
    return Scenario(
        name,
        changes,
        frozenset(alerts),
        within=42,
        not_within=3,
        healthy=WEEK,
        step="10m",
        evaluated="30m",
        changes_at=begun,
    )


def _decided(
    *, approved: int, rejected: int, begun: int = _STEPS_IN_8_DAYS
) -> dict[str, str | None]:
    return {
        f'{DECIDED},outcome="approved"}}': f"{28 * begun + approved}+{approved}x300",
        f'{DECIDED},outcome="rejected"}}': f"{12 * begun + rejected}+{rejected}x300",
    }


def _fires(
    *alerts: str,
    when: str,
    changes: Mapping[str, str | None],
    within: int = 10,
    not_within: int = 0,
) -> Scenario:
    return Scenario(when, changes, frozenset(alerts), within=within, not_within=not_within)


SCENARIOS: Final = (
    _fires(when="healthy", changes={}, within=315),
    _fires(
        "DecisionsRefused",
        "HighErrorRate",
        when="one decision in ten is refused",
        changes={
            'publish_refused_decisions_total{job="inference"}': _counted(60, before=0),
            f'http_request_duration_seconds_count{{{PREDICT},status="503"}}': _counted(
                60, before=0
            ),
        },
    ),
    _fires(
        "DecisionsRefused",
        when="two decisions are refused, too few for a rate",
        changes={
            'publish_refused_decisions_total{job="inference"}': "2x300",
            f'http_request_duration_seconds_count{{{PREDICT},status="503"}}': "2x300",
        },
        within=3,
    ),
    _fires(
        "HighErrorRate",
        when="a service fails one request in fifty for eight minutes",
        changes={
            f'http_request_duration_seconds_count{{{PREDICT},status="500"}}': "0+12x300",
        },
        not_within=5,
    ),
    _fires(
        when="a service fails five requests in a thousand",
        changes={f'http_request_duration_seconds_count{{{PREDICT},status="500"}}': "0+3x300"},
        within=60,
    ),
    _fires("DeadLetters", when="an event is put aside", changes=_all("stream_dead", "1x300")),
    _fires(
        "ConsumerStalled",
        when="consumers answer and store nothing",
        changes={
            **_all("consumer_last_commit", _STOOD_STILL),
            **_all("stream_lag", "10+10x300"),
        },
        not_within=2,
    ),
    _fires(
        when="nothing comes in and so nothing is stored",
        changes={
            **_all("consumer_last_commit", _STOOD_STILL),
            **_all("stream_lag", "0x300"),
            **_all("stream_pending", "0x300"),
            **_all("decisions_total", "stale"),
            **_all(IMPUTED, "stale"),
        },
        within=14,
    ),
    _fires(
        "StreamBacklog",
        when="more comes in than is stored",
        changes=_all("stream_lag", "0+1000x300"),
        within=20,
        not_within=9,
    ),
    _fires(
        when="a burst that is stored within five minutes",
        changes=_all("stream_lag", "6000-1500x4 0x300"),
        within=4,
    ),
    _fires(
        "DecisionsPendingLong",
        when="a consumer holds an entry and does not let go",
        changes=_all("stream_oldest", "0+60x300"),
        not_within=2,
    ),
    _fires(
        "HandOverDegraded",
        when="decisions go by HTTP",
        changes=_all("publish_fallback", _counted(600, before=0)),
        not_within=1,
    ),
    _fires(
        "HandOverDegraded",
        "RateLimitsDegraded",
        "RedisDown",
        when="Redis is away",
        changes={
            **_all("stream_up", "0x300"),
            **{name: None for name in HEALTHY if name.startswith("stream_") and "_up" not in name},
            **_all("redis_", None),
            **_all("rate_limit_degraded", "1x300"),
            **_all("publish_fallback", _counted(600, before=0)),
        },
        not_within=1,
    ),
    _fires(
        "DatabaseDown",
        "ConsumerStalled",
        when="PostgreSQL is away",
        changes={
            **_all("database_up", "0x300"),
            **_all("database_size", None),
            **_all("stream_lag", "0+10x300"),
            **_all("consumer_last_commit", _STOOD_STILL),
        },
    ),
    _fires(
        "DatabaseDiskFull",
        "ConsumerStalled",
        when="the disk is full",
        changes={
            DISK_FULL: _counted(4, before=0),
            **_all("stream_lag", "0+10x300"),
            **_all("consumer_last_commit", _STOOD_STILL),
        },
    ),
    _fires(
        "TargetDown",
        when="one replica of two is gone",
        changes={'up{job="inference",instance="b:8000"}': "0x300"},
        not_within=1,
    ),
    _fires(
        "TargetDown",
        "ServiceGone",
        when="the only consumer answers no scrape",
        changes=_all('up{job="history-consumer"', "0x300"),
        not_within=0,
    ),
    *(
        _fires("ServiceGone", when=f"no {job} is found", changes=_all(f'up{{job="{job}"', None))
        for job in (
            "inference",
            "history",
            "history-consumer",
            "batch",
            "batch-worker",
            "dashboard",
        )
    ),
    _fires(
        "PredictSlow",
        when="one decision in fifty takes longer than 100 ms",
        changes=_all(
            f'http_request_duration_seconds_bucket{{{PREDICT},status="200",le="0.1"}}',
            f"{599 * _CHANGES_AT}+588x300",
        ),
        within=15,
        not_within=5,
    ),
    _fires(
        "NoDecisions",
        when="callers go away",
        changes={
            f'{DECIDED},outcome="approved"}}': _counted(0, before=420),
            f'{DECIDED},outcome="rejected"}}': _counted(0, before=180),
        },
        within=20,
        not_within=14,
    ),
    _fires(
        when="they have been away for two hours, as at night, and inference was restarted",
        changes={**_all("decisions_total", "stale"), **_all(IMPUTED, "stale")},
        within=150,
    ),
    _fires(
        "BatchesStalled",
        when="the worker hangs",
        changes=_all("batch_worker_seen", _STOOD_STILL),
        not_within=6,
    ),
    _fires(
        "BatchTurnsFail",
        when="turns of batches fail again and again",
        changes=_all("batch_failed_turns", _counted(6, before=0)),
        within=15,
        not_within=5,
    ),
    _fires(
        "RateLimitsDegraded",
        when="one process cannot share its limits",
        changes={'rate_limit_degraded{job="inference"}': "1x300"},
        not_within=1,
    ),
    _fires(
        "RedisMemoryHigh",
        when="Redis is nearly full",
        changes=_all("redis_memory", "350000000x300"),
        not_within=4,
    ),
    _fires(
        "HandOverDegraded",
        "RateLimitsDegraded",
        "RedisFull",
        "RedisMemoryHigh",
        when="Redis is full",
        changes={
            **_all("redis_full", "1x300"),
            **_all("redis_memory", "402653184x300"),
            **_all("rate_limit_degraded", "1x300"),
            **_all("publish_fallback", _counted(600, before=0)),
        },
    ),
    _fires(
        when="Redis has no limit",
        changes={
            **_all("redis_memory", "350000000x300"),
            **_all("redis_max_memory", "0x300"),
        },
        within=60,
    ),
    _fires(
        "DatabaseNearBudget",
        when="nine tenths of the budget are used",
        changes=_all("database_size", "90000000000x300"),
        within=15,
        not_within=9,
    ),
    _fires(
        "DatabaseFullSoon",
        when="the records grow by nearly the budget a day",
        changes=_all("database_size", "1000000000+60000000x300"),
        within=150,
        not_within=60,
    ),
    _fires(
        when="no budget is set",
        changes={
            **_all("database_size", "90000000000+25000000x300"),
            **_all("database_budget", None),
        },
        within=150,
    ),
    _fires(
        "DriftFound",
        when="amounts are no longer those of the training data",
        changes=_all("drift_psi{", "0.24x300"),
        within=70,
        not_within=59,
    ),
    _fires(
        when="an index is as high as chance makes it with few decisions",
        changes={**_all("drift_psi{", "0.13x300"), **_all("drift_psi_limit", "0.14x300")},
        within=70,
    ),
    _fires(
        "OutcomesWorse",
        when="fewer loans are repaid than the probabilities said",
        changes={
            f'outcome_good_ratio{{{OF_MODEL},bound="low"}}': "0.70x300",
            f'outcome_good_ratio{{{OF_MODEL},bound="high"}}': "0.78x300",
        },
        within=70,
        not_within=59,
    ),
    *(
        _fires(
            "GroupOutsideScreen",
            when=f"a group is approved far {how} often than the largest one",
            changes={
                f'fairness_selection_rate_ratio{{{OF_GROUP},bound="low"}}': f"{low}x300",
                f'fairness_selection_rate_ratio{{{OF_GROUP},bound="high"}}': f"{high}x300",
            },
            within=70,
            not_within=59,
        )
        for how, low, high in (("less", 0.6, 0.75), ("more", 1.3, 1.5))
    ),
    _fires(
        "BundlesDiffer",
        when="one replica serves another bundle",
        changes={
            'bundle_info{job="inference",instance="b:8000",version="b-1"}': None,
            'bundle_info{job="inference",instance="b:8000",version="b-2"}': "1x300",
        },
        within=20,
        not_within=14,
    ),
    _fires(
        "RolloutNotLoaded",
        when="one replica cannot load a roll-out",
        changes=_all("rollout_load_failures", "1x300"),
    ),
    _fires(
        "RolloutNotLoaded",
        when="one replica does not serve the roll-out in force",
        changes=_all("rollout_active_epoch", "4x300"),
        not_within=0,
    ),
    _fires(
        "CandidateShareTakenAway",
        when="the guard acts once",
        changes=_all("rollout_guard_actions", "1x300"),
    ),
    _week(
        "half are approved instead of seven in ten",
        _decided(approved=20, rejected=20),
        "ApprovalShareShifted",
    ),
    _week(
        "the same applicants for seven hours longer, then two in three are approved",
        _decided(approved=26, rejected=14, begun=_STEPS_IN_8_DAYS + 42),
        begun=_STEPS_IN_8_DAYS + 42,
    ),
    _week(
        "a caller no longer sends the credit history",
        {f'{IMPUTED}{{job="inference",input="Credit_History"}}': f"{4 * _STEPS_IN_8_DAYS}+16x300"},
        "ImputedInputsShifted",
    ),
    _week(
        "a caller no longer sends the term, which no caller left out before",
        {f'{IMPUTED}{{job="inference",input="Loan_Amount_Term"}}': "0+16x300"},
        "ImputedInputsShifted",
    ),
)
