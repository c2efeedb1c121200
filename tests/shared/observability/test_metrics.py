"""Names by the conventions, counting as the Prometheus client counts, and workers added up."""

import asyncio
import os
import random
import re
import signal
from collections import Counter as Count
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import httpx
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client import Histogram as TheirHistogram

from services.local import components as services
from services.local.processes import Process
from shared.observability.metrics import Metrics, Sample, Tally, names, workers
from shared.observability.metrics.names import BY_NAME, EXPORTED, Counter, Histogram, Metric
from shared.observability.metrics.samples import Distribution, snapshot, together
from shared.observability.metrics.workers import Place, take_place
from shared.web.performance import performance_of, quantile
from tests import keys
from tests.harness import HOST, free_port
from tests.prometheus import Exposition
from tests.waiting import until

_DECLARED = [value for value in vars(names).values() if isinstance(value, Metric)]


@pytest.mark.parametrize("metric", _DECLARED, ids=lambda metric: metric.name)
def test_name_follows_the_conventions(metric: Metric) -> None:
    """What promtool's lint would say, and a label never says what only one request has."""
    assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)+", metric.name)
    assert metric.name.endswith("_total") == isinstance(metric, Counter)
    assert not re.search(
        r"(milli|micro|nano|kilo|mega)|_(ms|us|minutes|hours|mib|kb)\b", metric.name
    )
    assert metric.help.endswith(".")
    for label in metric.labels:
        assert re.fullmatch(r"[a-z]+", label)
        assert label not in ("le", "quantile", "id", "client", "path", "request", "user")
        # Every label but the obvious ones is told of.
        assert label in ("method", "model") or f"{label}:" in metric.help
    if isinstance(metric, Histogram):
        assert list(metric.bounds) == sorted(set(metric.bounds))
        assert metric.bounds[0] > 0


def test_each_metric_is_declared_once_and_exported_by_some_process() -> None:
    """A name that stands twice, or for nothing, would mislead whoever makes a panel of it."""
    assert Count(metric.name for metric in _DECLARED).most_common(1)[0][1] == 1
    assert {metric.name for metric in _DECLARED} == BY_NAME.keys()
    assert set(EXPORTED) == {"inference", "history", "consumer", "dashboard"}


def test_tally_counts_as_the_prometheus_client_does() -> None:
    """Also a value that is a bound itself, and one beyond the last."""
    metric = names.DECISION_STAGE
    registry = CollectorRegistry()
    theirs = TheirHistogram(
        metric.name, metric.help, metric.labels, buckets=metric.bounds, registry=registry
    ).labels("model")
    ours = Tally(metric)
    rng = random.Random(1)  # noqa: S311 - test data, not a secret
    for value in (*metric.bounds, 100.0, *(rng.expovariate(1000) for _ in range(500))):
        theirs.observe(value)
        ours.add(value)
    metrics = Metrics()
    metrics.read_from(lambda: [Sample(metric, ours.value, ("model",))])

    def lines(text: bytes) -> list[str]:
        return sorted(
            line
            for line in text.decode().splitlines()
            if line.startswith("decision_stage_seconds_")
        )

    their_lines = [line for line in lines(generate_latest(registry)) if "_created" not in line]
    assert lines(generate_latest(metrics)) == their_lines


def test_workers_add_up_as_each_metric_declares() -> None:
    """Counters and histograms always; a gauge by its sum, its largest value, or as it is here."""
    own = snapshot(
        [
            Sample(names.PUBLISH_DECISIONS, 3),
            Sample(names.PUBLISH_GROUP, Distribution((1, 0, 0, 0, 0, 0, 0, 2), 150.0)),
            Sample(names.PROCESS_OPEN_FDS, 10),
            Sample(names.RATE_LIMIT_DEGRADED, 0),
            Sample(names.STREAM_ENTRIES, 5),
        ]
    )
    other = snapshot(
        [
            Sample(names.PUBLISH_DECISIONS, 4),
            Sample(names.PUBLISH_GROUP, Distribution((2, 1, 0, 0, 0, 0, 0, 0), 4.0)),
            Sample(names.PROCESS_OPEN_FDS, 11),
            Sample(names.RATE_LIMIT_DEGRADED, 1),
            Sample(names.STREAM_ENTRIES, 6),
            Sample(names.RATE_LIMIT_REJECTIONS, 2, ("key",)),
        ]
    )
    assert together(own, [other]) == snapshot(
        [
            Sample(names.PUBLISH_DECISIONS, 7),
            Sample(names.PUBLISH_GROUP, Distribution((3, 1, 0, 0, 0, 0, 0, 2), 154.0)),
            Sample(names.PROCESS_OPEN_FDS, 21),
            Sample(names.RATE_LIMIT_DEGRADED, 1),
            Sample(names.STREAM_ENTRIES, 5),
            Sample(names.RATE_LIMIT_REJECTIONS, 2, ("key",)),
        ]
    )


