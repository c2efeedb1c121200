"""The unmodified stack of docker-compose.yml, under its own project name and port."""

import json
import os
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from shared.access import keys
from shared.access.api_keys import mint_key
from tests.harness import free_port

ROOT: Final = Path(__file__).parents[2]
HEALTHY_WITHIN_S: Final = 120.0
LIMITED_TO: Final = 60
"""Requests per hour of the key ``limited_key``."""
ANONYMOUS_LIMITED_TO: Final = 5
"""Requests per hour of one address without a key."""
BATCH_MAX_BYTES: Final = 100_000
"""Of one file, for the batch service and the gateway."""

_POLL_S: Final = 0.5
_COMMAND_TIMEOUT_S: Final = 900
# Must not collide with a stack that may be running on this machine.
_PROJECT: Final = "loan-predictor-test"
_SUBNET: Final = "10.213.78.0/24"


def run(*command: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command at the root of the repository; do not check its exit code."""
    return subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | (env or {}),
        text=True,
        capture_output=True,
        timeout=_COMMAND_TIMEOUT_S,
        check=False,
    )


def output_of(*command: str, env: Mapping[str, str] | None = None) -> str:
    """Run a command that must succeed; return its output."""
    done = run(*command, env=env)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
    return done.stdout


def compose_command() -> tuple[str, ...]:
    """Return Compose v2 where available, else docker-compose."""
    v2 = ("docker", "compose")
    return v2 if run(*v2, "version").returncode == 0 else ("docker-compose",)


class Stack:
    """The containers, and the API keys for them."""

    def __init__(self, folder: Path) -> None:
        self.env_file = folder / ".env"
        self._compose = compose_command()
        port, prometheus_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.prometheus_url = f"http://127.0.0.1:{prometheus_port}"
        self.limited_key, limited = mint_key("limited", ["predict"], f"{LIMITED_TO}/hour")
        text = keys.fill((ROOT / ".env.example").read_text())
        text = text.replace('API_KEYS="', f'API_KEYS="{limited} ')
        text = text.replace(
            "COMPOSE_PROJECT_NAME=loan-predictor", f"COMPOSE_PROJECT_NAME={_PROJECT}"
        )
        text += f"GATEWAY_PORT={port}\nGATEWAY_SUBNET={_SUBNET}\n"
        text += (
            f"PROMETHEUS_PORT={prometheus_port}\nALLOW_ANONYMOUS=true\n"
            f"RATE_LIMIT_PREDICT={ANONYMOUS_LIMITED_TO}/hour\nBATCH_MAX_BYTES={BATCH_MAX_BYTES}\n"
        )
        self.env_file.touch(mode=0o600)
        self.env_file.write_text(text)
        found = re.search("^API_KEY=(.+)$", text, re.MULTILINE)
        assert found
        self.api_key = found[1]

    def compose(
        self, *arguments: str, override: str | None = None, env: Mapping[str, str] | None = None
    ) -> str:
        """Run a compose command, with the file ``override``, if given, over the shipped one."""
        files = ["-f", "docker-compose.yml", *(("-f", override) if override else ())]
        command = [*self._compose, "--env-file", str(self.env_file), *files, *arguments]
        return output_of(*command, env=env)

    def script(self, path: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a shell script on the stack; do not check its exit code."""
        command = " ".join([*self._compose, "--env-file", str(self.env_file)])
        return run("sh", path, *arguments, env={"COMPOSE": command})

    def destroy(self) -> None:
        """Remove the containers and their data."""
        self.compose("--profile", "observability", "down", "--volumes", "--remove-orphans")

    def containers(self, service: str) -> list[str]:
        """Return the ids of all replicas of a service."""
        return self.compose("ps", "-a", "-q", service).split()

    def all_containers(self) -> dict[str, dict[str, Any]]:
        """Return the engine's description of one container of each service."""
        ids = self.compose("ps", "-a", "-q").split()
        found = json.loads(output_of("docker", "inspect", *ids))
        return {each["Config"]["Labels"]["com.docker.compose.service"]: each for each in found}

    def wait_healthy(self) -> None:
        """Wait until every container that has a health check passes it."""
        give_up_at_s = time.monotonic() + HEALTHY_WITHIN_S
        ids = self.compose("ps", "-a", "-q").split()
        while ailing := _ailing(ids):
            assert time.monotonic() < give_up_at_s, f"not healthy in time: {ailing}"
            time.sleep(_POLL_S)

    def network(self, name: str) -> str:
        """Return the engine's name for one of the stack's networks."""
        return f"{_PROJECT}_{name}"


def _ailing(ids: Sequence[str]) -> list[str]:
    form = "{{.Name}} {{.State.Status}} {{if .State.Health}}{{.State.Health.Status}}{{end}}"
    states = [
        line.split() for line in output_of("docker", "inspect", "--format", form, *ids).splitlines()
    ]
    # Only the migration has no health check; it has ended.
    return [
        " ".join(state) for state in states if state[1:] not in (["running", "healthy"], ["exited"])
    ]
