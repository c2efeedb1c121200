"""All services keep what their OpenAPI documents say, whatever schemathesis thinks of.

Every check it has is on, with input that fits the document and input that does not: ``make test``
tries each boundary of the schemas; ``make fuzz``, which is part of the whole gate, random input and
sequences of requests, too.
"""

import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import System, running_batches

pytestmark = pytest.mark.system

_ROOT = Path(__file__).parents[2]
_CONFIG = Path(__file__).with_name("schemathesis.toml")
_EXAMPLES = os.environ.get("FUZZ_EXAMPLES")
"""Most random ones of one operation; none without it."""
_TIMEOUT_S = 300 + float(_EXAMPLES or 0) * 3
_SEED = os.environ.get("FUZZ_SEED", "20261125")

WEBHOOK_HOST = "127.0.0.1:9"
"""The host that webhooks of the fuzzed service may go to; nothing listens there."""


@pytest.mark.timeout(_TIMEOUT_S)
@pytest.mark.parametrize("service", ["inference", "history"])
def test_service_keeps_what_its_document_says(
    system: System, service: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """No status, header or body that is not described; valid is accepted, invalid refused."""
    url = system.inference_url if service == "inference" else system.history_url
    _fuzz(url, system, tmp_path, capfd)


@pytest.mark.timeout(_TIMEOUT_S)
def test_batch_service_keeps_what_its_document_says(
    system: System, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The same, with a worker that decides what is sent."""
    secret = base64.b64encode(bytes(24)).decode()
    with running_batches(
        system, logs=tmp_path, BATCH_WEBHOOK_HOSTS=WEBHOOK_HOST, BATCH_WEBHOOK_SECRET=secret
    ) as (url, _):
        # DELETE cancels a batch, which is there as cancelled until it expires.
        _fuzz(url, system, tmp_path, capfd, "--exclude-checks", "use_after_free")


def _fuzz(
    url: str, system: System, folder: Path, capfd: pytest.CaptureFixture[str], *options: str
) -> None:
    command = [
        *(str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(_CONFIG)),
        *("run", f"{url}/openapi.json"),
        *("--checks", "all", "--mode", "all", "--continue-on-failure"),
        *("--seed", _SEED, "--generation-database", ":memory:"),
        *(("--max-examples", _EXAMPLES) if _EXAMPLES else ("--phases", "examples,coverage")),
        *("--header", f"X-API-Key: {system.api_key}", "--request-timeout", "10", "--no-color"),
        *options,
    ]
    env = os.environ | {
        "SCHEMATHESIS_HOOKS": "tests.robustness.hooks",
        "PYTHONPATH": str(_ROOT),
        # Else all variables are searched for a proxy, for each request.
        "NO_PROXY": "127.0.0.1",
        # Which characters there are takes seconds to find out, so it is kept for the next run.
        "HYPOTHESIS_STORAGE_DIRECTORY": str(_ROOT / ".hypothesis"),
    }
    done = subprocess.run(command, env=env, cwd=folder, check=False)
    said = capfd.readouterr().out
    print(said)
    assert done.returncode == 0, said[-4000:]
    assert "Coverage" in said
    assert ("✅ Fuzzing" in said) == (_EXAMPLES is not None)