def _counts(decisions: int, fds: int = 10) -> list[Sample]:
    distribution = Distribution((decisions, 0, 0, 0, 0, 0, 0, 0), decisions)
    return [
        Sample(names.PUBLISH_DECISIONS, decisions),
        Sample(names.PUBLISH_GROUP, distribution),
        Sample(names.PROCESS_OPEN_FDS, fds),
    ]


def _write(place: Place, decisions: int) -> None:
    place.write(lambda: snapshot(_counts(decisions)))


def _told(place: Place, decisions: int) -> tuple[object, object, object]:
    """What a worker would answer of decisions, groups and open files."""
    own = place.write(lambda: snapshot(_counts(decisions)))
    said = together(own, place.others())
    series = (names.PUBLISH_DECISIONS, names.PUBLISH_GROUP, names.PROCESS_OPEN_FDS)
    decisions_, groups, fds = (said[metric.name, ()] for metric in series)
    return decisions_, groups.size if isinstance(groups, Distribution) else None, fds


def test_worker_goes_on_from_the_counts_of_the_dead_one_whose_place_it_takes(
    tmp_path: Path,
) -> None:
    """So nothing counts down, and restarts for years make no more files than there are workers."""
    first, second = take_place(tmp_path), take_place(tmp_path)
    _write(first, 5)
    assert _told(second, 2) == (7, 7, 20)
    first.leave()
    third = take_place(tmp_path)
    assert _told(second, 2) == (7, 7, 20)
    _write(third, 1)
    assert _told(second, 2) == (8, 8, 20)
    assert _told(third, 1) == (8, 8, 20)
    assert sorted(path.name for path in tmp_path.glob("*.json")) == ["0.json", "1.json"]
    for place in (second, third):
        place.leave()


def test_worker_that_no_longer_writes_keeps_its_counts_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The memory and files of a worker that is gone are no longer used."""
    first, second = take_place(tmp_path), take_place(tmp_path)
    _write(first, 5)
    first.leave()
    monkeypatch.setattr(workers, "monotonic", lambda: monotonic() + 10)
    assert _told(second, 2) == (7, 7, 10)
    second.leave()


def test_folder_that_cannot_be_written_to_is_said_once_and_changes_no_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Metrics are no reason to fail."""
    folder = tmp_path / "workers"
    folder.mkdir()
    place = take_place(folder)
    (folder / "0.lock").unlink()
    folder.rmdir()
    assert [_told(place, 5), _told(place, 6)] == [(5, 5, 10), (6, 6, 10)]
    (record,) = caplog.records
    assert "other workers are not told what is counted here" in record.getMessage()
    place.leave()


@contextmanager
def _two_workers(redis_url: str, logs: Path) -> Iterator[tuple[str, Process]]:
    """The address of an inference service with two workers, and the process above them."""
    port = free_port()
    env = services.environment(
        database_url="postgresql:///absent",
        redis_url=redis_url,
        inference_url=f"http://{HOST}:{port}",
        history_url=f"http://{HOST}:{free_port()}",
        api_key=keys.SECRET,
    )
    one = services.inference(env, host=HOST, port=port, logs=logs)

    def started() -> int:
        return one.log.read_text(errors="replace").count("Application startup complete")

    process = Process(
        "inference",
        [*one.command, "--workers", "2"],
        folder=logs,
        env=env,
        ready=lambda _pid: started() >= 2,
    )
    try:
        process.start()
        yield f"http://{HOST}:{port}", process
    finally:
        process.stop()
        print(process.log_tail())


