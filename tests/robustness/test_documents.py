"""Both services keep what their OpenAPI documents say, whatever schemathesis thinks of.

Every check it has is on, with input that fits the document and input that does not. One seed, one
set of requests. ``make fuzz`` runs the same with more examples and a seed of the day's own, and the
whole gate runs it with twice the examples.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import System

pytestmark = pytest.mark.system

_ROOT = Path(__file__).parents[2]
_CONFIG = Path(__file__).with_name("schemathesis.toml")
_EXAMPLES = os.environ.get("FUZZ_EXAMPLES", "25")
"""Most of one operation; the phase that tries every boundary of the schemas comes on top."""
_SEED = os.environ.get("FUZZ_SEED", "20261125")


@pytest.mark.timeout(float(_EXAMPLES) * 3 + 300)
@pytest.mark.parametrize("service", ["inference", "history"])
def test_service_keeps_what_its_document_says(
    system: System, service: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """No status, header or body that is not described; valid is accepted, invalid refused."""
    url = system.inference_url if service == "inference" else system.history_url
    command = [
        *(str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(_CONFIG)),
        *("run", f"{url}/openapi.json"),
        *("--checks", "all", "--mode", "all", "--continue-on-failure"),
        *("--max-examples", _EXAMPLES, "--seed", _SEED, "--generation-database", ":memory:"),
        *("--header", f"X-API-Key: {system.api_key}", "--request-timeout", "10", "--no-color"),
    ]
    env = os.environ | {
        "SCHEMATHESIS_HOOKS": "tests.robustness.hooks",
        "PYTHONPATH": str(_ROOT),
        # Which characters there are takes seconds to find out, so it is kept for the next run.
        "HYPOTHESIS_STORAGE_DIRECTORY": str(_ROOT / ".hypothesis"),
    }
    done = subprocess.run(command, env=env, cwd=tmp_path, check=False)
    said = capfd.readouterr().out
    print(said)
    assert done.returncode == 0, said[-4000:]
    assert "Coverage" in said
    assert "Fuzzing" in said
