"""Runs of ``wrk``, the load generator of the benchmark, and their results."""

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

NOT_INSTALLED: Final = "The benchmark needs wrk on the PATH: install it (Debian: apt install wrk)."
_TIMEOUT_S: Final = 30
_US_PER_S: Final = 1_000_000

# Requests are formatted once, so that the generator costs every contender the same, and little.
# wrk reports status codes above 399 as errors, and times in microseconds.
_SCRIPT: Final = """\
local method, path = [==[{method}]==], [==[{path}]==]
local headers = {{{headers}}}
local bodies = {{
{bodies}
}}
local requests, next_request = {{}}, 0

function init(args)
    local pause_ms = tonumber(args[1])
    if pause_ms > 0 then
        function delay() return pause_ms end
    end
    for i, body in ipairs(bodies) do
        requests[i] = wrk.format(method, path, headers, method ~= "GET" and body or nil)
    end
end

function request()
    next_request = next_request % #requests + 1
    return requests[next_request]
end

function done(summary, latency, requests)
    local errors = summary.errors
    io.write(string.format(
        '{{"requests":%d,"duration_us":%d,"p50_us":%d,"p99_us":%d,'
        .. '"errors":{{"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d}}}}\\n',
        summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
        errors.connect, errors.read, errors.write, errors.status, errors.timeout
    ))
end
"""


class NotMeasured(Exception):
    """Nothing valid was measured; the message says why."""


@dataclass(frozen=True)
class Run:
    """A run without a single error."""

    requests: int
    duration_s: float
    p50_s: float
    p99_s: float

    @property
    def rate(self) -> float:
        """Requests answered per second."""
        return self.requests / self.duration_s


@dataclass(frozen=True)
class Target:
    """A route to load, and the script with the requests to send to it in turn."""

    url: str
    path: str
    script: Path

    def run(self, *, connections: int, seconds: float, pause_ms: int = 0) -> Run:
        """Load the route from one thread; each connection pauses between answer and request.

        Raises ``NotMeasured`` if a single request fails.
        """
        done = subprocess.run(
            [
                *(executable(), "--threads", "1", "--connections", str(connections)),
                *("--duration", f"{round(seconds)}s", "--timeout", f"{_TIMEOUT_S}s"),
                *("--script", str(self.script), self.url, "--", str(pause_ms)),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise NotMeasured(f"wrk failed: {done.stderr.strip() or done.stdout.strip()}")
        return parse(done.stdout, what=f"{self.url}{self.path}")


def executable() -> str:
    """Return the path of wrk; raises ``NotMeasured`` if it is not installed."""
    found = shutil.which("wrk")
    if found is None:
        raise NotMeasured(NOT_INSTALLED)
    return found


def target(
    folder: Path,
    url: str,
    path: str,
    *,
    headers: Mapping[str, str],
    bodies: Sequence[str] = (),
) -> Target:
    """Return a route that receives the bodies by POST in turn, or GET if there are none.

    Sends the first request once; raises ``NotMeasured`` unless the answer is 200.
    """
    method = "POST" if bodies else "GET"
    content = bodies[0] if bodies else None
    answer = httpx.request(method, url + path, headers=headers, content=content, timeout=_TIMEOUT_S)
    if answer.status_code != 200:
        raise NotMeasured(f"{method} {url}{path} answers {answer.status_code}: {answer.text[:300]}")
    script = folder / f"wrk-{url.rpartition(':')[2]}{path.replace('/', '-')}.lua"
    script.write_text(_script(method, path, headers=headers, bodies=bodies or [""]))
    return Target(url, path, script)


def parse(output: str, *, what: str) -> Run:
    """Parse what wrk printed; raises ``NotMeasured`` if a request failed or none was answered."""
    lines = [line for line in output.splitlines() if line.startswith("{")]
    if len(lines) != 1:
        raise NotMeasured(f"{what}: wrk did not report: {output.strip()[-300:]}")
    report: dict[str, Any] = json.loads(lines[0])
    failed = {kind: count for kind, count in report["errors"].items() if count}
    if failed or not report["requests"]:
        errors = ", ".join(f"{count} {kind} errors" for kind, count in failed.items())
        raise NotMeasured(f"{what}: {errors or 'nothing'} among {report['requests']} answers")
    return Run(
        requests=report["requests"],
        duration_s=report["duration_us"] / _US_PER_S,
        p50_s=report["p50_us"] / _US_PER_S,
        p99_s=report["p99_us"] / _US_PER_S,
    )


def _script(method: str, path: str, *, headers: Mapping[str, str], bodies: Sequence[str]) -> str:
    return _SCRIPT.format(
        method=method,
        path=path,
        headers=", ".join(f"[ [==[{name}]==] ] = [==[{text}]==]" for name, text in headers.items()),
        bodies=",\n".join(f"    [==[{body}]==]" for body in bodies),
    )