def _ask(url: str, path: str) -> httpx.Response:
    """Ask on a connection of its own, so that it may be answered by any worker."""
    response = httpx.get(f"{url}{path}", headers={**keys.HEADERS, "connection": "close"})
    assert response.status_code == 200
    return response


def _models_asked(url: str) -> float:
    return Exposition(_ask(url, "/metrics").text).sum_of(
        "http_request_duration_seconds_count", route="/models"
    )


def _worker_pids(process: Process) -> list[int]:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(pid) for pid in children]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="who are the workers: needs /proc")
def test_any_worker_answers_for_all_and_a_killed_ones_counts_stay(
    redis_url: str, tmp_path: Path
) -> None:
    """N requests are N, whoever is asked, also of /performance, and after a worker was killed."""
    asked = 60
    with _two_workers(redis_url, tmp_path) as (url, process):
        workers_ = _worker_pids(process)
        assert len(workers_) == 2
        for _ in range(asked):
            _ask(url, "/models")
        # What another worker counted is told within about a second.
        until(lambda: _models_asked(url) == asked)
        assert {_models_asked(url) for _ in range(20)} == {asked}
        for _ in range(10):
            [models] = [
                route
                for route in _ask(url, "/performance").json()["routes"]
                if route["route"] == "/models"
            ]
            assert models["requests"] == asked
        for pid in workers_:
            _replace(process, pid, signal.SIGKILL)
            until(lambda: _answers(url))
            assert {_models_asked(url) for _ in range(10)} == {asked}
        for number, pid in enumerate(_worker_pids(process), start=1):
            _ask(url, "/models")
            # Told to end, a worker writes its last second down, too.
            _replace(process, pid, signal.SIGTERM)
            until(lambda: _answers(url))
            assert {_models_asked(url) for _ in range(10)} == {asked + number}
        folder = _folder_of(process)
        assert folder.is_dir()
    assert not folder.exists()


def _replace(process: Process, worker: int, number: signal.Signals) -> None:
    """End a worker by that signal; returns once there is another."""
    os.kill(worker, number)
    until(lambda: worker not in _worker_pids(process) and len(_worker_pids(process)) == 2)


def _answers(url: str) -> bool:
    try:
        return _ask(url, "/metrics").is_success
    except httpx.TransportError:
        return False


def _folder_of(process: Process) -> Path:
    [pid, *_] = _worker_pids(process)
    environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    [named] = [each for each in environment if each.startswith(b"METRICS_OF_WORKERS=")]
    return Path(named.partition(b"=")[2].decode())


def test_quantiles_are_as_prometheus_estimates_them() -> None:
    """Evenly within a bucket; beyond the last bound nothing is known but that bound."""
    bounds = (1.0, 2.0, 4.0)
    assert quantile(Distribution((0, 10, 0, 0), 15.0), bounds, 0.5) == 1.5
    assert quantile(Distribution((4, 4, 2, 0), 15.0), bounds, 0.9) == 3.0
    assert quantile(Distribution((4, 0, 4, 0), 15.0), bounds, 0.5) == 1.0
    assert quantile(Distribution((1, 0, 0, 99), 990.0), bounds, 0.99) == 4.0


def test_estimated_quantiles_are_within_their_bucket_of_the_true_ones() -> None:
    """The document says at most 1.67 times; and the mean is exact."""
    rng = random.Random(2)  # noqa: S311 - test data, not a secret
    durations = sorted(rng.lognormvariate(-6, 1) for _ in range(10_000))
    metrics = Metrics()
    for number, duration_s in enumerate(durations):
        status = 200 if number % 3 else 503
        metrics.observe_request("GET", "/r", status, duration_s)
    counted = asyncio.run(metrics.counted())
    [found] = performance_of(counted).routes
    assert (found.method, found.route, found.requests) == ("GET", "/r", 10_000)
    assert found.mean_ms == pytest.approx(sum(durations) / 10)
    for estimated, share in ((found.median_ms, 0.5), (found.p95_ms, 0.95), (found.p99_ms, 0.99)):
        true_ms = durations[int(share * 10_000) - 1] * 1000
        assert 1 / 1.67 < estimated / true_ms < 1.67
