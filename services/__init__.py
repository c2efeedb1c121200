"""The processes of the loan predictor; each subpackage is one of them."""

import os

import shared  # noqa: F401  # first of all: it makes starts faster

# ONNX Runtime reports its use to its maker unless it is told not to before it is first imported,
# and a decision service tells nobody. This runs before any service's module does.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
