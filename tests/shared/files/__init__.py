"""Tests of the one reader of files."""
