"""Tests of the registry and the roll-out."""
