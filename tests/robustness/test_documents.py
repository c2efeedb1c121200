"""All services keep what their OpenAPI documents say, whatever schemathesis thinks of.

Every check it has is on, with input that fits the document and input that does not. One seed, one
set of requests. ``make fuzz`` runs the same with more examples and a seed of the day's own, and the
whole gate runs it with five times the examples.
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
_EXAMPLES = os.environ.get("FUZZ_EXAMPLES", "10")
"""Most of one operation; the phase that tries every boundary of the schemas comes on top."""
_SEED = os.environ.get("FUZZ_SEED", "20261125")

WEBHOOK_HOST = "127.0.0.1:9"
"""The host that webhooks of the fuzzed service may go to; nothing listens there."""


@pytest.mark.timeout(float(_EXAMPLES) * 3 + 300)
@pytest.mark.parametrize("service", ["inference", "history"])
def test_service_keeps_what_its_document_says(
    system: System, service: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """No status, header or body that is not described; valid is accepted, invalid refused."""
    url = system.inference_url if service == "inference" else system.history_url
    _fuzz(url, system, tmp_path, capfd)


@pytest.mark.timeout(float(_EXAMPLES) * 3 + 300)
@pytest.mark.skipif("FUZZ_EXAMPLES" not in os.environ, reason="takes long: make fuzz does it")
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
        *("--max-examples", _EXAMPLES, "--seed", _SEED, "--generation-database", ":memory:"),
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
    assert "Fuzzing" in said
