"""The containers as they really run; `make compose-test`, for it needs a Docker engine."""
