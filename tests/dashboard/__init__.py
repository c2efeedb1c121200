"""Tests of the dashboard without a browser; those with one are in tests/browser."""
