"""Tests of the running containers. They need a Docker engine: `make compose-test`."""
