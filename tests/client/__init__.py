"""Tests of the Python client, alone and against the shipped services."""
